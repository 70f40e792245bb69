"""Outlines of masks: exact along pixels, few corners within a tolerance."""

import numpy as np
import pytest

from tpu_retinamask.data.windows import Window, window_of
from tpu_retinamask.prediction_formats.outlines import regions_of, simplified, softened


def _filled(ring, height, width):
    """Return the pixels whose centres a ring holds: a ray to the left crosses it an odd number of times."""
    xs, ys = np.arange(width) + 0.5, np.arange(height) + 0.501  # past the corners that lie half way
    crossings = np.zeros((height, width), int)
    for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0)):
        if y1 != y2:
            rows = (ys > min(y1, y2)) & (ys < max(y1, y2))
            at = x1 + (ys - y1) * (x2 - x1) / (y2 - y1)
            crossings += rows[:, np.newaxis] & (xs > at[:, np.newaxis])
    return crossings % 2 == 1


def _area(ring):
    x, y = ring.T.astype(float)
    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2


def test_outlines_less_their_holes_are_the_mask():
    random = np.random.default_rng(0)
    for density in np.repeat([0.2, 0.5, 0.7, 0.9], 25):
        height, width = random.integers(1, 24, 2)
        mask = random.random((height, width)) < density
        found = np.zeros_like(mask)
        for region in regions_of(window_of(mask)):
            part = _filled(region.outline, height, width)
            assert _area(region.outline) > 0 and all(_area(hole) < 0 for hole in region.holes)
            for hole in region.holes:
                inside = _filled(hole, height, width)
                assert inside.any() and not (inside & ~part).any()  # a hole of this part, and of no other
                part &= ~inside
            assert part.any() and not (part & found).any()
            found |= part
        np.testing.assert_array_equal(found, mask)


def test_a_softened_outline_holds_the_same_pixels_with_half_the_stairs():
    mask = np.random.default_rng(1).random((20, 20)) < 0.6
    for region in regions_of(window_of(mask)):
        np.testing.assert_array_equal(_filled(softened(region.outline), 20, 20), _filled(region.outline, 20, 20))
    square = np.array([[2, 3], [4, 3], [4, 4], [2, 4]])
    assert softened(square).tolist() == [
        [2.5, 3], [3.5, 3], [4, 3.5], [4, 3.5], [3.5, 4], [2.5, 4], [2, 3.5], [2, 3.5]]  # fmt: skip


def test_parts_and_holes_worked_by_hand():
    mask = np.zeros((9, 9), bool)
    mask[1:8, 1:8] = True
    mask[2:7, 2:7] = False
    mask[4, 4] = True  # an island in the hole
    mask[8, 8] = True  # touches by a corner alone: a part of its own
    frame, island, corner = regions_of(Window(10, 20, mask))
    assert sorted(map(tuple, frame.outline.tolist())) == [(11, 21), (11, 28), (18, 21), (18, 28)]
    assert [sorted(map(tuple, hole.tolist())) for hole in frame.holes] == [[(12, 22), (12, 27), (17, 22), (17, 27)]]
    assert sorted(map(tuple, island.outline.tolist())) == [(14, 24), (14, 25), (15, 24), (15, 25)]
    assert island.holes == corner.holes == () and len(corner.outline) == 4
    assert regions_of(window_of(np.zeros((3, 3), bool))) == []


@pytest.mark.parametrize("tolerance", [0.0, 0.5, 1.0, 3.0])
def test_no_corner_left_out_is_further_than_the_tolerance(tolerance):
    rows, columns = np.mgrid[:120, :140]
    mask = np.hypot(columns - 70, 1.3 * (rows - 60)) < 55 + 6 * np.sin(columns / 7)
    ring = max((region.outline for region in regions_of(window_of(mask))), key=len)
    kept = simplified(ring, tolerance)
    assert {tuple(point) for point in kept.tolist()} <= {tuple(map(float, point)) for point in ring.tolist()}
    starts, stretches = kept, np.roll(kept, -1, axis=0) - kept
    away = ring[:, np.newaxis] - starts
    share = np.clip((away * stretches).sum(-1) / np.maximum((stretches**2).sum(-1), 1e-12), 0, 1)
    distances = np.linalg.norm(away - share[..., np.newaxis] * stretches, axis=-1).min(axis=1)
    assert distances.max() <= tolerance + 1e-9
    assert len(kept) == len(ring) if tolerance == 0 else len(kept) < len(ring)
