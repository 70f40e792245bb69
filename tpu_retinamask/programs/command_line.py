"""The flags of every program, and their help; it imports no TensorFlow, so that a slip is told at once.

A program's flags are defined in a function, on a set of flags of its own: programs can be called one after another in
one process, and no flag is anyone's but its program's.
"""

import ast
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags as absl_flags

from tpu_retinamask.own_sources import parsed

Flags = absl_flags.FlagValues

MINUTES = 30.0  # of a training that nothing else is said of
CSV = "CSV: image,x1,y1,x2,y2,class,mask"
KINDS = f"COCO instances json, or {CSV}"


def train_flags(flags: Flags) -> None:
    """Define the flags of train."""
    _annotations(flags, "the training images", data_dir="--annotations, --val_annotations and --classes")
    _validation(flags)
    _val_share(flags)
    _string(flags, "model_dir", "Folder of checkpoints, events and configuration.", required=True)
    _minutes(flags, None)
    _string(
        flags,
        "weights",
        "Where a new run starts: a .h5 of keras-maskrcnn, keras-retinanet or keras.applications, a model directory or "
        "checkpoint of ours, or imagenet.",
    )
    _bool(flags, "skip_mismatched", "Start layers anew whose shapes differ from those of --weights.")
    _bool(
        flags,
        "keep_optimizer",
        "With --weights of a run of ours: take over its optimizer, step, place in the schedule and average as well.",
    )
    _string(
        flags,
        "tpu",
        'Cloud TPU to train on, "local" on a TPU VM, "fake:2x2" for a dry run without one; this machine\'s CPU or GPU '
        "otherwise.",
    )
    _integer(flags, "replicas", "GPUs of this machine to share each batch, or shares of its CPU where it has none.", 1)
    _runtime(flags, "the step")
    _string(
        flags,
        "data_service",
        "grpc://host:port of a dispatcher whose workers prepare the batches; see data_service.",
    )
    _bool(flags, "dry_run", "Check files, configuration and shapes, trace the training, then stop.")
    _bool(
        flags,
        "debug",
        "Run one step eagerly, print statistics of every tensor and name the first that is not finite, then stop.",
    )
    _gin(flags)


def plan_flags(flags: Flags) -> None:
    """Define the flags of plan."""
    _annotations(flags, "the training images", data_dir="--annotations, --val_annotations and --classes")
    _validation(flags)
    _val_share(flags)
    _string(flags, "model_dir", "Folder that plan.gin goes to, and train is given.", required=True)
    _minutes(flags, MINUTES)
    _string(flags, "tpu", "As of train.")
    _integer(flags, "replicas", "As of train.", 1)
    _runtime(flags, "the step")
    _gin(flags)


def evaluate_flags(flags: Flags) -> None:
    """Define the flags of evaluate."""
    _annotations(flags, "the images to score", classes="the run's own where not given")
    _string(
        flags, "split", "Which split of --data_dir, or of what --val_share of train divided, to score.", "validation"
    )
    _string(flags, "model_dir", "Folder written by train.")
    _string(flags, "predictions", "COCO results file to score by --coco_json; no model is run.")
    _string(
        flags,
        "coco_json",
        "COCO annotations file: scores --predictions, or the model in place of the boxes and masks of --annotations.",
    )
    _string(flags, "metrics", "Where the numbers go; MODEL_DIR/metrics.json where not given.")
    _checkpoint(flags)
    _runtime(flags, "detection")
    _allow_gin_imports(flags)
    _gin(flags)


def predict_flags(flags: Flags) -> None:
    """Define the flags of predict."""
    _string(flags, "images", "Image files: a folder, files, patterns in quotes; several with commas between them.")
    _string(flags, "model_dir", "Folder written by train.", required=True)
    _string(flags, "output_dir", "Folder for the pictures and predictions.json.", required=True)
    _threshold(
        flags,
        "Least score of what is drawn and goes into --formats, 0.5 or predict.draw_above where not given; "
        "predictions.json has all.",
    )
    absl_flags.DEFINE_list(
        "formats",
        None,
        "What is written beside predictions.json, with commas between: pictures, labelme, label_map, geojson, csv, or "
        "what a gin file imports; pictures, or predict.formats, where not given.",
        flag_values=flags,
    )
    _checkpoint(flags)
    _runtime(flags, "detection")
    _allow_gin_imports(flags)
    _gin(flags)


