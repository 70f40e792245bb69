"""The `.ini` file in which keras-maskrcnn keeps its anchors."""

import configparser

from tpu_retinamask.errors import UserError
from tpu_retinamask.files import read_bytes
from tpu_retinamask.ops.anchors import AnchorGrid

_ANCHORS, _LEVELS = "anchor_parameters", "pyramid_levels"
_KEYS = {_ANCHORS: {"sizes": int, "strides": int, "ratios": float, "scales": float}, _LEVELS: {"levels": int}}


def read_anchor_config(path: str) -> AnchorGrid:
    """Read the anchors of a `.ini` file: `[anchor_parameters]` and `[pyramid_levels]`, both optional.

    Without `[anchor_parameters]`, each level gets the size and the stride that it has among the default levels 3
    to 7 (the original hands them out in order, whatever the levels, so levels from 4 get the strides of 3).

    Args:
      path: local path or any URL that tf.io.gfile opens.

    Raises:
      FileNotFoundError: the file does not exist.
      UserError: it cannot be read or is not an `.ini` file of UTF-8 text; an unknown section or key, a missing
        key, a value that is not a list of numbers, sizes or strides that do not match the levels.
    """
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not an .ini file: not UTF-8 text, first at byte {error.start}") from error
    parser = configparser.ConfigParser()
    try:
        parser.read_string(text, path)
    except configparser.Error as error:
        raise UserError(f"{path}: not an .ini file: {error}") from error
    unknown = sorted(set(parser.sections()) - set(_KEYS))
    if unknown:
        raise UserError(f"{path}: unknown section {unknown}, expected {sorted(_KEYS)}")
    values = {}
    for section in parser.sections():
        values.update(_read_section(path, section, parser[section]))
    default = AnchorGrid()
    levels = values.setdefault("levels", default.levels)
    if "sizes" not in values:
        if not set(levels) <= set(default.levels):
            raise UserError(
                f"{path}: levels {levels} need sizes and strides in [{_ANCHORS}]; only the levels "
                f"{default.levels} have a default"
            )
        for key in ("sizes", "strides"):
            values[key] = tuple(getattr(default, key)[default.levels.index(level)] for level in levels)
    try:
        return AnchorGrid(**values)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _read_section(path, section, entries):
    if set(entries) != set(_KEYS[section]):
        raise UserError(f"{path}: [{section}] has the keys {sorted(entries)}, expected {sorted(_KEYS[section])}")
    values = {}
    for key, number in _KEYS[section].items():
        try:
            values[key] = tuple(number(part) for part in entries[key].split())
        except ValueError:
            values[key] = ()
        if not values[key]:
            raise UserError(
                f"{path}: [{section}] {key} is {entries[key]!r}, expected numbers with spaces between "
                f"them, such as {key} = {' '.join(map(str, getattr(AnchorGrid(), key)))}"
            )
    return values
