"""A network that compiles in seconds, its optimizer, and batches that are full, sparse and empty."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.structures import Batch
from tpu_retinamask.training.optimizers import make_optimizer

CANVAS, INSTANCES, MASK_SIDE, CLASSES = 128, 8, 28, 3


@pytest.fixture(scope="session")
def small_model():
    """Build the same small network at each call: small_model(normalization="frozen", class_bias=None, ...)."""

    def build(num_classes=CLASSES, *, class_bias=None, **options):
        keras.utils.set_random_seed(0)
        model = RetinaMask(
            num_classes,
            **{
                "backbone": "small",
                "normalization": "frozen",
                "pixel_mode": "torch",
                "fpn_channels": 16,
                "anchor_sizes": (32, 64, 128),
                "head_channels": 16,
                "head_depth": 1,
                "head_initializer": "he_normal",
                "mask_channels": 16,
                "mask_depth": 1,
                **options,
            },
        ).create_weights((64, 64))
        if class_bias is not None:  # a network that has learnt nothing finds nothing: let it find something
            model.class_head.last.bias.assign(tf.fill(model.class_head.last.bias.shape, class_bias))
        return model

    return build


@pytest.fixture(scope="session")
def built_optimizer():
    """Build an optimizer upon a model: built_optimizer(model, name="sgd", ...)."""

    def build(model, total_steps=100, **options):
        optimizer = make_optimizer(total_steps, **{"warmup_steps": 0, "decay": "constant", **options})
        optimizer.build(model.trainable_variables)
        return optimizer

    return build


@pytest.fixture(scope="session")
def make_batch():
    """Build a batch with the given number of instances an image: make_batch(8, 1, seed=0)."""

    def build(*counts, seed=0):
        random = np.random.default_rng(seed)
        shape = (len(counts), INSTANCES)
        real = np.arange(INSTANCES) < np.array(counts)[:, None]
        corner = random.integers(0, CANVAS // 2, (*shape, 2))
        boxes = np.concatenate([corner, corner + random.integers(16, CANVAS // 2, (*shape, 2))], 2) * real[..., None]
        # Masks of instances are blobs: a disc that fills the box.
        y, x = np.mgrid[:MASK_SIDE, :MASK_SIDE] - (MASK_SIDE - 1) / 2
        disc = np.broadcast_to(x**2 + y**2 <= (MASK_SIDE / 2) ** 2, (*shape, MASK_SIDE, MASK_SIDE))
        size = np.tile([CANVAS, CANVAS], (len(counts), 1))
        return Batch(
            image=tf.constant(random.integers(0, 256, (len(counts), CANVAS, CANVAS, 3)), tf.uint8),
            content_size=tf.constant(size, tf.int32),
            boxes=tf.constant(boxes, tf.float32),
            classes=tf.constant(real * (random.integers(0, CLASSES, shape) + 1) - 1, tf.int32),
            masks=tf.constant(disc & real[..., None, None], tf.uint8),
            has_mask=tf.constant(real),
            image_scale=tf.ones([len(counts)]),
            original_size=tf.constant(size, tf.int32),
            image_id=tf.range(len(counts), dtype=tf.int64),
            dropped=tf.zeros([len(counts)], tf.int32),
        )

    return build


@pytest.fixture
def said(caplog):
    """What the project's logger said during the test, as one text: said()."""
    logger = logging.getLogger("tpu_retinamask")
    before, logger.propagate = logger.propagate, False  # or the root would hear it as well
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, "tpu_retinamask")
    yield lambda: "\n".join(caplog.messages)
    logger.removeHandler(caplog.handler)
    logger.propagate = before
