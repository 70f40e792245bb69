"""Whether the values of settings are of the types that their fields say, and within their ranges."""

import collections.abc
import dataclasses
import difflib
import functools
import sys
import types
import typing

from tpu_retinamask.errors import SettingError

LARGEST_SEED = 2**32 - 1  # NumPy's


def check_types(settings: object) -> None:
    """Refuse a value of another type, by the name of its field; call it first in `__post_init__`.

    A whole number stands for a float and a list for a tuple, as people write them in a configuration; a float is a
    finite one. What a callable takes, and what a type that is no builtin and no dataclass holds, is not looked at.

    Args:
      settings: a dataclass.

    Raises:
      SettingError: names the field, the value and the type expected.
    """
    for name, hint in _hints(type(settings)).items():
        check_type(name, getattr(settings, name), hint)


def check_type(name: str, value: object, hint: object) -> None:
    """Refuse a value of another type than its hint says; see `check_types`.

    Raises:
      SettingError: names the setting, the value and the type expected.
    """
    if not _fits(value, hint):
        raise SettingError(f"{name} is {value!r}, expected {_described(hint)}")


def check_least(
    values: collections.abc.Mapping[str, object], least: float, *, above: bool = False, expected: str = ""
) -> None:
    """Refuse numbers that are too small; None, and what is no number, is passed over, of several numbers all count.

    Args:
      values: by the names of their settings.
      least: allowed.
      above: `least` itself is not.
      expected: in other words than "1 or more".

    Raises:
      SettingError: names the first that is, and what was expected.
    """
    for name, value in values.items():
        if any(one <= least if above else one < least for one in _numbers(value)):
            limit = f"more than {least:g}" if above else f"{least:g} or more"
            raise SettingError(f"{name} is {value!r}, expected {expected or limit}")


def check_between(values: collections.abc.Mapping[str, object], low: float, high: float) -> None:
    """Refuse numbers outside [low, high]; see `check_least`."""
    for name, value in values.items():
        if not all(low <= one <= high for one in _numbers(value)):
            raise SettingError(f"{name} is {value!r}, expected a number from {low:g} to {high:g}")


def named(settings: object, *names: str) -> dict[str, object]:
    """Return the values of some settings by their names."""
    return {name: getattr(settings, name) for name in names}


def _numbers(value: object) -> list[float]:
    several = value if isinstance(value, tuple | list) else [value]
    return [one for one in several if isinstance(one, int | float) and not isinstance(one, bool)]


def check_names(settings_type: type, names: collections.abc.Iterable[str], called: str) -> None:
    """Refuse names that are no settings.

    Args:
      settings_type: a dataclass.
      names: that were given.
      called: whose settings they are, in the words of the error: "RetinaMask".

    Raises:
      SettingError: names the first that is none, and the nearest one that is.
    """
    known = [field.name for field in dataclasses.fields(settings_type)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f": its settings are {', '.join(known)}"
            raise SettingError(f"{called} has no setting {name!r}{hint}")


@functools.cache
def _hints(settings_type: type) -> dict:
    hints = typing.get_type_hints(settings_type)
    return {field.name: hints[field.name] for field in dataclasses.fields(settings_type)}


def _fits(value: object, hint: object) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin is typing.Literal:
        return value in arguments
    kind = origin or hint
    if kind is type(None):
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        # A whole number may be too large to be a float.
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if kind is tuple:
        return isinstance(value, tuple | list)
    if kind is collections.abc.Callable:
        return callable(value)
    return isinstance(value, kind) if isinstance(kind, type) else True


def _described(hint: object) -> str:
    """Return a type in words: "a whole number or None"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_described(one) for one in arguments)
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"{len(arguments)} values, each {_described(arguments[0])}"
    if origin is tuple and arguments:
        return f"several values, each {_described(arguments[0])}"
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    words = {
        int: "a whole number",
        float: "a number",
        bool: "True or False",
        str: "text in quotes",
        tuple: "several values",
    }
    words |= {type(None): "None", dict: "a dictionary", collections.abc.Callable: "a function"}
    kind = origin or hint
    return words.get(kind, getattr(kind, "__name__", str(kind)))
