"""Targets and losses of a whole batch against the slow references."""

import numpy as np
import pytest
import tensorflow as tf
from reference import box_reference, loss_reference, mask_reference, matching_reference, scenes

from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.ops.boxes import CenterBoxCoder, CornerBoxCoder
from tpu_retinamask.structures import AnchorFrame, RawOutputs, Targets

_SIZE = (64, 96)
_GRID = AnchorGrid(levels=(3, 4, 5), sizes=(16, 24, 40), strides=(8, 16, 32), ratios=(0.5, 1.0), scales=(1.0,))
_ANCHORS = _GRID.anchors(_SIZE)
_CODER = CenterBoxCoder()
_FRAME = AnchorFrame(_SIZE, _ANCHORS, _CODER)


def _anchor_losses(criterion, outputs, targets, num_positive, batch_size):
    """Class loss and box loss."""
    return (
        criterion.class_loss_of(outputs, targets, num_positive, batch_size),
        criterion.box_loss_of(outputs, targets, num_positive),
    )


def _outputs(seed=0, batch=3, classes=2):
    rng = np.random.default_rng(seed)
    return RawOutputs(
        (),
        tuple(tf.constant(rng.normal(-2, 1, (batch, len(a), classes)), tf.float32) for a in _ANCHORS),
        tuple(tf.constant(rng.normal(0, 0.5, (batch, len(a), 4)), tf.float32) for a in _ANCHORS),
    )


@pytest.mark.parametrize(
    "coder, encode",
    [(CornerBoxCoder(), box_reference.corner_deltas), (CenterBoxCoder(), box_reference.center_deltas)],
    ids=["corner", "center"],
)
@pytest.mark.parametrize("best_match", [None, 0.0])
def test_assign_equals_loops(coder, encode, best_match):
    batch = scenes.random_batch(1)
    targets = Criterion(best_match_iou=best_match).assign(AnchorFrame(_SIZE, _ANCHORS, coder), batch)
    anchors = np.concatenate(_ANCHORS)
    for b in range(3):
        labels, matched = matching_reference.match_anchors(
            anchors,
            batch.boxes[b].numpy(),
            batch.classes[b].numpy(),
            _SIZE,
            best_match_iou=best_match,
            best_match_ties="nearest",
        )
        np.testing.assert_array_equal(targets.labels[b], labels)
        np.testing.assert_array_equal(targets.matched[b], matched)
        if not (batch.classes[b].numpy() >= 0).any():
            assert np.isfinite(targets.deltas[b]).all()
            continue
        boxes = batch.boxes[b].numpy().astype(np.float64)[matched]
        expected = [encode(box, anchor) for box, anchor in zip(boxes, anchors.astype(np.float64))]
        # Coordinates below 100 round by 4e-6, against anchors of 11 pixels and a factor of at most 10.
        np.testing.assert_allclose(targets.deltas[b], expected, atol=3e-5, rtol=1e-5)
    assert (targets.labels.numpy() >= 0).any()


@pytest.mark.parametrize("adds_batch, box_loss", [(True, "self_adjusting"), (False, "smooth_l1")])
def test_anchor_losses_equal_loops_over_all_anchors_at_once(adds_batch, box_loss):
    batch, outputs = scenes.random_batch(2), _outputs()
    criterion = Criterion(focal_adds_batch=adds_batch, box_loss=box_loss, smooth_l1_beta=1 / 9)
    targets = criterion.assign(_FRAME, batch)
    labels = targets.labels.numpy()
    count = (labels >= 0).sum()
    class_loss, box = _anchor_losses(criterion, outputs, targets, tf.constant(float(count)), 3)
    logits, deltas = np.concatenate(outputs.class_logits, 1), np.concatenate(outputs.box_deltas, 1)
    focal = sum(loss_reference.focal(logits[b], labels[b]) for b in range(3))
    smooth = sum(loss_reference.smooth_l1(deltas[b], targets.deltas[b].numpy(), labels[b] >= 0) for b in range(3))
    # Sums of a thousand float32 terms.
    assert float(class_loss) == pytest.approx(focal / (count + 3 if adds_batch else count), rel=1e-5)
    # At the beta from which it starts, the self-adjusting loss is a quarter of the other.
    assert float(box) == pytest.approx(smooth / (4 * count if criterion.self_adjusting else count), rel=1e-5)


