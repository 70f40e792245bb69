"""Anchors, their targets and the regions of masks equal those of the paper's code."""

import numpy as np
import pytest
import tensorflow as tf
from golden_paper import golden_paper_set

from tpu_retinamask.model.mask_rois import select_mask_rois
from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.ops.boxes import CenterBoxCoder, pairwise_iou
from tpu_retinamask.ops.masks import crop_masks
from tpu_retinamask.ops.matching import match_anchors
from tpu_retinamask.structures import BACKGROUND, IGNORED, Batch

_ANCHORS = golden_paper_set.load("anchors")
_MATCHING = golden_paper_set.load("matching_128x160")
_ROIS = golden_paper_set.load("mask_rois")
_SIZE = (128, 160)


def test_anchors_rounded_in_the_cell_are_theirs():
    grid = AnchorGrid(rounding="cell")
    for level, anchors in zip(grid.levels, grid.anchors(_SIZE)):
        # Sides of up to 1200 pixels, rounded to float32 on either side.
        np.testing.assert_allclose(anchors[: grid.per_cell], _ANCHORS[f"cell_P{level}"], atol=1e-4)
    np.testing.assert_allclose(np.concatenate(grid.anchors(_SIZE)), _ANCHORS["all_128x160"], atol=1e-4)


def test_unrounded_anchors_differ_where_a_side_is_no_whole_pixel():
    for level, anchors in zip(AnchorGrid().levels, AnchorGrid().anchors(_SIZE)):
        apart = np.abs(anchors[:9] - _ANCHORS[f"cell_P{level}"]).max(axis=1).reshape(3, 3)  # [ratio, scale]
        assert (apart[1] < 1e-4).all() and (apart[[0, 2]] > 0.02).all()


@pytest.mark.parametrize("case", sorted({key.split("_")[0] for key in _MATCHING}))
def test_anchors_go_to_the_boxes_they_go_to(case):
    boxes, expected = _MATCHING[f"{case}_boxes"], _MATCHING[f"{case}_matched"]
    anchors = _ANCHORS["all_128x160"]
    labels, matched = match_anchors(
        tf.constant(anchors), boxes[None], np.zeros([1, len(boxes)], np.int32), np.array([_SIZE]), best_match_ties="all"
    )
    labels, matched = labels[0].numpy(), matched[0].numpy()
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    inside = (centre < _SIZE[::-1]).all(axis=1)  # theirs trains anchors that are centred beside the picture too
    assert inside.mean() > 0.95
    np.testing.assert_array_equal((labels >= 0)[inside], (expected >= 0)[inside])
    np.testing.assert_array_equal((labels == IGNORED)[inside], (expected == -2)[inside])
    np.testing.assert_array_equal((labels == BACKGROUND)[inside], (expected == -1)[inside])
    # An anchor that a box takes as its best belongs to that box here (the paper, section 3.3); in their code it keeps
    # the box with which it overlaps most.
    iou = pairwise_iou(tf.constant(anchors), tf.constant(boxes)).numpy()
    other = inside & (labels >= 0) & (matched != expected)
    for n in np.flatnonzero(other):
        assert iou[n, expected[n]] >= iou[n, matched[n]]
        assert iou[n, matched[n]] >= iou[inside, matched[n]].max() * (1 - 1e-4)
    same = (labels >= 0) & (matched == expected)
    deltas = CenterBoxCoder().encode(tf.constant(boxes[matched]), tf.constant(anchors)).numpy()
    positive = _MATCHING[f"{case}_positive"]
    chosen = same[positive]
    np.testing.assert_allclose(deltas[positive[chosen]], _MATCHING[f"{case}_deltas"][chosen], atol=2e-5, rtol=1e-5)
    assert chosen.sum() == same.sum() > 0


@pytest.mark.parametrize("case", sorted({key.split("_")[0] for key in _ROIS}))
def test_regions_are_matched_as_theirs(case):
    truth, found, match = (_ROIS[f"{case}_{part}"] for part in ("gt", "det", "match"))
    empty = tf.zeros([1, len(truth), 0, 0])
    batch = Batch(*[empty] * len(Batch._fields))._replace(
        boxes=tf.constant(truth[None]),
        classes=tf.zeros([1, len(truth)], tf.int32),
        has_mask=tf.ones([1, len(truth)], bool),
    )
    rois = select_mask_rois(batch, tf.constant(found[None]), num_rois=len(truth) + len(found))
    valid = rois.valid[0].numpy()
    ours = [(*box, row) for box, row in zip(rois.boxes[0].numpy()[valid], rois.matched[0].numpy()[valid])]
    every = np.concatenate([found, truth])
    theirs = [(*box, row) for box, row in zip(every[match >= 0], match[match >= 0])]
    assert sorted(ours) == sorted(theirs)


def test_mask_targets_differ_by_design_and_little():
    # They draw the polygon into 28 x 28 cells; ours samples the mask of full resolution at the cells' centres. Both
    # say the same of a cell unless the outline passes through it or by its neighbour.
    golden = golden_paper_set.load("mask_targets")
    scale = golden["canvas"][::-1] / golden["original"][::-1]  # x, y
    theirs = np.unpackbits(golden["targets"], axis=-1)[..., :28]
    apart = []
    for polygon, roi, expected in zip(golden["polygons"], golden["rois_legacy"], theirs):
        points = (polygon.reshape(-1, 2) * scale - roi[:2]) / np.maximum(roi[2:] - roi[:2], 1) * 28  # as they crop
        fine = _inside(points, 8 * 28) if np.ptp(points, axis=0).min() > 0 else None
        if fine is None:
            continue
        box = tf.constant([[[0.0, 0.0, 28.0, 28.0]]])
        crop = crop_masks(tf.constant(fine[None, None]), box, box, tf.zeros([1, 1], tf.int32), 28)[0, 0].numpy()
        outline = fine.reshape(28, 8, 28, 8).min((1, 3)) != fine.reshape(28, 8, 28, 8).max((1, 3))
        near = np.pad(outline, 1)
        near = np.max([near[1 + i : 29 + i, 1 + j : 29 + j] for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
        assert not ((crop > 0.5) != expected)[~near].any()
        apart.append(((crop > 0.5) != expected).mean())
    assert len(apart) > 10 and np.mean(apart) < 0.05


def _inside(points, side):
    """Return which centres of a side x side grid over [0, 28]^2 lie in the polygon, by the crossing rule, uint8."""
    centre = (np.arange(side) + 0.5) * 28 / side
    x, y = centre[None, :], centre[:, None]
    crossed = np.zeros((side, side), bool)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0)):
        if y1 != y2:
            crossed ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return crossed.astype(np.uint8)
