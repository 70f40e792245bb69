"""What a data set looks like, in the few numbers that the rules of a plan ask for."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.image_arrays import image_arrays
from tpu_retinamask.data.images.thumbnails import thumbnail

MOST_OBJECTS = 20_000  # whose boxes are kept, evenly among all
FEWEST_LOOKED_AT, MOST_LOOKED_AT = 8, 200  # pictures whose pixels are looked at, evenly among all
MOST_PIXELS = 4e8  # of them together, by which the number goes: some seconds at most
COLOUR = 6.0  # mean difference of the channels, of 255, above which a picture has colours

# A picture has no upright side where none of these shows one, by two standard errors.
LEVEL_BRIGHTNESS = 10.0  # of 255, upper half against lower half
LEVEL_CENTRE = 0.06  # of the height, the objects' middle from the picture's
LEVEL_SHAPE = 0.15  # mean logarithm of an object's height / width


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What a data set looks like.

    Attributes:
      images: to train on.
      validation: to score; 0: none.
      sizes: [n, 2] height and width of each picture, pixels.
      counts: [n] objects of each picture.
      boxes: [m, 4] x1, y1, x2, y2 of some objects, pixels of their picture.
      picture: [m] row of `sizes` of each of these.
      class_names: of the classes.
      mask_share: share of the objects that have a mask.
      colours: share of the pictures with colours; None: their pixels could not be looked at.
      turnable: whether nothing tells up from down, so that a turned picture is one of the same kind.
    """

    images: int
    validation: int
    sizes: np.ndarray
    counts: np.ndarray
    boxes: np.ndarray
    picture: np.ndarray
    class_names: tuple[str, ...]
    mask_share: float
    colours: float | None
    turnable: bool

    @property
    def sides(self) -> np.ndarray:
        """Return the side of each object, sqrt(width * height), as a share of its picture's long side, [m]."""
        return np.sqrt(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1)) / self.sizes.max(axis=1)[self.picture]

    @property
    def long_side(self) -> float:
        """Return the median long side of the pictures in pixels."""
        return float(np.median(self.sizes.max(axis=1)))

    def __str__(self) -> str:
        height, width = np.median(self.sizes, axis=0)
        low, middle, high = np.percentile(self.sides, (10, 50, 90)) if len(self.boxes) else (0, 0, 0)
        colours = "colours unknown" if self.colours is None else f"{self.colours:.0%} in colour"
        return (
            f"{self.images} pictures of about {width:.0f} x {height:.0f} pixels, {colours}, "
            f"{'no side of them up' if self.turnable else 'upright'}; {int(self.counts.sum())} objects of "
            f"{len(self.class_names)} classes, {self.mask_share:.0%} with masks, {np.median(self.counts):.0f} a "
            f"picture (at most {self.counts.max()}), their sides {low:.1%} to {high:.1%} of its long one (median "
            f"{middle:.1%})"
        )


class Looks(NamedTuple):
    """What the pixels of pictures show."""

    colours: float | None  # share of pictures that have some
    lightness: np.ndarray  # [n] upper half less lower half, of 255


def fingerprint(
    images: Sequence[AnnotatedImage], classes: ClassNames, validation: Sequence[AnnotatedImage] | None = None
) -> Fingerprint:
    """Return what a data set looks like.

    Args:
      images: to train on, at least one.
      classes: their names.
      validation: images to score.
    """
    arrays = image_arrays(images)
    rows = np.linspace(0, len(arrays.boxes) - 1, min(len(arrays.boxes), MOST_OBJECTS)).astype(np.int64)
    looks = look_at(images)
    picture = arrays.image_of[rows]
    return Fingerprint(
        images=len(images),
        validation=len(validation or ()),
        sizes=arrays.sizes,
        counts=arrays.counts,
        boxes=arrays.boxes[rows],
        picture=picture,
        class_names=tuple(classes.name_of(number) for number in range(classes.num_classes)),
        mask_share=float(arrays.has_mask.mean()) if len(arrays.has_mask) else 0.0,
        colours=looks.colours,
        turnable=has_no_upright_side(looks.lightness, arrays.boxes[rows], arrays.sizes[picture], picture),
    )


def look_at(images: Sequence[AnnotatedImage]) -> Looks:
    """Look at the pixels of some pictures, fewer of large ones; those that cannot be opened are passed over."""
    pixels = np.prod(image_arrays(images).sizes.astype(np.float64), axis=1)
    most = np.clip(MOST_PIXELS // np.median(pixels), FEWEST_LOOKED_AT, MOST_LOOKED_AT) if len(images) else 0
    rows = np.linspace(0, len(images) - 1, int(min(len(images), most))).astype(np.int64)
    seen = [small for row in rows.tolist() if (small := thumbnail(images[row])) is not None]
    if not seen:
        return Looks(None, np.zeros(0))
    grey = np.stack(seen).mean(axis=-1)  # [n, side, side]
    upper, lower = np.split(grey.mean(axis=2), 2, axis=1)
    return Looks(
        colours=float(np.mean([np.ptp(small, axis=-1).mean() > COLOUR for small in seen])),
        lightness=(upper - lower).mean(axis=1),
    )


def has_no_upright_side(lightness: np.ndarray, boxes: np.ndarray, sizes: np.ndarray, picture: np.ndarray) -> bool:
    """Tell whether neither light nor places nor shapes of objects tell up from down, by two standard errors.

    Args:
      lightness: see `Looks`.
      boxes: [m, 4] pixels.
      sizes: [m, 2] height and width of their pictures.
      picture: [m] number of their picture; objects of one picture count as one observation.
    """
    if len(lightness) < 2 or not len(boxes):
        return False
    x1, y1, x2, y2 = boxes.T
    pictures = np.unique(picture, return_inverse=True)[1]

    def of_pictures(values):
        return np.bincount(pictures, values) / np.bincount(pictures)

    centres = of_pictures((y1 + y2) / 2 / sizes[:, 0] - 0.5)
    shapes = of_pictures(np.log((y2 - y1) / (x2 - x1)))
    bounds = ((lightness, LEVEL_BRIGHTNESS), (centres, LEVEL_CENTRE), (shapes, LEVEL_SHAPE))
    return all(_farthest_mean(values) < bound for values, bound in bounds)


def _farthest_mean(values: np.ndarray) -> float:
    """Return how far from zero the mean may be, two standard errors allowed for."""
    if len(values) < 2:
        return np.inf
    return float(abs(values.mean()) + 2 * values.std(ddof=1) / np.sqrt(len(values)))
