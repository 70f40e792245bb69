"""The run lengths of Label Studio's brush: bits that say runs and single values of the bytes of an RGBA picture.

The bits, from the highest of each byte: 32 that count the values; 5 that say how many bits a value has, less one; four
times 4 that say how many bits a length has, less one, for each of four sizes. Then parts until all values are there: 1
bit that tells a run (one value, many times) from a list (as many values); 2 that choose the size of the length; the
length, less one; the value or values.

Source: https://labelstud.io/tags/brushlabels and
https://github.com/HumanSignal/label-studio-sdk/blob/develop/src/label_studio_sdk/converter/brush.py (`decode_rle`)
"""

from collections.abc import Sequence

import numpy as np

from tpu_retinamask.data.sources.checked import BadEntry, shown
from tpu_retinamask.data.sources.png_texts import MOST_PIXELS

CHANNELS = 4  # the last tells what was painted


def brush_pixels(values: Sequence[object], width: int, height: int, place: str) -> np.ndarray:
    """Return which pixels a brush painted, bool [height, width].

    Args:
      values: bytes, as numbers.
      width: of the picture.
      height: of the picture.
      place: in the words of an error.

    Raises:
      BadEntry: no bytes; another number of values than the picture has; bits that end too early.
    """
    if width * height > MOST_PIXELS:
        raise BadEntry(f"{place}: got a picture of {width} x {height} pixels, expected at most {MOST_PIXELS:,}")
    for value in values:
        if not isinstance(value, int) or not 0 <= value <= 255:
            raise BadEntry(f"{place}: got {shown(value)}, expected bytes, numbers from 0 to 255")
    bits = _Bits(bytes(value for value in values if isinstance(value, int)), place)
    count, expected = bits.read(32), width * height * CHANNELS
    if count != expected:
        raise BadEntry(
            f"{place}: got run lengths of {count} values, expected {width} x {height} x {CHANNELS} = {expected}"
        )
    value_bits = bits.read(5) + 1
    length_bits = [bits.read(4) + 1 for _ in range(4)]
    painted = np.zeros(count, bool)
    at = 0
    while at < count:
        is_run = bits.read(1)
        length = bits.read(length_bits[bits.read(2)]) + 1
        if at + length > count:
            raise BadEntry(f"{place}: got run lengths of {at + length} values and more, expected {expected}")
        if is_run:
            painted[at : at + length] = bits.read(value_bits) != 0
        else:
            painted[at : at + length] = bits.read_many(length, value_bits)
        at += length
    return painted.reshape(height, width, CHANNELS)[..., CHANNELS - 1]


class _Bits:
    """Reads numbers of some bits each."""

    def __init__(self, data: bytes, place: str) -> None:
        self._bits = np.unpackbits(np.frombuffer(data, np.uint8))
        self._text = self._bits.tobytes().translate(bytes.maketrans(b"\0\1", b"01"))
        self._at, self._place = 0, place

    def read(self, count: int) -> int:
        """Read one number."""
        return int(self._text[self._step(count) : self._at], 2)

    def read_many(self, numbers: int, count: int) -> np.ndarray:
        """Read several numbers of as many bits each; tell which are not zero, bool [numbers]."""
        start = self._step(numbers * count)
        return np.asarray(self._bits[start : self._at].reshape(numbers, count).any(axis=1))

    def _step(self, count: int) -> int:
        start = self._at
        self._at += count
        if self._at > len(self._text):
            raise BadEntry(f"{self._place}: got run lengths that end in the middle, expected them whole")
        return start
