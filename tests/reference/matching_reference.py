"""Assignment of anchors to ground-truth boxes, one anchor at a time."""

import numpy as np
from reference import box_reference

BACKGROUND, IGNORED = -1, -2


def match_anchors(
    anchors,
    boxes,
    classes,
    content_size,
    positive_iou=0.5,
    negative_iou=0.4,
    best_match_iou=None,
    best_match_ties="all",
):
    """Labels and matched rows of one image's anchors; boxes of class -1 are padding."""
    height, width = content_size
    real = [m for m in range(len(boxes)) if classes[m] >= 0]
    overlap = {(n, m): box_reference.iou(anchors[n], boxes[m]) for n in range(len(anchors)) for m in real}
    labels, matched, inside = [], [], []
    for n, anchor in enumerate(anchors):
        x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
        inside.append(0 <= x < width and 0 <= y < height)
        best, best_iou = 0, -1.0
        for m in real:
            if overlap[n, m] > best_iou:  # strictly, so that the first of equal boxes stays
                best, best_iou = m, overlap[n, m]
        matched.append(best)
        if not inside[n]:
            labels.append(IGNORED)
        elif best_iou >= positive_iou:
            labels.append(int(classes[best]))
        elif best_iou > negative_iou:
            labels.append(IGNORED)
        else:
            labels.append(BACKGROUND)
    if best_match_iou is None:
        return np.array(labels), np.array(matched)
    taken_with = [-1.0] * len(anchors)
    for m in real:
        candidates = [overlap[n, m] for n in range(len(anchors)) if inside[n]]
        best = max(candidates, default=-1.0)
        if best <= best_match_iou:
            continue
        # Anchors that contain the box tie; their rounded coordinates must not choose among them.
        tied = [n for n in range(len(anchors)) if inside[n] and overlap[n, m] >= best * (1 - 1e-4)]
        if best_match_ties == "nearest":
            away = {n: _distance(anchors[n], boxes[m]) for n in tied}
            tied = [n for n in tied if away[n] <= min(away.values()) * (1 + 1e-4) + 1e-4]
        for n in tied:
            if overlap[n, m] > taken_with[n]:
                taken_with[n] = overlap[n, m]
                labels[n], matched[n] = int(classes[m]), m
    return np.array(labels), np.array(matched)


def _distance(a, b):
    """Squared distance of two boxes' centres."""
    return sum(((a[i] + a[i + 2]) / 2 - (b[i] + b[i + 2]) / 2) ** 2 for i in (0, 1))
