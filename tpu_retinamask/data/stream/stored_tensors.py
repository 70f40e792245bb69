"""Where a tf.data graph finds sample number i: in image and mask files, or in the shards of a prepared data set."""

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.annotations.scan import ScannedRecord
from tpu_retinamask.data.images.decode import apply_orientation, decode_image
from tpu_retinamask.data.images.image_files import read_file
from tpu_retinamask.data.images.mask_sampling import sample_masks, sample_packed_masks
from tpu_retinamask.data.images.packed_masks import packed_starts
from tpu_retinamask.data.prepared.record_format import FRAME_BYTES, StoredImage, parse_example, read_serialized


class SourceImage(NamedTuple):
    """One image as it is stored; n instances."""

    contents: tf.Tensor  # string scalar; the bytes of the image file
    image_id: tf.Tensor  # int64 scalar
    size: tf.Tensor  # [2] int32; height, width
    orientation: tf.Tensor  # int32 scalar; EXIF orientation to apply
    boxes: tf.Tensor  # [n, 4] float32; pixels of the picture
    classes: tf.Tensor  # [n] int32
    has_mask: tf.Tensor  # [n] bool
    crop_masks: Callable  # (boxes [m, 4], their rows among the instances [m], R) -> uint8 [m, R, R]

    def picture(self) -> tf.Tensor:
        """Decode the picture and turn it upright, uint8 [h, w, 3]."""
        return apply_orientation(decode_image(self.contents), self.orientation)


class FileTensors(NamedTuple):
    """Images, instances and mask files, each flat; `*_splits[i]:*_splits[i + 1]` belong to image i.

    n images, T instances, F mask files (a file used by several images counts for each).
    """

    images: tf.Tensor  # [n] string; path, or the bytes of the file
    image_ids: tf.Tensor  # [n] int64
    sizes: tf.Tensor  # [n, 2] int32; height, width
    orientations: tf.Tensor  # [n] int32; EXIF orientation to apply
    instance_splits: tf.Tensor  # [n + 1] int32
    boxes: tf.Tensor  # [T, 4] float32; pixels of the image file
    classes: tf.Tensor  # [T] int32
    files: tf.Tensor  # [T] int32; number of the mask file among those of all images; -1: none
    values: tf.Tensor  # [T] uint16; value of the instance in the decoded mask; 0: every non-zero pixel
    masks: tf.Tensor  # [F] string; path, or the bytes of the file
    in_memory: bool  # `images` and `masks` are bytes

    def read(self, position: tf.Tensor) -> SourceImage:
        """Read the image at a position, in graph operations."""
        rows = slice(self.instance_splits[position], self.instance_splits[position + 1])
        files, values = self.files[rows], self.values[rows]

        def crop_masks(boxes, chosen, mask_size):
            return sample_masks(
                lambda file: self._contents(self.masks[file]),
                boxes,
                tf.gather(files, chosen),
                tf.gather(values, chosen),
                mask_size,
            )

        return SourceImage(
            self._contents(self.images[position]),
            self.image_ids[position],
            self.sizes[position],
            self.orientations[position],
            self.boxes[rows],
            self.classes[rows],
            files >= 0,
            crop_masks,
        )

    def _contents(self, entry: tf.Tensor) -> tf.Tensor:
        return entry if self.in_memory else tf.io.read_file(entry)


class StoredTensors(NamedTuple):
    """The places of n records in S shards; everything else is read from the record itself."""

    shards: tf.Tensor  # [S] string
    shard: tf.Tensor  # [n] int32
    offsets: tf.Tensor  # [n] int64
    lengths: tf.Tensor  # [n] int64; of the record in its frame
    contents: tf.Tensor | None  # [n] string; the records, where they are kept in memory

    def read(self, position: tf.Tensor) -> SourceImage:
        """Read the image at a position, in graph operations."""
        if self.contents is not None:
            serialized = self.contents[position]
        else:
            serialized = _read_record(self.shards[self.shard[position]], self.offsets[position], self.lengths[position])
        found = parse_example(serialized)
        starts = packed_starts(found.windows)

        def crop_masks(boxes, chosen, mask_size):
            return sample_packed_masks(
                found.packed, tf.gather(found.windows, chosen), tf.gather(starts, chosen), boxes, found.size, mask_size
            )

        return SourceImage(
            found.image,
            found.image_id,
            found.size,
            found.orientation,
            found.boxes,
            found.classes,
            found.has_mask,
            crop_masks,
        )


