"""Images and categories of a COCO file by name: a file name needs as many of its folders as tell it from the others."""

import collections
import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

from tpu_retinamask.data.sources.checked import BadEntry, Entry, as_whole
from tpu_retinamask.data.sources.coco_entries import CocoDataset, plain_path
from tpu_retinamask.data.sources.coco_ids import Key, as_key
from tpu_retinamask.errors import UserError


class FileNames:
    """File names, found by paths that end as they do."""

    def __init__(self, names: Mapping[Key, str]) -> None:
        """Take in the file name of each id."""
        self.names = dict(names)
        self._by_last: dict[str, list[Key]] = collections.defaultdict(list)
        for key, name in self.names.items():
            self._by_last[posixpath.basename(name)].append(key)
        self._by_stem: dict[str, list[Key]] = collections.defaultdict(list)
        for key, name in self.names.items():
            self._by_stem[posixpath.splitext(posixpath.basename(name))[0]].append(key)

    def find(self, path: str) -> Key | None:
        """Return the id whose file name shares most of its last parts with a path; None: no name has its last part.

        Raises:
          UserError: several names share as much of it.
        """
        found = self._by_last.get(posixpath.basename(path), [])
        if len(found) <= 1:
            return found[0] if found else None
        shared = {key: _shared_parts(self.names[key], path) for key in found}
        best = [key for key, count in shared.items() if count == max(shared.values())]
        if len(best) > 1:
            raise UserError(
                f"the COCO file has the image {posixpath.basename(path)!r} twice, and {path!r} may be any of "
                f"{', '.join(repr(self.names[key]) for key in best[:5])}"
            )
        return best[0]

    def find_stem(self, text: str) -> Key | None:
        """Return the id whose file name, with its ending or without, is a text; None: there is none, or several."""
        last = posixpath.basename(text)
        found = self._by_last.get(last) or self._by_stem.get(last) or []
        return found[0] if len(found) == 1 else None


class Names:
    """What results may call the images and categories of a COCO file."""

    def __init__(self, dataset: CocoDataset) -> None:
        """Take in a COCO file."""
        self._images = {str(key): key for key in dataset.images}
        self._categories = {str(key): key for key in dataset.categories}
        self._files = FileNames({key: one.file_name for key, one in dataset.images.items() if one.file_name})
        self._category_names = collections.defaultdict(list)
        for key, name in dataset.categories.items():
            self._category_names[name].append(key)

    def image_of(self, entry: Entry) -> tuple[Key | None, bool]:
        """Return the id of a result's image, and whether it was found by name.

        Raises:
          BadEntry: several images may be meant.
        """
        if entry.has("file_name"):
            try:
                return self._files.find(plain_path(entry.text("file_name"))), True
            except BadEntry:
                raise
            except UserError as error:
                raise BadEntry(f"{entry.place}: file_name: {error}") from None
        found = _find(self._images, entry.values["image_id"])
        if found is None and isinstance(entry.values["image_id"], str):
            found = self._files.find_stem(plain_path(entry.values["image_id"]))
            return found, found is not None
        return found, False

    def category_of(self, entry: Entry) -> tuple[Key | None, bool]:
        """Return the id of a result's category, and whether it was found by name.

        Raises:
          BadEntry: several categories have the name.
        """
        if not entry.has("category_name"):
            value = entry.values["category_id"]
            found = _find(self._categories, value)
            alone = self._category_names.get(value.strip(), []) if found is None and isinstance(value, str) else []
            return (alone[0], True) if len(alone) == 1 else (found, False)
        name = entry.text("category_name")
        found = self._category_names.get(name, [])
        if len(found) > 1:
            raise BadEntry(f"{entry.place}: category_name: got {name!r}, which {len(found)} categories are called")
        return (found[0] if found else None), True

    def some(self, field: str) -> str:
        """Return how many images or categories there are, and what the first of them have in a field of results."""
        known: dict[str, list[Any]] = {
            "image_id": list(self._images.values()),
            "file_name": list(self._files.names.values()),
            "category_id": list(self._categories.values()),
            "category_name": list(self._category_names),
        }
        values = known[field]
        return f"{len(values)}, such as {', '.join(map(repr, values[:3]))}" if values else "none"


def unique_matches(files: FileNames, paths: Mapping[Key, str]) -> tuple[dict[Key, Key], list[str]]:
    """Match paths with the file names of a COCO file.

    Args:
      files: of the COCO file.
      paths: our id -> path.

    Returns:
      (our id -> id of the COCO file; the paths that it does not have).

    Raises:
      UserError: a path may be several images, or two paths are one.
    """
    found: dict[Key, Key] = {}
    taken: dict[Key, str] = {}
    missing = []
    for ours, path in paths.items():
        key = files.find(path)
        if key is None:
            missing.append(posixpath.basename(path))
            continue
        if key in taken:
            raise UserError(
                f"the images {taken[key]!r} and {path!r} would both be {files.names[key]!r} of the COCO file: the same "
                "file name needs the same folders in both"
            )
        found[ours], taken[key] = key, path
    return found, missing


def with_names(results: Iterable[dict], files: Mapping[Any, str], classes: Mapping[Any, str]) -> list[dict]:
    """Return results with the names of their images and categories, by which any COCO file is matched.

    Args:
      results: COCO result entries.
      files: image_id -> file name.
      classes: category_id -> name.
    """
    return [
        dict(entry, file_name=files[entry["image_id"]], category_name=classes[entry["category_id"]])
        for entry in results
    ]


def _find(known: Mapping[str, Key], value: Any) -> Key | None:
    key = as_key(value)
    if isinstance(key, str) and key not in known and as_whole(key) is not None:
        key = as_whole(key)
    return None if key is None else known.get(str(key))


def _shared_parts(a: str, b: str) -> int:
    count = 0
    for left, right in zip(reversed(a.split("/")), reversed(b.split("/"))):
        if left != right:
            break
        count += 1
    return count
