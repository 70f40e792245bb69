"""Detections drawn over their image: outlined instances, thin boxes, readable labels."""

import io
import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tpu_retinamask.files import write_atomically

# Bright and apart from one another, on dark microscopy as on daylight photographs.
PALETTE = (
    (255, 64, 64), (64, 220, 64), (64, 160, 255), (255, 200, 32), (240, 80, 240), (32, 224, 224),
    (255, 136, 32), (160, 112, 255), (184, 240, 48), (255, 128, 168), (0, 184, 136), (208, 160, 96),
)  # fmt: skip
_FILL = 0.30  # opacity of a mask's interior
_BOX = 0.55  # opacity of a box line
_LABELLED = 20  # with more objects than this, text would hide the picture
_SMALL = 512  # pictures whose longer side is below this are drawn at twice the size


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray | None,
    classes: np.ndarray | Sequence[int],
    scores: np.ndarray | Sequence[float],
    class_names: Sequence[str | None] | Mapping[int, str],
    *,
    score_threshold: float = 0.5,
    labels: bool | None = None,
) -> np.ndarray:
    """Draw boxes, masks and names over an image.

    Every instance has its own colour, and neighbours never share one, so that touching objects of one
    class stay apart; the class is told by the label. Large objects are drawn first, small ones over them.
    A picture whose longer side is below 512 pixels is drawn at twice its size.

    Args:
        image: [h, w, 3] uint8 RGB. Not modified.
        boxes: [K, 4] x1, y1, x2, y2 in pixels of the image.
        masks: [K, h, w] bool, or None.
        classes: [K] class ids; -1 = padding, skipped.
        scores: [K].
        class_names: class id -> name.
        score_threshold: detections below it are not drawn.
        labels: write "name 0.93" at each box; None: where at most 20 objects are drawn.

    Returns:
        [h, w, 3] or [2h, 2w, 3] uint8 RGB.

    Raises:
        ValueError: if the image is not uint8 RGB or the arrays' lengths differ.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"draw_detections: got an image {image.shape} of {image.dtype}, expected [h, w, 3] of uint8")
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    classes, scores = np.array(classes), np.array(scores)
    masks = None if masks is None else np.asarray(masks, np.bool_)
    if not len(boxes) == len(classes) == len(scores) or (
        masks is not None and masks.shape != (len(boxes),) + image.shape[:2]
    ):
        got_masks = None if masks is None else masks.shape
        raise ValueError(
            f"draw_detections: got boxes {boxes.shape}, classes {classes.shape}, scores {scores.shape}, "
            f"masks {got_masks} for an image {image.shape[:2]}; expected K of each, masks [K, h, w] or None"
        )
    drawn = np.flatnonzero((classes >= 0) & (scores >= score_threshold))
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    drawn = drawn[np.argsort(-area[drawn], kind="stable")]
    scale = 2 if max(image.shape[:2]) < _SMALL else 1
    boxes = boxes * scale
    colours = dict(zip(drawn, _neighbour_colours(boxes[drawn])))

    canvas = Image.fromarray(image)
    canvas = canvas.resize((canvas.width * scale, canvas.height * scale), Image.Resampling.BICUBIC)
    pixels = np.array(canvas)
    line = max(1, round(max(pixels.shape[:2]) / 640))
    if masks is not None:
        for k in drawn:
            _blend_mask(pixels, masks[k], scale, colours[k], line + 1)
    for k in drawn:
        _blend_box(pixels, boxes[k], colours[k], line)
    if labels is None:
        labels = len(drawn) <= _LABELLED
    if not labels:
        return pixels
    canvas = Image.fromarray(pixels)
    texts = [f"{_name(class_names, int(classes[k]))} {scores[k]:.2f}" for k in drawn]
    _draw_labels(canvas, boxes[drawn], texts, [colours[k] for k in drawn])
    return np.array(canvas)


def save_picture(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image as PNG or JPEG, by the name's extension.

    Args:
        path: local or gs:// path ending in .png, .jpg or .jpeg; missing folders are made. The file is whole or as it
            was.
        image: [h, w, 3] uint8 RGB.

    Raises:
        ValueError: if the extension is another.
        WriteError: it cannot be written.
    """
    path = os.fspath(path)
    extension = os.path.splitext(path)[1].lower()
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
    if extension not in formats:
        raise ValueError(f"save_picture: {path} ends in {extension!r}, expected .png, .jpg or .jpeg")
    encoded = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(encoded, formats[extension], quality=92)
    write_atomically(path, encoded.getvalue())


