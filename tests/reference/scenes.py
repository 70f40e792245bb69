"""Random padded batches and weights."""

import numpy as np
import tensorflow as tf

from tpu_retinamask.structures import Batch


def random_batch(seed=0, *, size=(64, 96), counts=(3, 1, 0), num_boxes=4, num_classes=2, mask_side=28, side=(8, 40)):
    """A Batch of len(counts) images with counts[b] instances of `side` pixels, the rest padding."""
    rng = np.random.default_rng(seed)
    batch = len(counts)
    corner = rng.uniform(0, np.array(size[::-1]) - side[1], (batch, num_boxes, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(*side, (batch, num_boxes, 2))], 2).astype(np.float32)
    classes = rng.integers(0, num_classes, (batch, num_boxes)).astype(np.int32)
    masks = rng.integers(0, 2, (batch, num_boxes, 7, 7), np.uint8).repeat(mask_side // 7, 2).repeat(mask_side // 7, 3)
    for b, count in enumerate(counts):
        boxes[b, count:], classes[b, count:], masks[b, count:] = 0, -1, 0
    image = rng.integers(0, 256, (batch, *size, 3), np.uint8)
    return Batch(
        image=tf.constant(image),
        content_size=tf.constant([size] * batch, tf.int32),
        boxes=tf.constant(boxes),
        classes=tf.constant(classes),
        masks=tf.constant(masks),
        has_mask=tf.constant(classes >= 0),
        image_scale=tf.ones([batch]),
        original_size=tf.constant([size] * batch, tf.int32),
        image_id=tf.range(batch, dtype=tf.int64),
        dropped=tf.zeros([batch], tf.int32),
    )


def fill_weights(layer, seed=0):
    """Draw all weights of a built layer so that activations keep their size; return them by short name."""
    rng = np.random.default_rng(seed)
    by_name = {}
    for variable in layer.weights:
        shape, kind = tuple(variable.shape), variable.name
        if kind == "kernel":
            value = rng.normal(0, np.sqrt(1.5 / np.prod(shape[:-1])), shape)
        elif kind in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, 0.2, shape)
        variable.assign(value.astype(np.float32))
        by_name["/".join(variable.path.split("/")[-2:])] = variable.numpy().astype(np.float64)
    return by_name
