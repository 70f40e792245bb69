"""One holder: what a program writes into is its own until it ends, and a second one is told by name who has it.

The lock is one of the operating system (flock) on a small file beside what is held, so that it ends with its process,
however that ends: what a `kill -9` leaves of it holds nobody up. It binds on the disks of one machine, and on NFS where
all its machines lock by the server. A bucket (gs://) has nothing of the kind: there two at once are not noticed.
"""

import contextlib
import datetime
import json
import logging
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator

from tpu_retinamask.errors import UserError
from tpu_retinamask.files import WriteError, is_temporary

try:
    import fcntl
except ImportError:  # where there is no flock, nothing is locked
    fcntl = None

log = logging.getLogger(__name__)

LOCK = ".retinamask.lock"
_A_DAY = 86400  # seconds; no file is written for longer
_ours: set[int] = set()  # descriptors of the locks that this process has


class HeldError(UserError):
    """Another process writes there."""


@contextlib.contextmanager
def held_folder(folder: str, program: str, flag: str) -> Iterator[None]:
    """Hold a folder, which is made where it is missing, for as long as the block lasts, or the process.

    What writers that were killed left half-written in it is removed; a folder that was made and stays empty is too.

    Args:
      folder: local or a URL; of a URL nothing is held.
      program: who holds it, as the user knows it.
      flag: that named it, as the user gave it: "--model_dir".

    Raises:
      HeldError: another process holds it; says which, and what to do.
      WriteError: it cannot be written.
    """
    with _held(folder, LOCK, folder, program, flag):
        yield


@contextlib.contextmanager
def held_file(path: str, program: str, flag: str) -> Iterator[None]:
    """Hold a file that is to be written, whether it is there or not; else as `held_folder`.

    Raises:
      HeldError: another process holds it; says which, and what to do.
      WriteError: its folder cannot be written.
    """
    folder, name = os.path.split(path)
    with _held(folder or ".", f".{name[:100]}{LOCK}", path, program, flag):  # cut: a name may be as long as can be
        yield


@contextlib.contextmanager
def _held(folder: str, lock: str, what: str, program: str, flag: str) -> Iterator[None]:
    """Hold what a lock file in a folder stands for."""
    if fcntl is None or "://" in folder:
        yield
        return
    made = _make(folder)
    try:
        number = _take(os.path.join(folder, lock), what, flag)
        try:
            _write_down(number, program)
            clear_leftovers(folder)
            yield
        finally:
            if number in _ours:  # and not of a parent that forked this process
                _ours.remove(number)
                with contextlib.suppress(OSError):
                    os.remove(os.path.join(folder, lock))  # while it is ours: see `_take`
                os.close(number)
    finally:
        for parent in made:
            with contextlib.suppress(OSError):  # it holds something by now
                os.rmdir(parent)


def _make(folder: str) -> list[str]:
    """Make a folder; return it and those above it that were not there, the innermost first."""
    missing, there = [], os.path.abspath(folder)
    while not os.path.lexists(there):
        missing.append(there)
        there = os.path.dirname(there)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder} cannot be written: {error.strerror}; give another") from error
    return missing


def _take(lock: str, what: str, flag: str) -> int | None:
    """Return the descriptor of a lock file that is ours; None where the file system knows no locks."""
    assert fcntl is not None  # asked for by `_held`
    while True:
        try:
            # Never through a link, and never waiting for a pipe: a folder may come from a stranger.
            number = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            raise WriteError(f"{what} cannot be written: {lock}: {error.strerror}; give another {flag}") from error
        try:
            there = os.fstat(number)
            if not stat.S_ISREG(there.st_mode):
                raise WriteError(f"{what} cannot be written: {lock} is no file; remove it, or give another {flag}")
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(there, os.lstat(lock)):
                _ours.add(number)
                return number
        except FileNotFoundError:  # who held it ended, and removed it
            pass
        except BlockingIOError as error:
            raise HeldError(
                f"{flag}={what} is in use{_holder(number)}: wait until that ends, stop it, or give another {flag}"
            ) from error
        except OSError as error:
            log.warning("%s cannot be locked (%s): see to it that nothing else writes there", what, error.strerror)
            return None
        finally:
            if number not in _ours:
                os.close(number)


def _let_go() -> None:
    """Close what a parent holds: its children must not hold it for longer than it lives."""
    for number in _ours:
        os.close(number)
    _ours.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _write_down(number: int | None, program: str) -> None:
    """Tell in a lock file who holds it."""
    if number is None:
        return
    now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    told = {"program": program, "host": socket.gethostname(), "pid": os.getpid(), "since": now}
    with contextlib.suppress(OSError):  # a full disk: then only the name is missing from a refusal
        os.ftruncate(number, 0)
        os.pwrite(number, json.dumps(told).encode(), 0)


def _holder(number: int) -> str:
    """Return who holds a lock file, as far as it tells."""
    for _ in range(20):  # a second: it may be about to write its name
        try:
            told = json.loads(os.pread(number, 4096, 0))
            if _runs(int(told["pid"])) or told["host"] != socket.gethostname():  # or it is of the one before
                return f" by {told['program']}, process {int(told['pid'])} on {told['host']}, since {told['since']}"
        except (OSError, ValueError, LookupError, TypeError):
            pass
        time.sleep(0.05)
    return " by another process"


def clear_leftovers(folder: str) -> None:
    """Remove what writers of this machine that are no more left half-written in a folder, and what is a day old."""
    for name in () if "://" in folder or not os.path.isdir(folder or ".") else os.listdir(folder or "."):
        if not is_temporary(name):
            continue
        with contextlib.suppress(OSError, ValueError):
            path = os.path.join(folder, name)
            if not _runs(int(name.split("-")[1])) or time.time() - os.path.getmtime(path) > _A_DAY:
                if os.path.isdir(path) and not os.path.islink(path):  # of an export
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    os.remove(path)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
