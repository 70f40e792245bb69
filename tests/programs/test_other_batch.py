"""A run that is resumed with another batch: its epochs go on, and no step is unmade."""

import json
import re

import pytest


@pytest.fixture(scope="module")
def resumed(training, quick_program, tmp_path_factory):
    """What three lives of a run on 6 images say: 3 steps of 2, on to step 5 by 6, then to 3 epochs by 6."""
    folder = tmp_path_factory.mktemp("resumed")
    said = []
    for length in (
        ["train.steps = 3", "train.batch_size = 2"],
        ["train.steps = 5", "train.batch_size = 6"],
        ["train.steps = None", "train.epochs = 3", "train.batch_size = 6"],
        ["train.steps = None", "train.epochs = 4", "train.batch_size = 6"],
    ):
        quick = ["train.jit_compile = False", "train.log_every = 1"]
        done = quick_program("train", *training.flags(folder), gin=[*training.gin, *length, *quick])
        assert done.returncode == 0, done.stderr[-3000:]
        said.append(done.stderr)
        values = json.loads(next((folder / "checkpoints").glob("*.manifest.json")).read_text())
        assert values
    return folder, said


@pytest.mark.slow  # its numbers: test_images_seen
def test_epochs_go_on_with_the_images_seen(resumed):
    shown = [re.findall(r"step (\d+)/(\d+)  epoch ([\d.]+)", text) for text in resumed[1]]
    assert shown[0] == [("1", "3", "0.3"), ("2", "3", "0.7"), ("3", "3", "1.0")]
    assert shown[1] == [("4", "5", "2.0"), ("5", "5", "3.0")]
    assert shown[2] == []  # three epochs have been seen
    assert shown[3] == [("6", "6", "4.0")]


@pytest.mark.slow
def test_it_is_said_and_kept(resumed):
    folder, said = resumed
    assert "resuming at step 3 of 5" in said[1] and "6 images have been shown so far, 1.0 epochs" in said[1]
    assert "resuming at step 5 of 5" in said[2] and "which is the end" in said[2]
    noted = {
        path.name: json.loads(path.read_text())["values"]["images"]
        for path in (folder / "checkpoints").glob("*.manifest.json")
    }
    assert noted == {"ckpt-3.manifest.json": 6, "ckpt-5.manifest.json": 18, "ckpt-6.manifest.json": 24}
