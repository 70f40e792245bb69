"""Shapes that annotation tools draw as polygons, and the boxes around them."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tpu_retinamask.data.masks import JoinedMask, Mask, PolygonMask, WindowMask
from tpu_retinamask.data.sources.checked import BadEntry, as_pixels, shown

Box = tuple[float, float, float, float]
Corners = tuple[float, ...]

SAGITTA = 0.04  # pixels between an arc and the chord that stands for it, at most
MOST_CORNERS = 4096  # of an ellipse: those of a radius of 100,000 pixels


def polygon_of(points: Any, place: str) -> Corners:
    """Return the corners x1, y1, x2, y2, ... of a list of pairs [x, y].

    Raises:
      BadEntry: no such list, or fewer than three corners.
    """
    if not isinstance(points, list | tuple):
        raise BadEntry(f"{place}: got {shown(points)}, expected a list of points [x, y]")
    corners = []
    for number, point in enumerate(points):
        pair = [as_pixels(value) for value in point] if isinstance(point, list | tuple) and len(point) == 2 else [None]
        if None in pair:
            raise BadEntry(f"{place}[{number}]: got {shown(point)}, expected a point [x, y] in pixels")
        corners += pair
    return polygon_from(corners, place)


def polygon_from(corners: Sequence[float], place: str) -> Corners:
    """Return the corners x1, y1, x2, y2, ... of a polygon that has three or more.

    Raises:
      BadEntry: fewer.
    """
    if len(corners) < 6:
        raise BadEntry(f"{place}: got {len(corners) // 2} points, expected the 3 or more corners of a polygon")
    return tuple(corners)


def box_of_corners(x1: float, y1: float, x2: float, y2: float) -> Box:
    """Return the box between two opposite corners, whichever they are."""
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def rectangle(box: Box) -> Corners:
    """Return the corners of a box."""
    x1, y1, x2, y2 = box
    return x1, y1, x2, y1, x2, y2, x1, y2


def turned(corners: Corners, centre: tuple[float, float], radians: float) -> Corners:
    """Return corners turned around a point, from the x axis towards the y axis: clockwise as one sees it."""
    points = np.reshape(corners, [-1, 2]) - centre
    cosine, sine = math.cos(radians), math.sin(radians)
    moved = points @ np.array([[cosine, sine], [-sine, cosine]]) + centre
    return tuple(moved.reshape(-1).tolist())


def ellipse(cx: float, cy: float, rx: float, ry: float, radians: float = 0.0) -> Corners:
    """Return an ellipse as a polygon that is nowhere further than `SAGITTA` from it.

    The corners lie on it, those of its axes among them, so that an unturned one reaches as far as the ellipse.

    Args:
      cx: centre.
      cy: centre.
      rx: radius along its first axis.
      ry: radius along its second axis.
      radians: turned by, from the x axis towards the y axis.
    """
    radius = max(rx, ry)
    count = 16 if radius <= SAGITTA else math.ceil(math.pi / math.acos(1 - min(SAGITTA / radius, 1)))
    count = min(max(16, 4 * math.ceil(count / 4)), MOST_CORNERS)
    # A quarter is mirrored, so that its ends are the axes to the bit: cos(pi / 2) is not 0.
    angles = np.arange(1, count // 4) * (2 * math.pi / count)
    cosines, sines = np.concatenate([[1.0], np.cos(angles)]), np.concatenate([[0.0], np.sin(angles)])
    xs = np.concatenate([cosines, -sines, -cosines, sines])
    ys = np.concatenate([sines, cosines, -sines, -cosines])
    corners = tuple(np.stack([cx + rx * xs, cy + ry * ys], axis=-1).reshape(-1).tolist())
    return turned(corners, (cx, cy), radians) if radians else corners


def radius(value: float, place: str) -> float:
    """Return a radius.

    Raises:
      BadEntry: it is not greater than zero.
    """
    if value <= 0:
        raise BadEntry(f"{place}: got the radius {value:g}, expected one greater than 0")
    return value


def extent(mask: Mask) -> Box | None:
    """Return the smallest box around a mask; None: it has no pixel, or is of a kind that must be opened first."""
    if isinstance(mask, PolygonMask):
        if not mask.polygons:
            return None
        corners = np.concatenate([np.reshape(polygon, [-1, 2]) for polygon in mask.polygons])
        return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
    if isinstance(mask, WindowMask):
        if not mask.width:
            return None
        edges = mask.left, mask.top, mask.left + mask.width, mask.top + mask.height
        return float(edges[0]), float(edges[1]), float(edges[2]), float(edges[3])
    return around(extent(part) for part in mask.parts) if isinstance(mask, JoinedMask) else None


def around(boxes: Iterable[Box | None]) -> Box | None:
    """Return the smallest box around boxes; None: there are none."""
    found = [box for box in boxes if box is not None]
    if not found:
        return None
    x1, y1, x2, y2 = zip(*found)
    return min(x1), min(y1), max(x2), max(y2)


def joined(masks: Sequence[Mask]) -> Mask:
    """Return one mask of several: polygons as one mask of polygons, others as `JoinedMask`."""
    if len(masks) == 1:
        return masks[0]
    # A hole is cut out of its own polygons alone.
    if all(isinstance(mask, PolygonMask) and not mask.holes for mask in masks):
        return PolygonMask(sum((mask.polygons for mask in masks if isinstance(mask, PolygonMask)), ()))
    return JoinedMask(tuple(masks))
