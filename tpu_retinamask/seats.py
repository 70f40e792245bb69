"""Seats: what a user adds by name from a file of their own, without touching the package.

A file joins by being imported, which a gin file does with a line `import my_backbone`, or by an installed
distribution's entry point in the group of the seat.
"""

import difflib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from tpu_retinamask.errors import SettingError

Thing = TypeVar("Thing")


class Seat(Generic[Thing]):
    """Things of one kind by name."""

    def __init__(self, kind: str, group: str) -> None:
        """Create an empty seat.

        Args:
          kind: what sits here, in the words of an error: "backbone".
          group: of the entry points that join, such as "tpu_retinamask.backbones".
        """
        self.kind, self.group = kind, group
        self._things: dict[str, Thing] = {}

    def register(self, name: str) -> Callable[[Thing], Thing]:
        """Return a decorator that gives a thing its name here.

        Raises:
          SettingError: another thing has the name.
        """

        def join(thing: Thing) -> Thing:
            taken = self._things.get(name)
            # A module that is imported a second time, as `__main__` or reloaded, is no other thing.
            if taken is not None and getattr(taken, "__qualname__", taken) != getattr(thing, "__qualname__", thing):
                raise SettingError(f"{self.kind} {name!r} is there already ({taken!r}): give {thing!r} another name")
            self._things[name] = thing
            return thing

        return join

    def names(self) -> tuple[str, ...]:
        """Return all names: those registered, and those of entry points, which are not loaded for it."""
        return tuple(dict.fromkeys([*self._things, *(point.name for point in self._points())]))

    def get(self, name: str) -> Thing:
        """Return the thing of a name, loading the entry point that has it.

        Raises:
          SettingError: no such name; lists those that there are, the nearest first.
        """
        if name in self._things:
            return self._things[name]
        for point in self._points():
            if point.name == name:
                self._things.setdefault(name, point.load())
                return self._things[name]
        near = difflib.get_close_matches(str(name), self.names(), n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(map(repr, near))}" if near else ""
        raise SettingError(
            f"{self.kind} {name!r} is not one of {self.names()}{hint}. One of your own joins by `import MODULE` in a "
            f"gin file, or by the entry point group {self.group}: see docs/extending.md"
        )

    def _points(self) -> list:
        return list(entry_points(group=self.group))
