"""RoIAlign, one sample at a time, in float64."""

import math

import numpy as np


def level_of(box, lowest, highest):
    """Pyramid level of one box: 224 pixels belong to level 4."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    side = math.sqrt(area) if area > 0 else 0.0
    return min(max(math.floor(4 + math.log2(side / 224 + 1e-7)), lowest), highest)


def bilinear(feature, y, x):
    """Value of [h, w, F] at a position inside it, 0 = centre of the first cell."""
    height, width, _ = feature.shape
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    return (
        (1 - dy) * (1 - dx) * feature[top, left]
        + (1 - dy) * dx * feature[top, right]
        + dy * (1 - dx) * feature[bottom, left]
        + dy * dx * feature[bottom, right]
    )


def aligned(feature, box, stride, size, ratio=2):
    """Mean of ratio x ratio samples a bin; positions outside the level are moved to its edge."""
    height, width, channels = feature.shape
    out = np.zeros((size, size, channels))
    bin_height, bin_width = (box[3] - box[1]) / size, (box[2] - box[0]) / size
    for p in range(size):
        for q in range(size):
            for i in range(ratio):
                for j in range(ratio):
                    y = (box[1] + p * bin_height + (i + 0.5) * bin_height / ratio) / stride - 0.5
                    x = (box[0] + q * bin_width + (j + 0.5) * bin_width / ratio) / stride - 0.5
                    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
                    out[p, q] += bilinear(feature, y, x) / ratio**2
    return out


def crop_and_resize(feature, box, image_size, size):
    """One sample a bin at linspace(y1 h / H, y2 h / H - 1, size), 0 outside the level."""
    height, width, channels = feature.shape
    out = np.zeros((size, size, channels))
    rows = np.linspace(box[1] * height / image_size[0], box[3] * height / image_size[0] - 1, size)
    columns = np.linspace(box[0] * width / image_size[1], box[2] * width / image_size[1] - 1, size)
    for p, y in enumerate(rows):
        for q, x in enumerate(columns):
            if 0 <= y <= height - 1 and 0 <= x <= width - 1:
                out[p, q] = bilinear(feature, y, x)
    return out
