"""The three losses from their textbook formulas, one number at a time, in float64."""

import math

IGNORED = -2


def sigmoid(x):
    """Logistic function."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def focal(logits, labels, alpha=0.25, gamma=2.0):
    """Sum over anchors that are not ignored and over classes of -alpha_t (1 - p_t)**gamma log p_t."""
    total = 0.0
    for row, label in zip(logits, labels):
        if label == IGNORED:
            continue
        for c, logit in enumerate(row):
            p = sigmoid(float(logit))
            if c == label:
                total -= alpha * (1 - p) ** gamma * math.log(p)
            else:
                total -= (1 - alpha) * p**gamma * math.log(1 - p)
    return total


def focal_gradient(logits, labels, alpha=0.25, gamma=2.0):
    """Derivative of `focal` with respect to every logit, from the closed form."""
    gradient = []
    for row, label in zip(logits, labels):
        line = []
        for c, logit in enumerate(row):
            p = sigmoid(float(logit))
            if label == IGNORED:
                line.append(0.0)
            elif c == label:
                line.append(alpha * (1 - p) ** gamma * (gamma * p * math.log(p) + p - 1))
            else:
                line.append((1 - alpha) * p**gamma * (p - gamma * (1 - p) * math.log(1 - p)))
        gradient.append(line)
    return gradient


def smooth_l1(predicted, target, positive, sigma=3.0):
    """Sum over positives of 0.5 (sigma d)**2 where |d| < 1 / sigma**2, else |d| - 0.5 / sigma**2."""
    total = 0.0
    for p_row, t_row, counts in zip(predicted, target, positive):
        for p, t in zip(p_row, t_row):
            d = abs(float(p) - float(t))
            value = 0.5 * (sigma * d) ** 2 if d < 1 / sigma**2 else d - 0.5 / sigma**2
            total += value if counts else 0.0
    return total


def mask_loss(logits, targets, valid):
    """Mean binary cross-entropy over the pixels of one image's valid regions; 0 without any."""
    total, pixels = 0.0, 0
    for region, target, counts in zip(logits, targets, valid):
        if not counts:
            continue
        for x, t in zip(region.ravel(), target.ravel()):
            p = sigmoid(float(x))
            total -= float(t) * math.log(p) + (1 - float(t)) * math.log(1 - p)
            pixels += 1
    return total / max(1, pixels)


class SelfAdjustingSmoothL1:
    """The box loss of arXiv 1901.03353 section 3.2, in the order of its text: statistics first, then the loss."""

    def __init__(self, largest=0.11, smallest=1e-3, momentum=0.1):
        """Start with the mean at the largest beta and no variance."""
        self.largest, self.smallest, self.momentum = largest, smallest, momentum
        self.mean, self.variance = [largest] * 4, [0.0] * 4

    def beta(self):
        """Difference of the running values, clipped, one a coordinate."""
        return [min(max(m - v, self.smallest), self.largest) for m, v in zip(self.mean, self.variance)]

    def __call__(self, predicted, target, positive):
        """Move the statistics by a batch [n, 4] and return its loss."""
        rows = [
            [abs(float(p) - float(t)) for p, t in zip(*pair)]
            for pair, counts in zip(zip(predicted, target), positive)
            if counts
        ]
        if not rows:
            return 0.0
        for c in range(4):
            of_batch = [row[c] for row in rows]
            mean = sum(of_batch) / len(rows)
            variance = sum((d - mean) ** 2 for d in of_batch) / len(rows)
            self.mean[c] = (1 - self.momentum) * self.mean[c] + self.momentum * mean
            self.variance[c] = (1 - self.momentum) * self.variance[c] + self.momentum * variance
        total = sum(d * d / (2 * b) if d < b else d - b / 2 for row in rows for d, b in zip(row, self.beta()))
        return total / (4 * len(rows))
