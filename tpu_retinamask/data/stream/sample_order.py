"""Which image each sample of a training run shows, on one host or shared among many: a function of the seed alone."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.image_arrays import ImageArrays
from tpu_retinamask.errors import UserError

_OFFSET_DRAW = 1  # tells the seed of an epoch's offset from that of its order


def sample_numbers(
    batch_size: int, start_step: int, replicas: int, shard: tuple[int, int], start_image: int | None = None
) -> tf.data.Dataset:
    """Return the numbers of the samples that one host prepares, in the order of its replicas, for ever.

    Step s shows the samples s * B to (s + 1) * B - 1. Replica r of them all takes the r-th share; a host serves
    replicas that are neighbours, so its share of a step is one range as well.

    Args:
      batch_size: B, images of the global batch.
      start_step: steps to leave out.
      replicas: all replicas of all hosts.
      shard: (number of this host, number of hosts).
      start_image: number of the first sample of `start_step`, where the batch was another before; None: as above.

    Returns:
      Dataset of int64 scalars.

    Raises:
      UserError: hosts, replicas and images that cannot be shared equally.
    """
    host, hosts = shard
    if hosts < 1 or not 0 <= host < hosts:
        raise UserError(f"shard is {shard}, expected (number of this host from 0, number of hosts)")
    if replicas < 1 or replicas % hosts:
        raise UserError(
            f"{replicas} replicas on {hosts} hosts: expected a positive multiple of the hosts, since each "
            "host feeds the same number of replicas"
        )
    if batch_size < 1 or batch_size % replicas:
        raise UserError(
            f"train.batch_size is {batch_size}, which {replicas} replicas cannot share equally: "
            f"choose a multiple of {replicas}"
        )
    share = batch_size // hosts
    ahead = 0 if start_image is None else start_image - start_step * batch_size

    @tf.autograph.experimental.do_not_convert
    def number(index):  # of this host's samples -> of all samples
        return index // share * batch_size + host * share + index % share + ahead

    return tf.data.Dataset.range(start_step * share, tf.int64.max).map(number)


def sample_position(number: tf.Tensor, count: int, seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return which image a sample shows and the seed of its random changes; each epoch is an order of its own.

    Args:
      number: int64 scalar, of the sample.
      count: of the images.
      seed: of the run.

    Returns:
      (int64 scalar from 0 to count - 1, [2] int64).
    """
    seed = tf.constant(seed, tf.int64)
    position = tf.random.experimental.index_shuffle(
        number % count, seed=tf.stack([seed, number // count]), max_index=tf.constant(count - 1, tf.int64)
    )
    return position, tf.stack([seed, number])


class SampleOrder(NamedTuple):
    """Which image each sample of a run shows, where some are shown more than once an epoch.

    An epoch has as many samples as the factors of all images sum to. Its samples lie one apart on a line on which image
    i is as long as its factor, the first at a random place: so an image of factor 2.3 is shown twice or three times,
    2.3 times on the mean, and one of factor 1 or more is never left out.
    """

    length: int  # samples an epoch
    ends: np.ndarray | None  # [n] float64; where each image ends on the line, the last at `length`; None: one each

    def position(self, number: tf.Tensor, seed: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Return which image a sample shows and the seed of its changes, as `sample_position`.

        Args:
          number: int64 scalar, of the sample.
          seed: of the run.
        """
        place, changes = sample_position(number, self.length, seed)
        if self.ends is None:
            return place, changes
        epoch = tf.stack([tf.constant(seed, tf.int64), number // self.length])
        offset = tf.random.stateless_uniform([], tf.random.fold_in(epoch, _OFFSET_DRAW), dtype=tf.float64)
        found = tf.searchsorted(self.ends, [tf.cast(place, tf.float64) + offset], side="right", out_type=tf.int64)[0]
        return tf.minimum(found, len(self.ends) - 1), changes


def repeat_factors(arrays: ImageArrays, rare: float) -> np.ndarray:
    """Return how often each image is shown, [n] float64 from 1: `max(1, sqrt(rare / share))` of its rarest class.

    The share of a class is that of the images that hold it. An image without objects is shown once.

    Args:
      arrays: of the images.
      rare: share of the images below which a class is rare.

    Source: arXiv 1908.03195, section 4 (LVIS: repeat factor sampling)
    """
    pairs = np.unique(np.stack([arrays.image_of, arrays.class_ids]), axis=1)  # each class of an image once
    images_with = np.bincount(pairs[1]) if pairs.size else np.zeros(0)
    of_class = np.sqrt(rare * len(arrays.sizes) / np.maximum(1, images_with))
    factors = np.ones(len(arrays.sizes))
    np.maximum.at(factors, pairs[0], of_class[pairs[1]])
    return factors


def sample_order(count: int, factors: np.ndarray | None = None) -> SampleOrder:
    """Return the order of images that are shown once an epoch, or as often as their factors say.

    Args:
      count: n, of the images.
      factors: [n], 1 or more each; None: 1.
    """
    if factors is None:
        return SampleOrder(count, None)
    length = math.ceil(float(factors.sum()) - 1e-6)  # up: a factor of 1 stays 1 or more
    ends = np.cumsum(factors)
    return SampleOrder(length, ends * (length / ends[-1]))
