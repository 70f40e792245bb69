"""Mirrors, turns, colours and draws: hand-worked values, NumPy references, relations, inside tf.data."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.data.augment.augmentation import (
    Augmentation,
    adjust_colours,
    adjust_hues,
    draw,
    horizontal_flip,
    rot90,
    vertical_flip,
)

HEIGHT, WIDTH = 7, 11
BOXES = np.array([[1, 2, 6, 5], [0, 0, 11, 7], [10, 6, 11, 7], [2.5, 1.25, 4, 6]], np.float32)


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    masks = rng.integers(0, 2, (len(BOXES), 6, 6), dtype=np.uint8)
    return tf.constant(image), tf.constant(BOXES), tf.constant(masks)


def assert_same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


CHANGES = {
    "horizontal flip": horizontal_flip,
    "vertical flip": vertical_flip,
    "one turn": lambda *sample: rot90(*sample, 1),
    "two turns": lambda *sample: rot90(*sample, 2),
    "three turns": lambda *sample: rot90(*sample, 3),
    "no turn": lambda *sample: rot90(*sample, 0),
}
NUMPY = {
    "horizontal flip": lambda array: array[:, ::-1],
    "vertical flip": lambda array: array[::-1],
    "one turn": lambda array: np.rot90(array, 1),
    "two turns": lambda array: np.rot90(array, 2),
    "three turns": lambda array: np.rot90(array, 3),
    "no turn": lambda array: array,
}
# The box 1,2,6,5 in an image 11 wide and 7 high, worked by hand.
FIRST_BOX = {
    "horizontal flip": [5, 2, 10, 5],
    "vertical flip": [1, 2, 6, 5],
    "one turn": [2, 5, 5, 10],
    "two turns": [5, 2, 10, 5],
    "three turns": [2, 1, 5, 6],
    "no turn": [1, 2, 6, 5],
}


@pytest.mark.parametrize("change", CHANGES)
def test_image_and_masks_move_as_numpy_moves_them(change, sample):
    image, boxes, masks = CHANGES[change](*sample)
    np.testing.assert_array_equal(image, NUMPY[change](sample[0].numpy()))
    np.testing.assert_array_equal(masks, [NUMPY[change](mask) for mask in sample[2].numpy()])
    np.testing.assert_array_equal(boxes[0], FIRST_BOX[change])


@pytest.mark.parametrize("change", CHANGES)
def test_the_pixels_inside_a_box_stay_the_same_pixels(change, sample):
    image, boxes, _ = CHANGES[change](*sample)
    for before, after in zip(BOXES[:3].astype(int), boxes.numpy()[:3].astype(int)):
        inside = sample[0].numpy()[before[1] : before[3], before[0] : before[2]]
        moved = image.numpy()[after[1] : after[3], after[0] : after[2]]
        np.testing.assert_array_equal(moved, NUMPY[change](inside))


@pytest.mark.parametrize("flip", [horizontal_flip, vertical_flip])
def test_a_flip_twice_is_the_sample_itself(flip, sample):
    assert_same(flip(*flip(*sample)), sample)


def test_four_quarter_turns_are_the_sample_itself(sample):
    turned = sample
    for _ in range(4):
        turned = rot90(*turned, 1)
    assert_same(turned, sample)
    assert_same(rot90(*sample, 5), rot90(*sample, 1))
    assert_same(rot90(*sample, -1), rot90(*sample, 3))


def test_a_half_turn_is_both_flips(sample):
    assert_same(rot90(*sample, 2), vertical_flip(*horizontal_flip(*sample)))


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_inside_a_dataset_and_without_instances(change, sample):
    dataset = tf.data.Dataset.from_tensors(sample).map(CHANGES[change])
    assert_same(next(iter(dataset)), CHANGES[change](*sample))
    image, boxes, masks = sample
    none = next(iter(tf.data.Dataset.from_tensors((image, boxes[:0], masks[:0])).map(CHANGES[change])))
    np.testing.assert_array_equal(none[0], NUMPY[change](image.numpy()))
    assert none[1].shape == (0, 4) and none[2].shape == (0, 6, 6)


def test_colours_by_hand():
    image = tf.constant([[[0.0, 10.0, 100.0], [20.0, 10.0, 200.0]]])
    changed = adjust_colours(image, tf.constant(0.1), tf.constant(0.5))
    expected = [[[5 + 25.5, 10 + 25.5, 125 + 25.5], [15 + 25.5, 10 + 25.5, 175 + 25.5]]]
    np.testing.assert_allclose(changed, expected, atol=1e-4)
    np.testing.assert_allclose(adjust_colours(image, tf.constant(0.0), tf.constant(1.0)), image, atol=1e-5)


@pytest.mark.parametrize("hue, saturation", [(0.0, 1.0), (0.2, 1.0), (-0.45, 1.0), (0.0, 0.3), (0.0, 1.9), (0.1, 0.6)])
def test_hue_and_saturation_equal_colorsys(hue, saturation):
    image = np.random.default_rng(2).integers(0, 256, (6, 9, 3)).astype(np.float32)
    image[0, 0], image[0, 1] = 0.0, 128.0  # no colour, nothing to turn
    expected = np.zeros_like(image)
    for place in np.ndindex(6, 9):
        h, s, v = colorsys.rgb_to_hsv(*(image[place] / 255))
        expected[place] = np.array(colorsys.hsv_to_rgb((h + hue) % 1.0, min(1.0, s * saturation), v)) * 255
    # float32 of numbers up to 255 through two conversions: some 2**-22 * 255 each.
    np.testing.assert_allclose(adjust_hues(image, tf.constant(hue), tf.constant(saturation)), expected, atol=1e-3)


def test_draws_follow_their_seed_and_their_ranges():
    augmentation = Augmentation(
        horizontal_flip=0.3,
        vertical_flip=0.7,
        rot90=0.6,
        scale_jitter=(0.5, 2.0),
        brightness=0.2,
        contrast=0.4,
        rotation=30.0,
        translation=0.1,
        shear=10.0,
        zoom=(0.8, 1.2),
        hue=0.05,
        saturation=0.5,
    )
    one = tf.function(lambda seed: draw(augmentation, seed))
    draws = [[value.numpy() for value in one(tf.constant([9, index], tf.int64))] for index in range(2000)]
    again = [value.numpy() for value in draw(augmentation, tf.constant([9, 17], tf.int64))]
    for a, b in zip(again, draws[17], strict=True):
        np.testing.assert_array_equal(a, b)
    (
        scale,
        position,
        mirror_x,
        mirror_y,
        turns,
        brightness,
        contrast,
        rotation,
        translation,
        shear,
        zoom,
        hue,
        saturation,
    ) = map(np.array, zip(*draws))
    # Four standard errors of 2000 draws: 0.045 for a share, 0.04 for a mean of a range of width 1.5.
    assert abs(mirror_x.mean() - 0.3) < 0.045 and abs(mirror_y.mean() - 0.7) < 0.045
    for turn, share in ((0, 0.4), (1, 0.2), (2, 0.2), (3, 0.2)):
        assert abs((turns == turn).mean() - share) < 0.045
    assert scale.min() >= 0.5 and scale.max() < 2.0 and abs(scale.mean() - 1.25) < 0.04
    assert position.min() >= 0 and position.max() < 1 and np.all(abs(position.mean(axis=0) - 0.5) < 0.03)
    assert abs(brightness).max() <= 0.2 and abs(brightness).max() > 0.19 and abs(brightness.mean()) < 0.011
    assert abs(contrast - 1).max() <= 0.4 and abs(contrast - 1).max() > 0.38
    for drawn, middle, reach in (
        (np.degrees(rotation), 0, 30),
        (translation[:, 0], 0, 0.1),
        (translation[:, 1], 0, 0.1),
        (np.degrees(shear), 0, 10),
        (zoom, 1, 0.2),
        (hue, 0, 0.05),
        (saturation, 1, 0.5),
    ):
        shares = (drawn - middle) / reach  # four standard errors of the mean of [-1, 1]: 0.052
        assert 0.99 < abs(shares).max() <= 1 + 1e-6 and abs(shares.mean()) < 0.052
    independent = np.stack([scale, rotation, *translation.T, shear, zoom, hue, saturation, brightness, contrast])
    assert abs(np.corrcoef(independent) - np.eye(10)).max() < 0.1
    assert abs(np.corrcoef(mirror_x, mirror_y)[0, 1]) < 0.09


def test_the_default_draw_changes_nothing_but_the_flip():
    drawn = draw(Augmentation(horizontal_flip=0.0), tf.constant([1, 2]))
    assert not drawn.mirror_x and not drawn.mirror_y and drawn.quarter_turns == 0
    assert drawn.scale_factor == 1.0 and drawn.brightness == 0.0 and drawn.contrast == 1.0
    assert drawn.rotation == 0 and not drawn.translation.numpy().any() and drawn.shear == 0 and drawn.zoom == 1
    assert drawn.hue == 0 and drawn.saturation == 1 and not Augmentation().is_affine
    assert all(
        Augmentation(**change).is_affine
        for change in ({"rotation": 1.0}, {"translation": 0.1}, {"shear": 1.0}, {"zoom": [1.0, 1.1]})
    )
    assert draw(Augmentation(horizontal_flip=1.0), tf.constant([1, 2])).mirror_x


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"horizontal_flip": 1.5}, "horizontal_flip is 1.5, expected a number from 0 to 1"),
        ({"rot90": -0.1}, "rot90 is -0.1, expected a number from 0 to 1"),
        ({"contrast": 2.0}, "contrast is 2.0, expected a number from 0 to 1"),
        ({"brightness": -1.0}, "brightness is -1.0, expected 0 or more"),
        ({"rotation": 200.0}, "rotation is 200.0, expected a number from 0 to 180"),
        ({"shear": 90.0}, "shear is 90.0, expected a number from 0 to 80"),
        ({"hue": 0.6}, "hue is 0.6, expected a number from 0 to 0.5"),
        ({"saturation": -1.0}, "saturation is -1.0, expected a number from 0 to 1"),
        ({"translation": 1.1}, "translation is 1.1, expected a number from 0 to 1"),
        ({"zoom": (0.0, 1.0)}, r"zoom is \(0.0, 1.0\), expected 0 < low <= high"),
        ({"fill": "grey"}, "fill is 'grey', expected 'nearest' or 'zero'"),
        ({"scale_jitter": (2.0, 1.0)}, r"scale_jitter is \(2.0, 1.0\), expected 0 < low <= high"),
        ({"scale_jitter": (0.0, 1.0)}, r"scale_jitter is \(0.0, 1.0\), expected 0 < low <= high"),
    ],
)
def test_impossible_augmentations_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**wrong)
