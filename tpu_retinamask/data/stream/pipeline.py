"""Scanned images in, batches of static shape out: a tf.data graph of native operations only."""

import dataclasses
import logging
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.augment.affine import centre_matrix, enclosing_boxes, moved_boxes, render_moved, resample_masks
from tpu_retinamask.data.augment.augmentation import Augmentation, draw
from tpu_retinamask.data.augment.canvas import canvases_of, fullest
from tpu_retinamask.data.augment.geometry import clip_to_view, fit_scale, place, render
from tpu_retinamask.data.image_arrays import image_arrays
from tpu_retinamask.data.stream.decoded_cache import decoded_bytes, decoded_tensors, fits_in_memory
from tpu_retinamask.data.stream.image_tensors import image_tensors
from tpu_retinamask.data.stream.sample import change, choose, pad, padding_sample
from tpu_retinamask.data.stream.sample_order import SampleOrder, repeat_factors, sample_numbers, sample_order
from tpu_retinamask.data.stream.service import serve_batches
from tpu_retinamask.data.subset import Subset
from tpu_retinamask.errors import SettingError
from tpu_retinamask.ops.select import select
from tpu_retinamask.setting_types import LARGEST_SEED, check_between, check_least, check_types, named
from tpu_retinamask.structures import Batch, FittedPicture

log = logging.getLogger(__name__)

