"""The class file: `name,id` rows, ids from 0."""

import csv
import dataclasses
import difflib
import io
import logging
import os
import re

from tpu_retinamask.data.annotations.csv_rows import describe, raise_if_any, read_rows

log = logging.getLogger(__name__)

# Every id up to the highest costs an output of the classification head per anchor and a mask channel:
# a larger id is a slip (a category id of another numbering), not a plan.
MAX_CLASS_ID = 65535
_WHOLE = re.compile("[+-]?[0-9]+")  # str.isdigit is true of superscripts, of which int makes no number
_LONGEST_ID = 20  # characters; of thousands of digits int makes no number
_LONGEST_NAME = 200  # characters of a name whose nearest is looked for, which takes their square


@dataclasses.dataclass(frozen=True)
class ClassNames:
    """Names of the classes by id.

    Attributes:
      names: entry i is the name of class i, None where the file leaves a gap.
    """

    names: tuple[str | None, ...]

    @property
    def num_classes(self) -> int:
        """Count the outputs of the classification head: the highest id plus one, gaps included."""
        return len(self.names)

    @property
    def ids(self) -> dict[str, int]:
        """Map each name to its id."""
        return {name: index for index, name in enumerate(self.names) if name is not None}

    def name_of(self, class_id: int) -> str:
        """Name a class; a gap is called `unused_<id>`.

        Raises:
          IndexError: no such id.
        """
        if not 0 <= class_id < len(self.names):
            raise IndexError(f"class id {class_id} is outside 0..{len(self.names) - 1}")
        name = self.names[class_id]
        return f"unused_{class_id}" if name is None else name

    def expected(self, name: str) -> str:
        """Say what was expected in place of a name that is none of these: the nearest, or the first."""
        ids = self.ids
        if whole_number(name) in ids.values():
            return "the name of a class, not its id"
        by_lower = {known.lower(): known for known in ids}
        near = difflib.get_close_matches(name, ids, n=3, cutoff=0.5) if len(name) <= _LONGEST_NAME else []
        if name.lower() in by_lower:
            near = [by_lower[name.lower()]]
        if near:
            return "a class of the class file; the nearest are " + ", ".join(map(repr, near))
        some = ", ".join(map(repr, list(ids)[:5]))
        return f"a class of the class file: {some}" + (", ..." if len(ids) > 5 else "")

    def to_csv(self) -> str:
        """Write the class file that `read_classes` reads back to an equal object."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            (name, index) for index, name in enumerate(self.names) if name is not None
        )
        return text.getvalue()


def read_classes(path: str) -> ClassNames:
    """Read a class file of `name,id` rows.

    A first row whose second column says `id` or `class_id` is a header and is skipped. Gaps in the ids
    are legal; a log warning counts the outputs that no class uses.

    Args:
      path: local path or any URL that tf.io.gfile opens.

    Raises:
      FileNotFoundError: the file does not exist.
      AnnotationError: an empty file, a wrong column count, an empty or duplicate name, an id that is
        malformed, negative, duplicate or above `MAX_CLASS_ID`. All bad lines are listed together.
    """
    file = os.path.basename(path)
    rows = read_rows(path)
    first_line, first = rows[0]
    if len(first) == 2 and first[1].lower() in ("id", "class_id"):
        log.info("%s, line %d: skipped the header row %s", file, first_line, ",".join(first))
        rows = rows[1:]
    problems: list[str] = []
    name_lines: dict[str, int] = {}
    id_lines: dict[int, int] = {}
    by_id: dict[int, str] = {}
    for line, fields in rows:
        problem = _check_row(file, line, fields, name_lines, id_lines)
        if problem:
            problems.append(problem)
            continue
        name, class_id = fields[0], whole_number(fields[1])
        assert class_id is not None  # as was checked
        name_lines[name] = id_lines[class_id] = line
        by_id[class_id] = name
    if not by_id and not problems:
        problems.append(f"{file}, line {first_line}: only a header row, expected at least one row `name,id`")
    raise_if_any(file, problems)
    classes = ClassNames(tuple(by_id.get(index) for index in range(max(by_id) + 1)))
    gaps = classes.num_classes - len(by_id)
    if gaps:
        log.warning(
            "%s: %d of the %d class outputs are unused, because the highest id is %d and only %d classes are "
            "named; number the classes from 0 without gaps to save them",
            file,
            gaps,
            classes.num_classes,
            classes.num_classes - 1,
            len(by_id),
        )
    return classes


def whole_number(text: str) -> int | None:
    """Return a number written in the digits 0 to 9; None: it is none, or longer than any id."""
    return int(text) if len(text) <= _LONGEST_ID and _WHOLE.fullmatch(text) else None


def _check_row(file, line, fields, name_lines, id_lines) -> str | None:
    if len(fields) != 2:
        return describe(
            file,
            line,
            None,
            "",
            ",".join(fields),
            f"2 columns `name,id`, not {len(fields)}"
            + (" (use commas between columns)" if re.search("[;\t]", fields[0]) else ""),
        )
    name, class_id = fields
    if not name:
        return describe(file, line, 1, "name", name, "a class name")
    number = whole_number(class_id)
    if number is None and not _WHOLE.fullmatch(class_id):
        return describe(file, line, 2, "id", class_id, "a whole number from 0")
    if number is not None and number < 0:
        return describe(file, line, 2, "id", class_id, "an id that is not negative; ids start at 0")
    if number is None or number > MAX_CLASS_ID:
        return describe(file, line, 2, "id", class_id, f"an id up to {MAX_CLASS_ID}; ids start at 0")
    if name in name_lines:
        return describe(
            file,
            line,
            1,
            "name",
            name,
            f"a new name; line {name_lines[name]} has this one already (duplicate class name)",
        )
    if number in id_lines:
        return describe(
            file,
            line,
            2,
            "id",
            class_id,
            f"a new id; line {id_lines[number]} has this one already (duplicate class id)",
        )
    return None
