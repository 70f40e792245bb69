"""Full-size instance masks for evaluation, read on the host with Pillow."""

import collections
import io
import math

import numpy as np
import PIL.Image

from tpu_retinamask.data.images.image_files import png_bit_depth, read_file
from tpu_retinamask.data.images.packed_masks import unpack_mask
from tpu_retinamask.data.prepared.record_format import StoredImage, StoredMask, read_stored_masks


class MaskReader:
    """Read instance masks, keeping the file read last: a label map serves many instances in a row."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._values: np.ndarray | None = None
        self._label_step = 1
        self._stored: StoredImage | None = None
        self._packed: tuple[np.ndarray, np.ndarray] | None = None

    def read(self, instance, height: int, width: int) -> np.ndarray:
        """Read the mask of one instance, bool [height, width].

        Independent of the TensorFlow decoders of the training pipeline, so that each can be checked
        against the other.

        Args:
          instance: an `Instance` or `ScannedInstance` that has a mask.
          height: rows that the mask must have.
          width: columns that the mask must have.

        Raises:
          ValueError: the instance has no mask, or the file has another size.
          image_files.BadFile: the file is missing.
        """
        if instance.mask is None:
            raise ValueError(f"line {instance.line}: the instance has no mask")
        if isinstance(instance.mask, StoredMask):
            return self._unpack(instance.mask, height, width)
        if instance.mask != self._path:
            self._load(instance.mask)
        if self._values.shape[:2] != (height, width):
            rows, columns = self._values.shape[:2]
            raise ValueError(
                f"line {instance.line}: mask {instance.mask} has {columns} x {rows} pixels, "
                f"expected the image's {width} x {height} (width x height)"
            )
        if instance.mask_value is not None:
            first = self._values[..., 0] if self._values.ndim == 3 else self._values
            return first == instance.mask_value * self._label_step
        non_zero = self._values != 0
        return non_zero.any(axis=-1) if non_zero.ndim == 3 else non_zero

    def _unpack(self, mask: StoredMask, height: int, width: int) -> np.ndarray:
        if mask.image != self._stored:
            self._stored, self._packed = mask.image, read_stored_masks(mask.image)
        return unpack_mask(*self._packed, mask.number, height, width)

    def _load(self, path: str) -> None:
        data = read_file(path)
        picture = PIL.Image.open(io.BytesIO(data))
        # Pillow stretches 2 and 4 bits to 8 and reads 1 bit as True.
        self._label_step = {2: 85, 4: 17}.get(png_bit_depth(data), 1)
        if picture.mode not in ("1", "L", "I", "I;16"):
            picture = picture.convert("RGB")  # leaves alpha out, replaces palette entries by their colours
        self._path, self._values = path, np.asarray(picture)


def read_mask(instance, height: int, width: int) -> np.ndarray:
    """Read the mask of one instance, bool [height, width]; see `MaskReader.read`."""
    return MaskReader().read(instance, height, width)


def shared_mask_files(record) -> set:
    """Return the mask files without `#` labels that several instances of an image name.

    Such a file holds all of them; each is then the part inside its own box, which is also what its training target
    shows.
    """
    users = collections.Counter(
        instance.mask for instance in record.instances if instance.mask and instance.mask_value is None
    )
    return {mask for mask, count in users.items() if count > 1}


def inside_box(box, shape) -> np.ndarray:
    """Return which pixels of an image a box touches, bool [height, width]."""
    x1, y1, x2, y2 = box
    inside = np.zeros(shape, bool)
    inside[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)] = True
    return inside
