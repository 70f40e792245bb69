"""What a user's code is told of a training, one that fails, and the file of lines that goes on after a kill."""

import json
import logging
import pathlib
import re
import sys
import types

import numpy as np
import pytest

from tpu_retinamask.errors import SettingError
from tpu_retinamask.training.loop.callbacks import CALLBACKS, Callback, Callbacks, Run


@pytest.fixture
def run(tmp_path):
    return Run(str(tmp_path), 0, 10, {"config.gin": "train.steps = 10\n"})


@pytest.fixture
def named(monkeypatch):
    """Give a callback a name for one test."""

    def name_it(name, callback):
        monkeypatch.setitem(CALLBACKS._things, name, callback)
        return name

    return name_it


class Notes(Callback):
    def __init__(self, run):
        super().__init__(run)
        self.run_seen, self.told = run, []
        Notes.last = self

    def on_step(self, step, metrics):
        self.told.append(("step", step, metrics))

    def on_evaluation(self, step, scores):
        self.told.append(("evaluation", step, scores))

    def on_save(self, step, path):
        self.told.append(("save", step, path))

    def on_end(self):
        self.told.append(("end",))


def test_steps_of_a_loop_are_told_one_by_one_each_with_its_own_numbers(named, run):
    callbacks = Callbacks([named("notes", Notes)], run)
    callbacks.steps(3, {"loss": np.array([3.0, 2.0, 1.0]), "learning_rate": np.array([0.1, 0.2, 0.3])})
    callbacks.steps(4, {"loss": np.float32(0.5), "learning_rate": 0.25})
    callbacks.evaluated(4, {"val/segm/AP": None})
    callbacks.saved(4, "ckpt-4")
    callbacks.close()
    assert Notes.last.run is run
    assert Notes.last.told == [
        ("step", 1, {"loss": 3.0, "learning_rate": 0.1}),
        ("step", 2, {"loss": 2.0, "learning_rate": 0.2}),
        ("step", 3, {"loss": 1.0, "learning_rate": 0.3}),
        ("step", 4, {"loss": 0.5, "learning_rate": 0.25}),
        ("evaluation", 4, {"val/segm/AP": None}),
        ("save", 4, "ckpt-4"),
        ("end",),
    ]


@pytest.mark.parametrize("method", ["__init__", "on_step", "on_evaluation", "on_save", "on_end"])
def test_one_that_fails_is_told_of_once_and_costs_the_others_nothing(named, run, caplog, method):
    def fail(self, *arguments):
        raise ConnectionError("no network")

    broken = type("Broken", (Callback,), {method: fail})
    caplog.set_level(logging.ERROR)
    callbacks = Callbacks([named("broken", broken), named("notes", Notes)], run)
    for _ in range(2):
        callbacks.steps(1, {"loss": 1.0})
        callbacks.evaluated(1, {})
        callbacks.saved(1, "ckpt-1")
        callbacks.close()
    assert len(Notes.last.told) == 8
    assert len(caplog.messages) == 1
    assert "callback 'broken' failed at " in caplog.messages[0] and "test_callbacks.py, line" in caplog.messages[0]
    assert caplog.messages[0].endswith("ConnectionError: no network. It is told nothing more; the training goes on")


def test_ctrl_c_is_no_failure_of_a_callback(named, run):
    def stop(self, *arguments):
        raise KeyboardInterrupt

    callbacks = Callbacks([named("stop", type("Stop", (Callback,), {"on_step": stop}))], run)
    with pytest.raises(KeyboardInterrupt):
        callbacks.steps(1, {"loss": 1.0})


def test_a_name_that_there_is_not_is_refused():
    with pytest.raises(SettingError, match=r"callback 'json' is not one of .*did you mean 'jsonl'"):
        Callbacks(["json"])


def _lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]


def test_a_line_a_step_and_a_line_an_evaluation(run, tmp_path):
    callbacks = Callbacks(["jsonl"], run)
    callbacks.steps(2, {"loss": [2.5, 1.5], "mask_loss": [float("nan"), 0.5]})
    callbacks.evaluated(2, {"val/segm/AP": 0.25, "val/segm/APs": None})
    assert _lines(tmp_path) == [
        {"step": 1, "loss": 2.5, "mask_loss": None},
        {"step": 2, "loss": 1.5, "mask_loss": 0.5},
        {"step": 2, "val/segm/AP": 0.25, "val/segm/APs": None},
    ]


def test_lines_of_steps_that_come_again_are_written_once(run, tmp_path):
    Callbacks(["jsonl"], run).steps(4, {"loss": [4.0, 3.0, 2.0, 1.0]})
    with open(tmp_path / "steps.jsonl", "ab") as file:
        file.write(b'{"step": 1, "lo\xff')  # a kill in the middle of a line
    again = Callbacks(["jsonl"], run._replace(first_step=2))
    again.steps(4, {"loss": [3.0, 2.0]})
    assert [(row["step"], row["loss"]) for row in _lines(tmp_path)] == [(1, 4.0), (2, 3.0), (3, 3.0), (4, 2.0)]
    assert [path.name for path in tmp_path.iterdir()] == ["steps.jsonl"]


PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "watching.md").read_text()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_the_trackers_of_the_page_are_called_as_their_documentation_says(run, monkeypatch, name):
    (text,) = re.findall(rf"```python\n(# track_{name}.py.*?)```", PAGE, re.DOTALL)
    assert len(text.split("\n\n\n")[1].strip().splitlines()) <= 20
    calls = []

    def noted(called):
        return lambda *arguments, **options: calls.append((called, arguments, options))

    methods = ("init", "log", "finish", "start_run", "log_text", "log_metrics", "end_run")
    tracker = types.SimpleNamespace(**{method: noted(method) for method in methods})
    tracker.config = types.SimpleNamespace(update=noted("config.update"))
    monkeypatch.setitem(sys.modules, name, tracker)
    monkeypatch.setattr(CALLBACKS, "_things", dict(CALLBACKS._things))
    exec(text, {"__name__": f"track_{name}"})
    callbacks = Callbacks([name], run)
    callbacks.steps(1, {"loss": 2.0})
    callbacks.evaluated(1, {"val/segm/AP": 0.5, "val/segm/APs": None})
    callbacks.close()
    if name == "wandb":
        assert [call[0] for call in calls] == ["init", "config.update", "log", "log", "finish"]
        assert calls[2:4] == [
            ("log", ({"loss": 2.0},), {"step": 1}),
            ("log", ({"val/segm/AP": 0.5, "val/segm/APs": None},), {"step": 1}),
        ]
    else:
        assert [call[0] for call in calls] == ["start_run", "log_text", "log_metrics", "log_metrics", "end_run"]
        assert calls[3] == ("log_metrics", ({"val.segm.AP": 0.5},), {"step": 1})
