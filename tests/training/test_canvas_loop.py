"""Steps of several canvases: the loop that is due is asked, in order, and all that it gave is kept."""

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.structures import Batch
from tpu_retinamask.training.loop.canvas_loop import CanvasLoop
from tpu_retinamask.training.loop.device_loop import LoopResult

ROUND = [0, 0, 1, 0, 2]


class Loop:
    """Counts its own steps: the loss of step k of part p is 10 p + k."""

    def __init__(self, part, asked):
        self.part, self.asked, self.made, self.settled = part, asked, 0, 0

    def __call__(self, count):
        self.asked.append((self.part, count))
        self.made += count
        losses = 10.0 * self.part + np.arange(self.made - count, self.made)
        return LoopResult({"loss": losses.astype(np.float32)}, 0.5 * count)

    def settle(self):
        self.settled += 1


def test_each_step_is_of_the_canvas_that_is_due_however_many_are_made_at_once():
    asked = []
    loops = [Loop(part, asked) for part in range(3)]
    loop = CanvasLoop(loops, lambda step: ROUND[step % len(ROUND)])
    first = loop(4)
    assert asked == [(0, 2), (1, 1), (0, 1)]
    assert first.metrics["loss"].tolist() == [0.0, 1.0, 10.0, 2.0] and first.waited == 2.0
    loop.settle()
    assert [one.settled for one in loops] == [1, 1, 0]  # nothing was done on the third
    asked.clear()
    assert loop(4).metrics["loss"].tolist() == [20.0, 3.0, 4.0, 11.0]
    assert asked == [(2, 1), (0, 2), (1, 1)]


def test_pjrt_has_a_program_for_each_canvas_and_one_state(tmp_path):
    pytest.importorskip("jax", reason="NO JAX: Python 3.10 has none that is supported")
    from tpu_retinamask.training.runtimes.pjrt_runtime import PjrtRuntime, PjrtStep

    runtime = PjrtRuntime(cache_dir=str(tmp_path))
    total, steps = tf.Variable(0.0), tf.Variable(0.0)

    def train_step(batch):
        # Read in another order by the second program, as its trace may have it.
        counted = [(steps, 1.0), (total, tf.reduce_sum(tf.cast(batch.image, tf.float32)))]
        for variable, value in counted if batch.image.shape[2] == 4 else counted[::-1]:
            variable.assign_add(value)
        return {"loss": total + 0.0}

    def batch(width):
        fields = [np.ones((1, 4, width, 3), np.uint8), *(np.zeros((1, 2), np.int32) for _ in Batch._fields[1:])]
        return [runtime._devices.share(field) for field in fields]

    step = PjrtStep(runtime, train_step)
    losses = [float(np.asarray(step(batch(width))["loss"][0])) for width in (4, 8, 8, 4)]
    assert losses == [48.0, 144.0, 240.0, 288.0]
    step.store()
    assert (total.numpy(), steps.numpy()) == (288.0, 4.0)
