"""COCO instances json as a source: polygons, run lengths and crowds read as they are, no file written in between.

The classes are the categories in the order of their ids, numbers before texts.
"""

import collections
import contextlib
import decimal
import difflib
import os
import posixpath
import re
from typing import Any

import tensorflow as tf

from tpu_retinamask.data.annotated_image import ListedImage, ListedInstance
from tpu_retinamask.data.annotations.class_names import MAX_CLASS_ID, ClassNames
from tpu_retinamask.data.sources.checked import Faults, load_json, shown
from tpu_retinamask.data.sources.coco_entries import CocoDataset, CocoObject, read_dataset
from tpu_retinamask.data.sources.coco_ids import Key, order_of
from tpu_retinamask.data.sources.first_bytes import first_text
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions, SourceContent
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.errors import UserError, gin_param
from tpu_retinamask.files import list_folder

FIRST_KEY = re.compile(r'\s*\{\s*"(info|licen[sc]es?|images|annotations|categories|type|videos)"\s*:')
LIST_OF_COCO = re.compile(r'"(images|annotations|categories)"\s*:\s*\[')
MOST_NAMED = 10  # classes in one note


class CocoSource:
    """Reads a COCO instances file."""

    def recognise(self, path: str) -> bool:
        """Tell whether a file begins as one of COCO does."""
        head = first_text(path)
        return bool(FIRST_KEY.match(head) and LIST_OF_COCO.search(head))

    def read(self, path: str, classes: ClassNames | None, options: ReadOptions) -> SourceContent:
        """Read the file; see `read_content`."""
        return read_content(load_json(path), path, classes, options)


SOURCES.register("coco")(CocoSource())


def read_content(content: Any, path: str, classes: ClassNames | None, options: ReadOptions) -> SourceContent:
    """List the images of a COCO file with their objects.

    Crowd regions, repeated names and categories without objects are as the settings say. A file under two ids is one
    image; objects that repeat another's class, box and mask are left out, counted.

    Args:
      content: of the file.
      path: of the file.
      classes: the classes that it may name; None: its categories in the order of their ids.
      options: how to read, and where images lie; None: beside the file.

    Raises:
      UserError: it is no COCO file; entries that cannot be used; names that cannot be classes.
    """
    name = os.path.basename(path)
    dataset, faults = read_dataset(content, name)
    settings, notes = options.settings, list(dataset.notes)
    if not dataset.categories or not dataset.images:
        faults.refuse_all(name, settings)  # nothing is left to go on with
    for image in dataset.images.values():
        if image.file_name is None:
            faults.said.append(f"images[{image.number}]: file_name: got nothing, expected the name of an image file")
    objects = _without_crowds(dataset, settings, notes)
    names, numbers = _numbered(dataset, objects, classes, settings, notes, name)
    files = _Files(options.image_folder or posixpath.dirname(path), options.image_folder is not None, dataset)
    listed = _list_images(dataset, objects, names, numbers, files, faults, notes)
    notes += [*files.told(), *faults.finish(name, settings)]
    return SourceContent(names, listed, tuple(notes))


