"""`plan`, and `train` that makes a plan: what is written, that it is gone by, and what is refused."""

import csv
import re
import signal
import subprocess
import sys

import pytest
from programs.conftest import TINY

from tpu_retinamask import config
from tpu_retinamask.programs import command_line, plan

# The plan's network would train too long for a test: what is given wins over it.
GIVEN = [*TINY, "train.weights = None", "train.steps = 3", "train.batch_size = 2", "train.log_every = 1"]


@pytest.fixture(scope="module")
def run(shapes, quick_program, tmp_path_factory):
    """Train by a plan, once and again; return the folder, its flags and what was said."""
    folder = tmp_path_factory.mktemp("planned") / "run"
    flags = [f"--annotations={shapes}/train.csv", f"--model_dir={folder}", "--minutes=7.5", "--val_share=0.3"]
    said = []
    for _ in range(2):
        done = quick_program("train", *flags, gin=GIVEN)
        assert done.returncode == 0, done.stderr[-3000:]
        said.append(done.stderr)
    return folder, flags, said


def test_the_plan_is_written_with_its_reasons(run):
    folder, _, said = run
    text = (folder / "plan.gin").read_text()
    assert text.startswith("# Planned for 7.5 minutes.")
    for name in ("RetinaMask.anchor_sizes", "Augmentation.horizontal_flip", "train.steps", "make_optimizer.decay"):
        reason, setting = re.search(rf"^# (.+)\n{re.escape(name)} = (.+)$", text, re.MULTILINE).groups()
        assert reason.strip() and setting.strip()
        # Ten lines are told, not all; none of the canvas, which is given.
        assert (f"{name} = {setting}" in said[0]) is (name != "make_optimizer.decay")
    assert "planned for 7.5 minutes on this machine (CPU" in said[0]


def test_what_is_given_wins(run):
    folder, _, said = run
    assert "train.steps = 3" in (folder / "config.gin").read_text()
    # And stands in the plan, by which the same images are trained without it too.
    assert "# as given\ntrain.steps = 3\n" in (folder / "plan.gin").read_text()
    assert "step 3/3" in said[0]
    # What is not given is the plan's.
    assert "Criterion.best_match_ties = 'all'" in (folder / "config.gin").read_text()


def test_the_same_command_goes_on_by_the_same_plan(run):
    _, _, said = run
    assert "planned for" not in said[1] and "resuming at step 3 of 3" in said[1]


@pytest.mark.ci
def test_a_share_is_held_out_scored_and_found_again(run, shapes, quick_program):
    folder, _, said = run
    with open(folder / "split.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    held_out = {row["image"] for row in rows if row["split"] == "validation"}
    assert len(rows) == 6 and len(held_out) == 2
    assert "4 images are trained on and 2 scored" in said[0] and "evaluation\n" in said[0]
    flags = [f"--annotations={shapes}/train.csv", f"--model_dir={folder}"]
    done = quick_program("evaluate", *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 of these 6 images are scored, the validation part" in done.stderr
    done = quick_program("evaluate", *flags, "--split=train")
    assert "4 of these 6 images are scored, the train part" in done.stderr
    done = quick_program("evaluate", *flags, "--split=test")
    assert done.returncode == 2 and "--split=test" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.ci
def test_a_dry_run_holds_the_same_out_and_writes_nothing(shapes, quick_program, tmp_path):
    flags = [f"--annotations={shapes}/train.csv", f"--model_dir={tmp_path}/run", "--val_share=0.3", "--dry_run"]
    done = quick_program("train", *flags, gin=GIVEN)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "4 images are trained on and 2 scored" in done.stderr and not (tmp_path / "run").exists()


def test_an_edit_that_is_none_is_told_of_the_plan(shapes, quick_program, tmp_path):
    (tmp_path / "plan.gin").write_text("RetinaMask.anchor_size = (1, 2, 3)\n")
    done = quick_program("train", f"--annotations={shapes}/train.csv", f"--model_dir={tmp_path}")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"error: {tmp_path}/plan.gin: " in done.stderr and "anchor_sizes" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no setting: remove it, so that a plan is made again"),
        (b"# Planned for 5 minutes.\n# train.steps = 3\n", "holds no setting"),
        (b"# caf\xe9\ntrain.steps = 3\n", "expected text in UTF-8"),
        (b"# Planned for 1.2.3 minutes.\ntrain.steps = (3\n", "EOF in multi-line statement (line"),
        (b"import nosuchmodule\ntrain.steps = 3\n", "No module named 'nosuchmodule'"),
    ],
)
def test_a_damaged_plan_is_told_by_its_path(content, words, shapes, quick_program, tmp_path):
    (tmp_path / "plan.gin").write_bytes(content)
    done = quick_program("train", f"--annotations={shapes}/train.csv", f"--model_dir={tmp_path}", "--minutes=5")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert words in done.stderr and f"{tmp_path}/plan.gin" in done.stderr, done.stderr


def test_epochs_win_over_the_steps_of_a_plan(tmp_path):
    config.parse_gin([], ["train.epochs = 3"], planned="train.steps = 500\ntrain.batch_size = 4\n")
    assert (config.recipe().train.steps, config.recipe().train.epochs) == (None, 3)
    config.parse_gin([], ["train.epochs = 3", "train.steps = 7"], planned="train.steps = 500\n")
    assert config.recipe().train.steps == 7
    config.parse_gin([], [], planned="train.steps = 500\n")
    assert config.recipe().train.steps == 500


