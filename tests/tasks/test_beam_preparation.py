"""Prepared by the workers of Apache Beam: the bytes of one process, after a kill too."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import gin
import numpy as np
import PIL.Image
import pytest

from tpu_retinamask import cli
from tpu_retinamask.data.prepared.reading import verify_records
from tpu_retinamask.data.prepared.writing import RecordsBuilder
from tpu_retinamask.errors import UserError
from tpu_retinamask.tasks import beam_preparation as beam_jobs

IN_PROCESS = "--beam_options=runner=DirectRunner"
TWO_PROCESSES = f"{IN_PROCESS},direct_num_workers=2,direct_running_mode=multi_processing"


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in pathlib.Path(folder).rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Thirty pictures with a polygon, a label map, no mask, no object; one that is damaged."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(2)
    rows = []
    for number in range(30):
        PIL.Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        if number % 5 == 4:
            rows.append(f"{number}.png,,,,,,")
            continue
        labels = np.zeros((48, 64), np.uint8)
        labels[4:20, 5:30], labels[22:40, 10:50] = 1, 2
        PIL.Image.fromarray(labels).save(folder / f"{number}_labels.png")
        rows += [
            f"{number}.png,5,4,30,20,one,{number}_labels.png#1",
            f"{number}.png,10,22,50,40,two,{number}_labels.png#2",
            f"{number}.png,1.5,2.25,9,9,two,",
        ]
    (folder / "7.png").write_bytes(b"no picture")
    (folder / "train.csv").write_text("\n".join(rows))
    (folder / "val.csv").write_text("\n".join(rows[:9]))
    (folder / "classes.csv").write_text("one,0\ntwo,1\n")
    return folder


@pytest.fixture
def prepare(pictures, tmp_path, capsys):
    def run(name, *flags):  # in this process, whose workers a test can make fail
        settings = ["prepare.images_per_shard = 4", "source.on_bad_record = 'skip'", "prepare.progress = False"]
        code = cli.main(
            [
                "prepare",
                f"--annotations={pictures}/train.csv",
                f"--val_annotations={pictures}/val.csv",
                f"--classes={pictures}/classes.csv",
                f"--data_dir={tmp_path / name}",
                *flags,
                *(f"--gin_param={line}" for line in settings),
            ]
        )
        return subprocess.CompletedProcess(name, code, *capsys.readouterr()), tmp_path / name

    yield run
    gin.clear_config()


@pytest.mark.ci
def test_the_bytes_are_those_of_one_process_and_stopped_anywhere_it_goes_on_to_them(prepare, monkeypatch):
    done, alone = prepare("alone")
    assert done.returncode == 0, done.stderr[-2000:]
    monkeypatch.setattr(beam_jobs, "CHUNK", 7)  # chunks that no shard ends with
    done, together = prepare("together", IN_PROCESS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert content(together) == content(alone)
    assert "train: 29 images with 69 instances; dropped 1 images" in done.stderr
    assert verify_records(str(together)) == len(content(together)) - 1
    done, again = prepare("together", IN_PROCESS)
    assert "was finished already; nothing was written" in done.stderr and content(again) == content(alone)


@pytest.mark.parametrize(
    "where, function, call", [(beam_jobs, "write_json_atomically", 2), (RecordsBuilder, "write_shard", 3)]
)
def test_a_worker_that_fails_is_told_and_what_is_whole_is_not_done_again(prepare, monkeypatch, where, function, call):
    monkeypatch.setattr(beam_jobs, "CHUNK", 7)
    real, whole, calls, disk = getattr(where, function), [], iter(range(1000)), ["gone"]

    def fails(*arguments):  # for good: some of Beam's runners try again
        if next(calls) >= call and disk:
            raise OSError("the disk is gone")
        real(*arguments)
        whole.append(arguments[0] if where is beam_jobs else arguments[1:3])  # which chunk, which shard

    monkeypatch.setattr(where, function, fails)
    done, folder = prepare("broken", IN_PROCESS)
    assert done.returncode == 2
    assert "a worker of Beam failed: " in done.stderr and "the disk is gone" in done.stderr
    assert "Traceback" not in done.stderr and "run the same command again" in done.stderr
    assert len(whole) == call
    disk.clear()
    done, folder = prepare("broken", IN_PROCESS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(set(whole)) == len(whole) > call
    done, alone = prepare("alone")
    assert content(folder) == content(alone)


def test_a_folder_with_other_files_is_left_as_it_is(prepare, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done, folder = prepare("mine", IN_PROCESS)
    assert done.returncode == 2 and "holds other files (thesis.txt)" in done.stderr
    assert list(content(folder)) == ["thesis.txt"]


def test_what_one_process_refuses_beam_refuses_too(prepare, tmp_path, pictures, monkeypatch):
    for text, message in ((".1,.1,.5,.5,one,", "lie in 0..1: pixels are expected"), (",,,,,", "no object is left")):
        (pictures / "other.csv").write_text(f"0.png,{text}\n")
        done, _ = prepare("refused", IN_PROCESS, f"--annotations={pictures}/other.csv", "--val_annotations=")
        assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "refused" / "SHA256SUMS").exists()


def test_without_beam_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(beam_jobs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'tpu-retinamask\[beam\]'"):
        beam_jobs.pipeline_options("runner=DirectRunner")


def test_options_are_as_beam_has_them():
    given = " runner=DirectRunner, --direct_num_workers=2,,"
    assert beam_jobs.pipeline_options(given) == ["--runner=DirectRunner", "--direct_num_workers=2"]


@pytest.mark.slow  # each worker imports TensorFlow
def test_two_processes_killed_half_way_end_with_the_bytes_of_one(prepare, pictures, tmp_path):
    command = [sys.executable, "-m", "tpu_retinamask", "prepare", f"--annotations={pictures}/train.csv",
               f"--val_annotations={pictures}/val.csv", f"--classes={pictures}/classes.csv",
               f"--data_dir={tmp_path / 'killed'}", "--gin_param=prepare.images_per_shard = 4",
               "--gin_param=source.on_bad_record = 'skip'", TWO_PROCESSES]  # fmt: skip
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 300
    while time.monotonic() < until and not list((tmp_path / "killed").glob("retinamask-*")):
        assert first.poll() is None, first.stderr.read()[-3000:]
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "killed" / "SHA256SUMS").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    _, alone = prepare("alone")
    assert content(tmp_path / "killed") == content(alone)


def test_a_data_set_of_something_else_is_refused(prepare, pictures, tmp_path):
    _, folder = prepare("first", IN_PROCESS)
    shutil.copy(pictures / "train.csv", tmp_path / "other.csv")
    before = content(folder)
    with open(pictures / "train.csv", "a") as file:
        file.write("\n28.png,1,1,5,5,one,")
    try:
        done, _ = prepare("first", IN_PROCESS)
    finally:
        shutil.copy(tmp_path / "other.csv", pictures / "train.csv")
    assert done.returncode == 2 and "prepared from something else" in done.stderr
    assert {name: data for name, data in content(folder).items() if not name.startswith(".unfinished")} == before
