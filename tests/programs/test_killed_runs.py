"""Many kills of one training, at random moments and while it saves; the long version is a program of its own."""

import pathlib
import subprocess
import sys

import pytest

KILLS = {"tensorflow": 6, "pjrt": 2}


@pytest.mark.slow  # a kill of each is in test_train_program and test_pjrt_program
@pytest.mark.parametrize("runtime", ["tensorflow", "pjrt"])
def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path, program, runtime):
    if runtime == "pjrt":
        pytest.importorskip(
            "jax", reason="NO JAX: Python 3.10 has none that is supported, so no run of PJRT was killed"
        )
    script = pathlib.Path(__file__).with_name("killed_runs.py")
    done = subprocess.run(
        [
            sys.executable,
            script,
            f"--folder={tmp_path}/runs",
            f"--kills={KILLS[runtime]}",
            "--steps=30",
            "--every=3",
            f"--runtime={runtime}",
        ],
        cwd=program.folder,
        env=program.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "optimizer" in done.stdout and ": 0 differ" in done.stdout
