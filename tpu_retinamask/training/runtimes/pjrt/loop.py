"""The loop over steps: batches put on the devices ahead of need, metrics read once the steps have been started."""

import atexit
import concurrent.futures
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from tpu_retinamask.batch_errors import take_batch
from tpu_retinamask.structures import Batch
from tpu_retinamask.training.loop.device_loop import LoopResult
from tpu_retinamask.xla.executable import Devices

AHEAD = 2  # batches on the devices beside the one in use
STARTED = 2  # steps that the devices may have before them; each holds its batch


class DeviceLoop:
    """Calls a step n times on the next batches; see `device_loop.StepLoop`.

    The host starts steps ahead of the devices, and reads their metrics after the last: the devices wait for nothing
    between the steps of a call.
    """

    def __init__(self, step: Any, batches: Iterable[Batch], devices: Devices, on_settled: Callable[[], None]) -> None:
        """Take the step; nothing is compiled and no batch is read before the first call.

        Args:
          step: `PjrtStep`.
          batches: endless, this process' share of each.
          devices: on which the batches are put.
          on_settled: called when the variables on the host have new values.
        """
        self._step, self._batches, self._devices, self._on_settled = step, batches, devices, on_settled
        self._queue: AheadOfNeed | None = None
        self._watch = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="step_end")
        self._ready_at, self._settled = None, True

    def __call__(self, count: int) -> LoopResult:
        """Make `count` steps.

        Raises:
          BatchError: a batch could not be made.
        """
        if self._queue is None:
            self._queue = AheadOfNeed(self._batches, self._devices)
        waited, rows, ends = 0.0, [], []
        for _ in range(count):
            asked = time.monotonic()
            batch = self._queue.get()
            arrived = time.monotonic()
            # The devices waited from when they had nothing left to do.
            idle_from = (
                asked if self._ready_at is None else self._ready_at.result() if self._ready_at.done() else arrived
            )
            waited += max(0.0, arrived - max(asked, idle_from))
            rows.append(self._step(batch))
            self._settled = False
            self._ready_at = self._watch.submit(_when_ready, rows[-1])
            ends.append(self._ready_at)
            if len(ends) > STARTED:
                ends[-1 - STARTED].result()
        # Every replica returns the sum over all of them.
        metrics = {name: np.array([np.asarray(row[name][0]) for row in rows], np.float32) for name in rows[0]}
        return LoopResult(metrics, waited)

    def settle(self) -> None:
        """Bring the variables on the host up to date: before they are saved, or scored."""
        if not self._settled:
            self._step.store()
            self._settled = True
            self._on_settled()


class AheadOfNeed:
    """Puts the next batches on the devices in a thread of its own."""

    def __init__(self, batches: Iterable[Batch], devices: Devices) -> None:
        """Start."""
        self._filled: queue.Queue = queue.Queue(AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(iter(batches), devices), daemon=True, name="batches")
        self._thread.start()
        atexit.register(self.stop)  # before what it uses is taken down

    def get(self) -> list[jax.Array]:
        """Return the next batch's fields on the devices; raises what its making raised."""
        found = self._filled.get()
        if isinstance(found, Exception):
            self._filled.put(found)  # whoever asks again is told again
            raise found
        return found

    def stop(self) -> None:
        """Make no further batches; wait a little for the one in the making."""
        self._stopped.set()
        latest = time.monotonic() + 5
        while self._thread.is_alive() and time.monotonic() < latest:
            with contextlib.suppress(queue.Empty):
                self._filled.get(timeout=0.1)

    def _fill(self, iterator: Iterator[Batch], devices: Devices) -> None:
        while not self._stopped.is_set():
            try:
                fields = [devices.share(np.asarray(field)) for field in take_batch(iterator)]
            except Exception as error:  # told by `get`, where someone listens
                self._filled.put(error)
                return
            self._filled.put(fields)


def _when_ready(metrics: dict) -> float:
    with contextlib.suppress(Exception):  # raised anew where the metrics are read
        jax.block_until_ready(list(metrics.values()))
    return time.monotonic()
