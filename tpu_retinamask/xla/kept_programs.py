"""Programs that TensorFlow compiled for this CPU, kept on disk: the next start reads what it would compile again.

TensorFlow itself looks a program up by its own digest and compares the whole of it. What is added here: a folder for
each version and processor, and a digest beside each file, since machine code in which a bit has changed computes
something else, or ends the process.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tpu_retinamask.files import WriteError, file_sha256, write_atomically
from tpu_retinamask.private import tensorflow_names
from tpu_retinamask.xla.processor import this_cpu

log = logging.getLogger(__name__)

_FLAGS, _FOLDER = "TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory"
_ROOM = 1 << 29  # bytes: a full disk would fail the first step; a ResNet-50 step takes a tenth of this
_MOST = 20  # programs of some 10 MB, all of which each start verifies; the oldest give way
_STALE = 3600.0  # seconds
_FRESH = 60.0  # seconds; another process may have compiled it just now, and is about to seal it


class KeptPrograms:
    """The folder that TensorFlow keeps compiled programs in, from the first of these in a process on."""

    def __init__(self, cache_dir: str) -> None:
        """Let TensorFlow use the folder; call it before anything is compiled.

        Nothing is kept where the folder cannot be written, the disk is nearly full, or TF_XLA_FLAGS names another.

        Args:
          cache_dir: folder of compiled programs.
        """
        self._folder = None
        given = os.environ.get(_FLAGS, "")
        folder = pathlib.Path(cache_dir) / _named()
        flag = _flag(folder)
        if flag is None or (_FOLDER in given and flag not in given):
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < _ROOM:
                return
            _drop_what_is_not_whole(folder)
        except OSError as error:
            log.debug("%s: compiled programs are not kept: %s", folder, error)
            return
        if _FOLDER not in given:
            # Only for the CPU, where it was tried.
            more = f"{flag} --tf_xla_persistent_cache_device_types=CPU"
            os.environ[_FLAGS] = f"{given} {more}".strip()  # read when the first program is compiled
        self._folder = folder

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Let what the block traces and compiles be found again, by its name and by the digest of its file."""
        if self._folder is None:
            yield
            return
        tensorflow_names.count_functions_anew()
        yield
        _seal(self._folder)

    def on_first_call(self, function: Callable) -> Callable:
        """Return the function, whose first call is in `compiling`."""
        first = [True]

        def call(*arguments: Any) -> Any:
            with self.compiling() if first else contextlib.nullcontext():
                first.clear()
                return function(*arguments)

        return call


def _named():
    """Return the name of the folder: of all that decides machine code beside the program."""
    decided = repr([this_cpu(), os.environ.get("XLA_FLAGS")])
    return f"tensorflow-{tf.__version__}-{hashlib.sha256(decided.encode()).hexdigest()[:12]}"


def _flag(folder):
    """Return the flag of the folder, in quotes for its blanks; None: no quotes hold it."""
    quote = next((mark for mark in "'\"" if mark not in str(folder)), None)
    return None if quote is None or not str(folder).isprintable() else f"{_FOLDER}={quote}{folder}{quote}"


def _drop_what_is_not_whole(folder):
    whole = []
    for path in folder.glob("*.pb"):
        written, digest = path.stat().st_mtime, path.with_suffix(".sha256")
        if not digest.exists() and time.time() - written < _FRESH:
            continue
        if digest.exists() and digest.read_bytes() == str(file_sha256(str(path))).encode():
            whole.append((written, path))
        else:
            _drop(path)
    for path in folder.glob("*.tmp"):  # of processes that were killed
        if time.time() - path.stat().st_mtime > _STALE:
            path.unlink(missing_ok=True)
    for _, path in sorted(whole)[: max(0, len(whole) - _MOST)]:
        _drop(path)


def _seal(folder):
    """Write the digests of what was compiled since; without one a program is compiled again."""
    for path in folder.glob("*.pb"):
        digest = path.with_suffix(".sha256")
        if not digest.exists() and (found := file_sha256(str(path))):
            with contextlib.suppress(WriteError):
                write_atomically(digest, found)


def _drop(path):
    path.unlink(missing_ok=True)
    path.with_suffix(".sha256").unlink(missing_ok=True)
