"""Which image each sample of a training run shows, on one host or shared among many: a function of the seed alone."""

import tensorflow as tf

from tpu_retinamask.errors import UserError


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
