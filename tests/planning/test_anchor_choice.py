"""Anchors chosen for boxes whose best anchors are known."""

import numpy as np
import pytest

from tpu_retinamask.planning.anchor_choice import choose_anchors, cluster_ratios, grid_of


def boxes_of(width, height, count=400):
    corner = np.random.default_rng(0).random((count, 2)) * 300
    return np.concatenate([corner, corner + np.broadcast_to(np.stack([width, height], -1), (count, 2))], axis=1)


def test_ratios_are_the_middles_of_what_there_is():
    shapes = np.log(np.repeat([0.5, 1.0, 4.0], [30, 50, 20]))
    assert cluster_ratios(shapes) == (0.5, 1.0, 4.0)
    spread = np.repeat([-1.1, -0.9, -0.1, 0.1, 0.9, 1.1], 10)
    assert cluster_ratios(spread) == (0.37, 1.0, 2.72)  # e to the power of -1, 0 and 1
    assert cluster_ratios(np.zeros(5)) == (1.0,)  # all alike: one
    # What lies closer than a third of itself is one.
    assert len(cluster_ratios(np.log([1.0, 1.1, 1.2, 1.25]))) == 1


def test_boxes_that_anchors_are_made_of_are_covered():
    side = 18 * 2 ** np.random.default_rng(1).uniform(0, 3, 400)
    chosen = choose_anchors(boxes_of(side, side), 0.5)
    assert chosen.ratios == (1.0,) and chosen.coverage > 0.99
    assert all(later == 2 * earlier for earlier, later in zip(chosen.sizes, chosen.sizes[1:]))


@pytest.mark.parametrize("ratio", [0.33, 3.0])
def test_tall_and_wide_boxes_get_their_own_shape(ratio):
    side = np.full(400, 60.0)
    chosen = choose_anchors(boxes_of(side / np.sqrt(ratio), side * np.sqrt(ratio)), 0.5)
    assert chosen.ratios == (ratio,)
    plain = grid_of((32, 64, 128, 256, 512), (1.0,), (1.0, 1.26, 1.59))
    assert (plain.best_iou(boxes_of(side / np.sqrt(ratio), side * np.sqrt(ratio))) < 0.5).mean() > 0.9
    assert chosen.coverage > 0.99


def test_cables_keep_their_shape():
    assert cluster_ratios(np.log([0.00321] * 3)) == (0.0032,)
    assert cluster_ratios(np.log([0.321] * 3)) == (0.32,)
    chosen = choose_anchors(boxes_of(np.array(300.0), np.array(1.0)), 0.4)
    assert chosen.ratios == (0.0033,)  # which an AnchorGrid takes


def test_coverage_is_what_the_training_reports():
    boxes = boxes_of(*np.random.default_rng(2).uniform(5, 100, (2, 400)))
    chosen = choose_anchors(boxes, 0.4)
    ious = grid_of(chosen.sizes, chosen.ratios, chosen.scales).best_iou(boxes)
    assert chosen.coverage == np.mean(ious >= 0.4)


def test_tiny_and_empty_boxes_are_no_trouble():
    assert choose_anchors(np.array([[0.0, 0.0, 1.0, 1.0]]), 0.5).coverage == 0.0
    assert choose_anchors(np.array([[5.0, 5.0, 5.0, 9.0], [0.0, 0.0, 20.0, 20.0]]), 0.4).ratios == (1.0,)
