"""Where a training runs: one device, or all cores of a TPU. The step is the same."""

import logging

import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.training.step import compile_step

log = logging.getLogger("tpu_retinamask")


def make_strategy(tpu: str | None) -> tf.distribute.Strategy:
    """Return the strategy of a run.

    Args:
      tpu: name or grpc address of a Cloud TPU, "local" on a TPU VM; None: the machine's own CPU or GPU.

    Raises:
      UserError: the TPU cannot be reached; says what the resolver said.
    """
    if tpu is None:
        return tf.distribute.get_strategy()
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise UserError(
            f"--tpu={tpu}: no TPU answered ({error}). On a TPU VM use --tpu=local with the [tpu] extra installed; "
            "without a TPU leave the flag out") from error
    log.info("%d TPU cores", strategy.num_replicas_in_sync)
    return strategy


def replica_batch_size(strategy: tf.distribute.Strategy, batch_size: int) -> int:
    """Return the images of one replica.

    Raises:
      UserError: the global batch does not divide.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise UserError(f"train.batch_size is {batch_size}, which {replicas} replicas cannot share equally: "
                         f"choose a multiple of {replicas}")
    return batch_size // replicas


def distribute_step(strategy: tf.distribute.Strategy, train_step, *, jit_compile: bool):
    """Return the step as a function of a global batch, metrics of all replicas out.

    On one device the whole step is one compiled program. Under a strategy the same step is traced for each
    replica; a TPU compiles it by itself.
    """
    if strategy.num_replicas_in_sync == 1:
        return compile_step(train_step, jit_compile=jit_compile)

    @tf.function(autograph=False)
    def distributed_step(batch):
        metrics = strategy.run(train_step, args=(batch,))
        # Every replica returns the sum over all of them.
        return {name: strategy.experimental_local_results(value)[0] for name, value in metrics.items()}

    return distributed_step


def distribute_batches(strategy: tf.distribute.Strategy, make_dataset, batch_size: int, start_step: int):
    """Return the batches of a run, each replica's share on its device.

    Args:
      strategy: from `make_strategy`.
      make_dataset: `(batch size, start step) -> Dataset of Batch`.
      batch_size: images of the global batch.
      start_step: global steps already done.

    Raises:
      UserError: the batch does not divide by the replicas, or the run has several hosts.
    """
    share = replica_batch_size(strategy, batch_size)
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return make_dataset(batch_size, start_step)

    def of_host(context):
        if context.num_input_pipelines > 1:
            raise UserError(f"{context.num_input_pipelines} hosts: the input pipeline serves a single host so far")
        return make_dataset(share, start_step * replicas)

    return strategy.distribute_datasets_from_function(of_host)
