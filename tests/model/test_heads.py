"""Heads against NumPy; the matched class's mask is the one all classes would give."""

import numpy as np
import pytest
import tensorflow as tf
from reference import conv_reference, scenes

from tpu_retinamask.model.heads import AnchorHead, MaskHead
from tpu_retinamask.ops.losses import mask_loss


def _conv(x, weights, name):
    return conv_reference.conv2d(x, weights[f"{name}/kernel"], weights[f"{name}/bias"])


def test_anchor_head_equals_numpy_in_the_order_of_the_anchors():
    head = AnchorHead(3, 2, channels=5, depth=2, name="head")
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 6)).astype(np.float32)
    head(x)
    weights = scenes.fill_weights(head)
    y = head(x)
    for b in range(2):
        hidden = x[b].astype(np.float64)
        for name in ("head_0", "head_1"):
            hidden = np.maximum(_conv(hidden, weights, name), 0)
        last = _conv(hidden, weights, "head")
        rows = [last[i, j, 2 * a : 2 * a + 2] for i in range(4) for j in range(3) for a in range(3)]
        np.testing.assert_allclose(y[b], rows, atol=2e-5)  # three layers of sums of 54 float32 terms


def _group_norm(x, groups, gamma, beta):
    """Normalise [h, w, F] by groups of channels."""
    height, width, channels = x.shape
    parts = x.reshape(height * width, groups, channels // groups)
    mean, variance = parts.mean(axis=(0, 2), keepdims=True), parts.var(axis=(0, 2), keepdims=True)
    return ((parts - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * gamma + beta


def test_group_normalisation_follows_each_hidden_convolution_on_each_level():
    head = AnchorHead(3, 2, channels=8, depth=2, normalization="group", name="head")  # groups of 4 channels
    levels = [np.random.default_rng(s).normal(size=(2, s, 3, 6)).astype(np.float32) for s in (4, 2)]
    head(levels[0])
    weights = scenes.fill_weights(head)
    for x in levels:  # whose statistics differ
        y = head(x)
        for b in range(2):
            hidden = x[b].astype(np.float64)
            for name in ("head_0", "head_1"):
                scale = (weights[f"{name}_norm/gamma"], weights[f"{name}_norm/beta"])
                hidden = np.maximum(_group_norm(_conv(hidden, weights, name), 2, *scale), 0)
            expected = _conv(hidden, weights, "head").reshape(-1, 2)
            np.testing.assert_allclose(y[b], expected, atol=1e-4)  # float32 sums, divided by small deviations


def test_prior_is_on_the_class_head_alone():
    features = tf.zeros([1, 2, 3, 8])
    classes = AnchorHead(9, 4, channels=8, prior=True, name="classes")
    boxes = AnchorHead(9, 4, channels=8, name="boxes")
    np.testing.assert_allclose(tf.sigmoid(classes(features)), np.full((1, 54, 4), 0.01), rtol=1e-5)
    np.testing.assert_array_equal(boxes(features), np.zeros((1, 54, 4)))
    for head in (classes, boxes):
        for layer in (*head.hidden, head.last):
            # N(0, 0.01): of 576 or more numbers, the sample deviation lies within 10 % of it.
            assert np.std(layer.kernel) == pytest.approx(0.01, rel=0.1)


def test_a_narrow_head_may_start_wider():
    head = AnchorHead(9, 4, channels=64, initializer="he_normal", name="narrow")
    head(tf.zeros([1, 2, 2, 64]))
    assert np.std(head.hidden[0].kernel) == pytest.approx(np.sqrt(2 / 576), rel=0.05)
    assert np.std(head.last.kernel) == pytest.approx(0.01, rel=0.05)


def _mask_head(upsample, num_classes=3, channels=6, depth=2):
    head = MaskHead(num_classes, channels=channels, depth=depth, upsample=upsample)
    head.build((1, 4, 4, 5))
    return head, scenes.fill_weights(head)


def _reference_masks(roi, weights, upsample):
    x = roi.astype(np.float64)
    for name in ("roi_mask_0", "roi_mask_1"):
        x = np.maximum(_conv(x, weights, name), 0)
    side = x.shape[0]
    if upsample == "nearest":
        x = _conv(conv_reference.upsample_nearest(x, 2 * side, 2 * side), weights, "roi_mask_features")
    else:
        kernel, up = weights["roi_mask_features/kernel"], np.zeros((2 * side, 2 * side, x.shape[2]))
        for i in range(2 * side):
            for j in range(2 * side):
                up[i, j] = kernel[i % 2, j % 2] @ x[i // 2, j // 2] + weights["roi_mask_features/bias"]
        x = up
    return _conv(np.maximum(x, 0), weights, "roi_mask")


@pytest.mark.parametrize("upsample", ["nearest", "deconv"])
def test_mask_head_equals_numpy(upsample):
    head, weights = _mask_head(upsample)
    rois = np.random.default_rng(1).normal(size=(2, 3, 4, 4, 5)).astype(np.float32)
    masks = head(rois)
    for b in range(2):
        for k in range(3):
            # Four layers of float32 sums of up to 54 terms.
            np.testing.assert_allclose(masks[b, k], _reference_masks(rois[b, k], weights, upsample), atol=5e-5)


@pytest.mark.parametrize("upsample", ["nearest", "deconv"])
def test_matched_class_equals_all_classes_gathered_with_gradients(upsample):
    head, _ = _mask_head(upsample)
    rng = np.random.default_rng(2)
    rois = tf.constant(rng.normal(size=(2, 3, 4, 4, 5)), tf.float32)
    classes = tf.constant([[2, 0, -1], [1, 1, 2]])
    targets = tf.constant(rng.integers(0, 2, (2, 3, 8, 8)), tf.float32)
    valid = classes >= 0

    def run(matched_only):
        variables = [rois, *[v.value for v in head.trainable_variables]]
        with tf.GradientTape() as tape:
            tape.watch(rois)
            if matched_only:
                logits = head(rois, classes)
            else:
                every = head(rois)  # [B, K, S, S, C]
                logits = tf.gather(every, tf.maximum(classes, 0)[:, :, None, None], batch_dims=2, axis=4)[..., 0]
                logits = tf.reshape(logits, [2, 3, 8, 8])
            loss = tf.reduce_sum(mask_loss(logits, targets, valid))
        return [loss, logits, *tape.gradient(loss, variables)]

    for matched, gathered in zip(run(True), run(False), strict=True):
        # The same sums, split over classes.
        np.testing.assert_allclose(matched, gathered, atol=1e-5)


def test_classes_that_no_region_has_get_no_gradient():
    head, _ = _mask_head("nearest")
    rois = tf.random.stateless_normal([1, 2, 4, 4, 5], seed=[1, 2])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(head(rois, tf.constant([[1, 1]])))
    gradient = tape.gradient(total, head.last.kernel.value).numpy()[0, 0]  # [F, C]
    assert not gradient[:, [0, 2]].any() and gradient[:, 1].any()


def test_mask_head_refuses_other_upsamplings():
    with pytest.raises(ValueError, match="upsample 'bilinear' is neither"):
        MaskHead(3, upsample="bilinear")
