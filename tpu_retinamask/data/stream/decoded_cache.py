"""Decoded pictures and packed masks of all images in host memory, where they fit: no file is decoded twice."""

import concurrent.futures
import logging
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.annotations.scan import ScannedRecord
from tpu_retinamask.data.images.mask_reader import MaskReader
from tpu_retinamask.data.images.mask_sampling import sample_packed_masks
from tpu_retinamask.data.images.packed_masks import pack_masks, packed_starts
from tpu_retinamask.data.stream.stored_tensors import FileTensors, StoredTensors

log = logging.getLogger(__name__)

USABLE_SHARE = 0.8  # of the memory that is free now; the rest is for batches and the model
_ALIGNMENT = 64  # bytes; TensorFlow reads no other memory in place


class DecodedImage(NamedTuple):
    """One image of the cache, read; the fields of `record_tensors.SourceImage` but for the file."""

    pixels: tf.Tensor  # [h, w, 3] uint8, upright
    image_id: tf.Tensor  # int64 scalar
    size: tf.Tensor  # [2] int32; height, width
    boxes: tf.Tensor  # [n, 4] float32; pixels of the picture
    classes: tf.Tensor  # [n] int32
    has_mask: tf.Tensor  # [n] bool
    crop_masks: Callable  # (boxes [m, 4], their rows among the instances [m], R) -> uint8 [m, R, R]

    def picture(self) -> tf.Tensor:
        """Return the upright pixels, uint8 [h, w, 3]."""
        return self.pixels


class DecodedTensors(NamedTuple):
    """All images, each flat; `*_splits[i]:*_splits[i + 1]` belong to image i of n; T instances."""

    pixels: tf.Tensor  # uint8
    pixel_splits: tf.Tensor  # [n + 1] int64
    packed: tf.Tensor  # uint8; the masks, a bit a pixel
    packed_splits: tf.Tensor  # [n + 1] int64
    sizes: tf.Tensor  # [n, 2] int32
    image_ids: tf.Tensor  # [n] int64
    instance_splits: tf.Tensor  # [n + 1] int32
    boxes: tf.Tensor  # [T, 4] float32
    classes: tf.Tensor  # [T] int32
    has_mask: tf.Tensor  # [T] bool
    windows: tf.Tensor  # [T, 4] int32; x, y, width, height of the stored part of each mask

    def read(self, position: tf.Tensor) -> DecodedImage:
        """Read the image at a position, in graph operations."""
        rows = slice(self.instance_splits[position], self.instance_splits[position + 1])
        size, windows = self.sizes[position], self.windows[rows]
        pixels = self.pixels[self.pixel_splits[position] : self.pixel_splits[position + 1]]
        packed = self.packed[self.packed_splits[position] : self.packed_splits[position + 1]]
        starts = packed_starts(windows)

        def crop_masks(boxes, chosen, mask_size):
            return sample_packed_masks(
                packed, tf.gather(windows, chosen), tf.gather(starts, chosen), boxes, size, mask_size
            )

        return DecodedImage(
            tf.reshape(pixels, tf.concat([size, [3]], axis=0)),
            self.image_ids[position],
            size,
            self.boxes[rows],
            self.classes[rows],
            self.has_mask[rows],
            crop_masks,
        )


def decoded_bytes(records: Sequence[ScannedRecord]) -> int:
    """Estimate the memory of the decoded images: their pixels exactly, their masks as full boxes of bits."""
    pixels = sum(3 * record.height * record.width for record in records)
    masks = sum(
        (box[2] - box[0] + 1) * (box[3] - box[1] + 1) / 8 + 1
        for record in records
        for box in (instance.box for instance in record.instances)
    )
    return int(pixels + masks)


def fits_in_memory(needed: int, what: str, available: int | None = None) -> bool:
    """Tell whether so many bytes fit into the memory that is free, and log the figures.

    Args:
      needed: bytes.
      what: what they are for.
      available: bytes that are free; None: asked of the system.
    """
    available = available_memory() if available is None else available
    fits = needed <= available * USABLE_SHARE
    (log.info if fits else log.warning)(
        "%s: %.2f GB, %.2f GB of memory are free%s",
        what,
        needed / 1e9,
        available / 1e9,
        ""
        if fits
        else f", of which at most {USABLE_SHARE:.0%} is used. Files are read again and again instead; set "
        "InputPipeline.cache to 'files' to keep their compressed bytes, or to False, to have it so without this line",
    )
    return fits


def available_memory() -> int:
    """Return the bytes of memory that are free: to the machine, and to the container where one sets a limit."""
    lines = _read("/proc/meminfo").splitlines()
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        limit, used = _read(limit), _read(used)
        if limit and used and limit.strip().isdigit():
            free.append(int(limit) - int(used))
    return min(free) if free else 0


def decoded_tensors(
    records: Sequence[ScannedRecord], source: FileTensors | StoredTensors, threads: int = 8
) -> DecodedTensors:
    """Decode every image and pack every mask.

    Args:
      records: what `source` was made of.
      source: reads their files.
      threads: masks read at a time.
    """
    count = len(records)
    pixel_splits = np.cumsum([0] + [3 * record.height * record.width for record in records])
    pixels = _aligned(pixel_splits[-1])
    decoded = tf.data.Dataset.range(count).map(
        lambda position: _without_masks(source.read(position)), tf.data.AUTOTUNE, deterministic=True
    )
    found = []
    for number, (picture, *fields) in enumerate(decoded.as_numpy_iterator()):
        pixels[pixel_splits[number] : pixel_splits[number + 1]] = picture.reshape(-1)
        found.append(fields)
    image_ids, boxes, classes, has_mask = zip(*found)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        windows, packed = zip(*pool.map(_pack, records))
    with tf.device("/CPU:0"):
        return DecodedTensors(
            pixels=_in_place(pixels),
            pixel_splits=tf.constant(pixel_splits, tf.int64),
            packed=tf.constant(np.concatenate(packed)),
            packed_splits=tf.constant(np.cumsum([0] + [len(part) for part in packed]), tf.int64),
            sizes=tf.constant([(record.height, record.width) for record in records], tf.int32),
            image_ids=tf.constant(image_ids, tf.int64),
            instance_splits=tf.constant(np.cumsum([0] + [len(rows) for rows in classes]), tf.int32),
            boxes=tf.constant(np.concatenate(boxes)),
            classes=tf.constant(np.concatenate(classes)),
            has_mask=tf.constant(np.concatenate(has_mask)),
            windows=tf.constant(np.concatenate(windows)),
        )


def _without_masks(image):
    return image.picture(), image.image_id, image.boxes, image.classes, image.has_mask


def _pack(record):
    reader = MaskReader()
    windows, blob = pack_masks(
        [
            None if instance.mask is None else reader.read(instance, record.height, record.width)
            for instance in record.instances
        ]
    )
    return windows, np.frombuffer(zlib.decompress(blob), np.uint8)


def _aligned(size: int) -> np.ndarray:
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size]


def _in_place(array: np.ndarray) -> tf.Tensor:
    """Return the array as a tensor; a copy would take the memory twice."""
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
