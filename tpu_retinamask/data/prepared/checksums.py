"""What files a prepared data set has, and their checksums: as many as `prepared.json` tells of, all of them listed."""

import json
import re
from typing import Any

from tpu_retinamask.data.record_checks import RecordsError
from tpu_retinamask.errors import listed

DATASET = "retinamask"  # the name in front of every shard, which TFDS asks for
FORMAT = 1  # of the index and the record; another number is refused
CLASSES_FILE, PREPARED_FILE, CHECKSUMS_FILE = "classes.csv", "prepared.json", "SHA256SUMS"
TFDS_FILES = ("dataset_info.json", "features.json", "objects-class.labels.txt")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_SPLIT = re.compile(r"\w[\w.-]*")  # a part of the names of its files


def parse_prepared(data_dir: str, content: bytes | None) -> dict[str, Any]:
    """Return what prepared.json says.

    Args:
      data_dir: in the words of an error.
      content: of the file; None: there is none.

    Raises:
      RecordsError: it is of another format, or does not tell the numbers of the shards, images and objects of its
        splits.
    """
    try:
        prepared = json.loads(content or b"{}")
    except (ValueError, RecursionError) as error:
        raise damaged(data_dir, [f"{PREPARED_FILE}: no JSON: {error}"]) from error
    said = prepared.get("format") if isinstance(prepared, dict) else None
    if said != FORMAT:
        raise RecordsError(
            f"{data_dir}: {PREPARED_FILE} says format {said}, expected {FORMAT}: prepare the data set anew"
        )
    splits = prepared.get("splits")
    if not isinstance(splits, dict) or not all(map(_is_split, splits.items())):
        raise damaged(data_dir, [f"{PREPARED_FILE}: it does not tell its splits by their images, objects and shards"])
    return prepared


def parse_checksums(data_dir: str, content: bytes, prepared: dict[str, Any]) -> dict[str, str]:
    """Return file name -> SHA-256 in hexadecimal of every file of a data set but the list of them itself.

    Args:
      data_dir: in the words of an error.
      content: of the list, a line a file as `sha256sum` writes them.
      prepared: of `parse_prepared`.

    Raises:
      RecordsError: the list is empty or cut, or names more or fewer files than the data set has.
    """
    lines = content.decode("utf-8", "replace").split("\n")
    found = [_LINE.fullmatch(line) for line in lines[:-1]]
    if lines[-1] or not all(found):
        number = next((number for number, line in enumerate(found, 1) if line is None), len(lines))
        raise damaged(data_dir, [f"{CHECKSUMS_FILE}: line {number} is no checksum and name of a file"])
    checksums = {line[2]: line[1] for line in found if line}
    # The shards are counted before they are named: a forged number of them would not fit into memory.
    shards = sum(split["shards"] for split in prepared["splits"].values())
    if len(found) != len(checksums) or shards > len(checksums):
        raise damaged(data_dir, [f"{CHECKSUMS_FILE}: {len(found)} checksums, which are not those of {shards} shards"])
    expected = {CLASSES_FILE, PREPARED_FILE, *TFDS_FILES, *map(index_name, prepared["splits"])}
    for split, told in prepared["splits"].items():
        expected.update(shard_names(split, told["shards"]))
    wrong = [f"{CHECKSUMS_FILE}: {name} is not listed" for name in sorted(expected - checksums.keys())]
    wrong += [f"{CHECKSUMS_FILE}: {name} is none of its files" for name in sorted(checksums.keys() - expected)]
    if wrong:
        raise damaged(data_dir, wrong)
    return checksums


def shard_name(split: str, shard: int, count: int) -> str:
    """Name a shard as TFDS does."""
    return f"{DATASET}-{split}.tfrecord-{shard:05d}-of-{count:05d}"


def shard_names(split: str, count: int) -> list[str]:
    """Name all shards of a split."""
    return [shard_name(split, shard, count) for shard in range(count)]


def index_name(split: str) -> str:
    """Name the index of a split."""
    return f"index-{split}.npz"


def damaged(data_dir: str, wrong: list[str]) -> RecordsError:
    """Return the error of a data set some of whose files are not what was written."""
    return RecordsError(
        f"{data_dir}: {len(wrong)} damaged files; copy them again, or delete the folder and prepare it anew:\n"
        + listed(wrong)
    )


def _is_split(item: tuple[Any, Any]) -> bool:
    name, told = item
    if _SPLIT.fullmatch(name) is None or not isinstance(told, dict):
        return False
    return all(type(told.get(key)) is int and told[key] >= 0 for key in ("images", "instances", "shards"))
