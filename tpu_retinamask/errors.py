"""The errors that a user can cause: programs show them without a traceback, and nothing else that way."""

import re
import unicodedata
from collections.abc import Iterable

MOST_LISTED = 20  # enough to show a pattern, few enough to read
LONGEST_LINE = 2000  # characters on a terminal; a line of a file may have millions
LONGEST_READ = 200  # characters of what was read, in an error


class UserError(ValueError):
    """Something the user gave does not fit; the message says what, where, and what to do."""


class SettingError(UserError):
    """A setting has a value that it cannot have; raised where the settings are checked."""


class NonFiniteLossError(UserError):
    """A loss, or a weight, became NaN or infinite."""


def gin_param(setting: str, value: object) -> str:
    """Return the flag that sets a setting, as a shell takes it: --gin_param="source.on_bad_record='skip'"."""
    return f'--gin_param="{setting}={value!r}"'


def listed(lines: Iterable[object], *, most: int = MOST_LISTED, indent: str = "  ") -> str:
    """Return lines of a message, one below the other: the first `most` and how many more there are.

    Args:
      lines: of text.
      most: shown.
      indent: before each.
    """
    lines = list(lines)
    shown = [f"{indent}{line}" for line in lines[:most]]
    if len(lines) > most:
        shown.append(f"{indent}and {len(lines) - most} more")
    return "\n".join(shown)


def read_as(text: str, most: int = LONGEST_READ) -> str:
    """Return what was read as an error quotes it: in quotation marks, escaped, and cut where it is long."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}... ({len(text):,} characters)"


def printable(text: str) -> str:
    """Return text as a terminal is given it: nothing in it moves the cursor, rings or recolours, no line is endless.

    The one place that the names of files and classes pass on their way to people: line ends and tabs stay, other
    control characters are escaped.

    Args:
      text: of one line or several.
    """
    lines = [
        line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}... ({len(line):,} characters)"
        for line in text.split("\n")
    ]
    return "\n".join(line if line.isprintable() else re.sub(r"[^\t ]", _escaped, line) for line in lines)


def _escaped(match: re.Match) -> str:
    character = match[0]
    # A space of another script is nothing that moves the cursor; a mark that turns the direction of writing is.
    harmless = character.isprintable() or unicodedata.category(character) == "Zs"
    return character if harmless else repr(character)[1:-1]
