"""The annotation file: `image,x1,y1,x2,y2,class,mask` rows, grouped by image."""

import logging
import math
import os
import posixpath
import re
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tpu_retinamask.data.annotated_image import ListedImage, ListedInstance
from tpu_retinamask.data.annotations.class_names import ClassNames, whole_number
from tpu_retinamask.data.annotations.csv_masks import read_mask_cell
from tpu_retinamask.data.annotations.csv_rows import AnnotationError, describe, raise_if_any, read_rows
from tpu_retinamask.data.images.image_files import BadFile
from tpu_retinamask.data.masks import ColourMask, FileMask, Mask
from tpu_retinamask.errors import gin_param, listed, read_as
from tpu_retinamask.files import list_folder

log = logging.getLogger(__name__)

COLUMNS = ("image", "x1", "y1", "x2", "y2", "class", "mask")
# Names that header rows give to the four coordinates; any other order would be trained wrong in silence.
CORNER_HEADERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
COORDINATE_NAMES = frozenset(sum(CORNER_HEADERS, ())) | {"x", "y", "w", "h", "width", "height"}
# Columns of other tools' files, and what to do with these.
OTHER_FORMATS = {
    "encodedpixels": "a file of Kaggle's run lengths, which do not say whether pixels are counted along the columns or "
    "the rows: write a row an object with its box, and in the mask column COCO's run lengths, "
    '{"size": [height, width], "counts": [...]}, or a label map such as masks/a.png#1',
    "region_shape_attributes": "a file of VIA, which --format=via reads",
}
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
XYWH_HINT = "files that hold x, y, width, height look like this"


class CsvContent(NamedTuple):
    """What an annotation file lists; `notes` say what was left out or taken for granted."""

    classes: ClassNames
    images: list[ListedImage]
    notes: tuple[str, ...]


def read_annotations(path: str, classes: ClassNames) -> list[ListedImage]:
    """Read an annotation file of known classes that must be good to its last line; see `read_csv`."""
    return read_csv(path, classes).images


def read_csv(path: str, classes: ClassNames | None, on_bad_record: str = "stop") -> CsvContent:
    """Read an annotation file into one record per image, in order of first appearance.

    Relative paths are relative to the folder of the file; absolute paths and `scheme://` URLs stand.
    A row that repeats an earlier one in every column is left out; a log warning counts these.
    Nothing but the annotation file is opened: `scan.scan_images` opens images and masks.

    Args:
      path: local path or any URL that tf.io.gfile opens.
      classes: the classes that rows may name; None: those that they do name, sorted.
      on_bad_record: "stop" at bad lines, naming them, or "skip" them, counted in a note.

    Raises:
      FileNotFoundError: the file does not exist.
      AnnotationError: one or more bad lines (wrong column count, malformed number, x2 <= x1, y2 <= y1,
        unknown class, a mask of no kind that is known, an image both negative and with boxes), all listed together;
        coordinates in fractions of the picture; no good line.
    """
    rows, notes = read_rows(path), []
    header = rows[0] if _is_header(rows[0][1]) else None
    if header:
        rows = rows[1:]
    if classes is None:
        names = sorted({row[5] for _, row in rows if len(row) in (6, 7) and row[5] and any(row[1:5])})
        classes = ClassNames(tuple(names) or ("object",))
        named = ", ".join(f"{name} = {number}" for number, name in enumerate(names[:10]))
        notes.append(
            f"no --classes: the {len(names)} classes are numbered in the order of their names "
            f"({named}{', ...' if len(names) > 10 else ''})"
        )
    reader = _RowReader(os.path.basename(path), posixpath.dirname(path), classes)
    if header:
        reader.header(*header)
        if not rows and not reader.problems:
            reader.problems.append(f"{reader.file}, line 1: only a header row, expected at least one image")
        if reader.problems:  # what its columns mean is not known
            raise_if_any(reader.file, reader.problems)
    refuse_fractions(reader.file, rows)
    for line, fields in rows:
        problem = reader.row(line, fields)
        if problem:
            reader.problems.append(problem)
    if on_bad_record == "stop":
        raise_if_any(reader.file, reader.problems, gin_param("source.on_bad_record", "skip"))
    if reader.problems and not reader.images:
        raise AnnotationError(
            f"{reader.file}: nothing is left after leaving out {len(reader.problems)} bad lines", reader.problems
        )
    if reader.problems:
        notes.append(f"left out {len(reader.problems)} bad lines:\n{listed(reader.problems)}")
    if reader.repeats:
        log.warning(
            "%s: left out %d rows that repeat an earlier row in every column (first: line %d)",
            reader.file,
            len(reader.repeats),
            reader.repeats[0],
        )
    if reader.backslashes:
        notes.append(f"{reader.backslashes} paths hold a backslash, which is read as /")
    images = [
        ListedImage(image, reader.first[image][0], reader.first[image][1], tuple(instances.values()))
        for image, instances in reader.images.items()
    ]
    return CsvContent(classes, images, tuple(notes))


