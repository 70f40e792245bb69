r"""Kills one training again and again at random moments, and compares what becomes of it with a run left alone.

  python tests/programs/killed_runs.py --kills=25 --folder=/tmp/killed > output.txt

Every life is the same command in a fork of a process that has imported TensorFlow, ended by SIGKILL: some at any time
from the start on, some between or within steps, some as soon as a file of a checkpoint that is being saved is seen. A
last life runs to the end. Then every number of the last checkpoint (weights, optimizer, average of the weights,
statistics of the box loss) is compared with the unbroken run's, bit for bit. Exits with 1 where a number differs or a
life lost more than the interval between two checkpoints.
"""

import argparse
import os
import pathlib
import random
import re
import runpy
import select
import shutil
import signal
import sys
import time

import numpy as np

NUCLEI = pathlib.Path(__file__).resolve().parents[2] / "examples" / "nuclei"
IMAGES = 3
GIN = [
    "RetinaMask.backbone = 'small'",
    "RetinaMask.backbone_options = {'widths': (16, 16, 16, 16, 16), 'blocks': (1, 1, 1, 1)}",
    "RetinaMask.normalization = 'batch'",
    "RetinaMask.pixel_mode = 'torch'",
    "RetinaMask.anchor_sizes = (14, 28, 56)",
    "RetinaMask.anchor_scales = (1.0,)",
    "RetinaMask.fpn_channels = 16",
    "RetinaMask.head_channels = 16",
    "RetinaMask.head_depth = 1",
    "RetinaMask.head_initializer = 'he_normal'",
    "RetinaMask.mask_channels = 16",
    "RetinaMask.mask_depth = 1",
    "RetinaMask.roi_size = 7",
    "InputPipeline.image_size = (128, 128)",
    "InputPipeline.max_instances = 16",
    "InputPipeline.mask_size = 28",
    "InputPipeline.augmentation = @Augmentation()",
    "Augmentation.horizontal_flip = 0.5",
    "Augmentation.rot90 = 1.0",
    "Augmentation.brightness = 0.1",
    "Criterion.box_loss = 'self_adjusting'",
    "Criterion.mask_rois = 6",
    "Criterion.mask_rois_from_detections = 2",
    "make_optimizer.name = 'sgd'",
    "make_optimizer.learning_rate = 0.005",
    "make_optimizer.decay = 'cosine'",
    "train.batch_size = 2",
    "train.accumulate_steps = 2",
    "train.average_decay = 0.99",
    "train.log_every = 1",
]


def write_annotations(folder):
    """Write a CSV of the first images of examples/nuclei."""
    rows = (NUCLEI / "train.csv").read_text().splitlines()
    images = list(dict.fromkeys(row.split(",")[0] for row in rows))[:IMAGES]
    lines = []
    for row in rows:
        cells = row.split(",")
        if cells[0] in images:
            cells[0], cells[6] = f"{NUCLEI}/{cells[0]}", f"{NUCLEI}/{cells[6]}"
            lines.append(",".join(cells))
    (folder / "train.csv").write_text("\n".join(lines) + "\n")


class Life:
    """One process of the training."""

    def __init__(self, folder, model_dir, steps, every, runtime):
        """Start it."""
        self.checkpoints = model_dir / "checkpoints"
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(writer, 2)
            sys.argv = [
                "train",
                f"--annotations={folder}/train.csv",
                f"--classes={NUCLEI}/classes.csv",
                f"--model_dir={model_dir}",
                *(f"--gin_param={line}" for line in GIN),
                f"--gin_param=train.steps = {steps}",
                f"--gin_param=train.checkpoint_every = {every}",
                f"--runtime={runtime}",
                f"--cache_dir={folder}/compiled",
            ]
            runpy.run_module("tpu_retinamask.train", run_name="__main__", alter_sys=True)
            os._exit(0)
        os.close(writer)
        self.reader, self.text, self.started, self.status = reader, "", time.monotonic(), None

    def watch(self, until, pause=0.001):
        """Look at it again and again until `until(self)` is true or it ends; return whether it still lives."""
        while self.status is None:
            if select.select([self.reader], [], [], pause)[0]:
                self.text += os.read(self.reader, 1 << 16).decode()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
                self._read_on()
            elif until(self):
                return True
        return False

    def kill(self):
        """End it without warning."""
        os.kill(self.pid, signal.SIGKILL)
        self.status = os.waitpid(self.pid, 0)[1]
        self._read_on()

    def _read_on(self):
        while more := os.read(self.reader, 1 << 16):
            self.text += more.decode()

    @property
    def resumed_at(self):
        """Step it went on from; None if it did not come so far."""
        found = re.findall(r"resuming at step (\d+)", self.text)
        return int(found[0]) if found else 0 if self.step else None

    @property
    def step(self):
        """Last step it showed, or None."""
        found = re.findall(r" step (\d+)/", self.text)
        return int(found[-1]) if found else None

    def saving(self):
        """Return the step whose checkpoint is unfinished in its directory, or None."""
        try:
            names = os.listdir(self.checkpoints)
        except FileNotFoundError:
            return None
        found = {int(match[1]) for name in names if (match := re.match(r"ckpt-(\d+)[._]", name))}
        return max((step for step in found if f"ckpt-{step}.manifest.json" not in names), default=None)


