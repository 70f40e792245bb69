"""The losses of compat and their gradients equal those of keras-maskrcnn; its leak is shown, and not kept."""

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_set

from tpu_retinamask.keras_maskrcnn import losses
from tpu_retinamask.ops.losses import sigmoid_focal_loss
from tpu_retinamask.ops.matching import match_rois
from tpu_retinamask.structures import BACKGROUND, IGNORED

_CASES = golden_set.values("losses/losses")
_FILES = {kind: golden_set.Arrays(f"losses/{kind}") for kind in ("focal", "smooth_l1", "mask")}
# Sums of up to some thousand float32 terms in another order.
_LOSS = dict(rtol=1e-6, atol=1e-9)
# One term each: a few roundings of log, power and quotient.
_GRADIENT = dict(rtol=1e-5, atol=5e-7)


def _names(kind, suffix="_loss"):
    return golden_set.cases(_FILES[kind], _CASES[kind], suffix)


def _value_and_gradient(function, at):
    at = tf.constant(at)
    with tf.GradientTape() as tape:
        tape.watch(at)
        value = function(at)
    return value, tape.gradient(value, at)


@pytest.mark.parametrize("kind, name", [(kind, name) for kind in ("focal", "smooth_l1") for name in _names(kind)])
def test_anchor_losses(kind, name):
    arrays, function = _FILES[kind], {"focal": losses.focal_loss, "smooth_l1": losses.smooth_l1_loss}[kind]
    options = {key: value for key, value in _CASES[kind][name].items() if key in ("alpha", "gamma", "sigma")}
    target = tf.constant(arrays[f"{name}_y_true"])
    value, gradient = _value_and_gradient(lambda p: function(target, p, **options), arrays[f"{name}_y_pred"])
    arrays.compare(f"{name}_loss", value, **_LOSS)
    arrays.compare(f"{name}_grad", gradient, **_GRADIENT)
    np.testing.assert_allclose(value, _CASES[kind][name]["loss"], **_LOSS)
    assert (arrays[f"{name}_y_true"][..., -1] == 1).sum() == _CASES[kind][name]["positives"]


def test_all_cases_of_the_anchor_losses_are_there():
    assert set(_names("focal")) == set(_CASES["focal"]) and set(_names("smooth_l1")) == set(_CASES["smooth_l1"])


def _is_hard(name):
    labels = _FILES["focal"][f"{name}_y_true"][..., :-1]
    return np.isin(labels, (0, 1)).all() and (labels.sum(-1) <= 1).all()


def _is_saturated(name):
    p = _FILES["focal"][f"{name}_y_pred"]
    return np.minimum(p, 1 - p).min() < 1e-4


@pytest.mark.parametrize("name", [name for name in _names("focal") if _is_hard(name) and not _is_saturated(name)])
def test_focal_loss_of_the_training_step(name):
    # From logits and labels, without epsilon: another number only where labels are soft or probabilities saturated.
    y_true, y_pred = _FILES["focal"][f"{name}_y_true"], _FILES["focal"][f"{name}_y_pred"].astype(np.float64)
    state = y_true[..., -1]
    labels = np.where(state == -1, IGNORED, np.where(y_true[..., :-1].any(-1), y_true[..., :-1].argmax(-1), BACKGROUND))
    options = {key: value for key, value in _CASES["focal"][name].items() if key in ("alpha", "gamma")}
    total = sigmoid_focal_loss(
        tf.constant(np.log(y_pred / (1 - y_pred)), tf.float32), tf.constant(labels, tf.int32), **options
    )
    # Adding 1e-7 to a probability of at least 1e-4 changes its logarithm by less than 1e-3 of 9, in the worst
    # term alone; over a whole case far less.
    np.testing.assert_allclose(total / max(1, (state == 1).sum()), _FILES["focal"][f"{name}_loss"], rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in _names("focal") if _is_hard(name) and _is_saturated(name)])
def test_without_epsilon_saturated_probabilities_keep_a_gradient(name):
    # The original clips them: no gradient where the network is most wrong.
    y_true, y_pred = _FILES["focal"][f"{name}_y_true"], _FILES["focal"][f"{name}_y_pred"]
    wrong = (y_true[..., :-1] == 1) & (y_pred <= losses.EPSILON) & (y_true[..., -1:] == 1)
    if wrong.any():
        logits = tf.fill([int(wrong.sum()), 1], -30.0)
        _, gradient = _value_and_gradient(lambda x: sigmoid_focal_loss(x, tf.zeros([x.shape[0]], tf.int32)), logits)
        np.testing.assert_allclose(gradient, np.full(gradient.shape, -0.25), rtol=1e-5)  # alpha, and it stays


