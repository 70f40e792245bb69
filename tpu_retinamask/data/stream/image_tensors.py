"""Annotated images as tensors that a graph can index: in files of their own, or in a prepared data set."""

import concurrent.futures
import logging
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.images.decode import apply_orientation, decode_image
from tpu_retinamask.data.images.image_files import read_file
from tpu_retinamask.data.images.mask_reader import MaskReader, is_drawn, picture_bytes
from tpu_retinamask.data.images.mask_sampling import sample_masks, sample_packed_masks
from tpu_retinamask.data.images.packed_masks import pack_masks, packed_starts
from tpu_retinamask.data.masks import FileMask, Mask
from tpu_retinamask.data.pixel_reading import ConvertedImage
from tpu_retinamask.data.record_format import (
    FRAME_BYTES,
    HasPlaces,
    StoredImage,
    StoredPlaces,
    parse_example,
    read_serialized,
)
from tpu_retinamask.errors import SettingError

log = logging.getLogger(__name__)


class SourceImage(NamedTuple):
    """One image as it is stored; n instances."""

    contents: tf.Tensor | None  # string scalar; the bytes of the image file, where it is not decoded already
    pixels: tf.Tensor | None  # [h, w, 3] uint8, upright; where it is
    image_id: tf.Tensor  # int64 scalar
    size: tf.Tensor  # [2] int32; height, width
    orientation: tf.Tensor | int  # int32 scalar; EXIF orientation to apply to `contents`
    boxes: tf.Tensor  # [n, 4] float32; pixels of the picture
    classes: tf.Tensor  # [n] int32
    has_mask: tf.Tensor  # [n] bool
    crop_masks: Callable  # (boxes [m, 4], their rows among the instances [m], R) -> uint8 [m, R, R]

    def picture(self) -> tf.Tensor:
        """Return the upright picture, uint8 [h, w, 3]; of another size than was said, it is an error of the graph."""
        if self.pixels is not None:
            return self.pixels
        picture = apply_orientation(decode_image(self.contents), self.orientation)
        told = ["a picture has another height and width than was said of it:", tf.shape(picture)[:2], self.size]
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(tf.shape(picture)[:2] == self.size), told)]):
            return tf.identity(picture)


class Images(Protocol):
    """Images that a graph reads by their position: `FileTensors`, `StoredTensors`, `decoded_cache.DecodedTensors`."""

    def read(self, position: tf.Tensor) -> SourceImage:
        """Read the image at a position (int64), in graph operations."""
        ...


class PackedMasks(NamedTuple):
    """Masks that no file holds, drawn and packed beforehand: those of n images with T instances."""

    packed: tf.Tensor  # uint8; see `packed_masks`
    splits: tf.Tensor  # [n + 1] int64; bytes splits[i]:splits[i + 1] belong to image i
    windows: tf.Tensor  # [T, 4] int32; x, y, width, height of the stored part of each mask; zeros: none


class ConvertedTensors(NamedTuple):
    """Images that the host has converted beforehand: those of E among n."""

    contents: tf.Tensor  # [E] string; PNG
    rows: tf.Tensor  # [n] int32; where the image's is among them; -1: it is read as it is


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
    drawn: PackedMasks | None  # of the instances whose mask no file holds; None where there are none
    in_memory: bool  # `images` and `masks` are bytes
    converted: ConvertedTensors | None = None  # of images that a graph does not read; None where there are none

    def read(self, position: tf.Tensor) -> SourceImage:
        """Read the image at a position, in graph operations."""
        rows = slice(self.instance_splits[position], self.instance_splits[position + 1])
        files, values, size = self.files[rows], self.values[rows], self.sizes[position]
        has_mask = files >= 0

        def crop_files(boxes: tf.Tensor, chosen: tf.Tensor, mask_size: int) -> tf.Tensor:
            return sample_masks(
                lambda file: self._contents(self.masks[file]),
                boxes,
                tf.gather(files, chosen),
                tf.gather(values, chosen),
                mask_size,
            )

        crop_masks = crop_files
        if self.drawn is not None:
            windows = self.drawn.windows[rows]
            packed = self.drawn.packed[self.drawn.splits[position] : self.drawn.splits[position + 1]]
            has_mask |= windows[:, 2] > 0
            crop_drawn = crop_packed(packed, windows, size)

            def crop_masks(boxes: tf.Tensor, chosen: tf.Tensor, mask_size: int) -> tf.Tensor:
                # Of each instance one of both is there, and the other all zeros.
                return tf.maximum(crop_files(boxes, chosen, mask_size), crop_drawn(boxes, chosen, mask_size))

        return SourceImage(
            contents=self._image(position),
            pixels=None,
            image_id=self.image_ids[position],
            size=size,
            orientation=self.orientations[position],
            boxes=self.boxes[rows],
            classes=self.classes[rows],
            has_mask=has_mask,
            crop_masks=crop_masks,
        )

    def _image(self, position: tf.Tensor) -> tf.Tensor:
        if self.converted is None:
            return self._contents(self.images[position])
        contents, rows = self.converted
        row = rows[position]
        return tf.cond(row >= 0, lambda: contents[row], lambda: self._contents(self.images[position]))

    def _contents(self, entry: tf.Tensor) -> tf.Tensor:
        return entry if self.in_memory else tf.io.read_file(entry)


