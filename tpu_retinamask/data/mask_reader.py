"""Full-size instance masks for evaluation, read on the host with Pillow."""

import io

import numpy as np
import PIL.Image

from tpu_retinamask.data.image_files import png_bit_depth, read_file


class MaskReader:
    """Read instance masks, keeping the file read last: a label map serves many instances in a row."""

    def __init__(self):
        self._path: str | None = None
        self._values: np.ndarray | None = None
        self._label_step = 1

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
        if instance.mask != self._path:
            self._load(instance.mask)
        if self._values.shape[:2] != (height, width):
            rows, columns = self._values.shape[:2]
            raise ValueError(f"line {instance.line}: mask {instance.mask} has {columns} x {rows} pixels, "
                             f"expected the image's {width} x {height} (width x height)")
        if instance.mask_value is not None:
            first = self._values[..., 0] if self._values.ndim == 3 else self._values
            return first == instance.mask_value * self._label_step
        non_zero = self._values != 0
        return non_zero.any(axis=-1) if non_zero.ndim == 3 else non_zero

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

