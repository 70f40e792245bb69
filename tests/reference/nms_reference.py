"""Greedy non-maximum suppression, one box at a time."""

from reference import box_reference


def nms(boxes, valid, iou_threshold, classes=None):
    """Which of the boxes (best first) survive: a box falls to an earlier survivor of its own class."""
    survivors = []
    for i in range(len(boxes)):
        if not valid[i]:
            continue
        rivals = [j for j in survivors if classes is None or classes[i] == classes[j]]
        if not any(box_reference.iou(boxes[i], boxes[j]) > iou_threshold for j in rivals):
            survivors.append(i)
    return [i in survivors for i in range(len(boxes))]
