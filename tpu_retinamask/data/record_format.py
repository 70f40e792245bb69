"""What one record of a prepared data set holds, written with TFDS and read with TensorFlow alone.

A record is a `tf.train.Example` in the layout of TFDS: a list of dictionaries `objects` becomes one flat list for each
of their keys. The masks are those of `packed_masks`.
"""

import dataclasses
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf

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


def parse_example(serialized: tf.Tensor) -> Example:
    """Parse a record in graph operations."""
    scalar = {
        key: tf.io.FixedLenFeature([], kind)
        for key, kind in (
            ("image", tf.string),
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
    return Example(
        image=found["image"],
        image_id=found["image/id"],
        size=tf.cast(found["image/size"], tf.int32),
        orientation=tf.cast(found["image/orientation"], tf.int32),
        boxes=found["objects/box"],
        classes=tf.cast(found["objects/class"], tf.int32),
        has_mask=found["objects/has_mask"] > 0,
        windows=tf.cast(found["objects/mask_window"], tf.int32),
        packed=tf.io.decode_raw(tf.io.decode_compressed(found["masks"], "ZLIB"), tf.uint8),
    )


def read_stored_image(place: StoredImage) -> bytes:
    """Read the image file of one record on the host."""
    return _read_features(place)["image"].bytes_list.value[0]


def read_stored_masks(place: StoredImage) -> tuple[np.ndarray, np.ndarray]:
    """Read the masks of one record on the host: (packed bytes uint8, windows [n, 4]) of `packed_masks`."""
    features = _read_features(place)
    packed = np.frombuffer(zlib.decompress(features["masks"].bytes_list.value[0]), np.uint8)
    return packed, np.array(features["objects/mask_window"].int64_list.value, np.int64).reshape(-1, 4)


def read_serialized(place: StoredImage) -> bytes:
    """Read one record on the host, without its frame."""
    with tf.io.gfile.GFile(place.shard, "rb") as file:
        file.seek(place.offset + FRAME_HEAD)
        return file.read(place.length)


def _read_features(place: StoredImage):
    return tf.train.Example.FromString(read_serialized(place)).features.feature
