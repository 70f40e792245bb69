"""What all that read and write files share: regular files alone, whole or as they were, and the reason of a failure."""

import contextlib
import errno
import hashlib
import json
import os
import re
import uuid
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.file_kinds import refuse_no_file

MOST_BYTES = 4 << 30  # of a file that is read whole: more is no list, no text and no picture of anyone's

_TEMPORARY = re.compile(r"\.retinamask-\d+-[0-9a-f]{8}\.tmp")


class WriteError(UserError):
    """A file could not be written."""


def write_json_atomically(path: str | os.PathLike, content: Any, indent: int | None = None) -> None:
    """Write JSON as `write_atomically` does."""
    write_atomically(path, json_text(content, indent))


def json_text(content: Any, indent: int | None = None) -> str:
    """Return content as JSON, which knows no number that is not finite.

    Raises:
      ValueError: there is one.
    """
    return json.dumps(content, allow_nan=False, indent=indent)


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write text or bytes to a temporary file of the same folder, then rename it to `path` (local or gs://).

    Where a symbolic link is, the file that it names is written.

    Raises:
      WriteError: it cannot be written, or is a folder or a device; what was there is as it was.
    """
    write_together([(path, content)])


def write_together(contents: Sequence[tuple[str | os.PathLike, str | bytes]]) -> None:
    """Write files that belong together, each as `write_atomically` does; the last says that the others are whole.

    All are written under temporary names, and are on the disk, before any takes its place, so that a full disk and a
    loss of power leave those that were there. Then the last is removed, and it is the last that comes: a process that
    is killed leaves no old one beside new ones.

    Raises:
      WriteError: one cannot be written.
    """
    places = [_place_of(os.fspath(path)) for path, _ in contents]
    temporaries: list[str] = []
    path = ""
    try:
        for path, (_, content) in zip(places, contents):
            folder = os.path.dirname(path)
            if folder:
                tf.io.gfile.makedirs(folder)
            temporaries.append(os.path.join(folder, temporary_name()))
            with tf.io.gfile.GFile(temporaries[-1], "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
            force(temporaries[-1])
        if len(places) > 1 and tf.io.gfile.exists(places[-1]):
            tf.io.gfile.remove(places[-1])
        for path, temporary in zip(places, temporaries):
            tf.io.gfile.rename(temporary, path, overwrite=True)
    except (tf.errors.OpError, OSError) as error:
        reason = reason_of(error)
        for temporary in temporaries:
            reason = reason.replace(f"{temporary}; ", "")
        raise WriteError(f"{path} could not be written: {reason}") from error
    finally:
        for temporary in temporaries:
            with contextlib.suppress(tf.errors.OpError):
                if tf.io.gfile.exists(temporary):
                    tf.io.gfile.remove(temporary)


def force(path: str) -> None:
    """See that a local file is on its disk; what a bucket has taken it keeps.

    A file that is renamed before may be empty after a loss of power. The rename itself may be undone by that: it leaves
    what was there, and needs no second wait for the disk.

    Raises:
      OSError: the disk failed, or is full.
    """
    if "://" in path:
        return
    number = os.open(path, os.O_RDWR)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that has nothing of the kind
            raise
    finally:
        os.close(number)


def _place_of(path: str) -> str:
    if os.path.islink(path):
        path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise WriteError(f"{path} could not be written: what is there is no file; give another")
    return path


def temporary_name() -> str:
    """Return a name for a file that does not stay, by which `holding` knows what a killed process left."""
    return f".retinamask-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"


def is_temporary(name: str) -> bool:
    """Tell whether a name is of `temporary_name`."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_file(path: str) -> None:
    """Remove a file, where there is one.

    Raises:
      WriteError: it cannot be removed.
    """
    try:
        tf.io.gfile.remove(path)
    except tf.errors.NotFoundError:
        pass
    except tf.errors.OpError as error:
        raise WriteError(f"{path} could not be removed: {reason_of(error)}") from error


def holds_nothing(path: str) -> bool:
    """Tell whether there is no file, or one without a byte, as of a program that was killed while it wrote in place.

    Raises:
      WriteError: it cannot be told.
    """
    try:
        return tf.io.gfile.stat(path).length == 0 and not tf.io.gfile.isdir(path)
    except tf.errors.NotFoundError:
        return True
    except tf.errors.OpError as error:
        raise WriteError(f"{path} could not be looked at: {reason_of(error)}") from error


def check_folder(folder: str) -> None:
    """Refuse a folder that cannot be written or made, before anything is worked out for it; makes none.

    Raises:
      UserError: it, or what it would lie in, is no folder or may not be written.
    """
    if "://" in folder:
        return
    there = os.path.abspath(folder)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise UserError(f"{folder} cannot be written: {there} is no folder; give another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written: no permission for {there}; give another")


def reason_of(error: Exception) -> str:
    """Return what an error of the file system says, on one line."""
    text = (getattr(error, "message", None) or str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"^\{\{.*?\}\} ", "", text)  # the operation of TensorFlow's that met it


def read_text(path: str) -> str:
    """Read a whole text file in UTF-8, with or without a byte order mark, local or gs://.

    Raises:
      FileNotFoundError: it does not exist.
      UserError: it cannot be read, or holds something else.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected text in UTF-8, got a byte that is none: {error}") from error


def read_bytes(path: str, most: int = MOST_BYTES) -> bytes:
    """Read a whole file, local or gs://.

    Args:
      path: of a regular file.
      most: bytes that it may have.

    Raises:
      FileNotFoundError: it does not exist.
      UserError: it is no file, too large, or cannot be read.
    """
    refuse_no_file(path)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            size = file.size()
            if size > most:
                raise UserError(f"{path}: {size:,} bytes, expected at most {most:,}")
            return file.read(size)
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except tf.errors.OpError as error:
        if "://" not in path and not os.path.lexists(path):  # below a file instead of a folder
            raise FileNotFoundError(f"{path}: no such file") from error
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error


def read_if_there(path: str, most: int = MOST_BYTES) -> bytes | None:
    """Read a whole file as `read_bytes` does; None where there is none."""
    try:
        return read_bytes(path, most)
    except FileNotFoundError:
        return None


def read_head(path: str, count: int) -> bytes:
    """Read the first bytes of a file; none of what cannot be read, whatever the reason."""
    try:
        refuse_no_file(path)
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read(count)
    except (tf.errors.OpError, UserError):
        return b""


def list_folder(folder: str) -> list[str]:
    """Return the names in a folder, local or gs://; folders in it may end in "/".

    Raises:
      tf.errors.OpError: it is none, or cannot be read.
    """
    try:
        return tf.io.gfile.listdir(folder)
    except UnicodeDecodeError:  # a name that is no UTF-8, which TensorFlow passes on but cannot say
        return sorted(os.listdir(folder))


def file_sha256(path: str) -> str | None:
    """Return the SHA-256 of a file in hexadecimal; None where there is none.

    Raises:
      UserError: it is no file, or cannot be read.
    """
    refuse_no_file(path)
    digest = hashlib.sha256()
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            while part := file.read(1 << 22):
                digest.update(part)
    except tf.errors.NotFoundError:
        return None
    except tf.errors.OpError as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
    return digest.hexdigest()
