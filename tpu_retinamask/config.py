"""gin: the names by which it knows our settings, the files it is read from, and what a run writes down.

Flags say where, gin says what. A setting is a field of one of the dataclasses below, by the name that stands beside it:
`RetinaMask.backbone = 'resnet101'`, `train.epochs = 12`.
"""

import dataclasses
import functools
import importlib
import inspect
import logging
import os
import re
import tokenize
from collections.abc import Callable, Sequence
from typing import Any

import gin
import tensorflow as tf
from absl import logging as absl_logging

from tpu_retinamask.data.augment.augmentation import Augmentation as _Augmentation
from tpu_retinamask.data.sources.settings import SourceSettings as _SourceSettings
from tpu_retinamask.data.stream.pipeline import InputPipeline as _InputPipeline
from tpu_retinamask.earlier import earlier_settings
from tpu_retinamask.errors import SettingError, UserError
from tpu_retinamask.file_kinds import refuse_no_file
from tpu_retinamask.files import read_text
from tpu_retinamask.gin_files import find_gin_file, gin_folder
from tpu_retinamask.model import retinamask
from tpu_retinamask.model.losses import Criterion as _Criterion
from tpu_retinamask.model.postprocess import DetectionFilter as _DetectionFilter
from tpu_retinamask.model.settings import NetworkSettings as _NetworkSettings
from tpu_retinamask.plain_settings import is_plain, to_bindings, to_json
from tpu_retinamask.private import gin_names
from tpu_retinamask.recipe import Recipe
from tpu_retinamask.reports.settings import ReportSettings as _ReportSettings
from tpu_retinamask.setting_names import advice, flag, refuse_bare_names
from tpu_retinamask.training.optimizers import OptimizerSettings as _OptimizerSettings
from tpu_retinamask.training.settings import TrainSettings as _TrainSettings

log = logging.getLogger(__name__)

# gin's name of each settings class.
SETTINGS: dict[str, type] = {
    "RetinaMask": _NetworkSettings,
    "Criterion": _Criterion,
    "DetectionFilter": _DetectionFilter,
    "InputPipeline": _InputPipeline,
    "source": _SourceSettings,
    "Augmentation": _Augmentation,
    "make_optimizer": _OptimizerSettings,
    "train": _TrainSettings,
    "report": _ReportSettings,
}
# The part of a recipe, and gin's name of its class.
PARTS = {
    "network": "RetinaMask",
    "criterion": "Criterion",
    "detection_filter": "DetectionFilter",
    "source": "source",
    "pipeline": "InputPipeline",
    "optimizer": "make_optimizer",
    "train": "train",
}
# Programs with settings of their own; each knows its own and passes over those of the others.
PROGRAMS = (
    "evaluate",
    "predict",
    "export",
    "serve",
    "benchmark",
    "prepare",
    "convert",
    "benchmark_input",
    "tpu_check",
)
CONFIG_FILE, OPERATIVE_FILE = "config.gin", "operative_config.gin"  # for people; reading them runs what they import
SETTINGS_FILE = "settings.json"  # what is read of a run by those who use its model


def _configurable(name: str) -> Callable[..., Any]:
    target = SETTINGS[name]
    configured = gin.external_configurable(target, name, module="tpu_retinamask")

    @functools.wraps(target, updated=())
    def build(*args: object, **kwargs: object) -> object:
        try:
            return configured(*args, **kwargs)
        except SettingError as error:  # a value that the configuration gave
            raise SettingError(f"{name}: {_without_gins_words(error)}") from error

    return build


NetworkSettings = _configurable("RetinaMask")
Criterion = _configurable("Criterion")
DetectionFilter = _configurable("DetectionFilter")
SourceSettings = _configurable("source")
InputPipeline = _configurable("InputPipeline")
Augmentation = _configurable("Augmentation")
OptimizerSettings = _configurable("make_optimizer")
TrainSettings = _configurable("train")
ReportSettings = _configurable("report")


def RetinaMask(num_classes: int) -> retinamask.RetinaMask:  # the name that gin has
    """Build the network that the configuration describes.

    Raises:
      SettingError: a part refuses a setting.
    """
    settings = NetworkSettings()
    try:
        return retinamask.RetinaMask(num_classes, settings)
    except SettingError as error:
        raise SettingError(f"RetinaMask: {error}") from error


def make_optimizer(total_steps: int, *, batch_size: int | None = None) -> Any:
    """Build the optimizer that the configuration describes; see `OptimizerSettings.build`."""
    return OptimizerSettings().build(total_steps, batch_size)


def recipe() -> Recipe:
    """Return all that the configuration says of a training.

    Raises:
      SettingError: a value that a setting cannot have; names it.
    """
    if re.search(r"\bAugmentation\.", gin.config_str()):
        Augmentation()  # looked at even where nothing asks for it
    return Recipe(
        network=NetworkSettings(),
        criterion=Criterion(),
        detection_filter=DetectionFilter(),
        source=SourceSettings(),
        pipeline=InputPipeline(),
        optimizer=OptimizerSettings(),
        train=TrainSettings(),
    )


