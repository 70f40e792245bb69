"""Some images of many."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.image_arrays import ImageArrays, image_arrays
from tpu_retinamask.data.record_format import HasPlaces, StoredPlaces


def subset(images: Sequence[AnnotatedImage], rows: np.ndarray) -> Sequence[AnnotatedImage]:
    """Return some of the images, which are still counted and found without an object for each."""
    return (StoredSubset if isinstance(images, HasPlaces) else Subset)(images, rows)


class Subset(Sequence):
    """Some images of many; see `subset`.

    Attributes:
      whole: all of them.
      rows: [m] int64, of those in this one.
    """

    def __init__(self, whole: Sequence[AnnotatedImage], rows: np.ndarray) -> None:
        """Take them; nothing is copied."""
        self.whole, self.rows = whole, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int | slice) -> Any:
        if isinstance(position, slice):
            return [self.whole[row] for row in self.rows[position].tolist()]
        return self.whole[int(self.rows[position])]

    def arrays(self) -> ImageArrays:
        """Return these images as arrays."""
        return _chosen(image_arrays(self.whole), self.rows)


class StoredSubset(Subset):
    """Some records of many."""

    whole: Any

    def places(self) -> StoredPlaces:
        """Return where each record lies."""
        of = self.whole.places()
        return of._replace(shard=of.shard[self.rows], offset=of.offset[self.rows], length=of.length[self.rows])


def _chosen(arrays: ImageArrays, rows: np.ndarray) -> ImageArrays:
    counts = arrays.counts[rows]
    splits = np.concatenate([[0], np.cumsum(counts)])
    instances = np.arange(splits[-1]) + np.repeat(arrays.splits[:-1][rows] - splits[:-1], counts)
    return ImageArrays(
        arrays.sizes[rows], splits, arrays.boxes[instances], arrays.class_ids[instances], arrays.has_mask[instances]
    )
