"""The line of a training, its scalars, and the stop at a loss that is not finite."""

import logging
import os
import types

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tpu_retinamask.training import progress as progress_module
from tpu_retinamask.training.loop import run_training
from tpu_retinamask.training.progress import NonFiniteLossError, Progress, format_seconds, stop_if_not_finite

METRICS = {"loss": 1.5, "class_loss": 0.25, "box_loss": 0.5, "mask_loss": 0.75, "num_positive": 12.0,
           "gradient_norm": 3.0, "learning_rate": 0.002}


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
    return Progress(str(folder), **{"total_steps": 100, "steps_per_epoch": 8, "batch_size": 4, "log_every": 4,
                                    "start_step": 0, **options})


def _scalars(folder):
    events = EventAccumulator(os.path.join(str(folder), "events"))
    events.Reload()
    return {tag: [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
            for tag in events.Tags()["tensors"]}


def test_the_line_by_hand(tmp_path, clock, lines):
    progress = _progress(tmp_path)
    clock.now += 60  # compiling
    progress.update(METRICS)
    for _ in range(3):
        clock.now += 2
        progress.waited(0.5)
        progress.update(METRICS)
    assert lines()[0] == "first step done, compiled in 60 s"
    # 3 steps of 4 images in 6 s are 2 images/s; 96 steps of 2 s are left; a quarter of the time was waiting.
    assert lines()[1:] == ["step 4/100  epoch 0.5  loss 1.5000 (class 0.2500  box 0.5000  mask 0.7500)  lr 0.002  "
                           "2.0 images/s  input wait 25%  ETA 3:12"]


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
    assert {f"train/{name}" for name in METRICS} | {"train/images_per_second", "val/mask_ap50"} == set(found)
    assert found["val/mask_ap50"] == [(28, 0.625)]


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


class _State:
    """Counts saves instead of writing."""

    def __init__(self):
        self.step, self.saved = 0, []

    def save(self):
        self.saved.append(self.step)
        return f"ckpt-{self.step}"


def _loop(folder, metrics_of, total_steps=10, **options):
    state = _State()

    def step(batch):
        state.step += 1
        return METRICS | metrics_of(batch)

    batches = iter(range(1, 100))
    progress = _progress(folder, total_steps=total_steps)
    try:
        run_training(step, batches, state, progress, total_steps=total_steps, checkpoint_every=3, **options)
    except NonFiniteLossError as error:
        return state, error
    return state, None


def test_the_loop_saves_every_so_often_and_at_the_end(tmp_path):
    state, error = _loop(tmp_path, lambda batch: {})
    assert (state.saved, error) == ([3, 6, 9, 10], None)


def test_the_loop_evaluates_every_so_often_and_at_the_end(tmp_path):
    asked = []
    _loop(tmp_path, lambda batch: {}, evaluate=lambda: asked.append(1) or {"val/a": len(asked) / 4}, evaluate_every=4)
    assert _scalars(tmp_path)["val/a"] == [(4, 0.25), (8, 0.5), (10, 0.75)]


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_a_spoilt_step_is_never_saved(tmp_path, name):
    # Step 6 would be saved: with a gradient that is not finite its weights are spoilt, though its loss was sound.
    state, error = _loop(tmp_path, lambda batch: {name: float("nan")} if batch == 6 else {})
    assert state.saved == [3]
    assert str(error).startswith(f"step 6: {name} = nan")


def test_durations_are_readable():
    assert [format_seconds(s) for s in (0, 59.6, 61, 3600, 36061)] == ["0:00", "1:00", "1:01", "1:00:00", "10:01:01"]
