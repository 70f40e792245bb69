"""Training as a user runs it: it learns, leaves what others need, and survives being killed."""

import json
import os
import random
import re

import numpy as np
import pytest
import tensorflow as tf


def _saved_numbers(folder):
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(os.path.join(folder, "checkpoints")))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_dtype_map()
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


def _shown_steps(text):
    """The line of each step that was shown."""
    lines = [re.match(r"\S+ step (\d+)/", line) for line in text.splitlines()]
    return {int(match[1]): match.string for match in lines if match}


def test_it_learns_and_says_how_it_goes(trained, training):
    _, done = trained
    lines = done.stderr.splitlines()
    assert any("anchors cover 100.0% of 9 boxes" in line for line in lines)
    shown = _shown_steps(done.stderr)
    assert list(shown) == list(range(1, training.steps + 1))
    first, last = shown[1], shown[training.steps]

    def loss(line):
        return float(line.split("  loss ")[1].split()[0])

    assert loss(last) < 0.1 * loss(first)
    for word in ("class ", "box ", "mask ", "lr ", "images/s", "input wait", "ETA"):
        assert word in last
    (score,) = [line.split() for line in lines if line.startswith("mask  ")]
    assert float(score[2]) >= 0.9  # mask AP50 on images it has seen: it learnt them by heart


def test_it_ends_with_the_weights_and_the_commands_that_use_them(trained, training, shapes):
    model_dir, done = trained
    said = done.stderr[done.stderr.index("the last weights: ") :].splitlines()
    assert said[0] == f"the last weights: {model_dir}/checkpoints/ckpt-{training.steps}"
    best = re.fullmatch(r"the best, by mask AP .* \((\S+), where 1 is perfect\): (\S+); --checkpoint=best .*", said[1])
    assert float(best[1]) > 0.5 and os.path.exists(best[2] + ".index")
    assert said[2:5] == [
        "what next:",
        f"  retinamask evaluate --model_dir={model_dir} --annotations={shapes}/val.csv",
        f"  retinamask predict --model_dir={model_dir} --output_dir={model_dir}/pictures FOLDER_OF_PICTURES",
    ]


def test_the_model_directory_tells_what_was_run(trained, training):
    folder, _ = trained
    assert (folder / "classes.csv").read_text() == "disc,0\nsquare,1\n"
    config = (folder / "config.gin").read_text()
    assert "RetinaMask.fpn_channels = 16" in config
    assert "focal_gamma" not in config  # defaults are in the other file
    operative = (folder / "operative_config.gin").read_text()
    for line in ("RetinaMask.fpn_channels = 16", "Criterion.focal_gamma = 2.0", "train.clip_norm = 10.0"):
        assert line in operative.splitlines()
    kept = {name for name in os.listdir(folder / "checkpoints") if name.endswith(".index")}
    assert kept == {f"ckpt-{step}.index" for step in (50, 100, 150)}
    assert os.listdir(folder / "events")
    # Scored at the end only, which is then the best.
    assert (folder / "best" / f"ckpt-{training.steps}.index").is_file()
    history = json.loads((folder / "history.json").read_text())
    assert [entry["step"] for entry in history] == [50, 100, 150]
    assert history[-1]["val/segm/AP"] > 0.5 and history[-1]["loss"] < history[0]["loss"]


@pytest.mark.slow  # its bits: test_launch, after a SIGTERM, and test_killed_runs
def test_killed_at_a_random_step_it_goes_on_as_if_nothing_had_been(trained, training, program, quick_program, tmp_path):
    whole, _ = trained
    step = random.SystemRandom().randrange(51, training.steps - 20)
    program.kill_at(f" step {step}/", "train", *training.flags(tmp_path), gin=training.gin)
    saved = int(tf.train.latest_checkpoint(tmp_path / "checkpoints").rsplit("-", 1)[1])
    # When step k is shown, the save of an earlier multiple of fifty has ended.
    assert saved % 50 == 0 and saved >= (step - 1) // 50 * 50, step
    done = quick_program("train", *training.flags(tmp_path), gin=training.gin)  # knows nothing of the one killed
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"resuming at step {saved} of {training.steps}" in done.stderr
    assert list(_shown_steps(done.stderr)) == list(range(saved + 1, training.steps + 1)), step
    expected, found = _saved_numbers(whole), _saved_numbers(tmp_path)
    assert expected.keys() == found.keys() and len(expected) > 100
    different = [name for name in expected if np.asarray(expected[name]).tobytes() != np.asarray(found[name]).tobytes()]
    assert different == [], f"killed at step {step}, resumed at {saved}"


def test_a_finished_run_has_nothing_to_do(trained, training, quick_program):
    folder, _ = trained
    before = _saved_numbers(folder)
    done = quick_program("train", *training.flags(folder), gin=training.gin)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"resuming at step {training.steps} of {training.steps}" in done.stderr
    assert _shown_steps(done.stderr) == {}
    after = _saved_numbers(folder)
    assert all(np.asarray(before[name]).tobytes() == np.asarray(after[name]).tobytes() for name in before)


def test_dry_run_traces_the_step_and_leaves_nothing(training, quick_program, tmp_path):
    done = quick_program("train", *training.flags(tmp_path / "run"), "--dry_run", gin=training.gin)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"dry run: {training.steps} steps of 2 images" in done.stderr and "no forbidden ops" in done.stderr
    assert not (tmp_path / "run").exists()


def test_debug_shows_every_tensor(training, quick_program, tmp_path):
    done = quick_program("train", *training.flags(tmp_path / "run"), "--debug", gin=training.gin)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "debug: every tensor is finite" in done.stderr
    assert sum(line.startswith("layer ") for line in done.stdout.splitlines()) > 20
    assert not (tmp_path / "run").exists()


def test_debug_names_the_first_tensor_that_is_not_finite(training, quick_program, tmp_path):
    done = quick_program(
        "train", *training.flags(tmp_path / "run"), "--debug", gin=training.gin + ["Criterion.mask_weight = 1e39"]
    )  # infinite in float32
    assert "debug: first tensor that is not finite: gradient of " in done.stderr


@pytest.mark.ci
def test_a_loss_that_is_not_finite_stops_and_names_it(training, quick_program, tmp_path):
    done = quick_program(
        "train",
        *training.flags(tmp_path),
        gin=training.gin + ["make_optimizer.learning_rate = 1e30", "train.jit_compile = False"],
    )
    assert done.returncode == 2
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("error: step ") and "_loss = " in message and "--debug" in message
    assert "Traceback" not in done.stderr


def test_another_architecture_is_refused_and_the_run_keeps_its_configuration(trained, training, quick_program):
    folder, _ = trained
    before = (folder / "config.gin").read_text()
    done = quick_program("train", *training.flags(folder), gin=training.gin + ["RetinaMask.fpn_channels = 24"])
    assert done.returncode == 2
    for word in ("does not fit the model", f"ckpt-{training.steps}", "C3_reduced", "--model_dir"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "config.gin").read_text() == before
