"""Mask targets of regions, one cell at a time."""

import math

import numpy as np


def crop(mask, box, roi, size):
    """Bilinear values of a mask [R, R] that fills `box`, at the centres of the size x size cells of `roi`."""
    side = mask.shape[0]
    out = np.zeros((size, size))
    for p in range(size):
        for q in range(size):
            y = roi[1] + (p + 0.5) * (roi[3] - roi[1]) / size
            x = roi[0] + (q + 0.5) * (roi[2] - roi[0]) / size
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
