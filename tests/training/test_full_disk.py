"""A disk that is full for a while costs the checkpoints of that while, and is told."""

import pathlib
import shutil
import subprocess
import sys

import pytest

DISK = 'mount -t tmpfs -o size=6m none "$0" && '


def _on_a_small_disk(folder, command):
    """Run a command where `folder` is a disk of 6 MB; needs a kernel that gives users name spaces of their own."""
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", DISK + command, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.ci
def test_the_training_goes_on_over_a_full_disk(tmp_path):
    if shutil.which("unshare") is None or _on_a_small_disk(tmp_path, "true").returncode:
        pytest.skip("no disk of our own can be mounted here")
    script = pathlib.Path(__file__).with_name("full_disk.py")
    done = _on_a_small_disk(tmp_path, f'exec {sys.executable} {script} "$0"')
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"refused: --model_dir {tmp_path}/run cannot take a checkpoint of 40.0 MB: " in done.stdout
    assert "No space left on device. Make room" in done.stdout
    for words in (
        "ckpt-6 could not be saved",
        "ckpt-8 could not be saved",
        "best/ckpt-6 could not be saved",
        "SAVED UP TO STEP 4 ONLY",
        "events of step",
        "history.json could not be written",
    ):
        assert words in done.stderr
    assert (
        "kept: [9, 10, 12] [12]" in done.stdout
    )  # of 2, 3, 4, 6, 8, 9, 10 and 12 the last three; 6 and 8 found no room
    assert list(tmp_path.iterdir()) == []
