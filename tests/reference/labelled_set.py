"""Five pictures labelled once, and their CSV; `tool_writers` has the same labels as annotation tools write them."""

import base64
import io
import json
import zlib

import numpy as np
import PIL.Image
from pycocotools import mask as coco_mask

CLASSES = ("cat", "dog", "zebra crossing")
# name, width, height, [(class, corners of a polygon, or the 4 edges of a box)]: sides that are powers of two and
# quarters of pixels are exact as shares and percents.
SET = (
    (
        "a.png",
        64,
        32,
        [
            ("cat", (3, 2, 14, 2, 14.25, 9, 7.5, 12, 3, 9)),
            ("zebra crossing", (32, 4, 60, 4, 60, 10, 40, 10, 40, 28, 32, 28)),
            ("cat", (20, 5, 31, 6, 22.75, 30)),
        ],
    ),
    ("b.png", 32, 32, [("dog", (0, 0, 32, 0, 0, 32))]),
    ("boxes.png", 64, 64, [("dog", (20, 5, 31, 23)), ("cat", (0, 0, 64, 64)), ("dog", (1, 40, 9, 41))]),
    ("empty.png", 64, 32, []),
    ("c.png", 16, 8, [("dog", (1, 1, 9, 1, 9, 7, 1, 7))]),
)


def is_box(shape):
    return len(shape) == 4


def box_of(shape):
    return tuple(
        map(float, shape if is_box(shape) else (min(shape[::2]), min(shape[1::2]), max(shape[::2]), max(shape[1::2])))
    )


def drawn(shape, width, height):
    """A polygon's pixels, as pycocotools draws them, bool [height, width]."""
    found = coco_mask.frPyObjects([list(map(float, shape))], height, width)
    return coco_mask.decode(coco_mask.merge(found)).astype(bool)


def pairs(shape):
    return [[x, y] for x, y in zip(shape[::2], shape[1::2])]


def window(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def png(array, **options):
    file = io.BytesIO()
    PIL.Image.fromarray(array).save(file, "PNG", **options)
    return file.getvalue()


def base64_png(array, compress=False):
    data = png(array.astype(np.uint8) * 255)
    return base64.b64encode(zlib.compress(data) if compress else data).decode()


def write_pictures(folder):
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    for name, width, height, _ in SET:
        (folder / name).write_bytes(png(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)))


def save(path, content, bom=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, "utf-8-sig" if bom else "utf-8")
    return str(path)


def write_csv(folder):
    """The CSV of keras-maskrcnn, with a file for each mask."""
    write_pictures(folder)
    lines = []
    for name, width, height, shapes in SET:
        for number, (label, shape) in enumerate(shapes):
            mask = ""
            if not is_box(shape):
                mask = f"{name[:-4]}_{number}_mask.png"
                (folder / mask).write_bytes(png(drawn(shape, width, height).astype(np.uint8) * 255))
            lines.append(",".join([name, *map(repr, box_of(shape)), label, mask]))
        if not shapes:
            lines.append(f"{name},,,,,,")
    save(folder / "classes.csv", "".join(f"{name},{number}\n" for number, name in enumerate(CLASSES)))
    return save(folder / "train.csv", "\n".join(lines))
