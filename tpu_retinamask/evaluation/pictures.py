"""Detections drawn over their image: outlined instances, thin boxes, readable labels, a legend."""

import io
import os
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from tpu_retinamask.data.windows import Window
from tpu_retinamask.evaluation.captions import NARROWEST, Entry, draw_labels, strip
from tpu_retinamask.evaluation.colours import Colour, class_colour, object_colours
from tpu_retinamask.files import write_atomically

_FILL = 0.30  # opacity of a mask's interior
_BOX = 0.55  # opacity of a box line
_LABELLED = 20  # with more objects than this, text would hide the picture
_LEAST_SIDE, _MOST_SCALE = 512, 8  # pictures whose longer side is below are drawn so many times larger
_PAPER = 24  # gray beside a picture that is narrower than its strip


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: Sequence[Window | None] | None,
    classes: np.ndarray | Sequence[int],
    scores: np.ndarray | Sequence[float] | None,
    class_names: Sequence[str | None] | Mapping[int, str],
    *,
    score_threshold: float | Sequence[float] = 0.5,
    labels: bool | None = None,
) -> np.ndarray:
    """Draw boxes, masks and names over an image.

    Of several classes each has its colour, in all pictures the same, and touching objects differ in shade; of one class
    every object has a colour of its own. Large objects are drawn first, small ones over them, and those that a line
    would hide get their box around them. Lines and text follow the picture's size. Below it lies a strip where there is
    something to tell: the classes with their colours and counts, or that nothing reached the threshold.

    Args:
        image: [h, w, 3] uint8 RGB. Not modified.
        boxes: [K, 4] x1, y1, x2, y2 in pixels of the image.
        masks: [K] windows of the image, None for a box without a mask; or None.
        classes: [K] class ids; -1 = padding, skipped.
        scores: [K]; None: these are no detections but the truth, and all are drawn.
        class_names: class id -> name, of all classes that there are.
        score_threshold: detections below it are not drawn; one for all, or [K] one for each.
        labels: write "name 0.93" at each box, or the name alone; None: where at most 20 objects are drawn.

    Returns:
        [n * h + s, max(n * w, 320 where there is a strip), 3] uint8 RGB: n times as large where the longer side is
        below 512 pixels, and s rows of the strip.

    Raises:
        ValueError: if the image is not uint8 RGB, the arrays' lengths differ or a mask leaves the image.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"draw_detections: got an image {image.shape} of {image.dtype}, expected [h, w, 3] of uint8")
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    classes = np.array(classes, np.int64).reshape(-1)
    known = np.ones(len(classes)) if scores is None else np.array(scores, np.float64).reshape(-1)
    windows = [None] * len(boxes) if masks is None else list(masks)
    if not len(boxes) == len(classes) == len(known) == len(windows):
        raise ValueError(
            f"draw_detections: got {len(boxes)} boxes, {len(classes)} classes, {len(known)} scores, {len(windows)} "
            "masks; expected as many of each"
        )
    least = np.broadcast_to(np.asarray(score_threshold, np.float64), known.shape)
    height, width = image.shape[:2]
    if any(window and (window.right > width or window.bottom > height) for window in windows):
        raise ValueError(f"draw_detections: got a mask that leaves the image of {width} x {height}")
    shown = np.flatnonzero((classes >= 0) & ((known >= least) if scores is not None else True))
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    shown = shown[np.argsort(-area[shown], kind="stable")]
    labels = len(shown) <= _LABELLED if labels is None else labels

    scale = min(max(1, -(-_LEAST_SIDE // max(height, width))), _MOST_SCALE)
    reach = scale * min(max(height, width), 4 * min(height, width))  # a strip of a picture has thin lines
    line, size = max(1, round(reach / 640)), max(12, round(reach / 60))
    valid = classes >= 0
    below = [] if scores is None else _remark(known[valid], classes[valid], least[valid], class_names)
    below = below or _legend(classes[shown], class_names)
    canvas = _canvas(image, scale, strip(below, max(NARROWEST, scale * width), size) if below else None)
    pixels = canvas[: scale * height, : scale * width]

    placed = boxes[shown] * scale
    one_class = _count(class_names) <= 1
    colours = object_colours(placed, classes[shown].tolist(), one_class=one_class, near=4 + 2 * line)
    for k, box, colour in zip(shown, placed, colours):
        window = windows[k]
        if window is not None and window.pixels.any():
            shorter = min(box[2] - box[0], box[3] - box[1])
            _blend_mask(pixels, window, scale, colour, min(line + 1, max(1, int(shorter) // 8)))
    small = (placed[:, 2:] - placed[:, :2]).min(axis=1, initial=np.inf) < 8 * line  # a line along the box would hide it
    placed = placed + np.where(small, 3 * line, 0)[:, np.newaxis] * [-1, -1, 1, 1]
    for box, colour, around in zip(placed, colours, small):
        _blend_box(pixels, box, colour, line, 1.0 if around else _BOX)
    if labels:
        texts = [_name(class_names, int(classes[k])) for k in shown]
        if scores is not None:
            texts = [f"{text} {known[k]:.2f}" for text, k in zip(texts, shown)]
        draw_labels(pixels, placed, texts, colours, size)
    return canvas


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
    # Runs alone are looked for: of a large photograph in a quarter of the time, and as small.
    Image.fromarray(np.asarray(image)).save(encoded, formats[extension], quality=92, compress_type=zlib.Z_RLE)
    write_atomically(path, encoded.getvalue())


def _canvas(image: np.ndarray, scale: int, below: np.ndarray | None) -> np.ndarray:
    """Return the picture to draw on, `scale` times as large, with the strip below it."""
    height, width = scale * image.shape[0], scale * image.shape[1]
    if scale > 1:
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    if below is None:
        return image.copy()
    canvas = np.full((height + below.shape[0], below.shape[1], 3), _PAPER, np.uint8)
    canvas[:height, :width] = image
    canvas[height:] = below
    return canvas


def _remark(scores: np.ndarray, classes: np.ndarray, least: np.ndarray, class_names) -> list[Entry]:
    """Return what there is to say of a picture without a detection that is drawn; nothing of others."""
    if np.any(scores >= least):
        return []
    if not scores.size:
        return [Entry("nothing was found", None)]
    best = int(np.argmax(scores))
    score = np.floor(scores[best] * 1000) / 1000  # not rounded to what it did not reach
    name = _name(class_names, int(classes[best]))
    wanted = f"{least[0]:g} or more" if np.all(least == least[0]) else "what its class has to"
    return [Entry(f"nothing scored {wanted}; {scores.size} less, the best {score:.3f} ({name})", None)]


def _legend(classes: np.ndarray, class_names) -> list[Entry]:
    """Return the classes that are drawn, with their colours and counts; nothing where there is only one class."""
    if _count(class_names) <= 1:
        return []
    present, counts = np.unique(classes, return_counts=True)
    return [Entry(f"{_name(class_names, int(k))} {n}", class_colour(int(k))) for k, n in zip(present, counts)]


def _blend_mask(pixels: np.ndarray, mask: Window, scale: int, colour: Colour, thickness: int) -> None:
    """Tint the mask's interior and draw its outline, inside the mask so that neighbours do not overlap."""
    inside = mask.pixels
    if scale > 1:
        # A margin of one original pixel: room for the smoothing.
        small = Image.fromarray(np.pad(inside, 1).astype(np.uint8) * 255)
        large = small.resize((small.width * scale, small.height * scale), Image.Resampling.BILINEAR)
        inside = np.array(large)[scale:-scale, scale:-scale] > 127
    core = _eroded(inside, thickness)
    window = pixels[mask.top * scale : mask.bottom * scale, mask.left * scale : mask.right * scale]
    opacity = inside * np.uint8(255) - core * np.uint8(255 - round(255 * _FILL))
    tinted = Image.fromarray(window)
    tinted.paste(colour, (0, 0, *tinted.size), Image.fromarray(opacity))
    window[:] = np.asarray(tinted)


