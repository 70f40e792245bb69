"""The resize of the original: sizes, positions, and the fixed point of OpenCV on bytes."""

import numpy as np
import pytest
from golden import golden_set

from tpu_retinamask.keras_maskrcnn.image_resize import resize_image, resize_scale, resized_side

# 0, 53, 106, 159, 212 / 9, 62, ... and its resizes by cv2.resize(bytes, None, fx=s, fy=s) of OpenCV 4.5.5.
BYTES = (np.arange(15).reshape(3, 5) * 53 % 256).astype(np.uint8)
ENLARGED_1_7 = [
    [0, 20, 51, 83, 114, 145, 176, 207],
    [3, 24, 55, 86, 117, 148, 180, 211],
    [9, 29, 60, 91, 122, 153, 185, 216],
    [14, 34, 65, 96, 128, 159, 190, 221],
    [18, 38, 69, 101, 132, 163, 194, 225],
]
SHRUNK_0_6 = [[21, 109, 197], [36, 124, 212]]
# (0, 37, 74, ...) of 3 x 7: whole blocks of 2 x 2 are averaged and rounded half up, cut ones half to even.
ODD_BYTES = (np.arange(21).reshape(3, 7) * 37 % 256).astype(np.uint8)
HALVED = [[20, 94, 168, 224], [24, 98, 172, 228]]


def bilinear(picture, scale):
    """Resample in float64 at exactly 1 / scale with half-pixel centres, edges repeated."""

    def weights(side):
        centres = np.clip((np.arange(round(side * scale)) + 0.5) / scale - 0.5, 0, side - 1)
        return np.maximum(0, 1 - abs(centres[:, np.newaxis] - np.arange(side)))

    return np.einsum("yi,ijc,xj->yxc", weights(picture.shape[0]), picture, weights(picture.shape[1]))


def test_scale_and_size_are_those_of_the_original():
    for case in golden_set.values("csv_generator/info")["resize"]:
        scale = resize_scale(*case["hw"], case["min_side"], case["max_side"])
        assert scale == pytest.approx(case["scale"], rel=1e-15)
        assert [resized_side(side, scale) for side in case["hw"]] == case["out_hw"]


def test_a_side_of_one_half_is_rounded_to_even():
    assert [resized_side(side, 0.5) for side in (3, 5, 7, 9)] == [2, 2, 4, 4]


@pytest.mark.parametrize("scale", [0.31, 0.5, 1.0, 1.3333333, 2.0, 3.7])
def test_floats_are_bilinear_at_exactly_the_scale(scale):
    image = np.random.default_rng(3).uniform(-128, 128, (23, 31, 3)).astype(np.float32)
    resized = resize_image(image, scale)
    assert resized.dtype == np.float32
    # Positions are float32: half a unit in the last place of 31, times steps of up to 256 a pixel.
    np.testing.assert_allclose(resized, bilinear(image.astype(np.float64), scale), atol=5e-4)


def test_the_step_is_the_scale_and_not_the_ratio_of_the_sides():
    ramp = np.tile(np.arange(10, dtype=np.float32), (10, 1))
    resized = resize_image(ramp, 1.54)  # 15.4 pixels are rounded to 15
    assert resized.shape == (15, 15)
    np.testing.assert_allclose(resized[0, 1:14], (np.arange(1, 14) + 0.5) / 1.54 - 0.5, atol=2e-6)


def test_a_size_that_stays_is_a_copy_whatever_the_scale():
    """As in OpenCV: 10.4 pixels are rounded to 10, and nothing is resampled."""
    ramp = np.tile(np.arange(10, dtype=np.float32), (10, 1))
    np.testing.assert_array_equal(resize_image(ramp, 1.04), ramp)


@pytest.mark.parametrize(
    ("image", "scale", "expected"), [(BYTES, 1.7, ENLARGED_1_7), (BYTES, 0.6, SHRUNK_0_6), (ODD_BYTES, 0.5, HALVED)]
)
def test_bytes_equal_opencv(image, scale, expected):
    resized = resize_image(image, scale)
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, expected)
    stacked = resize_image(np.stack([image, image.max() - image], axis=-1), scale)
    np.testing.assert_array_equal(stacked[..., 0], expected)


@pytest.mark.parametrize("scale", [0.4, 0.5, 0.9, 1.7, 2.0, 5.3])
def test_a_mask_stays_a_mask_and_is_rounded_between_one_half_and_three_quarters(scale):
    mask = (np.random.default_rng(4).random((40, 33)) > 0.5).astype(np.uint8)
    resized = resize_image(mask, scale)
    assert set(np.unique(resized)) <= {0, 1}
    exact = bilinear(mask[..., None].astype(np.float64), scale)[..., 0]
    # Both rows' shares are cut to quarters before they are summed, so a pixel of 0.5 to 0.75 may come out 0; the
    # weights of 11 bits move the edges of that by 1/2048 for each of the two passes.
    margin = 2 / 2048
    np.testing.assert_array_equal(resized[exact < 0.5 - margin], 0)
    np.testing.assert_array_equal(resized[exact >= 0.75 + margin], 1)
    assert np.mean((exact < 0.5 - margin) | (exact >= 0.75 + margin)) > 0.3


def test_a_constant_stays_constant_and_scale_one_copies():
    image = np.full((7, 9, 3), 37, np.uint8)
    assert np.all(resize_image(image, 2.6) == 37) and np.all(resize_image(image.astype(np.float32), 0.3) == 37)
    copy = resize_image(image, 1.0)
    assert copy is not image and np.array_equal(copy, image)


def test_one_pixel_can_grow():
    np.testing.assert_array_equal(resize_image(np.array([[[5, 6, 7]]], np.uint8), 3.0), np.tile([5, 6, 7], (3, 3, 1)))


def test_refusals_say_what_and_why():
    with pytest.raises(ValueError, match="image is float64, expected float32 or uint8"):
        resize_image(np.zeros((4, 4)), 2.0)
    with pytest.raises(ValueError, match=r"scale 0.01 leaves 0 x 1 pixels \(height x width\) of an image of 4 x 120"):
        resize_image(np.zeros((4, 120), np.uint8), 0.01)
