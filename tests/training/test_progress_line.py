"""The line of a training, its scalars, and the stop at a loss that is not finite."""

import logging
import math
import os
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tpu_retinamask.errors import NonFiniteLossError
from tpu_retinamask.training.loop import progress as progress_module
from tpu_retinamask.training.loop.progress import Progress, format_seconds, stop_if_not_finite

METRICS = {
    "loss": 1.5,
    "class_loss": 0.25,
    "box_loss": 0.5,
    "mask_loss": 0.75,
    "num_positive": 12.0,
    "gradient_norm": 3.0,
    "learning_rate": 0.002,
}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved: clock.now += 2."""
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress_module, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def lines(caplog):
    """The messages of the project's log."""
    logger = logging.getLogger("tpu_retinamask")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, "tpu_retinamask")
    before, logger.propagate = logger.propagate, False
    yield lambda: [record.getMessage() for record in caplog.records]
    logger.propagate = before
    logger.removeHandler(caplog.handler)


def _progress(folder, **options):
    return Progress(
        str(folder),
        **{"total_steps": 100, "steps_per_epoch": 8, "batch_size": 4, "log_every": 4, "start_step": 0, **options},
    )


def _scalars(folder):
    events = EventAccumulator(os.path.join(str(folder), "events"))
    events.Reload()
    return {
        tag: [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def test_the_line_by_hand(tmp_path, clock, lines):
    progress = _progress(tmp_path)
    clock.now += 60  # compiling
    progress.update(METRICS)
    for _ in range(3):
        clock.now += 2
        progress.update(METRICS, waited=0.5)
    assert lines()[0] == "first step done, compiled in 60 s"
    # 3 steps of 4 images in 6 s are 2 images/s; 96 steps of 2 s are left; a quarter of the time was waiting.
    assert lines()[1:] == [
        "step 4/100  epoch 0.5  loss 1.5000 (class 0.2500  box 0.5000  mask 0.7500)  lr 0.002  "
        "2.0 images/s  input wait 25%  ETA 3:12"
    ]


def _stacked(count, **changes):
    return {name: np.full(count, value, np.float32) for name, value in METRICS.items()} | {
        name: np.array(values, np.float32) for name, values in changes.items()
    }


def test_steps_of_a_loop_are_shown_each_with_its_own_numbers(tmp_path, clock, lines):
    progress = _progress(tmp_path, log_every=2)
    progress.update(METRICS)
    clock.now += 12
    progress.update(_stacked(6, loss=[2, 3, 4, 5, 6, 7]), waited=3.0)
    shown = [line.split("  ") for line in lines() if line.startswith("step")]
    assert [(line[0], line[2].split(" (")[0]) for line in shown] == [
        ("step 2/100", "loss 2.0000"),
        ("step 4/100", "loss 4.0000"),
        ("step 6/100", "loss 6.0000"),
    ]
    # Six steps of four images in 12 s; a quarter of the time was waiting.
    assert all("2.0 images/s" in line and "input wait 25%" in line for line in shown)
    assert _scalars(tmp_path)["train/loss"] == [(2, 2.0), (4, 4.0), (6, 6.0)]


def test_the_first_bad_step_of_a_loop_is_named(tmp_path):
    progress = _progress(tmp_path, start_step=20)
    with pytest.raises(NonFiniteLossError, match="^step 23: mask_loss = nan. "):
        progress.update(_stacked(5, mask_loss=[1, 1, math.nan, 1, math.nan]))


def test_the_last_step_is_shown_too(tmp_path, clock, lines):
    progress = _progress(tmp_path, total_steps=6, start_step=3)
    for _ in range(3):
        clock.now += 1
        progress.update(METRICS)
    shown = [line.split("  ")[0] for line in lines() if line.startswith("step")]
    assert shown == ["step 4/6", "step 6/6"]
    assert lines()[-1].endswith("ETA 0:00")


def test_scalars_are_readable(tmp_path, clock):
    progress = _progress(tmp_path, start_step=20)
    for _ in range(8):
        clock.now += 2
        progress.update(METRICS)
    progress.write_scalars({"val/mask_ap50": 0.625, "val/none": None, "val/nan": float("nan")})
    found = _scalars(tmp_path)
    assert found["train/class_loss"] == [(24, 0.25), (28, 0.25)]
    assert found["train/images_per_second"] == [(24, 2.0), (28, 2.0)]
    assert {f"train/{name}" for name in (*METRICS, "images_per_second", "boxes_dropped", "mask_rois_overflow")} | {
        "val/mask_ap50"
    } == set(found)
    assert found["val/mask_ap50"] == [(28, 0.625)]


def test_what_is_left_out_is_summed_between_lines_and_told(tmp_path, clock, lines):
    progress = _progress(tmp_path)
    for step in range(12):
        clock.now += 1
        dropped = {0: 3.0, 2: 4.0, 9: 1.0}.get(step, 0.0)
        progress.update(METRICS | {"boxes_dropped": dropped, "mask_rois_overflow": 2.0})
        if step == 5:
            progress.write_scalars({"val/mask_ap50": 0.5})
    shown = [line for line in lines() if line.startswith("step")]
    assert [line.partition("ETA ")[2].partition("  ")[2] for line in shown] == [
        "7 boxes beyond max_instances",
        "",
        "1 boxes beyond max_instances",
    ]
    assert _scalars(tmp_path)["train/boxes_dropped"] == [(4, 7.0), (8, 0.0), (12, 1.0)]
    assert _scalars(tmp_path)["train/mask_rois_overflow"] == [(4, 8.0), (8, 8.0), (12, 8.0)]
    assert progress.boxes_dropped == 8


def test_an_evaluation_does_not_slow_the_rate(tmp_path, clock, lines):
    progress = _progress(tmp_path, start_step=4)
    for step in range(8):
        clock.now += 2
        progress.update(METRICS)
        if step == 3:
            clock.now += 1000
            progress.write_scalars({"val/mask_ap50": 0.5})
    assert "  2.0 images/s" in lines()[-1]


@pytest.mark.parametrize("name", ["class_loss", "box_loss", "mask_loss", "gradient_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("step", [1, 2, 4])  # the first, between lines, at a line
def test_a_loss_that_is_not_finite_stops_by_name(tmp_path, name, value, step):
    progress = _progress(tmp_path)
    for _ in range(step - 1):
        progress.update(METRICS)
    with pytest.raises(NonFiniteLossError) as caught:
        progress.update(METRICS | {name: value})
    message = str(caught.value)
    assert message.startswith(f"step {step}: {name} = {value}. ")
    assert "--debug" in message and "checkpoint" in message
    others = {"class_loss", "box_loss", "mask_loss", "gradient_norm"} - {name}
    assert not any(other in message for other in others)


def test_all_bad_losses_are_named():
    bad = METRICS | {"mask_loss": float("nan"), "loss": float("nan")}
    with pytest.raises(NonFiniteLossError, match="^step 9: mask_loss = nan, loss = nan. "):
        stop_if_not_finite(9, bad)
    stop_if_not_finite(9, METRICS)


def test_durations_are_readable():
    assert [format_seconds(s) for s in (0, 59.6, 61, 3600, 36061)] == ["0:00", "1:00", "1:01", "1:00:00", "10:01:01"]


def test_pictures_spreads_and_texts_are_there_for_tensorboard(tmp_path):
    progress = _progress(tmp_path, start_step=8)
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    progress.write_texts({"config.gin": "a = 1\nb = 2"})
    progress.write_seen({"val/picture_0": picture}, {"val/scores": np.array([0.25, 0.75]), "val/none": np.zeros(0)})
    events = EventAccumulator(os.path.join(str(tmp_path), "events"))
    events.Reload()
    found = {}
    for tag in events.Tags()["tensors"]:
        (event,) = events.Tensors(tag)
        assert event.step == 8
        found[tag] = tf.make_ndarray(event.tensor_proto)
    assert found["config.gin"].item().decode() == "    a = 1\n    b = 2\n"
    height, width, png = found["val/picture_0"]  # TensorBoard has the width first
    assert (int(height), int(width)) == (6, 4)
    np.testing.assert_array_equal(tf.io.decode_png(png).numpy(), picture)
    assert found["val/scores"][:, 2].sum() == 2 and found["val/scores"][0, 0] == pytest.approx(0.25)
    assert found["val/none"].sum() == 0


def test_without_a_folder_nothing_is_written_and_nothing_raised(tmp_path):
    progress = Progress(None, total_steps=9, steps_per_epoch=8, batch_size=4, log_every=4, start_step=0)
    progress.write_texts({"a": "b"})
    progress.write_seen({"p": np.zeros((2, 2, 3), np.uint8)}, {"v": np.ones(3)})
    progress.write_scalars({"s": 1.0})