def test_losses_of_halves_of_the_batch_add_up_with_the_global_count():
    # What two replicas compute, each with its half and the count of both.
    batch, outputs = scenes.random_batch(3, counts=(3, 1)), _outputs(1, batch=2)
    criterion = Criterion()
    targets = criterion.assign(_FRAME, batch)
    count = tf.reduce_sum(tf.cast(targets.labels >= 0, tf.float32))
    whole = _anchor_losses(criterion, outputs, targets, count, 2)
    halves = []
    for b in range(2):
        half = RawOutputs(
            (),
            tuple(x[b : b + 1] for x in outputs.class_logits),
            tuple(x[b : b + 1] for x in outputs.box_deltas),
        )
        halves.append(_anchor_losses(criterion, half, type(targets)(*(t[b : b + 1] for t in targets)), count, 2))
    np.testing.assert_allclose(np.sum(halves, axis=0), whole, rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_no_box_in_the_whole_batch(jit_compile):
    batch, outputs, criterion = scenes.random_batch(4, counts=(0, 0, 0)), _outputs(2), Criterion()

    def run(logits, deltas):
        with tf.GradientTape() as tape:
            tape.watch([logits, deltas])
            targets = criterion.assign(_FRAME, batch)
            losses = _anchor_losses(criterion, RawOutputs((), logits, deltas), targets, tf.constant(0.0), 3)
            rois = criterion.choose_rois(RawOutputs((), logits, deltas), _FRAME, batch)
            mask = criterion.mask_loss(tf.zeros([3, 100, 8, 8]), rois, batch, 3, tf.zeros([]))
            total = tf.add_n([*losses, mask])
        return losses, mask, tape.gradient(total, [logits, deltas])

    losses, mask, gradients = tf.function(run, jit_compile=jit_compile, autograph=False)(
        outputs.class_logits, outputs.box_deltas
    )
    focal = sum(
        loss_reference.focal(level[b].numpy(), np.full(level.shape[1], -1))
        for level in outputs.class_logits
        for b in range(3)
    )
    assert float(losses[0]) == pytest.approx(focal / 3, rel=1e-5)  # #positive + B = 3
    assert float(losses[1]) == 0.0 and float(mask) == 0.0
    for level in tf.nest.flatten(gradients):
        assert np.isfinite(level).all()


@pytest.mark.parametrize("mask_average", ["regions", "images"])
def test_mask_loss_equals_loops(mask_average):
    batch = scenes.random_batch(5)
    criterion = Criterion(mask_rois=5, mask_rois_from_detections=0, mask_average=mask_average)
    rois = criterion.choose_rois(None, _FRAME, batch)
    np.testing.assert_array_equal(tf.reduce_sum(tf.cast(rois.valid, tf.int32), 1), [3, 1, 0])
    logits = np.random.default_rng(6).normal(size=(3, 5, 14, 14)).astype(np.float32)
    loss = criterion.mask_loss(tf.constant(logits), rois, batch, 3, tf.constant(4.0))
    expected = 0.0
    for b in range(3):
        boxes = batch.boxes[b].numpy().astype(np.float64)
        targets = np.array(
            [
                (
                    mask_reference.crop(batch.masks[b, m].numpy(), boxes[m], roi, 14) >= 0.5 - 1e-3
                    if valid
                    else np.zeros((14, 14))
                )
                for m, roi, valid in zip(
                    rois.matched[b].numpy(), rois.boxes[b].numpy().astype(np.float64), rois.valid[b].numpy()
                )
            ]
        )
        # Means of 3, 1 and 0 regions: each image weighs a third, or each region a quarter.
        weight = 1 / 3 if mask_average == "images" else (3, 1, 0)[b] / 4
        expected += weight * loss_reference.mask_loss(logits[b], targets, rois.valid[b].numpy())
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_detections_join_the_regions():
    batch = scenes.random_batch(7, counts=(1, 0, 0))
    anchors = np.concatenate(_ANCHORS)
    # One anchor is made to be the box exactly, through deltas, with a high score; all others score 0.
    criterion = Criterion(mask_rois=4)
    box = batch.boxes[0, 0]
    moved = box + tf.constant([1.0, 0, 0, 0])
    row = int(np.argmax([box_reference.iou(box.numpy(), a) for a in _ANCHORS[0]]))
    deltas = _CODER.encode(moved[None], tf.constant(anchors[row])[None])
    logits = [tf.fill([3, len(a), 2], -20.0) for a in _ANCHORS]
    logits[0] = tf.tensor_scatter_nd_update(logits[0], [[0, row, 1]], [5.0])
    levels = [tf.zeros([3, len(a), 4]) for a in _ANCHORS]
    levels[0] = tf.tensor_scatter_nd_update(levels[0], [[0, row]], deltas)
    rois = criterion.choose_rois(RawOutputs((), tuple(logits), tuple(levels)), _FRAME, batch)
    np.testing.assert_array_equal(rois.valid, [[True, True, False, False], [False] * 4, [False] * 4])
    # Encoding and decoding in float32.
    np.testing.assert_allclose(rois.boxes[0, :2], [box, moved], atol=1e-4)


def test_weights_of_classes_by_name_are_those_by_id_and_every_slip_is_named():
    by_name = Criterion(focal_class_weights={"cat": 2.0, "owl": 0})
    assert by_name.for_classes(("dog", None, "cat", "owl")).focal_class_weights == (1.0, 1.0, 2.0, 0.0)
    with pytest.raises(SettingError, match=r"names \['owl'\], but the classes are \['dog', 'cat'\]"):
        by_name.for_classes(("dog", "cat"))
    by_id = Criterion(focal_class_weights=(1.0, 3.0))
    assert by_id.for_classes(("dog", "cat")) is by_id
    for value in (-1.0, float("nan"), True, "2"):
        with pytest.raises(SettingError, match="focal_class_weights"):
            Criterion(focal_class_weights={"cat": value})
    outputs = _outputs(batch=1, classes=3)
    anchors = sum(map(len, _ANCHORS))
    targets = Targets(tf.zeros([1, anchors], tf.int32), tf.zeros([1, anchors, 4]), tf.zeros([1, anchors], tf.int32))
    with pytest.raises(SettingError, match="has 2 values, expected one for each of the 3 classes"):
        by_id.class_loss_of(outputs, targets, tf.constant(1.0), 1)
    plain, weighted = (
        Criterion(focal_class_weights=weights).class_loss_of(outputs, targets, tf.constant(1.0), 1)
        for weights in (None, (2.0, 2.0, 2.0))
    )
    assert float(weighted) == pytest.approx(2 * float(plain), rel=1e-6)
