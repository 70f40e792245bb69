"""Trains in loops that do nothing, saves and scores on a small disk that is full for a while; run by a test.

Takes the disk's directory. Prints what was refused before the training, then the steps saved at its end.
"""

import logging
import os
import sys

import numpy as np
import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.training.checkpoints.disk_room import require_room
from tpu_retinamask.training.checkpoints.files import CheckpointFiles
from tpu_retinamask.training.loop.device_loop import LoopResult
from tpu_retinamask.training.loop.history import SCORE, History
from tpu_retinamask.training.loop.outer_loop import run_training
from tpu_retinamask.training.loop.progress import Progress

logging.basicConfig(level=logging.ERROR)
disk = sys.argv[1]
run, filler = os.path.join(disk, "run"), os.path.join(disk, "filler")
METRICS = dict.fromkeys(("loss", "class_loss", "box_loss", "mask_loss", "gradient_norm", "learning_rate"), 1.0)


class State:
    """Saves a megabyte."""

    checkpoint = tf.train.Checkpoint(part={"number": tf.Variable(tf.zeros([250_000]))})
    files, best = CheckpointFiles(f"{run}/checkpoints", 3), CheckpointFiles(f"{run}/best", 1)

    def save(self):
        """Save the step."""
        return self.files.write(self.checkpoint, progress.step)

    def save_best(self, score):
        """Take every score for the best."""
        return self.best.write(self.checkpoint, progress.step, {"score": score})


def loop(count):
    """Fill the disk before step 5 and empty it before step 9."""
    if progress.step == 4:
        with open(filler, "wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                pass
    if progress.step == 8:
        os.remove(filler)
    return LoopResult({name: np.full(count, value) for name, value in METRICS.items()}, 0.0)


loop.settle = lambda: None  # there are no variables


try:
    require_room(run, 40_000_000)
except UserError as error:
    print("refused:", error)
progress = Progress(run, total_steps=12, steps_per_epoch=4, batch_size=1, log_every=1, start_step=0)
run_training(
    loop,
    State(),
    progress,
    checkpoint_every=2,
    history=History(run),
    evaluate_every=3,
    evaluate=lambda: {SCORE: progress.step / 12},
)
print(
    "kept:",
    *(
        sorted(int(name.split(".")[0][5:]) for name in os.listdir(folder) if name.endswith(".index"))
        for folder in (f"{run}/checkpoints", f"{run}/best")
    ),
)
