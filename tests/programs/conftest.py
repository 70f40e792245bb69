"""A tiny data set of coloured shapes, and the programs run on it as a user runs them."""

import shutil
import signal
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

COLOURS = {"disc": (220, 60, 40), "square": (40, 90, 230)}
IMAGES = {
    "one": ["disc"],
    "two": ["square", "disc"],
    "three": ["disc", "disc", "square"],
    "none": [],
    "four": ["square"],
    "wide": ["square", "disc"],
}

# A network whose step compiles in seconds, on a canvas of 128 pixels. Its convolutions have 16 channels: where a
# step runs uncompiled, oneDNN crashes in the gradient of a 1x1 convolution of stride 2 on 8 channels (TensorFlow
# 2.21 on a CPU without AVX-512).
TINY = [
    "RetinaMask.backbone = 'small'",
    "RetinaMask.backbone_options = {'widths': (16, 16, 16, 16, 16), 'blocks': (1, 1, 1, 1)}",
    "RetinaMask.normalization = 'batch'",
    "RetinaMask.pixel_mode = 'torch'",
    "RetinaMask.anchor_sizes = (24, 48, 96)",
    "RetinaMask.anchor_scales = (1.0,)",
    "RetinaMask.fpn_channels = 16",
    "RetinaMask.head_channels = 16",
    "RetinaMask.head_depth = 1",
    "RetinaMask.head_initializer = 'he_normal'",
    "RetinaMask.mask_channels = 16",
    "RetinaMask.mask_depth = 1",
    "InputPipeline.image_size = (128, 128)",
    "InputPipeline.max_instances = 4",
    "InputPipeline.mask_size = 28",
    "Criterion.mask_rois = 6",
    "Criterion.mask_rois_from_detections = 2",
    "RetinaMask.roi_size = 7",
    "make_optimizer.name = 'adamw'",
    "make_optimizer.learning_rate = 0.01",
    "make_optimizer.decay = 'cosine'",
]


def _picture(random, shapes, height, width):
    image = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
    labels = np.zeros((height, width), np.uint8)
    y, x = np.mgrid[:height, :width]
    for number, shape in enumerate(shapes, start=1):
        left, top, side = 4 + (number - 1) * 20, 6 + 7 * number, 16
        inside = (x >= left) & (x < left + side) & (y >= top) & (y < top + side)
        if shape == "disc":
            inside = (x - left - 7.5) ** 2 + (y - top - 7.5) ** 2 <= 64
        image[inside], labels[inside] = COLOURS[shape], number
    return image, labels


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Folder with images, label maps, train.csv, val.csv and classes.csv."""
    folder = tmp_path_factory.mktemp("shapes")
    random = np.random.default_rng(0)
    rows = []
    for name, found in IMAGES.items():
        image, labels = _picture(random, found, 64, 96 if name == "wide" else 64)
        PIL.Image.fromarray(image).save(folder / f"{name}.png")
        PIL.Image.fromarray(labels).save(folder / f"{name}_labels.png")
        for number, shape in enumerate(found, start=1):
            ys, xs = np.nonzero(labels == number)
            box = f"{xs.min()},{ys.min()},{xs.max() + 1},{ys.max() + 1}"
            rows.append(f"{name}.png,{box},{shape},{name}_labels.png#{number}")
        if not found:
            rows.append(f"{name}.png,,,,,,")
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    (folder / "val.csv").write_text("\n".join(row for row in rows if row.startswith(("two", "wide", "none"))) + "\n")
    (folder / "classes.csv").write_text("disc,0\nsquare,1\n")
    return folder


def _command(program, *flags, gin=()):
    return [
        sys.executable,
        "-m",
        f"tpu_retinamask.{program}",
        *map(str, flags),
        *(f"--gin_param={line}" for line in gin),
    ]


@pytest.fixture(scope="session")
def program(tmp_path_factory, program_environment):
    """Run a program to its end: program("train", flag, ..., gin=[...]) -> CompletedProcess with text output."""
    folder = tmp_path_factory.mktemp("elsewhere")  # not the checkout: nothing may depend on where one stands

    def run(name, *flags, gin=()):
        return subprocess.run(
            _command(name, *flags, gin=gin),
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            env=program_environment,
        )

    def kill_at(words, *command, gin=()):
        """Start a program and kill it, without warning, when it says these words; return all that it said."""
        process = subprocess.Popen(
            _command(*command, gin=gin), cwd=folder, stderr=subprocess.PIPE, text=True, env=program_environment
        )
        seen = []
        for line in process.stderr:
            seen.append(line)
            if words in line:
                process.kill()
                break
        seen.append(process.stderr.read())
        assert process.wait() == -signal.SIGKILL, "".join(seen)[-2000:]
        return "".join(seen)

    run.command, run.folder, run.environment, run.kill_at = _command, folder, program_environment, kill_at
    return run


STEPS, EVERY = 150, 50


def train_flags(shapes, model_dir):
    """Flags of the training that all tests share."""
    return (f"--annotations={shapes}/train.csv", f"--classes={shapes}/classes.csv", f"--model_dir={model_dir}")


def saved_numbers(model_dir, step):
    """Return every variable of a checkpoint by name."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(f"{model_dir}/checkpoints/ckpt-{step}")
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("VARIABLE_VALUE")]
    return {name: reader.get_tensor(name) for name in names if "save_counter" not in name}


def as_of_step(step, model_dir, folder):
    """Copy a run as it was at a step."""
    shutil.copytree(model_dir, folder)
    for path in (folder / "checkpoints").glob("ckpt-*"):
        if int(path.name.split("-")[1].split(".")[0]) > step:
            path.unlink()
    return folder


TRAINING = TINY + [
    f"train.steps = {STEPS}",
    "train.batch_size = 2",
    f"train.checkpoint_every = {EVERY}",
    "train.log_every = 1",
]


@pytest.fixture(scope="session")
def trained(shapes, program, tmp_path_factory):
    """A run of STEPS steps without interruption: (model directory, its process)."""
    model_dir = tmp_path_factory.mktemp("runs") / "whole"
    done = program("train", *train_flags(shapes, model_dir), f"--val_annotations={shapes}/val.csv", gin=TRAINING)
    assert done.returncode == 0, done.stderr[-3000:]
    return model_dir, done


@pytest.fixture(scope="session")
def training(shapes):
    """What the shared training is: steps, gin settings, and the flags for a model directory."""

    class Training:
        steps, gin = STEPS, TRAINING

        @staticmethod
        def flags(model_dir):
            return train_flags(shapes, model_dir)

    return Training
