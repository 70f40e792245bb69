"""The flags of every program, and their help; it imports no TensorFlow, so that a slip is told at once.

A program's flags are defined in a function, on a set of flags of its own: programs can be called one after another in
one process, and no flag is anyone's but its program's.
"""

import ast
from collections.abc import Callable, Sequence

from absl import flags as absl_flags

from tpu_retinamask.own_sources import parsed
from tpu_retinamask.programs import flag_kinds
from tpu_retinamask.programs.flag_kinds import CSV, MINUTES

Flags = absl_flags.FlagValues


def train_flags(flags: Flags) -> None:
    """Define the flags of train."""
    flag_kinds.annotations(flags, "the training images", data_dir="--annotations, --val_annotations and --classes")
    flag_kinds.validation(flags)
    flag_kinds.val_share(flags)
    flag_kinds.string(flags, "model_dir", "Folder of checkpoints, events and configuration.", required=True)
    flag_kinds.minutes(flags, None)
    flag_kinds.string(
        flags,
        "weights",
        "Where a new run starts: a .h5 of keras-maskrcnn, keras-retinanet or keras.applications, a model directory or "
        "checkpoint of ours, or imagenet.",
    )
    flag_kinds.boolean(flags, "skip_mismatched", "Start layers anew whose shapes differ from those of --weights.")
    flag_kinds.boolean(
        flags,
        "keep_optimizer",
        "With --weights of a run of ours: take over its optimizer, step, place in the schedule and average as well.",
    )
    flag_kinds.string(
        flags,
        "tpu",
        'Cloud TPU to train on, "local" on a TPU VM, "fake:2x2" for a dry run without one; this machine\'s CPU or GPU '
        "otherwise.",
    )
    flag_kinds.integer(
        flags, "replicas", "GPUs of this machine to share each batch, or shares of its CPU where it has none.", 1
    )
    flag_kinds.runtime(flags, "the step")
    flag_kinds.string(
        flags,
        "data_service",
        "grpc://host:port of a dispatcher whose workers prepare the batches; see data_service.",
    )
    flag_kinds.boolean(flags, "dry_run", "Check files, configuration and shapes, trace the training, then stop.")
    flag_kinds.boolean(
        flags,
        "debug",
        "Run one step eagerly, print statistics of every tensor and name the first that is not finite, then stop.",
    )
    flag_kinds.gin(flags)


def plan_flags(flags: Flags) -> None:
    """Define the flags of plan."""
    flag_kinds.annotations(flags, "the training images", data_dir="--annotations, --val_annotations and --classes")
    flag_kinds.validation(flags)
    flag_kinds.val_share(flags)
    flag_kinds.string(flags, "model_dir", "Folder that plan.gin goes to, and train is given.", required=True)
    flag_kinds.minutes(flags, MINUTES)
    flag_kinds.string(flags, "tpu", "As of train.")
    flag_kinds.integer(flags, "replicas", "As of train.", 1)
    flag_kinds.runtime(flags, "the step")
    flag_kinds.gin(flags)


def evaluate_flags(flags: Flags) -> None:
    """Define the flags of evaluate."""
    flag_kinds.annotations(flags, "the images to score", classes="the run's own where not given")
    flag_kinds.string(
        flags, "split", "Which split of --data_dir, or of what --val_share of train divided, to score.", "validation"
    )
    flag_kinds.string(flags, "model_dir", "Folder written by train.")
    flag_kinds.string(flags, "predictions", "COCO results file to score by --coco_json; no model is run.")
    flag_kinds.string(
        flags,
        "coco_json",
        "COCO annotations file: scores --predictions, or the model in place of the boxes and masks of --annotations.",
    )
    flag_kinds.string(flags, "metrics", "Where the numbers go; MODEL_DIR/metrics.json where not given.")
    flag_kinds.boolean(
        flags, "report", "Write report.html, to be looked at, and thresholds.json, by class, beside the numbers."
    )
    flag_kinds.checkpoint(flags)
    flag_kinds.runtime(flags, "detection")
    flag_kinds.allow_gin_imports(flags)
    flag_kinds.gin(flags)


def predict_flags(flags: Flags) -> None:
    """Define the flags of predict."""
    flag_kinds.string(
        flags, "images", "Image files: a folder, files, patterns in quotes; several with commas between them."
    )
    flag_kinds.string(flags, "model_dir", "Folder written by train.", required=True)
    flag_kinds.string(flags, "output_dir", "Folder for the pictures and predictions.json.", required=True)
    flag_kinds.threshold(
        flags,
        "Least score of what is drawn and goes into --formats, 0.5 or predict.draw_above where not given; "
        "predictions.json has all.",
    )
    flag_kinds.thresholds(flags, "In place of --threshold")
    absl_flags.DEFINE_list(
        "formats",
        None,
        "What is written beside predictions.json, with commas between: pictures, labelme, label_map, geojson, csv, or "
        "what a gin file imports; pictures, or predict.formats, where not given.",
        flag_values=flags,
    )
    flag_kinds.checkpoint(flags)
    flag_kinds.runtime(flags, "detection")
    flag_kinds.allow_gin_imports(flags)
    flag_kinds.gin(flags)


