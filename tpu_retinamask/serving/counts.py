"""What `/metrics` tells, in the text format of Prometheus.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import collections
import contextlib
import os
import threading

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # upper ends of the histogram


class Counts:
    """Counters of a server, from its start on; several threads count."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._lock = threading.Lock()
        self._answers: collections.Counter[tuple[int, str]] = collections.Counter()
        self._within, self._seconds = [0] * len(SECONDS), 0.0
        self._pictures, self._batches, self._objects = 0, 0, 0

    def answered(self, status: int, code: str, seconds: float) -> None:
        """Count an answer to a picture.

        Args:
          status: of HTTP.
          code: of the refusal; "ok".
          seconds: from the request to its answer.
        """
        with self._lock:
            self._answers[status, code] += 1
            self._seconds += seconds
            for place, end in enumerate(SECONDS):
                self._within[place] += seconds <= end

    def worked(self, pictures: int, objects: int) -> None:
        """Count a batch that was run."""
        with self._lock:
            self._batches += 1
            self._pictures += pictures
            self._objects += objects

    def text(self, *, held: int, held_bytes: int, waiting: int) -> str:
        """Return the text.

        Args:
          held: requests that were let in and are not answered.
          held_bytes: of their bodies.
          waiting: pictures that nobody works on yet.
        """
        with self._lock:
            answers, within = sorted(self._answers.items()), list(self._within)
            seconds, pictures, batches, objects = self._seconds, self._pictures, self._batches, self._objects
        total = sum(count for _, count in answers)
        lines = _family("requests_total", "counter", "Answers to POST /detect.")
        lines += [
            f'retinamask_requests_total{{status="{status}",code="{code}"}} {count}' for (status, code), count in answers
        ]
        lines += _family("request_seconds", "histogram", "From a request to its answer.")
        lines += [f'retinamask_request_seconds_bucket{{le="{end}"}} {count}' for end, count in zip(SECONDS, within)]
        lines += [
            f'retinamask_request_seconds_bucket{{le="+Inf"}} {total}',
            f"retinamask_request_seconds_sum {seconds:.6f}",
            f"retinamask_request_seconds_count {total}",
        ]
        for name, kind, text, value in (
            ("pictures_total", "counter", "Pictures that were looked at.", pictures),
            ("batches_total", "counter", "Batches that they were looked at in.", batches),
            ("objects_total", "counter", "Objects found, of any score.", objects),
            ("held_requests", "gauge", "Requests let in and not answered yet.", held),
            ("held_bytes", "gauge", "Bytes of their bodies.", held_bytes),
            ("waiting_pictures", "gauge", "Pictures that wait for a batch.", waiting),
            ("resident_bytes", "gauge", "Memory of the process.", _resident()),
        ):
            lines += [*_family(name, kind, text), f"retinamask_{name} {value}"]
        return "\n".join(lines) + "\n"


def _family(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP retinamask_{name} {text}", f"# TYPE retinamask_{name} {kind}"]


def _resident() -> int:
    """Return the bytes of memory that the process has; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
