"""Boxes `x1, y1, x2, y2`, half-open, one pair at a time."""

import math


def area(box):
    """Area of one box, 0 if it is turned inside out."""
    return max(float(box[2]) - float(box[0]), 0.0) * max(float(box[3]) - float(box[1]), 0.0)


def iou(a, b):
    """Intersection over union of two boxes; 0 if neither has an area."""
    width = min(float(a[2]), float(b[2])) - max(float(a[0]), float(b[0]))
    height = min(float(a[3]), float(b[3])) - max(float(a[1]), float(b[1]))
    common = width * height if width > 0 and height > 0 else 0.0
    union = area(a) + area(b) - common
    return common / union if union > 0 else 0.0


def corner_deltas(box, anchor, mean=0.0, std=0.2):
    """Offsets of the four corners in units of the anchor's sides."""
    sides = (anchor[2] - anchor[0], anchor[3] - anchor[1]) * 2
    return [((box[i] - anchor[i]) / sides[i] - mean) / std for i in range(4)]


def corner_box(deltas, anchor, mean=0.0, std=0.2):
    """The box that has these corner offsets."""
    sides = (anchor[2] - anchor[0], anchor[3] - anchor[1]) * 2
    return [anchor[i] + (deltas[i] * std + mean) * sides[i] for i in range(4)]


def center_deltas(box, anchor, weights=(10.0, 10.0, 5.0, 5.0)):
    """Shift of the centre in anchors and logarithm of the size ratio, weighted."""
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    return [
        weights[0] * ((box[0] + box[2]) / 2 - (anchor[0] + anchor[2]) / 2) / width,
        weights[1] * ((box[1] + box[3]) / 2 - (anchor[1] + anchor[3]) / 2) / height,
        weights[2] * math.log((box[2] - box[0]) / width),
        weights[3] * math.log((box[3] - box[1]) / height),
    ]


def clip(box, height, width):
    """Clip a box to [0, width] and [0, height]."""
    return [min(max(float(box[i]), 0.0), float((width, height)[i % 2])) for i in range(4)]
