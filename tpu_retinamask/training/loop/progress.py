"""What a person sees of a training: a line now and then, and what TensorBoard shows."""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from tpu_retinamask.errors import NonFiniteLossError
from tpu_retinamask.files import reason_of

log = logging.getLogger(__name__)


COUNTED = ("boxes_dropped", "mask_rois_overflow")  # what is left out is summed over the steps between two lines


class Progress:
    """Logs losses, images per second and the time left; writes the same to TensorBoard."""

    def __init__(
        self,
        model_dir: str | None,
        *,
        total_steps: int,
        steps_per_epoch: float,
        batch_size: int,
        log_every: int,
        start_step: int,
        start_images: int | None = None,
    ) -> None:
        """Open the event file in `model_dir`/events; without a folder nothing is written.

        Args:
          model_dir: of the run.
          total_steps: over the whole life of the run.
          steps_per_epoch: with the present batch.
          batch_size: images a step.
          log_every: steps between lines.
          start_step: steps made already.
          start_images: images shown in them; None: as many a step as now.
        """
        self._steps_shown = start_step if start_images is None else start_images / batch_size
        self._start_step = start_step
        self.total_steps, self.steps_per_epoch = total_steps, steps_per_epoch
        self.batch_size, self.log_every = batch_size, log_every
        self._events = model_dir and os.path.join(model_dir, "events")
        self.writer, self._events_lost = self._open_events(), False
        self.step = self._logged_step = start_step
        self._last_update = time.monotonic()
        self._seconds = self._waited = 0.0  # since the last line
        self._counted = dict.fromkeys(COUNTED, 0.0)
        self.boxes_dropped = 0  # since the start of this process
        self._first = True

    def update(self, metrics: dict, waited: float = 0.0) -> None:
        """Count one step or several; every `log_every` steps, show the metrics of that step.

        Args:
          metrics: names to numbers, or to [n] arrays, one number for each of n steps.
          waited: seconds that the steps waited for their batches.

        Raises:
          NonFiniteLossError: a loss of one of the steps is not finite; names the first.
        """
        metrics = {name: np.atleast_1d(np.asarray(values)) for name, values in metrics.items()}
        count = len(metrics["loss"])
        now = time.monotonic()
        seconds, self._last_update = now - self._last_update, now
        for index in range(count):  # all the steps of a loop are taken to be equally long
            self._seconds += seconds / count
            self._waited += waited / count
            self._count_step({name: float(values[index]) for name, values in metrics.items()})

    def _count_step(self, metrics: dict):
        self.step += 1
        # Before this step can be saved: a gradient that is not finite has already spoilt the weights.
        stop_if_not_finite(self.step, metrics)
        for name in COUNTED:
            self._counted[name] += metrics.get(name, 0.0)
        self.boxes_dropped += int(metrics.get("boxes_dropped", 0.0))
        if self._first:  # the first step compiles: it would spoil the speed of the first line
            self._first = False
            log.info("first step done, compiled in %.0f s", self._seconds)
            self._restart_clock()
        if self.step % self.log_every == 0 or self.step == self.total_steps:
            self.show(metrics)

    def show(self, metrics: dict) -> None:
        """Log one line and write the scalars."""
        steps = self.step - self._logged_step
        seconds = max(self._seconds, 1e-9)
        rate = steps * self.batch_size / seconds
        left = (self.total_steps - self.step) * seconds / steps if steps else 0.0
        terms = "  ".join(f"{name.removesuffix('_loss')} {metrics[name]:.4f}" for name in terms_of(metrics))
        dropped = self._counted["boxes_dropped"]
        log.info(
            "step %d/%d  epoch %.1f  loss %.4f (%s)  lr %.2g  %.1f images/s  input wait %.0f%%  ETA %s%s",
            self.step,
            self.total_steps,
            (self._steps_shown + self.step - self._start_step) / self.steps_per_epoch,
            metrics["loss"],
            terms,
            metrics["learning_rate"],
            rate,
            100 * self._waited / seconds,
            format_seconds(left),
            f"  {dropped:.0f} boxes beyond max_instances" if dropped else "",
        )
        scalars = {f"train/{name}": value for name, value in (metrics | self._counted).items()}
        self._write_scalars(scalars | ({"train/images_per_second": rate} if steps else {}))
        self._counted = dict.fromkeys(COUNTED, 0.0)
        self._restart_clock()

    def write_scalars(self, values: dict) -> None:
        """Write further scalars, such as those of an evaluation, at the present step."""
        self._write_scalars(
            {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        )
        self._restart_clock()  # the time of an evaluation is not the training's
        self._last_update = time.monotonic()

    def write_seen(self, pictures: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]) -> None:
        """Write what an evaluation saw, at the present step.

        Args:
          pictures: uint8 [h, w, 3] by name.
          values: numbers by name, [n], shown as a histogram.
        """

        def write():
            for name, picture in pictures.items():
                tf.summary.image(name, picture[np.newaxis])
            for name, numbers in values.items():
                tf.summary.histogram(name, numbers)

        self._write(write)

    def write_texts(self, texts: Mapping[str, str]) -> None:
        """Write texts, such as the configuration, as they are."""

        def write():
            for name, text in texts.items():
                indented = "".join(f"    {line}\n" for line in text.splitlines())  # code, in Markdown
                tf.summary.text(name, indented)

        self._write(write)

    def _write_scalars(self, scalars: dict):
        def write():
            for name, value in scalars.items():
                tf.summary.scalar(name, value)

        self._write(write)

    def _write(self, write: Callable[[], None]):
        """Write events at the present step; a full disk costs the events of that time and not the training."""
        try:
            self.writer = self.writer or self._open_events()
            if self.writer is None:
                return
            with self.writer.as_default(step=self.step):
                write()
            self.writer.flush()
            self._events_lost = False
        except tf.errors.OpError as error:
            if not self._events_lost:
                log.error(
                    "events of step %d could not be written: %s. The training goes on", self.step, reason_of(error)
                )
            self.writer, self._events_lost = None, True  # a file cut in the middle of a record is not written on

    def _open_events(self):
        return None if self._events is None else tf.summary.create_file_writer(self._events)

    def _restart_clock(self):
        self._logged_step, self._seconds, self._waited = self.step, 0.0, 0.0


def terms_of(metrics: dict) -> list[str]:
    """Name the terms that the loss is the sum of: class, box and mask first, further ones by their names."""
    known = ("class_loss", "box_loss", "mask_loss")
    further = sorted(name for name in metrics if name.endswith("_loss") and name not in known)
    return [name for name in (*known, *further) if name in metrics]


def stop_if_not_finite(step: int, metrics: dict) -> None:
    """Raise NonFiniteLossError naming the losses that are not finite."""
    checked = (*terms_of(metrics), "loss", "gradient_norm")
    bad = [name for name in checked if name in metrics and not math.isfinite(float(metrics[name]))]
    if bad:
        values = ", ".join(f"{name} = {float(metrics[name])}" for name in bad)
        raise NonFiniteLossError(
            f"step {step}: {values}. The training stops; the last checkpoint is kept. Run the same command with "
            "--debug to see the first tensor that is not finite; a lower learning rate or a smaller clip_norm "
            "often cures it."
        )


def format_seconds(seconds: float) -> str:
    """Return a duration as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
