"""Writing whole files: over what is there, through links, and never over what is no file."""

import contextlib
import errno
import os
import resource
import stat

import pytest
import tensorflow as tf

from tpu_retinamask.files import WriteError, write_atomically, write_together


def test_a_file_that_is_there_is_written_anew(tmp_path):
    path = tmp_path / "a.json"
    for text in ("first", "second"):
        write_atomically(path, text)
        assert path.read_text() == text
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_file_that_a_link_names_is_written(tmp_path):
    (tmp_path / "kept").mkdir()
    for name in ("there", "not_yet"):
        link = tmp_path / f"{name}.json"
        link.symlink_to(tmp_path / "kept" / name)
        (tmp_path / "kept" / "there").write_text("before")
        write_atomically(link, "after")
        assert link.is_symlink()
        assert (tmp_path / "kept" / name).read_text() == "after"


def _pipe(path):
    os.mkfifo(path)


@pytest.mark.parametrize(("make", "is_one"), [(os.mkdir, stat.S_ISDIR), (_pipe, stat.S_ISFIFO)])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_left_as_it_was(tmp_path, make, is_one, linked):
    """A rename would put a file in the place of a pipe or of a device, /dev/null among them."""
    path = there = tmp_path / "there"
    make(there)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(there)
    with pytest.raises(WriteError, match=r"there could not be written: what is there is no file; give another"):
        write_atomically(path, "text")
    assert is_one(there.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == (["link", "there"] if linked else ["there"])


@contextlib.contextmanager
def _full_disk(room):
    """Let no file of this process become larger than so many bytes, as if the disk were full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_what_was_there(tmp_path):
    (tmp_path / "a").write_text("before")
    with _full_disk(100_000), pytest.raises(WriteError, match=r"/b could not be written: File too large"):
        write_together([(tmp_path / "a", "after"), (tmp_path / "b", b"x" * 200_000)])
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "before"


@pytest.mark.parametrize("at, left", [("a", {"a": "old"}), ("b", {"a": "new"})])
def test_a_killed_writer_leaves_no_old_last_beside_new_ones(at, left, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    rename = tf.io.gfile.rename

    def dies(source, target, overwrite):
        if target.endswith(at):
            raise Killed
        rename(source, target, overwrite)

    for name in "ab":
        (tmp_path / name).write_text("old")
    monkeypatch.setattr(tf.io.gfile, "rename", dies)
    with pytest.raises(Killed):
        write_together([(tmp_path / "a", "new"), (tmp_path / "b", "new")])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == left


def test_files_are_on_the_disk_before_they_take_their_places(tmp_path, monkeypatch):
    """A rename that reaches the disk before the bytes leaves an empty file after a loss of power."""
    done, rename, sync = [], tf.io.gfile.rename, os.fsync

    def renamed(source, target, overwrite):
        done.append(f"rename {os.path.basename(target)}")
        rename(source, target, overwrite)

    def synced(number):
        done.append(f"{os.fstat(number).st_size} bytes")
        sync(number)

    monkeypatch.setattr(tf.io.gfile, "rename", renamed)
    monkeypatch.setattr(os, "fsync", synced)
    write_together([(tmp_path / "a", "a"), (tmp_path / "b", "bb")])
    assert done == ["1 bytes", "2 bytes", "rename a", "rename b"]


def test_a_file_system_that_forces_nothing_onto_its_disk_is_written_all_the_same(tmp_path, monkeypatch):
    def refuses(number):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuses)
    write_atomically(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(WriteError, match="could not be written: .*Input/output error"):
        write_atomically(tmp_path / "a", "after")
    assert (tmp_path / "a").read_text() == "text"
