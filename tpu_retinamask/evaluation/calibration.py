"""Whether scores mean what they say: of detections that score 0.8, are eight in ten right?

Source: "On Calibration of Modern Neural Networks" (arXiv 1706.04599), section 2.
"""

import math
from typing import NamedTuple

import numpy as np

BINS = 10


class Bin(NamedTuple):
    """The detections whose scores lie in [low, high), the last bin's in [low, high]."""

    low: float
    high: float
    count: int
    score: float  # mean; nan where there is none
    found: float  # share that is right; nan where there is none


class Calibration(NamedTuple):
    """How scores and the share of right detections differ."""

    bins: tuple[Bin, ...]
    error: float  # expected calibration error: mean of |score - found| over the detections; nan where there is none


def calibrate(scores: np.ndarray, found: np.ndarray) -> Calibration:
    """Return the reliability of scores in bins of equal width.

    Args:
      scores: [D], in [0, 1].
      found: [D] bool, whether each is right.
    """
    place = np.clip((scores * BINS + 1e-9).astype(int), 0, BINS - 1)
    bins = []
    for number in range(BINS):
        inside = place == number
        count = int(inside.sum())
        score, share = (float(scores[inside].mean()), float(found[inside].mean())) if count else (math.nan, math.nan)
        bins.append(Bin(number / BINS, (number + 1) / BINS, count, score, share))
    total = sum(one.count for one in bins)
    apart = sum(one.count * abs(one.score - one.found) for one in bins if one.count)
    return Calibration(tuple(bins), apart / total if total else math.nan)
