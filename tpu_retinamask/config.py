"""What the programs share: gin configuration, flags, logging, and the way user errors are shown.

Flags say where, gin says what. The classes below are configurable by their own names, so that a gin
file reads like their constructors: `RetinaMask.backbone = 'resnet101'`.
"""

import functools
import logging
import os
import sys
from pathlib import Path

from tpu_retinamask.startup import expect_no_tpu, import_tensorflow_quietly

if any(argument.split("=")[-1].startswith("fake:") for argument in sys.argv[1:]):  # --tpu=fake:2x2
    expect_no_tpu()
import_tensorflow_quietly()  # before any import of ours brings it in

# pylint: disable=wrong-import-position
from absl import app, flags
from absl import logging as absl_logging

import gin
from tpu_retinamask.data.annotations.csv_annotations import AnnotationError
from tpu_retinamask.data.augment import augmentation as augment
from tpu_retinamask.data.stream import pipeline
from tpu_retinamask.errors import NonFiniteLossError, UserError
from tpu_retinamask.files import write_atomically
from tpu_retinamask.model import losses, postprocess, retinamask
from tpu_retinamask.training import optimizers


def _configurable(target):
    configured = gin.external_configurable(target, target.__name__, module="tpu_retinamask")

    @functools.wraps(target, updated=())
    def build(*args, **kwargs):
        try:
            return configured(*args, **kwargs)
        except (TypeError, ValueError) as error:  # a value that the configuration gave, or should have given
            raise UserError(f"{target.__name__}: {error}") from error

    return build


RetinaMask = _configurable(retinamask.RetinaMask)
Criterion = _configurable(losses.Criterion)
DetectionFilter = _configurable(postprocess.DetectionFilter)
InputPipeline = _configurable(pipeline.InputPipeline)
Augmentation = _configurable(augment.Augmentation)
make_optimizer = _configurable(optimizers.make_optimizer)

flags.disclaim_key_flags()  # the flags defined here belong to the program that asks for them, so --help shows them

log = logging.getLogger("tpu_retinamask")  # the project's own; libraries stay at warnings

CONFIG_FILE, OPERATIVE_FILE = "config.gin", "operative_config.gin"
# Each knows its own settings and passes over those of the others.
PROGRAMS = ("train", "evaluate", "predict", "benchmark", "prepare", "convert", "benchmark_input", "tpu_check")


def define_gin_flags():
    """Define --gin_file and --gin_param."""
    flags.DEFINE_multi_string(
        "gin_file",
        [],
        "Configuration file, by path or by its name in the project's gin folder "
        "(run/nuclei_demo.gin). May be repeated; later files win.",
    )
    flags.DEFINE_multi_string(
        "gin_param", [], "One setting, such as \"RetinaMask.backbone = 'resnet101'\". May be repeated; wins over files."
    )


def gin_folder() -> Path:
    """Return the folder of the project's gin files, in a checkout as in an installed wheel."""
    here = Path(__file__).resolve().parent
    installed = here / "configs"
    return installed if installed.is_dir() else here.parent / "gin"


def find_gin_file(name: str) -> str:
    """Return the path of a gin file given by path or by its name in the project's gin folder.

    Raises:
      UserError: there is none; lists the project's own.
    """
    for candidate in (Path(name), gin_folder() / name, gin_folder() / f"{name}.gin"):
        if candidate.is_file():
            return str(candidate.resolve())
    known = sorted(str(path.relative_to(gin_folder())) for path in gin_folder().rglob("*.gin"))
    raise UserError(f"--gin_file {name}: no such file, here or in the project's gin folder, which holds {known}")


def parse_gin(files, params, *, model_dir: str | None = None):
    """Parse gin files and settings, optionally upon those that a run has written down.

    Raises:
      UserError: a file is missing or a setting names something unknown.
    """
    import tensorflow as tf  # gfile reads gs:// as well

    gin.clear_config()
    gin.add_config_file_search_path(str(gin_folder()))
    # Instead of gin's own: it takes `model/small.gin` for a file of a package `model` and fails where a folder lies
    # about that has this name.
    gin.config._FILE_READERS[:] = [(open, os.path.isfile), (tf.io.gfile.GFile, tf.io.gfile.exists)]
    paths = [find_gin_file(name) for name in files]
    if model_dir is not None:
        recorded = [os.path.join(model_dir, name) for name in (CONFIG_FILE, OPERATIVE_FILE)]
        if not tf.io.gfile.exists(recorded[0]):
            raise UserError(
                f"--model_dir {model_dir}: holds no {CONFIG_FILE}, so no training was started there. "
                "Give the directory that was given to train."
            )
        paths = [path for path in recorded if tf.io.gfile.exists(path)] + paths
    absl_logging.set_verbosity(absl_logging.FATAL)  # gin reports every folder it looks into, some as errors
    try:
        gin.parse_config_files_and_bindings(paths, list(params), skip_unknown=PROGRAMS)
    except (ValueError, SyntaxError, OSError, AttributeError) as error:
        raise UserError(f"gin configuration: {error}") from error
    finally:
        absl_logging.set_verbosity(absl_logging.WARNING)


def write_config(model_dir: str):
    """Write what was configured, and what was in force with all defaults, into the model directory."""
    for name, text in ((CONFIG_FILE, gin.config_str()), (OPERATIVE_FILE, gin.operative_config_str())):
        write_atomically(os.path.join(model_dir, name), text)


def run_program(main):
    """Run a program: parse flags, log plainly, show a user's mistake without a traceback."""

    def guarded(argv):
        if len(argv) > 1:
            raise app.UsageError(f"unknown arguments: {argv[1:]}; every option is a flag, --name=value")
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
        try:
            main()
        except (UserError, AnnotationError, NonFiniteLossError, FileNotFoundError) as error:
            message = str(error).split("\n  In call to configurable", maxsplit=1)[0]  # gin's own traceback
            print(f"error: {message}", file=sys.stderr)
            sys.exit(2)

    app.run(guarded)
