"""The index of a split: the place of every record and all that the annotation file says, masks aside.

What an index file says is compared with the shards as they lie there before any of it is allocated or used.
"""

import io
import math
import sys
import zipfile
from typing import NamedTuple

import numpy as np

from tpu_retinamask.data.record_checks import MOST_PIXELS, RecordsError
from tpu_retinamask.data.record_format import FRAME_BYTES

LONGEST_NAME = 1 << 16  # characters of an image's path
MOST_BYTES = 4 << 30  # of one array
# Of each array of numbers or booleans: NumPy's letter of the kind, the sides behind the first.
_LAYOUT: dict[str, tuple[str, tuple[int, ...]]] = {
    "shard_bytes": ("i", ()),
    "shard": ("i", ()),
    "offset": ("i", ()),
    "length": ("i", ()),
    "image_id": ("i", ()),
    "name": ("U", ()),
    "size": ("i", (2,)),
    "orientation": ("i", ()),
    "splits": ("i", ()),
    "line": ("i", ()),
    "box": ("f", (4,)),
    "class_id": ("i", ()),
    "has_mask": ("b", ()),
}
_OF_IMAGES = ("shard", "offset", "length", "image_id", "name", "size", "orientation")
_OF_INSTANCES = ("line", "box", "class_id", "has_mask")


class BadIndex(RecordsError):
    """An index that is not what prepare wrote, or does not fit its shards; the message says why, without the path."""


class SplitIndex(NamedTuple):
    """All that is known of the n images and T instances of a split without opening a shard."""

    shard_bytes: np.ndarray  # [S] int64; size of each shard
    shard: np.ndarray  # [n] int32; number of the record's shard
    offset: np.ndarray  # [n] int64; byte at which the record starts
    length: np.ndarray  # [n] int64; its bytes, without the frame
    image_id: np.ndarray  # [n] int64
    name: np.ndarray  # [n] text; the path as the annotation file writes it
    size: np.ndarray  # [n, 2] int32; height, width
    orientation: np.ndarray  # [n] int32
    splits: np.ndarray  # [n + 1] int64; instances splits[i]:splits[i + 1] belong to image i
    line: np.ndarray  # [T] int64; in the annotation file
    box: np.ndarray  # [T, 4] float64; x1, y1, x2, y2 in pixels
    class_id: np.ndarray  # [T] int32
    has_mask: np.ndarray  # [T] bool

    def to_bytes(self) -> bytes:
        """Return the content of an index file; equal indexes give equal bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self._asdict())
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, most_rows: int | None = None) -> "SplitIndex":
        """Read what `to_bytes` wrote.

        Args:
          content: of the file.
          most_rows: that an array may have, asked before it is made; None: no bound but that of its bytes.

        Raises:
          BadIndex: it is something else, or damaged.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return cls(**{field: _array(archive, field, most_rows) for field in cls._fields})
        except BadIndex:
            raise
        except Exception as error:  # a zip or a header of an array that was changed raises almost anything
            raise BadIndex(f"it is no index that prepare wrote: {error}") from error

    def check(self, shard_bytes: list[int], num_classes: int) -> None:
        """Refuse what does not fit the shards, the classes or itself.

        Args:
          shard_bytes: [S], the sizes of the shards as they lie there.
          num_classes: that there are.

        Raises:
          BadIndex: says what, and of which image.
        """
        images, instances = len(self.shard), len(self.line)
        if self.shard_bytes.tolist() != shard_bytes:
            raise BadIndex("it tells of other shards than there are")
        lengths = {field: len(getattr(self, field)) for field in (*_OF_IMAGES, *_OF_INSTANCES)}
        wrong = [field for field in _OF_IMAGES if lengths[field] != images]
        wrong += [field for field in _OF_INSTANCES if lengths[field] != instances]
        if wrong or len(self.splits) != images + 1:
            raise BadIndex(f"its arrays are not of one length: {', '.join(wrong) or 'splits'}")
        if self.splits[0] != 0 or self.splits[-1] != instances or (np.diff(self.splits) < 0).any():
            raise BadIndex("its objects are not shared out among its images")
        self._check_images()
        self._check_instances(num_classes)

    def _check_images(self) -> None:
        letters = np.ascontiguousarray(self.name).view(np.uint32)
        if (letters > sys.maxunicode).any():
            raise BadIndex("its names hold what is no letter")
        self._refuse((self.shard < 0) | (self.shard >= len(self.shard_bytes)), "lies in a shard that there is not")
        room = self.shard_bytes.astype(np.int64)[self.shard] - FRAME_BYTES
        # Differences of what lies in 0..room stay in bounds, where a sum of what was forged might not.
        self._refuse((self.offset < 0) | (self.offset > room), "begins outside its shard")
        self._refuse((self.length < 0) | (self.length > room - self.offset), "is longer than its shard")
        height, width = self.size.astype(np.int64).T
        pixels = np.where((height > 0) & (width > 0), height * width, 0)
        too_many = (height > MOST_PIXELS) | (width > MOST_PIXELS) | (pixels > MOST_PIXELS)
        self._refuse(too_many | (pixels < 1), "has no size that a picture can have")
        self._refuse((self.orientation < 1) | (self.orientation > 8), "has a turn that there is not")

    def _check_instances(self, num_classes: int) -> None:
        owner = np.repeat(np.arange(len(self.shard)), np.diff(self.splits))
        height, width = self.size[owner].T
        x1, y1, x2, y2 = self.box.T
        # NaN is not greater or less than anything.
        inside = (x1 >= 0) & (y1 >= 0) & (x1 < x2) & (y1 < y2) & (x2 <= width) & (y2 <= height)
        self._refuse(~inside, "has a box outside its picture", owner)
        known = (self.class_id >= 0) & (self.class_id < num_classes)
        self._refuse(~known, f"has a class outside 0..{num_classes - 1}", owner)

    def _refuse(self, wrong: np.ndarray, what: str, owner: np.ndarray | None = None) -> None:
        """Raise for the first row that is wrong; `owner` gives the image of each row."""
        if wrong.any():
            row = int(np.argmax(wrong))
            image = row if owner is None else int(owner[row])
            raise BadIndex(f"record {image} of {len(self.shard)}, {str(self.name[image])!r}, {what}")


def _array(archive: zipfile.ZipFile, field: str, most_rows: int | None) -> np.ndarray:
    """Return an array of an archive, whose header is read and compared first."""
    kind, sides = _LAYOUT[field]
    with archive.open(f"{field}.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[version](file)
    if dtype.kind != kind or not dtype.isnative or shape[1:] != sides or len(shape) != 1 + len(sides):
        raise BadIndex(f"its array {field} is {dtype}{list(shape)}")
    if most_rows is not None and shape[0] > most_rows + 1:  # `splits` has one more than there are images
        raise BadIndex(f"its array {field} has {shape[0]:,} rows, more than all shards have room for")
    longest = 4 * LONGEST_NAME if kind == "U" else 8
    if dtype.itemsize > longest or math.prod(shape) * dtype.itemsize > MOST_BYTES:
        raise BadIndex(f"its array {field} of {shape[0]:,} times {dtype} is larger than any that prepare writes")
    with archive.open(f"{field}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)
