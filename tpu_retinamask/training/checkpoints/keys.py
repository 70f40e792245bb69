"""How TensorFlow names a variable in a checkpoint that lists variables by their paths, part by part."""

import re

_KEY = re.compile(r"([^/]+)/([^/]+)/\.ATTRIBUTES/VARIABLE_VALUE")


def variable_key(part: str, path: str) -> str:
    """Return the key of the variable `path` of a part ("model"): a dict's key has ".S" for "/" and ".." for "."."""
    escaped = path.replace(".", "..").replace("/", ".S")
    return f"{part}/{escaped}/.ATTRIBUTES/VARIABLE_VALUE"


def variable_of(key: str) -> tuple[str, str] | None:
    """Return the part and the path that a key stands for, or None where it stands for no variable of a part."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    # From the left: a name that ends in "." and "S" after it is "..S", which holds a ".S" that is no "/".
    return match[1], re.sub(r"\.([.S])", lambda escape: "/" if escape[1] == "S" else ".", match[2])
