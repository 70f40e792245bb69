"""The self-adjusting smooth L1 loss over several steps against its slow reference."""

import numpy as np
import pytest
import tensorflow as tf
from reference import loss_reference

from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.ops.losses import distance_moments, self_adjusting_beta, smooth_l1_loss, update_running_moments
from tpu_retinamask.structures import RawOutputs, Targets
from tpu_retinamask.training.box_statistics import BoxStatistics

LEVELS = (30, 12, 5)  # anchors


def _batch(seed, spread, positives=0.3):
    """Predictions and targets of 2 images; distances grow with `spread`."""
    random = np.random.default_rng(seed)
    target = random.normal(0, 1, (2, sum(LEVELS), 4)).astype(np.float32)
    predicted = (target + random.normal(0, spread, target.shape)).astype(np.float32)
    labels = np.where(random.random(target.shape[:2]) < positives, 0, -1).astype(np.int32)
    return predicted, target, labels


def _make_step(statistics, jit_compile):
    criterion = Criterion()

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(predicted, target, labels):
        deltas = tf.split(predicted, LEVELS, axis=1)
        outputs = RawOutputs((), tuple(tf.zeros([2, n, 1]) for n in LEVELS), tuple(deltas))
        targets = Targets(labels, target, labels)
        moments = criterion.box_distance_moments(outputs, targets)
        beta = statistics.beta_with(moments)
        count = tf.reduce_sum(tf.cast(labels >= 0, tf.float32))
        loss = criterion.box_loss_of(outputs, targets, count, beta)
        statistics.update(moments)
        return loss, beta

    return lambda *arrays: step(*(tf.constant(array) for array in arrays))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_six_steps_equal_the_reference(jit_compile):
    statistics, reference = BoxStatistics(), loss_reference.SelfAdjustingSmoothL1()
    step, moved = _make_step(statistics, jit_compile), set()
    # Close at first, then so wide that the variance exceeds the mean: beta at its least.
    for seed, spread in enumerate((0.05, 0.02, 0.3, 0.1, 8.0, 0.01)):
        predicted, target, labels = _batch(seed, spread)
        loss, beta = step(predicted, target, labels)
        expected = reference(predicted.reshape(-1, 4), target.reshape(-1, 4), labels.ravel() >= 0)
        # Some 30 float32 terms; the variance is a difference of squares of the size of the mean's square.
        np.testing.assert_allclose(beta, reference.beta(), rtol=1e-4)
        assert float(loss) == pytest.approx(expected, rel=1e-4)
        np.testing.assert_allclose(statistics.mean, reference.mean, rtol=1e-5)
        np.testing.assert_allclose(statistics.variance, reference.variance, rtol=1e-4, atol=1e-7)
        moved.add(round(float(beta[0]), 4))
    assert len(moved) > 2 and min(moved) == 0.001


def test_beta_by_hand():
    # mean - variance of 0.05 - 0.01, 0.5 - 0.1 (too much), 0.01 - 0.5 (too little), and the two limits' middle.
    beta = self_adjusting_beta(tf.constant([0.05, 0.5, 0.01, 0.11]), tf.constant([0.01, 0.1, 0.5, 0.05]))
    np.testing.assert_allclose(beta, [0.04, 0.11, 0.001, 0.06], rtol=1e-6)


def test_the_statistics_by_hand():
    # Distances 1 and 3 in the first coordinate: mean 2, variance 1. From 0.11 and 0: 0.9 * 0.11 + 0.2, and 0.1.
    predicted, target = tf.constant([[1.0, 0, 0, 0], [-3.0, 0, 0, 0], [9.0, 9, 9, 9]]), tf.zeros([3, 4])
    sums = distance_moments(predicted, target, tf.constant([True, True, False]))
    np.testing.assert_array_equal(sums, [[2, 2, 2, 2], [4, 0, 0, 0], [10, 0, 0, 0]])
    mean, variance = update_running_moments(tf.fill([4], 0.11), tf.zeros([4]), sums)
    np.testing.assert_allclose(mean, [0.299, 0.099, 0.099, 0.099], rtol=1e-6)
    np.testing.assert_allclose(variance, [0.1, 0, 0, 0], rtol=1e-6)


def test_a_batch_without_positives_moves_nothing_and_costs_nothing():
    statistics = BoxStatistics()
    predicted, target, labels = _batch(0, 1.0, positives=0.0)
    loss, beta = _make_step(statistics, True)(predicted, target, labels)
    assert float(loss) == 0.0
    assert statistics.mean.numpy().tolist() == [np.float32(0.11)] * 4 and not statistics.variance.numpy().any()
    assert beta.numpy().tolist() == [np.float32(0.11)] * 4


def test_no_gradient_flows_through_the_statistics():
    predicted, target = tf.constant([[0.05, 0.2, 0.0, 0.0]]), tf.zeros([1, 4])
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        beta = BoxStatistics().beta_with(distance_moments(predicted, target, tf.constant([True])))
        loss = smooth_l1_loss(predicted, target, tf.constant([True]), beta=beta)
    # beta is 0.9 * 0.11 + 0.1 * |d| and no variance: 0.104 and 0.11 (at most); the slope d / beta, at most 1.
    np.testing.assert_allclose(tape.gradient(loss, predicted), [[0.05 / 0.104, 1.0, 0.0, 0.0]], rtol=1e-5)


def test_one_beta_a_coordinate_is_that_of_each_alone():
    random = np.random.default_rng(5)
    predicted, target = tf.constant(random.normal(0, 0.2, (2, 20, 4)), tf.float32)
    positive = tf.constant(random.random(20) < 0.5)
    betas = [0.05, 0.11, 0.001, 0.3]
    apart = [
        smooth_l1_loss(predicted[:, c : c + 1], target[:, c : c + 1], positive, beta=beta)
        for c, beta in enumerate(betas)
    ]
    together = smooth_l1_loss(predicted, target, positive, beta=tf.constant(betas))
    assert float(together) == pytest.approx(float(tf.add_n(apart)), rel=1e-5)


def test_halves_of_a_batch_add_up():
    predicted, target, labels = _batch(7, 0.5)
    whole = distance_moments(tf.constant(predicted), tf.constant(target), tf.constant(labels >= 0))
    halves = [
        distance_moments(tf.constant(predicted[b]), tf.constant(target[b]), tf.constant(labels[b] >= 0))
        for b in range(2)
    ]
    np.testing.assert_allclose(tf.add_n(halves), whole, rtol=1e-5)


def test_an_unknown_box_loss_is_refused():
    with pytest.raises(ValueError, match="box_loss 'l2' is not one of .*self_adjusting"):
        Criterion(box_loss="l2")
