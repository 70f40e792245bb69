"""The input pipeline spread over other machines by the tf.data service, in the order that one machine would give.

The dispatcher knows the addresses of all its workers. A worker prepares every W-th batch of a host, which reads from
them in turn; the service takes them in an order of its own, always the same, so the W batches of a turn are put in
order here. Each batch carries the number of its first sample, which is compared with what is due: a worker that was
lost, or started again from the beginning, ends the run instead of feeding it other samples.
"""

import logging
import re
import socket
import threading
import uuid
from collections.abc import Callable

import tensorflow as tf

from tpu_retinamask.errors import UserError

log = logging.getLogger(__name__)

PROTOCOL = "grpc"
QUESTION = "data-service-question"  # name of the thread that asks the workers
ANSWER_SECONDS = 60.0  # for workers to answer: they ask the dispatcher for tasks every few seconds


def serve_batches(
    numbers: tf.data.Dataset, make_batches: Callable[[tf.data.Dataset], tf.data.Dataset], batch_size: int, service: str
) -> tf.data.Dataset:
    """Have the workers of a service prepare batches.

    Args:
      numbers: endless dataset of int64, the samples of this host in order.
      make_batches: from such a dataset to one of (number of each sample [b], anything).
      batch_size: b, samples of a batch.
      service: address of the dispatcher, grpc://host:port.

    Returns:
      Dataset of what `make_batches` gives, without the numbers: the same in the same order.

    Raises:
      UserError: the dispatcher or one of its workers does not answer.
    """
    workers = count_workers(service)
    log.info("data service %s: %d workers", service, workers)
    hint = tf.data.experimental.SHARD_HINT
    own = numbers.batch(batch_size, drop_remainder=True).shard(hint, hint).unbatch()
    served = make_batches(own).apply(
        tf.data.experimental.service.distribute(
            tf.data.experimental.service.ShardingPolicy.HINT,
            service,
            job_name=f"train-{uuid.uuid4().hex}",
            consumer_index=0,
            num_consumers=1,
        )
    )
    if workers > 1:
        served = served.batch(workers, drop_remainder=True).map(_in_order).unbatch()
    due = numbers.batch(batch_size, drop_remainder=True)
    return tf.data.Dataset.zip(due, served).map(_compare).prefetch(tf.data.AUTOTUNE)


def count_workers(service: str, seconds: float = ANSWER_SECONDS) -> int:
    """Return how many workers a service has, all of which answer.

    Args:
      service: grpc://host:port.
      seconds: waited for an answer.

    Raises:
      UserError: the dispatcher or one of its workers does not answer in time, or the address is none.
    """
    host, port = parse_address(service)
    try:
        socket.create_connection((host, port), timeout=10).close()
    except OSError as error:
        raise UserError(
            f"--data_service={service}: no dispatcher answers there ({error}). Start one with "
            "`python -m tpu_retinamask.data_service dispatcher`"
        ) from error
    # Every worker is asked for the first two numbers of its share: its own number, and that plus the workers.
    hint = tf.data.experimental.SHARD_HINT
    question = (
        tf.data.Dataset.range(2**20)
        .shard(hint, hint)
        .take(2)
        .batch(2)
        .apply(tf.data.experimental.service.distribute(tf.data.experimental.service.ShardingPolicy.HINT, service))
    )
    answers, failures = {}, []

    def ask():
        try:
            for first, second in question.as_numpy_iterator():
                answers[int(first)] = int(second - first)
        except tf.errors.OpError as error:
            failures.append(error)

    asking = threading.Thread(target=ask, name=QUESTION, daemon=True)
    asking.start()
    asking.join(seconds)
    workers = next(iter(answers.values()), 0)
    if failures:
        raise UserError(f"--data_service={service}: {failures[0].message}")
    if workers == 0:
        raise UserError(
            f"--data_service={service}: no worker of the dispatcher answered within {seconds:.0f} s. Start "
            "each of its --workers with `python -m tpu_retinamask.data_service worker`"
        )
    missing = sorted(set(range(workers)) - set(answers))
    if missing:
        raise UserError(
            f"--data_service={service}: {len(missing)} of its {workers} workers do not answer: start every "
            "worker that the dispatcher's --workers names, then try again"
        )
    return workers


def parse_address(service: str) -> tuple[str, int]:
    """Return host and port of grpc://host:port.

    Raises:
      UserError: it is not of that form.
    """
    head, _, address = service.partition("://")
    host, _, port = address.rpartition(":")
    if head != PROTOCOL or not host or not re.fullmatch("[0-9]{1,5}", port):
        raise UserError(f"--data_service={service!r} is not an address such as {PROTOCOL}://10.0.0.2:5050")
    return host, int(port)


@tf.autograph.experimental.do_not_convert
def _in_order(numbers, batches):
    """Sort the batches of one turn, numbers [W, b], by their first samples."""
    order = tf.argsort(numbers[:, 0])
    return tf.gather(numbers, order), tf.nest.map_structure(lambda field: tf.gather(field, order), batches)


@tf.autograph.experimental.do_not_convert
def _compare(due, served):
    numbers, batch = served
    check = tf.debugging.Assert(
        tf.reduce_all(numbers == due),
        [
            "the data service gave the samples",
            numbers,
            "where these were due:",
            due,
            "a worker or the dispatcher was started again, or lost. Run the same command again, to go on from the last "
            "checkpoint",
        ],
    )
    with tf.control_dependencies([check]):
        return tf.nest.map_structure(tf.identity, batch)
