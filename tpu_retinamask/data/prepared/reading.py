"""Open a prepared data set: what `prepare` wrote, in place of a CSV and its files.

The folder holds TFRecord shards in the layout of TFDS with TFDS's own metadata; beside them `prepared.json` (what was
prepared, from what), `classes.csv`, an index for each split (`index-SPLIT.npz`: the place of every record and all that
the annotation file says, masks aside) and `SHA256SUMS`, written last: a folder without it is unfinished.
"""

import concurrent.futures
import hashlib
import io
import json
import posixpath
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tqdm

from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance
from tpu_retinamask.data.annotations.class_names import ClassNames, read_classes
from tpu_retinamask.data.image_arrays import ImageArrays
from tpu_retinamask.data.masks import StoredMask
from tpu_retinamask.data.record_format import StoredImage, StoredPlaces
from tpu_retinamask.errors import UserError, listed
from tpu_retinamask.files import file_sha256

DATASET = "retinamask"  # the name in front of every shard, which TFDS asks for
FORMAT = 1  # of the index and the record; another number is refused
CLASSES_FILE, PREPARED_FILE, CHECKSUMS_FILE = "classes.csv", "prepared.json", "SHA256SUMS"
UNFINISHED = ".unfinished"  # folder of what a preparation needs to go on


class RecordsError(UserError):
    """A prepared data set that is missing, unfinished, damaged or of another format."""


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
    def from_bytes(cls, content: bytes) -> "SplitIndex":
        """Read what `to_bytes` wrote."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return cls(**{field: arrays[field] for field in cls._fields})


class RecordSplit(Sequence):
    """The images of one split, as `scan.scan_images` would have given them; each is made when asked for."""

    def __init__(self, data_dir: str, split: str, index: SplitIndex) -> None:
        """Take the index of a split; no shard is opened."""
        self._index = index
        count = len(index.shard_bytes)
        self._shards = [posixpath.join(data_dir, shard_name(split, shard, count)) for shard in range(count)]

    def __len__(self) -> int:
        return len(self._index.image_id)

    def arrays(self) -> ImageArrays:
        """Return all images as arrays, those of the index itself."""
        index = self._index
        return ImageArrays(index.size, index.splits, index.box, index.class_id, index.has_mask)

    def places(self) -> StoredPlaces:
        """Return where each record lies."""
        return StoredPlaces(self._shards, self._index.shard, self._index.offset, self._index.length)

    def __getitem__(self, position: int | slice) -> Any:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        position = range(len(self))[position]
        index = self._index
        image = StoredImage(
            self._shards[index.shard[position]], int(index.offset[position]), int(index.length[position])
        )
        first, end = index.splits[position : position + 2]
        instances = tuple(
            AnnotatedInstance(
                int(index.line[row]),
                tuple(index.box[row].tolist()),
                int(index.class_id[row]),
                StoredMask(image, int(row - first)) if index.has_mask[row] else None,
            )
            for row in range(first, end)
        )
        height, width = index.size[position].tolist()
        return AnnotatedImage(
            image,
            str(index.name[position]),
            int(index.image_id[position]),
            height,
            width,
            int(index.orientation[position]),
            instances,
        )


class PreparedData(NamedTuple):
    """An opened data set."""

    data_dir: str
    classes: ClassNames
    prepared: dict  # the content of prepared.json
    checksums: dict  # file name -> SHA-256 in hexadecimal

    @property
    def splits(self) -> list[str]:
        """Name the splits."""
        return list(self.prepared["splits"])

    def split(self, name: str) -> RecordSplit:
        """Return the records of a split; sees that its shards are there, whole by their size.

        Raises:
          RecordsError: no such split, a damaged index, or a shard that is missing or of another size.
        """
        if name not in self.splits:
            raise RecordsError(f"{self.data_dir} has no split {name!r}; it has {self.splits}")
        file = index_name(name)
        content = read_if_there(posixpath.join(self.data_dir, file))
        if content is None or hashlib.sha256(content).hexdigest() != self.checksums.get(file):
            raise _damaged(self.data_dir, [f"{file}: {'missing' if content is None else 'another checksum'}"])
        index = SplitIndex.from_bytes(content)
        count = len(index.shard_bytes)
        names = [shard_name(name, shard, count) for shard in range(count)]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            found = pool.map(lambda shard: file_bytes(posixpath.join(self.data_dir, shard)), names)
            wrong = [
                f"{shard}: {'missing' if size is None else f'{size} bytes, expected {expected}'}"
                for shard, size, expected in zip(names, found, index.shard_bytes.tolist())
                if size != expected
            ]
        if wrong:
            raise _damaged(self.data_dir, wrong)
        return RecordSplit(self.data_dir, name, index)


def open_records(data_dir: str) -> PreparedData:
    """Open a prepared data set.

    Args:
      data_dir: local path or any URL that tf.io.gfile opens.

    Raises:
      RecordsError: it is no finished data set, or one of another format.
    """
    checksums = read_if_there(posixpath.join(data_dir, CHECKSUMS_FILE))
    if checksums is None:
        if tf.io.gfile.exists(posixpath.join(data_dir, UNFINISHED)):
            raise RecordsError(
                f"{data_dir} is unfinished: run prepare again with the same flags; it goes on where it was stopped"
            )
        raise RecordsError(f"{data_dir} holds no prepared data set (no {CHECKSUMS_FILE}): write one with prepare")
    prepared = json.loads(read_if_there(posixpath.join(data_dir, PREPARED_FILE)) or b"{}")
    if prepared.get("format") != FORMAT:
        raise RecordsError(
            f"{data_dir}: {PREPARED_FILE} says format {prepared.get('format')}, expected {FORMAT}: "
            "prepare the data set anew"
        )
    pairs = (line.split("  ", 1) for line in checksums.decode().splitlines())
    return PreparedData(
        data_dir,
        read_classes(posixpath.join(data_dir, CLASSES_FILE)),
        prepared,
        {name: digest for digest, name in pairs},
    )


def verify_records(data_dir: str, *, progress: bool = False) -> int:
    """Compare every file of a prepared data set with its checksum and return their number.

    Raises:
      RecordsError: it is no finished data set; files that are missing or damaged, up to 20 of them named.
    """
    data = open_records(data_dir)
    wrong = []
    for name, expected in tqdm.tqdm(data.checksums.items(), desc="verify", unit="file", disable=not progress):
        found = file_sha256(posixpath.join(data_dir, name))
        if found != expected:
            wrong.append(f"{name}: {'missing' if found is None else 'its content has changed'}")
    if wrong:
        raise _damaged(data_dir, wrong)
    return len(data.checksums)


def shard_name(split: str, shard: int, count: int) -> str:
    """Name a shard as TFDS does."""
    return f"{DATASET}-{split}.tfrecord-{shard:05d}-of-{count:05d}"


def index_name(split: str) -> str:
    """Name the index of a split."""
    return f"index-{split}.npz"


def read_if_there(path: str) -> bytes | None:
    """Read a whole file; None where there is none."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    except tf.errors.NotFoundError:
        return None


def file_bytes(path: str) -> int | None:
    """Return the size of a file; None where there is none."""
    try:
        return tf.io.gfile.stat(path).length
    except tf.errors.NotFoundError:
        return None


def _damaged(data_dir: str, wrong: list[str]) -> RecordsError:
    return RecordsError(
        f"{data_dir}: {len(wrong)} damaged files; copy them again, or delete the folder and prepare it anew:\n"
        + listed(wrong)
    )
