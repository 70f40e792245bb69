"""Two stages find what sorting everything finds."""

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.ops.topk import top_k_anchors


def _full_sort(scores, k):
    pairs = [(scores[n, c], n, c) for n in range(scores.shape[0]) for c in range(scores.shape[1])]
    return sorted(pairs, key=lambda pair: -pair[0])[:k]


@pytest.mark.parametrize(
    "anchors, classes, k", [(200, 7, 30), (50, 1, 10), (8, 5, 30), (8, 5, 40), (8, 5, 1000), (1, 1, 1)]
)
def test_equals_a_full_sort(anchors, classes, k):
    rng = np.random.default_rng(anchors)
    # Distinct scores, so that the order is unique.
    scores = rng.permutation(3 * anchors * classes).reshape(3, anchors, classes).astype(np.float32)
    found, anchor, label = top_k_anchors(tf.constant(scores), k)
    for b in range(3):
        expected = _full_sort(scores[b], k)
        assert found[b].numpy().tolist() == [pair[0] for pair in expected]
        assert anchor[b].numpy().tolist() == [pair[1] for pair in expected]
        assert label[b].numpy().tolist() == [pair[2] for pair in expected]


def test_one_anchor_may_hold_all_the_best():
    scores = np.zeros((1, 20, 6), np.float32)
    scores[0, 13] = [0.4, 0.9, 0.5, 0.8, 0.7, 0.6]
    found, anchor, label = top_k_anchors(tf.constant(scores), 4)
    np.testing.assert_array_equal(found[0], np.float32([0.9, 0.8, 0.7, 0.6]))
    assert anchor[0].numpy().tolist() == [13] * 4
    assert label[0].numpy().tolist() == [1, 3, 4, 5]


@pytest.mark.parametrize("k", [10, 40, 1000])
def test_among_some_anchors_equals_a_full_sort_of_theirs(k):
    rng = np.random.default_rng(k)
    scores = (rng.permutation(2 * 20 * 4).reshape(2, 20, 4) - 80).astype(np.float32)  # logits: half below zero
    among = rng.random((2, 20)) < 0.5
    found, anchor, label = top_k_anchors(tf.constant(scores), k, tf.constant(among))
    for b in range(2):
        expected = [pair for pair in _full_sort(scores[b], 80) if among[b, pair[1]]][:k]
        assert 10 <= len(expected) < 80
        assert list(zip(found[b].numpy(), anchor[b].numpy(), label[b].numpy()))[: len(expected)] == expected
        assert (found[b].numpy()[len(expected) :] == np.finfo(np.float32).min).all()


@pytest.mark.parametrize("seed", range(20))
def test_ties_may_change_the_order_but_not_the_scores(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (2, 30, 5)).astype(np.float32)
    found, anchor, label = top_k_anchors(tf.constant(scores), 25)
    for b in range(2):
        assert found[b].numpy().tolist() == [pair[0] for pair in _full_sort(scores[b], 25)]
        pairs = list(zip(anchor[b].numpy(), label[b].numpy()))
        assert len(set(pairs)) == 25
        assert [scores[b][pair] for pair in pairs] == found[b].numpy().tolist()


def test_compiled_equals_eager():
    scores = tf.random.stateless_uniform([2, 300, 9], seed=[1, 2])
    compiled = tf.function(lambda s: top_k_anchors(s, 50), jit_compile=True)(scores)
    for a, b in zip(compiled, top_k_anchors(scores, 50)):
        np.testing.assert_array_equal(a, b)
