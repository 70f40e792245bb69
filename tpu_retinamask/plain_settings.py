"""The settings in force as typed JSON, in which no code can hide: what is read of a run by whoever uses its model.

`config.gin` beside it is for people; gin imports what such a file names, and calls what it refers to.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from tpu_retinamask.errors import UserError
from tpu_retinamask.files import json_text

FORMAT = 1


def to_json(parts: Mapping[str, Any], names: Mapping[type, str]) -> str:
    """Return the settings of each part as JSON; what is no plain value (a function) is listed, and left out.

    Args:
      parts: settings by their owner's name.
      names: owner's name of each class of settings.
    """
    left_out: list[str] = []
    settings = {name: _fields(name, part, names, left_out) for name, part in parts.items()}
    content = {"format": FORMAT, "settings": settings, "left_out": left_out}
    return json_text(content | {"sha256": _digest(content)}, indent=1) + "\n"


def to_bindings(text: str, path: str, known: Mapping[str, type]) -> list[str]:
    """Return gin's lines, `NAME.field = value`, of settings as `to_json` writes them: of fields and plain values alone.

    Args:
      text: of the file.
      path: of it, for messages.
      known: class of settings by its owner's name.

    Raises:
      UserError: it holds anything else.
    """
    try:
        content = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected the JSON that train writes: {error}") from error
    digest = content.pop("sha256", None) if isinstance(content, dict) else None
    if digest is not None and digest != _digest(content):  # None: from before there was one
        raise UserError(
            f"{path} does not hold what train wrote: copy it anew. To change a setting, give it by --gin_param or "
            "--gin_file"
        )
    settings = content.get("settings") if isinstance(content, dict) and content.get("format") == FORMAT else None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: expected settings of format {FORMAT}, as train writes them")
    return [line for name, fields in settings.items() for line in _lines(name, fields, path, known, "")]


def is_plain(value: object) -> bool:
    """Tell whether a value is made of numbers, text, lists and dictionaries alone."""
    if isinstance(value, Mapping):
        return all(is_plain(item) for pair in value.items() for item in pair)
    if isinstance(value, tuple | list):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _fields(name: str, settings: Any, names: Mapping[type, str], left_out: list[str]) -> dict[str, Any]:
    found = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if type(value) in names:
            inner = names[type(value)]
            found[field.name] = {"settings": inner, "fields": _fields(inner, value, names, left_out)}
        elif is_plain(value):
            found[field.name] = _encoded(value)
        else:
            left_out.append(f"{name}.{field.name}")
    return found


def _encoded(value: Any) -> Any:
    if isinstance(value, Mapping):  # JSON's own would make text of every key
        return {"pairs": [[_encoded(key), _encoded(item)] for key, item in value.items()]}
    return [_encoded(item) for item in value] if isinstance(value, tuple | list) else value


def _decoded(value: Any, place: str) -> Any:
    if isinstance(value, list):
        return tuple(_decoded(item, place) for item in value)
    if isinstance(value, dict):
        pairs = value.get("pairs")
        if set(value) != {"pairs"} or not isinstance(pairs, list):
            raise UserError(f"{place}: expected a plain value")
        try:
            return {_decoded(key, place): _decoded(item, place) for key, item in pairs}
        except (TypeError, ValueError) as error:
            raise UserError(f"{place}: expected pairs of a key and a value") from error
    return value


def _lines(name: str, fields: Any, path: str, known: Mapping[str, type], scope: str) -> list[str]:
    if name not in known or not isinstance(fields, dict):
        raise UserError(f"{path}: {name!r} is none of the owners of settings, {sorted(known)}")
    there, lines = {field.name for field in dataclasses.fields(known[name])}, []
    for field, value in fields.items():
        place = f"{path}: {name}.{field}"
        if field not in there:
            raise UserError(f"{place} is no setting of this version: use the version that trained it, or a newer one")
        if isinstance(value, dict) and set(value) == {"settings", "fields"}:
            inner = value["settings"]
            if scope or inner not in known:  # settings lie one in another, and no deeper
                raise UserError(f"{place}: expected a plain value")
            lines.append(f"{name}.{field} = @{field}/{inner}()")
            lines += _lines(inner, value["fields"], path, known, f"{field}/")
        else:
            lines.append(f"{scope}{name}.{field} = {_decoded(value, place)!r}")
    return lines


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
