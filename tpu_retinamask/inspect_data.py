"""Show what the network makes of its input.

  python -m tpu_retinamask.inspect_data --shapes --image_size=876x1876 --num_classes=300 --batch_size=2

Prints the shape and the bytes of every tensor from the image to the outputs, those of keras-maskrcnn. They come from
the real model by shape inference: no tensor of the table is allocated.
"""

from tpu_retinamask import config  # first: it quiets TensorFlow's start-up

import math
import re
from typing import NamedTuple

import tensorflow as tf
from absl import flags

from tpu_retinamask.compat.outputs import keras_maskrcnn_outputs
from tpu_retinamask.ops.images import normalize_images

FLAGS = flags.FLAGS

_SIZE = re.compile(r"([1-9][0-9]*)x([1-9][0-9]*)")


class Row(NamedTuple):
    """One tensor of the table."""

    name: str
    shape: tuple
    dtype: tf.DType

    @property
    def bytes(self) -> int:
        """Return what the tensor takes in memory."""
        return math.prod(self.shape) * self.dtype.size


def shape_table(model, detection_filter, image_size, batch_size: int) -> list:
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
        ("backbone", ["C3", "C4", "C5"], named["backbone"]),
        ("feature pyramid", levels, named["features"]),
        ("regression", levels, named["deltas"]),
        ("concat_regression", ["all levels"], [regression]),
        ("classification", levels, named["logits"]),
        ("concat_classification", ["all levels"], [classification]),
        ("model.output", ["regression", "classification", "masks"], [regression, classification, masks]),
    ]
    return [(title, [Row(name, tuple(tensor.shape), tensor.dtype) for name, tensor in zip(names, tensors)])
            for title, names, tensors in sections]


def format_table(table) -> str:
    """Return the table as text: name, shape, type and bytes, a tensor a line."""
    lines = []
    for title, rows in table:
        lines.append(f"{title}:")
        for row in rows:
            lines.append(f"  {row.name:<16}{str(row.shape):<26}{row.dtype.name:<10}{row.bytes:>16,} bytes")
    return "\n".join(lines)


def parse_image_size(text: str) -> tuple:
    """Return (height, width) of a text such as 876x1876.

    Raises:
      UserError: it is not of that form.
    """
    match = _SIZE.fullmatch(text)
    if not match:
        raise config.UserError(f"--image_size {text!r} is not HEIGHTxWIDTH in pixels, such as 876x1876")
    return int(match[1]), int(match[2])


def main():
    """Run the program."""
    if not FLAGS.shapes:
        raise config.UserError("nothing to show: give --shapes with --image_size and --num_classes")
    if FLAGS.image_size is None or FLAGS.num_classes is None:
        missing = [name for name in ("image_size", "num_classes") if FLAGS[name].value is None]
        raise config.UserError(f"--shapes needs {' and '.join(f'--{name}' for name in missing)}, such as "
                               "--image_size=876x1876 --num_classes=300")
    image_size = parse_image_size(FLAGS.image_size)
    config.parse_gin(FLAGS.gin_file, FLAGS.gin_param)
    model = config.RetinaMask(FLAGS.num_classes).create_weights()
    print(format_table(shape_table(model, config.DetectionFilter(), image_size, FLAGS.batch_size)))
    cells = sum(height * width for height, width in model.anchor_grid.level_shapes(image_size))
    print(f"anchors: {cells * model.anchor_grid.per_cell} an image, {model.anchor_grid.per_cell} a cell")
    print(f"parameters: {model.count_params():,}")


if __name__ == "__main__":
    flags.DEFINE_bool("shapes", False, "Print the shape and the bytes of every tensor of a forward pass.")
    flags.DEFINE_string("image_size", None, "HEIGHTxWIDTH of the network's input in pixels.")
    flags.DEFINE_integer("num_classes", None, "Number of classes, without background.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 2, "Images a batch.", lower_bound=1)
    config.define_gin_flags()
    config.run_program(main)
