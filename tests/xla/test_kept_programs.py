"""Programs that TensorFlow's runtime keeps: found again, never trusted when damaged, and never in the way."""

import os
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from tpu_retinamask.files import file_sha256
from tpu_retinamask.private import tensorflow_names
from tpu_retinamask.xla import kept_programs
from tpu_retinamask.xla.kept_programs import KeptPrograms

FLAGS = "TF_XLA_FLAGS"
PROGRAM = """
import os, sys
import tensorflow as tf
from tpu_retinamask.xla.kept_programs import KeptPrograms

kept = KeptPrograms(sys.argv[1])
for _ in range(int(sys.argv[2])):  # as a run that goes on traces what a new one does not
    tf.function(lambda x: x - 1)(tf.ones(2))
double = tf.function(lambda x: tf.sort(2 * x), jit_compile=True)
print(kept.on_first_call(double)(tf.constant([3.0, 1.0])).numpy().tolist())
"""


@pytest.fixture(autouse=True)
def no_flags(monkeypatch):
    """What is set here is for children: this process has read its flags."""
    monkeypatch.delenv(FLAGS, raising=False)


def _folder(cache_dir):
    (folder,) = cache_dir.glob("tensorflow-*")
    return folder


def _a_program(cache_dir, name="a", content=b"code", seconds_ago=0.0, sealed=True):
    path = _folder(cache_dir) / f"{name}.pb"
    path.write_bytes(content)
    if sealed:
        path.with_suffix(".sha256").write_text(file_sha256(str(path)))
    os.utime(path, (time.time() - seconds_ago,) * 2)
    return path


def _run(cache_dir, traced=0):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(cache_dir), str(traced)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[2.0, 6.0]\n"
    assert done.stderr == ""


@pytest.mark.ci
def test_a_second_process_reads_what_the_first_compiled_whatever_it_traced_before(tmp_path):
    _run(tmp_path)
    (path,) = _folder(tmp_path).glob("*.pb")
    written = path.stat().st_mtime_ns
    assert path.with_suffix(".sha256").exists()
    _run(tmp_path, traced=3)
    assert [path.stat().st_mtime_ns for path in _folder(tmp_path).glob("*.pb")] == [written]


@pytest.mark.ci
@pytest.mark.parametrize("damage", [lambda code: code[:-9], lambda code: code[:99] + b"?" + code[100:]])
def test_a_damaged_program_is_compiled_again(tmp_path, damage):
    _run(tmp_path)
    (path,) = _folder(tmp_path).glob("*.pb")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    _run(tmp_path)
    assert len(path.read_bytes()) == len(whole)
    assert file_sha256(str(path)) == path.with_suffix(".sha256").read_text()


@pytest.mark.ci
@pytest.mark.parametrize("name", ["it's my cache", 'the "käche" a=b'])
def test_a_folder_of_any_name_is_the_one_that_is_written(tmp_path, name):
    _run(tmp_path / name)
    assert len([*_folder(tmp_path / name).glob("*.pb")]) == 1 and [*tmp_path.iterdir()] == [tmp_path / name]


def test_a_folder_that_no_quotes_hold_is_not_used(tmp_path):
    KeptPrograms(tmp_path / 'it\'s "mine"')
    assert FLAGS not in os.environ and not [*tmp_path.iterdir()]


def test_a_digest_that_is_no_text_is_none(tmp_path):
    KeptPrograms(tmp_path)
    path = _a_program(tmp_path, seconds_ago=90)
    path.with_suffix(".sha256").write_bytes(b"\xff\xfe\0")
    KeptPrograms(tmp_path)
    assert not path.exists()


def test_what_has_no_digest_is_dropped_unless_it_was_written_just_now(tmp_path):
    KeptPrograms(tmp_path)
    old, new = (_a_program(tmp_path, name, seconds_ago=age, sealed=False) for name, age in (("old", 90), ("new", 1)))
    sealed = _a_program(tmp_path, "sealed", seconds_ago=90)
    half, halves = _folder(tmp_path) / "half.pb.tmp", _folder(tmp_path) / "now.pb.tmp"
    for path, age in ((half, 4000), (halves, 10)):
        path.write_bytes(b"co")
        os.utime(path, (time.time() - age,) * 2)
    KeptPrograms(tmp_path)
    assert [path.exists() for path in (old, new, sealed, half, halves)] == [False, True, True, False, True]


def test_the_oldest_give_way(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_programs, "_MOST", 2)
    KeptPrograms(tmp_path)
    paths = [_a_program(tmp_path, str(age), seconds_ago=age) for age in (300, 100, 200)]
    KeptPrograms(tmp_path)
    assert [path.exists() for path in paths] == [False, True, True]
    assert [path.with_suffix(".sha256").exists() for path in paths] == [False, True, True]


def test_flags_of_the_user_stay(tmp_path, monkeypatch):
    monkeypatch.setenv(FLAGS, "--tf_xla_clustering_debug")
    KeptPrograms(tmp_path)
    folder = _folder(tmp_path)
    assert os.environ[FLAGS].split() == [
        "--tf_xla_clustering_debug",
        f"--tf_xla_persistent_cache_directory='{folder}'",
        "--tf_xla_persistent_cache_device_types=CPU",
    ]
    monkeypatch.setenv(FLAGS, "--tf_xla_persistent_cache_directory=/of/the/user")
    KeptPrograms(tmp_path / "other")
    assert os.environ[FLAGS] == "--tf_xla_persistent_cache_directory=/of/the/user"
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("reason", ["a file", "no room"])
def test_nothing_is_kept_where_it_cannot_be(tmp_path, monkeypatch, reason):
    if reason == "a file":
        (tmp_path / "cache").write_text("")
    else:
        monkeypatch.setattr(kept_programs, "_ROOM", 1 << 62)
    kept = KeptPrograms(tmp_path / "cache")
    assert FLAGS not in os.environ
    assert kept.on_first_call(lambda x: x + 1)(1) == 2


def test_processors_and_flags_of_xla_have_folders_of_their_own(tmp_path, monkeypatch):
    for cpu, flags in (("one", ""), ("two", ""), ("two", "--xla_cpu_enable_fast_math")):
        monkeypatch.setattr(kept_programs, "this_cpu", lambda cpu=cpu: cpu)
        monkeypatch.setenv("XLA_FLAGS", flags)
        monkeypatch.delenv(FLAGS, raising=False)
        KeptPrograms(tmp_path)
    assert len([*tmp_path.iterdir()]) == 3


def test_functions_are_counted_from_a_round_number():
    def number():
        tensorflow_names.count_functions_anew()
        return int(tf.function(lambda: tf.ones(2)).get_concrete_function().name.decode().split("_")[-1])

    first = number() % (1 << 18)
    tf.function(lambda: tf.zeros(2)).get_concrete_function()
    assert number() % (1 << 18) == first
