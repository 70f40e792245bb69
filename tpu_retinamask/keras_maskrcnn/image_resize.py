"""The resize of keras-retinanet in NumPy: one scale for both sides, the very numbers that OpenCV gives.

`ops` and the input pipeline resample with TensorFlow; this file exists because the targets of the original
were made from images and masks that `cv2.resize(image, None, fx=scale, fy=scale)` had resized.
"""

import numpy as np

# OpenCV resizes bytes in fixed point: weights of 11 bits, 4 of the 22 bits of a row sum dropped between
# the two passes. The threshold of a mask depends on it, so it is repeated here.
_WEIGHT_BITS = 11


def resize_scale(height: int, width: int, min_side: int, max_side: int) -> float:
    """Return the scale that brings the short side to `min_side`, unless the long one would pass `max_side`."""
    scale = min_side / min(height, width)
    if max(height, width) * scale > max_side:
        scale = max_side / max(height, width)
    return scale


def resized_side(side: int, scale: float) -> int:
    """Return the length of a resized side, `scale * side` rounded half to even."""
    return round(scale * side)


def resize_image(image: np.ndarray, scale: float) -> np.ndarray:
    """Resize an image or a mask, bilinear, half-pixel centres, edges repeated, not antialiased.

    The sampling step is `1 / scale` along both sides, not the ratio of the sides before and after, so a
    coordinate x of the image lies at `x * scale` whatever the rounding of the sides.

    Args:
      image: [h, w] or [h, w, c]; float32, or uint8 (then every value is rounded as OpenCV rounds it, which
        keeps a mask of 0 and 1 such a mask).
      scale: above 0.

    Returns:
      [round(scale * h), round(scale * w)] or with c, of the dtype of the image.

    Raises:
      ValueError: another dtype, or a scale that leaves no pixel of a side.

    Source: OpenCV 4.5.5, `cv2.resize` with INTER_LINEAR.
    """
    if image.dtype not in (np.float32, np.uint8):
        raise ValueError(f"resize_image: image is {image.dtype}, expected float32 or uint8")
    height, width = (resized_side(side, scale) for side in image.shape[:2])
    if min(height, width) < 1:
        raise ValueError(
            f"resize_image: scale {scale:g} leaves {height} x {width} pixels (height x width) of an "
            f"image of {image.shape[0]} x {image.shape[1]}, expected at least 1 x 1"
        )
    if (height, width) == image.shape[:2]:
        return image.copy()
    rows, columns = _taps(height, image.shape[0], scale), _taps(width, image.shape[1], scale)
    if image.dtype == np.float32:
        return _resize_floats(image, rows, columns)
    return _halve_bytes(image, height, width) if scale == 0.5 else _resize_bytes(image, rows, columns)


def _taps(length: int, side: int, scale: float):
    """Return for each output pixel its two source pixels and the float32 weight of the second, each [length]."""
    position = ((np.arange(length) + 0.5) * (1.0 / scale) - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    # Beyond the centre of the outermost pixel both are that pixel, and the weight does not matter.
    return np.clip(first, 0, side - 1), np.clip(first + 1, 0, side - 1), position - first.astype(np.float32)


def _along(weights: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    return weights.reshape([-1 if index == axis else 1 for index in range(ndim)])


def _resize_floats(image, rows, columns):
    first, second, weight = columns
    weight = _along(weight, 1, image.ndim)
    strip = image[:, first] * (1 - weight) + image[:, second] * weight  # [h, width, ...]
    first, second, weight = rows
    weight = _along(weight, 0, image.ndim)
    return strip[first] * (1 - weight) + strip[second] * weight  # [height, width, ...]


def _resize_bytes(image, rows, columns):
    (first, second), (low, high) = columns[:2], _fixed_point(columns[2], 1, image.ndim)
    image = image.astype(np.int32)
    strip = image[:, first] * low + image[:, second] * high  # [h, width, ...], 19 bits
    (first, second), (low, high) = rows[:2], _fixed_point(rows[2], 0, image.ndim)
    sums = ((strip[first] >> 4) * low >> 16) + ((strip[second] >> 4) * high >> 16)
    return (sums + 2 >> 2).astype(np.uint8)


def _fixed_point(weight, axis, ndim):
    unit = np.float32(1 << _WEIGHT_BITS)
    low, high = (np.rint(part * unit).astype(np.int32) for part in (1 - weight, weight))
    return _along(low, axis, ndim), _along(high, axis, ndim)


def _halve_bytes(image, height, width):
    """Average blocks of 2 x 2; OpenCV rounds the whole ones half up and those cut by the border half to even."""
    rows, columns = np.arange(0, 2 * height, 2), np.arange(0, 2 * width, 2)
    # Even sides leave no block cut; an odd side 4k + 3 is rounded up to 2k + 2 blocks, the last of one pixel.
    padded = np.zeros((2 * height, 2 * width, *image.shape[2:]), np.int32)
    picture = image[: 2 * height, : 2 * width]
    padded[: picture.shape[0], : picture.shape[1]] = picture
    sums = np.add.reduceat(np.add.reduceat(padded, rows, axis=0), columns, axis=1)
    count = _along(np.minimum(2, image.shape[0] - rows), 0, image.ndim) * _along(
        np.minimum(2, image.shape[1] - columns), 1, image.ndim
    )
    whole, cut = sums + 2 >> 2, np.rint(sums / count).astype(np.int32)
    return np.choose(count == 4, (cut, whole)).astype(np.uint8)