def test_the_older_rule_of_positive_labels_differs_for_soft_labels_only():
    # Before d9065ef only labels equal to 1 counted as positive; ours is the later rule, above one half.
    old = golden_set.values("losses/focal_old_label_rule")["loss"]
    for name in _names("focal"):
        same = np.isclose(old[name], _FILES["focal"][f"{name}_loss"], rtol=1e-5)
        assert same == np.isin(_FILES["focal"][f"{name}_y_true"][..., :-1], (0, 1)).all()


class _MaskCase:
    """Inputs of one case of the mask loss."""

    def __init__(self, name):
        arrays, self.threshold = _FILES["mask"], _CASES["mask"][name]["iou_threshold"]
        annotations = tf.constant(arrays[f"{name}_annotations"])
        self.truth_boxes, self.classes = annotations[..., :4], tf.cast(annotations[..., 4], tf.int32)
        self.annotations, self.truth_masks = annotations, tf.constant(arrays[f"{name}_gt_masks"])
        self.boxes, self.masks = tf.constant(arrays[f"{name}_boxes"]), tf.constant(arrays[f"{name}_masks"])
        self.size = self.masks.shape[2]

    def match(self, boxes):
        """Return kept [B, K] and matched [B, K]."""
        valid, real = boxes[..., 2] > boxes[..., 0], self.truth_boxes[..., 2] > self.truth_boxes[..., 0]
        iou, matched = match_rois(boxes, valid, self.truth_boxes, real)
        return tf.cast(iou >= self.threshold, tf.float32), matched

    def leaking_loss(self, boxes):
        """The loss with its fault: the boxes move the places where the target is sampled."""
        kept, matched = self.match(tf.stop_gradient(boxes))
        targets = losses.crop_full_masks(self.truth_masks, boxes, matched, self.size)
        return losses.matched_mask_loss(self.masks, targets, tf.gather(self.classes, matched, batch_dims=1), kept)


@pytest.mark.parametrize("name", _names("mask"))
def test_mask_loss(name):
    arrays, case = _FILES["mask"], _MaskCase(name)
    value, gradient = _value_and_gradient(
        lambda masks: losses.region_mask_loss(
            case.boxes, masks, case.truth_boxes, case.classes, case.truth_masks, iou_threshold=case.threshold
        ),
        case.masks,
    )
    arrays.compare(f"{name}_loss", value, **_LOSS)
    arrays.compare(f"{name}_grad_masks", gradient, **_GRADIENT)
    if case.truth_boxes.shape[1]:
        np.testing.assert_array_equal(tf.reduce_sum(case.match(case.boxes)[0], 1), _CASES["mask"][name]["matched"])


@pytest.mark.parametrize("name", _names("mask"))
def test_mask_loss_of_the_original_s_two_tensors(name):
    case = _MaskCase(name)
    batch, _, height, width = case.truth_masks.shape
    rows = case.truth_masks.shape[1]
    y_true = tf.concat(
        [case.annotations, tf.cast(tf.reshape(case.truth_masks, [batch, rows, height * width]), tf.float32)], axis=2
    )
    y_pred = tf.concat([case.boxes, tf.reshape(case.masks, [batch, case.boxes.shape[1], -1])], axis=2)
    value = losses.mask_loss(y_true, y_pred, (height, width), mask_size=case.size, iou_threshold=case.threshold)
    _FILES["mask"].compare(f"{name}_loss", value, **_LOSS)
    with pytest.raises(ValueError, match=f"{height + 1} x {width}"):
        losses.mask_loss(y_true, y_pred, (height + 1, width), mask_size=case.size)
    with pytest.raises(ValueError, match="y_pred"):
        losses.mask_loss(y_true, y_pred[..., :-1], (height, width), mask_size=case.size)


