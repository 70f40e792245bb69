"""The affine warp of keras-retinanet's random transforms in NumPy, the very numbers that OpenCV gives."""

import functools

import numpy as np

# OpenCV warps on a grid of 1/32 pixel: coordinates are sums of numbers rounded to 1/1024 pixel, and the
# weights of the bytes are whole multiples of 1/32768.
_SUM_BITS, _GRID_BITS, _WEIGHT_BITS = 10, 5, 15


def centre_transform(matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a transform about the image's centre, whose shift is a share of the image, in pixels.

    Args:
      matrix: [3, 3], moves x, y, 1; its shift in units of the width and the height.
      height: of the image.
      width: of the image.

    Returns:
      [3, 3] float64, about the corner of the image, its shift in pixels.
    """
    moved = np.array(matrix, np.float64)
    moved[:2, 2] *= (width, height)
    centre = np.array((width, height)) / 2.0
    moved[:2, 2] += centre - moved[:2, :2] @ centre
    return moved


def warp_affine(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Move the pixels of an image, bilinear; what comes from outside repeats the nearest pixel of the border.

    Args:
      image: [h, w] or [h, w, c], float32 or uint8 (then rounded).
      matrix: [3, 3] or [2, 3], moves the centre of pixel (column x, row y) from x, y to matrix @ (x, y, 1).

    Returns:
      An image of the same shape and dtype.

    Raises:
      ValueError: another dtype, or a matrix that cannot be inverted.

    Source: OpenCV 4.5.5, `cv2.warpAffine` with INTER_LINEAR and BORDER_REPLICATE.
    """
    if image.dtype not in (np.float32, np.uint8):
        raise ValueError(f"warp_affine: image is {image.dtype}, expected float32 or uint8")
    height, width = image.shape[:2]
    inverse = _invert(np.asarray(matrix, np.float64))
    unit = 1 << _SUM_BITS
    half = unit >> _GRID_BITS + 1
    rows = np.rint((inverse[:, 1:2] * np.arange(height) + inverse[:, 2:]) * unit).astype(np.int64) + half  # [2, h]
    columns = np.rint(inverse[:, :1] * np.arange(width) * unit).astype(np.int64)  # [2, w]
    x, y = rows[:, :, None] + columns[:, None, :] >> _SUM_BITS - _GRID_BITS  # each [h, w], in 1/32 pixel
    return _sample(image, x, y)


def transform_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the boxes that enclose the moved corners of boxes [n, 4], not clipped."""
    corners = np.stack([boxes[:, [0, 2, 0, 2]], boxes[:, [1, 1, 3, 3]]], axis=1)  # [n, 2, 4]
    moved = matrix[:2, :2] @ corners + matrix[:2, 2:]
    return np.concatenate([moved.min(axis=2), moved.max(axis=2)], axis=1)


def _invert(matrix):
    """Return the inverse [2, 3] by the operations of OpenCV: one ulp can move a sample by 1/32 pixel."""
    (a, b, tx), (c, d, ty) = matrix[:2]
    determinant = a * d - b * c
    if determinant == 0:
        raise ValueError(f"warp_affine: the matrix {matrix.tolist()} squeezes the image to a line")
    reciprocal = 1.0 / determinant
    a, b, c, d = d * reciprocal, b * -reciprocal, c * -reciprocal, a * reciprocal
    return np.array([[a, b, -a * tx - b * ty], [c, d, -c * tx - d * ty]])


def _sample(image, x, y):
    height, width = image.shape[:2]
    grid = 1 << _GRID_BITS
    left, top = np.clip(x >> _GRID_BITS, 0, width - 1), np.clip(y >> _GRID_BITS, 0, height - 1)
    right, below = np.clip((x >> _GRID_BITS) + 1, 0, width - 1), np.clip((y >> _GRID_BITS) + 1, 0, height - 1)
    shape = x.shape + (1,) * (image.ndim - 2)
    # All weights are multiples of 2**-10 and so exact, in float32 as in 15 bits.
    fx, fy = ((part & grid - 1).reshape(shape) for part in (x, y))
    corners = (
        (top, left, (grid - fy) * (grid - fx)),
        (top, right, (grid - fy) * fx),
        (below, left, fy * (grid - fx)),
        (below, right, fy * fx),
    )
    if image.dtype == np.float32:
        parts = (
            image[row, column] * (weight / np.float32(grid * grid)).astype(np.float32)
            for row, column, weight in corners
        )
        return functools.reduce(np.add, parts)
    scale = 1 << _WEIGHT_BITS - 2 * _GRID_BITS
    parts = (image[row, column].astype(np.int64) * (weight * scale) for row, column, weight in corners)
    total = functools.reduce(np.add, parts)
    return (total + (1 << _WEIGHT_BITS - 1) >> _WEIGHT_BITS).astype(np.uint8)
