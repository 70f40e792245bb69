r"""Show what annotated images hold, and what the network makes of its input.

  python -m tpu_retinamask.inspect_data --annotations=train.csv --classes=classes.csv --gin_file=recipe/small.gin
  python -m tpu_retinamask.inspect_data --data_dir=cells --split=train --batches=2 --output_dir=seen \
      --gin_file=recipe/small.gin
  python -m tpu_retinamask.inspect_data --shapes --image_size=876x1876 --num_classes=300 --batch_size=2

With images, prints what they hold and what may be wrong with them: pictures that are there twice, or in
--val_annotations too, classes without objects, masks outside of their boxes. --batches adds the digest of the first
training batches (equal digests, equal batches: so a prepared data set is compared with its CSV), and --output_dir draws
these, changed as training changes them, and lists the pictures in batches.json. --report writes report.html there:
classes, boxes and anchors, these samples and masks that look wrong, to be looked at in a browser. --shapes prints the
shape and the bytes of every tensor from the image to the outputs, those of keras-maskrcnn. They come from the real
model by shape inference: no tensor of the table is allocated.
"""

import contextlib
import itertools
import logging
import math
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from tpu_retinamask import config
from tpu_retinamask.batch_errors import each_batch
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.sources.opening import Sources, open_images, open_sources
from tpu_retinamask.data.stream.canvases import training_batches
from tpu_retinamask.data.stream.summary import batch_digest, summarize
from tpu_retinamask.errors import UserError, printable
from tpu_retinamask.evaluation.picture_folder import take_over
from tpu_retinamask.evaluation.pictures import save_picture
from tpu_retinamask.files import write_atomically
from tpu_retinamask.holding import held_folder
from tpu_retinamask.keras_maskrcnn.outputs import keras_maskrcnn_outputs
from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.ops.images import normalize_images
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.score_files import refuse_other_report
from tpu_retinamask.reports.data_page import Inspected, data_page
from tpu_retinamask.reports.page import REPORT_FILE
from tpu_retinamask.reports.samples import drawn_sample
from tpu_retinamask.structures import Batch
from tpu_retinamask.tasks.preflight import report_coverage

log = logging.getLogger(__name__)

INDEX = "batches.json"  # of the pictures
_SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")


class Row(NamedTuple):
    """One tensor of the table."""

    name: str
    shape: tuple
    dtype: tf.DType

    @property
    def bytes(self) -> int:
        """Return what the tensor takes in memory."""
        return math.prod(self.shape) * self.dtype.size


def shape_table(
    model: RetinaMask, detection_filter: DetectionFilter, image_size: tuple[int, int], batch_size: int
) -> list:
    """Return a list of (title, rows): the tensors of a forward pass, in their order.

    Args:
      model: RetinaMask with its weights created.
      detection_filter: DetectionFilter; its `max_detections` is the K of the masks.
      image_size: (H, W) of the canvas.
      batch_size: B.
    """
    named = {}  # what the trace saw

    def forward(images):
        x = tf.cast(normalize_images(images, None, model.pixel_mode), model.compute_type)
        outputs = model(images)
        named["backbone"] = model.backbone(x)
        named["features"], named["deltas"], named["logits"] = outputs.features, outputs.box_deltas, outputs.class_logits
        named["outputs"] = keras_maskrcnn_outputs(model, detection_filter, images)

    images = tf.TensorSpec((batch_size, *image_size, 3), tf.uint8)
    tf.function(forward, autograph=False).get_concrete_function(images)
    levels = [f"P{level}" for level in model.anchor_grid.levels]
    regression, classification, masks = named["outputs"][:3]
    sections = [
        ("image", ["uint8 pixels"], [images]),
        ("backbone", list(named["backbone"]), list(named["backbone"].values())),
        ("feature pyramid", levels, named["features"]),
        ("regression", levels, named["deltas"]),
        ("concat_regression", ["all levels"], [regression]),
        ("classification", levels, named["logits"]),
        ("concat_classification", ["all levels"], [classification]),
        ("model.output", ["regression", "classification", "masks"], [regression, classification, masks]),
    ]
    return [
        (title, [Row(name, tuple(tensor.shape), tensor.dtype) for name, tensor in zip(names, tensors)])
        for title, names, tensors in sections
    ]


def format_table(table: list) -> str:
    """Return the table as text: name, shape, type and bytes, a tensor a line."""
    lines = []
    for title, rows in table:
        lines.append(f"{title}:")
        for row in rows:
            lines.append(f"  {row.name:<16}{row.shape!s:<26}{row.dtype.name:<10}{row.bytes:>16,} bytes")
    return "\n".join(lines)


