"""Which classes a source has, and in which order: those that were given, those that it lists, those of its objects."""

import collections
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tpu_retinamask.data.annotations.class_names import MAX_CLASS_ID, ClassNames
from tpu_retinamask.data.sources.checked import BadEntry, shown
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.errors import UserError


class SettledClasses(NamedTuple):
    """Classes in their order.

    Attributes:
      names: of the classes.
      notes: what was merged, added or left out.
    """

    names: ClassNames
    notes: tuple[str, ...]


def settle_classes(
    given: ClassNames | None, listed: Sequence[str] | None, used: Iterable[str], source: str, settings: SourceSettings
) -> SettledClasses:
    """Number the classes of a source.

    Those that were given stand. Else they are those that the source lists, in its order, and behind them, sorted, those
    that its objects have beside; a source that lists none has its objects', sorted.

    Args:
      given: the classes of a file or of a model.
      listed: the source's own list.
      used: the class of each object.
      source: in the words of an error.
      settings: of the reading.

    Raises:
      UserError: a name twice in the list, unless they are to be merged; no class at all; too many.
    """
    if given is not None:
        return SettledClasses(given, ())
    own = [class_name(name, f"{source}: the list of classes") for name in listed or ()]
    notes = []
    twice = [name for name, count in collections.Counter(own).items() if count > 1]
    if twice:
        said = ", ".join(map(repr, twice[:5]))
        if settings.repeated_names == "refuse":
            raise UserError(
                f"{source}: {len(twice)} names stand for several classes: {said}; rename them, or take them for one by "
                "--gin_param=\"source.repeated_names='merge'\""
            )
        notes.append(f"took {len(twice)} names that stand for several classes for one class each: {said}")
    used = set(used)
    names = list(dict.fromkeys(own))
    further = sorted(used - set(names))
    if listed and further:
        notes.append(f"{len(further)} classes are not in its list and were put behind: {', '.join(further[:5])}")
    if settings.unused_classes == "leave_out":
        idle = [name for name in names if name not in used]
        names = [name for name in names if name in used]
        if idle:
            notes.append(f"left out {len(idle)} classes without an object: {', '.join(idle[:5])}")
    names += further
    if not names:
        raise UserError(f"{source}: no object has a class, and no list says any; give --classes")
    if len(names) > MAX_CLASS_ID + 1:
        raise UserError(f"{source}: {len(names)} classes, expected at most {MAX_CLASS_ID + 1}")
    return SettledClasses(ClassNames(tuple(names)), tuple(notes))


def class_name(value: object, place: str) -> str:
    """Return the name of a class, which a file may have written as a number.

    Raises:
      BadEntry: empty, or of characters that a class file cannot hold.
    """
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text or not text.isprintable():
        raise BadEntry(f"{place}: got {shown(value)}, expected the name of a class")
    return text
