"""The annotation file: `image,x1,y1,x2,y2,class,mask` rows, grouped by image."""

import logging
import math
import os
import posixpath
import re

import tensorflow as tf

from tpu_retinamask.data.annotated_image import ListedImage, ListedInstance
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.csv_rows import describe, raise_if_any, read_rows
from tpu_retinamask.data.masks import FileMask

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
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
XYWH_HINT = "files that hold x, y, width, height look like this"


def read_annotations(path: str, classes: ClassNames) -> list[ListedImage]:
    """Read an annotation file into one record per image, in order of first appearance.

    Relative paths are relative to the folder of the file; absolute paths and `scheme://` URLs stand.
    A row that repeats an earlier one in every column is left out; a log warning counts these.
    Nothing but the annotation file is opened: `scan.scan_images` opens images and masks.

    Args:
      path: local path or any URL that tf.io.gfile opens.
      classes: the classes that rows may name.

    Raises:
      FileNotFoundError: the file does not exist.
      AnnotationError: one or more bad lines (wrong column count, malformed number, x2 <= x1, y2 <= y1,
        unknown class, bad mask suffix, an image both negative and with boxes), all listed together.
    """
    reader = _RowReader(os.path.basename(path), posixpath.dirname(path), classes)
    rows = read_rows(path)
    if _is_header(rows[0][1]):
        reader.header(*rows[0])
        rows = rows[1:]
        if not rows and not reader.problems:
            reader.problems.append(f"{reader.file}, line 1: only a header row, expected at least one image")
    for line, fields in rows:
        problem = reader.row(line, fields)
        if problem:
            reader.problems.append(problem)
    raise_if_any(reader.file, reader.problems)
    if reader.repeats:
        log.warning(
            "%s: left out %d rows that repeat an earlier row in every column (first: line %d)",
            reader.file,
            len(reader.repeats),
            reader.repeats[0],
        )
    return [
        ListedImage(image, reader.first[image][0], reader.first[image][1], tuple(instances.values()))
        for image, instances in reader.images.items()
    ]


def _is_header(fields: list[str]) -> bool:
    return len([field for field in fields if field.lower() in COORDINATE_NAMES]) >= 4


class _RowReader:
    """Check rows one by one and collect what they say."""

    def __init__(self, file: str, folder: str, classes: ClassNames) -> None:
        self.file, self.folder, self.classes, self.ids = file, folder, classes, classes.ids
        self.problems: list[str] = []
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
        found, problem = self._mask(line, mask)
        if problem:
            return problem
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

    def _mask(self, line: int, mask: str) -> tuple[FileMask | None, str | None]:
        if not mask:
            return None, None
        path = self._resolve(mask)
        suffixed = re.fullmatch("(.+)#([0-9]+)", path, re.ASCII)
        if not suffixed or self._exists(path):
            return FileMask(path), None
        value = int(suffixed[2])
        if not 1 <= value <= 65535:
            return None, self._wrong(
                line, 7, mask, "a label from 1 to 65535 after '#' (0 is the background of a label map)"
            )
        return FileMask(suffixed[1], value), None

    def _exists(self, path: str) -> bool:
        # One listing per folder: a label map has a suffix per instance, and asking a bucket for each
        # of them would be one request a row.
        folder, name = posixpath.split(path)
        if folder not in self._listings:
            try:
                self._listings[folder] = frozenset(tf.io.gfile.listdir(folder or "."))
            except tf.errors.OpError:
                self._listings[folder] = frozenset()
        return name in self._listings[folder]

    def _resolve(self, path: str) -> str:
        scheme, separator, rest = path.partition("://")
        if separator:
            return path
        if not os.path.isabs(path):
            path = posixpath.join(self.folder, path)
        scheme, separator, rest = path.partition("://")
        # "./a.png" and "a.png" are one image; a URL keeps its scheme.
        return scheme + separator + posixpath.normpath(rest) if separator else posixpath.normpath(path)
