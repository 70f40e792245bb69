"""What VGG Image Annotator 2 and 3 have in common: the attribute that is the class, and how its values are written."""

import collections
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tpu_retinamask.data.sources.checked import BadEntry, shown
from tpu_retinamask.data.sources.class_list import class_name
from tpu_retinamask.errors import UserError

# Names that people give to the attribute that says what an object is, the first of them first.
COMMON = ("class", "classname", "class_name", "label", "category", "name", "type", "object", "object_name", "species")
ALONE = "object"  # the class of objects that nothing is said of


class ClassAttribute(NamedTuple):
    """Which attribute of the regions is the class.

    Attributes:
      key: under which a region has it; None: no region has any attribute, and all are of one class.
      note: how it was chosen, or empty.
    """

    key: str | None
    note: str


def choose_attribute(titles: Mapping[str, str], source: str) -> ClassAttribute:
    """Choose the attribute that is the class: the only one, or the one with a common name.

    Args:
      titles: key -> name of each attribute of regions.
      source: in the words of an error.

    Raises:
      UserError: there are several, and none has a common name.
    """
    if not titles:
        return ClassAttribute(None, f"regions have no attribute, so all are of the class {ALONE!r}")
    if len(titles) == 1:
        return ClassAttribute(next(iter(titles)), "")
    by_name: dict[str, str] = {}
    for key, title in titles.items():
        by_name.setdefault(title.strip().lower(), key)
    chosen = next((name for name in COMMON if name in by_name), None)
    said = ", ".join(map(repr, list(titles.values())[:10]))
    if chosen is None:
        raise UserError(
            f"{source}: regions have {len(titles)} attributes, {said}, expected one, or one that is called "
            f"{', '.join(COMMON)}: rename the one that is the class"
        )
    key = by_name[chosen]
    return ClassAttribute(key, f"of the attributes {said}, {titles[key]!r} was taken for the class")


def class_of(attributes: Mapping[str, Any], key: str | None, place: str, *, alone: str = ALONE) -> str:
    """Return the class of a region.

    Args:
      attributes: key -> value; a text, or for checkboxes an object of value -> true.
      key: of the attribute that is the class; None: there is none.
      place: in the words of an error.
      alone: the class of all, where there is none.

    Raises:
      BadEntry: nothing is said, or several values are.
    """
    if key is None:
        return alone
    value = attributes.get(key)
    if isinstance(value, dict):
        ticked = [name for name, on in value.items() if on is True or on == "true"]
        if len(ticked) != 1:
            raise BadEntry(f"{place}: {key}: got {len(ticked)} ticked values, expected one, the class")
        value = ticked[0]
    if value is None or value == "":
        raise BadEntry(f"{place}: {key}: got nothing, expected the class of the region")
    return class_name(value, f"{place}: {key}")


def keys_of(regions: Iterable[Any]) -> dict[str, str]:
    """Return the attributes that regions have, those of most regions first, each its own name."""
    count: collections.Counter[str] = collections.Counter()
    for attributes in regions:
        if isinstance(attributes, dict):
            count.update(key for key in attributes if isinstance(key, str))
    return {key: key for key, _ in count.most_common()}


def unknown_shape(kind: object, place: str, known: str) -> BadEntry:
    """Return the error of a shape that is none."""
    return BadEntry(f"{place}: got the shape {shown(kind)}, expected {known}")
