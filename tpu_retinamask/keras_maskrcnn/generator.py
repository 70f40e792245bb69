"""The CSVGenerator of keras-maskrcnn: images and the three tensors of targets, as its users know them.

Training here uses `data.stream.pipeline`, which sends a few kilobytes of boxes to the device. This generator makes the
original's targets on the host, full-size masks and all: for code that reads them, and to compare numbers.
"""

import dataclasses
import io
import itertools
import logging
import random
import threading
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import PIL.Image
import tensorflow as tf

from tpu_retinamask.data.annotated_image import ListedImage
from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.data.augment.transform import apply_transform
from tpu_retinamask.data.images.decode import decode_image
from tpu_retinamask.data.images.mask_reader import MaskReader, picture_bytes
from tpu_retinamask.errors import SettingError
from tpu_retinamask.keras_maskrcnn.affine import centre_transform, transform_boxes, warp_affine
from tpu_retinamask.keras_maskrcnn.anchor_config import read_anchor_config
from tpu_retinamask.keras_maskrcnn.image_resize import resize_image, resize_scale
from tpu_retinamask.keras_maskrcnn.targets import anchor_targets
from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.ops.images import MODES, normalize_images

log = logging.getLogger(__name__)

GROUP_METHODS = ("none", "random", "ratio")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorSettings:
    """What CSVGenerator of keras-maskrcnn is told by keyword.

    Attributes:
      batch_size: B; the last group begins again with the first images.
      image_min_side: wanted short side of the resized images.
      image_max_side: limit of their long side.
      group_method: batches in the order of the file ("none"), of chance ("random") or of width / height
        ("ratio").
      shuffle_groups: shuffle the order of the batches, now and after every epoch.
      transform: called with image (uint8 RGB), masks, labels, bboxes of each sample before anything else; see
        `data.augment.transform`.
      transform_generator: gives one [3, 3] matrix a sample, about the image's centre, its shift in units of
        the image's sides; moves the normalised image, masks and boxes before the resize, border repeated.
      pixel_mode: "caffe", "tf" or "torch"; see `ops.images`.
      config: anchors, as an AnchorGrid or as the path of an `.ini` file with `[anchor_parameters]` and
        `[pyramid_levels]`; None: the defaults.
      seed: of the order; None: another one each time.
      tuple_targets: give the three tensors as a tuple: `keras.Model.fit` of Keras 3 refuses a list inside a
        batch, code written for the original expects one.

    Raises:
      SettingError: an unknown group_method or pixel_mode, a size below 1.
    """

    batch_size: int = 1
    image_min_side: int = 800
    image_max_side: int = 1333
    group_method: str = "ratio"
    shuffle_groups: bool = True
    transform: Callable | None = None
    transform_generator: Iterable | None = None
    pixel_mode: str = "caffe"
    config: str | AnchorGrid | None = None
    seed: int | None = None
    tuple_targets: bool = False

    def __post_init__(self) -> None:
        for name, known in (("group_method", GROUP_METHODS), ("pixel_mode", MODES)):
            if getattr(self, name) not in known:
                raise SettingError(f"{name} is {getattr(self, name)!r}, expected one of {known}")
        if min(self.batch_size, self.image_min_side, self.image_max_side) < 1:
            raise SettingError(
                f"batch_size {self.batch_size}, image_min_side {self.image_min_side} and image_max_side "
                f"{self.image_max_side} must be at least 1"
            )


