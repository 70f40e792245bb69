"""What one record of a prepared data set holds, written with TFDS and read with TensorFlow alone.

A record is a `tf.train.Example` in the layout of TFDS: a list of dictionaries `objects` becomes one flat list for each
of their keys. The masks are those of `packed_masks`.
"""

import contextlib
import dataclasses
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from tpu_retinamask.data.record_checks import (
    MOST_PIXELS,
    RecordsError,
    check_windows,
    checked_masks,
    checked_record,
)
from tpu_retinamask.file_kinds import refuse_no_file

FRAME_HEAD, FRAME_BYTES = 12, 16  # a TFRecord puts its length and checksum before the data, a checksum behind


@dataclasses.dataclass(frozen=True)
class StoredImage:
    """The place of one image and its masks.

    Attributes:
      shard: path of the TFRecord file.
      offset: byte at which the record starts in it.
      length: bytes of the record, without the frame.
    """

    shard: str
    offset: int
    length: int


class StoredPlaces(NamedTuple):
    """The places of n images in S shards."""

    shards: list[str]  # paths of the TFRecord files
    shard: np.ndarray  # [n] int32; number of each image's shard
    offset: np.ndarray  # [n] int64; as of `StoredImage`
    length: np.ndarray  # [n] int64
    num_classes: int  # one more than the highest id among them


@runtime_checkable
class HasPlaces(Protocol):
    """A sequence of images that all lie in shards."""

    def places(self) -> StoredPlaces:
        """Return where each lies."""
        ...


class Example(NamedTuple):
    """A parsed record; n instances."""

    image: tf.Tensor  # string scalar; the image file
    image_id: tf.Tensor  # int64 scalar
    size: tf.Tensor  # [2] int32; height, width of the picture, upright
    orientation: tf.Tensor  # int32 scalar; EXIF orientation to apply
    boxes: tf.Tensor  # [n, 4] float32; x1, y1, x2, y2 in pixels
    classes: tf.Tensor  # [n] int32
    has_mask: tf.Tensor  # [n] bool
    windows: tf.Tensor  # [n, 4] int32; x, y, width, height of the stored part of each mask
    packed: tf.Tensor  # uint8; the decompressed bytes of all masks


def tfds_features(class_names: Iterable[str]) -> Any:
    """Return the TFDS features of a record.

    Args:
      class_names: name of each class id.
    """
    import tensorflow_datasets as tfds  # only preparing needs it, and it takes seconds to import

    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), doc="The image file as it is, decoded by TFDS."),
            "image/id": tfds.features.Scalar(np.int64, doc="Position of the image among those of the annotation file."),
            "image/filename": tfds.features.Text(doc="The path as the annotation file writes it."),
            "image/size": tfds.features.Tensor(shape=(2,), dtype=np.int64, doc="Height, width of the upright picture."),
            "image/orientation": tfds.features.Scalar(
                np.int64, doc="EXIF orientation to apply to the pixels; 1: none."
            ),
            "objects": tfds.features.Sequence(
                {
                    "box": tfds.features.Tensor(
                        shape=(4,), dtype=np.float32, doc="x1, y1, x2, y2 in pixels, half-open."
                    ),
                    "class": tfds.features.ClassLabel(names=list(class_names)),
                    "has_mask": tfds.features.Scalar(np.bool_),
                    "mask_window": tfds.features.Tensor(
                        shape=(4,),
                        dtype=np.int64,
                        doc="x, y, width, height of the part of the picture that the mask covers.",
                    ),
                }
            ),
            "masks": tfds.features.Tensor(
                shape=(),
                dtype=np.object_,
                # Part of features.json: other words would be other bytes.
                doc="zlib stream: for each object with a mask its window, row by row, 8 pixels a byte, "
                "highest bit first.",
            ),
        }
    )


def tfds_serializer(features: Any) -> Any:
    """Return TFDS's serializer of examples with these features."""
    from tensorflow_datasets.core import example_serializer

    return example_serializer.ExampleSerializer(features.get_serialized_info())


def parse_example(serialized: tf.Tensor, num_classes: tf.Tensor) -> Example:
    """Parse a record in graph operations; its use raises InvalidArgumentError where it is not as it was written.

    Args:
      serialized: string scalar.
      num_classes: int64 scalar; one more than the highest id that the index names.
    """
    scalar = {
        key: tf.io.FixedLenFeature([], kind)
        for key, kind in (
            ("image", tf.string),
            ("image/filename", tf.string),
            ("image/id", tf.int64),
            ("image/orientation", tf.int64),
            ("masks", tf.string),
        )
    }
    rows = {
        key: tf.io.FixedLenSequenceFeature(shape, kind, allow_missing=True)
        for key, shape, kind in (
            ("objects/box", [4], tf.float32),
            ("objects/class", [], tf.int64),
            ("objects/has_mask", [], tf.int64),
            ("objects/mask_window", [4], tf.int64),
        )
    }
    found = tf.io.parse_single_example(serialized, scalar | rows | {"image/size": tf.io.FixedLenFeature([2], tf.int64)})
    found = checked_record(found, num_classes)
    packed = tf.io.decode_raw(tf.io.decode_compressed(found["masks"], "ZLIB"), tf.uint8)
    return Example(
        image=found["image"],
        image_id=found["image/id"],
        size=tf.cast(found["image/size"], tf.int32),
        orientation=tf.cast(found["image/orientation"], tf.int32),
        boxes=found["objects/box"],
        classes=tf.cast(found["objects/class"], tf.int32),
        has_mask=found["objects/has_mask"] > 0,
        windows=tf.cast(found["objects/mask_window"], tf.int32),
        packed=checked_masks(packed, found["objects/mask_window"]),
    )


def read_stored_image(place: StoredImage) -> bytes:
    """Read the image file of one record on the host.

    Raises:
      RecordsError: the record is not as it was written.
    """
    features = _read_features(place)
    with _told(place):
        return features["image"].bytes_list.value[0]


def read_stored_masks(place: StoredImage) -> tuple[np.ndarray, np.ndarray]:
    """Read the masks of one record on the host: (packed bytes uint8, windows [n, 4]) of `packed_masks`.

    Raises:
      RecordsError: the record is not as it was written.
    """
    features = _read_features(place)
    with _told(place):
        height, width = features["image/size"].int64_list.value
        if not (height > 0 and width > 0 and height * width <= MOST_PIXELS):
            raise RecordsError(f"a picture of {width} x {height} pixels")
        windows = np.array(features["objects/mask_window"].int64_list.value, np.int64).reshape(-1, 4)
        wanted = check_windows(windows, height, width)
        reader = zlib.decompressobj()
        packed = reader.decompress(features["masks"].bytes_list.value[0], wanted + 1)  # 0 would be no bound
        if len(packed) != wanted or not reader.eof:
            raise RecordsError(f"the masks have more or fewer bytes than the {wanted} that were written")
        return np.frombuffer(packed, np.uint8), windows


def read_serialized(place: StoredImage) -> bytes:
    """Read one record on the host, without its frame."""
    refuse_no_file(place.shard)
    with _told(place), tf.io.gfile.GFile(place.shard, "rb") as file:
        file.seek(place.offset)
        framed = file.read(place.length + FRAME_BYTES)
        if len(framed) != place.length + FRAME_BYTES or struct.unpack("<Q", framed[:8])[0] != place.length:
            raise RecordsError("its length is not the one that was written")
        return framed[FRAME_HEAD : FRAME_HEAD + place.length]


def _read_features(place: StoredImage):
    with _told(place):
        return tf.train.Example.FromString(read_serialized(place)).features.feature


@contextlib.contextmanager
def _told(place: StoredImage) -> Iterator[None]:
    """Say which record it is that does not hold what was written."""
    try:
        yield
    except (DecodeError, LookupError, ValueError, zlib.error, tf.errors.OpError) as error:
        if isinstance(error, RecordsError) and place.shard in str(error):
            raise
        reason = getattr(error, "message", None) or error
        raise RecordsError(
            f"{place.shard}: the record at byte {place.offset} does not hold what was written: {reason}; "
            "`prepare --verify` names damaged files"
        ) from error