@pytest.mark.ci
def test_what_plan_held_out_train_does_not_train_on(run, quick_program, shapes, tmp_path):
    folder, flags, _ = run
    for name in ("plan.gin", "split.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    there = [f"--annotations={shapes}/train.csv", f"--model_dir={tmp_path}", "--dry_run"]
    done = quick_program("train", *there, gin=GIVEN)
    assert done.returncode == 0 and "4 images are trained on and 2 scored" in done.stderr, done.stderr
    done = quick_program("train", *there, "--val_share=0.6", gin=GIVEN)
    assert "4 images are trained on and 2 scored" in done.stderr and "--val_share=0.6 would divide other" in done.stderr
    done = quick_program("train", *there, f"--val_annotations={shapes}/val.csv", gin=GIVEN)
    assert done.returncode == 2 and "leave --val_annotations out, or give another --model_dir" in done.stderr


def test_other_minutes_are_refused(run, quick_program):
    folder, flags, _ = run
    done = quick_program("train", *(flag.replace("7.5", "9") for flag in flags), gin=GIVEN)
    assert done.returncode == 2
    assert f"--minutes=9: {folder}/plan.gin was made for 7.5." in done.stderr


def test_a_plan_is_never_replaced(run, shapes, quick_program):
    folder, _, _ = run
    before = (folder / "plan.gin").read_text()
    done = quick_program("plan", f"--annotations={shapes}/train.csv", f"--model_dir={folder}")
    assert done.returncode == 2 and f"{folder} holds a plan.gin already, which is kept" in done.stderr
    assert (folder / "plan.gin").read_text() == before


def test_a_split_that_leaves_an_image_out_is_refused(run, quick_program):
    folder, flags, _ = run
    path = folder / "split.csv"
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    try:
        done = quick_program("train", *flags, gin=GIVEN)
    finally:
        path.write_text(whole)
    assert done.returncode == 2 and "does not tell of 1 images of --annotations" in done.stderr


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--val_share=0.2", "--val_annotations=other.csv"], "and --val_annotations says which are scored: give one"),
        pytest.param(["--minutes=0.5"], "of which nothing is learnt; give --minutes=", marks=pytest.mark.slow),
        (["--tpu=fake:2x2", "--minutes=5", "--dry_run"], "whose speed cannot be measured"),
        (["--minutes=nan"], "expected a number"),
        (["--val_share=nan"], "expected a number"),
        (["--minutes=5", "--weights=gone.h5"], "--weights=gone.h5: no such file"),
        (["--minutes=5", "--model_dir=other.csv"], "is no folder; give another"),
        (["--minutes=5", "--model_dir=other.csv/below"], "is no folder; give another"),
        (["--minutes=5", "--model_dir="], "--model_dir is empty"),
        (["--minutes=5", "--gin_param=import nosuchmodule"], "No module named 'nosuchmodule'"),
    ],
)
def test_what_cannot_be_planned_is_refused(more, expected, shapes, quick_program, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("")
    more = [flag.replace("other.csv", str(other)) for flag in more]
    given = [line for line in GIVEN if "train.steps" not in line]
    done = quick_program("train", f"--annotations={shapes}/train.csv", f"--model_dir={tmp_path}/run", *more, gin=given)
    assert done.returncode in (1, 2) and expected in done.stderr, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "plan.gin").exists()


@pytest.mark.parametrize("size", ["64", "(64, 64, 3)", "(0, 64)"])
def test_a_canvas_that_is_none_is_refused_before_anything_is_opened(size, shapes, quick_program, tmp_path):
    given = [*GIVEN, f"InputPipeline.image_size = {size}"]
    done = quick_program("plan", f"--annotations={shapes}/train.csv", f"--model_dir={tmp_path}/run", gin=given)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "InputPipeline: image_size is" in done.stderr and "scan:" not in done.stderr


@pytest.mark.parametrize(
    ("more", "there", "expected"),
    [
        ([], None, True),
        (["--minutes=3"], None, True),
        (["--gin_file=recipe/small.gin"], None, False),
        (["--gin_param=train.steps = 3"], None, False),
        (["--gin_param=train.steps = 3", "--minutes=3"], None, True),
        (["--gin_param=train.steps = 3"], "plan.gin", True),  # goes on
        ([], "config.gin", False),  # an earlier run, which had none
        (["--dry_run"], None, False),
    ],
)
def test_when_a_plan_is_made(more, there, expected, tmp_path):
    if there:
        (tmp_path / there).write_text("")
    flags, _ = command_line.parse("train", ["--annotations=a.csv", f"--model_dir={tmp_path}", *more])
    assert plan.planned(flags) is expected


SIGNALLED = """
import os, sys, time
from tpu_retinamask import cli
from tpu_retinamask.programs import plan

def measure_step(*arguments):
    os.kill(os.getpid(), int(sys.argv[1]))
    for _ in range(200):
        time.sleep(0.1)

plan.measure_step = measure_step
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.ci
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_while_a_step_is_measured_ends_at_once_with_one_line(shapes, program, tmp_path, name):
    number = getattr(signal, name)
    flags = [f"--annotations={shapes}/train.csv", f"--model_dir={tmp_path / 'run'}", "--minutes=7.5"]
    command = [sys.executable, "-c", SIGNALLED, str(int(number)), "train", *flags]
    done = subprocess.run(
        command, cwd=program.folder, capture_output=True, text=True, check=False, env=program.environment
    )
    assert done.returncode == 128 + number, done.stderr[-2000:]
    assert f"{name}: ended; no step had been made, so nothing is lost" in done.stderr
    assert "Traceback" not in done.stderr
    # The lock of a process that is no more holds nobody up; nothing else was written.
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".retinamask.lock"]
