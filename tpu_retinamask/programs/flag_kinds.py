"""Flags that several programs have, and the kinds that flags are of."""

import math
import os
from typing import Any

from absl import flags as absl_flags

Flags = absl_flags.FlagValues

MINUTES = 30.0  # of a training that nothing else is said of
CSV = "CSV: image,x1,y1,x2,y2,class,mask"
KINDS = f"COCO instances json, or {CSV}"


def annotations(flags: Flags, what: str, *, classes: str = "", data_dir: str = "--annotations and --classes") -> None:
    """Define the flags that say where annotated images come from."""
    string(flags, "annotations", f"Where {what} are listed. {KINDS}.")
    string(
        flags,
        "classes",
        "CSV of class names: name,id; " + (f"{classes}." if classes else "those of --annotations where not given."),
    )
    string(flags, "format", "Kind of --annotations; recognised where not given.")
    string(flags, "images", "Folder of their image files; where --annotations says if not given.")
    if data_dir:
        string(flags, "data_dir", f"Folder written by prepare, in place of {data_dir}.")


def validation(flags: Flags, what: str = " as --annotations") -> None:
    """Define the flags of images to score."""
    string(flags, "val_annotations", f"Images to score, of the same kind{what}.")
    string(flags, "val_images", "Folder of their image files, where it is another than --images.")


def checkpoint(flags: Flags) -> None:
    """Define the flag of which weights are taken."""
    string(flags, "checkpoint", "Which weights: last, best (by mask AP, as train scored them) or a step.", "last")


def runtime(flags: Flags, what: str) -> None:
    """Define the flags of what executes."""
    string(
        flags,
        "runtime",
        f"What executes {what}: tensorflow, pjrt (any GPU or TPU that has a plugin of PJRT, or the CPU), or one that a "
        "gin file imports.",
        "tensorflow",
    )
    cache_dir(flags)


def threshold(flags: Flags, text: str) -> None:
    """Define the flag of a least score, None where not given."""
    absl_flags.DEFINE_float("threshold", None, text, lower_bound=0.0, upper_bound=1.0, flag_values=flags)
    finite(flags, "threshold")


def thresholds(flags: Flags, what: str) -> None:
    """Define the flag that names a file with a threshold for each class."""
    string(flags, "thresholds", f"{what}: the least score of each class, thresholds.json of evaluate --report.")


def val_share(flags: Flags) -> None:
    """Define the flag of a share held out."""
    absl_flags.DEFINE_float(
        "val_share",
        None,
        "Share of the images of --annotations to score and not to train on, such as 0.2; split.csv tells which.",
        lower_bound=0.01,
        upper_bound=0.9,
        flag_values=flags,
    )
    finite(flags, "val_share")


def minutes(flags: Flags, default: float | None) -> None:
    """Define the flag of the time that a training may take."""
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
    finite(flags, "minutes")


def finite(flags: Flags, name: str) -> None:
    """Refuse what is no number in a flag."""
    absl_flags.register_validator(
        name, lambda value: value is None or math.isfinite(value), "expected a number", flag_values=flags
    )


def cache_dir(flags: Flags) -> None:
    """Define the flag of where compiled programs are kept."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    string(flags, "cache_dir", "Folder of compiled programs.", f"{caches}/tpu_retinamask")


def allow_gin_imports(flags: Flags) -> None:
    """Define the flag that lets code of a model directory run."""
    boolean(
        flags,
        "allow_gin_imports",
        "Read config.gin of --model_dir in place of settings.json, and run the Python files that it imports: for a run "
        "with code of your own, or of someone you trust.",
    )


def gin(flags: Flags) -> None:
    """Define the flags of settings."""
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


def string(flags: Flags, name: str, text: str, default: str | None = None, *, required: bool = False) -> None:
    """Define a flag of text."""
    absl_flags.DEFINE_string(name, default, text, flag_values=flags, required=required)


def boolean(flags: Flags, name: str, text: str) -> None:
    """Define a flag that is given or not."""
    absl_flags.DEFINE_bool(name, False, text, flag_values=flags)


def integer(flags: Flags, name: str, text: str, default: int | None, **bounds: Any) -> None:
    """Define a flag of a whole number."""
    absl_flags.DEFINE_integer(name, default, text, flag_values=flags, **bounds)
