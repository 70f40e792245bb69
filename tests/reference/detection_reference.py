"""Choice of detections of one image: threshold, per-class greedy suppression, the best K."""

import numpy as np
from reference import nms_reference


def ranked_pairs(scores):
    """All (anchor, class) pairs of scores [n, C], best first."""
    pairs = [(n, c) for n in range(scores.shape[0]) for c in range(scores.shape[1])]
    return sorted(pairs, key=lambda pair: -scores[pair])


def filter_detections(levels, *, score_threshold, nms_iou, max_detections, top_k_per_level, class_specific):
    """Detections of one image.

    Args:
      levels: one (scores [n, C], boxes [n, 4]) a pyramid level, boxes decoded and clipped.

    Returns:
      boxes [K, 4], scores [K], classes [K] padded with -1, and the count of candidates cut.
    """
    found, cut = [], 0
    for scores, boxes in levels:
        labels = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
        if not class_specific:
            labels = np.argmax(scores, axis=1)[:, None]
            scores = np.max(scores, axis=1)[:, None]
        above = [pair for pair in ranked_pairs(scores) if scores[pair] > score_threshold]
        cut += len(above[top_k_per_level:])
        found += [(scores[n, c], labels[n, c], boxes[n]) for n, c in above[:top_k_per_level]]
    found.sort(key=lambda item: -item[0])
    kept = []
    groups = sorted({label for _, label, _ in found}) if class_specific else [None]
    for group in groups:
        members = [item for item in found if group is None or item[1] == group]
        keep = nms_reference.nms([box for _, _, box in members], [True] * len(members), nms_iou)
        kept += [item for item, stays in zip(members, keep) if stays][:max_detections]
    kept = sorted(kept, key=lambda item: -item[0])[:max_detections]
    out_boxes, out_scores = np.full((max_detections, 4), -1.0), np.full(max_detections, -1.0)
    out_classes = np.full(max_detections, -1)
    for row, (score, label, box) in enumerate(kept):
        out_boxes[row], out_scores[row], out_classes[row] = box, score, label
    return out_boxes, out_scores, out_classes, cut
