"""Choice of the regions whose masks are trained, for one image."""

from reference import box_reference


def choose(boxes, classes, has_mask, detections, num_rois, min_iou=0.5):
    """Return [(box, matched row), ...] of at most num_rois regions, best first, and the overflow count.

    Ground truth before detections, then by falling IoU; a region needs an IoU of `min_iou` with a real
    box, and that box a mask; a ground-truth box always trains its own mask.
    """
    real = [m for m in range(len(boxes)) if classes[m] >= 0]
    chosen = []
    for m in real:
        if has_mask[m] and box_reference.area(boxes[m]) > 0:
            chosen.append((0, -1.0, boxes[m], m))
    for box in detections:
        if box[2] < 0 or not real:
            continue
        best = max(real, key=lambda m: (box_reference.iou(box, boxes[m]), -m))
        overlap = box_reference.iou(box, boxes[best])
        if overlap >= min_iou and has_mask[best]:
            chosen.append((1, -overlap, box, best))
    chosen.sort(key=lambda item: item[:2])
    return [(box, m) for _, _, box, m in chosen[:num_rois]], max(0, len(chosen) - num_rois)