class StoredTensors(NamedTuple):
    """The places of n records in S shards; everything else is read from the record itself."""

    shards: tf.Tensor  # [S] string
    shard: tf.Tensor  # [n] int32
    offsets: tf.Tensor  # [n] int64
    lengths: tf.Tensor  # [n] int64; of the record in its frame
    num_classes: tf.Tensor  # int64 scalar; one more than the highest id among them
    contents: tf.Tensor | None  # [n] string; the records, where they are kept in memory

    def read(self, position: tf.Tensor) -> SourceImage:
        """Read the image at a position, in graph operations."""
        if self.contents is not None:
            serialized = self.contents[position]
        else:
            serialized = _read_record(self.shards[self.shard[position]], self.offsets[position], self.lengths[position])
        found = parse_example(serialized, self.num_classes)
        return SourceImage(
            contents=found.image,
            pixels=None,
            image_id=found.image_id,
            size=found.size,
            orientation=found.orientation,
            boxes=found.boxes,
            classes=found.classes,
            has_mask=found.has_mask,
            crop_masks=crop_packed(found.packed, found.windows, found.size),
        )


def crop_packed(packed: tf.Tensor, windows: tf.Tensor, size: tf.Tensor) -> Callable:
    """Return the `crop_masks` of an image whose masks are packed; see `SourceImage` and `sample_packed_masks`."""
    starts = packed_starts(windows)

    def crop_masks(boxes: tf.Tensor, chosen: tf.Tensor, mask_size: int) -> tf.Tensor:
        return sample_packed_masks(
            packed, tf.gather(windows, chosen), tf.gather(starts, chosen), boxes, size, mask_size
        )

    return crop_masks


def image_tensors(images: Sequence[AnnotatedImage], keep_bytes: bool) -> FileTensors | StoredTensors:
    """Lay out images as tensors that a graph can index.

    Args:
      images: at least one; either all in files of their own or all in shards.
      keep_bytes: read every file now and keep its bytes, so that no file is opened again.

    Raises:
      SettingError: no images, or some in files and some in shards.
      image_files.BadFile: with `keep_bytes`, a file that can no longer be read.
    """
    if not images:
        raise SettingError("no images: expected at least one image")
    with tf.device("/CPU:0"):  # a graph on the host cannot capture a tensor of an accelerator
        if isinstance(images, HasPlaces):
            return _stored_tensors(images.places(), keep_bytes)
        stored = [annotated for annotated in images if isinstance(annotated.image, StoredImage)]
        if 0 < len(stored) < len(images):
            raise SettingError("some images are in a prepared data set and some are not: prepare them together")
        if stored:
            return _stored_tensors(_places(stored), keep_bytes)
        return _file_tensors(images, keep_bytes)


