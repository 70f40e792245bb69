"""The entries of a COCO instances file, each field asked for its type and each id for what it means: once, here.

What trains, what scores and what converts reads COCO json through this. What is unambiguous is read: an id written as
text where ids are numbers, a missing bbox beside a mask, a flat polygon, pairs of coordinates, sizes as text.

Source: https://cocodataset.org/#format-data
"""

import numbers
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tpu_retinamask.data.images.image_files import BadFile
from tpu_retinamask.data.images.run_lengths import run_length_pixels
from tpu_retinamask.data.images.segmentations import read_segmentation
from tpu_retinamask.data.masks import Mask, PolygonMask, RunLengthMask
from tpu_retinamask.data.sources.checked import BadEntry, Entry, Faults, as_number, shown
from tpu_retinamask.data.sources.coco_ids import Ids, Key, as_key, got
from tpu_retinamask.errors import UserError

MOST_SIDE = 1 << 30  # pixels


class CocoImage(NamedTuple):
    """An entry of `images`; `size` is height and width, None where the file says neither or -1."""

    key: Key
    file_name: str | None
    size: tuple[int, int] | None
    number: int


class CocoObject(NamedTuple):
    """An entry of `annotations`; `box` is x, y, width, height in pixels."""

    number: int
    image: Key
    category: Key
    box: tuple[float, float, float, float]
    mask: Mask | None
    crowd: bool
    area: float | None


class CocoDataset(NamedTuple):
    """A COCO file; `notes` say what was taken for granted."""

    images: dict[Key, CocoImage]
    categories: dict[Key, str]
    objects: list[CocoObject]
    notes: tuple[str, ...]


def read_dataset(content: Any, name: str, *, with_masks: bool = True) -> tuple[CocoDataset, Faults]:
    """Read a COCO instances file.

    Args:
      content: what `load_json` gave.
      name: the file, in the words of an error.
      with_masks: read segmentations, those of objects with `"has_mask": 0` aside.

    Returns:
      (what can be used; what cannot, an entry a line).

    Raises:
      UserError: it is no COCO instances file.
    """
    if not isinstance(content, dict) or not {"images", "categories"} <= content.keys():
        keys = f"an object with {sorted(map(str, content))[:9]}" if isinstance(content, dict) else shown(content)
        raise UserError(
            f"{name}: got {keys}; expected a COCO dataset, an object with 'images', 'annotations' and 'categories' "
            "(another kind of file is read by `retinamask convert --annotations=FILE --output=NEW.csv --masks=FOLDER`)"
        )
    try:
        parts = {part: Entry(content, name).items(part, []) for part in ("images", "categories", "annotations")}
    except BadEntry as error:
        raise UserError(str(error)) from None
    faults, image_ids, category_ids = Faults(), Ids(), Ids()
    images = _collect(faults, image_ids, parts["images"], "images", _image)
    categories = _collect(faults, category_ids, parts["categories"], "categories", _category)
    found = _Objects(images, image_ids, category_ids, with_masks)
    objects = []
    for number, value in enumerate(parts["annotations"]):
        read = faults.collect(lambda number=number, value=value: found.read(number, value))
        if read is not None:
            objects.append(read)
    if "annotations" not in content:
        found.notes.append("the file has no 'annotations'")
    return CocoDataset(images, categories, objects, tuple(found.told())), faults


def read_box(entry: Entry) -> tuple[float, float, float, float] | None:
    """Return the x, y, width and height of an entry's bbox; None: it has none, or an empty one.

    Raises:
      BadEntry: it is no list of four finite numbers.
    """
    value: Any = entry.values.get("bbox")
    if value is not None and hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or (isinstance(value, list | tuple) and not value):
        return None
    parts = [as_number(part) for part in value] if isinstance(value, list | tuple) else []
    x, y, width, height = parts if len(parts) == 4 else [None] * 4
    if x is None or y is None or width is None or height is None:
        text = repr(value)
        raise BadEntry(
            f"{entry.place}: bbox: got {text if len(text) <= 60 else shown(value)}, expected x, y, width, height, four "
            "finite numbers"
        )
    return x, y, width, height


def read_mask(entry: Entry, size: tuple[int, int] | None) -> tuple[Mask | None, int]:
    """Return the mask of an entry's segmentation, and how many of its polygons enclose nothing.

    Raises:
      BadEntry: it is neither polygons nor run lengths of the picture's size.
    """
    try:
        found = read_segmentation(entry.values.get("segmentation"), size)
    except BadFile as error:
        raise BadEntry(f"{entry.place}: segmentation: {error}") from None
    return found.mask, found.flat


def box_of_mask(mask: Mask) -> tuple[float, float, float, float] | None:
    """Return the x, y, width and height of a mask: of its corners, or of its pixels; None: it has none."""
    if isinstance(mask, PolygonMask):
        xs = [x for polygon in mask.polygons for x in polygon[::2]]
        ys = [y for polygon in mask.polygons for y in polygon[1::2]]
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    if isinstance(mask, RunLengthMask):
        pixels = run_length_pixels(mask.counts, *mask.size)
        columns, rows = pixels.any(axis=0).nonzero()[0], pixels.any(axis=1).nonzero()[0]
        if len(columns):
            x, y = float(columns[0]), float(rows[0])
            return x, y, columns[-1] + 1 - x, rows[-1] + 1 - y
    return None


