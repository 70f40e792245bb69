"""The seat of callbacks: what code of a user's own is told of a training as it goes."""

import contextlib
import json
import logging
import os
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tpu_retinamask.files import reason_of, write_atomically
from tpu_retinamask.seats import Seat

log = logging.getLogger(__name__)


class Run(NamedTuple):
    """The training that a callback is made for."""

    model_dir: str
    first_step: int  # steps made already; those after it are told
    total_steps: int
    config_files: Mapping[str, str]  # name and text of what is written down of the configuration


class Callback:
    """Is told what happens. Nothing that it does changes the training; each method does nothing until overridden."""

    def __init__(self, run: Run) -> None:
        """Keep the run, as `self.run`."""
        self.run = run

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take in the losses, the gradient's norm and the learning rate of a step; the first is 1.

        On an accelerator the steps of a loop (`train.steps_per_loop`) are told together, once it is done.
        """

    def on_evaluation(self, step: int, scores: Mapping[str, float | None]) -> None:
        """Take in the scores after a step, by names such as val/segm/AP; None is what could not be scored."""

    def on_save(self, step: int, path: str) -> None:
        """Take note of a checkpoint that was written."""

    def on_end(self) -> None:
        """Finish, after the last step or when the training is stopped, by an error too."""


CALLBACKS: Seat[Callable[[Run], Callback]] = Seat("callback", "tpu_retinamask.callbacks")


class Callbacks:
    """All callbacks of a training. One that fails is told of and left out from then on; the training goes on."""

    def __init__(self, names: Iterable[str] = (), run: Run = Run("", 0, 0, {})) -> None:  # noqa: B008  # frozen
        """Make them.

        Raises:
          SettingError: there is no callback of a name.
        """
        makers = {name: CALLBACKS.get(name) for name in names}
        self._told: dict[str, Callback] = {}
        for name, make in makers.items():
            with self._left_out_if_it_fails(name):
                self._told[name] = make(run)

    def steps(self, last: int, metrics: Mapping[str, Any]) -> None:
        """Tell of some steps up to `last`; metrics are numbers or arrays, a number for each step."""
        if not self._told:
            return
        arrays = {name: np.atleast_1d(np.asarray(values)) for name, values in metrics.items()}
        count = len(arrays["loss"])
        for index in range(count):
            self._tell("on_step", last - count + 1 + index, {name: float(row[index]) for name, row in arrays.items()})

    def evaluated(self, step: int, scores: Mapping[str, float | None]) -> None:
        """Tell of an evaluation."""
        self._tell("on_evaluation", step, dict(scores))

    def saved(self, step: int, path: str) -> None:
        """Tell of a checkpoint."""
        self._tell("on_save", step, path)

    def close(self) -> None:
        """Tell of the end."""
        self._tell("on_end")

    def _tell(self, method, *arguments):
        for name, callback in [*self._told.items()]:
            with self._left_out_if_it_fails(name):
                getattr(callback, method)(*arguments)

    @contextlib.contextmanager
    def _left_out_if_it_fails(self, name):
        try:
            yield
        except Exception as error:  # of a user's code: anything
            self._told.pop(name, None)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log.error(
                "callback %r failed at %s, line %s: %s: %s. It is told nothing more; the training goes on",
                name, frame.filename, frame.lineno, type(error).__name__, reason_of(error),
            )  # fmt: skip


@CALLBACKS.register("jsonl")
class StepLines(Callback):
    """Writes a line a step and a line an evaluation to `steps.jsonl` in the model directory."""

    def __init__(self, run: Run) -> None:
        """Keep the lines of an earlier life of the run up to the step that it goes on from."""
        super().__init__(run)
        self._path = os.path.join(run.model_dir, "steps.jsonl")
        kept = [line for line in self._lines() if _step_of(line) <= run.first_step]
        write_atomically(self._path, "".join(f"{line}\n" for line in kept))

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the step."""
        self._append({"step": step, **metrics})

    def on_evaluation(self, step: int, scores: Mapping[str, float | None]) -> None:
        """Append the scores."""
        self._append({"step": step, **scores})

    def _append(self, row):
        numbers = {name: value if value is not None and np.isfinite(value) else None for name, value in row.items()}
        with tf.io.gfile.GFile(self._path, "a") as file:
            file.write(json.dumps(numbers) + "\n")

    def _lines(self):
        if not tf.io.gfile.exists(self._path):
            return []
        with tf.io.gfile.GFile(self._path, "rb") as file:
            return file.read().decode("utf-8", "replace").splitlines()


def _step_of(line):
    """Return the step of a line; of one that was cut, a number beyond all."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError):
        return 1 << 62
