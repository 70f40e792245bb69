r"""Turn annotations of any kind into a CSV with label maps, or into COCO instances.

  python -m tpu_retinamask.convert --annotations=instances_train.json --images=train2017 \
      --output=train.csv --classes=classes.csv --masks=masks/train
  python -m tpu_retinamask.convert --annotations=train.csv --classes=classes.csv --output=instances.json
  python -m tpu_retinamask.convert coco --instances=instances_train.json --images=train2017 \
      --output=train.csv --classes=classes.csv --masks=masks/train
  python -m tpu_retinamask.convert csv --annotations=train.csv --classes=classes.csv --output=instances.json

Every image and mask is opened, as a training does. What is written stays under the folders given, and replaces nothing
but what an earlier run of the same conversion wrote. Classes are read from --classes where that file exists, and
written there where it does not.

Crowd regions stay in the COCO file: the CSV leaves them out, and `evaluate --coco_json` scores a model against the
file itself, where they are neither wanted nor held against a detection.
"""

import contextlib
import logging
import shlex
from typing import Literal

import gin

from tpu_retinamask import config, signs_of_life
from tpu_retinamask.coco.conversion import refuse_inputs, write_coco, write_csv
from tpu_retinamask.data.annotations.class_names import ClassNames, read_classes
from tpu_retinamask.data.sources.opening import read_source, recognise, scan_content
from tpu_retinamask.data.sources.registry import ReadOptions
from tpu_retinamask.errors import UserError
from tpu_retinamask.files import holds_nothing
from tpu_retinamask.holding import held_file, held_folder
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.own_settings import checked

log = logging.getLogger(__name__)

NEEDED = {
    "any": ("annotations", "output"),
    "coco": ("instances", "images", "output", "classes", "masks"),
    "csv": ("annotations", "classes", "output"),
}
KINDS = (".csv", ".json")  # what can be written


@gin.configurable
@checked(threads=(1, None))
def convert(
    direction: str,
    paths: dict[str, str | None],
    *,
    on_bad_record: Literal["stop", "skip"] | None = None,
    threads: int = 8,
    progress: bool = True,
) -> str:
    """Convert and return a line that says what was written.

    Args:
      direction: "coco", from a COCO file to a CSV; "csv", from a CSV to a COCO file; "any", from whatever it is to
        what the output is called.
      paths: the values of the flags, by their names; None: not given.
      on_bad_record: in place of that of `source`; None: that holds.
      threads: images converted at a time.
      progress: show a progress bar.

    Raises:
      UserError: what the source or the scan finds wrong; an output that would replace what is not of this conversion.
    """
    settings = config.reading(on_bad_record=on_bad_record)
    source = paths["instances"] if direction == "coco" else paths["annotations"]
    output, class_file = paths["output"], paths["classes"]
    assert source and output  # asked for by `run`
    to_csv = direction == "coco" or (direction == "any" and output.lower().endswith(".csv"))
    there = bool(class_file) and not holds_nothing(class_file)
    numbered = read_classes(class_file) if class_file and (there or direction == "csv") else None
    if direction == "coco":
        _refuse_other_kinds(source, paths)
    content = read_source(
        source,
        None if direction == "coco" else numbered,
        paths["format"] if direction == "any" else direction,
        ReadOptions(settings, None if direction == "csv" else paths["images"]),
    )
    names = content.classes
    if direction == "coco" and numbered is not None and numbered.names != names.names:
        raise UserError(
            f"--classes {class_file} exists and holds other classes than {source}: give another "
            "path. Files that belong together must share their categories"
        )
    scanned = scan_content(content, settings, source, threads=threads, progress=progress)
    inputs = [source, *([class_file] if class_file else [])]
    beside = []
    if class_file and not there:
        refuse_inputs(class_file, scanned.images, [source, output], flag="--classes")
        beside = [(class_file, names.to_csv())]
    if to_csv:
        found = write_csv(
            scanned.images,
            names,
            output=output,
            beside=beside,
            mask_folder=paths["masks"],
            inputs=inputs,
            threads=threads,
            progress=progress,
        )
        said = found.summary()
    else:
        write_coco(
            scanned.images,
            names,
            output=output,
            beside=beside,
            image_folder=paths["images"] if direction == "any" else None,
            inputs=inputs,
            keep_names=direction == "csv",
        )
        said = scanned.summary()
    if not class_file:
        said += f"; classes {_numbered(names)}: write them down by --classes=FILE"
    return said


def _refuse_other_kinds(source: str, paths: dict[str, str | None]) -> None:
    """Refuse annotations that another source knows; what none knows, COCO's reader tells of better."""
    try:
        kind = recognise(source)
    except UserError:
        return
    if kind not in ("coco", "csv"):
        flags = {"annotations": source, **{name: paths[name] for name in ("images", "output", "classes", "masks")}}
        typed = shlex.join(f"--{name}={value}" for name, value in flags.items())
        raise UserError(f"--instances={source} is of the kind {kind!r}, not of COCO's; it is read by `convert {typed}`")


def _numbered(names: ClassNames) -> str:
    first = ", ".join(f"{name} = {number}" for number, name in enumerate(names.names[:10]))
    return first + (", ..." if names.num_classes > 10 else "")


def run(flags: Flags, direction: str | None = None) -> None:
    """Run the program."""
    signs_of_life.now(None)  # a bar shows how far it is
    if direction is None and not (flags.annotations and flags.output):
        raise UserError(
            "say what and where: `convert --annotations=ANY --output=train.csv` (or .json); or say which way: "
            "`convert coco --instances=...` writes a CSV, `convert csv --annotations=...` writes COCO instances"
        )
    if direction is None and not flags.output.lower().endswith(KINDS):
        raise UserError(
            f"--output={flags.output}: expected a name that ends in {' or '.join(KINDS)}, which says its kind"
        )
    direction = direction or "any"
    missing = [f"--{name}" for name in NEEDED[direction] if flags[name].value is None]
    if missing:
        raise UserError(f"convert {direction} needs {', '.join(missing)}")
    config.parse_gin(flags.gin_file, flags.gin_param)
    names = ("instances", "annotations", "format", "images", "output", "classes", "masks")
    with contextlib.ExitStack() as holding:
        holding.enter_context(held_file(flags.output, "convert", "--output"))
        if flags.masks:
            holding.enter_context(held_folder(flags.masks, "convert", "--masks"))
        if flags.classes and direction != "csv" and holds_nothing(flags.classes):  # or it is read alone
            holding.enter_context(held_file(flags.classes, "convert", "--classes"))
        said = convert(direction, {name: flags[name].value for name in names})
    log.info("wrote %s: %s", flags.output, said)
