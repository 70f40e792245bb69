"""Rows of a CSV file with their line numbers, and the one error that lists every bad line."""

import csv
import io
import os
from collections.abc import Sequence

from tpu_retinamask.errors import UserError, listed, read_as
from tpu_retinamask.files import read_bytes

LONGEST_FIELD = 1 << 26  # characters: a mask's polygons and run lengths are one field


class AnnotationError(UserError):
    """Report the bad lines of an annotation or class file, the first of them.

    Attributes:
      problems: every problem found, one string each, in file order; the message shows as many as `errors.listed` does.
    """

    def __init__(self, summary: str, problems: Sequence[str]) -> None:
        """Compose the message of a summary and the problems."""
        self.problems = tuple(problems)
        super().__init__(f"{summary}\n{listed(problems)}" if problems else summary)


def describe(file: str, line: int, column: int | None, name: str, read: str, expected: str) -> str:
    """Format one problem as `FILE, line N, column C (NAME): read 'X', expected Y`."""
    where = f"{file}, line {line}" + (f", column {column} ({name})" if column is not None else "")
    return f"{where}: read {read_as(read)}, expected {expected}"


def raise_if_any(file: str, problems: list[str], leave_out: str | None = None) -> None:
    """Raise one `AnnotationError` for all the problems of a file, if there are any.

    Args:
      file: its name.
      problems: a line each.
      leave_out: the flag that leaves them out, where there is one.
    """
    if problems:
        noun = "bad line" if len(problems) == 1 else "bad lines"
        advice = f"; correct them, or leave them out, counted, by {leave_out}" if leave_out else ""
        raise AnnotationError(f"{file}: {len(problems)} {noun}{advice}", problems)


def read_rows(path: str) -> list[tuple[int, list[str]]]:
    """Read a CSV file into (1-based line number, stripped fields) pairs.

    Accepts what spreadsheets and scripts really write: LF, CRLF or CR line ends, a missing final
    newline, a UTF-8 byte order mark, quoted fields, blank lines and lines of commas only (skipped).

    Args:
      path: local path or any URL that tf.io.gfile opens.

    Raises:
      FileNotFoundError: the file does not exist.
      AnnotationError: not UTF-8 text, a broken quote, or no row at all.
    """
    name = os.path.basename(path)
    text = _decode(read_bytes(path), name)
    rows, previous_end = [], 0
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            line, previous_end = previous_end + 1, reader.line_num
            if any("\n" in field or "\r" in field for field in fields):
                raise AnnotationError(
                    f"{name}: 1 bad line",
                    [
                        f"{name}, line {line}: a quoted field runs over the end of the line, expected every "
                        'quote (") to be closed on its own line'
                    ],
                )
            fields = [field.strip() for field in fields]
            if any(fields):
                rows.append((line, fields))
    except csv.Error as error:
        raise AnnotationError(
            f"{name}: 1 bad line",
            [
                f"{name}, line {max(reader.line_num, 1)}: {error}, expected comma-separated fields whose quotes "
                '(") are closed'
            ],
        ) from error
    if not rows:
        raise AnnotationError(f"{name}: the file is empty, expected at least one row", [])
    return rows


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = ""
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            hint = " (the file starts like UTF-16; save it as UTF-8)"
        raise AnnotationError(
            f"{name}: 1 bad line",
            [f"{name}, line {line}: read the byte 0x{data[error.start]:02x}, expected UTF-8 text{hint}"],
        ) from error
