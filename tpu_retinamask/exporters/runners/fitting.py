"""From pictures to a canvas and back, in NumPy alone; the first half of each `run.py`."""

import json
import os
import sys
from collections.abc import Callable

import numpy as np

FOLDER = os.path.dirname(os.path.abspath(__file__))


def fit(picture: np.ndarray, about: dict) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """Return a picture, uint8 RGB [h, w, 3], on its canvas [H, W, 3], how much of it that is [2], and the scale."""
    sides, canvas = np.array(picture.shape[:2], np.float32), np.array(about["image_size"], np.float32)
    scale = (canvas / sides).min()
    if about["min_side"] is not None:
        scale = min(scale, np.float32(about["min_side"]) / sides.min())
    if about["max_side"] is not None:
        scale = min(scale, np.float32(about["max_side"]) / sides.max())
    content = np.minimum(np.maximum(np.round(sides * scale), 1), canvas).astype(np.int32)
    rows, columns = (
        _weights(int(side), int(count), max(scale, 1 / side), about["antialias"]) for side, count in zip(sides, content)
    )
    resized = np.einsum("hwc,vw->hvc", np.tensordot(rows, picture.astype(np.float32), 1), columns, optimize=True)
    image = np.zeros([*about["image_size"], 3], np.uint8)
    image[: content[0], : content[1]] = np.round(resized.clip(0, 255)).astype(np.uint8)
    return image, content, np.float32(scale)


def _weights(side: int, count: int, scale: np.float32, antialias: bool) -> np.ndarray:
    """Return [count, side]: bilinear, and where a picture shrinks the mean below a triangle."""
    centres = (np.arange(count, dtype=np.float32) + 0.5) / scale
    width = max(1.0, 1 / scale) if antialias else 1.0
    weights = np.maximum(0, 1 - np.abs(np.arange(side) + 0.5 - centres[:, None]) / width)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def detect_all(pictures: list, about: dict, run: Callable) -> list:  # of a batch: images and content sizes
    """Return a dict of boxes, scores, classes, names, masks and mask_boxes for each picture."""
    found, batch = [], about["batch_size"]
    for start in range(0, len(pictures), batch):
        chunk = pictures[start : start + batch]
        fitted = [fit(picture, about) for picture in chunk]
        padded = fitted + fitted[:1] * (batch - len(chunk))
        outputs = run(np.stack([image for image, _, _ in padded]), np.stack([content for _, content, _ in padded]))
        for row, (picture, (_, _, scale)) in enumerate(zip(chunk, fitted)):
            count, (height, width) = int(outputs["count"][row]), picture.shape[:2]
            boxes, scores, classes, masks = (
                np.asarray(outputs[name][row])[:count] for name in ("boxes", "scores", "classes", "masks")
            )
            found.append(
                {
                    "boxes": np.clip(boxes / scale, 0, np.array([width, height, width, height], np.float32)),
                    "scores": scores,
                    "classes": classes,
                    "names": [about["classes"][number] for number in classes],
                    "masks": masks,  # of the first objects, where a run gives masks to the best alone
                    "mask_boxes": boxes / scale,
                }
            )
    return found


def main(detector: Callable) -> None:  # pictures -> what `detect_all` returns
    """Print what is found in files: of NumPy, or pictures where Pillow is installed."""
    for path in sys.argv[1:]:
        if path.endswith(".npy"):
            picture = np.load(path)
        else:
            import PIL.Image

            picture = np.asarray(PIL.Image.open(path).convert("RGB"))
        (found,) = detector([picture])
        for box, score, name in zip(found["boxes"], found["scores"], found["names"]):
            print(json.dumps({"file": path, "class": name, "score": float(score), "box": box.tolist()}))