def _neighbour_colours(boxes: np.ndarray) -> list[tuple[int, int, int]]:
    """Give each box [n, 4] a colour that no box near it has, as far as the palette reaches."""
    chosen = np.zeros(len(boxes), np.int64)
    margin = 6  # pixels; close by counts as touching
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        before = boxes[:i]
        near = (before[:, 0] < x2 + margin) & (before[:, 2] > x1 - margin)
        near &= (before[:, 1] < y2 + margin) & (before[:, 3] > y1 - margin)
        used = np.bincount(chosen[:i][near], minlength=len(PALETTE))
        # Least used nearby; among equals the next in turn, so that all colours appear.
        chosen[i] = min(range(len(PALETTE)), key=lambda c: (used[c], (c - i) % len(PALETTE)))
    return [PALETTE[c] for c in chosen]


def _blend_mask(pixels: np.ndarray, mask: np.ndarray, scale: int, colour, thickness: int) -> None:
    """Tint the mask's interior and draw its outline, inside the mask so that neighbours do not overlap."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    # A margin of one original pixel: room for the smoothing and a background for the erosion.
    top, bottom = max(rows[0] - 1, 0), min(rows[-1] + 2, mask.shape[0])
    left, right = max(columns[0] - 1, 0), min(columns[-1] + 2, mask.shape[1])
    small = Image.fromarray(mask[top:bottom, left:right].astype(np.uint8) * 255)
    large = small.resize((small.width * scale, small.height * scale), Image.Resampling.BILINEAR)
    inside = np.array(large) > 127
    core = inside
    for step in range(thickness):
        core = _erode(core, diagonal=step % 2 == 1)
    window = pixels[top * scale : bottom * scale, left * scale : right * scale]
    tint = np.asarray(colour, np.float32)
    window[core] = (window[core] * (1 - _FILL) + tint * _FILL).astype(np.uint8)
    window[inside & ~core] = colour


def _erode(mask: np.ndarray, diagonal: bool) -> np.ndarray:
    """Take one pixel off the mask's rim; outside the array counts as background."""
    padded = np.pad(mask, 1)
    if diagonal:  # alternating the two neighbourhoods makes outlines evenly thick in all directions
        padded = padded[:-2] & padded[1:-1] & padded[2:]
        return padded[:, :-2] & padded[:, 1:-1] & padded[:, 2:]
    core = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1]
    return core & padded[1:-1, :-2] & padded[1:-1, 2:]


def _blend_box(pixels: np.ndarray, box: np.ndarray, colour, thickness: int) -> None:
    """Draw a half-transparent rectangle along the inside of the box."""
    height, width = pixels.shape[:2]
    x1, y1 = (int(v) for v in np.clip(np.floor(box[:2]), 0, [width - 1, height - 1]))
    x2, y2 = (int(v) for v in np.clip(np.ceil(box[2:]), [x1 + 1, y1 + 1], [width, height]))
    frame = np.ones((y2 - y1, x2 - x1), np.bool_)
    frame[thickness:-thickness, thickness:-thickness] = False
    window = pixels[y1:y2, x1:x2]
    window[frame] = (window[frame] * (1 - _BOX) + np.asarray(colour, np.float32) * _BOX).astype(np.uint8)


def _draw_labels(canvas: Image.Image, boxes: np.ndarray, texts: list[str], colours: list) -> None:
    """Write each text on a plate of its colour, where it hides the least of labels and small objects."""
    draw = ImageDraw.Draw(canvas)
    size = int(np.clip(round(max(canvas.size) / 50), 11, 28))
    font = ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
    height = size + 4
    placed = np.zeros((0, 4))
    for (x1, y1, x2, y2), text, colour in zip(boxes, texts, colours):
        width = int(np.ceil(draw.textlength(text, font=font))) + 6
        corners = [  # in order of preference: above, inside, right above, below, beside
            (x1, y1 - height), (x1, y1), (x2 - width, y1 - height), (x1, y2), (x2 - width, y2),
            (x2, y1), (x1 - width, y1), (x2, y2 - height), (x1 - width, y2 - height),
        ]  # fmt: skip
        corners = np.clip(corners, 0, [max(canvas.width - width, 0), max(canvas.height - height, 0)]).round()
        plates = np.concatenate([corners, corners + [width, height]], 1)  # [9, 4]
        # A plate on a large object hides nothing that matters; on a small one it hides the object.
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        small = boxes[areas < 12 * width * height]
        hidden = 4 * _intersections(plates, placed).sum(1) + _intersections(plates, small).sum(1)
        plate = plates[np.argmin(hidden)]
        placed = np.concatenate([placed, plate[None]])
        left, top, right, bottom = plate.tolist()
        draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
        luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
        ink = (0, 0, 0) if luminance > 110 else (255, 255, 255)
        draw.text((left + 3, (top + bottom) / 2), text, fill=ink, font=font, anchor="lm")


def _intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas shared by boxes a [n, 4] and b [m, 4]: [n, m]."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    return np.clip(high - low, 0, None).prod(-1)


def _name(class_names, class_id: int) -> str:
    if isinstance(class_names, Mapping):
        return class_names.get(class_id, str(class_id))
    return class_names[class_id] if class_id < len(class_names) else str(class_id)
