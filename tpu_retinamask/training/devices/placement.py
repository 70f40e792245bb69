"""Where a training runs: one device, several of this machine, or all cores of a TPU. The step is the same."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.structures import Batch
from tpu_retinamask.training.devices import described_tpu

log = logging.getLogger(__name__)


def make_strategy(tpu: str | None = None, replicas: int = 1) -> tf.distribute.Strategy:
    """Return the strategy of a run. Call it before anything else that makes TensorFlow look for devices.

    Args:
      tpu: name or grpc address of a Cloud TPU, "local" on a TPU VM, "fake:2x2" for a TPU that is only described
        and on which a step can be traced but not run; None: the machine's own CPU or GPU.
      replicas: with `tpu` None, GPUs to share each batch; on a machine without one, shares of its CPU.

    Raises:
      UserError: the TPU cannot be reached, and what the resolver said; or fewer GPUs than replicas.
    """
    if tpu is not None and replicas != 1:
        raise UserError(f"--replicas={replicas} with --tpu={tpu}: a TPU has one replica a core; leave --replicas out")
    if tpu is None:
        return _of_this_machine(replicas)
    if is_described(tpu):
        return described_tpu.describe_strategy(tpu.removeprefix(described_tpu.PREFIX))
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        if "Google API client" in str(error):  # TensorFlow advises a package whose protobuf it cannot itself work with
            raise UserError(
                f"--tpu={tpu}: to look a TPU up by its name, install google-api-python-client and oauth2client "
                "(not cloud-tpu-client), as the [tpu] extra does; or give its address, grpc://HOST:8470"
            ) from error
        raise UserError(
            f"--tpu={tpu}: no TPU answered ({error}). On a TPU VM use --tpu=local with the [tpu] extra installed; "
            "without a TPU leave the flag out"
        ) from error
    log.info("TPU: %d replicas on %d hosts", strategy.num_replicas_in_sync, strategy.extended.num_hosts)
    return strategy


def is_described(tpu: str | None) -> bool:
    """Tell whether a value of --tpu describes a TPU instead of naming one."""
    return tpu is not None and tpu.startswith(described_tpu.PREFIX)


def _of_this_machine(replicas: int) -> tf.distribute.Strategy:
    if replicas < 1:
        raise UserError(f"--replicas={replicas}: expected 1 or more")
    gpus = tf.config.list_physical_devices("GPU")
    if replicas == 1:
        if len(gpus) > 1:
            log.info("training on one of %d GPUs; --replicas=%d shares each batch among all", len(gpus), len(gpus))
        return tf.distribute.get_strategy()
    if gpus:
        if len(gpus) < replicas:
            raise UserError(f"--replicas={replicas}: this machine has {len(gpus)} GPUs")
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(replicas)])
    described_tpu.make_logical_cpus(replicas)
    # One device adds in the order of the replicas, so that the sum is the same in every run.
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(replicas)], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Tell whether the replicas are TPU cores, described ones too."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def refuse_local_paths(paths: Iterable[tuple[str, str]]) -> None:
    """Refuse a file of this machine where TPU hosts, reached over the network, would have to open it.

    Args:
      paths: (what the path is, for the message; path).

    Raises:
      UserError: names the first such path.
    """
    remote = [
        device.name
        for device in tf.config.list_logical_devices("TPU")
        if tf.DeviceSpec.from_string(device.name).job not in (None, "localhost")
    ]
    if not remote:
        return
    for name, path in paths:
        if "://" not in path:
            raise UserError(
                f"{name} {path} is a file of this machine, which the host of {remote[0]} cannot open: copy the data "
                "to a bucket and give gs:// paths, or run on the TPU VM itself with --tpu=local"
            )


def replica_batch_size(strategy: tf.distribute.Strategy, batch_size: int) -> int:
    """Return the images of one replica.

    Raises:
      UserError: the global batch does not divide.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise UserError(
            f"train.batch_size is {batch_size}, which {replicas} replicas cannot share equally: "
            f"choose a multiple of {replicas}"
        )
    return batch_size // replicas


def distribute_batches(
    strategy: tf.distribute.Strategy, make_dataset: Callable, batch_size: int, start_step: int
) -> Any:
    """Return the batches of a run, each replica's share on its device.

    Every host of a TPU runs an input pipeline of its own for its own replicas. Step s shows samples
    s * B to (s + 1) * B - 1 of the run, however many replicas and hosts share them.

    Args:
      strategy: from `make_strategy`.
      make_dataset: `InputPipeline.train_dataset` of the records.
      batch_size: B, images of the global batch.
      start_step: global steps already done.

    Raises:
      UserError: the batch does not divide by the replicas.
    """
    replica_batch_size(strategy, batch_size)
    replicas = strategy.num_replicas_in_sync
    if replicas == 1 and not is_tpu(strategy):
        return make_dataset(batch_size, start_step)

    def of_host(context):
        return make_dataset(
            batch_size, start_step, replicas=replicas, shard=(context.input_pipeline_id, context.num_input_pipelines)
        )

    return strategy.distribute_datasets_from_function(of_host)


def compile_step(train_step: Callable, *, jit_compile: bool = True) -> Callable:
    """Return the step as one tf.function; with jit_compile it is a single XLA program, traced once."""
    return tf.function(train_step, jit_compile=jit_compile, autograph=False)


def distribute_step(strategy: tf.distribute.Strategy, train_step: Callable, *, jit_compile: bool) -> Callable:
    """Return the step as a function of a global batch, metrics of all replicas out.

    On one device the whole step is one compiled program. A TPU compiles the step of each replica, its sums over
    replicas included. Mirrored replicas run it uncompiled: TensorFlow cannot sum over them inside a compiled
    function.
    """
    compiled = compile_step(train_step, jit_compile=jit_compile)
    if is_tpu(strategy):
        replica_step = compiled
    elif strategy.num_replicas_in_sync == 1:
        return compiled
    else:
        replica_step = train_step

    def global_step(batch):
        metrics = strategy.run(replica_step, args=(batch,))
        # Every replica returns the sum over all of them.
        return {name: strategy.experimental_local_results(value)[0] for name, value in metrics.items()}

    return global_step


def distribute_detector(strategy: tf.distribute.Strategy, detect: Callable, *, jit_compile: bool = True) -> Callable:
    """Return `Batch -> Detections` that gives every replica an equal share of the batch.

    Args:
      strategy: from `make_strategy`.
      detect: `(images, content sizes) -> Detections`, whose first dimensions are the image's.
      jit_compile: compile it as one program, where replicas are not mirrored.
    """
    mirrored = strategy.num_replicas_in_sync > 1 and not is_tpu(strategy)
    if not mirrored:
        detect = tf.function(detect, jit_compile=jit_compile, autograph=False)
    if strategy.num_replicas_in_sync == 1 and not is_tpu(strategy):
        return lambda batch: detect(batch.image, batch.content_size)

    @tf.function(autograph=False)
    def run(images, content_size):
        return strategy.run(detect, args=(images, content_size))

    def detector(batch: Batch):
        share = replica_batch_size(strategy, batch.image.shape[0])

        def shares(value):
            return strategy.experimental_distribute_values_from_function(
                lambda context: value[context.replica_id_in_sync_group * share :][:share]
            )

        found = run(shares(batch.image), shares(batch.content_size))
        return type(found)(*(tf.concat(strategy.experimental_local_results(part), axis=0) for part in found))

    return detector
