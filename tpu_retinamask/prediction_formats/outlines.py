"""Masks as polygons: along the edges of their pixels, or with the few corners that a person can move."""

from typing import NamedTuple

import numpy as np

from tpu_retinamask.data.windows import Window


class Region(NamedTuple):
    """A connected part of a mask; pixels that touch by a corner alone are not connected.

    Attributes:
      outline: corners [n, 2] of x, y in pixels of the picture, the last not the first again; clockwise as one sees it.
      holes: the same of what it surrounds, the other way round.
    """

    outline: np.ndarray
    holes: tuple[np.ndarray, ...]


def regions_of(window: Window) -> list[Region]:
    """Return the parts of a mask by their outlines along the edges of pixels, from the top down.

    Filled by any rule that asks for the centres of pixels, they are the mask to the bit.
    """
    corner = np.array([window.left, window.top])
    outlines: dict[int, np.ndarray] = {}
    holes: dict[int, list[np.ndarray]] = {}
    for number, (ring, part) in enumerate(_rings(window.pixels)):
        if part == number:
            outlines[number], holes[number] = corner + _turned(ring, 1), []
        else:
            holes[part].append(corner + _turned(ring, -1))
    return [Region(outline, tuple(holes[number])) for number, outline in outlines.items()]


def softened(ring: np.ndarray) -> np.ndarray:
    """Return a ring along pixels with its stairs cut: through the middles of its edges' first and last pixels.

    The centres of pixels lie on the same sides of it.
    """
    before, after = ring.astype(np.float64), np.roll(ring, -1, axis=0).astype(np.float64)
    half = np.sign(after - before) / 2
    return np.stack([before + half, after - half], axis=1).reshape(-1, 2)


def simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the corners of a ring that matter: no corner left out lies further from the new outline.

    Args:
      ring: [n, 2] of x, y, closed by itself.
      tolerance: in pixels.

    Source: D. Douglas, T. Peucker, "Algorithms for the reduction of the number of points" (1973).
    """
    points = np.asarray(ring, np.float64)
    far = int(np.argmax(((points - points[0]) ** 2).sum(1)))
    closed = np.concatenate([points, points[:1]])
    kept, parts = {0, far}, [(0, far), (far, len(points))]
    while parts:
        start, end = parts.pop()
        if end - start < 2:
            continue
        distances = _distances(closed[start + 1 : end], closed[start], closed[end])
        farthest = int(np.argmax(distances))
        if distances[farthest] > tolerance:
            middle = start + 1 + farthest
            kept.add(middle)
            parts += [(start, middle), (middle, end)]
    return points[sorted(kept)] if len(kept) > 2 else points


def tolerance_of(region: Region) -> float:
    """Return how far, in pixels, the polygon of a part may lie from it: up to 1, of large ones 1/400 of their side."""
    side = float((region.outline.max(axis=0) - region.outline.min(axis=0)).min())
    return max(0.4, min(side / 60, 1.0), side / 400)


def _rings(mask: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Return the rings of edges between pixels of unlike kind, from the top down.

    Each is (corners [n, 2] of x, y; number of the ring that is the outline of its part: of a hole an earlier one).
    """
    padded = np.pad(mask, 1)
    above_left, below_left = padded[:-1, :-1], padded[1:, :-1]
    up, down = above_left != padded[:-1, 1:], below_left != padded[1:, 1:]  # edges that leave each corner of pixels
    left, right = above_left != below_left, padded[:-1, 1:] != padded[1:, 1:]
    ys, xs = np.nonzero((up | down) & (left | right))
    both = up[ys, xs] & down[ys, xs]  # two corners in one place: pixels that touch there alone
    falling = above_left[ys, xs]  # of the two, those above left and below right
    goes_right = np.where(both, ~falling, right[ys, xs])
    goes_down = np.where(both, False, down[ys, xs])
    y, x = np.concatenate([ys, ys[both]]), np.concatenate([xs, xs[both]])
    goes_right = np.concatenate([goes_right, falling[both]])
    goes_down = np.concatenate([goes_down, np.ones(int(both.sum()), bool)])
    across, along = (np.empty(len(y), np.int64) for _ in range(2))
    # Along a line of corners edges begin and end in turns; in one place the end comes first.
    for partner, order in ((across, np.lexsort((goes_right, x, y))), (along, np.lexsort((goes_down, y, x)))):
        partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return _walked(np.stack([x, y], axis=1), across.tolist(), along, padded)


def _walked(corners: np.ndarray, across: list[int], along: np.ndarray, padded: np.ndarray) -> list:
    ring_of, next_of = np.full(len(corners), -1), along.tolist()
    walks: list[list[int]] = []
    for start in np.lexsort((corners[:, 0], corners[:, 1])).tolist():
        if ring_of[start] >= 0:
            continue
        walk, at = [start], start
        while True:
            beside = across[at]
            walk.append(beside)
            at = next_of[beside]
            if at == start:
                break
            walk.append(at)
        ring_of[walk] = len(walks)
        walks.append(walk)
    # Which ring each upright edge belongs to, by the pixel to its right.
    owner = np.full(padded.shape, -1, np.int32)
    upper = np.flatnonzero(corners[:, 1] < corners[along, 1])
    lengths = corners[along[upper], 1] - corners[upper, 1]
    rows = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    owner[np.repeat(corners[upper, 1], lengths) + rows, np.repeat(corners[upper, 0], lengths)] = np.repeat(
        ring_of[upper], lengths
    )
    parts: list[int] = []
    for number, walk in enumerate(walks):
        x, y = corners[walk[0]]  # the first of the ring from the top left: what it holds is below right
        if padded[y + 1, x + 1]:
            parts.append(number)
            continue
        # The pixel above is of the part: so is the ring where that row of pixels begins.
        begin = int(np.flatnonzero(~padded[y, : x + 1])[-1])
        parts.append(parts[owner[y - 1, begin]])
    return [(corners[walk], part) for walk, part in zip(walks, parts)]


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the distances of points [n, 2] from the stretch between two."""
    stretch, away = end - start, points - start
    share = np.clip(away @ stretch / max(float(stretch @ stretch), 1e-12), 0, 1)
    return np.sqrt(((away - share[:, np.newaxis] * stretch) ** 2).sum(1))


def _area(ring: np.ndarray) -> float:
    """Return the area of a ring, positive where it goes clockwise as one sees it, the y axis pointing down."""
    x, y = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def _turned(ring: np.ndarray, sign: int) -> np.ndarray:
    return ring if _area(ring) * sign > 0 else ring[::-1]
