"""What is known of many images as flat arrays: a million of them are counted without an object for each."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from tpu_retinamask.data.annotated_image import AnnotatedImage


class ImageArrays(NamedTuple):
    """n images with T instances, of which `splits[i]:splits[i + 1]` belong to image i."""

    sizes: np.ndarray  # [n, 2] int32; height, width
    splits: np.ndarray  # [n + 1] int64
    boxes: np.ndarray  # [T, 4] float64; x1, y1, x2, y2 in pixels
    class_ids: np.ndarray  # [T] int32
    has_mask: np.ndarray  # [T] bool

    @property
    def counts(self) -> np.ndarray:
        """Return how many instances each image has, [n]."""
        return np.diff(self.splits)

    @property
    def image_of(self) -> np.ndarray:
        """Return the image of each instance, [T]."""
        return np.repeat(np.arange(len(self.sizes)), self.counts)


@runtime_checkable
class HasArrays(Protocol):
    """A sequence of images that holds them as arrays already."""

    def arrays(self) -> ImageArrays:
        """Return them."""
        ...


def image_arrays(images: Sequence[AnnotatedImage]) -> ImageArrays:
    """Return images as arrays, from those that they hold or made here."""
    if isinstance(images, HasArrays):
        return images.arrays()
    instances = [instance for annotated in images for instance in annotated.instances]
    return ImageArrays(
        sizes=np.array([(annotated.height, annotated.width) for annotated in images], np.int32).reshape(-1, 2),
        splits=np.cumsum([0] + [len(annotated.instances) for annotated in images]),
        boxes=np.array([instance.box for instance in instances], np.float64).reshape(-1, 4),
        class_ids=np.array([instance.class_id for instance in instances], np.int32),
        has_mask=np.array([instance.mask is not None for instance in instances], bool),
    )