def serve_flags(flags: Flags) -> None:
    """Define the flags of serve."""
    _string(flags, "model_dir", "Folder written by train.", required=True)
    _string(
        flags,
        "host",
        "Address of this machine to listen on, 0.0.0.0 for all of them. Whoever reaches it is asked for no password.",
        "127.0.0.1",
    )
    _integer(flags, "port", "Port to listen on; 0: any that is free.", 8000, lower_bound=0, upper_bound=65535)
    absl_flags.DEFINE_list(
        "allowed_hosts",
        [],
        "Further names by which browsers ask for this server, with commas between: those of a proxy before it.",
        flag_values=flags,
    )
    _threshold(flags, "Least score that is told where a request names none, 0.5 or serve.threshold where not given.")
    _checkpoint(flags)
    _runtime(flags, "detection")
    _allow_gin_imports(flags)
    _gin(flags)


def export_flags(flags: Flags) -> None:
    """Define the flags of export."""
    _string(flags, "model_dir", "Folder written by train.", required=True)
    _string(flags, "output", "File or folder to write.", required=True)
    _string(
        flags,
        "format",
        "What to write: saved_model, stablehlo, tflite, onnx, numpy, or one that a gin file imports.",
        "numpy",
    )
    _checkpoint(flags)
    _allow_gin_imports(flags)
    _gin(flags)


def prepare_flags(flags: Flags) -> None:
    """Define the flags of prepare."""
    _annotations(flags, "the images to train on", data_dir="")
    _validation(flags)
    _string(flags, "data_dir", "Folder of the data set, local or gs://.", required=True)
    _string(
        flags,
        "beam_options",
        "Scan and write by Apache Beam with these options of its own, such as runner=DirectRunner,direct_num_workers=4,"
        "direct_running_mode=multi_processing; this process alone where not given.",
    )
    _bool(flags, "verify", "Compare every file of --data_dir with its checksum; write nothing.")
    _gin(flags)


def convert_flags(flags: Flags) -> None:
    """Define the flags of convert."""
    _string(flags, "annotations", f"What is converted: COCO instances, {CSV}, or any other kind that is read.")
    _string(flags, "format", "Kind of --annotations; recognised where not given.")
    _string(flags, "instances", "COCO instances file (convert coco).")
    _string(flags, "images", "Folder of the images; where --annotations says if not given.")
    _string(flags, "masks", "Folder that the label maps of a CSV go to.")
    _string(flags, "classes", "CSV of class names: read where it exists, written where it does not.")
    _string(flags, "output", "What to write: a CSV (.csv) or COCO instances (.json).")
    _gin(flags)


def inspect_data_flags(flags: Flags) -> None:
    """Define the flags of inspect_data."""
    _annotations(flags, "the images")
    _validation(flags, ": shown, and compared with those")
    _string(flags, "split", "Which split of --data_dir to show.", "train")
    _integer(flags, "batches", "Training batches to print the digests of.", 0, lower_bound=0)
    _string(flags, "output_dir", "Folder for pictures of these batches (of one without --batches).")
    _bool(flags, "shapes", "Print the shape and the bytes of every tensor of a forward pass.")
    _string(flags, "image_size", "HEIGHTxWIDTH of the network's input in pixels.")
    _integer(flags, "num_classes", "Number of classes, without background.", None, lower_bound=1)
    _integer(flags, "batch_size", "Images a batch.", 2, lower_bound=1)
    _gin(flags)


