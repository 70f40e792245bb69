"""A directory that cannot take a checkpoint is named before anything is trained."""

import os
import shutil

import pytest

from tpu_retinamask.errors import UserError
from tpu_retinamask.training.checkpoints.disk_room import require_room


def test_room_is_asked_for_and_nothing_is_left(tmp_path, said):
    require_room(str(tmp_path / "run"), 10_000_000, 4)
    assert os.listdir(tmp_path / "run") == [] and said() == ""
    require_room("ram://room/run", 10**18)  # of a bucket only the writing is tried


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"run cannot take a checkpoint of 1,000,000,000,000.0 MB: .*Make room"):
        require_room(str(tmp_path / "run"), 10**18)
    assert os.listdir(tmp_path / "run") == []


def test_a_place_that_is_no_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/run cannot take a checkpoint"):
        require_room(str(tmp_path / "file" / "run"), 1)


def test_a_directory_without_permission_is_refused():
    with pytest.raises(UserError, match="/proc/run cannot take a checkpoint"):  # where not even root may write
        require_room("/proc/run", 1)


def test_room_for_one_but_not_for_all_is_warned_of(tmp_path, said, monkeypatch):
    (tmp_path / "ckpt").write_bytes(b"x" * 3000)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=6999))
    require_room(str(tmp_path), 2000, 5)  # 3000 of the 10000 lie there already
    assert "the 5 checkpoints that may lie there at once need" in said()


def test_what_lies_there_counts(tmp_path, said, monkeypatch):
    (tmp_path / "ckpt").write_bytes(b"x" * 3000)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=7000))
    require_room(str(tmp_path), 2000, 5)
    assert said() == ""
