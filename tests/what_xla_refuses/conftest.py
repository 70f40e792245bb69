"""One training step, compiled once for all scenes, and a crowded picture read from files."""

import types

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from what_xla_refuses.support import CANVAS, CLASSES, CRITERION, SCENES, set_class_bias, small_model

from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.devices.placement import compile_step
from tpu_retinamask.training.step import make_train_step


@pytest.fixture(scope="session")
def step():
    """The training step of a small network: `plain` and `compiled`, Batch -> (metrics, {path: gradient})."""
    model = small_model()
    optimizer = keras.optimizers.SGD(0.0)  # the weights stay, so that every scene starts from the same ones
    optimizer.build(model.trainable_variables)
    statistics = BoxStatistics(CRITERION.smooth_l1_beta)
    at_start = {name: variable.numpy() for name, variable in statistics.variables.items()}
    seen = {}
    train_step = make_train_step(model, CRITERION, optimizer, probe=seen.__setitem__, box_statistics=statistics)

    def step_and_gradients(batch):
        for name, variable in statistics.variables.items():
            variable.assign(at_start[name])  # and from the same box loss
        seen.clear()
        metrics = train_step(batch)
        return metrics, {name: value for name, value in seen.items() if name.startswith("gradient of ")}

    return types.SimpleNamespace(model=model, plain=step_and_gradients, compiled=compile_step(step_and_gradients))


@pytest.fixture(scope="session")
def runs(step):
    """Metrics and gradients of every scene, compiled and plain; how often the compiled step was traced."""
    found = {}
    for name, (class_bias, batch) in SCENES.items():
        set_class_bias(step.model, class_bias)
        found[name] = types.SimpleNamespace(
            compiled=tf.nest.map_structure(np.asarray, step.compiled(batch)),
            plain=tf.nest.map_structure(np.asarray, step.plain(batch)),
        )
    return types.SimpleNamespace(scenes=found, traces=step.compiled.experimental_get_tracing_count())


@pytest.fixture
def crowd(tmp_path):
    """Records of a picture of 120 instances and of one without any, read from files as a user has them."""
    labels = np.zeros(CANVAS, np.uint8)
    rows = []
    for number in range(120):
        y, x = 5 * (number // 12) + 2, 5 * (number % 12) + 1
        labels[y : y + 4, x : x + 4] = number + 1
        rows.append(f"crowd.png,{x},{y},{x + 4},{y + 4},c{number % CLASSES},labels.png#{number + 1}")
    random = np.random.default_rng(0)
    for name in ("crowd.png", "bare.png"):
        PIL.Image.fromarray(random.integers(0, 256, (*CANVAS, 3), np.uint8)).save(tmp_path / name)
    PIL.Image.fromarray(labels).save(tmp_path / "labels.png")
    (tmp_path / "train.csv").write_text("\n".join([*rows, "bare.png,,,,,,"]))
    (tmp_path / "classes.csv").write_text("c0,0\nc1,1\nc2,2\n")
    classes = read_classes(str(tmp_path / "classes.csv"))
    return scan_images(read_annotations(str(tmp_path / "train.csv"), classes)).images
