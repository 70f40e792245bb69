"""Colours of drawn objects: the class by its colour, touching objects of a class by its shades."""

import colorsys
from collections.abc import Sequence

import numpy as np

Colour = tuple[int, int, int]

# Bright and apart from one another, on dark microscopy as on daylight photographs.
PALETTE = (
    (255, 64, 64), (64, 220, 64), (64, 160, 255), (255, 200, 32), (240, 80, 240), (32, 224, 224),
    (255, 136, 32), (160, 112, 255), (184, 240, 48), (255, 128, 168), (0, 184, 136), (208, 160, 96),
)  # fmt: skip
# Of a colour: as it is, half way to white, two fifths to black.
_SHADES = ((0, 0.0), (255, 0.5), (0, 0.4))
_GOLDEN = 0.618034  # of the circle of hues: each next class lies far from all before it


def class_colour(class_id: int) -> Colour:
    """Return the colour of a class, in every picture the same."""
    if class_id < len(PALETTE):
        return PALETTE[class_id]
    red, green, blue = colorsys.hsv_to_rgb(class_id * _GOLDEN % 1, 0.7, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def object_colours(boxes: np.ndarray, classes: Sequence[int], *, one_class: bool, near: float) -> list[Colour]:
    """Give each object a colour that no object near it has, as far as there are enough.

    Args:
      boxes: [n, 4] x1, y1, x2, y2.
      classes: [n] class ids.
      one_class: there is no other class to tell them from: colours of the whole palette, not shades of one.
      near: pixels between two boxes that count as touching.
    """
    count = len(PALETTE) if one_class else len(_SHADES)
    chosen = np.zeros(len(boxes), np.int64)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        before = boxes[:i]
        touching = (before[:, 0] < x2 + near) & (before[:, 2] > x1 - near)
        touching &= (before[:, 1] < y2 + near) & (before[:, 3] > y1 - near)
        if not one_class:
            touching &= np.asarray(classes[:i], np.int64) == classes[i]
        used = np.bincount(chosen[:i][touching], minlength=count)
        # Least used nearby; among equals, of a palette the next in turn, so that all colours appear.
        turn = i if one_class else 0
        chosen[i] = min(range(count), key=lambda c: (used[c], (c - turn) % count))
    if one_class:
        return [PALETTE[c] for c in chosen]
    return [_shade(class_colour(int(k)), int(c)) for k, c in zip(classes, chosen)]


def ink_on(colour: Colour) -> Colour:
    """Return black or white, whichever is read better on a colour."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else (255, 255, 255)


def _shade(colour: Colour, number: int) -> Colour:
    towards, share = _SHADES[number]
    red, green, blue = (round(part + (towards - part) * share) for part in colour)
    return red, green, blue