def parse_image_size(text: str) -> tuple:
    """Return (height, width) of a text such as 876x1876.

    Raises:
      UserError: it is not of that form.
    """
    match = _SIZE.fullmatch(text)
    if not match:
        raise UserError(f"--image_size {text!r} is not HEIGHTxWIDTH in pixels, such as 876x1876")
    return int(match[1]), int(match[2])


def show_images(flags: Flags) -> None:
    """Print what the annotated images hold and show their first training batches."""
    config.parse_gin(flags.gin_file, flags.gin_param)
    pipeline, settings = config.InputPipeline(), config.ReportSettings()
    report = os.path.join(flags.output_dir or "", REPORT_FILE)
    if flags.report:
        refuse_other_report(report, "--output_dir")
    with _said() as doubts:
        names, images, validation = _open(flags)
        if validation is not None:
            said = f"{flags.val_annotations}: {summarize(validation, names, pipeline)}\n\n{flags.annotations}: "
            print(printable(said), end="")
        print(printable(summarize(images, names, pipeline)))
        grid, positive_iou = config.NetworkSettings().anchor_grid(), config.Criterion().positive_iou
        report_coverage(grid, images, pipeline, positive_iou)
    batches = flags.batches or (1 if flags.output_dir else 0)
    if flags.output_dir:
        names_of = (f"batch{step}_{row}.png" for step in range(batches) for row in range(flags.batch_size))
        last = REPORT_FILE if flags.report else None
        take_over(flags.output_dir, INDEX, [{"picture": name} for name in names_of], flag="--output_dir", last=last)
    kept = []
    for step, batch in enumerate(
        each_batch(itertools.islice(training_batches(pipeline, images, flags.batch_size), batches))
    ):
        batch = type(batch)(*(field.numpy() for field in batch))
        print(f"batch {step}: images {batch.image_id.tolist()}, digest {batch_digest(batch)}")
        if flags.output_dir:
            draw_batch(batch, names, os.path.join(flags.output_dir, f"batch{step}"))
        if len(kept) * flags.batch_size < settings.pictures:
            kept.append(batch)
    if flags.report:
        about = flags.annotations or f"{flags.data_dir}, {flags.split}"
        found = Inspected(images, validation, names, pipeline, grid, positive_iou, kept, doubts, about)
        write_atomically(report, data_page(found, settings))
        log.info("wrote %s; open it in a browser", report)


def _open(flags: Flags) -> Sources:
    """Open the images that the flags name."""
    if flags.data_dir:
        return Sources(*open_images(flags.annotations, flags.classes, flags.data_dir, flags.split), None)
    return open_sources(
        flags.annotations,
        flags.classes,
        flags.val_annotations,
        None,
        settings=config.reading(),
        image_folder=flags.images,
        val_image_folder=flags.val_images,
        source_format=flags.format,
    )


def draw_batch(batch: Batch, names: ClassNames, path: str) -> None:
    """Draw each image of a batch with its boxes and masks to PATH_NUMBER.png."""
    for number in range(len(batch.image_id)):
        save_picture(f"{path}_{number}.png", drawn_sample(batch, number, names))


class _Said(logging.Handler):
    """Keeps the warnings of our own that were logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.texts.append(record.getMessage())


@contextlib.contextmanager
def _said() -> Iterator[list[str]]:
    """Collect what is warned of while the block lasts."""
    handler, ours = _Said(), logging.getLogger("tpu_retinamask")
    ours.addHandler(handler)
    try:
        yield handler.texts
    finally:
        ours.removeHandler(handler)


def run(flags: Flags) -> None:
    """Run the program."""
    if not flags.shapes and not (flags.annotations or flags.data_dir):
        raise UserError(
            "nothing to show: give --shapes with --image_size and --num_classes, --annotations with --classes, or "
            "--data_dir"
        )
    if flags.report and (flags.shapes or not flags.output_dir):
        raise UserError("--report is written of images, into --output_dir: give it, and leave out --shapes")
    if not flags.shapes:
        with contextlib.ExitStack() as holding:
            if flags.output_dir:
                holding.enter_context(held_folder(flags.output_dir, "inspect_data", "--output_dir"))
            show_images(flags)
        return
    missing = [name for name in ("image_size", "num_classes") if flags[name].value is None]
    if missing:
        raise UserError(
            f"--shapes needs {' and '.join(f'--{name}' for name in missing)}, such as "
            "--image_size=876x1876 --num_classes=300"
        )
    image_size = parse_image_size(flags.image_size)
    config.parse_gin(flags.gin_file, flags.gin_param)
    model = config.RetinaMask(flags.num_classes).create_weights(image_size)
    print(format_table(shape_table(model, config.DetectionFilter(), image_size, flags.batch_size)))
    cells = sum(height * width for height, width in model.anchor_grid.level_shapes(image_size))
    print(f"anchors: {cells * model.anchor_grid.per_cell} an image, {model.anchor_grid.per_cell} a cell")
    print(f"parameters: {model.count_params():,}")