@pytest.mark.parametrize("name", _names("mask"))
def test_the_original_leaks_a_gradient_into_the_boxes(name):
    # Its target is sampled at places that depend on the boxes: the box head learns to move boxes to where the
    # mask is easy. With the same omission we get its numbers; without it the boxes get no gradient at all.
    arrays, case = _FILES["mask"], _MaskCase(name)
    if case.truth_boxes.shape[1]:
        _, leaked = _value_and_gradient(case.leaking_loss, case.boxes)
        arrays.compare(f"{name}_grad_boxes", leaked, rtol=1e-4, atol=1e-6)  # differences of neighbouring targets
    _, gradient = _value_and_gradient(
        lambda boxes: losses.region_mask_loss(
            boxes, case.masks, case.truth_boxes, case.classes, case.truth_masks, iou_threshold=case.threshold
        ),
        case.boxes,
    )
    assert gradient is None


def test_some_case_shows_the_leak():
    assert any(_FILES["mask"].part(f"{name}_grad_boxes", np.zeros(0))[1].any() for name in _names("mask"))


@pytest.mark.parametrize("name", [name for name in _names("mask") if any(_CASES["mask"][name]["matched"])])
def test_masks_cropped_to_their_boxes_lose_little(name):
    # What the input pipeline keeps of a mask: 112 x 112 cells of its own box, each the pixel below its centre.
    case = _MaskCase(name)
    crops = tf.constant(golden_set.crop_to_boxes(case.truth_masks.numpy(), case.truth_boxes.numpy(), 112))
    kept, matched = case.match(case.boxes)
    exact = losses.crop_full_masks(case.truth_masks, case.boxes, matched, case.size)
    near = losses.crop_masks(
        crops, case.truth_boxes, case.boxes, matched, case.size, binary=False, semantics="crop_and_resize"
    )
    differing = tf.reduce_mean(tf.abs(near - exact), axis=(2, 3)) * kept
    # At the outline, where the exact target climbs over one pixel and the crop over one cell of a 112th: an
    # object of 30 pixels has 4 * 30 outline pixels in 900, each off by a quarter on average.
    assert float(tf.reduce_max(differing)) < 4 * 0.25 / float(
        tf.reduce_min(
            tf.boolean_mask(tf.minimum(*[case.boxes[..., i + 2] - case.boxes[..., i] for i in (0, 1)]), kept > 0)
        )
    )
    value = losses.region_mask_loss(
        case.boxes, case.masks, case.truth_boxes, case.classes, crops, iou_threshold=case.threshold, cropped=True
    )
    # A pixel's loss is linear in its target with the logit as slope; errors inside and outside mostly cancel.
    _FILES["mask"].compare(f"{name}_loss", value, rtol=0.03)


def _scrambled(own, height, width):
    """What a batch of the original makes of a mask: laid out at its own width, read at the batch's."""
    row = np.zeros(height * width, own.dtype)
    row[: own.size] = own.ravel()
    return row.reshape(height, width)


def test_batches_of_mixed_widths_scramble_the_original_s_mask_targets():
    # Ours stay what the files say: a mask padded at the right and bottom.
    arrays = golden_set.Arrays("csv_generator/mixed")
    info = golden_set.values("csv_generator/info")["mixed"]
    _, height, width, _ = info["image_batch"]
    shape = (*arrays["anno2_boxes"].shape[:2], height, width)
    stored = np.unpackbits(arrays["anno2_masks_packbits"], axis=-1)[..., : height * width].reshape(shape)
    ious = info["iou_of_upstream_mask_target_with_correctly_padded_mask"]
    for b, count in enumerate(arrays["own_boxes_per_image"]):
        for m in range(count):
            own = arrays[f"own_masks_{b}"][m]
            np.testing.assert_array_equal(stored[b, m], _scrambled(own, height, width))
            right = np.zeros((height, width), np.uint8)
            right[: own.shape[0], : own.shape[1]] = own
            iou = (stored[b, m] & right).sum() / (stored[b, m] | right).sum()
            np.testing.assert_allclose(iou, ious[b][m], atol=1e-4)
            assert (iou == 1) == (own.shape[1] == width)
            # The right target of the box itself: mostly instance. The scrambled one cannot train a mask.
            box = tf.constant(arrays["anno2_boxes"][b, m])[None, None]
            matched = tf.zeros([1, 1], tf.int32)
            inside = losses.crop_full_masks(tf.constant(right)[None, None], box, matched, 28)
            expected = losses.crop_full_masks(tf.constant(own)[None, None], box, matched, 28)
            np.testing.assert_array_equal(inside, expected)
