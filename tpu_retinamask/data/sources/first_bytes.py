"""What a file is, by its first bytes: which names a JSON file begins with, which element an XML file has."""

import re

import tensorflow as tf

from tpu_retinamask.files import list_folder, read_head

FIRST = 1 << 18  # bytes read
MOST_TOKENS = 50_000  # texts and brackets looked at

# A lone quote is a text that goes on beyond what was read.
TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\]:]', re.DOTALL)
ROOT = re.compile(r"<([A-Za-z_][\w.:-]*)")


def split_of(path: str) -> tuple[str, str]:
    """Return (path, part): `FOLDER#val` names a part of a data set, unless a file or folder is called that."""
    base, _, part = path.partition("#")
    if not part or exists(path):
        return path, ""
    return base, part


def exists(path: str) -> bool:
    """Tell whether there is a file or folder; no path at all is none."""
    try:
        return tf.io.gfile.exists(path)
    except Exception:
        return False


def first_text(path: str) -> str:
    """Return the first characters of a file; empty: it cannot be read, whatever the reason."""
    try:
        return read_head(path, FIRST).decode("utf-8-sig", "ignore")
    except Exception:  # a path that is none: no kind recognises it
        return ""


def names(path: str) -> list[str]:
    """List the names in a folder, sorted; none: it is none."""
    try:
        return sorted(name.rstrip("/") for name in list_folder(path)) if tf.io.gfile.isdir(path) else []
    except Exception:
        return []


def json_names(path: str) -> dict[int, set[str]]:
    """Return the names that the objects at the beginning of a JSON file give their values.

    Args:
      path: of any file.

    Returns:
      depth -> names; the object that is the file has depth 1, as has each in a list that is the file (`is_json_list`).
      Of the objects at depth 2 and below the names of all that were seen. Empty: no JSON.
    """
    return _names_in(first_text(path))


def is_json_list(path: str) -> bool:
    """Tell whether a file begins like a JSON list."""
    return first_text(path).lstrip().startswith("[")


def xml_root(path: str) -> str:
    """Return the name of the element that an XML file is; empty: it is none."""
    text = first_text(path).lstrip()
    if not text.startswith("<"):
        return ""
    text = re.sub(r"<\?.*?\?>|<!--.*?-->", "", text, flags=re.DOTALL)
    found = ROOT.search(text)
    return found[1] if found else ""


def _names_in(text: str) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    if not text.lstrip().startswith(("{", "[")):
        return found
    depth, last = 0, None
    for number, match in enumerate(TOKEN.finditer(text)):
        token = match[0]
        if number > MOST_TOKENS or token == '"':
            break
        if token == ":" and last is not None:
            found.setdefault(depth, set()).add(last)
        depth += (token == "{") - (token == "}")
        last = token[1:-1] if token[0] == '"' else None
    return found
