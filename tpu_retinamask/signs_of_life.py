"""Signs of life: a line that says what a program is at, whenever it has been silent for some seconds."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from tpu_retinamask.errors import printable

SILENCE = 8.0  # seconds; nobody waits for ten without a word
_FORMAT, _CLOCK = "%(asctime)s %(message)s", "%H:%M:%S"


class _Now:
    """What is being done, since when (None: no matter), and when the terminal was last written to."""

    what: str | None = None
    since: float | None = 0.0
    spoken = 0.0


def now(what: str | None, *, timed: bool = True) -> None:
    """Say what begins.

    Args:
      what: in words; None: something that shows its own progress, or nothing that takes time.
      timed: whether to say for how many seconds it has gone on.
    """
    _Now.what, _Now.since = what, time.monotonic() if timed else None


class _Printable(logging.Formatter):
    """Lines as a terminal is given them, whatever names they hold."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class TerminalHandler(logging.StreamHandler):
    """Writes the project's lines to the terminal, and remembers when."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Take the stream; standard error where none is given."""
        super().__init__(stream)
        self.setFormatter(_Printable(_FORMAT, _CLOCK))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        super().emit(record)
        _Now.spoken = time.monotonic()


@contextlib.contextmanager
def shown(silence: float = SILENCE) -> Iterator[None]:
    """Write such lines to standard error within the block, as it was at its start.

    Args:
      silence: seconds after the last line.
    """
    # A descriptor of its own: TensorFlow's import, in which it is silent longest, has the usual one taken away.
    terminal, ended = os.dup(2), threading.Event()
    now("starting")
    _Now.spoken = time.monotonic()

    def watch():
        while not ended.wait(min(0.5, silence / 4)):
            moment, what, since = time.monotonic(), _Now.what, _Now.since
            begun = since is not None and moment - since < silence / 8  # let it say something itself first
            if what is not None and not begun and moment - _Now.spoken >= silence:
                _Now.spoken = moment
                lasted = "" if since is None else f", {moment - since:.0f} s"
                with contextlib.suppress(OSError):  # a terminal that was closed
                    os.write(terminal, f"{time.strftime(_CLOCK)} ... {what}{lasted}\n".encode())

    watcher = threading.Thread(target=watch, daemon=True, name="signs_of_life")
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        now(None)
        os.close(terminal)
