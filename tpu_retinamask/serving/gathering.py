"""Requests gathered into batches: one thread works, whoever waits is answered by a future."""

import collections
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Closed(Exception):
    """The work has ended: nothing is taken any more."""


class Job(Generic[Item, Answer]):
    """What waits to be worked on.

    Attributes:
      item: that was submitted.
      future: of its answer.
    """

    def __init__(self, item: Item) -> None:
        """Take what is asked."""
        self.item = item
        self.future: concurrent.futures.Future[Answer] = concurrent.futures.Future()


class Gatherer(Generic[Item, Answer]):
    """Gives a function what came together.

    How much waits is not bounded here: whoever submits holds a seat (`room`).
    """

    def __init__(
        self, work: Callable[[list[Item]], list[Answer | Exception]], *, batch_size: int, wait_seconds: float
    ) -> None:
        """Start the thread.

        Args:
          work: items -> answer or error of each; called by the one thread alone.
          batch_size: items at most at once.
          wait_seconds: for which the first of them waits for others.
        """
        self._work, self._batch_size, self._wait = work, batch_size, wait_seconds
        self._jobs: collections.deque[Job[Item, Answer]] = collections.deque()
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, daemon=True, name="gatherer")
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Tell whether the thread works."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Count the jobs that nobody works on yet."""
        return len(self._jobs)

    def submit(self, item: Item) -> Job[Item, Answer]:
        """Return the job of an item, whose future will have its answer.

        Raises:
          Closed: after `close`.
        """
        job: Job[Item, Answer] = Job(item)
        with self._changed:
            if self._closed:
                raise Closed
            self._jobs.append(job)
            self._changed.notify()
        return job

    def withdraw(self, job: Job[Item, Answer]) -> bool:
        """Take a job back, with all that it holds; False: it is worked on already, or done."""
        with self._changed:
            try:
                self._jobs.remove(job)
            except ValueError:
                return False
        job.future.cancel()
        return True

    def close(self, seconds: float = 1.0) -> None:
        """Take back what waits, and wait for what is worked on."""
        with self._changed:
            self._closed = True
            left = list(self._jobs)
            self._jobs.clear()
            self._changed.notify()
        for job in left:
            job.future.cancel()
        self._thread.join(seconds)

    def _run(self) -> None:
        while (jobs := self._next()) is not None:
            if not jobs:
                continue
            try:
                answers = self._work([job.item for job in jobs])
            except Exception as error:  # a fault of ours, which must not end the thread
                log.exception("a batch of %d failed", len(jobs))
                answers = [error] * len(jobs)
            for job, answer in zip(jobs, answers, strict=True):
                if isinstance(answer, Exception):
                    job.future.set_exception(answer)
                else:
                    job.future.set_result(answer)
            del jobs, answers, job, answer  # nothing is kept while the next is waited for

    def _next(self) -> list[Job[Item, Answer]] | None:
        """Return what came together, without what was cancelled; None: it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            end = time.monotonic() + self._wait
            self._changed.wait_for(lambda: len(self._jobs) >= self._batch_size or self._closed, end - time.monotonic())
            if self._closed:
                return None
            taken = [self._jobs.popleft() for _ in range(min(self._batch_size, len(self._jobs)))]
        return [job for job in taken if job.future.set_running_or_notify_cancel()]
