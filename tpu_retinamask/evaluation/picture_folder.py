"""A folder of pictures as one whole: a list of its files comes first, and nothing of anyone else's is replaced."""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tpu_retinamask.errors import UserError, listed
from tpu_retinamask.files import holds_nothing, read_text, remove_file, write_json_atomically

LIKE_RESULTS = "predictions."  # with what the names of files begin that lie beside the pictures


def take_over(
    folder: str,
    index: str,
    entries: Sequence[Mapping[str, Any]],
    *,
    flag: str,
    last: str | None = None,
    inputs: Iterable[str] = (),
    as_written: Callable[[str], bool | None] = lambda path: None,
) -> None:
    """Begin a run's files: what an earlier one left in the folder goes, then the list of the new ones is written.

    A file is ours if a list of ours names it. So a run that was killed is known by its list, to whoever comes next,
    and by the lack of what is written last, to whoever reads.

    Args:
      folder: of the files; local or a URL.
      index: name of the list, a JSON file.
      entries: what it is to hold; each says its `files`, by their names below the folder, or the name of its `picture`.
      flag: that named the folder: "--output_dir".
      last: name of the file that is written when all others are there.
      inputs: files that are read, and never replaced.
      as_written: tells of a path whether what lies there is as a run wrote it; None: that cannot be told.

    Raises:
      UserError: a file would be replaced that is read, that was changed since, or that no earlier run wrote.
      WriteError: the folder cannot be written.
    """
    path = os.path.join(folder, index)
    before = files_of(path)
    new = {name for entry in entries for name in _named(entry)}
    if not all(map(_is_ours, new)):
        raise ValueError(f"take_over: got {sorted(new)}; expected FOLDER/NAME, NAME.png or {LIKE_RESULTS}KIND")
    strange = []
    if before is None:
        strange = [name for name in (index, last) if name and not holds_nothing(os.path.join(folder, name))]
    old = set(before or ())
    told = {
        name: as_written(os.path.join(folder, name))
        for name in sorted(old | new)
        if tf.io.gfile.exists(os.path.join(folder, name))
    }
    strange += [name for name, ours in told.items() if name not in old and ours is not True]
    if strange:
        raise UserError(
            f"{flag}={folder} holds files of the same names that no earlier run wrote: give another folder, or remove "
            f"them:\n{listed(strange)}"
        )
    changed = [name for name, ours in told.items() if ours is False]
    if changed:
        raise UserError(
            f"{flag}={folder} holds files that were changed after an earlier run wrote them, and would be replaced: "
            f"give another folder, or move them away:\n{listed(changed)}"
        )
    read = {os.path.realpath(file) for file in inputs if "://" not in file}
    replaced = sorted(name for name in new | old if os.path.realpath(os.path.join(folder, name)) in read)
    if replaced:
        raise UserError(
            f"{flag}={folder} holds pictures that are read, which would be replaced: give another folder:\n"
            + listed(replaced)
        )
    for name in ([last] if last else []) + sorted(old):
        remove_file(os.path.join(folder, name))
    for name in {os.path.dirname(name) for name in old} - {""}:
        with contextlib.suppress(OSError):  # it holds something of another's, or is a bucket's
            os.rmdir(os.path.join(folder, name))
    write_json_atomically(path, list(entries))


def files_of(index: str) -> list[str] | None:
    """Return the files that a list names, below its folder; None: there is no list, or none of ours."""
    if holds_nothing(index):
        return None
    try:
        entries = json.loads(read_text(index))
        names = [name for entry in entries for name in _named(entry)]
    except (UserError, ValueError, LookupError, TypeError, RecursionError):
        return None
    # A list may have been written by anyone: what it names lies below it, and has a name that we give.
    if not isinstance(entries, list) or not all(map(_is_ours, names)):
        return None
    folder = os.path.dirname(index)
    if any(os.path.islink(os.path.join(folder, os.path.dirname(name))) for name in names if "/" in name):
        return None
    return names


def _named(entry: Mapping[str, Any]) -> list[str]:
    return list(entry["files"]) if "files" in entry else [entry["picture"]]


def _is_ours(name: Any) -> bool:
    if not isinstance(name, str) or "\\" in name or "\0" in name:
        return False
    *folders, base = name.split("/")
    if len(folders) > 1 or any(part in ("", ".", "..") for part in (*folders, base)):
        return False
    return bool(folders) or base.lower().endswith(".png") or base.startswith(LIKE_RESULTS)