def parse_gin(
    files: Sequence[str],
    params: Sequence[str],
    *,
    model_dir: str | None = None,
    resumed: str | None = None,
    planned: str = "",
    allow_imports: bool = False,
) -> None:
    """Parse gin files and settings, optionally upon those that a run has written down.

    Args:
      files: paths, or names in the project's gin folder.
      params: single settings; they win.
      model_dir: of the run whose settings hold where nothing else is said.
      planned: text of a plan, which all else wins over.
      allow_imports: read the gin files of `model_dir` in place of its settings.json, and run what they import.
      resumed: of a run that may be there and goes on with what is said now; settings that it does not know keep what
        they were (`earlier`).

    Raises:
      UserError: a file is missing, a setting names something unknown, or a file of `model_dir` would run code.
    """
    gin.clear_config()
    gin.add_config_file_search_path(str(gin_folder()))
    # Instead of gin's own: it takes `recipe/small.gin` for a file of a package `recipe` and fails where a folder lies
    # about that has this name.
    texts = gin_names.read_files_by([(open, os.path.isfile), (_open, tf.io.gfile.exists)])
    paths, place = [find_gin_file(name) for name in files], "gin configuration"
    of_run: list[str] = []
    if model_dir is not None:
        recorded, of_run = _recorded(model_dir, allow_imports)
        paths = recorded + paths
    absl_logging.set_verbosity(absl_logging.FATAL)  # gin reports every folder it looks into, some as errors
    earlier = model_dir or resumed
    bindings = earlier_settings(earlier, OPERATIVE_FILE) if earlier else {}
    try:
        place = os.path.join(model_dir, SETTINGS_FILE) if of_run and model_dir else place
        gin.parse_config([f"{name} = {value!r}" for name, value in bindings.items()] + of_run)
        place = os.path.join(resumed or "", "plan.gin")
        gin.parse_config(planned, skip_unknown=PROGRAMS)
        _refuse_missing_imports([planned])
        steps = given("train.steps")
        place = "gin configuration"
        gin.parse_config_files_and_bindings(paths, list(params), skip_unknown=PROGRAMS, finalize_config=False)
        if planned and given("train.epochs") is not None and given("train.steps") == steps:
            gin.parse_config("train.steps = None")  # epochs are given, and win over the steps of the plan
        _refuse_missing_imports([*texts, *params])
        gin.finalize()
    except RecursionError as error:
        raise UserError(f"{place}: files that include one another, or brackets in brackets") from error
    except (
        tokenize.TokenError,
        ValueError,
        SyntaxError,
        OSError,
        AttributeError,
        ImportError,
        KeyError,
        tf.errors.OpError,
    ) as error:
        text = gin_names.told(error)
        for param in params:
            if _is_no_line(param, error):  # by itself: gin tells of a line, counted in all settings together
                place, text = f'--gin_param="{param.strip()}"', re.sub(r" \(line \d+\)", "", text)
                break
        raise UserError(f"{place}: {text}{advice(text, known_settings())}") from error
    finally:
        absl_logging.set_verbosity(absl_logging.WARNING)
    refuse_bare_names(params, texts, known_settings())
    if model_dir is None:  # a run that was started without a look at it is used as it was
        _refuse_unused_augmentation()


def _open(path: str) -> tf.io.gfile.GFile:
    refuse_no_file(path)
    return tf.io.gfile.GFile(path)


def _recorded(model_dir: str, allow_imports: bool) -> tuple[list[str], list[str]]:
    """Return the gin files that a run has written down, or the lines of its settings.json; code is in neither."""
    place = os.path.join(model_dir, SETTINGS_FILE)
    paths = [os.path.join(model_dir, name) for name in (CONFIG_FILE, OPERATIVE_FILE)]
    there = [path for path in paths if tf.io.gfile.exists(path)]
    told = {path: gin_names.code_in(read_text(path), SETTINGS) for path in there if not allow_imports}
    code = next(((path, found) for path, found in told.items() if found), None)
    if tf.io.gfile.exists(place) and not allow_imports:
        if code:
            log.warning(
                "%s has %s, which is code and is not run: %s is read. If you trust it, --allow_gin_imports runs it",
                code[0],
                ", ".join(code[1][:3]),
                SETTINGS_FILE,
            )
        return [], to_bindings(read_text(place), place, SETTINGS)
    if paths[0] not in there:
        raise UserError(
            f"--model_dir {model_dir}: holds no {CONFIG_FILE}, so no training was started there. "
            "Give the directory that was given to train."
        )
    if code:
        raise UserError(
            f"{code[0]} has {', '.join(code[1][:3])}, which is code that would be run. If you trust it, add "
            "--allow_gin_imports"
        )
    return there, []