def benchmark_flags(flags: Flags) -> None:
    """Define the flags of benchmark."""
    absl_flags.DEFINE_enum(
        "mode", None, ["jit", "no_jit"], "Measure one mode only and print a line of JSON.", flag_values=flags
    )
    _runtime(flags, "the step")
    _gin(flags)


def benchmark_input_flags(flags: Flags) -> None:
    """Define the flags of benchmark_input."""
    _annotations(flags, "the images")
    _gin(flags)


def data_service_flags(flags: Flags) -> None:
    """Define the flags of data_service."""
    _integer(flags, "port", "Port to listen on.", None, lower_bound=1, upper_bound=65535)
    absl_flags.DEFINE_list(
        "workers", [], "Dispatcher: host:port of every worker, as the workers give it by --address.", flag_values=flags
    )
    _string(flags, "dispatcher", "Worker: host:port of the dispatcher.")
    _string(flags, "address", "Worker: host:port at which trainings reach it; this machine's name by default.")


def tpu_check_flags(flags: Flags) -> None:
    """Define the flags of tpu_check."""
    absl_flags.DEFINE_multi_string(
        "topology",
        [],
        "Chip to compile for, such as v5e or v5e:2x2; may be repeated. All generations otherwise.",
        flag_values=flags,
    )
    absl_flags.DEFINE_enum(
        "lowering",
        None,
        ["tpu", "host"],
        "Whose kernels lower the step: a TPU's, as --tpu=NAME does (where they are installed, the default), or the "
        "host's, as --runtime=pjrt does.",
        flag_values=flags,
    )
    _string(flags, "output_dir", "Folder of report.json.", "runs/tpu_check")
    _cache_dir(flags)
    _gin(flags)


PROGRAMS: dict[str, Callable[[Flags], None]] = {
    "train": train_flags,
    "plan": plan_flags,
    "evaluate": evaluate_flags,
    "predict": predict_flags,
    "export": export_flags,
    "serve": serve_flags,
    "prepare": prepare_flags,
    "convert": convert_flags,
    "inspect_data": inspect_data_flags,
    "benchmark": benchmark_flags,
    "benchmark_input": benchmark_input_flags,
    "data_service": data_service_flags,
    "tpu_check": tpu_check_flags,
}
# What a program may be told first, without dashes.
MODES = {"convert": ("coco", "csv"), "data_service": ("dispatcher", "worker")}
TAKES_FILES = ("predict",)  # programs that may be told files without a flag


def parse(program: str, arguments: Sequence[str]) -> tuple[Flags, list[str]]:
    """Return a program's flags and its arguments that are none.

    Raises:
      absl.flags.Error: an unknown flag, a value that does not fit, or a required one that is missing.
    """
    flags = Flags()
    absl_flags.DEFINE_bool("help", False, "Show this.", short_name="h", flag_values=flags)
    _bool(flags, "traceback", "Show where in the code an error of yours was found, as well as its message.")
    PROGRAMS[program](flags)
    flags.set_gnu_getopt()
    if {"--help", "-h", "--helpfull", "--helpshort", "-help"} & set(arguments):
        flags.mark_as_parsed()  # before anything is asked for
        flags.help = True
        return flags, []
    _, *rest = flags([program, *arguments])
    return flags, rest


def help_text(program: str, flags: Flags) -> str:
    """Return what a program does, as its module says, and its flags."""
    lines = [docstring(program).strip(), "", "flags:"]
    for name in sorted(flags):
        flag = flags[name]
        if flag.short_name == name:
            continue
        lines.append(f"  --{'[no]' if flag.boolean else ''}{name}: {flag.help}")
        if flag.default not in (None, False, []):
            lines.append(f"    (default: {flag.default})")
    return "\n".join(lines)


def docstring(program: str) -> str:
    """Return the docstring of a program's module, which is not imported for it."""
    return ast.get_docstring(parsed(f"tpu_retinamask.programs.{program}")) or program


