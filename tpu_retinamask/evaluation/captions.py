"""Text on pictures: labels where they hide the least, and a strip below with the legend or a remark."""

import functools
import os
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tpu_retinamask.evaluation.colours import Colour, ink_on

_PAPER, _INK = (24, 24, 24), (235, 235, 235)  # of the strip
NARROWEST = 320  # pixels that a strip is wide, or a remark would be a column of single words


class Entry(NamedTuple):
    """A word of the strip."""

    text: str
    colour: Colour | None  # of the patch before it; None: no patch


@functools.cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Return the font of a size in pixels; matplotlib brings it along."""
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def draw_labels(pixels: np.ndarray, boxes: np.ndarray, texts: Sequence[str], colours: Sequence, size: int) -> None:
    """Write each text on a plate of its colour, where it hides the least of labels and small objects.

    Args:
      pixels: [h, w, 3] uint8; drawn on.
      boxes: [n, 4] of the objects, those first that matter least.
      texts: [n].
      colours: [n].
      size: of the font, in pixels.
    """
    font, (height, width) = font_of(size), pixels.shape[:2]
    margin = max(2, size // 6)
    placed = np.zeros((0, 4))
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for (x1, y1, x2, y2), text, colour in zip(boxes, texts, colours):
        text = _shortened(text, font, width - 2 * margin)
        across, down = int(np.ceil(font.getlength(text))) + 2 * margin, size + 2 * margin
        corners = [  # in order of preference: above, inside, right above, below, beside
            (x1, y1 - down), (x1, y1), (x2 - across, y1 - down), (x1, y2), (x2 - across, y2),
            (x2, y1), (x1 - across, y1), (x2, y2 - down), (x1 - across, y2 - down),
        ]  # fmt: skip
        corners = np.clip(corners, 0, [max(width - across, 0), max(height - down, 0)]).round()
        plates = np.concatenate([corners, corners + [across, down]], 1)  # [9, 4]
        # A plate on a large object hides nothing that matters; on a small one it hides the object.
        small = boxes[areas < 12 * across * down]
        hidden = 4 * _intersections(plates, placed).sum(1) + _intersections(plates, small).sum(1)
        plate = plates[np.argmin(hidden)]
        placed = np.concatenate([placed, plate[None]])
        left, top = plate[:2].astype(int)
        window = pixels[top : top + down, left : left + across]
        image = Image.new("RGB", (across, down), tuple(colour))
        ImageDraw.Draw(image).text((margin, down / 2), text, fill=ink_on(colour), font=font, anchor="lm")
        window[:] = np.asarray(image)[: window.shape[0], : window.shape[1]]


def strip(entries: Sequence[Entry], width: int, size: int) -> np.ndarray:
    """Return the strip of entries side by side, in as many lines as they need: uint8 [h, width, 3].

    Args:
      entries: words, or whole remarks, which are broken at their spaces.
      width: in pixels.
      size: of the font, in pixels.
    """
    font = font_of(size)
    margin, patch, line = size // 2, size, size + size // 2
    placed: list[tuple[float, int, Entry]] = []
    x, row = float(margin), 0
    for entry in entries:
        indent = patch + margin if entry.colour else 0
        for text in [entry.text] if entry.colour else entry.text.split():
            text = _shortened(text, font, width - 2 * margin - indent)
            reach = indent + font.getlength(text)
            if x > margin and x + reach > width - margin:
                x, row = float(margin), row + 1
            placed.append((x, row, Entry(text, entry.colour)))
            x += reach + (2 * margin if entry.colour else font.getlength(" "))
    image = Image.new("RGB", (width, (row + 1) * line + margin), _PAPER)
    draw = ImageDraw.Draw(image)
    for x, row, entry in placed:
        middle = margin // 2 + row * line + line / 2
        if entry.colour:
            draw.rectangle((x, middle - patch / 2, x + patch, middle + patch / 2), fill=entry.colour)
            x += patch + margin
        draw.text((x, middle), entry.text, fill=_INK, font=font, anchor="lm")
    return np.asarray(image)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas shared by boxes a [n, 4] and b [m, 4]: [n, m]."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    return np.clip(high - low, 0, None).prod(-1)
