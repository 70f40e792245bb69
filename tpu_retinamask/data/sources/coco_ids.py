"""The ids of COCO entries: numbers or texts, and found in whichever way they are written."""

from typing import Any

from tpu_retinamask.data.sources.checked import BadEntry, Entry, as_whole, shown

Key = int | str


class Ids:
    """The ids of entries, found whether they are written as numbers or as text."""

    def __init__(self) -> None:
        """Begin without any."""
        self._known: dict[str, Key] = {}
        self._place: dict[str, str] = {}
        self.bad: set[str] = set()  # those of entries that could not be used, which is told already

    def add(self, entry: Entry) -> Key:
        """Take in the id of an entry.

        Raises:
          BadEntry: it is none, or an entry before has it.
        """
        key = as_key(entry.values.get("id"))
        if key is None:
            raise BadEntry(f"{entry.place}: id: {got(entry, 'id')}, expected a whole number or a text")
        if str(key) in self._place:
            raise BadEntry(
                f"{entry.place}: id: got {key!r}, expected another than that of {self._place[str(key)]} "
                "(ids used more than once)"
            )
        self._known[str(key)], self._place[str(key)] = key, entry.place
        return key

    def find(self, value: Any) -> Key | None:
        """Return the id that a value means; None: there is none."""
        key = as_key(value)
        if key is None:
            return None
        found = self._known.get(str(key))
        if found is None and isinstance(key, str) and as_whole(key) is not None:
            found = self._known.get(str(as_whole(key)))
        return found

    def forget(self, key: Key) -> None:
        """Leave out an id whose entry cannot be used."""
        del self._known[str(key)]
        self.bad.add(str(key))

    def some(self) -> str:
        """Return how many there are and the first of them."""
        some = ", ".join(map(repr, list(self._known.values())[:3]))
        return f"one of the {len(self._known)} ids, such as {some}" if some else "the id of one, of which there is none"


def as_key(value: Any) -> Key | None:
    """Return an id: a whole number, also of 3.0, or a text; None: it is neither."""
    if isinstance(value, str):
        return value.strip() or None
    whole = as_whole(value)
    return None if whole is None else whole


def order_of(key: Key) -> tuple:
    """Return what ids are sorted by: numbers, also those written as text, before texts."""
    whole = as_whole(key)
    return (1, 0, key) if whole is None else (0, whole, str(key))


def got(entry: Entry, field: str) -> str:
    """Return what an entry has in a field, in the words of an error."""
    if field not in entry.values:
        return "got nothing"
    value = entry.values[field]
    return "got null" if value is None else f"got {shown(value)}"