def _is_no_line(param: str, error: Exception) -> bool:
    """Tell whether a single setting, read alone, has the slip that was met."""
    if not isinstance(error, SyntaxError | tokenize.TokenError):
        return False
    try:
        gin.parse_config(param, skip_unknown=True)
    except (SyntaxError, tokenize.TokenError):
        return True
    except Exception:  # another slip, which is told once this one is gone
        return False
    return False


def _refuse_missing_imports(texts: Sequence[str]) -> None:
    """Refuse imports of what there is not, which gin passes over where it passes over other names."""
    for text in texts:
        for name in re.findall(r"^[ \t]*import[ \t]+([\w.]+)", text, re.MULTILINE):
            importlib.import_module(name)


def _refuse_unused_augmentation() -> None:
    text = gin.config_str()
    if re.search(r"^Augmentation\.", text, re.MULTILINE) and "InputPipeline.augmentation" not in text:
        raise UserError(
            "Augmentation is set and nothing uses it: add "
            + flag("InputPipeline.augmentation", "@Augmentation()")
            + ", or the same line to the gin file"
        )


def given(setting: str) -> Any:
    """Return what the configuration says of a setting; None: nothing."""
    try:
        return gin.query_parameter(setting)
    except ValueError:
        return None


def known_settings() -> dict[str, list[str]]:
    """Return the names of all settings by their owner: those of the classes, and of the programs that are imported."""
    known = {name: [field.name for field in dataclasses.fields(kind)] for name, kind in SETTINGS.items()}
    for program in PROGRAMS:
        try:
            arguments = inspect.signature(gin.get_configurable(program)).parameters.values()
        except ValueError:  # another program is run
            continue
        known[program] = [one.name for one in arguments if one.default is not inspect.Parameter.empty]
    return known


def reading(*, on_bad_record: str | None = None, exif_orientation: str | None = None) -> _SourceSettings:
    """Return how annotated images are read, for a program of whichever kind.

    Args:
      on_bad_record: the program's own setting of this name, from before there was `source`; None: not given.
      exif_orientation: likewise.

    Raises:
      SettingError: a value that a setting cannot have; names it.
    """
    given = SourceSettings().overridden(on_bad_record=TrainSettings().on_bad_record)
    return given.overridden(on_bad_record=on_bad_record, exif_orientation=exif_orientation)


def with_earlier(given: Recipe, model_dir: str) -> Recipe:
    """Return a recipe made in Python with what a run in the directory has in place of settings it does not know."""
    parts = {name: part for part, name in PARTS.items()}
    for name, value in earlier_settings(model_dir, OPERATIVE_FILE).items():
        part, field = name.split(".")
        settings = getattr(given, parts[part])
        if getattr(settings, field) == type(settings).__dataclass_fields__[field].default:
            given = dataclasses.replace(given, **{parts[part]: dataclasses.replace(settings, **{field: value})})
    return given


def config_files() -> dict[str, str]:
    """Return what a run writes down, name to text: what was configured, and what is in force with all defaults."""
    return {
        CONFIG_FILE: gin.config_str(),
        OPERATIVE_FILE: gin.operative_config_str(),
        SETTINGS_FILE: _settings_json(recipe()),
    }


def recipe_files(written: Recipe) -> dict[str, str]:
    """Return the same for a recipe made in Python; functions, which gin would have to import, are left out."""
    parts = {name: getattr(written, part) for part, name in PARTS.items()}
    texts = {
        file: "".join(f"{line}\n" for name, part in parts.items() for line in _lines(name, part, every=every))
        for file, every in ((CONFIG_FILE, False), (OPERATIVE_FILE, True))
    }
    return texts | {SETTINGS_FILE: _settings_json(written)}


def _settings_json(written: Recipe) -> str:
    parts = {name: getattr(written, part) for part, name in PARTS.items()}
    return to_json(parts, {kind: name for name, kind in SETTINGS.items()})


def _lines(name: str, settings: Any, *, every: bool, scope: str = "") -> list[str]:
    """Return `NAME.field = value` for each field that differs from its default, or for every one."""
    names = {settings_class: name for name, settings_class in SETTINGS.items()}
    lines = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if not every and value == field.default:
            continue
        if type(value) in names:  # an object of its own, whose scope tells it from others of its class
            inner, own = names[type(value)], f"{field.name}/"
            lines.append(f"{scope}{name}.{field.name} = @{own}{inner}()")
            lines += _lines(inner, value, every=every, scope=own)
        elif is_plain(value):
            lines.append(f"{scope}{name}.{field.name} = {value!r}")
    return lines


def _without_gins_words(error: Exception) -> str:
    """Return a message without what gin adds to it about the call."""
    return str(error).split("\n  In call to configurable", maxsplit=1)[0]
