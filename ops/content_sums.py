"""Sums over the cells that see a picture, for statistics that count nothing beside it.

XLA does not fuse a product into a sum over rows and columns on a CPU: it writes it to memory and reads it back. So the
rows are divided into parts, which are added to each other cell by cell, and what is left is summed.
"""

import functools
import operator
from collections.abc import Callable

import tensorflow as tf

_PARTS = 8  # of as many rows each; what is written and read again is then an eighth of the features


def content_sum(x: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
    """Return the sum of the features of each picture, [B, F].

    Args:
      x: [B, h, w, F] float32.
      inside: [B, h, w, 1] float32, 1 where the picture is and 0 beside it; it gets no gradient.
    """

    @tf.custom_gradient
    def total(x, inside):
        return _sum_in_parts(operator.mul, x, inside), lambda upstream: (inside * _by_cell(upstream), None)

    return total(x, inside)


def content_squares(x: tf.Tensor, mean: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
    """Return the sum of the squared distances of each picture's features from a mean, [B, F].

    Args:
      x: [B, h, w, F] float32.
      mean: [B, F] or [1, F] float32; it gets no gradient, which is right for a mean of the same cells: the distances
        from it add up to nothing.
      inside: see `content_sum`.
    """

    @tf.custom_gradient
    def total(x, mean, inside):
        def squares(part, inside):
            distance = (part - _by_cell(mean)) * inside
            return distance * distance

        def gradient(upstream):
            return 2.0 * inside * (x - _by_cell(mean)) * _by_cell(upstream), None, None

        return _sum_in_parts(squares, x, inside), gradient

    return total(x, mean, inside)


def _sum_in_parts(function: Callable[..., tf.Tensor], x: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
    """Return the sum over all cells of `function` of the features and the mask, [B, F]."""

    def of_rows(start, stop):
        return function(x[:, start:stop], inside[:, start:stop])

    rows = x.shape[1]
    each = rows // _PARTS
    pieces = [of_rows(_PARTS * each, rows)] if rows % _PARTS else []  # the rows that no part has
    if each:
        parts = (of_rows(part * each, (part + 1) * each) for part in range(_PARTS))
        pieces.append(functools.reduce(operator.add, parts))
    return functools.reduce(operator.add, [tf.reduce_sum(piece, axis=(1, 2)) for piece in pieces])


def _by_cell(of_channels: tf.Tensor) -> tf.Tensor:
    return of_channels[:, None, None, :]
