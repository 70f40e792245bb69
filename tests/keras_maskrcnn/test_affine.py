"""The affine warp of the original against OpenCV's numbers and against exact interpolation."""

import numpy as np
import PIL.Image
import pytest
from golden import golden_set

from tpu_retinamask.keras_maskrcnn.affine import centre_transform, transform_boxes, warp_affine

# cv2.warpAffine(IMAGE, MATRIX, (5, 3), flags=INTER_LINEAR, borderMode=BORDER_REPLICATE) of OpenCV 4.5.5.
IMAGE = (np.arange(15).reshape(3, 5) * 53 % 256).astype(np.uint8)
MATRIX = np.array([[0.8, 0.3, -0.7], [-0.25, 1.1, 0.4]])
WARPED_BYTES = [[50, 112, 176, 218, 220], [39, 103, 167, 225, 227], [30, 94, 155, 217, 230]]
WARPED_FLOATS = [
    [49.6875, 112.09375, 175.625, 217.625, 220.15625],
    [39.3125, 102.84375, 166.65625, 225.21875, 227.46875],
    [30.34375, 93.875, 155.46875, 216.75, 230.0],
]


def test_bytes_and_floats_equal_opencv():
    np.testing.assert_array_equal(warp_affine(IMAGE, MATRIX), WARPED_BYTES)
    # Weights are whole 1/1024 and the pixels whole numbers, so float32 holds every sum exactly.
    np.testing.assert_array_equal(warp_affine(IMAGE.astype(np.float32), MATRIX), WARPED_FLOATS)


def test_a_whole_shift_moves_pixels_and_repeats_the_border():
    moved = warp_affine(IMAGE, np.array([[1, 0, 2], [0, 1, -1], [0, 0, 1]]))
    np.testing.assert_array_equal(moved, IMAGE[[1, 2, 2]][:, [0, 0, 0, 1, 2]])


def test_positions_are_right_to_one_32nd_of_a_pixel():
    """The grid rounds to 1/32 pixel: on a slope of 1 a pixel the value is off by half of that at most."""
    height, width = 40, 50
    y, x = np.mgrid[:height, :width].astype(np.float32)
    matrix = np.array([[0.9, -0.2, 3.3], [0.15, 1.05, -2.7], [0, 0, 1]])
    u, v, _ = np.linalg.inv(matrix) @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    for ramp, position, limit in ((x, u, width), (y, v, height)):
        expected = np.clip(position, 0, limit - 1).reshape(height, width)
        assert abs(warp_affine(ramp, matrix) - expected).max() <= 1 / 64 + 2 / 1024


def test_channels_are_moved_alike():
    image = np.random.default_rng(1).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    moved = warp_affine(image, MATRIX)
    for channel in range(3):
        np.testing.assert_array_equal(moved[..., channel], warp_affine(image[..., channel], MATRIX))


def test_centre_transform_is_that_of_the_original():
    arrays = golden_set.Arrays("csv_generator/same_transformed")
    with PIL.Image.open(golden_set.FOLDER / "csv_generator/dataset/images/same_0.png") as picture:
        width, height = picture.size
    for matrix, expected in zip(arrays["transform_matrices"], arrays["adjusted_matrices"]):
        np.testing.assert_allclose(centre_transform(matrix, height, width), expected, rtol=1e-12, atol=1e-12)


def test_boxes_enclose_their_moved_corners():
    quarter_turn = np.array([[0.0, -1.0, 10.0], [1.0, 0.0, 0.0], [0, 0, 1]])
    np.testing.assert_array_equal(transform_boxes(np.array([[1.0, 2.0, 4.0, 8.0]]), quarter_turn), [[2, 1, 8, 4]])
    assert transform_boxes(np.zeros((0, 4)), quarter_turn).shape == (0, 4)


def test_refusals():
    with pytest.raises(ValueError, match="squeezes the image to a line"):
        warp_affine(IMAGE, np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]]))
    with pytest.raises(ValueError, match="image is float64, expected float32 or uint8"):
        warp_affine(IMAGE.astype(np.float64), MATRIX)
