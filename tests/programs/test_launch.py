"""Training on more than one device, in loops, and asked to stop: as a user does it."""

import os
import re
import signal
import subprocess

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


@pytest.mark.ci
def test_the_whole_training_is_traced_for_a_tpu_without_one(training, quick_program, tmp_path):
    done = quick_program(
        "train",
        *training.flags(tmp_path / "run"),
        "--dry_run",
        "--tpu=fake:2x2",
        gin=training.gin + ["train.batch_size = 4"],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (said,) = [line for line in done.stderr.splitlines() if "dry run: " in line]
    assert f"{training.steps} steps of 4 images" in said and "no forbidden ops" in said
    numbers = re.search(
        r"(\d+) operations and .*with its loop (\d+) operations were traced for 4 replicas of "
        r"TPUStrategy\w*, (\d+) CrossReplicaSum",
        said,
    )
    step, loop, sums = map(int, numbers.groups())
    assert loop > step > 1000
    assert sums > 40  # one a gradient; test_tpu_trace counts them
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # its numbers: test_step_replicas
def test_two_replicas_train_in_loops_save_and_evaluate(training, quick_program, shapes, tmp_path):
    done = quick_program(
        "train",
        *training.flags(tmp_path),
        f"--val_annotations={shapes}/val.csv",
        "--replicas=2",
        gin=training.gin + ["train.steps = 4", "train.steps_per_loop = 3"],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.findall(r" step (\d)/4", done.stderr) == ["1", "2", "3", "4"]
    assert "ckpt-4" in done.stderr and "3 images, 4 ground truths" in done.stderr
    assert any(line.startswith("mask  ") for line in done.stderr.splitlines())
    assert _saved_numbers(tmp_path)["optimizer/iteration/.ATTRIBUTES/VARIABLE_VALUE"] == 4


@pytest.mark.ci
def test_stopped_by_sigterm_it_goes_on_in_other_loops_to_the_same_bits(
    trained, training, program, quick_program, tmp_path
):
    command = program.command("train", *training.flags(tmp_path), gin=training.gin + ["train.steps_per_loop = 7"])
    process = subprocess.Popen(command, cwd=program.folder, stderr=subprocess.PIPE, text=True, env=program.environment)
    seen = []
    for line in process.stderr:
        seen.append(line)
        if f" step 15/{training.steps}" in line:
            process.send_signal(signal.SIGTERM)
    text = "".join(seen)
    assert process.wait() == 143, text[-2000:]
    (stopped,) = re.findall(rf"stopped at step (\d+) of {training.steps}, saved; run the same command to go on", text)
    assert "SIGTERM: stopping after this loop" in text and "Traceback" not in text
    assert int(stopped) >= 15 and int(stopped) < training.steps
    assert tf.train.latest_checkpoint(tmp_path / "checkpoints").endswith(f"ckpt-{stopped}")

    done = quick_program("train", *training.flags(tmp_path), gin=training.gin + ["train.steps_per_loop = 3"])
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"resuming at step {stopped} of {training.steps}" in done.stderr
    # Loops of 7 and of 3, and an interruption, against one step at a time without.
    expected, found = _saved_numbers(trained[0]), _saved_numbers(tmp_path)
    assert expected.keys() == found.keys() and len(expected) > 100
    different = [name for name in expected if np.asarray(expected[name]).tobytes() != np.asarray(found[name]).tobytes()]
    assert different == []


@pytest.mark.parametrize(
    "flags, gin, words",
    [
        (["--tpu=fake:2x2"], [], "describes a TPU that does not exist: add --dry_run"),
        (
            ["--tpu=fake:2x2", "--dry_run"],
            ["train.batch_size = 6"],
            "train.batch_size is 6, which 4 replicas cannot share",
        ),
        (["--tpu=fake:2by2", "--dry_run"], [], "such as fake:2x2"),
        (["--replicas=2", "--tpu=local"], [], "leave --replicas out"),
        (["--replicas=2", "--debug"], [], "--debug runs one step on one device"),
    ],
)
def test_mistakes_are_told(training, quick_program, tmp_path, flags, gin, words):
    done = quick_program("train", *training.flags(tmp_path / "run"), *flags, gin=training.gin + gin)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
