"""Which image files are meant: by files, folders and patterns, as people give them to a program."""

import glob
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.files import list_folder, read_head

# By these endings a file is meant as an image, readable or not; others are looked into.
ENDINGS = (".jpg", ".jpeg", ".jpe", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2")
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_ENDING = re.compile(r"\.(\w+)$")


class FoundImages(NamedTuple):
    """Files, each once: in the order in which they were given, those of a folder or pattern by name."""

    paths: list[str]
    left_out: list[str]  # files of a folder, or of a pattern without an ending, that are no images


def find_images(given: str | Sequence[str], flag: str = "--images") -> FoundImages:
    """Return the files that are meant.

    Each of the given is a file, a folder (the images that lie in it, not those of folders below) or a pattern; text may
    hold several, separated by commas. A file of that very name wins over a pattern and over commas. A pattern that
    names an ending of images matches it in capitals as well.

    Args:
      given: what the user wrote.
      flag: in the words of an error.

    Raises:
      UserError: nothing is there for one of them; says which.
    """
    paths, left_out = [], []
    for one in [given] if isinstance(given, str) else given:
        for part in [one] if tf.io.gfile.exists(one) else _parts(one):
            found, others = _of(part, flag)
            paths += found
            left_out += others
    if not paths:
        raise UserError(f"{flag} names no file, folder or pattern")
    return FoundImages(list(dict.fromkeys(paths)), list(dict.fromkeys(left_out)))


def _parts(text: str) -> list[str]:
    """Split at commas, but join again what is a file, a folder or a pattern with a comma in its name."""
    parts, rest = [], [part.strip() for part in text.split(",") if part.strip()]
    while rest:
        for count in range(len(rest), 0, -1):
            joined = ",".join(rest[:count])
            if count == 1 or tf.io.gfile.exists(joined):
                parts.append(joined)
                del rest[:count]
                break
    return parts


def _of(part: str, flag: str) -> tuple[list[str], list[str]]:
    if tf.io.gfile.isdir(part):
        files = sorted(os.path.join(part, name) for name in list_folder(part))
        return _images_among(part, files, flag)
    if tf.io.gfile.exists(part):
        return [part], []
    if not any(sign in part for sign in "*?["):
        raise UserError(f"{flag}={part}: no such file or folder{_beside(part)}")
    given = part
    ending = _ENDING.search(part)
    meant = ending is not None and f".{ending[1].lower()}" in ENDINGS
    if meant and ending is not None:
        either = "".join(f"[{letter.lower()}{letter.upper()}]" if letter.isalpha() else letter for letter in ending[1])
        part = f"{part[: ending.start()]}.{either}"
    folder, name = os.path.split(part)
    if tf.io.gfile.isdir(folder):  # brackets in its name are no pattern
        part = os.path.join(glob.escape(folder), name)
    files = sorted(_matching(part))
    if not files:
        raise UserError(f"{flag} {given}: no file matches. Quote the pattern, lest the shell expand it")
    return (files, []) if meant else _images_among(part, files, flag)


def _matching(pattern: str) -> list[str]:
    try:
        return tf.io.gfile.glob(pattern)
    except UnicodeDecodeError:  # a name that is no UTF-8
        return glob.glob(pattern)


def _images_among(part: str, files: Iterable[str], flag: str) -> tuple[list[str], list[str]]:
    """Return which files are images and which are not; folders are neither."""
    images, others = [], []
    for path in files:
        if not _is_folder(path):
            (images if _is_image(path) else others).append(path.rstrip("/"))
    if not images:
        raise UserError(_no_images(part, flag, others))
    return images, others


def _is_folder(path: str) -> bool:
    try:
        return tf.io.gfile.isdir(path)
    except UnicodeEncodeError:  # a name that is no UTF-8
        return os.path.isdir(path)


def _is_image(path: str) -> bool:
    if path.lower().endswith(ENDINGS):
        return True
    head = read_head(path, 12)
    return head.startswith(_BEGINNINGS) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def _no_images(given: object, flag: str, others: Sequence[str]) -> str:
    named = f", but {len(others)} other files, such as {os.path.basename(others[0])}" if others else ""
    return f"{flag}={given}: no image lies there{named}"


def _beside(path: str) -> str:
    """Return the nearest file beside one that is missing, in words, or what is wrong with its folder."""
    folder = os.path.dirname(path) or "."
    if not tf.io.gfile.isdir(folder):
        return f": there is no folder {folder}"
    same = [name for name in list_folder(folder) if name.lower() == os.path.basename(path).lower()]
    return f"; did you mean {os.path.join(os.path.dirname(path), same[0])}?" if same else ""
