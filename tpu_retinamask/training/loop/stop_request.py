"""The wish that a training end before its last step: Ctrl-C, or the SIGTERM by which a cloud announces a preemption."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingInterrupted(Exception):
    """The training was asked to stop before its end, and has saved what it had.

    Attributes:
      signal_number: by which it was asked.
    """

    def __init__(self, message: str, signal_number: int = signal.SIGTERM) -> None:
        """Take the words for the user."""
        super().__init__(message)
        self.signal_number = signal_number


class StopRequest:
    """Whether the training is to stop: at the first signal after the loop in progress, at the second at once.

    Python runs its handlers between two loops only, and a step that compiles takes a minute: what must happen at once
    is done by a thread, which the interpreter wakes through a file descriptor.

    A loop of `steps_per_loop` steps must be shorter than the notice, 30 s for a preemptible virtual machine at Google.
    """

    def __init__(self, *, ends_process: bool = False, alone: bool = True) -> None:
        """Begin without a request.

        Args:
          ends_process: the process is the training's own, and is ended where nothing is lost by it, or at the second
            signal; else the second raises KeyboardInterrupt when Python comes round to it.
          alone: no other process shares the run: one that left while they compile would be waited for.
        """
        self.received = False
        self.signal_number: int = signal.SIGTERM  # of the first
        self._ends_process, self._alone = ends_process, alone
        self._step, self._saved, self._long = 0, 0, False
        self._count = 0

    def at(self, step: int, saved: int, *, long: bool = False) -> None:
        """Take note of where the training is.

        Args:
          step: steps made.
          saved: those of them that are saved.
          long: what comes takes a minute or more, a compilation or an evaluation, and makes no step before its end.
        """
        self._step, self._saved, self._long = step, saved, long

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Take SIGTERM and SIGINT within the block; outside Python's main thread, which alone can, none is taken."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        # One that is ignored stays so: of a shell's background job, which a Ctrl-C is not meant for.
        taken = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in taken}
        woken_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        watcher = threading.Thread(target=self._watch, args=(reading,), daemon=True, name="stop_request")
        watcher.start()
        try:
            yield self
        finally:
            signal.set_wakeup_fd(woken_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(writing)  # ends the watcher
            watcher.join()
            os.close(reading)

    def _note(self, number, frame):
        del frame
        if not self.received:
            self.received, self.signal_number = True, number
        elif not self._ends_process:
            raise KeyboardInterrupt

    def _watch(self, reading):
        while numbers := os.read(reading, 64):
            for number in numbers:
                if number in SIGNALS:
                    self._answer(number)

    def _answer(self, number):
        """Say what becomes of a signal, and end the process where that is to be done at once."""
        self._count += 1
        name = signal.Signals(number).name
        if self._ends_process and self._alone and self._long and self._step == self._saved:
            after = f"step {self._saved} is saved" if self._saved else "no step had been made"
            _say(f"{name}: ended; {after}, so nothing is lost. Run the same command to go on")
            os._exit(128 + number)
        if self._count == 1:
            again = "; once more ends it at once" if self._ends_process else ""
            _say(f"{name}: stopping after this loop{again}")
        elif self._ends_process:
            some = self._step > self._saved
            lost = f"what was learnt after step {self._saved} is lost" if some else "the loop in progress is lost"
            _say(f"{name}: ended at once; {lost}. Run the same command to go on from step {self._saved}")
            os._exit(128 + number)


def _say(line):
    with contextlib.suppress(OSError):  # a pipe whose reader the same Ctrl-C has ended
        os.write(2, f"{line}\n".encode())  # not by the log, which may be in the middle of a line of its own
