"""Losses: textbook values, textbook gradients, nothing that overflows."""

import math

import numpy as np
import pytest
import tensorflow as tf
from reference import loss_reference

from tpu_retinamask.ops.losses import mask_loss, sigmoid_focal_loss, smooth_l1_loss
from tpu_retinamask.structures import BACKGROUND, IGNORED


def _value_and_gradient(loss, x, jit_compile=False):
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(x)
        return value, tape.gradient(value, x)

    value, gradient = tf.function(run, jit_compile=jit_compile, autograph=False)(tf.constant(x, tf.float32))
    return value.numpy(), gradient.numpy()


def test_focal_by_hand():
    # p = 1/2: positive 0.25 * 0.25 * ln 2, negative 0.75 * 0.25 * ln 2.
    labels = tf.constant([1])
    assert float(sigmoid_focal_loss(tf.zeros([1, 2]), labels)) == pytest.approx(0.25 * math.log(2), rel=1e-6)
    # p = 0.9 (logit ln 9), positive: 0.25 * 0.01 * -ln 0.9.
    loss = sigmoid_focal_loss(tf.constant([[math.log(9)]]), tf.constant([0]))
    assert float(loss) == pytest.approx(0.25 * 0.01 * -math.log(0.9), rel=1e-5)


@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (0.25, 0.0), (0.6, 1.5)])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_focal_equals_loops_in_value_and_gradient(alpha, gamma, jit_compile):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (40, 5)).astype(np.float32)
    labels = rng.choice([BACKGROUND, IGNORED, 0, 1, 2, 3, 4], 40)
    value, gradient = _value_and_gradient(
        lambda x: sigmoid_focal_loss(x, tf.constant(labels, tf.int32), alpha=alpha, gamma=gamma),
        logits,
        jit_compile,
    )
    # 200 float32 terms.
    assert float(value) == pytest.approx(loss_reference.focal(logits, labels, alpha, gamma), rel=1e-5)
    np.testing.assert_allclose(gradient, loss_reference.focal_gradient(logits, labels, alpha, gamma), atol=2e-6)


def test_focal_without_focus_is_weighted_cross_entropy():
    rng = np.random.default_rng(1)
    logits, labels = tf.constant(rng.normal(size=(30, 4)), tf.float32), rng.integers(-1, 4, 30)
    one_hot = tf.one_hot(labels, 4)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(one_hot, logits)
    expected = tf.reduce_sum(entropy * (one_hot * 0.25 + (1 - one_hot) * 0.75))
    value = sigmoid_focal_loss(logits, tf.constant(labels, tf.int32), gamma=0.0)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("per_cell", [1, 4])
def test_focal_weighs_each_class_by_its_own_weight(per_cell):
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, (8, 3)).astype(np.float32)
    labels = rng.choice([BACKGROUND, IGNORED, 0, 1, 2], 8)
    weights = (0.5, 2.0, 0.0)
    expected = 0.0
    for class_id, weight in enumerate(weights):  # a class alone: its own label is 0, every other one background
        own = np.where(labels == IGNORED, IGNORED, np.where(labels == class_id, 0, BACKGROUND))
        expected += weight * loss_reference.focal(logits[:, class_id : class_id + 1], own, 0.25, 2.0)
    found = sigmoid_focal_loss(
        tf.constant(logits), tf.constant(labels, tf.int32), per_cell=per_cell, class_weights=weights
    )
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_focal_of_huge_logits():
    logits = [[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4]]
    labels = tf.constant([0, 0, IGNORED])
    value, gradient = _value_and_gradient(lambda x: sigmoid_focal_loss(x, labels), logits)
    # First row right: 0. Second wrong twice: 0.25 * 1e4 + 0.75 * 1e4. Third ignored.
    assert float(value) == pytest.approx(1e4, rel=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0], [-0.25, 0.75], [0, 0]], atol=1e-6)


def test_focal_of_levels_adds_up():
    rng = np.random.default_rng(2)
    logits = tf.constant(rng.normal(size=(2, 50, 3)), tf.float32)
    labels = rng.integers(-2, 3, (2, 50)).astype(np.int32)
    whole = sigmoid_focal_loss(logits, tf.constant(labels))
    parts = [sigmoid_focal_loss(logits[:, i:j], tf.constant(labels[:, i:j])) for i, j in ((0, 30), (30, 45), (45, 50))]
    np.testing.assert_allclose(tf.add_n(parts), whole, rtol=1e-6)