def _eroded(mask: np.ndarray, steps: int) -> np.ndarray:
    """Take pixels off the mask's rim; outside the array counts as background.

    Steps across and steps across and aslant take turns, which makes outlines evenly thick in all directions; the latter
    are made at once, for their order is all the same.
    """
    core = np.pad(mask, steps // 2)
    for _ in range(2):  # along both axes
        done, whole = 1, 2 * (steps // 2) + 1
        while done < whole:
            step = min(done, whole - done)
            core = core[:-step] & core[step:]
            done += step
        core = core.T
    for _ in range(steps - steps // 2):
        padded = np.pad(core, 1)
        core = padded[1:-1, 1:-1] & padded[:-2, 1:-1]
        core &= padded[2:, 1:-1]
        core &= padded[1:-1, :-2]
        core &= padded[1:-1, 2:]
    return core


def _blend_box(pixels: np.ndarray, box: np.ndarray, colour: Colour, line: int, opacity: float) -> None:
    """Draw a rectangle along the inside of the box."""
    height, width = pixels.shape[:2]
    x1, y1 = (int(v) for v in np.clip(np.floor(box[:2]), 0, [width - 1, height - 1]))
    x2, y2 = (int(v) for v in np.clip(np.ceil(box[2:]), [x1 + 1, y1 + 1], [width, height]))
    window = pixels[y1:y2, x1:x2]
    rows, columns = (max(line, side - line) for side in window.shape[:2])  # no pixel is blended twice
    for side in (window[:line], window[rows:], window[line:rows, :line], window[line:rows, columns:]):
        side[:] = _mixed(side, colour, opacity)


def _mixed(pixels: np.ndarray, colour: Colour, share: float) -> np.ndarray:
    tint = np.asarray(colour, np.float32)
    return (pixels * np.float32(1 - share) + tint * np.float32(share)).astype(np.uint8)


def _name(class_names, class_id: int) -> str:
    if isinstance(class_names, Mapping):
        return class_names.get(class_id, str(class_id))
    name = class_names[class_id] if class_id < len(class_names) else None
    return str(class_id) if name is None else name


def _count(class_names) -> int:
    names = class_names.values() if isinstance(class_names, Mapping) else class_names
    return sum(name is not None for name in names)