_as_it_is = tf.autograph.experimental.do_not_convert  # graph operations already; to convert them takes seconds
MOVED_MASK_OVERSAMPLING = 2  # cells along a mask that is to be turned, per cell of what becomes of it
CACHES = ("files", "decoded", False, True)
MIN_SIDE_DRAW = 1  # tells the seed of the drawn short side from those of the other changes


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputPipeline:
    """How images and annotations become batches.

    Attributes:
      image_size: (H, W) of the canvas that every picture is fitted into; several: each batch has one of them, that
        which its pictures leave the least of empty (`data.stream.canvases`).
      min_side: wanted short side of the picture; None: as large as the canvas allows; several: one of them is drawn
        for each training sample.
      eval_min_side: the same in evaluation; None: `min_side`, and of several the middle one.
      max_side: limit of its long side; None: the canvas alone limits it.
      antialias: average what each pixel of a shrunk picture covers; False: bilinear alone (OpenCV).
      max_instances: M, rows of ground truth an image.
      mask_size: R, side of a cropped ground-truth mask.
      augmentation: random changes in training; None: none.
      repeat_rare: images of classes that fewer than this share of the images hold are shown more often, by
        sqrt(repeat_rare / share of the class); 0.001 for LVIS. None: each image once an epoch.
      seed: of the order of the images and of every random change.
      cache: what is kept in host memory: 'files', the bytes of all files (True means the same); 'decoded', in training
        their pixels and masks, or nothing where they do not fit, which a warning tells; False: nothing.
      num_parallel_calls: samples prepared at a time.
      prefetch: batches prepared ahead.

    Raises:
      SettingError: a size that is not positive; a Python function as augmentation, which no graph can hold.
    """

    image_size: tuple[int, int] | tuple[tuple[int, int], ...] = (640, 640)
    min_side: int | tuple[int, ...] | None = None
    eval_min_side: int | None = None
    max_side: int | None = None
    antialias: bool = True
    max_instances: int = 100
    mask_size: int = 112
    augmentation: Augmentation | None = Augmentation()
    repeat_rare: float | None = None
    seed: int = 0
    cache: bool | str = False
    num_parallel_calls: int = tf.data.AUTOTUNE
    prefetch: int = tf.data.AUTOTUNE

    def __post_init__(self) -> None:
        if not isinstance(self.augmentation, Augmentation | None):
            raise SettingError(
                f"augmentation is {self.augmentation!r}, expected an Augmentation or None: the pipeline is a tf.data "
                "graph, which a Python transform cannot enter. Give it to train.transform, or to "
                "data.stream.host_batches.HostBatches, which runs on the host"
            )
        check_types(self)
        if not self.image_size or len(set(self.canvases)) < len(self.canvases):
            raise SettingError(f"image_size is {self.image_size!r}, expected (height, width), or several, each once")
        sizes = named(self, "min_side", "eval_min_side", "max_side", "max_instances", "mask_size")
        sides = tuple(side for canvas in self.canvases for side in canvas)
        check_least({"image_size": sides, **sizes}, 1, expected="positive numbers")
        if self.num_parallel_calls != tf.data.AUTOTUNE:
            check_least(named(self, "num_parallel_calls"), 1, expected="1 or more, or -1 for as many as fit")
        check_least(named(self, "prefetch"), tf.data.AUTOTUNE)
        check_between(named(self, "seed"), 0, LARGEST_SEED)
        if self.repeat_rare is not None and not 0 < self.repeat_rare <= 1:
            raise SettingError(f"repeat_rare is {self.repeat_rare}, expected a share of the images above 0, up to 1")
        if self.cache not in CACHES:
            raise SettingError(f"cache is {self.cache!r}, expected 'files', 'decoded' or False")
        if isinstance(self.min_side, Sequence) and not self.min_side:
            raise SettingError("min_side is empty, expected a side, several, or None")
        largest = max(min(canvas) for canvas in self.canvases)
        unreachable = [side for side in self._min_sides() if side > largest]
        if unreachable and len(self._min_sides()) > 1:
            log.warning(
                "no picture reaches the short sides %s of InputPipeline.min_side on InputPipeline.image_size = %s: "
                "raise that",
                unreachable,
                self.image_size,
            )

    @property
    def canvases(self) -> tuple[tuple[int, int], ...]:
        """Return (H, W) of each canvas."""
        return canvases_of(self.image_size)

    @property
    def largest_canvas(self) -> tuple[int, int]:
        """Return (H, W) of the canvas with the most pixels."""
        return max(self.canvases, key=lambda canvas: canvas[0] * canvas[1])

    @property
    def largest(self) -> "InputPipeline":
        """Return the pipeline of the canvas with the most pixels alone."""
        return self.on(self.largest_canvas)

    @property
    def enclosing(self) -> "InputPipeline":
        """Return the pipeline of one canvas that holds each of them: for what can have one alone."""
        heights, widths = zip(*self.canvases)
        return self.on((max(heights), max(widths)))

    def on(self, canvas: tuple[int, int]) -> "InputPipeline":
        """Return the pipeline of one canvas."""
        return self if self.image_size == canvas else dataclasses.replace(self, image_size=canvas)

    def of_size(self, height: int, width: int) -> "InputPipeline":
        """Return the pipeline of the canvas that a picture of this size goes to, unchanged by chance."""
        return self.on(self.canvases[int(self.canvas_of(np.array([[height, width]]))[0])])

    def of_each_side(self) -> list["InputPipeline"]:
        """Return a pipeline for each side of `min_side`, which evaluation has too."""
        sides = self._min_sides() or (None,)
        return [dataclasses.replace(self, min_side=side, eval_min_side=None) for side in sides]

    def canvas_of(self, sizes: np.ndarray) -> np.ndarray:
        """Return the number of the canvas of each picture, [n] of sizes [n, 2]; see `fullest`."""
        scales = np.stack([self.scales_on(sizes, np.array(canvas)) for canvas in self.canvases], 1)  # [n, canvases]
        return fullest(sizes, scales, self.canvases)

    def scales_on(self, sizes: np.ndarray, canvases: np.ndarray) -> np.ndarray:
        """Return the scale of each picture, unchanged by chance, on a canvas.

        Args:
          sizes: [n, 2], heights and widths.
          canvases: [2] or [n, 2], likewise.

        Returns:
          [n] float32.
        """
        side = self.draw_min_side(None)
        return fit_scale(tf.constant(sizes), tf.constant(canvases), side, self.max_side).numpy()

    def train_dataset(
        self,
        images: Sequence[AnnotatedImage],
        batch_size: int,
        start_step: int = 0,
        *,
        replicas: int = 1,
        shard: tuple[int, int] = (0, 1),
        data_service: str | None = None,
        start_image: int | None = None,
    ) -> tf.data.Dataset:
        """Yield endless full batches, one a replica.

        Sample number i of the run is a function of (seed, i) alone: each epoch visits every image once
        (with `repeat_rare`, some more often) in an order of its own, and a run resumed at step k gets the batches that
        it would have got.
        Step k shows the samples k * B to (k + 1) * B - 1, however many replicas and hosts share them.

        Args:
          images: what `scan.scan_images` kept; on every host the same.
          batch_size: B, images of the global batch: of all replicas on all hosts.
          start_step: global batches to leave out at the start.
          replicas: all replicas, of which each gets the next B / replicas samples of a global batch.
          shard: (number of this host, number of hosts); a host yields the batches of its own replicas alone,
            which are neighbours: host 0 serves the first.
          data_service: grpc://host:port of a dispatcher whose workers prepare the batches, the very same in the same
            order; see `service`. Nothing is cached then. None: this process prepares them.
          start_image: number of the first sample of `start_step`, where batches were of another size before; None: that
            of the rule above.

        Returns:
          Dataset of `structures.Batch` of B / replicas images, replica after replica, step after step. More than M
          visible instances: M of them at random are kept.

        Raises:
          UserError: hosts, replicas and images that cannot be shared equally, or a data service that does not answer.
        """
        if data_service and self.cache:
            log.info("InputPipeline.cache is passed over: workers of a data service read the files themselves")
        tensors = image_tensors(images, False) if data_service else self._source(images)
        order = self.order_of(images)

        @_as_it_is
        def sample(number):
            return self._sample(tensors, *order.position(number, self.seed))

        numbers = sample_numbers(batch_size, start_step, replicas, shard, start_image)
        share = batch_size // replicas
        if data_service:
            return serve_batches(
                numbers,
                lambda own: self._batches(
                    own.map(_as_it_is(lambda n: (n, sample(n))), self.num_parallel_calls, deterministic=True), share
                ),
                share,
                data_service,
            )
        return self._batches(numbers.map(sample, self.num_parallel_calls, deterministic=True), share)

    def eval_dataset(self, images: Sequence[AnnotatedImage], batch_size: int) -> tf.data.Dataset:
        """Yield every image once, in order, unchanged; padding images (id -1) fill the last batch.

        Args:
          images: what `scan.scan_images` kept.
          batch_size: B.

        Returns:
          Dataset of `structures.Batch`. More than M instances: the first M are kept. Score against the
          images themselves (`coco_json`), which are never cut.
        """
        # One pass decodes each image once: nothing to gain from decoded ones.
        tensors = image_tensors(images, self.cache in ("files", True))
        sample = _as_it_is(lambda position: self._sample(tensors, position, None))
        samples = tf.data.Dataset.range(len(images)).map(sample, self.num_parallel_calls, deterministic=True)
        padding = tf.data.Dataset.from_tensors(self.padding_sample()).repeat(-len(images) % batch_size)
        return self._batches(samples.concatenate(padding), batch_size)

    def batch_spec(self, batch_size: int) -> Batch:
        """Return the TensorSpec of each field of a batch."""
        return Batch(*(tf.TensorSpec([batch_size, *value.shape], value.dtype) for value in self.padding_sample()))

    def order_of(self, images: Sequence[AnnotatedImage]) -> SampleOrder:
        """Return which image each sample of a training on these images shows."""
        if self.repeat_rare is None:
            return sample_order(len(images))
        whole, rows = (images.whole, images.rows) if isinstance(images, Subset) else (images, slice(None))
        return sample_order(len(images), repeat_factors(image_arrays(whole), self.repeat_rare)[rows])

    def scales_of(self, images: Sequence[AnnotatedImage]) -> dict[tuple[int, int], float]:
        """Return the scale, unchanged by chance, of each (height, width) among the images, on its canvas."""
        sizes = np.unique(image_arrays(images).sizes, axis=0)
        scales = self.scales_on(sizes, np.array(self.canvases)[self.canvas_of(sizes)]).tolist()
        return dict(zip(map(tuple, sizes.tolist()), scales))

    def fit(self, picture: tf.Tensor) -> FittedPicture:
        """Fit one picture, uint8 [h, w, 3], into the canvas, in graph operations: the very pixels of `eval_dataset`."""
        size = tf.shape(picture)[:2]
        sample = self.compose(
            lambda: picture,
            lambda boxes, rows, side: tf.zeros([tf.size(rows), side, side], tf.uint8),
            size=size,
            original_size=size,
            boxes=tf.zeros([0, 4]),
            classes=tf.zeros([0], tf.int32),
            has_mask=tf.zeros([0], tf.bool),
            image_id=tf.constant(0, tf.int64),
            seed=None,
        )
        return FittedPicture(sample.image, sample.content_size, sample.image_scale)

    def _batches(self, samples: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        # drop_remainder makes the dimension static and drops nothing: training has no end, evaluation is padded.
        return samples.batch(batch_size, drop_remainder=True).prefetch(self.prefetch)

    def _source(self, images):
        if self.cache == "decoded" and images and fits_in_memory(decoded_bytes(images), "decoded images"):
            return decoded_tensors(images, image_tensors(images, False))
        return image_tensors(images, self.cache in ("files", True))

    def _sample(self, source, position: tf.Tensor, seed: tf.Tensor | None) -> Batch:
        found = source.read(position)
        return self.compose(
            found.picture,
            found.crop_masks,
            size=found.size,
            original_size=found.size,
            boxes=found.boxes,
            classes=found.classes,
            has_mask=found.has_mask,
            image_id=found.image_id,
            seed=seed,
        )

    def compose(
        self,
        picture: Callable[[], tf.Tensor],
        crop_masks: Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor],
        *,
        size: tf.Tensor,
        original_size: tf.Tensor,
        boxes: tf.Tensor,
        classes: tf.Tensor,
        has_mask: tf.Tensor,
        image_id: tf.Tensor,
        seed: tf.Tensor | None,
    ) -> Batch:
        """Make one sample of static shape, in graph operations.

        Args:
          picture: function without arguments; returns uint8 [h, w, 3].
          crop_masks: function of boxes [m, 4] float32 in pixels of the picture, of their rows [m] int32 among the
            instances and of the side of a crop; returns uint8 [m, side, side].
          size: [2] int32, height and width of the picture.
          original_size: [2] int32, of the image file; goes into the batch unread.
          boxes: [n, 4] float32 in pixels of the picture.
          classes: [n] int32.
          has_mask: [n] bool.
          image_id: int64.
          seed: [2] int64 of the changes; None: an unchanged sample.

        Returns:
          Batch without its first dimension.
        """
        settings = self.augmentation or Augmentation()
        changes = None if seed is None or self.augmentation is None else draw(settings, seed)
        (sides,) = self.canvases
        canvas = tf.constant(sides)
        if changes is not None:  # what will be turned by a quarter must fit the canvas turned back
            turned = tf.constant(sides[::-1])
            canvas = select(changes.quarter_turns % 2 == 1, turned, canvas)
        scale = fit_scale(size, canvas, self.draw_min_side(seed), self.max_side)
        if changes is None:
            view = place(size, canvas, scale, tf.zeros([2]))
        else:
            view = place(size, canvas, scale * changes.scale_factor, changes.position)
        matrix, moved = None, boxes
        if changes is not None and settings.is_affine:
            matrix = centre_matrix(
                size, rotation=changes.rotation, translation=changes.translation, shear=changes.shear, zoom=changes.zoom
            )
            moved = moved_boxes(boxes, matrix)
            view = view._replace(cropped=tf.constant(True))  # by the frame, if not by the canvas

        windows, seen, visible = clip_to_view(moved, view)  # [n, 4] [n, 4] [n]
        chosen = choose(visible, seed, self.max_instances)  # [m], m <= M
        # Instances that a crop leaves out are not there to be seen; all others that are missing count.
        candidates = select(view.cropped, tf.reduce_sum(tf.cast(visible, tf.int32)), tf.size(visible))
        dropped = candidates - tf.size(chosen)
        if matrix is None:
            seen = tf.gather(seen, chosen)
            masks = crop_masks(tf.gather(windows, chosen), chosen, self.mask_size)  # [m, R, R]
            image = render(picture(), view, self.antialias)
        else:
            boxes = tf.gather(boxes, chosen)
            fine = crop_masks(boxes, chosen, self.mask_size * MOVED_MASK_OVERSAMPLING)  # [m, S, S]
            windows, seen, visible = clip_to_view(enclosing_boxes(fine, boxes, matrix), view)
            rows = choose(
                visible, None, self.max_instances
            )  # a mask may leave the frame where a corner of its box is still inside
            fine, boxes, windows, seen, chosen = (
                tf.gather(values, rows) for values in (fine, boxes, windows, seen, chosen)
            )
            masks = resample_masks(fine, boxes, windows, matrix, self.mask_size)
            image = render_moved(picture(), view, matrix, settings.fill, self.antialias)

        image, boxes, masks = change(image, seen, masks, settings, changes)
        return pad(
            self.padding_sample(),
            image=image,
            boxes=boxes,
            classes=tf.gather(classes, chosen),
            masks=masks,
            # What a crop or a turn leaves of a box may hold no pixel of its mask: nothing to learn a mask from.
            has_mask=tf.gather(has_mask, chosen) & tf.reduce_any(masks > 0, axis=(1, 2)),
            image_scale=view.scale,
            original_size=original_size,
            image_id=image_id,
            dropped=dropped,
        )

    def _min_sides(self) -> Sequence[int]:
        if self.min_side is None:
            return ()
        return self.min_side if isinstance(self.min_side, Sequence) else (self.min_side,)

    def draw_min_side(self, seed: tf.Tensor | None) -> tf.Tensor | int | None:
        """Return the wanted short side of a sample, without a seed that of evaluation; None: what the canvas allows."""
        sides = sorted(self._min_sides())
        if seed is None and self.eval_min_side is not None:
            return self.eval_min_side
        if seed is None or len(sides) < 2:
            return sides[len(sides) // 2] if sides else None
        drawn = tf.random.stateless_uniform([], tf.random.fold_in(seed, MIN_SIDE_DRAW), 0, len(sides), tf.int32)
        return tf.constant(sides, tf.float32)[drawn]

    def padding_sample(self) -> Batch:
        """Return the sample without a picture that fills a batch: image_id -1."""
        (canvas,) = self.canvases  # of several, `data.stream.canvases` makes a pipeline each
        return padding_sample(canvas, self.max_instances, self.mask_size)
