"""Decoded pictures and packed masks of all images in host memory, where they fit: no file is decoded twice."""

import concurrent.futures
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tpu_retinamask.batch_errors import BatchError, each_batch
from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.image_arrays import image_arrays
from tpu_retinamask.data.stream.image_tensors import Images, SourceImage, crop_packed, pack_image

log = logging.getLogger(__name__)

USABLE_SHARE = 0.8  # of the memory that is free now; the rest is for batches and the model
_ALIGNMENT = 64  # bytes; TensorFlow reads no other memory in place


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

    def read(self, position: tf.Tensor) -> SourceImage:
        """Read the image at a position, in graph operations."""
        rows = slice(self.instance_splits[position], self.instance_splits[position + 1])
        size, windows = self.sizes[position], self.windows[rows]
        pixels = self.pixels[self.pixel_splits[position] : self.pixel_splits[position + 1]]
        packed = self.packed[self.packed_splits[position] : self.packed_splits[position + 1]]
        return SourceImage(
            contents=None,
            pixels=tf.reshape(pixels, tf.concat([size, [3]], axis=0)),
            image_id=self.image_ids[position],
            size=size,
            orientation=1,
            boxes=self.boxes[rows],
            classes=self.classes[rows],
            has_mask=self.has_mask[rows],
            crop_masks=crop_packed(packed, windows, size),
        )


def decoded_bytes(images: Sequence[AnnotatedImage]) -> int:
    """Estimate the memory of the decoded images: their pixels exactly, their masks as full boxes of bits."""
    arrays = image_arrays(images)
    widths, heights = arrays.boxes[:, 2] - arrays.boxes[:, 0] + 1, arrays.boxes[:, 3] - arrays.boxes[:, 1] + 1
    return int(3 * np.prod(arrays.sizes, axis=1, dtype=np.int64).sum() + (widths * heights / 8 + 1).sum())


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


def decoded_tensors(images: Sequence[AnnotatedImage], source: Images, threads: int = 8) -> DecodedTensors:
    """Decode every image and pack every mask.

    Args:
      images: what `source` was made of.
      source: reads their files.
      threads: masks read at a time.
    """
    count = len(images)
    pixel_splits = np.cumsum([0] + [3 * annotated.height * annotated.width for annotated in images])
    pixels = _aligned(pixel_splits[-1])

    @tf.autograph.experimental.do_not_convert
    def decode(position):
        return _without_masks(source.read(position))

    decoded = tf.data.Dataset.range(count).map(decode, tf.data.AUTOTUNE, deterministic=True)
    found = []
    for number, (picture, *fields) in enumerate(each_batch(decoded.as_numpy_iterator())):
        annotated = images[number]
        if picture.shape[:2] != (annotated.height, annotated.width) or len(fields[1]) != len(annotated.instances):
            raise BatchError(f"{annotated.name} does not hold what was said of it: other objects, or another size")
        pixels[pixel_splits[number] : pixel_splits[number + 1]] = picture.reshape(-1)
        found.append(fields)
    image_ids, boxes, classes, has_mask = zip(*found)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        windows, packed = zip(*pool.map(pack_image, images))
    with tf.device("/CPU:0"):
        return DecodedTensors(
            pixels=_in_place(pixels),
            pixel_splits=tf.constant(pixel_splits, tf.int64),
            packed=tf.constant(np.concatenate(packed)),
            packed_splits=tf.constant(np.cumsum([0] + [len(part) for part in packed]), tf.int64),
            sizes=tf.constant([(annotated.height, annotated.width) for annotated in images], tf.int32),
            image_ids=tf.constant(image_ids, tf.int64),
            instance_splits=tf.constant(np.cumsum([0] + [len(rows) for rows in classes]), tf.int32),
            boxes=tf.constant(np.concatenate(boxes)),
            classes=tf.constant(np.concatenate(classes)),
            has_mask=tf.constant(np.concatenate(has_mask)),
            windows=tf.constant(np.concatenate(windows)),
        )


def _without_masks(image: SourceImage) -> tuple:
    return image.picture(), image.image_id, image.boxes, image.classes, image.has_mask


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
