"""A mask as JSON has it: polygons in the shapes that tools write them, and COCO run lengths."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tpu_retinamask.data.images.image_files import BadFile
from tpu_retinamask.data.images.run_lengths import checked_runs
from tpu_retinamask.data.masks import Mask, PolygonMask, RunLengthMask

CORNERS = 3  # of a polygon that encloses anything
EXPECTED = (
    "expected polygons [[x, y, x, y, ...], ...], pairs [[x, y], ...] or run lengths "
    '{"size": [height, width], "counts": ...}'
)


class Segmentation(NamedTuple):
    """What a segmentation says.

    Attributes:
      mask: None where it says none.
      flat: polygons left out, for they have fewer than three corners and enclose nothing.
    """

    mask: Mask | None
    flat: int = 0


def read_segmentation(value: Any, size: tuple[int, int] | None = None) -> Segmentation:
    """Read polygons or run lengths.

    Polygons are a list of `[x, y, x, y, ...]`, one such list alone, a list of `[x, y]` pairs (three or more), or a list
    of lists of pairs. Null, empty lists and `{}` are no mask.

    Args:
      value: as JSON has it.
      size: height and width of the picture in pixels, where they are known.

    Raises:
      BadFile: it is none of these; run lengths of another size or number of pixels. Says what was read.
    """
    if isinstance(value, dict):
        return Segmentation(_run_lengths(value, size) if value else None)
    if hasattr(value, "tolist"):  # of NumPy, in a results list made in Python
        value = value.tolist()
    if value is None or value == "":
        return Segmentation(None)
    if not isinstance(value, list | tuple):
        raise BadFile("bad polygon", f"got {_shown(value)}, {EXPECTED}")
    polygons = [_flat(polygon) for polygon in _nested(value) if len(polygon)]
    kept = tuple(polygon for polygon in polygons if len(polygon) >= 2 * CORNERS)
    return Segmentation(PolygonMask(kept) if kept else None, len(polygons) - len(kept))


def _nested(value: Sequence) -> Sequence:
    """Return the polygons, whichever way they are nested."""
    if not any(isinstance(part, list | tuple | dict) for part in value):
        return [value] if value else []
    if not all(isinstance(part, list | tuple) for part in value):
        if len(value) == 1 and isinstance(value[0], dict):
            raise BadFile("bad polygon", f"got a list with an object in it, {EXPECTED}")
        raise BadFile("bad polygon", f"got {_shown(list(value))}, {EXPECTED}")
    # Three lists of two numbers are the corners of one polygon: as polygons they would be a point each.
    if len(value) >= CORNERS and all(len(part) == 2 and all(map(_is_number, part)) for part in value):
        return [value]
    return value


def _flat(polygon: Sequence) -> tuple[float, ...]:
    if all(isinstance(part, list | tuple) and len(part) == 2 for part in polygon):
        polygon = [number for pair in polygon for number in pair]
    # The very objects where they are plain numbers, for a file has millions.
    numbers = tuple(map(_number, polygon)) if set(map(type, polygon)) - {int, float} else tuple(polygon)
    if not all(map(_is_finite, numbers)):
        raise BadFile("bad polygon", f"a polygon of {len(numbers)} numbers holds one that is not finite")
    if len(numbers) % 2:
        raise BadFile("bad polygon", f"a polygon has {len(numbers)} numbers, expected an even count: x, y, x, y, ...")
    return numbers


def _run_lengths(value: dict, size: tuple[int, int] | None) -> RunLengthMask:
    if "counts" not in value or "size" not in value:
        raise BadFile("bad run lengths", f"got an object with {_shown(sorted(map(str, value)))}, {EXPECTED}")
    said = value["size"]
    if hasattr(said, "tolist"):
        said = said.tolist()
    if not isinstance(said, list | tuple) or len(said) != 2 or not all(map(_is_side, said)):
        raise BadFile("bad run lengths", f"got size {_shown(said)} of run lengths, expected [height, width] in pixels")
    height, width = map(int, said)
    if size is not None and (height, width) != size:
        swapped = "; it looks like [width, height]" if (width, height) == size else ""
        raise BadFile(
            "mask size",
            f"run lengths have size {[height, width]}, the image {list(size)} (height, width){swapped}",
        )
    counts = value["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    elif hasattr(counts, "tolist"):
        counts = counts.tolist()
    if not isinstance(counts, str | list | tuple):
        raise BadFile("bad run lengths", f"got counts {_shown(counts)}, expected a list, or COCO's compressed text")
    checked_runs(counts, height, width)
    return RunLengthMask((height, width), counts if isinstance(counts, str) else tuple(map(int, counts)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(value, str) or not _is_number(value):
        raise BadFile("bad polygon", f"got {_shown(value)} in a polygon, {EXPECTED}")
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _is_side(value: Any) -> bool:
    return _is_number(value) and _is_finite(value) and value == int(value) and 0 < value < 1 << 31


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
