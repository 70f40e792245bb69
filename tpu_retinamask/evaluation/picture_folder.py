"""A folder of pictures as one whole: a list of them comes first, and nothing of anyone else's is replaced."""

import json
import os
from collections.abc import Iterable, Sequence

import tensorflow as tf

from tpu_retinamask.errors import UserError, listed
from tpu_retinamask.files import holds_nothing, read_text, remove_file, write_json_atomically


def take_over(
    folder: str, index: str, entries: Sequence[dict], *, flag: str, last: str | None = None, inputs: Iterable[str] = ()
) -> None:
    """Begin a run's pictures: what an earlier one left in the folder goes, then the list of the new ones is written.

    A picture is ours if a list of ours names it. So a run that was killed is known by its list, to whoever comes next,
    and by the lack of what is written last, to whoever reads.

    Args:
      folder: of the pictures; local or a URL.
      index: name of the list, a JSON file.
      entries: what it is to hold; each says the name of its `picture`.
      flag: that named the folder: "--output_dir".
      last: name of the file that is written when all pictures are there.
      inputs: files that are read, and never replaced.

    Raises:
      UserError: a file would be replaced that is read, or that no earlier run wrote.
      WriteError: the folder cannot be written.
    """
    path = os.path.join(folder, index)
    before = pictures_of(path)
    new = {entry["picture"] for entry in entries}
    if before is None:
        strange = [name for name in (index, last) if name and not holds_nothing(os.path.join(folder, name))]
    else:
        strange = []
    old = set(before or ())
    strange += sorted(name for name in new - old if tf.io.gfile.exists(os.path.join(folder, name)))
    if strange:
        raise UserError(
            f"{flag}={folder} holds files of the same names that no earlier run wrote: give another folder, or remove "
            f"them:\n{listed(strange)}"
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
    write_json_atomically(path, list(entries))


def pictures_of(index: str) -> list[str] | None:
    """Return the pictures that a list names; None: there is no list, or none of ours."""
    if holds_nothing(index):
        return None
    try:
        entries = json.loads(read_text(index))
        names = [entry["picture"] for entry in entries]
    except (UserError, ValueError, LookupError, TypeError, RecursionError):
        return None
    # A list may have been written by anyone: what it names lies beside it, and is a picture.
    if not isinstance(entries, list) or not all(isinstance(name, str) and _is_plain(name) for name in names):
        return None
    return names


def _is_plain(name: str) -> bool:
    return os.path.basename(name) == name and name.lower().endswith(".png")
