"""prepare as a user runs it, killed half-way too, and the programs that read what it wrote."""

import os
import shutil
import signal
import subprocess
import time

import numpy as np
import PIL.Image
import pytest


@pytest.fixture(scope="module")
def prepared(shapes, quick_program, tmp_path_factory):
    """The shapes as a data set of one image a shard: (folder, the process that wrote it)."""
    folder = tmp_path_factory.mktemp("prepared") / "shapes"
    done = quick_program(
        "prepare",
        f"--annotations={shapes}/train.csv",
        f"--val_annotations={shapes}/val.csv",
        f"--classes={shapes}/classes.csv",
        f"--data_dir={folder}",
        gin=["prepare.images_per_shard = 4"],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done


def _content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_says_what_it_wrote_and_finds_it_finished(prepared, shapes, quick_program):
    folder, done = prepared
    assert "train: 6 images with 9 instances; nothing dropped" in done.stderr
    assert "validation: 3 images ready in" in done.stderr
    assert "prepare: 100%" in done.stderr  # the progress bar
    before = _content(folder)
    again = quick_program(
        "prepare",
        f"--annotations={shapes}/train.csv",
        f"--val_annotations={shapes}/val.csv",
        f"--classes={shapes}/classes.csv",
        f"--data_dir={folder}",
        gin=["prepare.images_per_shard = 4"],
    )
    assert again.returncode == 0 and "was finished already; nothing was written" in again.stderr
    assert _content(folder) == before


@pytest.mark.slow  # test_records_builder stops it at each of its steps
def test_killed_half_way_it_goes_on_to_the_same_bytes(program, quick_program, tmp_path):
    random = np.random.default_rng(1)
    rows = []
    for number in range(90):
        PIL.Image.fromarray(random.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{number % 50},10,{number % 50 + 20},40,thing,")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    (tmp_path / "classes.csv").write_text("thing,0\n")
    flags = (f"--annotations={tmp_path}/train.csv", f"--classes={tmp_path}/classes.csv")
    gin = ["prepare.images_per_shard = 1"]
    half = tmp_path / "half"
    process = subprocess.Popen(
        program.command("prepare", *flags, f"--data_dir={half}", gin=gin),
        cwd=program.folder,
        env=program.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list(half.glob("retinamask-*"))) < 10:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    shards = len(list(half.glob("retinamask-*")))
    assert 10 <= shards < 90 and not (half / "SHA256SUMS").exists()

    refused = quick_program("inspect_data", f"--data_dir={half}")
    assert refused.returncode == 2 and "is unfinished: run prepare again with the same flags" in refused.stderr
    for folder in (half, tmp_path / "whole"):
        done = quick_program("prepare", *flags, f"--data_dir={folder}", gin=gin)
        assert done.returncode == 0, done.stderr[-2000:]
        assert ("going on: " in done.stderr) == (folder == half)
    assert _content(half) == _content(tmp_path / "whole")


@pytest.mark.slow  # test_holding holds the lock; here two real ones meet
def test_of_two_at_once_one_is_refused_by_name_and_the_other_ends_right(prepared, shapes, program, tmp_path):
    command = program.command(
        "prepare",
        f"--annotations={shapes}/train.csv",
        f"--val_annotations={shapes}/val.csv",
        f"--classes={shapes}/classes.csv",
        f"--data_dir={tmp_path}/data",
        gin=["prepare.images_per_shard = 4"],
    )
    started = [
        subprocess.Popen(command, cwd=program.folder, env=program.environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = {process.pid: (process.communicate()[1], process.returncode) for process in started}
    codes = sorted(code for _, code in ended.values())
    assert codes == [0, 2] or "was finished already" in "".join(said for said, _ in ended.values()), ended
    if codes == [0, 2]:
        (refused,) = [said for said, code in ended.values() if code == 2]
        (other,) = [pid for pid, (_, code) in ended.items() if code == 0]
        assert f"data is in use by prepare, process {other} on " in refused and "Traceback" not in refused
    assert _content(tmp_path / "data") == _content(prepared[0])


def test_the_checksums_are_those_of_sha256sum(prepared, quick_program, tmp_path):
    folder = shutil.copytree(prepared[0], tmp_path / "copy")
    done = quick_program("prepare", f"--data_dir={folder}", "--verify")
    assert done.returncode == 0 and "10 files of" in done.stderr
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    shard = folder / "retinamask-train.tfrecord-00001-of-00002"
    content = bytearray(shard.read_bytes())
    content[100] ^= 8
    shard.write_bytes(content)
    done = quick_program("prepare", f"--data_dir={folder}", "--verify")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "1 damaged files" in done.stderr and f"{shard.name}: its content has changed" in done.stderr


def test_inspect_data_shows_the_same_of_the_csv_and_of_the_records(prepared, shapes, training, quick_program, tmp_path):
    flags, gin = ("--batches=3", "--batch_size=2"), training.gin
    from_csv = quick_program(
        "inspect_data", f"--annotations={shapes}/train.csv", f"--classes={shapes}/classes.csv", *flags, gin=gin
    )
    from_records = quick_program(
        "inspect_data", f"--data_dir={prepared[0]}", *flags, f"--output_dir={tmp_path}/seen", gin=gin
    )
    assert from_csv.returncode == from_records.returncode == 0, from_csv.stderr + from_records.stderr
    assert from_csv.stdout == from_records.stdout
    assert "6 images, 9 objects, 0 of them without a mask; 1 images without objects" in from_csv.stdout
    assert "  disc    5\n  square  4\n" in from_csv.stdout
    assert from_csv.stdout.count("digest") == 3
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == [
        *(f"batch{step}_{number}.png" for step in range(3) for number in range(2)),
        "batches.json",
    ]
    assert PIL.Image.open(tmp_path / "seen" / "batch0_0.png").size == (512, 536)  # 128 drawn 4 times as large, a legend


def test_train_and_evaluate_read_the_records(prepared, shapes, trained, training, quick_program, tmp_path):
    done = quick_program(
        "train", f"--data_dir={prepared[0]}", f"--model_dir={tmp_path}/run", "--dry_run", gin=training.gin
    )
    assert done.returncode == 0 and "dry run: " in done.stderr, done.stderr[-2000:]
    tables = []
    for flags in ((f"--annotations={shapes}/val.csv",), (f"--data_dir={prepared[0]}",)):
        done = quick_program("evaluate", *flags, f"--model_dir={trained[0]}", f"--metrics={tmp_path}/metrics.json")
        assert done.returncode == 0, done.stderr[-2000:]
        tables.append(done.stdout)
    assert tables[0] == tables[1] and "AP50" in tables[0]


def test_bad_records_stop_or_are_counted(shapes, quick_program, tmp_path):
    text = (shapes / "train.csv").read_text() + "two.png,160,60,170,70,disc,\nlost.png,1,1,2,2,disc,\n"
    shutil.copytree(shapes, tmp_path / "bad")
    (tmp_path / "bad" / "train.csv").write_text(text)
    flags = (
        f"--annotations={tmp_path}/bad/train.csv",
        f"--classes={shapes}/classes.csv",
        f"--data_dir={tmp_path}/data",
    )
    done = quick_program("prepare", *flags)
    assert done.returncode == 2 and not (tmp_path / "data").exists()
    assert "2 bad records" in done.stderr and "lies outside the image" in done.stderr and "no such file" in done.stderr
    done = quick_program("prepare", *flags, gin=["prepare.on_bad_record = 'skip'"])
    assert done.returncode == 0
    summary = "6 images with 9 instances; dropped 1 images and 1 instances (box outside the image: 1, missing: 1)"
    assert summary in done.stderr and summary in (tmp_path / "data" / "prepared.json").read_text()


MISTAKES = {
    "nothing": (("prepare", "--data_dir={folder}/x"), ["needs --annotations", "--verify"]),
    "something else": (
        ("prepare", "--annotations={shapes}/val.csv", "--classes={shapes}/classes.csv", "--data_dir={prepared}"),
        ["prepared from something else", "choose another --data_dir"],
    ),
    "both to train": (
        ("train", "--annotations={shapes}/val.csv", "--data_dir={prepared}", "--model_dir={folder}/r"),
        ["leave out --annotations"],
    ),
    "both to evaluate": (
        ("evaluate", "--annotations={shapes}/val.csv", "--data_dir={prepared}", "--model_dir={folder}/r"),
        ["leave out --annotations and --classes"],
    ),
    "neither to train": (("train", "--model_dir={folder}/r"), ["give --annotations and --classes, or --data_dir"]),
    "no such split": (
        ("inspect_data", "--data_dir={prepared}", "--split=test"),
        ["has no split 'test'; it has ['train', 'validation']"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name, prepared, shapes, quick_program, tmp_path):
    command, words = MISTAKES[name]
    done = quick_program(
        *(part.format(folder=tmp_path, shapes=shapes, prepared=prepared[0]) for part in command),
        gin=["InputPipeline.image_size = (64, 64)"],
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