def _file_tensors(images: Sequence[AnnotatedImage], keep_bytes: bool) -> FileTensors:
    instances = [instance for annotated in images for instance in annotated.instances]
    masks: list[str] = []
    files: list[int] = []
    for annotated in images:
        numbers: dict[str, int] = {}
        for instance in annotated.instances:
            if not isinstance(instance.mask, FileMask):
                files.append(-1)
                continue
            path = instance.mask.path
            if path not in numbers:
                numbers[path] = len(masks)
                masks.append(path)
            files.append(numbers[path])
    pictures: list = [annotated.image for annotated in images]
    mask_files: list = masks
    converted = None
    if keep_bytes:
        pictures, mask_files = _read_all(pictures, picture_bytes), _read_all(masks, read_file)
    elif any(isinstance(picture, ConvertedImage) for picture in pictures):
        converted = _converted(pictures)
        pictures = [picture.path if isinstance(picture, ConvertedImage) else picture for picture in pictures]
    splits = np.cumsum([0] + [len(annotated.instances) for annotated in images])
    return FileTensors(
        images=tf.constant(pictures),
        image_ids=tf.constant([annotated.image_id for annotated in images], tf.int64),
        sizes=tf.constant([(annotated.height, annotated.width) for annotated in images], tf.int32),
        orientations=tf.constant([annotated.orientation for annotated in images], tf.int32),
        instance_splits=tf.constant(splits, tf.int32),
        boxes=tf.constant(np.array([i.box for i in instances], np.float32).reshape(-1, 4)),
        classes=tf.constant([i.class_id for i in instances], tf.int32),
        files=tf.constant(files, tf.int32),
        values=tf.constant(np.array([_decoded_value(i.mask) for i in instances], np.uint16)),
        masks=tf.constant(mask_files, tf.string),
        drawn=_drawn_masks(images) if any(is_drawn(i.mask) for i in instances) else None,
        in_memory=keep_bytes,
        converted=converted,
    )


def _converted(pictures: list) -> ConvertedTensors:
    chosen = [picture for picture in pictures if isinstance(picture, ConvertedImage)]
    contents = _read_all(chosen, picture_bytes)
    log.info(
        "%d pictures that a graph does not read (WebP, TIFF, chosen values of 16 bits) are kept in memory as PNG, %.1f "
        "MB; `prepare` writes them once and for all",
        len(chosen),
        sum(map(len, contents)) / 1e6,
    )
    numbers = iter(range(len(chosen)))
    rows = [next(numbers) if isinstance(picture, ConvertedImage) else -1 for picture in pictures]
    return ConvertedTensors(tf.constant(contents), tf.constant(rows, tf.int32))


def _decoded_value(mask: Mask | None) -> int:
    return (mask.decoded_value or 0) if isinstance(mask, FileMask) else 0


def _drawn_masks(images: Sequence[AnnotatedImage]) -> PackedMasks:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        windows, packed = zip(*pool.map(lambda annotated: pack_image(annotated, drawn_alone=True), images))
    return PackedMasks(
        packed=tf.constant(np.concatenate(packed)),
        splits=tf.constant(np.cumsum([0] + [len(part) for part in packed]), tf.int64),
        windows=tf.constant(np.concatenate(windows)),
    )


def pack_image(annotated: AnnotatedImage, *, drawn_alone: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Pack the masks of an image: (windows int32 [n, 4], uint8 bytes); see `packed_masks.pack_masks`.

    Args:
      annotated: with n instances.
      drawn_alone: only masks that no file holds.
    """
    reader = MaskReader()
    windows, blob = pack_masks(
        [
            None
            if instance.mask is None or (drawn_alone and not is_drawn(instance.mask))
            else reader.read(instance, annotated.height, annotated.width)
            for instance in annotated.instances
        ]
    )
    return windows, np.frombuffer(zlib.decompress(blob), np.uint8)


def _stored_tensors(places: StoredPlaces, keep_bytes: bool) -> StoredTensors:
    contents = None
    if keep_bytes:
        rows = zip(places.shard.tolist(), places.offset.tolist(), places.length.tolist())
        one_by_one = [StoredImage(places.shards[shard], offset, length) for shard, offset, length in rows]
        contents = tf.constant(_read_all(one_by_one, read_serialized))
    return StoredTensors(
        shards=tf.constant(places.shards),
        shard=tf.constant(places.shard, tf.int32),
        offsets=tf.constant(places.offset, tf.int64),
        lengths=tf.constant(places.length + FRAME_BYTES, tf.int64),
        num_classes=tf.constant(places.num_classes, tf.int64),
        contents=contents,
    )


def _places(images: list[AnnotatedImage]) -> StoredPlaces:
    found = [annotated.image for annotated in images if isinstance(annotated.image, StoredImage)]
    shards = {shard: number for number, shard in enumerate(dict.fromkeys(place.shard for place in found))}
    return StoredPlaces(
        list(shards),
        np.array([shards[place.shard] for place in found], np.int32),
        np.array([place.offset for place in found], np.int64),
        np.array([place.length for place in found], np.int64),
        1 + max((instance.class_id for annotated in images for instance in annotated.instances), default=-1),
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
