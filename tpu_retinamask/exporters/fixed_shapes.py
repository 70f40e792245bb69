"""Detection on canvases of one size and number: what the forms without variables and without free shapes are made of.

The host fits each picture to the canvas, and takes what is found back into the picture (`canvas_runner`).
"""

from collections.abc import Callable

import tensorflow as tf

from tpu_retinamask.exporters.registry import TrainedModel
from tpu_retinamask.model.postprocess import detect
from tpu_retinamask.traced_for import tracing_for

OUTPUTS = ("boxes", "scores", "classes", "masks", "count")


def input_specs(trained: TrainedModel) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    """Return what a program takes: image [B, H, W, 3] uint8 and content_size [B, 2] int32, as of `structures.Batch`."""
    batch, size = trained.settings.batch_size, trained.pipeline.image_size
    return (
        tf.TensorSpec([batch, *size, 3], tf.uint8, name="image"),
        tf.TensorSpec([batch, 2], tf.int32, name="content_size"),
    )


def detection(trained: TrainedModel, platform: str) -> Callable[..., dict[str, tf.Tensor]]:
    """Return a function of an image and a content_size to tensors by the names of OUTPUTS.

    Boxes are in pixels of the canvas. RoIAlign is that of the platform, where the model's settings leave it open.
    """

    def function(image, content_size):
        with tracing_for(platform):
            found = detect(trained.model, trained.detection_filter, image, content_size)
        count = tf.reduce_sum(tf.cast(found.classes >= 0, tf.int32), axis=1)
        parts = (found.boxes, found.scores, found.classes, found.masks, count)
        return {name: tf.identity(part, name) for name, part in zip(OUTPUTS, parts)}

    return function
