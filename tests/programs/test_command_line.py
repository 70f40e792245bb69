"""The command `retinamask` and the flags of every program, without TensorFlow."""

import os
import subprocess
import sys

import pytest
from absl import flags as absl_flags

from tpu_retinamask import cli
from tpu_retinamask.programs import command_line
from tpu_retinamask.version import __version__


@pytest.mark.parametrize("program", command_line.PROGRAMS)
def test_help_tells_what_the_program_does_and_ends_well(program, capsys):
    assert cli.main([program, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"python -m tpu_retinamask.{program} " in said
    flags, _ = command_line.parse(program, ["--help"])
    for name in flags:
        if flags[name].short_name != name:
            assert f"--{name}: " in said or f"--[no]{name}: " in said


def test_the_overview_names_every_program_and_the_version(capsys):
    assert cli.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in command_line.PROGRAMS)
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out == f"tpu_retinamask {__version__}\n"


def test_help_imports_no_tensorflow():
    code = (
        "import sys; from tpu_retinamask.cli import main; main(['train', '--help']); print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["trian"], ["no program 'trian'", "train"]),
        (["train", "--model_dir=x", "--stepz=3"], ["Unknown command line flag 'stepz'", "retinamask train --help"]),
        (["train"], ["--model_dir", "must have a value"]),
        (["train", "--model_dir=x", "--replicas=two"], ["replicas", "two"]),
        (["train", "--model_dir=x", "a.csv"], ["a.csv", "every option is a flag"]),
        (["convert", "voc"], ["voc", "coco", "csv"]),
        (["convert", "coco", "csv"], ["unknown arguments: ['csv']"]),
    ],
    ids=" ".join,
)
def test_a_slip_is_told_at_once(arguments, words, capsys):
    assert cli.main(arguments) == cli.WRONG_FLAGS
    said = capsys.readouterr().err
    assert all(word in said for word in words), said


def test_the_flags_of_one_call_are_not_those_of_the_next():
    first, _ = command_line.parse("train", ["--model_dir=a", "--gin_param=train.steps = 1"])
    second, _ = command_line.parse("train", ["--model_dir=b"])
    assert (first.model_dir, second.model_dir, second.gin_param) == ("a", "b", [])
    with pytest.raises(absl_flags.Error, match="annotations"):
        command_line.parse("data_service", ["--annotations=a.csv"])


def test_flags_may_come_from_a_file(tmp_path):
    (tmp_path / "flags.txt").write_text("--model_dir=runs/a\n--replicas=2\n")
    flags, _ = command_line.parse("train", [f"--flagfile={tmp_path}/flags.txt"])
    assert (flags.model_dir, flags.replicas) == ("runs/a", 2)


def test_modes_may_stand_before_or_behind_flags():
    for arguments in (["coco", "--masks=m"], ["--masks=m", "coco"]):
        flags, modes = command_line.parse("convert", arguments)
        assert modes == ["coco"] and flags.masks == "m"


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["train", "--annotations=gone.csv", "--model_dir=run"], 2, "error: gone.csv: no such file"),
        (["evaluate", "--annotations=gone/data.yaml#val", "--model_dir=run"], 2, "gone/data.yaml#val: no such file"),
        (["train", "--model_dir=run", "--gin_param=train.epoch=1"], 2, "did you mean train.epochs?"),
        (["convert", "--annotations=gone.csv", "--classes=new.csv", "--output=a.csv"], 2, "gone.csv: no such file"),
        (["train", "--help"], 0, ""),
        (["--version"], 0, ""),
    ],
)
def test_a_slip_is_told_before_tensorflow_is_there(arguments, code, words, tmp_path):
    script = f"""
import sys
from tpu_retinamask.cli import main
code = main({arguments!r})
assert not {{"tensorflow", "keras", "jax"}} & set(sys.modules), "imported"
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == code and words in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "body, code, said",
    [("return 3", 3, "handler\n"), ("raise RuntimeError('a fault of ours')", 1, "handler\nobject\n")],
)
def test_a_process_ends_after_the_exit_handlers_without_taking_itself_apart(body, code, said):
    script = f"""
import atexit, sys
from tpu_retinamask import cli
class Slow:
    def __del__(self):
        print("object")
def main(arguments):
    atexit.register(print, "handler")
    {body}
kept, cli.main = Slow(), main
sys.exit(cli.process([]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (code, said)
    assert ("a fault of ours" in done.stderr) == (code == 1)


@pytest.mark.parametrize(
    "shell, code, words",
    [
        ("train --annotations=gone.csv --model_dir=run 2>&-", 2, ""),
        ("train --help >&-", 0, ""),
        ("train --help >/dev/full", 2, "could not be written: No space left on device"),
        ("train --help | head -1", 0, ""),
    ],
)
def test_closed_and_full_streams(shell, code, words, tmp_path):
    command = f"set -o pipefail; {sys.executable} -m tpu_retinamask {shell}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr
