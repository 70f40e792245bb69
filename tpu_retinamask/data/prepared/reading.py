"""Open a prepared data set: what `prepare` wrote, in place of a CSV and its files.

The folder holds TFRecord shards in the layout of TFDS with TFDS's own metadata; beside them `prepared.json` (what was
prepared, from what), `classes.csv`, an index for each split (`index-SPLIT.npz`: the place of every record and all that
the annotation file says, masks aside) and `SHA256SUMS`, written last: a folder without it is unfinished.
"""

import concurrent.futures
import hashlib
import posixpath
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tqdm

from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance
from tpu_retinamask.data.annotations.class_names import ClassNames, read_classes
from tpu_retinamask.data.image_arrays import ImageArrays
from tpu_retinamask.data.masks import StoredMask
from tpu_retinamask.data.prepared.checksums import (
    CHECKSUMS_FILE,
    CLASSES_FILE,
    PREPARED_FILE,
    damaged,
    index_name,
    parse_checksums,
    parse_prepared,
    shard_name,
    shard_names,
)
from tpu_retinamask.data.prepared.frames import check_frames
from tpu_retinamask.data.prepared.index import BadIndex, SplitIndex
from tpu_retinamask.data.record_checks import RecordsError
from tpu_retinamask.data.record_format import FRAME_BYTES, StoredImage, StoredPlaces
from tpu_retinamask.errors import UserError
from tpu_retinamask.file_kinds import refuse_no_file
from tpu_retinamask.files import file_sha256, read_if_there

UNFINISHED = ".unfinished"  # folder of what a preparation needs to go on


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
        index = self._index
        return StoredPlaces(
            self._shards, index.shard, index.offset, index.length, int(index.class_id.max(initial=-1)) + 1
        )

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
        """Return the records of a split; sees that its shards are there, whole by their size, and fit the index.

        Raises:
          RecordsError: no such split, a damaged index, or a shard that is missing or of another size.
        """
        if name not in self.splits:
            raise RecordsError(f"{self.data_dir} has no split {name!r}; it has {self.splits}")
        told, file = self.prepared["splits"][name], index_name(name)
        shards = [posixpath.join(self.data_dir, shard) for shard in shard_names(name, told["shards"])]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            sizes = list(pool.map(file_bytes, shards))
        content = read_if_there(posixpath.join(self.data_dir, file))
        if content is None or hashlib.sha256(content).hexdigest() != self.checksums.get(file):
            raise damaged(self.data_dir, [f"{file}: {'missing' if content is None else 'another checksum'}"])
        try:
            index = SplitIndex.from_bytes(content, sum(size or 0 for size in sizes) // FRAME_BYTES)
            expected = index.shard_bytes.tolist()
            if len(expected) == len(sizes) and expected != sizes:
                raise damaged(self.data_dir, _differences(shards, sizes, expected))
            index.check([size or 0 for size in sizes], self.classes.num_classes)
            if (len(index.shard), len(index.line)) != (told["images"], told["instances"]):
                raise BadIndex(f"it has {len(index.shard)} images, and {PREPARED_FILE} tells of {told['images']}")
            check_frames(shards, index)
        except BadIndex as error:
            raise damaged(self.data_dir, [f"{file}: {error}"]) from error
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
    files = {name: read_if_there(posixpath.join(data_dir, name)) for name in (PREPARED_FILE, CLASSES_FILE)}
    prepared = parse_prepared(data_dir, files[PREPARED_FILE])
    found = parse_checksums(data_dir, checksums, prepared)
    wrong = [
        f"{name}: {'missing' if content is None else 'its content has changed'}"
        for name, content in files.items()
        if content is None or hashlib.sha256(content).hexdigest() != found[name]
    ]
    if wrong:
        raise damaged(data_dir, wrong)
    return PreparedData(data_dir, read_classes(posixpath.join(data_dir, CLASSES_FILE)), prepared, found)


def verify_records(data_dir: str, *, progress: bool = False) -> int:
    """Compare every file of a prepared data set with its checksum and return their number.

    Raises:
      RecordsError: it is no finished data set; files that are missing or damaged, up to 20 of them named.
    """
    data = open_records(data_dir)
    wrong = []
    for name, expected in tqdm.tqdm(data.checksums.items(), desc="verify", unit="file", disable=not progress):
        try:
            found = file_sha256(posixpath.join(data_dir, name))
        except UserError as error:
            wrong.append(f"{name}: {error}")
            continue
        if found != expected:
            wrong.append(f"{name}: {'missing' if found is None else 'its content has changed'}")
    if wrong:
        raise damaged(data_dir, wrong)
    return len(data.checksums)


def file_bytes(path: str) -> int | None:
    """Return the size of a file; None where there is none.

    Raises:
      UserError: what is there is no file.
    """
    refuse_no_file(path)
    try:
        return tf.io.gfile.stat(path).length
    except tf.errors.NotFoundError:
        return None


def _differences(shards: list[str], sizes: list[int | None], expected: list[int]) -> list[str]:
    return [
        f"{posixpath.basename(shard)}: {'missing' if size is None else f'{size} bytes, expected {wanted}'}"
        for shard, size, wanted in zip(shards, sizes, expected)
        if size != wanted
    ]