def refuse_fractions(file: str, rows: Sequence[tuple[int, list[str]]]) -> None:
    """Refuse a file all of whose coordinates are fractions of the picture.

    Raises:
      AnnotationError: they are.
    """
    boxes = [fields[1:5] for _, fields in rows if len(fields) in (6, 7) and any(fields[1:5])]
    numbers = [text for box in boxes for text in box]
    if not all(NUMBER.fullmatch(text) and 0 <= float(text) <= 1 for text in numbers):
        return
    if any(float(text) % 1 for text in numbers):  # boxes of one pixel are for the scan to judge
        raise AnnotationError(
            f"{file}: all coordinates of the {len(boxes)} boxes lie in 0..1: pixels are expected; multiply x by the "
            "width of the image and y by its height",
            [],
        )


def _is_header(fields: list[str]) -> bool:
    names = {field.lower() for field in fields}
    return len(names & COORDINATE_NAMES) >= 4 or bool(names & OTHER_FORMATS.keys())


class _RowReader:
    """Check rows one by one and collect what they say."""

    def __init__(self, file: str, folder: str, classes: ClassNames) -> None:
        self.file, self.folder, self.classes, self.ids = file, folder, classes, classes.ids
        self.problems: list[str] = []
        self.backslashes = 0
        self.repeats: list[int] = []
        self.first: dict[str, tuple[str, int]] = {}  # image -> name, line of its first row
        self.negative: dict[str, int] = {}  # image -> line of the row without a box
        self.images: dict[str, dict[tuple, ListedInstance]] = {}
        self._listings: dict[str, frozenset[str]] = {}

    def header(self, line: int, fields: list[str]) -> None:
        names = tuple(field.lower() for field in fields[1:5])
        if len(fields) in (6, 7) and names in CORNER_HEADERS:
            log.info("%s, line %d: skipped the header row %s", self.file, line, ",".join(fields))
            return
        other = next((OTHER_FORMATS[field.lower()] for field in fields if field.lower() in OTHER_FORMATS), None)
        if other:
            self.problems.append(f"{self.file}, line {line}: read {read_as(','.join(fields))}, {other}")
            return
        hint = f" ({XYWH_HINT})" if {"x", "y"} <= {field.lower() for field in fields} else ""
        self.problems.append(
            describe(
                self.file,
                line,
                None,
                "",
                ",".join(fields),
                f"a header row in the order {','.join(COLUMNS)}; reorder or convert the columns{hint}",
            )
        )

    def row(self, line: int, fields: list[str]) -> str | None:
        """Take in one row; say what is wrong with it, or return None."""
        if len(fields) not in (6, 7):
            return self._column_count(line, fields)
        name, coordinates, class_name = fields[0], fields[1:5], fields[5]
        mask = fields[6] if len(fields) == 7 else ""
        if not name:
            return self._wrong(line, 1, name, "the path of an image")
        image = self._resolve(name)
        if not any(coordinates):
            return self._negative_row(line, image, name, class_name, mask)
        box, problem = self._box(line, coordinates)
        if box is None:
            return problem
        if class_name not in self.ids:
            return self._wrong(line, 6, class_name, self.classes.expected(class_name))
        if image in self.negative:
            return (
                f"{self.file}, line {line}: {name} has a box here but is listed as an image without "
                f"objects in line {self.negative[image]}; remove one of the two rows"
            )
        try:
            found = self._mask(mask, box)
        except BadFile as error:
            shown = mask if len(mask) <= 60 else f"{mask[:57]}..."
            if error.kind == "bad label":
                return self._wrong(line, 7, shown, str(error))
            return f"{self.file}, line {line}, column 7 (mask): read {shown!r}: {error}"
        self.first.setdefault(image, (name, line))
        key = (box, class_name, found)
        instances = self.images.setdefault(image, {})
        if key in instances:
            self.repeats.append(line)
        else:
            instances[key] = ListedInstance(line, box, self.ids[class_name], found)
        return None

    def _wrong(self, line: int, column: int, read: str, expected: str) -> str:
        return describe(self.file, line, column, COLUMNS[column - 1], read, expected)

    def _column_count(self, line: int, fields: list[str]) -> str:
        hint = ""
        if len(fields) == 1 and re.search("[;\t]", fields[0]):
            hint = "; use commas between columns"
        elif len(fields) < 6 and not any(fields[1:]):
            hint = "; an image without objects is written `image,,,,,,`"
        return describe(
            self.file,
            line,
            None,
            "",
            ",".join(fields),
            f"7 columns {','.join(COLUMNS)} (or 6, without a mask), not {len(fields)}{hint}",
        )

    def _negative_row(self, line, image, name, class_name, mask) -> str | None:
        for column, value in ((6, class_name), (7, mask)):
            if value:
                return self._wrong(
                    line, column, value, "nothing, because the four coordinates are empty (an image without objects)"
                )
        if self.images.get(image):
            first_box = next(iter(self.images[image].values())).line
            return (
                f"{self.file}, line {line}: {name} is listed as an image without objects here but has "
                f"a box in line {first_box}; remove one of the two rows"
            )
        if image in self.negative:
            self.repeats.append(line)
            return None
        self.negative[image] = line
        self.first[image] = (name, line)
        self.images[image] = {}
        return None

    def _box(self, line: int, coordinates: list[str]):
        numbers = []
        for column, text in enumerate(coordinates, start=2):
            if not NUMBER.fullmatch(text):
                expected = "a number such as 12 or 12.5"
                if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
                    expected = "a finite number"
                elif not text:
                    expected += " (give all four coordinates, or none for an image without objects)"
                return None, self._wrong(line, column, text, expected)
            if not math.isfinite(float(text)):
                return None, self._wrong(line, column, text, "a finite number")
            numbers.append(float(text))
        x1, y1, x2, y2 = numbers
        for column, low, high, axis in ((4, x1, x2, "x"), (5, y1, y2, "y")):
            if high <= low:
                return None, self._wrong(
                    line,
                    column,
                    coordinates[column - 2],
                    f"a number greater than {axis}1 = {coordinates[column - 4]} "
                    f"({axis}2 must be greater than {axis}1; {XYWH_HINT})",
                )
        return (x1, y1, x2, y2), None

    def _mask(self, mask: str, box: tuple[float, float, float, float]) -> Mask | None:
        if not mask:
            return None
        drawn = read_mask_cell(mask, box)
        if drawn is not None:
            return drawn.mask
        path = self._resolve(mask)
        suffixed = re.fullmatch("(.+)#([0-9A-Za-z]+)", path, re.ASCII)
        if not suffixed or self._exists(path):
            return FileMask(path)
        if re.fullmatch("[0-9A-Fa-f]{6}", suffixed[2]):
            red, green, blue = bytes.fromhex(suffixed[2])
            return ColourMask(suffixed[1], (red, green, blue))
        label = whole_number(suffixed[2])
        if label is None or not 1 <= label <= 65535:
            raise BadFile(
                "bad label",
                "a label from 1 to 65535 after '#' (0 is the background of a label map), or a colour such as #ff0000",
            )
        return FileMask(suffixed[1], label)

    def _exists(self, path: str) -> bool:
        # One listing per folder: a label map has a suffix per instance, and asking a bucket for each
        # of them would be one request a row.
        folder, name = posixpath.split(path)
        if folder not in self._listings:
            try:
                self._listings[folder] = frozenset(list_folder(folder or "."))
            except tf.errors.OpError:
                self._listings[folder] = frozenset()
        return name in self._listings[folder]

    def _resolve(self, path: str) -> str:
        scheme, separator, rest = path.partition("://")
        if separator:
            return path
        if "\\" in path and not self._exists(posixpath.join(self.folder, path)):
            self.backslashes += 1
            path = path.replace("\\", "/")  # of Windows
        if not os.path.isabs(path):
            path = posixpath.join(self.folder, path)
        scheme, separator, rest = path.partition("://")
        # "./a.png" and "a.png" are one image; a URL keeps its scheme.
        return scheme + separator + posixpath.normpath(rest) if separator else posixpath.normpath(path)
