"""What others wrote, read with bounds, and each value asked for its type: one error that lists all that is wrong."""

import json
import math
import numbers
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from xml.etree.ElementTree import Element, ParseError

import defusedxml
import defusedxml.ElementTree

from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.errors import UserError, gin_param, listed
from tpu_retinamask.files import read_bytes

FARTHEST_PIXEL = 1e7  # no picture is as large: beyond it arithmetic would overflow somewhere
LONGEST_SHOWN = 60  # characters of a value in an error

Thing = TypeVar("Thing")


class BadEntry(UserError):
    """One entry cannot be used; says its place and why."""


class Entry:
    """An object of a JSON file, whose values are asked for by name and type."""

    def __init__(self, value: Any, place: str) -> None:
        """Take an object.

        Args:
          value: as the file has it.
          place: where it stands, in the words of an error: "a.json, shapes[3]".

        Raises:
          BadEntry: it is none.
        """
        if not isinstance(value, dict):
            raise BadEntry(f"{place}: got {shown(value)}, expected an object {{...}}")
        self.values, self.place = value, place

    def has(self, name: str) -> bool:
        """Tell whether a value is there and not null."""
        return self.values.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text."""
        return self._value(name, default, "text", lambda value: value if isinstance(value, str) else None)

    def number(self, name: str, default: float | None = None) -> float:
        """Return a finite number; one written as text is read."""
        return self._value(name, default, "a finite number", as_number)

    def whole(self, name: str, default: int | None = None) -> int:
        """Return a whole number; 3.0 and one written as text are read."""
        return self._value(name, default, "a whole number", as_whole)

    def pixels(self, name: str, default: float | None = None) -> float:
        """Return a number that can be a place in a picture."""
        return self._value(name, default, "a number of pixels", as_pixels)

    def items(self, name: str, default: list | None = None) -> list:
        """Return a list."""
        return self._value(name, default, "a list [...]", lambda value: value if isinstance(value, list) else None)

    def entry(self, name: str) -> "Entry":
        """Return an object in this one."""
        return Entry(self._value(name, None, "an object {...}", lambda value: value), f"{self.place}.{name}")

    def entries(self, name: str, default: list | None = None) -> Iterator["Entry"]:
        """Yield the objects of a list; one that is none is told when it is reached."""
        for number, value in enumerate(self.items(name, default)):
            yield Entry(value, f"{self.place}.{name}[{number}]")

    def _value(self, name: str, default: Any, expected: str, read: Callable[[Any], Any]) -> Any:
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            got = "nothing" if name not in self.values else "null"
            raise BadEntry(f"{self.place}: {name}: got {got}, expected {expected}")
        found = read(value)
        if found is None:
            raise BadEntry(f"{self.place}: {name}: got {shown(value)}, expected {expected}")
        return found


class Faults:
    """Collects what is wrong with the entries of a source, to stop at all of it at once or to leave it out."""

    def __init__(self) -> None:
        """Begin with nothing wrong."""
        self.said: list[str] = []

    def collect(self, read: Callable[[], Thing]) -> Thing | None:
        """Return what a function reads, or None where it raises `BadEntry`, which is kept."""
        try:
            return read()
        except BadEntry as error:
            self.said.append(str(error))
            return None

    def finish(self, source: str, settings: SourceSettings) -> tuple[str, ...]:
        """Raise one error of all faults, or return the note that they were left out.

        Args:
          source: the file or folder, in the words of an error.
          settings: of the reading.

        Raises:
          AnnotationError: there are faults, and `on_bad_record` is "stop".
        """
        if not self.said:
            return ()
        if settings.on_bad_record == "stop":
            raise AnnotationError(
                f"{source}: {len(self.said)} bad entries; correct them, or leave them out, counted, by "
                + gin_param("source.on_bad_record", "skip"),
                self.said,
            )
        return (f"left out {len(self.said)} bad entries:\n{listed(self.said)}",)

    def refuse_all(self, source: str, settings: SourceSettings) -> None:
        """Raise one error of all faults where, without these entries, nothing is left.

        Args:
          source: as of `finish`.
          settings: as of `finish`.

        Raises:
          AnnotationError: there are faults.
        """
        if self.said and settings.on_bad_record == "skip":
            raise AnnotationError(
                f"{source}: nothing is left after leaving out {len(self.said)} bad entries", self.said
            )
        self.finish(source, settings)


def load_text(path: str) -> str:
    """Return the content of a text file, local or gs://; a byte order mark is passed over.

    Raises:
      FileNotFoundError: it does not exist.
      UserError: it is no UTF-8 text, or too large.
    """
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is no UTF-8 text, which is expected") from error


def load_json(path: str) -> Any:
    """Return the content of a JSON file, local or gs://; a byte order mark is passed over.

    Raises:
      FileNotFoundError: it does not exist.
      UserError: it is no JSON, too large, or nested too deep.
    """
    return json_of(load_text(path), path)


def json_of(text: str, place: str) -> Any:
    """Return what a JSON text says.

    Args:
      text: of a file, or of a field in one.
      place: where it stands, in the words of an error.

    Raises:
      UserError: it is no JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"{place}: lists and objects are nested too deep to be annotations") from None
    except ValueError as error:  # malformed, or a number of thousands of digits
        raise UserError(f"{place}: not JSON: {error}") from error


def load_xml(path: str) -> Element:
    """Return the root of an XML file, local or gs://; entities of its own are refused, for they can explode.

    Raises:
      FileNotFoundError: it does not exist.
      UserError: it is no XML, too large, or holds entities.
    """
    text = read_bytes(path)
    try:
        return defusedxml.ElementTree.fromstring(text)
    except defusedxml.DefusedXmlException as error:
        raise UserError(f"{path}: defines entities of its own, which no annotation tool writes: {error}") from error
    except (ParseError, ValueError, LookupError) as error:  # malformed; an encoding that is none
        raise UserError(f"{path}: not an XML file: {error}") from error


def as_number(value: Any) -> float | None:
    """Return a finite number, also of a text; None: it is none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real | str):  # those of NumPy too
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_pixels(value: Any) -> float | None:
    """Return a number that can be a place in a picture, also of a text; None: it is none."""
    number = as_number(value)
    return number if number is not None and abs(number) <= FARTHEST_PIXEL else None


def as_whole(value: Any) -> int | None:
    """Return a whole number, also of a text or of 3.0; None: it is none."""
    number = as_number(value)
    if number is None or number != math.floor(number):
        return None
    return int(value) if isinstance(value, numbers.Integral) else int(number)


def shown(value: Any) -> str:
    """Return a value as an error shows it: short, and printable whatever it holds."""
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        text = f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
        return text if value else text.replace(" of 0", " that is empty")
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."
