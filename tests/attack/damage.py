"""Bytes that were damaged on their way, or forged: a bit flipped, an end cut off, a number that tells something else.

Each damage follows from its kind and place alone, and each forgery from its seed, so that it can be made again.
"""

import io
import random
import re
import zipfile
import zlib

FLIP, CUT, FORGE = "flip", "cut", "forge"

# What stands where a count, a size, an offset or a place stood.
TEXTS = (
    b"0", b"-1", b"1", b"2", b"255", b"65536", b"2147483647", b"2147483648", b"-2147483648", b"4294967296",
    b"1000000000000000", b"9223372036854775807", b"-9223372036854775808", b"18446744073709551616", b"9" * 5000,
    b"1e308", b"1e400", b"-1e400", b"NaN", b"-Infinity", b"0.5",
    b"1e-320", b"null", b"true", b"[]", b"{}", b'"x"', b'""', b"",
)  # fmt: skip
INTEGERS = (0, 1, 2, -1, 127, 255, 1 << 15, 1 << 16, 1 << 31, (1 << 31) - 1, 10**15, (1 << 63) - 1, -(1 << 63), 1 << 62)
DTYPES = (
    b"<f4",
    b"<f8",
    b"<i8",
    b"<u1",
    b"|b1",
    b"|O",
    b"<U9",
    b"|S9",
    b"<c8",
    b"<M8[s]",
    b"|V8",
    b">f4",
    b"<f2",
    b"<q9",
)

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_DTYPE = re.compile(rb"[<>|=][biufSUOVcmM]\d{0,2}")
_WIDTHS = (1, 2, 4, 8)


def damaged(content: bytes, kind: str, place: int) -> bytes:
    """Return content with one bit flipped in the byte at a place, or cut there."""
    if kind == CUT:
        return content[:place]
    return content[:place] + bytes([content[place] ^ 1 << (place * 5 + place // 8) % 8]) + content[place + 1 :]


def forged(content: bytes, seed: str) -> bytes:
    """Return content in which one to three numbers, or kinds of numbers, are others."""
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 1, 2, 3))):
        packed = content.startswith(b"PK\3\4") and chance.random() < 0.7
        content = _forged_member(content, chance) if packed else _forged_once(content, chance)
    return content


def _forged_once(content: bytes, chance: random.Random) -> bytes:
    kind = chance.choice(("text", "text", "binary", "dtype"))
    found = list((_DTYPE if kind == "dtype" else _NUMBER).finditer(content)) if kind != "binary" else []
    if found:
        start, end = chance.choice(found).span()
        return content[:start] + chance.choice(DTYPES if kind == "dtype" else TEXTS) + content[end:]
    width = chance.choice(_WIDTHS)
    if len(content) < width:
        return content
    place = chance.randrange(len(content) - width + 1)
    number = chance.choice(INTEGERS) % (1 << 8 * width)
    return content[:place] + number.to_bytes(width, chance.choice(("little", "big"))) + content[place + width :]


def _forged_member(content: bytes, chance: random.Random) -> bytes:
    """Return a zip one of whose members is forged, with checksums that fit."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(entry, archive.read(entry)) for entry in archive.infolist()]
    except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, EOFError, OSError):  # forged before
        return _forged_once(content, chance)
    if not members:
        return content
    chosen, written = chance.randrange(len(members)), io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for number, (entry, data) in enumerate(members):
            archive.writestr(
                entry.filename, _forged_once(data, chance) if number == chosen else data, entry.compress_type
            )
    return written.getvalue()
