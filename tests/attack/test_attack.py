"""A share of `make attack` in the suite, and that it notices what it looks for."""

import itertools
import json
import subprocess
import sys
import warnings
from pathlib import Path

import gin
import pytest
from attack import tries
from attack.damage import CUT, FLIP, damaged, forged
from attack.isolated import in_order
from attack.subjects import SUBJECTS, Subject
from attack.tries import OTHER, REFUSED, SAME, Target, Try

from tpu_retinamask.errors import UserError

TRIES = 12  # a subject; another seed each week finds no more than `make attack` does, and the same one is repeatable


@pytest.fixture(autouse=True)
def _no_settings_of_others():
    yield
    gin.clear_config()


@pytest.mark.parametrize("name", SUBJECTS)
def test_damaged_and_forged_files_are_refused_by_name_or_harmless(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # programs do not make errors of them
        target = Target(name, tmp_path, seed=0)
        found = {str(one): target.attempt(one) for one in itertools.islice(in_order(target), TRIES)}
    assert {key: told for key, (outcome, told) in found.items() if outcome not in (REFUSED, SAME, OTHER)} == {}
    assert all(outcome != OTHER for outcome, _ in found.values()) or not SUBJECTS[name].guarded or SUBJECTS[name].sign


def test_damages_are_made_again_from_their_names():
    content = b'{"count": 3, "dtype": "<f4"}'
    for place in range(len(content)):
        one = damaged(content, FLIP, place)
        assert sum(bin(a ^ b).count("1") for a, b in zip(content, one)) == 1 and one[place] != content[place]
        assert damaged(content, CUT, place) == content[:place]
    some = {forged(content, f"0/{number}") for number in range(200)}
    assert len(some) > 100 and some == {forged(content, f"0/{number}") for number in range(200)}
    assert any(b"9223372036854775807" in one for one in some) and any(b"<f4" not in one for one in some)


def _reads(do):
    return Subject(lambda folder: (folder / "f").write_text("12345") and "", lambda folder, _: do(folder / "f"), ("f",))


def _refuse(text):
    raise UserError(text)


def _lose(folder):
    raise AssertionError("lost files of the user's")


WRONG = {
    "traceback": (tries.TRACEBACK, lambda path: int(path.read_text())),
    "accepted": (tries.ACCEPTED, lambda path: path.read_bytes()),
    "no name": (tries.UNNAMED, lambda path: path.read_text() == "12345" or _refuse("something is wrong")),
    "lost": (tries.LOST, lambda path: path.read_text() == "12345" or _lose(path)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_it_notices_what_it_looks_for(kind, tmp_path, monkeypatch):
    expected, read = WRONG[kind]
    monkeypatch.setitem(SUBJECTS, "bad", _reads(read)._replace(guarded=True))
    target = Target("bad", tmp_path, 0)
    outcome, told = target.attempt(Try("f", CUT, 0) if kind == "traceback" else Try("f", CUT, 2))
    assert outcome == expected and told
    assert (target.folder / "f").read_text() == "12345"  # put back


BITING = """
import os, signal, sys, time
from pathlib import Path
from attack import isolated, subjects
isolated.PATIENCE = 1.0
reads = {"crash": lambda f: os.kill(os.getpid(), signal.SIGSEGV), "hang": lambda f: time.sleep(60),
         "memory": lambda f: bytearray(1 << 40)}
for name, do in reads.items():
    read = lambda folder, _, do=do: len((folder / "f").read_bytes()) == 5 or do(folder)
    subjects.SUBJECTS[name] = subjects.Subject(lambda folder: (folder / "f").write_bytes(b"12345") and "", read, ("f",))
    print(name, sorted(isolated.attack(name, Path(sys.argv[1]), 0, 2.5).counts))
"""


@pytest.mark.ci
def test_a_crash_and_a_hang_are_noted_and_the_next_try_begins(tmp_path, program_environment):
    environment = program_environment | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", BITING, str(tmp_path)], capture_output=True, text=True, check=False, env=environment
    )
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert "'crash'" in told["crash"] and "'hang'" in told["hang"] and "'traceback'" in told["memory"], done.stderr


@pytest.mark.ci  # the rest is `make attack`
def test_killed_and_in_pairs_writers_end_right(tmp_path, program_environment):
    environment = program_environment | {"PYTHONPATH": str(Path(__file__).parents[1])}
    flags = [f"--folder={tmp_path}", "--minutes=0.1", "--seed=1", "--only=(convert|prepare)( and (convert|prepare))?"]
    done = subprocess.run(
        [sys.executable, "-m", "attack", *flags, "--kinds", "kill", "pair"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "attack.json").read_text())["rows"]
    assert {row["kind"] for row in rows} == {"kill", "pair"} and all(row["tries"] for row in rows)
