"""The programs that write, at work on one small scene, each in a fork of a process that has imported TensorFlow."""

import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from typing import NamedTuple

import numpy as np
import PIL.Image
from programs.killed_runs import GIN

OUT = "out"  # where each of them writes
PATIENCE = 300.0  # seconds that one may take on a machine that is busy
NETWORK = [
    *GIN,
    "InputPipeline.augmentation = None",
    "InputPipeline.image_size = (64, 64)",
    "train.jit_compile = False",
]
_CSV = ("--annotations=train.csv", "--classes=classes.csv")
_FORMS = "pictures,labelme,label_map,geojson,csv"
_DETECT = ("--model_dir=run", "--gin_param=predict.draw_above = 0.0")


class Writer(NamedTuple):
    """A program, and how it is called."""

    command: tuple[str, ...]
    older: tuple[
        str, ...
    ] = ()  # by which an earlier output came about, over which it writes; none: it writes over none
    compared: tuple[str, ...] = ("*",)  # patterns of the files that are the same in every run


def _train(steps):
    gin = [*NETWORK, f"train.steps = {steps}", "train.checkpoint_every = 1"]
    return ("train", *_CSV, *(f"--gin_param={line}" for line in gin))


WRITERS = {
    "prepare": Writer(("prepare", *_CSV, "--data_dir=out", "--gin_param=prepare.images_per_shard = 1")),
    "convert": Writer(
        ("convert", "coco", "--instances=instances.json", "--images=.", "--output=out/new.csv", "--masks=out/masks",
         "--classes=out/classes.csv"),
        ("convert", "coco", "--instances=instances.json", "--images=.", "--output=out/new.csv", "--masks=out/masks",
         "--classes=out/classes.csv"),
    ),
    "predict": Writer(
        ("predict", "1.png", "2.png", "3.png", *_DETECT, f"--formats={_FORMS}", "--output_dir=out"),
        ("predict", "0.png", "1.png", *_DETECT, "--formats=pictures,labelme,geojson", "--output_dir=out"),
    ),
    "evaluate": Writer(
        ("evaluate", *_CSV, "--model_dir=run", "--metrics=out/metrics.json"),
        ("evaluate", "--annotations=part.csv", "--model_dir=run", "--metrics=out/metrics.json"),
    ),
    "inspect_data": Writer(
        ("inspect_data", *_CSV, "--batches=2", "--output_dir=out", "--gin_param=InputPipeline.image_size = (64, 64)"),
        ("inspect_data", *_CSV, "--batches=3", "--output_dir=out", "--gin_param=InputPipeline.image_size = (96, 96)"),
    ),
    "export": Writer(("export", "--model_dir=run", "--output=out/model.npz", "--format=numpy")),
    "train": Writer(
        (*_train(4), "--model_dir=out"),
        compared=("checkpoints/ckpt-4.data*", "checkpoints/ckpt-4.index", "classes.csv", "settings.json"),
    ),
}  # fmt: skip


