"""Anchors that fit the objects of a data set."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tpu_retinamask.ops.anchors import AnchorGrid

FINEST_STRIDE = 8
LEVELS = 5
MOST_FITTED = 5_000  # boxes that anchors are proposed for, evenly among all
SMALLEST = 1.5  # sides of an anchor in cells: below, boxes between two centres are covered by neither
LARGEST = 4.0  # the same of the paper's
CLUSTERS = 3  # of shapes: as many ratios
ALIKE = 1.3  # shapes that differ less are one
SCALES = ((1.0, 1.41), (1.0, 1.26, 1.59))  # an octave a level, in halves or in thirds
ROUNDS = 20  # of k-means, which has settled by then
CLOSENESS = 0.1  # what a mean IoU of 1 is worth beside the coverage
WORTH_A_THIRD = 0.01  # gain of coverage for which thirds, half as many anchors again, are taken


class AnchorChoice(NamedTuple):
    """Anchors of `RetinaMask`, and the share of the objects that one of them covers."""

    sizes: tuple[float, ...]
    ratios: tuple[float, ...]
    scales: tuple[float, ...]
    coverage: float

    @property
    def settings(self) -> Mapping[str, tuple[float, ...]]:
        """Return the values by the names of their settings."""
        return {
            "RetinaMask.anchor_sizes": self.sizes,
            "RetinaMask.anchor_ratios": self.ratios,
            "RetinaMask.anchor_scales": self.scales,
        }


def choose_anchors(boxes: np.ndarray, positive_iou: float) -> AnchorChoice:
    """Return the anchors that cover most of the boxes.

    Ratios are the centres of k-means clusters of the logarithm of height / width (arXiv 1612.08242 clusters boxes
    likewise); sizes double from level to level, from the one between 1.5 and 4 cells that covers most.

    Args:
      boxes: [n, 4] pixels of the canvas, at least one.
      positive_iou: that an anchor must have with its box.
    """
    usable = boxes[((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)]
    width, height = (usable[:, 2:] - usable[:, :2]).T
    ratios = cluster_ratios(np.log(height / width))
    halves, thirds = (_best_size(usable, ratios, scales, positive_iou) for scales in SCALES)
    return thirds if thirds.coverage > halves.coverage + WORTH_A_THIRD else halves


def has_levels_of_choice(grid: AnchorGrid) -> bool:
    """Tell whether anchors have the strides that `choose_anchors` chooses sizes for."""
    return tuple(grid.strides) == tuple(FINEST_STRIDE * 2**level for level in range(LEVELS))


def some_of(boxes: np.ndarray) -> np.ndarray:
    """Return as many boxes [n, 4], evenly among all, as anchors are chosen for."""
    return boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), MOST_FITTED)).astype(np.int64)]


def _best_size(boxes, ratios, scales, positive_iou) -> AnchorChoice:
    """Return the anchors of these shapes whose size at the finest level covers most, and of those the closest."""
    found = []
    for size in np.arange(SMALLEST * FINEST_STRIDE, LARGEST * FINEST_STRIDE + 1, 2):
        ious = grid_of(sizes_from(size), ratios, scales).best_iou(boxes)
        coverage = float(np.mean(ious >= positive_iou))
        found.append((coverage + CLOSENESS * float(ious.mean()), -size, coverage))
    _, size, coverage = max(found)
    return AnchorChoice(sizes_from(-size), ratios, scales, coverage)


def cluster_ratios(logarithms: np.ndarray) -> tuple[float, ...]:
    """Return the ratios that k-means finds among the logarithms of height / width, alike ones as one.

    Args:
      logarithms: [n], at least one.
    """
    centres = np.percentile(logarithms, (10, 50, 90))
    for _ in range(ROUNDS):
        nearest = np.abs(logarithms[:, None] - centres).argmin(axis=1)
        centres = np.array(
            [logarithms[nearest == k].mean() if (nearest == k).any() else centres[k] for k in range(CLUSTERS)]
        )
    found = sorted(float(np.exp(centre)) for centre in centres)
    kept = found[:1]
    for ratio in found[1:]:
        if ratio > kept[-1] * ALIKE:
            kept.append(ratio)
    return tuple(round(ratio, 2) if ratio >= 0.1 else float(f"{ratio:.2g}") for ratio in kept)


def sizes_from(size: float) -> tuple[float, ...]:
    """Return the sizes of all levels, each twice the one before."""
    return tuple(float(size * 2**level) for level in range(LEVELS))


def grid_of(sizes: tuple[float, ...], ratios: tuple[float, ...], scales: tuple[float, ...]) -> AnchorGrid:
    """Return the anchors as the network has them."""
    strides = tuple(FINEST_STRIDE * 2**level for level in range(len(sizes)))
    return AnchorGrid(sizes=sizes, strides=strides, ratios=ratios, scales=scales)
