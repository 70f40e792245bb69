"""VGG Image Annotator (VIA), versions 1 to 3, as a source: which file is of which version.

Source: https://www.robots.ox.ac.uk/~vgg/software/via/
"""

import csv
import io
import re

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.sources import via2, via3
from tpu_retinamask.data.sources.checked import json_of, load_text
from tpu_retinamask.data.sources.draft import Draft
from tpu_retinamask.data.sources.first_bytes import first_text, json_names
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions, SourceContent
from tpu_retinamask.errors import UserError

VERSION_3 = {"project", "attribute", "file"}
HEADER_3 = re.compile(r"#\s*CSV_HEADER\s*=\s*" + ",".join(via3.HEADER))
LONGEST_FIELD = 1 << 27  # characters: the corners of a polygon stand in one


class ViaSource:
    """Reads projects and exports, as JSON or CSV.

    Classes are the options of the attribute that is the class, in their order; sorted by name where it is free text.
    """

    def recognise(self, path: str) -> bool:
        """Tell whether a file has the names, or the header, of one of the versions."""
        found = json_names(path)
        if found:
            top = found.get(1, set())
            plain = {"filename", "regions"} <= found.get(2, set()) and not top & {"images", "annotations"}
            return any(name.startswith("_via_") for name in top) or top >= VERSION_3 or plain
        text = first_text(path)
        return _is_version_2(text) or bool(HEADER_3.search(text))

    def read(self, path: str, classes: ClassNames | None, options: ReadOptions) -> SourceContent:
        """Read a file of any version.

        Polygons, circles and ellipses have a mask; rectangles are boxes. A circle or ellipse is a polygon that is
        nowhere 0.05 pixels from it.
        """
        draft = Draft(path, options)
        text = load_text(path)
        if text.lstrip()[:1] in ("{", "["):
            content = json_of(text, path)
            third = isinstance(content, dict) and content.keys() >= VERSION_3
            return (via3.read_via3_json if third else via2.read_via2_json)(draft, content, classes)
        if _is_version_2(text):
            rows = _rows(text.lstrip().removeprefix("#"), path)
            if rows[0][1] != via2.HEADER:
                raise UserError(f"{path}: got the columns {', '.join(rows[0][1])}, expected {', '.join(via2.HEADER)}")
            return via2.read_via2_csv(draft, rows[1:], classes)
        if HEADER_3.search(text):
            return via3.read_via3_csv(draft, _rows(text, path, comments=True), classes)
        raise UserError(f"{path}: got neither JSON nor a CSV with the columns of VGG Image Annotator 2 or 3")


def _is_version_2(text: str) -> bool:
    return text.lstrip().removeprefix("#").startswith(",".join(via2.HEADER[:3]))


def _rows(text: str, path: str, *, comments: bool = False) -> list[tuple[int, list[str]]]:
    """Return (line from 1, fields) of each row that is not blank.

    Args:
      text: of the file.
      path: in the words of an error.
      comments: lines that begin with # are none.
    """
    lines = ["" if comments and line.startswith("#") else line for line in io.StringIO(text, newline="")]
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_FIELD))
    reader, rows = csv.reader(lines, strict=True), []
    try:
        for fields in reader:
            if any(fields):
                rows.append((reader.line_num, fields))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}, expected fields whose quotes are closed") from error
    return rows


SOURCES.register("via")(ViaSource())
