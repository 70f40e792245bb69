"""Several short sides, and large-scale jitter: drawn by the sample's number, on one static canvas."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.augment.augmentation import Augmentation, draw
from tpu_retinamask.data.stream.sample_order import sample_position


def test_one_of_several_sides_is_drawn_for_each_sample(records, pipeline, samples, assert_same_batch):
    built = pipeline(min_side=(20, 30, 40), max_side=60)
    found = samples(built.train_dataset(records[:1], 30), 2)  # a picture of 24 x 32
    drawn = [round(float(sample.image_scale) * 24) for sample in found]
    assert {drawn.count(side) > 9 for side in (20, 30, 40)} == {True} and set(drawn) == {20, 30, 40}
    for sample, side in zip(found, drawn):
        np.testing.assert_array_equal(sample.content_size, [side, round(side * 4 / 3)])
        assert not sample.image[side:].any() and sample.image[:side, : round(side * 4 / 3)].any()
    for a, b in zip(found[30:], samples(built.train_dataset(records[:1], 30, start_step=1), 1), strict=True):
        assert_same_batch(a, b)


def test_evaluation_takes_the_middle_side_or_its_own(records, pipeline, samples):
    for options, side in (
        ({"min_side": (40, 20, 30)}, 30),
        ({"min_side": (20, 40), "eval_min_side": 24}, 24),
        ({"min_side": 28}, 28),
        ({"min_side": [28]}, 28),
    ):
        built = pipeline(**options)
        sample = samples(built.eval_dataset(records[:1], 1), 1)[0]
        assert round(float(sample.image_scale) * 24, 4) == side
        assert built.scales_on(np.array([[24, 32]]), np.array(built.image_size))[0] == pytest.approx(side / 24)


def test_sides_that_cannot_be_are_refused_or_warned_about(pipeline, caplog):
    with pytest.raises(ValueError, match=r"min_side is \(64, 0\), expected positive numbers"):
        pipeline(min_side=(64, 0))
    with pytest.raises(ValueError, match="min_side is empty"):
        pipeline(min_side=())
    with caplog.at_level(logging.WARNING, logger="tpu_retinamask"):
        pipeline(min_side=(32, 64, 80))
    assert (
        "no picture reaches the short sides [80] of InputPipeline.min_side on InputPipeline.image_size = (64, 64)"
        in caplog.text
    )


def test_large_scale_jitter_is_that_of_the_paper(records, pipeline, samples):
    """Scale = fit to the canvas times U(0.1, 2); then a random window of the canvas, or padding below and right."""
    jitter = Augmentation(horizontal_flip=0.0, scale_jitter=(0.1, 2.0))
    found = samples(pipeline(image_size=(48, 64), augmentation=jitter, seed=3).train_dataset(records, 20), 2)
    size = {record.image_id: np.array([record.height, record.width]) for record in records}
    factors = []
    for number, sample in enumerate(found):
        _, seed = sample_position(tf.constant(number, tf.int64), 3, 3)
        factor = draw(jitter, seed).scale_factor.numpy()
        scale = np.min([48, 64] / size[int(sample.image_id)]) * factor
        np.testing.assert_allclose(sample.image_scale, scale, rtol=1e-6)
        scaled = np.maximum(np.round(size[int(sample.image_id)] * np.float32(scale)), 1)
        np.testing.assert_array_equal(sample.content_size, np.minimum(scaled, [48, 64]))
        factors.append(factor)
    assert min(factors) < 0.3 and max(factors) > 1.8


def test_a_crop_that_shows_no_pixel_of_a_mask_leaves_the_box_without_one(write, pipeline, samples):
    """An L: its box reaches into the window, its mask does not."""
    labels = np.zeros((40, 40), np.uint8)
    labels[:2, :38] = labels[:38, :2] = 1
    write("l.png", np.full((40, 40, 3), 90, np.uint8))
    write("l_labels.png", labels)
    annotations = write("l.csv", "l.png,0,0,38,38,cat,l_labels.png#1\n")
    records = scan_images(read_annotations(annotations, ClassNames(("cat",)))).images
    jitter = Augmentation(horizontal_flip=0.0, scale_jitter=(2.0, 2.0))
    found = samples(pipeline(augmentation=jitter, image_size=(40, 40)).train_dataset(records, 20), 3)
    shown = [sample.masks[0].any() for sample in found if sample.classes[0] >= 0]
    assert 5 < sum(shown) < len(shown) - 5  # windows of both kinds
    for sample in found:
        assert sample.has_mask[0] == sample.masks[0].any()
