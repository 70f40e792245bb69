"""What a program writes into is its own: a second one is told who has it, and a process that is gone holds nothing."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from tpu_retinamask import holding
from tpu_retinamask.files import WriteError
from tpu_retinamask.holding import LOCK, HeldError, clear_leftovers, held_file, held_folder

# Holds a lock as ours do, without the seconds that TensorFlow takes to be imported.
OTHER = """
import fcntl, json, os, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
told = {"program": "prepare", "host": sys.argv[2], "pid": os.getpid(), "since": "today"}
print(json.dumps(told), file=file, flush=True)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds a lock file of the folder; it is killed at the end of the test."""
    command = [sys.executable, "-c", OTHER, str(tmp_path / LOCK), socket.gethostname()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_one_is_told_who_holds_it(other, tmp_path):
    words = (
        rf"--data_dir={tmp_path} is in use by prepare, process {other.pid} on {socket.gethostname()}, since today: .*"
    )
    with (
        pytest.raises(HeldError, match=words + r"stop it, or give another --data_dir"),
        held_folder(str(tmp_path), "prepare", "--data_dir"),
    ):
        pass


def test_a_killed_one_holds_nobody_up(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / LOCK).exists()  # it had no time to remove it
    with held_folder(str(tmp_path), "prepare", "--data_dir"):
        told = json.loads((tmp_path / LOCK).read_text())
        assert told["pid"] == os.getpid() and told["program"] == "prepare"
        with pytest.raises(HeldError, match=f"process {os.getpid()} "), held_folder(str(tmp_path), "x", "--data_dir"):
            pass
    assert os.listdir(tmp_path) == []


def test_files_of_one_folder_are_held_each_for_itself(tmp_path):
    with held_file(str(tmp_path / "a.csv"), "convert", "--output"):
        with held_file(str(tmp_path / "b.csv"), "convert", "--output"), held_folder(str(tmp_path), "predict", "--o"):
            pass
        with (
            pytest.raises(HeldError, match="a.csv is in use by convert"),
            held_file(str(tmp_path / "a.csv"), "convert", "--output"),
        ):
            pass
    assert os.listdir(tmp_path) == []


def test_a_child_does_not_hold_what_its_parent_did(tmp_path):
    with held_folder(str(tmp_path), "train", "--model_dir"):
        holding._let_go()  # what a fork calls in the child
        with held_folder(str(tmp_path), "train", "--model_dir"):
            pass


def test_a_folder_is_made_and_goes_if_nothing_came_into_it(tmp_path):
    folder = tmp_path / "new" / "run"
    with held_folder(str(folder), "train", "--model_dir"):
        assert folder.is_dir()
    assert os.listdir(tmp_path) == []
    with held_folder(str(folder), "train", "--model_dir"):
        (folder / "kept").write_text("")
    assert os.listdir(folder) == ["kept"]


def test_what_lies_in_the_place_of_a_lock_is_left_as_it_was(tmp_path):
    """A folder may come from a stranger, who put a link to a file of the user's there."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / LOCK).symlink_to(tmp_path / "mine")
    with (
        pytest.raises(WriteError, match="cannot be written: .*give another --model_dir"),
        held_folder(str(tmp_path), "train", "--model_dir"),
    ):
        pass
    assert (tmp_path / "mine").read_text() == "mine"
    (tmp_path / LOCK).unlink()
    os.mkfifo(tmp_path / LOCK)
    with pytest.raises(WriteError, match="is no file; remove it"), held_folder(str(tmp_path), "train", "--model_dir"):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(WriteError, match="file/run cannot be written: .*give another"),
        held_folder(str(tmp_path / "file" / "run"), "train", "--model_dir"),
    ):
        pass


def test_what_killed_writers_left_is_cleared_away(other, tmp_path):
    other.kill()
    other.wait()
    gone, living = f".retinamask-{other.pid}-0123abcd.tmp", f".retinamask-{os.getpid()}-0123abcd.tmp"
    for name in (gone, living, "mine.tmp"):
        (tmp_path / name).write_text("half")
    with held_folder(str(tmp_path), "predict", "--output_dir"):
        assert sorted(os.listdir(tmp_path)) == sorted([living, "mine.tmp", LOCK])
    os.utime(tmp_path / living, (0, 0))  # a number of a process that is another's by now
    with held_folder(str(tmp_path), "predict", "--output_dir"):
        assert sorted(os.listdir(tmp_path)) == sorted(["mine.tmp", LOCK])


def test_nothing_is_held_in_a_bucket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with held_folder("gs://bucket/run", "train", "--model_dir"), held_file("gs://bucket/a.csv", "convert", "--output"):
        assert os.listdir(tmp_path) == []


def test_a_folder_that_a_killed_export_left_half_written_goes(tmp_path):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left, ours = (f".retinamask-{pid}-0123abcd.tmp" for pid in (int(ended.stdout), os.getpid()))
    for name in (left, ours, "half-0123abcd.tmp"):
        (tmp_path / name / "variables").mkdir(parents=True)
        (tmp_path / name / "variables" / "data").write_text("half")
    clear_leftovers(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([ours, "half-0123abcd.tmp"])