def serve_flags(flags: Flags) -> None:
    """Define the flags of serve."""
    flag_kinds.string(flags, "model_dir", "Folder written by train.", required=True)
    flag_kinds.string(
        flags,
        "host",
        "Address of this machine to listen on, 0.0.0.0 for all of them. Whoever reaches it is asked for no password.",
        "127.0.0.1",
    )
    flag_kinds.integer(flags, "port", "Port to listen on; 0: any that is free.", 8000, lower_bound=0, upper_bound=65535)
    absl_flags.DEFINE_list(
        "allowed_hosts",
        [],
        "Further names by which browsers ask for this server, with commas between: those of a proxy before it.",
        flag_values=flags,
    )
    flag_kinds.threshold(
        flags, "Least score that is told where a request names none, 0.5 or serve.threshold where not given."
    )
    flag_kinds.checkpoint(flags)
    flag_kinds.runtime(flags, "detection")
    flag_kinds.allow_gin_imports(flags)
    flag_kinds.gin(flags)


def export_flags(flags: Flags) -> None:
    """Define the flags of export."""
    flag_kinds.string(flags, "model_dir", "Folder written by train.", required=True)
    flag_kinds.string(flags, "output", "File or folder to write.", required=True)
    flag_kinds.string(
        flags,
        "format",
        "What to write: saved_model, stablehlo, tflite, onnx, numpy, or one that a gin file imports.",
        "numpy",
    )
    flag_kinds.thresholds(flags, "Objects below are left out by what is exported")
    flag_kinds.checkpoint(flags)
    flag_kinds.allow_gin_imports(flags)
    flag_kinds.gin(flags)


def prepare_flags(flags: Flags) -> None:
    """Define the flags of prepare."""
    flag_kinds.annotations(flags, "the images to train on", data_dir="")
    flag_kinds.validation(flags)
    flag_kinds.string(flags, "data_dir", "Folder of the data set, local or gs://.", required=True)
    flag_kinds.string(
        flags,
        "beam_options",
        "Scan and write by Apache Beam with these options of its own, such as runner=DirectRunner,direct_num_workers=4,"
        "direct_running_mode=multi_processing; this process alone where not given.",
    )
    flag_kinds.boolean(flags, "verify", "Compare every file of --data_dir with its checksum; write nothing.")
    flag_kinds.gin(flags)


def convert_flags(flags: Flags) -> None:
    """Define the flags of convert."""
    flag_kinds.string(
        flags, "annotations", f"What is converted: COCO instances, {CSV}, or any other kind that is read."
    )
    flag_kinds.string(flags, "format", "Kind of --annotations; recognised where not given.")
    flag_kinds.string(flags, "instances", "COCO instances file (convert coco).")
    flag_kinds.string(flags, "images", "Folder of the images; where --annotations says if not given.")
    flag_kinds.string(flags, "masks", "Folder that the label maps of a CSV go to.")
    flag_kinds.string(flags, "classes", "CSV of class names: read where it exists, written where it does not.")
    flag_kinds.string(flags, "output", "What to write: a CSV (.csv) or COCO instances (.json).")
    flag_kinds.gin(flags)


def inspect_data_flags(flags: Flags) -> None:
    """Define the flags of inspect_data."""
    flag_kinds.annotations(flags, "the images")
    flag_kinds.validation(flags, ": shown, and compared with those")
    flag_kinds.string(flags, "split", "Which split of --data_dir to show.", "train")
    flag_kinds.integer(flags, "batches", "Training batches to print the digests of.", 0, lower_bound=0)
    flag_kinds.string(flags, "output_dir", "Folder for pictures of these batches (of one without --batches).")
    flag_kinds.boolean(flags, "report", "Write report.html, to be looked at, into --output_dir.")
    flag_kinds.boolean(flags, "shapes", "Print the shape and the bytes of every tensor of a forward pass.")
    flag_kinds.string(flags, "image_size", "HEIGHTxWIDTH of the network's input in pixels.")
    flag_kinds.integer(flags, "num_classes", "Number of classes, without background.", None, lower_bound=1)
    flag_kinds.integer(flags, "batch_size", "Images a batch.", 2, lower_bound=1)
    flag_kinds.gin(flags)


def benchmark_flags(flags: Flags) -> None:
    """Define the flags of benchmark."""
    absl_flags.DEFINE_enum(
        "mode", None, ["jit", "no_jit"], "Measure one mode only and print a line of JSON.", flag_values=flags
    )
    flag_kinds.runtime(flags, "the step")
    flag_kinds.gin(flags)


def benchmark_input_flags(flags: Flags) -> None:
    """Define the flags of benchmark_input."""
    flag_kinds.annotations(flags, "the images")
    flag_kinds.gin(flags)


def data_service_flags(flags: Flags) -> None:
    """Define the flags of data_service."""
    flag_kinds.integer(flags, "port", "Port to listen on.", None, lower_bound=1, upper_bound=65535)
    absl_flags.DEFINE_list(
        "workers", [], "Dispatcher: host:port of every worker, as the workers give it by --address.", flag_values=flags
    )
    flag_kinds.string(flags, "dispatcher", "Worker: host:port of the dispatcher.")
    flag_kinds.string(
        flags, "address", "Worker: host:port at which trainings reach it; this machine's name by default."
    )


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
    flag_kinds.string(flags, "output_dir", "Folder of report.json.", "runs/tpu_check")
    flag_kinds.cache_dir(flags)
    flag_kinds.gin(flags)


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
    flag_kinds.boolean(
        flags, "traceback", "Show where in the code an error of yours was found, as well as its message."
    )
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
