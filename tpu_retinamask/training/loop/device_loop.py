"""Several training steps in one call, without a return to Python between them."""

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from tpu_retinamask.batch_errors import GONE, batch_error, take_batch

_FETCH = "fetch_of_batch"  # scope of what takes a batch from the input: errors name the operations they passed


class LoopResult(NamedTuple):
    """What n steps gave."""

    metrics: dict  # name to [n] float32 array
    waited: float  # seconds that the steps waited for their batches


class Loop(Protocol):
    """What makes the steps of a run, some at a time."""

    def __call__(self, count: int) -> LoopResult:
        """Make `count` steps; raises BatchError for its input."""
        ...

    def settle(self) -> None:
        """Bring the variables on the host up to date: they are about to be saved, or scored."""
        ...


class StepLoop:
    """Calls a step n times on the next batches, in a loop of the graph where the batches come from tf.data.

    The loop is traced once; n is a tensor. It is itself not compiled: what is, is the step within, so that its
    program is the same whatever n, and so are its numbers.
    """

    def __init__(self, step: Callable, batches: Iterable, *, compiling: Callable | None = None) -> None:
        """Start to read the batches.

        Args:
          step: `batch -> metrics`, from `devices.distribute_step`.
          batches: endless dataset, distributed or not, or any iterable of batches.
          compiling: makes a context for the first call, in which the step is compiled.
        """
        self.step = step
        self.iterator = iter(batches)
        self.in_graph = isinstance(batches, tf.data.Dataset | tf.distribute.DistributedDataset)
        self._run = tf.function(self._steps, autograph=False)
        self._compiling = compiling

    def __call__(self, count: int) -> LoopResult:
        """Make `count` steps.

        Raises:
          BatchError: a batch could not be made.
        """
        compiling, self._compiling = self._compiling, None
        with compiling() if compiling else contextlib.nullcontext():
            return self._make(count)

    def _make(self, count):
        if self.in_graph:
            metrics, waited = self._run_in_graph(count)
            return LoopResult({name: values.numpy() for name, values in metrics.items()}, float(waited))
        waited, rows = 0.0, []
        for _ in range(count):
            started = time.monotonic()
            batch = take_batch(self.iterator)
            waited += time.monotonic() - started
            rows.append({name: np.float32(value) for name, value in self.step(batch).items()})
        return LoopResult({name: np.array([row[name] for row in rows]) for name in rows[0]}, waited)

    def trace(self) -> Any:
        """Return the concrete function of the loop, of which nothing is run.

        Raises:
          TypeError: the loop is not in the graph.
        """
        if not self.in_graph:
            raise TypeError("the batches come from Python: only the step itself can be traced")
        return self._run.get_concrete_function(self.iterator, tf.TensorSpec([], tf.int32))

    def traces(self) -> int:
        """Return how often the loop was traced."""
        return self._run.experimental_get_tracing_count()

    def _run_in_graph(self, count):
        try:
            return self._run(self.iterator, tf.constant(count))
        except GONE:
            raise
        except tf.errors.OpError as error:
            # The second is the operation's own name, should a device tell no scopes.
            if not any(name in str(error) for name in (_FETCH, "IteratorGetNext")):
                raise
            raise batch_error(error) from error

    def settle(self) -> None:
        """Bring the variables up to date: each step has done so."""

    def _steps(self, iterator, count):
        names = []  # of the metrics, known once the body below is traced

        def one(index, waited, rows):
            started = tf.timestamp()
            with tf.control_dependencies([started]), tf.name_scope(_FETCH):
                batch = next(iterator)
            with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                arrived = tf.timestamp()
            with tf.control_dependencies([arrived]):  # else one core may run the step first, and call it waiting
                metrics = self.step(batch)
            waited += arrived - started
            names[:] = sorted(metrics)
            row = tf.stack([tf.cast(metrics[name], tf.float32) for name in names])
            return index + 1, waited, rows.write(index, row)

        rows = tf.TensorArray(tf.float32, count, element_shape=[None])
        # One at a time: a batch fetched during the step before would count as waiting. The pipeline prefetches.
        _, waited, rows = tf.while_loop(
            lambda index, *_: index < count, one, (0, tf.zeros([], tf.float64), rows), parallel_iterations=1
        )
        return dict(zip(names, tf.unstack(rows.stack(), len(names), axis=1))), waited