@pytest.mark.parametrize("per_cell", [2, 3, 9])
def test_focal_of_anchors_side_by_side_is_the_same(per_cell):
    rng = np.random.default_rng(per_cell)
    logits = rng.normal(0, 3, (2, 36, 5)).astype(np.float32)
    labels = tf.constant(rng.choice([BACKGROUND, IGNORED, 0, 1, 2, 3, 4], (2, 36)), tf.int32)
    for compiled in (False, True):
        value, gradient = _value_and_gradient(lambda x: sigmoid_focal_loss(x, labels), logits, compiled)
        beside, its_gradient = _value_and_gradient(
            lambda x: sigmoid_focal_loss(x, labels, per_cell=per_cell), logits, compiled
        )
        np.testing.assert_allclose(beside, value, rtol=1e-6)  # another order of 360 terms
        np.testing.assert_allclose(its_gradient, gradient, atol=1e-7)
        expected = loss_reference.focal(logits.reshape(-1, 5), labels.numpy().ravel(), 0.25, 2.0)
        assert float(beside) == pytest.approx(expected, rel=1e-5)


def test_bfloat16_logits_are_summed_in_float32():
    logits = tf.zeros([20000, 1], tf.bfloat16)
    loss = sigmoid_focal_loss(logits, tf.fill([20000], 0))
    # A bfloat16 sum would stop at the first power of two that swallows the terms.
    assert float(loss) == pytest.approx(20000 * 0.0625 * math.log(2), rel=1e-4)


def test_smooth_l1_by_hand():
    # sigma 3: the square ends at 1/9. d = 0.1: 4.5 * 0.01; d = 1/9 and 1: d - 1/18.
    predicted = tf.constant([[0.1, -1.0, 1 / 9, 0.0]])
    loss = smooth_l1_loss(predicted, tf.zeros([1, 4]), tf.constant([True]))
    assert float(loss) == pytest.approx(0.045 + 17 / 18 + 1 / 18, rel=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_smooth_l1_equals_loops(sigma, jit_compile):
    rng = np.random.default_rng(3)
    predicted, target = rng.normal(0, 0.3, (2, 30, 4)).astype(np.float32)
    positive = rng.random(30) < 0.5
    value, gradient = _value_and_gradient(
        lambda x: smooth_l1_loss(x, target, tf.constant(positive), beta=1 / sigma**2), predicted, jit_compile
    )
    assert float(value) == pytest.approx(loss_reference.smooth_l1(predicted, target, positive, sigma), rel=1e-5)
    expected = np.clip((predicted - target) * sigma**2, -1, 1) * positive[:, None]
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_smooth_l1_with_beta_zero_is_l1():
    value, gradient = _value_and_gradient(
        lambda x: smooth_l1_loss(x, tf.zeros([1, 4]), tf.constant([True]), beta=0.0), [[0.0, -2.0, 1e-3, 1e4]]
    )
    assert float(value) == pytest.approx(10002.001, rel=1e-6)
    np.testing.assert_array_equal(gradient, [[0, -1, 1, 1]])


def test_smooth_l1_of_huge_distances_and_of_no_positives():
    value, gradient = _value_and_gradient(
        lambda x: smooth_l1_loss(x, tf.zeros([2, 4]), tf.constant([True, False])),
        [[1e4, -1e4, 0, 0], [1e30] * 4],
    )
    assert float(value) == pytest.approx(2e4 - 1 / 9, rel=1e-6)
    np.testing.assert_array_equal(gradient, [[1, -1, 0, 0], [0] * 4])
    value, gradient = _value_and_gradient(
        lambda x: smooth_l1_loss(x, tf.zeros([2, 4]), tf.constant([False, False])), [[1.0] * 4] * 2
    )
    assert float(value) == 0.0 and not gradient.any()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_mask_loss_equals_loops(jit_compile):
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 3, (3, 4, 6, 6)).astype(np.float32)
    targets = rng.random((3, 4, 6, 6)).astype(np.float32)
    valid = np.array([[True, False, True, True], [False, False, False, True], [False] * 4])
    value, gradient = _value_and_gradient(lambda x: mask_loss(x, targets, tf.constant(valid)), logits, jit_compile)
    expected = [loss_reference.mask_loss(logits[b], targets[b], valid[b]) for b in range(3)]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    count = np.maximum(1, 36 * valid.sum(axis=1))[:, None, None, None]
    slope = (1 / (1 + np.exp(-logits)) - targets) * valid[:, :, None, None] / count
    np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_mask_loss_without_regions_is_exactly_zero():
    value, gradient = _value_and_gradient(
        lambda x: mask_loss(x, tf.ones([2, 3, 5, 5]), tf.zeros([2, 3], tf.bool)), np.full((2, 3, 5, 5), -1e4)
    )
    np.testing.assert_array_equal(value, [0, 0])
    np.testing.assert_array_equal(gradient, np.zeros((2, 3, 5, 5)))


def test_mask_loss_of_huge_logits():
    logits = np.array([1e4, -1e4, 1e4, -1e4], np.float32).reshape(1, 1, 2, 2)
    targets = np.array([1, 0, 0, 1], np.float32).reshape(1, 1, 2, 2)
    value, gradient = _value_and_gradient(lambda x: mask_loss(x, targets, tf.constant([[True]])), logits)
    np.testing.assert_allclose(value, [5000], rtol=1e-6)
    np.testing.assert_allclose(gradient.ravel(), [0, 0, 0.25, -0.25], atol=1e-7)
