"""Anchors of a pyramid, cell by cell."""

import math


def anchors(
    height,
    width,
    sizes=(32, 64, 128, 256, 512),
    levels=(3, 4, 5, 6, 7),
    ratios=(0.5, 1.0, 2.0),
    scales=(1.0, 2 ** (1 / 3), 2 ** (2 / 3)),
):
    """All anchors of an image: levels, then y, then x, then ratio (height / width), then scale."""
    rows = []
    for level, size in zip(levels, sizes):
        stride = 2**level
        for row in range(math.ceil(height / stride)):
            for column in range(math.ceil(width / stride)):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                for ratio in ratios:
                    for scale in scales:
                        w = math.sqrt((size * scale) ** 2 / ratio)
                        h = w * ratio
                        rows.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return rows