class CSVGenerator(keras.utils.PyDataset):
    """Batches of a CSV data set in the form of keras-maskrcnn.

    `generator[i]` is `(images, [regression, classification, masks])`, all float32, with B images, a canvas of
    H x W that is the largest resized image of the batch (top left, zeros right and below), N anchors of that
    canvas, C classes and A the largest number of boxes of an image of the batch (0 where none has any):

    - images [B, H, W, 3]: normalised; "caffe" is BGR.
    - regression [B, N, 4 + 1]: offsets of every anchor against its best box, and the anchor's state.
    - classification [B, N, C + 1]: one-hot of positive anchors, and the state: 1 positive, 0 negative, -1 ignored.
    - masks [B, A, 4 + 1 + 2 + H * W]: box, class, W, H, the mask at full size, row by row; box, class and mask of
      rows of padding are 0, and so are those of an image without boxes. In batches of mixed widths the original
      flattens a mask at its own image's width, which scrambles it; here every row is a row of the canvas.
    """

    def __init__(
        self, annotations: str, classes: str, settings: "GeneratorSettings | None" = None, **options: Any
    ) -> None:
        """Read the annotations; images and masks are opened batch by batch.

        Args:
          annotations: CSV of `image,x1,y1,x2,y2,class,mask` rows.
          classes: CSV of `name,id` rows.
          settings: None: the original's.
          **options: single settings by name, as the original takes them, and `workers`, `use_multiprocessing`,
            `max_queue_size` of keras.utils.PyDataset.

        Raises:
          SettingError: see GeneratorSettings.
          AnnotationError: bad lines, or a box without a mask, which these tensors cannot express.
        """
        names = {field.name for field in dataclasses.fields(GeneratorSettings)}
        changes = {name: options.pop(name) for name in names & set(options)}
        super().__init__(**options)
        settings = dataclasses.replace(settings or GeneratorSettings(), **changes)
        self.classes = read_classes(classes)
        self.records = read_annotations(annotations, self.classes)
        _require_masks(annotations, self.records)
        self.batch_size, self.shuffle_groups = settings.batch_size, settings.shuffle_groups
        self.tuple_targets = settings.tuple_targets
        self.image_min_side, self.image_max_side = settings.image_min_side, settings.image_max_side
        self.transform, self.pixel_mode = settings.transform, settings.pixel_mode
        moves, config = settings.transform_generator, settings.config
        self.transform_generator = None if moves is None else iter(moves)
        self.anchor_grid = read_anchor_config(config) if isinstance(config, str) else config or AnchorGrid()
        self.outside_lines: set[int] = set()  # lines of boxes left out because they leave their image
        self.dropped_by_transform = 0
        self._random = random.Random(settings.seed)
        self._lock = threading.Lock()  # Keras may ask for batches from several threads
        self.groups = self._group(settings.group_method)
        self.on_epoch_end()

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return len(self.groups)

    def __getitem__(self, index: int) -> tuple:
        """Return batch `index`; see the class."""
        samples = [self._sample(self.records[row]) for row in self.groups[index]]
        height, width = (max(sample[0].shape[axis] for sample in samples) for axis in (0, 1))
        rows = max(len(sample[1]) for sample in samples)
        images = np.zeros((len(samples), height, width, 3), np.float32)
        boxes, labels = np.zeros((len(samples), rows, 4)), np.full((len(samples), rows), -1)
        masks = np.zeros((len(samples), rows, 7 + height * width), np.float32)
        masks[:, :, 5:7] = width, height
        for i, (image, own_boxes, own_labels, own_masks) in enumerate(samples):
            images[i, : image.shape[0], : image.shape[1]] = image
            count = len(own_boxes)
            boxes[i, :count], labels[i, :count] = own_boxes, own_labels
            masks[i, :count, :4], masks[i, :count, 4] = own_boxes, own_labels
            canvas = masks[i, :, 7:].reshape(rows, height, width)  # a view: full-size masks are not copied
            for row, mask in enumerate(own_masks):
                canvas[row, : image.shape[0], : image.shape[1]] = mask
        content = np.array([sample[0].shape[:2] for sample in samples], np.float64)
        anchors = np.concatenate(self.anchor_grid.anchors_float64((height, width)))
        regression, classification = anchor_targets(anchors, boxes, labels, content, self.num_classes())
        targets = [regression.numpy(), classification.numpy(), masks]
        return images, tuple(targets) if self.tuple_targets else targets

    def on_epoch_end(self) -> None:
        """Shuffle the order of the batches, if asked to."""
        if self.shuffle_groups:
            self._random.shuffle(self.groups)

    def size(self) -> int:
        """Return the number of images."""
        return len(self.records)

    def num_classes(self) -> int:
        """Return C: the highest class id plus one."""
        return self.classes.num_classes

    def name_to_label(self, name: str) -> int:
        """Return the id of a class.

        Raises:
          KeyError: no such class.
        """
        return self.classes.ids[name]

    def label_to_name(self, label: int) -> str:
        """Return the name of a class.

        Raises:
          IndexError: no such id.
        """
        return self.classes.name_of(label)

    def image_aspect_ratio(self, index: int) -> float:
        """Return width / height of image `index`, from the head of its file."""
        with PIL.Image.open(io.BytesIO(picture_bytes(self.records[index].image))) as picture:
            return picture.width / picture.height

    def _group(self, method: str) -> list[list[int]]:
        order = list(range(len(self.records)))
        if method == "random":
            self._random.shuffle(order)
        elif method == "ratio":
            order.sort(key=self.image_aspect_ratio)
        endless = itertools.cycle(order)
        return [list(itertools.islice(endless, self.batch_size)) for _ in range(-(-len(order) // self.batch_size))]

    def _sample(self, record: ListedImage):
        """Return image [h, w, 3] float32, boxes [n, 4] float64, labels [n], masks n of [h, w] uint8, resized."""
        image = decode_image(tf.constant(picture_bytes(record.image))).numpy()
        height, width = image.shape[:2]
        reader = MaskReader()
        instances = self._inside(record, height, width)
        boxes = np.array([instance.box for instance in instances], np.float64).reshape(-1, 4)
        labels = np.array([instance.class_id for instance in instances], np.int64)
        masks = np.zeros((len(instances), height, width), np.uint8)
        for row, instance in enumerate(instances):
            masks[row] = reader.read(instance, height, width)
        if self.transform is not None:
            sample = apply_transform(self.transform, image, masks, labels, boxes, name=record.name)
            image, masks, labels, boxes = sample.image, sample.masks, sample.labels, sample.bboxes
            with self._lock:
                self.dropped_by_transform += sample.dropped
        image = normalize_images(image[None], None, self.pixel_mode).numpy()[0]
        if self.transform_generator is not None:
            image, masks, boxes = self._move(image, masks, boxes)
        scale = resize_scale(*image.shape[:2], self.image_min_side, self.image_max_side)
        return resize_image(image, scale), boxes * scale, labels, [resize_image(mask, scale) for mask in masks]

    def _inside(self, record: ListedImage, height: int, width: int):
        kept = []
        for instance in record.instances:
            x1, y1, x2, y2 = instance.box
            if min(x1, y1) >= 0 and x2 <= width and y2 <= height:
                kept.append(instance)
                continue
            with self._lock:
                is_new = instance.line not in self.outside_lines
                self.outside_lines.add(instance.line)
            if is_new:
                log.warning(
                    "line %d, %s: left out, because the box %g,%g,%g,%g leaves the image of %d x %d pixels "
                    "(width x height)",
                    instance.line,
                    record.name,
                    x1,
                    y1,
                    x2,
                    y2,
                    width,
                    height,
                )
        return kept

    def _move(self, image, masks, boxes):
        assert self.transform_generator is not None  # asked before
        with self._lock:
            matrix = next(self.transform_generator)
        matrix = centre_transform(matrix, *image.shape[:2])
        moved = np.array([warp_affine(mask, matrix) for mask in masks], np.uint8).reshape(masks.shape)
        return warp_affine(image, matrix), moved, transform_boxes(boxes, matrix)


def _require_masks(path, records):
    missing = [
        f"line {instance.line}, {record.name}: a box without a mask"
        for record in records
        for instance in record.instances
        if instance.mask is None
    ]
    if missing:
        raise AnnotationError(
            f"{path}: {len(missing)} boxes without a mask, which the tensors of CSVGenerator cannot "
            "tell from an empty mask; data.pipeline.InputPipeline trains them as boxes",
            missing,
        )
