"""Which images are held out to score a training: whole series, for neighbouring frames of a film are one picture."""

import collections
import csv
import hashlib
import io
import itertools
import posixpath
import re
from collections.abc import Mapping, Sequence

from tpu_retinamask.errors import UserError

TRAIN, VALIDATION = "train", "validation"
SPLIT_FILE = "split.csv"
FEWEST_IN_A_SERIES = 3
EVEN = 0.8  # share of the steps from number to number that must be alike for a series
_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)")


def split_names(names: Sequence[str], share: float, seed: int = 0) -> dict[str, str]:
    """Return the split of each image: `validation` of about this share, `train` of the others.

    Images whose names differ in a number that rises evenly are a series: one split has them all. A series too long for
    that is cut once, into neighbours. What is held out is told by digests of the names, so that further images change
    little.

    Args:
      names: of the images, as their source writes them, at least two.
      share: that is held out, above 0 and below 1.
      seed: of the choice.

    Raises:
      UserError: fewer than two images.
    """
    if len(names) < 2:
        raise UserError(f"--val_share={share:g}: {len(names)} image cannot be divided; give two or more")
    wanted = min(len(names) - 1, max(1, round(share * len(names))))
    most = min(2 * wanted - 1, len(names) - 1)  # rather a few too many than none; never all
    units = [block for series in series_of(names) for block in _blocks(series, wanted, most)]
    units.sort(key=lambda unit: hashlib.sha256(f"{seed} {unit[0]}".encode()).digest())
    held_out: set[str] = set()
    for unit in units:
        if len(held_out) < wanted and len(held_out) + len(unit) <= most:
            held_out.update(unit)
    return {name: VALIDATION if name in held_out else TRAIN for name in names}


def series_of(names: Sequence[str]) -> list[list[str]]:
    """Return the images by series, those of none alone; each series in the order of its numbers."""
    numbered: dict[tuple[str, str], list[tuple[int, str]]] = collections.defaultdict(list)
    groups = []
    for name in dict.fromkeys(names):
        match = _NUMBERED.fullmatch(posixpath.splitext(name)[0])
        if match:
            numbered[match[1], match[3]].append((int(match[2]), name))
        else:
            groups.append([name])
    for members in numbered.values():
        members.sort()
        steps = collections.Counter(later - earlier for (earlier, _), (later, _) in itertools.pairwise(members))
        if len(members) >= FEWEST_IN_A_SERIES and max(steps.values()) >= EVEN * (len(members) - 1):
            groups.append([name for _, name in members])
        else:
            groups += [[name] for _, name in members]
    return groups


def _blocks(series: list[str], wanted: int, most: int) -> list[list[str]]:
    """Return a series whole, or, where it alone is too many, in two: its end can be held out."""
    return [series] if len(series) <= most else [series[:-wanted], series[-wanted:]]


def to_csv(split: Mapping[str, str]) -> str:
    """Return the text of split.csv: image,split."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("image", "split"), *split.items()])
    return text.getvalue()


def from_csv(text: str, place: str) -> dict[str, str]:
    """Return the split of each image that split.csv tells.

    Raises:
      UserError: a row that is none.
    """
    # csv itself refuses a NUL, in words of its own; here it is a name that no image has.
    try:
        rows = list(csv.reader(io.StringIO(text.replace("\0", "\ufffd"))))
    except csv.Error as error:  # a field of more than 131072 characters
        raise UserError(f"{place}: {error}, expected image,split and then a row an image") from error
    wrong = [
        number for number, row in enumerate(rows[1:], 2) if row and (len(row) != 2 or row[1] not in (TRAIN, VALIDATION))
    ]
    if not rows or rows[0] != ["image", "split"] or wrong:
        raise UserError(
            f"{place}, line {wrong[0] if wrong else 1}: expected image,split and then a row an image, with {TRAIN} or "
            f"{VALIDATION}"
        )
    split: dict[str, str] = {}
    for name, part in filter(None, rows[1:]):
        if split.setdefault(name, part) != part:
            raise UserError(f"{place}: {name} is both {split[name]} and {part}")
    return split