def record_tensors(records: Sequence[ScannedRecord], keep_bytes: bool) -> FileTensors | StoredTensors:
    """Lay out records as tensors that a graph can index.

    Args:
      records: at least one; either all in files of their own or all in shards.
      keep_bytes: read every file now and keep its bytes, so that no file is opened again.

    Raises:
      ValueError: no records.
      image_files.BadFile: with `keep_bytes`, a file that can no longer be read.
    """
    if not records:
        raise ValueError("no records: expected at least one image")
    with tf.device("/CPU:0"):  # a graph on the host cannot capture a tensor of an accelerator
        if isinstance(records[0].image, StoredImage):
            return _stored_tensors([record.image for record in records], keep_bytes)
        return _file_tensors(records, keep_bytes)


def _file_tensors(records, keep_bytes):
    instances = [instance for record in records for instance in record.instances]
    masks: list[str] = []
    files: list[int] = []
    for record in records:
        numbers: dict[str, int] = {}
        for instance in record.instances:
            if instance.mask is None:
                files.append(-1)
                continue
            if instance.mask not in numbers:
                numbers[instance.mask] = len(masks)
                masks.append(instance.mask)
            files.append(numbers[instance.mask])
    images = [record.image for record in records]
    if keep_bytes:
        images, masks = _read_all(images, read_file), _read_all(masks, read_file)
    splits = np.cumsum([0] + [len(record.instances) for record in records])
    return FileTensors(
        images=tf.constant(images),
        image_ids=tf.constant([record.image_id for record in records], tf.int64),
        sizes=tf.constant([(record.height, record.width) for record in records], tf.int32),
        orientations=tf.constant([record.orientation for record in records], tf.int32),
        instance_splits=tf.constant(splits, tf.int32),
        boxes=tf.constant(np.array([i.box for i in instances], np.float32).reshape(-1, 4)),
        classes=tf.constant([i.class_id for i in instances], tf.int32),
        files=tf.constant(files, tf.int32),
        values=tf.constant(np.array([i.decoded_value or 0 for i in instances], np.uint16)),
        masks=tf.constant(masks, tf.string),
        in_memory=keep_bytes,
    )


def _stored_tensors(places: list[StoredImage], keep_bytes):
    shards = {shard: number for number, shard in enumerate(dict.fromkeys(place.shard for place in places))}
    return StoredTensors(
        shards=tf.constant(list(shards)),
        shard=tf.constant([shards[place.shard] for place in places], tf.int32),
        offsets=tf.constant([place.offset for place in places], tf.int64),
        lengths=tf.constant([place.length + FRAME_BYTES for place in places], tf.int64),
        contents=tf.constant(_read_all(places, read_serialized)) if keep_bytes else None,
    )


def _read_record(shard: tf.Tensor, offset: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Read one record of a shard, whatever lies before it: the operation of TFRecordDataset can start at a byte.

    The buffer is the record, so that a bucket is asked for these bytes once. The checksums in the frame are compared.
    """
    one = {"output_types": [tf.string], "output_shapes": [[]]}
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=shard[tf.newaxis], compression_type="", buffer_size=length, byte_offsets=offset[tf.newaxis]
    )
    first = tf.raw_ops.TakeDataset(input_dataset=records, count=tf.constant(1, tf.int64), **one)
    return tf.raw_ops.DatasetToSingleElement(dataset=first, **one)[0]


def _read_all(places: list, read: Callable) -> list[bytes]:
    once = list(dict.fromkeys(places))
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        contents = dict(zip(once, pool.map(read, once)))
    return [contents[place] for place in places]
