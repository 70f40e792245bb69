"""Masks packed a bit a pixel: nothing is lost, and the graph reads the very pixels that the host reads."""

import zlib

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.data.images.mask_sampling import sample_mask_stack, sample_packed_masks
from tpu_retinamask.data.images.packed_masks import pack_masks, packed_starts, unpack_mask


def _masks(rng, count, height, width):
    masks = []
    for _ in range(count):
        mask = np.zeros((height, width), bool)
        y, x = rng.integers(0, height), rng.integers(0, width)
        part = mask[y : y + rng.integers(1, height + 1), x : x + rng.integers(1, width + 1)]
        part[:] = rng.random(part.shape) < 0.5
        part[0, 0] = True
        masks.append(mask)
    return masks


def test_a_mask_worked_by_hand():
    mask = np.zeros((5, 7), bool)
    mask[1, 2], mask[2, 3], mask[3, 4], mask[3, 2] = True, True, True, True
    windows, blob = pack_masks([None, mask])
    np.testing.assert_array_equal(windows, [[0, 0, 0, 0], [2, 1, 3, 3]])
    # 100 010 101: eight bits and one
    assert zlib.decompress(blob) == bytes([0b10001010, 0b10000000])
    np.testing.assert_array_equal(unpack_mask(np.frombuffer(zlib.decompress(blob), np.uint8), windows, 1, 5, 7), mask)


def test_masks_come_back_as_they_were():
    rng = np.random.default_rng(3)
    for height, width in ((1, 1), (1, 9), (17, 23), (64, 40)):
        masks = _masks(rng, 6, height, width)
        masks.insert(3, None)
        windows, blob = pack_masks(masks)
        packed = np.frombuffer(zlib.decompress(blob), np.uint8)
        for number, mask in enumerate(masks):
            if mask is not None:
                np.testing.assert_array_equal(unpack_mask(packed, windows, number, height, width), mask)


def test_an_empty_mask_is_refused_and_no_masks_take_no_bytes():
    with pytest.raises(ValueError, match="mask 1 is empty"):
        pack_masks([None, np.zeros((3, 3), bool)])
    windows, blob = pack_masks([])
    assert windows.shape == (0, 4) and zlib.decompress(blob) == b""


@pytest.mark.parametrize("size", [1, 5, 28])
def test_crops_equal_those_of_whole_masks(size):
    rng = np.random.default_rng(size)
    masks = _masks(rng, 8, 30, 21)
    low = rng.uniform(0, (20, 29), (8, 2))
    high = low + rng.uniform(0.01, 1, (8, 2)) * ((21, 30) - low)
    high[0], low[0] = (21, 30), (0, 0)  # the whole picture: cells far outside the window
    boxes = tf.constant(np.concatenate([low, high], 1), tf.float32)
    windows, blob = pack_masks(masks)
    packed = tf.constant(np.frombuffer(zlib.decompress(blob), np.uint8))
    found = sample_packed_masks(
        packed, tf.constant(windows), packed_starts(tf.constant(windows)), boxes, tf.constant([30, 21]), size
    )
    expected = sample_mask_stack(tf.constant(np.stack(masks).astype(np.uint8)), boxes, size)
    assert size == 1 or expected.numpy().any()
    np.testing.assert_array_equal(found, expected)


def test_instances_without_a_mask_have_zero_crops():
    nothing = tf.zeros([2, 4], tf.int32)
    found = sample_packed_masks(
        tf.zeros([0], tf.uint8),
        nothing,
        packed_starts(nothing),
        tf.constant([[0.0, 0, 4, 4], [1, 1, 2, 2]]),
        tf.constant([6, 6]),
        3,
    )
    np.testing.assert_array_equal(found, np.zeros((2, 3, 3)))
    assert sample_packed_masks(
        tf.zeros([0], tf.uint8), nothing[:0], tf.zeros([0], tf.int32), tf.zeros([0, 4]), tf.constant([6, 6]), 3
    ).shape == (0, 3, 3)
