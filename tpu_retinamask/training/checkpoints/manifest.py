"""The manifest of a checkpoint, written last: names, sizes and digests of exactly its files, and its own digest."""

import hashlib
import json
import math
import re
from typing import Any, NamedTuple

from tpu_retinamask.errors import UserError
from tpu_retinamask.files import read_bytes, write_json_atomically

MANIFEST = ".manifest.json"
MOST_BYTES = 1 << 24
_DATA = re.compile(r"\.data-(\d{5})-of-(\d{5})", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")


class BadManifest(UserError):
    """A manifest that is not what was written with its checkpoint; the message says why, without the path."""


class Manifest(NamedTuple):
    """What is known of a checkpoint."""

    values: dict[str, float]  # noted with it
    files: dict[str, dict]  # name -> {"bytes", "sha256"}


def write_manifest(path: str, step: int, values: dict[str, float], files: dict[str, dict]) -> None:
    """Write the manifest of the checkpoint whose files begin with a path.

    Raises:
      WriteError: it cannot be written.
    """
    content = {"step": step, "values": values, "files": files}
    write_json_atomically(path + MANIFEST, content | {"sha256": _own_digest(content)}, indent=1)


def read_manifest(path: str, step: int) -> Manifest:
    """Return the manifest of a checkpoint; one without a digest of its own, as they once were, is read.

    Args:
      path: with which the names of its files begin.
      step: of the checkpoint.

    Raises:
      BadManifest: it is damaged, that of another checkpoint, or does not name each of the files.
      FileNotFoundError, UserError: it cannot be read.
    """
    try:
        content = json.loads(read_bytes(path + MANIFEST, MOST_BYTES).decode())
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise BadManifest(f"its manifest is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadManifest("its manifest is no object with step, values and files")
    own = content.pop("sha256", None)
    if own is not None and own != _own_digest(content):
        raise BadManifest("its manifest does not hold what was written")
    if content.keys() != {"step", "values", "files"}:
        raise BadManifest(f"its manifest has {sorted(content)}, expected step, values and files")
    if type(content["step"]) is not int or content["step"] != step:
        raise BadManifest(f"its manifest is that of step {content['step']}")
    values, files = content["values"], content["files"]
    if not isinstance(values, dict) or not all(map(_is_number, values.values())):
        raise BadManifest("its manifest notes what is no number")
    if not isinstance(files, dict) or not all(map(_is_description, files.values())):
        raise BadManifest("its manifest does not give files by size and digest")
    name = path.replace("\\", "/").rpartition("/")[2]
    if files.keys() != _expected(name, files):
        raise BadManifest(f"its manifest names other files than those of {name}: {', '.join(sorted(files)) or 'none'}")
    return Manifest(values, files)


def is_part(name: str, file: str) -> bool:
    """Tell whether a file is one of those that a checkpoint of a name is read from."""
    return file == f"{name}.index" or (file.startswith(name) and _DATA.fullmatch(file[len(name) :]) is not None)


def _expected(name: str, files: dict[str, dict]) -> set[str]:
    """Return the names of a checkpoint's files, as many pieces of data as the first of them tells."""
    pieces = [match for match in (_DATA.fullmatch(file.removeprefix(name)) for file in files) if match]
    count = min(int(pieces[0][2]), len(files)) if pieces else 0
    return {f"{name}.index"} | {f"{name}.data-{piece:05d}-of-{count:05d}" for piece in range(max(count, 1))}


def _own_digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)
    )


def _is_description(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"bytes", "sha256"}
        and type(entry["bytes"]) is int
        and isinstance(entry["sha256"], str)
        and _DIGEST.fullmatch(entry["sha256"]) is not None
    )
