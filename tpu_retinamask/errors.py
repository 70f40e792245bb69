"""The errors that a user can cause: programs show them without a traceback, and nothing else that way."""

from collections.abc import Iterable

MOST_LISTED = 20  # enough to show a pattern, few enough to read


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
