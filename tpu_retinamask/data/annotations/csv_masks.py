"""The mask column of an annotation file, where it holds a mask and not the path of one."""

import ast
import json
import re
from typing import Any

from tpu_retinamask.data.images.image_files import BadFile
from tpu_retinamask.data.images.segmentations import CORNERS, Segmentation, read_segmentation
from tpu_retinamask.data.masks import PolygonMask

Box = tuple[float, float, float, float]

NUMBERS = re.compile(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?([\s,;]+[+-]?[0-9.]+([eE][+-]?[0-9]+)?)+[\s,;]*", re.ASCII)
WELL_KNOWN_TEXT = re.compile(r"[a-z]+\s*(z\s*)?\(.*\)", re.IGNORECASE | re.DOTALL)  # POLYGON ((20 12, 60 12, ...))
AROUND = 2.0  # pixels by which a polygon may leave the box that is drawn around it
INSTEAD = (
    'write the polygon as "x y x y ..." or "[[x, y, x, y, ...]]", or COCO\'s run lengths, '
    '{"size": [height, width], "counts": [...]}'
)


def read_mask_cell(cell: str, box: Box) -> Segmentation | None:
    """Read a polygon or run lengths of a cell; None: it holds neither, so that it is a path.

    Read are `x y x y ...` (spaces, commas or semicolons between), the lists and objects of JSON that
    `segmentations.read_segmentation` reads, and the same as Python prints them, the way a table of pandas is saved:
    `{'size': [4, 5], 'counts': b'...'}`, `(20, 12), (60, 12), (60, 52)`.

    Pairs of whole numbers may also be run lengths of Kaggle's competitions, `start length start length ...`: their
    pages count pixels down the columns, many encoders in use go along the rows, and nothing in the file says which.
    They are refused. The box tells them from a polygon, which lies in it.

    Args:
      cell: text of the cell.
      box: x1, y1, x2, y2 of its row in pixels.

    Raises:
      BadFile: what was expected.

    Sources: https://cocodataset.org/#format-data;
      https://www.kaggle.com/competitions/data-science-bowl-2018/overview/evaluation
    """
    if cell[0] in "[{" or (cell[0] == "(" and cell[-1] == ")"):
        return read_segmentation(_parsed(cell))
    if WELL_KNOWN_TEXT.fullmatch(cell):
        raise BadFile("bad polygon", f"well-known text is not read; {INSTEAD}")
    if not NUMBERS.fullmatch(cell):
        return None
    try:
        numbers = [float(part) for part in re.split(r"[\s,;]+", cell) if part]
    except ValueError:
        return None  # such as 1.2.3: a name
    if len(numbers) % 2:
        raise BadFile("bad polygon", f"{len(numbers)} numbers, expected an even count, x y x y ...; {INSTEAD}")
    if len(numbers) < 2 * CORNERS and not _may_be_runs(numbers):
        raise BadFile("bad polygon", f"{len(numbers) // 2} corners, expected {CORNERS} or more; {INSTEAD}")
    if _may_be_runs(numbers) and not _lies_in(numbers, box):
        raise BadFile(
            "Kaggle's run lengths",
            "pairs of start and length (Kaggle's run lengths) do not say whether they count pixels down the columns or "
            f"along the rows; {INSTEAD}",
        )
    if _may_be_runs(numbers):
        raise BadFile("bad polygon", f"it may be a polygon, or pairs of start and length (Kaggle's); {INSTEAD}")
    return Segmentation(PolygonMask((tuple(numbers),)))


def _parsed(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise BadFile("bad polygon", f"begins like JSON and is none; {INSTEAD}") from None


def _may_be_runs(numbers: list[float]) -> bool:
    """Tell whether numbers can be start length start length ...: whole, and no run begins before the last has ended."""
    starts, lengths = numbers[::2], numbers[1::2]
    if any(number != int(number) or number < 0 for number in numbers) or min(lengths) < 1:
        return False
    return all(start + length <= following for start, length, following in zip(starts, lengths, starts[1:]))


def _lies_in(numbers: list[float], box: Box) -> bool:
    x1, y1, x2, y2 = box
    return all(x1 - AROUND <= x <= x2 + AROUND for x in numbers[::2]) and all(
        y1 - AROUND <= y <= y2 + AROUND for y in numbers[1::2]
    )