def plain_path(file_name: str) -> str:
    """Return a file name as this system reads it: a backslash between folders becomes `/`, a drive is left out."""
    if "\\" not in file_name or "://" in file_name:
        return file_name
    return re.sub("^[A-Za-z]:", "", file_name).replace("\\", "/")


class _Objects:
    """Reads the entries of `annotations`, and counts what it takes for granted."""

    def __init__(self, images: dict[Key, CocoImage], image_ids: Ids, category_ids: Ids, with_masks: bool) -> None:
        self.images, self.image_ids, self.category_ids, self.with_masks = images, image_ids, category_ids, with_masks
        self.notes: list[str] = []
        self.boxes = self.flat = self.of_bad = 0

    def read(self, number: int, value: Any) -> CocoObject | None:
        """Read one; None: its image or category could not be used, which is told already."""
        entry = Entry(value, f"annotations[{number}]")
        if (key := as_key(entry.values.get("id"))) is not None:
            entry.place += f" (id {key})"
        image, category = (
            self._reference(entry, "image_id", self.image_ids),
            self._reference(entry, "category_id", self.category_ids),
        )
        if image is None or category is None:
            self.of_bad += 1
            return None
        box, mask = read_box(entry), None
        if (self.with_masks or box is None) and _flag(entry, "has_mask", 1):
            mask, flat = read_mask(entry, self.images[image].size)
            self.flat += flat
        if box is None:
            box = box_of_mask(mask) if mask is not None else None
            self.boxes += 1
        if box is None:
            raise BadEntry(
                f"{entry.place}: bbox: {got(entry, 'bbox')}, expected x, y, width, height, or a segmentation to take "
                "it from"
            )
        area = entry.number("area") if entry.has("area") else None
        return CocoObject(number, image, category, box, mask, bool(_flag(entry, "iscrowd", 0)), area)

    def told(self) -> list[str]:
        """Return what was taken for granted, a line each."""
        told = list(self.notes)
        if self.boxes:
            told.append(f"{self.boxes} annotations have no bbox: it is taken from their mask")
        if self.flat:
            told.append(
                f"{self.flat} polygons have fewer than three corners and enclose nothing: they are left out, and an "
                "object that has no other is trained by its box alone"
            )
        if self.of_bad:
            told.append(f"{self.of_bad} annotations belong to images or categories that cannot be used")
        return told

    @staticmethod
    def _reference(entry: Entry, field: str, ids: Ids) -> Key | None:
        key = ids.find(entry.values.get(field))
        if key is None and str(as_key(entry.values.get(field))) in ids.bad:
            return None
        if key is None:
            what = {"image_id": "images", "category_id": "categories"}[field]
            raise BadEntry(
                f"{entry.place}: {field}: {got(entry, field)}, which is not among the {what}, expected {ids.some()}"
            )
        return key


def _collect(faults: Faults, ids: Ids, values: Iterable, part: str, read: Callable[[Entry, Key, int], Any]) -> dict:
    found = {}
    for number, value in enumerate(values):

        def one(number: int = number, value: Any = value) -> None:
            entry = Entry(value, f"{part}[{number}]")
            key = ids.add(entry)
            try:
                found[key] = read(entry, key, number)
            except BadEntry:
                ids.forget(key)
                raise

        faults.collect(one)
    return found


def _image(entry: Entry, key: Key, number: int) -> CocoImage:
    file_name = None
    if "file_name" in entry.values:
        file_name = plain_path(entry.text("file_name").strip())
        if not file_name or "\0" in file_name:
            raise BadEntry(f"{entry.place}: file_name: got {shown(file_name)}, expected the name of an image file")
    sides = [entry.whole(side) if entry.has(side) else -1 for side in ("height", "width")]
    if max(sides) > MOST_SIDE:
        raise BadEntry(f"{entry.place}: height and width: got {sides}, expected those of a picture in pixels")
    # VIA writes -1 where it has not looked at the picture.
    return CocoImage(key, file_name, (sides[0], sides[1]) if min(sides) > 0 else None, number)


def _category(entry: Entry, key: Key, number: int) -> str:
    name = entry.values.get("name", key)
    if isinstance(name, bool) or not isinstance(name, str | numbers.Integral) or not str(name).strip():
        raise BadEntry(f"{entry.place}: name: {got(entry, 'name')}, expected the name of a class")
    return str(name).strip()


def _flag(entry: Entry, field: str, default: int) -> int:
    value = entry.values.get(field)
    if isinstance(value, bool):
        return int(value)
    whole = entry.whole(field, default)
    if whole not in (0, 1):
        raise BadEntry(f"{entry.place}: {field}: got {shown(value)}, expected 0 or 1")
    return whole
