"""Masks where they lie: the pixels of a window of a picture."""

from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """The pixels of a mask inside a rectangle of its picture; it has none outside.

    Attributes:
      left: column of the picture that the first column lies at.
      top: row of the picture that the first row lies at.
      pixels: bool [h, w].
    """

    left: int
    top: int
    pixels: np.ndarray

    @property
    def right(self) -> int:
        """Return the column of the picture behind the last one."""
        return self.left + self.pixels.shape[1]

    @property
    def bottom(self) -> int:
        """Return the row of the picture behind the last one."""
        return self.top + self.pixels.shape[0]


EMPTY = Window(0, 0, np.zeros((0, 0), np.bool_))


def window_of(pixels: np.ndarray, left: int = 0, top: int = 0) -> Window:
    """Return the smallest window that holds all pixels; `EMPTY` where there is none.

    Args:
      pixels: [h, w], other than zero on the instance.
      left: column of the picture that their first column lies at.
      top: row of the picture that their first row lies at.
    """
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not rows.size:
        return EMPTY
    (first, last), (start, end) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
    return Window(left + start, top + first, pixels[first : last + 1, start : end + 1] != 0)
