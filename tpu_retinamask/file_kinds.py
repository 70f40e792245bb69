"""What is a file and what is none, asked before it is opened; no TensorFlow is imported for it."""

import os
import stat

from tpu_retinamask.errors import UserError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def refuse_no_file(path: str | os.PathLike) -> None:
    """Refuse what is there and no file, before it is opened: the reading of a pipe or of a device may never end.

    What is not there, or lies in a bucket, is left to those who open it.

    Raises:
      UserError: a folder, a pipe, a device or a socket; a name that no file has.
    """
    path = os.fspath(path)
    try:
        path.encode()  # TensorFlow takes names in UTF-8
        mode = os.stat(path.removeprefix("file://")).st_mode
    except ValueError as error:  # a zero in it, or bytes that are no text
        raise UserError(f"{path!r} is no name of a file: {error}") from error
    except OSError:
        return
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "something else")
        raise UserError(f"{path} is {kind}, expected a file")
