"""The program serve on a trained run: started, asked, ended; and what a kill leaves behind."""

import http.client
import json
import re
import socket
import subprocess

import numpy as np
import pytest

import tpu_retinamask
from tpu_retinamask.errors import UserError
from tpu_retinamask.programs import command_line, early_checks


@pytest.fixture
def started(program, trained, tmp_path):
    """Start serve: started(flag, ...) -> (process, connection, lines it said); its temporary files go to tmp_path."""
    processes = []

    def start(*flags):
        process = subprocess.Popen(
            program.command("serve", f"--model_dir={trained[0]}", "--port=0", *flags),
            cwd=program.folder,
            stderr=subprocess.PIPE,
            text=True,
            env=program.environment | {"TMPDIR": str(tmp_path)},
        )
        processes.append(process)
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"ready: http://127\.0\.0\.1:(\d+)", line):
                return process, http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60), said
        raise AssertionError("".join(said)[-3000:])

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def _files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_it_answers_what_the_detector_finds_and_leaves_nothing_behind(started, trained, shapes, tmp_path):
    before = _files(trained[0])
    process, connection, said = started("--threshold=0.2", "--gin_param=train.jit_compile = False")
    assert any("compiling detection" in line for line in said)
    connection.request("POST", "/detect?masks=rle", (shapes / "two.png").read_bytes())
    told = json.loads(connection.getresponse().read())
    (expected,) = tpu_retinamask.load(str(trained[0]), jit_compile=False)(shapes / "two.png")
    rows = np.flatnonzero(expected.scores >= 0.2)
    assert len(rows) >= 2 and [one["class"] for one in told["detections"]] == [expected.names[row] for row in rows]
    np.testing.assert_allclose([one["box"] for one in told["detections"]], expected.boxes[rows], atol=2e-3)
    connection.close()
    connection.putrequest("POST", "/detect")
    connection.putheader("Content-Length", "100000")
    connection.endheaders(bytes(50000))
    process.kill()
    process.wait()
    assert list(tmp_path.iterdir()) == [] and _files(trained[0]) == before


@pytest.mark.parametrize("missing", early_checks.SERVER)
def test_without_its_extra_it_says_what_to_install(monkeypatch, missing):
    find = early_checks.importlib.util.find_spec
    monkeypatch.setattr(early_checks.importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    flags, _ = command_line.parse("serve", ["--model_dir=run"])
    with pytest.raises(UserError, match=rf"^serve needs {missing}: pip install 'tpu_retinamask\[serve\]'$"):
        early_checks.check("serve", flags)
    flags, _ = command_line.parse("predict", ["--model_dir=run", "--output_dir=out"])
    early_checks.check("predict", flags)  # no other program asks for it


def test_a_port_that_is_taken_is_told_before_a_model_is_looked_for(quick_program, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = quick_program("serve", f"--model_dir={tmp_path}", f"--port={port}")
    assert done.returncode == 2 and f"error: --host=127.0.0.1 --port={port}: cannot be listened on" in done.stderr