def corners(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Return x1, y1, x2, y2 of x, y, width, height, added as the decimals they were written as: 2.5 + 12.01 = 14.51."""
    x, y, width, height = box
    return x, y, _sum(x, width), _sum(y, height)


def _sum(a: float, b: float) -> float:
    if a == int(a) and b == int(b):
        return float(a + b)
    return float(decimal.Decimal(repr(float(a))) + decimal.Decimal(repr(float(b))))


def _without_crowds(dataset: CocoDataset, settings: SourceSettings, notes: list[str]) -> list[CocoObject]:
    crowds = sum(found.crowd for found in dataset.objects)
    if not crowds:
        return dataset.objects
    if settings.crowds == "objects":
        notes.append(f"{crowds} crowd regions are taken as objects (source.crowds)")
        return dataset.objects
    objects = [found for found in dataset.objects if not found.crowd]
    alone = {found.image for found in dataset.objects} - {found.image for found in objects}
    hold = f" ({len(alone)} images hold nothing else and count as images without objects)" if alone else ""
    notes.append(
        f"left out {crowds} crowd regions{hold}; they are taken as objects by {gin_param('source.crowds', 'objects')}"
    )
    return objects


def _numbered(
    dataset: CocoDataset,
    objects: list[CocoObject],
    classes: ClassNames | None,
    settings: SourceSettings,
    notes: list[str],
    file: str,
) -> tuple[ClassNames, dict[Key, int | None]]:
    """Return the classes, and the class of each category; None: it has none of them."""
    keys = sorted(dataset.categories, key=order_of)
    if classes is not None:
        return classes, {key: classes.ids.get(dataset.categories[key]) for key in keys}
    used = {found.category for found in objects}
    # What is merged with a category of the same name has that one's objects.
    merged = {dataset.categories[key] for key in used if settings.repeated_names == "merge"}
    empty = [name for key in keys if key not in used and (name := dataset.categories[key]) not in merged]
    if empty and used:
        named = ", ".join(map(repr, empty[:MOST_NAMED])) + (", ..." if len(empty) > MOST_NAMED else "")
        what = f"{len(empty)} of {len(keys)} categories have no object: {named}"
        if settings.unused_classes == "leave_out":
            keys = [key for key in keys if key in used]
            notes.append(f"{what}; left out (source.unused_classes)")
        else:
            notes.append(
                f"{what}; each is an output all the same, left out by "
                + gin_param("source.unused_classes", "leave_out")
            )
    names = [dataset.categories[key] for key in keys]
    repeated = [f"{name!r} is the name of {count} categories" for name, count in _counts(names) if count > 1]
    if repeated and settings.repeated_names == "refuse":
        raise UserError(
            f"{file}: names that several categories share: {'; '.join(repeated)}. Merge those of one name into one "
            f"class by {gin_param('source.repeated_names', 'merge')}"
            + (
                f", or leave out those without objects by {gin_param('source.unused_classes', 'leave_out')}"
                if set(empty) & {name for name, count in _counts(names) if count > 1}
                else ""
            )
        )
    if repeated:
        notes.append(f"merged categories of one name into one class: {'; '.join(repeated)} (source.repeated_names)")
    names_once = list(dict.fromkeys(names))
    if not 1 <= len(names_once) <= MAX_CLASS_ID + 1:
        raise UserError(f"{file}: {len(names_once)} categories, expected 1 to {MAX_CLASS_ID + 1}")
    found = ClassNames(tuple(names_once))
    return found, {key: found.ids[dataset.categories[key]] for key in keys}


def _counts(names: list[str]) -> list[tuple[str, int]]:
    return list(collections.Counter(names).items())


def _list_images(
    dataset: CocoDataset,
    objects: list[CocoObject],
    names: ClassNames,
    numbers: dict[Key, int | None],
    files: "_Files",
    faults: Faults,
    notes: list[str],
) -> list[ListedImage]:
    of_image: dict[Key, list[CocoObject]] = {key: [] for key in dataset.images}
    unknown = collections.Counter(found.category for found in objects if numbers.get(found.category) is None)
    for found in objects:
        if found.category not in unknown:
            of_image[found.image].append(found)
    for key, count in unknown.items():
        said = dataset.categories[key]
        near = difflib.get_close_matches(said, names.ids, n=3, cutoff=0.5) or list(names.ids)[:5]
        faults.said.append(
            f"categories: {count} objects are of the category {shown(said)} (id {key}), expected a class that is "
            f"known, such as {', '.join(map(repr, near))}"
        )
    listed: dict[str, ListedImage] = {}
    seen: dict[str, dict] = {}
    again = repeats = 0
    for key, image in dataset.images.items():
        if image.file_name is None:
            continue
        path = files.path_of(image.file_name)
        first = listed.get(path)
        again += first is not None
        if first is not None and first.size != image.size and first.size and image.size:
            faults.said.append(
                f"images[{image.number}]: height and width: got {list(image.size)}, expected {list(first.size)}, those "
                f"of images[{first.line}], which names the same file {image.file_name!r}"
            )
            continue
        instances = seen.setdefault(path, {})
        for found in of_image[key]:
            class_id = numbers[found.category]
            assert class_id is not None  # those of unknown categories are told above
            box = corners(found.box)
            same = (class_id, box, found.mask)
            repeats += same in instances
            instances.setdefault(same, ListedInstance(found.number, box, class_id, found.mask))
        listed[path] = first or ListedImage(
            path, image.file_name, image.number, (), image.size, ("images[{}]", "annotations[{}]")
        )
    if again:
        notes.append(f"{again} images name a file that another names too: it is one image, with the objects of all")
    if repeats:
        notes.append(f"left out {repeats} objects that repeat the class, box and mask of another of their image")
    return [
        ListedImage(one.image, one.name, one.line, tuple(seen[path].values()), one.size, one.words)
        for path, one in listed.items()
    ]


class _Files:
    """Where the image files lie."""

    def __init__(self, folder: str, is_given: bool, dataset: CocoDataset) -> None:
        self.folder, self.by_last_part = folder, 0
        names = [image.file_name for image in dataset.images.values() if image.file_name]
        counted = collections.Counter(posixpath.basename(name) for name in set(names))
        self._alone = {name for name, count in counted.items() if count == 1}
        self._there: frozenset[str] = frozenset()
        if is_given and any("/" in name for name in names):
            with contextlib.suppress(tf.errors.OpError):  # each image is then said to be missing
                self._there = frozenset(list_folder(folder))

    def path_of(self, file_name: str) -> str:
        """Return the path of an image.

        Where the folder was given and holds no such file but one of the name's last part, and no other image ends in
        this part, it is that one: tools write the folders of the machine they ran on, or URLs.
        """
        path = file_name if "://" in file_name else posixpath.join(self.folder, file_name)
        last = posixpath.basename(file_name)
        if last != file_name and last in self._there and last in self._alone and not _exists(path):
            self.by_last_part += 1
            path = posixpath.join(self.folder, last)
        return path if "://" in path else posixpath.normpath(path)

    def told(self) -> list[str]:
        """Return what was taken for granted."""
        if not self.by_last_part:
            return []
        return [
            f"{self.by_last_part} images are not where their file_name says, and were found in {self.folder} by its "
            "last part"
        ]


def _exists(path: str) -> bool:
    try:
        return tf.io.gfile.exists(path)
    except tf.errors.OpError:  # a kind of URL that is not known
        return False
