"""Pixels become the same numbers whatever type they come in."""

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.ops.images import MODES, normalize_images

_PIXEL = np.array([[[[10, 20, 30]]]], np.uint8)  # red 10, green 20, blue 30


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("caffe", [30 - 103.939, 20 - 116.779, 10 - 123.68]),
        ("tf", [10 / 127.5 - 1, 20 / 127.5 - 1, 30 / 127.5 - 1]),
        ("torch", [(10 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224, (30 / 255 - 0.406) / 0.225]),
    ],
)
def test_known_pixel(mode, expected):
    np.testing.assert_allclose(normalize_images(_PIXEL, None, mode)[0, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_uint8_equals_float32_and_padding_is_zero(mode):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 9, 3), np.uint8)
    content = tf.constant([[4, 9], [6, 5]])
    from_bytes = normalize_images(tf.constant(pixels), content, mode).numpy()
    from_floats = normalize_images(tf.constant(pixels, tf.float32), content, mode).numpy()
    np.testing.assert_array_equal(from_bytes, from_floats)
    assert from_bytes.dtype == np.float32
    whole = normalize_images(tf.constant(pixels), None, mode).numpy()
    whole[0, 4:], whole[1, :, 5:] = 0, 0
    np.testing.assert_array_equal(from_bytes, whole)


def test_what_lies_in_the_padding_does_not_matter():
    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    dirty = pixels.copy()
    dirty[:, 2:] = 255
    content = tf.constant([[2, 4]])
    np.testing.assert_array_equal(normalize_images(pixels, content, "caffe"), normalize_images(dirty, content, "caffe"))


def test_unknown_mode_is_refused_by_name():
    with pytest.raises(ValueError, match="'bgr' is not one of"):
        normalize_images(_PIXEL, None, "bgr")


@pytest.mark.parametrize("mode", MODES)
def test_compiled_equals_eager(mode):
    pixels = tf.constant(np.random.default_rng(1).integers(0, 256, (1, 5, 5, 3), np.uint8))
    content = tf.constant([[3, 4]])
    compiled = tf.function(lambda p, c: normalize_images(p, c, mode), jit_compile=True)(pixels, content)
    # A division by a constant may become a product with its reciprocal.
    np.testing.assert_allclose(compiled, normalize_images(pixels, content, mode), rtol=1e-6, atol=1e-6)