def _annotations(flags: Flags, what: str, *, classes: str = "", data_dir: str = "--annotations and --classes") -> None:
    """Define the flags that say where annotated images come from."""
    _string(flags, "annotations", f"Where {what} are listed. {KINDS}.")
    _string(
        flags,
        "classes",
        "CSV of class names: name,id; " + (f"{classes}." if classes else "those of --annotations where not given."),
    )
    _string(flags, "format", "Kind of --annotations; recognised where not given.")
    _string(flags, "images", "Folder of their image files; where --annotations says if not given.")
    if data_dir:
        _string(flags, "data_dir", f"Folder written by prepare, in place of {data_dir}.")


def _validation(flags: Flags, what: str = " as --annotations") -> None:
    _string(flags, "val_annotations", f"Images to score, of the same kind{what}.")
    _string(flags, "val_images", "Folder of their image files, where it is another than --images.")


def _checkpoint(flags: Flags) -> None:
    _string(flags, "checkpoint", "Which weights: last, best (by mask AP, as train scored them) or a step.", "last")


def _runtime(flags: Flags, what: str) -> None:
    _string(
        flags,
        "runtime",
        f"What executes {what}: tensorflow, pjrt (any GPU or TPU that has a plugin of PJRT, or the CPU), or one that a "
        "gin file imports.",
        "tensorflow",
    )
    _cache_dir(flags)


def _threshold(flags: Flags, text: str) -> None:
    absl_flags.DEFINE_float("threshold", None, text, lower_bound=0.0, upper_bound=1.0, flag_values=flags)
    _finite(flags, "threshold")


def _val_share(flags: Flags) -> None:
    absl_flags.DEFINE_float(
        "val_share",
        None,
        "Share of the images of --annotations to score and not to train on, such as 0.2; split.csv tells which.",
        lower_bound=0.01,
        upper_bound=0.9,
        flag_values=flags,
    )
    _finite(flags, "val_share")


def _minutes(flags: Flags, default: float | None) -> None:
    absl_flags.DEFINE_float(
        "minutes",
        default,
        "Time that the training may take. Its settings are planned for these images, this machine and this time, "
        f"and written to plan.gin; so they are for {MINUTES:g} minutes where nothing says them."
        if default is None
        else "Time that the training may take.",
        lower_bound=0.5,
        upper_bound=1e5,
        flag_values=flags,
    )
    _finite(flags, "minutes")


def _finite(flags: Flags, name: str) -> None:
    absl_flags.register_validator(
        name, lambda value: value is None or math.isfinite(value), "expected a number", flag_values=flags
    )


def _cache_dir(flags: Flags) -> None:
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    _string(flags, "cache_dir", "Folder of compiled programs.", f"{caches}/tpu_retinamask")


def _allow_gin_imports(flags: Flags) -> None:
    _bool(
        flags,
        "allow_gin_imports",
        "Read config.gin of --model_dir in place of settings.json, and run the Python files that it imports: for a run "
        "with code of your own, or of someone you trust.",
    )


def _gin(flags: Flags) -> None:
    absl_flags.DEFINE_multi_string(
        "gin_file",
        [],
        "Configuration file, by path or by its name in the project's gin folder (run/nuclei_demo.gin). May be "
        "repeated; later files win.",
        flag_values=flags,
    )
    absl_flags.DEFINE_multi_string(
        "gin_param",
        [],
        "One setting, such as \"RetinaMask.backbone = 'resnet101'\". May be repeated; wins over files.",
        flag_values=flags,
    )


def _string(flags: Flags, name: str, text: str, default: str | None = None, *, required: bool = False) -> None:
    absl_flags.DEFINE_string(name, default, text, flag_values=flags, required=required)


def _bool(flags: Flags, name: str, text: str) -> None:
    absl_flags.DEFINE_bool(name, False, text, flag_values=flags)


def _integer(flags: Flags, name: str, text: str, default: int | None, **bounds: Any) -> None:
    absl_flags.DEFINE_integer(name, default, text, flag_values=flags, **bounds)
