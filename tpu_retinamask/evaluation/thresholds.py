"""The score above which detections are best balanced between what is missed and what is wrong."""

from typing import NamedTuple

import numpy as np


class Threshold(NamedTuple):
    """A score, and what the detections that reach it are worth."""

    score: float
    f1: float
    precision: float
    recall: float


def best_threshold(scores: np.ndarray, found: np.ndarray, wanted: int) -> Threshold | None:
    """Return the threshold of the largest F1 = 2 PR / (P + R); of several, the highest.

    It lies half-way to the next lower score, so that it is no detection's own.

    Args:
      scores: [D] of detections.
      found: [D] bool, whether each is a ground truth that no better one had taken.
      wanted: ground truths.

    Returns:
      None where nothing is wanted or nothing is found.
    """
    if not wanted or not np.any(found):
        return None
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(found[order])
    last = np.append(scores[1:] < scores[:-1], True)  # of those of one score, all or none are taken
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / wanted
    f1 = np.where(last, 2 * hits / (np.arange(1, len(hits) + 1) + wanted), -1.0)
    best = int(np.argmax(f1))
    below = scores[best + 1] if best + 1 < len(scores) else scores[best]
    return Threshold(float((scores[best] + below) / 2), float(f1[best]), float(precision[best]), float(recall[best]))
