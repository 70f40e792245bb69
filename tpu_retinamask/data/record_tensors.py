"""Scanned records as flat tensors that a tf.data graph can index."""

import concurrent.futures
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.image_files import read_file
from tpu_retinamask.data.scan import ScannedRecord


class RecordTensors(NamedTuple):
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


def record_tensors(records: Sequence[ScannedRecord], keep_bytes: bool) -> RecordTensors:
    """Flatten records into tensors.

    Args:
      records: at least one.
      keep_bytes: read every file now and keep its bytes, so that no file is opened again.

    Raises:
      ValueError: no records.
      image_files.BadFile: with `keep_bytes`, a file that can no longer be read.
    """
    if not records:
        raise ValueError("no records: expected at least one image")
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
        images, masks = _read_all(images), _read_all(masks)
    splits = np.cumsum([0] + [len(record.instances) for record in records])
    with tf.device("/CPU:0"):  # a graph on the host cannot capture a tensor of an accelerator
        return RecordTensors(
            images=tf.constant(images),
            image_ids=tf.constant([record.image_id for record in records], tf.int64),
            sizes=tf.constant([(record.height, record.width) for record in records], tf.int32),
            orientations=tf.constant([record.orientation for record in records], tf.int32),
            instance_splits=tf.constant(splits, tf.int32),
            boxes=tf.constant(np.array([i.box for i in instances], np.float32).reshape(-1, 4)),
            classes=tf.constant([i.class_id for i in instances], tf.int32),
            files=tf.constant(files, tf.int32),
            values=tf.constant(np.array([i.decoded_value or 0 for i in instances], np.uint16)),
            masks=tf.constant(masks, tf.string))


def _read_all(paths: list[str]) -> list[bytes]:
    once = list(dict.fromkeys(paths))
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        contents = dict(zip(once, pool.map(read_file, once)))
    return [contents[path] for path in paths]