class Run:
    """One process of a program."""

    def __init__(self, folder, command) -> None:
        """Start it where one stands in the folder."""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # until it has ended
        self.started, self.code = time.monotonic(), None
        self.pid = os.fork()
        if self.pid == 0:
            _become(folder, command, self._said.fileno())

    def poll(self) -> bool:
        """Tell whether it has ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code, self.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - self.started
        return self.code is not None

    def wait(self, patience: float = PATIENCE) -> bool:
        """Wait for its end; return whether it came."""
        end = time.monotonic() + patience
        while not self.poll():
            if time.monotonic() > end:
                self.kill()
                return False
            time.sleep(0.005)
        return True

    def kill(self) -> None:
        """End it without warning."""
        if not self.poll():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.code = -signal.SIGKILL

    def said(self) -> str:
        """Return what it wrote to the terminal."""
        self._said.seek(0)
        return self._said.read().decode("utf-8", "replace")

    def fault(self) -> str:
        """Return what no program may do, whatever it met: a crash or a traceback; empty: neither."""
        said = self.said()
        if self.code not in (0, 1, 2) or "Traceback (most recent call last)" in said or self.code == 1:
            return f"exit code {self.code}: {said[-1500:]}"
        return ""


def find_at_once() -> None:
    """Put a detector in the network's place that finds two objects in each picture: `predict` and `evaluate` write as
    they do, some seconds earlier. `train` and `export` have their network.
    """
    import tensorflow as tf

    from tpu_retinamask.data.annotations.class_names import ClassNames
    from tpu_retinamask.structures import Detections
    from tpu_retinamask.tasks import inference

    def find(batch):
        images = len(batch.image_id)
        masks = np.tile(np.hypot(*np.mgrid[-1:1:28j, -1:1:28j]) < 0.9, [images, 2, 1, 1])
        return Detections(
            boxes=tf.constant(np.tile([[14.0, 8.0, 30.0, 22.0], [28.0, 16.0, 44.0, 30.5]], [images, 1, 1]), tf.float32),
            scores=tf.constant(np.tile([0.9, 0.6], [images, 1]), tf.float32),
            classes=tf.constant(np.tile([1, 0], [images, 1]), tf.int32),
            masks=tf.constant(masks, tf.float32),
            cut=tf.zeros([images], tf.int32),
        )

    inference.load_model = lambda *args, **kwargs: (None, ClassNames(("disc", "square")))
    inference.make_detector = lambda *args, **kwargs: find


def _become(folder, command, out):
    """Be the program; never returns."""
    code = 1
    try:
        os.chdir(folder)
        os.dup2(out, 1)
        os.dup2(out, 2)
        from tpu_retinamask import cli

        code = cli.main(command)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Scene:
    """Pictures, annotations and a trained model, and the bytes that unbroken runs write of them."""

    def __init__(self, root) -> None:
        """Lay it out in a folder that is this one's."""
        self.root, self.work = root, root / "work"
        shutil.rmtree(root, ignore_errors=True)
        self.work.mkdir(parents=True)
        random, rows = np.random.default_rng(0), []
        for number in range(4):
            pixels = random.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            labels = np.zeros((64, 64), np.uint8)
            for label in range(1, number + 1):
                labels[8 * label : 8 * label + 14, 14 * label : 14 * label + 16] = label
                box = f"{14 * label},{8 * label},{14 * label + 16},{8 * label + 14}"
                rows.append(f"{number}.png,{box},{('disc', 'square')[label % 2]},{number}_labels.png#{label}")
            pixels[labels > 0] = (200, 80, 40)
            PIL.Image.fromarray(pixels).save(self.work / f"{number}.png")
            PIL.Image.fromarray(labels).save(self.work / f"{number}_labels.png")
        rows.append("0.png,,,,,,")
        (self.work / "train.csv").write_text("\n".join(rows) + "\n")
        (self.work / "part.csv").write_text("\n".join(row for row in rows if row.startswith("3")) + "\n")
        (self.work / "classes.csv").write_text("disc,0\nsquare,1\n")
        self.run("convert", "csv", *_CSV, "--output=instances.json")
        self.given = self.files(".")
        self.whole, self.older, self.seconds = {}, {}, {}

    def prepare(self, name) -> None:
        """Let a program run unbroken, where it has not: its bytes, and an earlier output to write over."""
        writer = WRITERS[name]
        if name in self.whole:
            return
        self.clear()
        if "--model_dir=run" in writer.command and not (self.work / "run").exists():
            self.run(*_train(2), "--model_dir=run")
            self.given = self.files(".")
        if writer.older:
            self.run(*writer.older)
            shutil.copytree(self.work / OUT, self.root / "older" / name)
            self.older[name] = self.root / "older" / name
            self.clear()
        started = time.monotonic()
        self.run(*writer.command)
        self.seconds[name] = time.monotonic() - started
        self.whole[name] = self.files(OUT, writer.compared)
        self.clear()

    def start(self, *command) -> Run:
        """Start a program in the scene."""
        return Run(self.work, command)

    def run(self, *command) -> None:
        """Run a program to its end, which has to be a good one."""
        run = self.start(*command)
        if not run.wait() or run.code:
            raise SystemExit(f"{' '.join(command)} ended with {run.code}:\n{run.said()[-3000:]}")

    def clear(self, older=None) -> None:
        """Take away what programs wrote, and lay out an earlier output where one is named."""
        shutil.rmtree(self.work / OUT, ignore_errors=True)
        if older is not None:
            shutil.copytree(self.older[older], self.work / OUT)

    def files(self, folder, patterns=("*",)) -> dict[str, bytes]:
        """Return {name below the folder: content} of files whose names match a pattern."""
        below = self.work / folder
        return {
            str(path.relative_to(below)): path.read_bytes()
            for path in sorted(below.rglob("*"))
            if path.is_file() and any(path.relative_to(below).match(pattern) for pattern in patterns)
        }

    def changed(self) -> list[str]:
        """Return the given files that are no longer what they were."""
        now = {name: content for name, content in self.files(".").items() if not name.startswith(f"{OUT}/")}
        return [name for name, content in self.given.items() if now.get(name) != content]

    def differences(self, name) -> list[str]:
        """Return how the output of a program differs from an unbroken run's."""
        found, whole = self.files(OUT, WRITERS[name].compared), self.whole[name]
        return [
            f"{file}: {'missing' if file not in found else 'left over' if file not in whole else 'other bytes'}"
            for file in sorted(found.keys() | whole.keys())
            if found.get(file) != whole.get(file)
        ]
