"""Convolutions and nearest up-sampling, position by position."""

import math

import numpy as np


def conv2d(x, kernel, bias, stride=1, padding="same"):
    """Convolution of [h, w, F] with [k, k, F, G].

    "same": as TensorFlow pads, an odd zero goes below and to the right; "symmetric": k // 2 zeros on each side.
    """
    height, width, _ = x.shape
    size = kernel.shape[0]
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    top = max((rows - 1) * stride + size - height, 0) // 2
    left = max((columns - 1) * stride + size - width, 0) // 2
    if padding == "symmetric":
        top = left = size // 2
    out = np.tile(np.asarray(bias, np.float64), (rows, columns, 1))
    for r in range(rows):
        for c in range(columns):
            for i in range(size):
                for j in range(size):
                    y, z = r * stride + i - top, c * stride + j - left
                    if 0 <= y < height and 0 <= z < width:
                        out[r, c] += np.asarray(x[y, z], np.float64) @ np.asarray(kernel[i, j], np.float64)
    return out


def upsample_nearest(x, height, width):
    """Output (i, j) is source (floor(i h / height), floor(j w / width))."""
    out = np.zeros((height, width, x.shape[2]), x.dtype)
    for i in range(height):
        for j in range(width):
            out[i, j] = x[i * x.shape[0] // height, j * x.shape[1] // width]
    return out
