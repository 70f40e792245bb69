"""Many kills of one training, at random moments and while it saves; the long version is a program of its own."""

import pathlib
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path, program):
    script = pathlib.Path(__file__).with_name("killed_runs.py")
    done = subprocess.run(
        [sys.executable, script, f"--folder={tmp_path}/runs", "--kills=6", "--steps=30", "--every=3"],
        cwd=program.folder,
        env=program.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "optimizer" in done.stdout and ": 0 differ" in done.stdout
