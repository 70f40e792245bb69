"""What these tests share: the compiler's word on a construct, one small network, and scenes."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import scenes

from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.structures import Batch
from tpu_retinamask.xla import audit

CANVAS, ROWS, MASK_SIDE, CLASSES = (64, 64), 100, 28, 3
ODD_CANVAS = (101, 131)
NOTHING_FOUND, MUCH_FOUND = -20.0, -1.0  # class biases: every score far below 0.05, or far above
CRITERION = Criterion(mask_rois=24, mask_rois_from_detections=20)

# XLA sums in another order than the single kernels: float32 sums of 10^5 terms through some 30 layers.
SAME_NUMBER = dict(rel=2e-5, abs=1e-7)
GRADIENT_ROUNDING = 3e-4  # of the largest element: the terms of a gradient cancel in part

FEATURE, REGION_CANVAS = (9, 11), (72, 88)
REGIONS = np.array([[[6, 9, 61, 52], [20.5, 8.25, 70, 40]], [[5, 4, 30, 66], [9, 7, 41, 39]]])


def compiled(function):
    return tf.function(function, jit_compile=True, autograph=False)


def refusal(function, *args) -> str:
    """What the compiler says against a function; fails if it has nothing to say."""
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        compiled(function)(*args)
    return str(caught.value)


def has_no_kernel(op_type: str, message: str) -> bool:
    """Whether a message is of this kind: "No registered 'Where' OpKernel for XLA_CPU_JIT devices"."""
    return re.search(rf"No registered '{op_type}' OpKernel for XLA_[CG]PU_JIT devices", message) is not None


def refused_by_audit(function, *args) -> set:
    """The types of the operations that must not be in a compiled step."""
    return {finding.op_type for finding in audit.audit(compiled(function).get_concrete_function(*args))}


def run_compiled(function, *args):
    """Compile one of our functions, audit it and run it; return finite arrays."""
    function = compiled(function)
    audit.check(function.get_concrete_function(*args))
    return finite(function(*args))


def op_types(graph_def) -> set:
    """The types of a graph's operations, and of those of every function that they call."""
    return {node.op for node in graph_def.node} | {
        node.op for function in graph_def.library.function for node in function.node_def
    }


def finite(values):
    values = tf.nest.map_structure(np.asarray, values)
    assert all(np.isfinite(value).all() for value in tf.nest.flatten(values))
    return values


def and_gradient(function):
    """Turn f(x, ...) into a function that also returns the gradient of f's sum by x."""

    def run(x, *rest):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x, *rest)
        return value, tf.convert_to_tensor(tape.gradient(value, x))

    return run


def uniform(*shape, seed=0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).uniform(-1, 1, shape), tf.float32)


def small_model(**options) -> RetinaMask:
    keras.utils.set_random_seed(0)
    return RetinaMask(
        CLASSES,
        **{
            "backbone": "small",
            "normalization": "frozen",
            "pixel_mode": "torch",
            "fpn_channels": 16,
            "head_channels": 16,
            "head_depth": 1,
            "head_initializer": "he_normal",
            "mask_channels": 16,
            "mask_depth": 1,
            "mask_upsample": "nearest",
            **options,
        },
    ).create_weights((64, 64))


def set_class_bias(model, value: float):
    bias = model.class_head.last.bias
    bias.assign(tf.fill(bias.shape, value))


def scene(*counts, side=(8, 32), seed=0, canvas=CANVAS, rows=ROWS) -> Batch:
    return scenes.random_batch(
        seed, size=canvas, counts=counts, num_boxes=rows, num_classes=CLASSES, mask_side=MASK_SIDE, side=side
    )


def padding_images() -> Batch:
    """A batch of the images that fill up the last batch of an evaluation: black, and of no size."""
    batch = scene(0, 0)
    return batch._replace(
        image=tf.zeros_like(batch.image),
        content_size=tf.zeros_like(batch.content_size),
        image_id=tf.fill([2], tf.constant(-1, tf.int64)),
    )


def one_pixel_boxes() -> Batch:
    batch = scene(6, 3)
    corner = tf.floor(batch.boxes[..., :2])
    boxes = tf.concat([corner, corner + 1.0], axis=-1) * tf.cast(batch.classes >= 0, tf.float32)[..., None]
    return batch._replace(boxes=boxes)


SCENES = {
    "objects": (MUCH_FOUND, scene(8, 3)),
    "scores below the threshold": (NOTHING_FOUND, scene(8, 3)),
    "no boxes": (MUCH_FOUND, scene(0, 0)),
    "no boxes and no scores": (NOTHING_FOUND, scene(0, 0)),
    "one image without boxes": (MUCH_FOUND, scene(0, 5)),
    "every image empty": (MUCH_FOUND, padding_images()),
    "one-pixel boxes": (MUCH_FOUND, one_pixel_boxes()),
    "boxes without masks": (MUCH_FOUND, scene(8, 3)._replace(has_mask=tf.zeros([2, ROWS], tf.bool))),
    "every row taken": (MUCH_FOUND, scene(ROWS, ROWS)._replace(dropped=tf.constant([31, 1]))),
}


def assert_same_step(compiled_result, plain_result):
    (metrics, gradients), (plain_metrics, plain_gradients) = finite(compiled_result), finite(plain_result)
    assert metrics.keys() == plain_metrics.keys() and gradients.keys() == plain_gradients.keys()
    for name, value in metrics.items():
        assert value == pytest.approx(plain_metrics[name], **SAME_NUMBER), name
    for name, gradient in gradients.items():
        largest = max(np.abs(plain_gradients[name]).max(), 1e-6)
        np.testing.assert_allclose(
            gradient, plain_gradients[name], rtol=0, atol=GRADIENT_ROUNDING * largest, err_msg=name
        )


def largest_gradient(gradients, part: str) -> float:
    return max(np.abs(value).max() for name, value in gradients.items() if part in name)


def as_floats(batch: Batch) -> Batch:
    assert batch.image.dtype == tf.uint8
    return batch._replace(image=tf.cast(batch.image, tf.float32))
