"""Mask targets of regions, one cell at a time."""

import math

import numpy as np


def crop(mask, box, roi, size, semantics="aligned"):
    """Bilinear values of a mask [R, R] that fills `box`, at size x size places of `roi`.

    "aligned": at the centres of its cells. "crop_and_resize": at the centres of the pixels
    linspace(y1, y2 - 1, size).
    """
    side = mask.shape[0]
    out = np.zeros((size, size))
    for p in range(size):
        for q in range(size):
            if semantics == "aligned":
                y = roi[1] + (p + 0.5) * (roi[3] - roi[1]) / size
                x = roi[0] + (q + 0.5) * (roi[2] - roi[0]) / size
            else:
                y = np.linspace(roi[1], roi[3] - 1, size)[p] + 0.5
                x = np.linspace(roi[0], roi[2] - 1, size)[q] + 0.5
            if not (box[1] <= y <= box[3] and box[0] <= x <= box[2]):
                continue
            row = min(max((y - box[1]) / (box[3] - box[1]) * side - 0.5, 0.0), side - 1.0)
            column = min(max((x - box[0]) / (box[2] - box[0]) * side - 0.5, 0.0), side - 1.0)
            top, left = math.floor(row), math.floor(column)
            for i, row_weight in ((top, 1 - row + top), (top + 1, row - top)):
                for j, column_weight in ((left, 1 - column + left), (left + 1, column - left)):
                    if row_weight > 0 and column_weight > 0:
                        out[p, q] += row_weight * column_weight * mask[i, j]
    return out