def kill_once(folder, model_dir, steps, every, runtime, chance, kind, horizon, last, life_seconds):
    """Live once and die; return the life and what was told of its end."""
    before = Life.saving(argparse.Namespace(checkpoints=model_dir / "checkpoints"))
    life = Life(folder, model_dir, steps, every, runtime)
    if kind == "any time":
        seconds = chance.uniform(0.0, life_seconds)
        furthest = last + horizon  # where the process is fast, the training must not end before its last life
        lives = life.watch(lambda life: time.monotonic() - life.started > seconds or (life.step or 0) >= furthest)
    else:
        lives = life.watch(lambda life: life.step is not None)
        goal, delay = (life.step or 0) + chance.randrange(horizon), chance.uniform(0.0, 0.3)
        lives = lives and life.watch(lambda life: life.step >= goal)
        if kind == "saving":
            lives = lives and life.watch(lambda life: life.saving() not in (None, before), pause=0.0)
            delay = chance.uniform(0.0, 0.05)
        if lives:
            end = time.monotonic() + delay
            lives = life.watch(lambda life: time.monotonic() > end, pause=0.0)
    if not lives:
        raise SystemExit(f"it ended by itself, {life.status}:\n{life.text[-3000:]}")
    life.kill()
    unfinished = life.saving()
    return life, f"inside the save of step {unfinished}" if unfinished not in (None, before) else "not saving"


def numbers(model_dir, tf):
    """Return every number of the last checkpoint."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(model_dir / "checkpoints")))
    return {
        name: np.asarray(reader.get_tensor(name))
        for name in reader.get_variable_to_shape_map()
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


def main():
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where the runs go; emptied first")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--every", type=int, default=4, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--runtime", default="tensorflow")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    write_annotations(options.folder)
    import tensorflow as tf

    def say(text):
        print(text, flush=True)

    whole = Life(options.folder, options.folder / "whole", options.steps, options.every, options.runtime)
    whole.watch(lambda life: False, pause=1.0)
    if whole.status:
        raise SystemExit(whole.text[-3000:])
    seconds = time.monotonic() - whole.started
    say(f"unbroken run: {options.steps} steps, a checkpoint every {options.every}")

    chance, killed, last, faults, counts = random.Random(options.seed), options.folder / "killed", 0, 0, {}
    kinds = (["saving", "any time", "step"] * options.kills)[: options.kills]
    chance.shuffle(kinds)
    for number, kind in enumerate(kinds, 1):
        horizon = max(1, round(1.6 * (options.steps - 2 * options.every - last) / (options.kills - number + 1)))
        life, end = kill_once(
            options.folder,
            killed,
            options.steps,
            options.every,
            options.runtime,
            chance,
            kind,
            horizon,
            last,
            seconds / 2,
        )
        lost = last - life.resumed_at if life.resumed_at is not None else None
        faults += lost is not None and lost > options.every
        counts[end.split(" of ")[0]] = counts.get(end.split(" of ")[0], 0) + 1
        begun = "killed before it resumed" if lost is None else f"resumed at {life.resumed_at:3d} ({lost} steps lost)"
        say(f"kill {number:2d} ({kind:8}): {begun}, killed after step {life.step}, {end}")
        last = life.step if life.step is not None else last
    final = Life(options.folder, killed, options.steps, options.every, options.runtime)
    final.watch(lambda life: False, pause=1.0)
    lost = last - (final.resumed_at or 0)
    faults += lost > options.every or final.status != 0
    say(f"last life: resumed at {final.resumed_at} ({lost} steps lost), ended with status {final.status}")

    one, two = numbers(options.folder / "whole", tf), numbers(killed, tf)
    different = [
        name
        for name in one.keys() | two.keys()
        if name not in one or name not in two or one[name].tobytes() != two[name].tobytes()
    ]
    parts = {
        part: sum(name.startswith(f"{part}/") for name in one) for part in sorted({name.split("/")[0] for name in one})
    }
    say(f"{options.kills} kills: " + ", ".join(f"{count} {end}" for end, count in sorted(counts.items())))
    say(
        f"{len(one)} variables compared bit for bit ({', '.join(f'{n} {p}' for p, n in parts.items())}): "
        f"{len(different)} differ {sorted(different)[:5] or ''}"
    )
    sys.exit(bool(different or faults))


if __name__ == "__main__":
    main()
