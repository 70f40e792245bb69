"""Mask average precision as keras-maskrcnn reports it: one IoU threshold, area under the precision envelope.

`coco.scores` is what to compare models with; this gives the number that users of the original know.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class ImageMasks(NamedTuple):
    """Ground truth and detections of one image."""

    true_classes: np.ndarray  # [G] int
    true_masks: np.ndarray  # [G, h, w], non-zero = instance; h, w of the image file
    boxes: np.ndarray  # [D, 4] float32; pixels of the network's input, -1 where padded
    scores: np.ndarray  # [D] float32; -1 where padded
    classes: np.ndarray  # [D] int
    masks: np.ndarray  # [D, S, S] float32 probabilities of the detected class inside the box
    scale: float = 1.0  # pixels of the network's input per pixel of the image file


@dataclasses.dataclass(frozen=True)
class MaskAveragePrecision:
    """How detections are judged.

    Args:
      iou_threshold: a detection is right if the IoU of its mask with a true mask not yet found is at least this.
      score_threshold: only scores above it count.
      max_detections: the best few of each image.
      binarize_threshold: a pixel belongs to the instance where its probability is above this.
    """

    iou_threshold: float = 0.5
    score_threshold: float = 0.05
    max_detections: int = 100
    binarize_threshold: float = 0.5

    def __call__(self, images: Sequence, num_classes: int) -> dict:
        """Return {class: (average precision, number of true objects)}; 0 for a class without any.

        Args:
          images: iterable of ImageMasks. Images without ground truth count: what is found there is wrong.
          num_classes: C.
        """
        found = {c: [] for c in range(num_classes)}  # (score, right)
        objects = dict.fromkeys(range(num_classes), 0)
        for image in images:
            for c in objects:
                objects[c] += int(np.sum(np.asarray(image.true_classes) == c))
            for c, score, right in self._judge(image):
                found[c].append((score, right))
        result = {}
        for c, judged in found.items():
            order = np.argsort([-score for score, _ in judged], kind="stable")
            result[c] = (average_precision([judged[i][1] for i in order], objects[c]), objects[c])
        return result

    def _judge(self, image):
        """Yield (class, score, right) of the image's detections, best first."""
        order = np.argsort(-np.asarray(image.scores), kind="stable")
        order = [i for i in order if image.scores[i] > self.score_threshold][: self.max_detections]
        true_masks, taken = np.asarray(image.true_masks, bool), set()
        true_classes = np.asarray(image.true_classes)
        for i in order:
            c = int(image.classes[i])
            rows = np.flatnonzero(true_classes == c)
            right = False
            if len(rows):
                mask = paste_truncated(
                    image.masks[i],
                    np.asarray(image.boxes[i], np.float32) / image.scale,
                    true_masks.shape[1:],
                    self.binarize_threshold,
                )
                iou = mask_iou(mask[None], true_masks[rows])[0]
                best = int(np.argmax(iou))
                # Greedy: the object it fits best is the only one it may claim, even if that is gone.
                right = bool(iou[best] >= self.iou_threshold) and rows[best] not in taken
                if right:
                    taken.add(rows[best])
            yield c, float(image.scores[i]), right


def mean_average_precision(per_class: dict, *, weighted: bool = False) -> float:
    """Return the mean over classes, of {class: (average precision, number of true objects)}.

    Args:
      per_class: of MaskAveragePrecision.
      weighted: weight classes by their objects; False: the plain mean over classes that have any.

    Returns:
      The mean; 0 where no class has objects.
    """
    counted = [(ap, objects if weighted else 1) for ap, objects in per_class.values() if objects > 0]
    return float(sum(ap * w for ap, w in counted) / sum(w for _, w in counted)) if counted else 0.0


def average_precision(right: np.ndarray | Sequence[bool], num_objects: int) -> float:
    """Return the area under the envelope of the precision-recall curve.

    Args:
      right: [n] bool or 0 and 1, detections from the best score down.
      num_objects: true objects; 0 gives 0.

    Returns:
      In [0, 1]. Precision at a recall is the best at that recall or above (PASCAL VOC since 2010).
    """
    right = np.asarray(right, np.float64)
    if num_objects == 0 or len(right) == 0:
        return 0.0
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(envelope * right) / num_objects)  # recall rises by 1 / num_objects at each hit


def mask_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU [n, m] of masks [n, h, w] and [m, h, w]; 0 where both are empty."""
    a = np.asarray(a, bool).reshape(len(a), -1).astype(np.float64)
    b = np.asarray(b, bool).reshape(len(b), -1).astype(np.float64)
    intersection = a @ b.T
    union = a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - intersection
    return intersection / np.maximum(union, 1.0)


def paste_truncated(
    mask: np.ndarray, box: Sequence[float], image_size: tuple[int, int], threshold: float = 0.5
) -> np.ndarray:
    """Resize a mask to its box, the box's corners cut to integers, and put it into an image.

    Args:
      mask: [S, S] float32 probabilities.
      box: [4] pixels of the image; what reaches beyond the image is cut off, a box that is narrower than
        one pixel after the cut gives an empty mask (the original stops with an error in both cases).
      image_size: (h, w).
      threshold: a pixel is set where the bilinear sample is above this.

    Returns:
      [h, w] bool.
    """
    height, width = image_size
    x1, y1, x2, y2 = (int(v) for v in box)  # toward zero
    pasted = np.zeros((height, width), bool)
    if x2 <= x1 or y2 <= y1:
        return pasted
    mask = np.asarray(mask, np.float32)
    top, bottom, left, right = max(y1, 0), min(y2, height), max(x1, 0), min(x2, width)
    y_low, y_high, y_weight = _samples(y1, y2, top, bottom, mask.shape[0])
    x_low, x_high, x_weight = _samples(x1, x2, left, right, mask.shape[1])
    columns = mask[:, x_low] * (1 - x_weight) + mask[:, x_high] * x_weight  # [S, w]
    window = columns[y_low] * (1 - y_weight)[:, None] + columns[y_high] * y_weight[:, None]  # [h, w]
    pasted[top : max(top, bottom), left : max(left, right)] = window > threshold
    return pasted


def _samples(start, end, first, last, cells):
    """Return the mask cells around each pixel of [first, last), and the weight of the upper one."""
    position = (np.arange(first, last) + 0.5 - start) * (cells / (end - start)) - 0.5
    position = np.clip(position, 0, cells - 1)  # the outermost cells reach to the border
    low = np.floor(position).astype(int)
    return low, np.minimum(low + 1, cells - 1), (position - low).astype(np.float32)
