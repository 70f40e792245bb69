"""The settings that a program has itself: the arguments that gin gives it, checked before it does anything."""

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

from tpu_retinamask.errors import SettingError
from tpu_retinamask.setting_types import check_between, check_least, check_type

Limit = tuple[float, float | None]


def checked(**limits: Limit) -> Callable[[Callable], Callable]:
    """Return a decorator that checks the types, and these ranges, of a function's arguments that have defaults.

    Args:
      **limits: (least, most) of an argument, or of each number of one that holds several; most None: none.

    Raises:
      SettingError: when the function is called; names the setting, PROGRAM.NAME, its value and what was expected.
    """

    def decorate(function: Callable) -> Callable:
        signature, hints = inspect.signature(function), typing.get_type_hints(function)
        names = [one.name for one in signature.parameters.values() if one.default is not inspect.Parameter.empty]
        unknown = set(limits) - set(names)
        assert not unknown, f"{function.__name__} has no settings {unknown}"

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            try:
                for name in names:
                    check_type(name, bound.arguments[name], hints[name])
                for name, (least, most) in limits.items():
                    if most is None:
                        check_least({name: bound.arguments[name]}, least)
                    else:
                        check_between({name: bound.arguments[name]}, least, most)
            except SettingError as error:
                raise SettingError(f"{function.__name__}.{error}") from error
            return function(*args, **kwargs)

        call.__signature__ = signature  # type: ignore[attr-defined]  # gin asks the wrapper itself
        return call

    return decorate
