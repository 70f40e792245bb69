"""Training batches whose samples a Python transform has changed, made on the host without tf.data."""

import collections
import concurrent.futures
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.augment.transform import apply_transform
from tpu_retinamask.data.images.mask_reader import MaskReader
from tpu_retinamask.data.images.mask_sampling import sample_mask_stack
from tpu_retinamask.data.images.upright import upright_pixels
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.errors import UserError
from tpu_retinamask.structures import Batch


class HostBatches:
    """Endless iterable of `structures.Batch`, as `InputPipeline.train_dataset` gives them, behind a transform.

    Python cannot run inside tf.data on the host of a TPU reached over the network ("No registered 'PyFunc'"), so
    this is no dataset: threads of this process call the transform, and the training loop, which takes any
    iterable, is handed finished tensors of static shape. Each sample is read, transformed, then scaled, augmented
    and padded by the pipeline's own operations; with a transform that changes nothing the batches are equal to
    those of `train_dataset`, in the same order.

    `image_scale` tells canvas pixels per pixel of the transformed picture; `original_size` is that of the file.

    Attributes:
      dropped_by_transform: instances that the transform left out or moved out of sight, so far.
    """

    def __init__(
        self,
        pipeline: InputPipeline,
        images: Sequence[AnnotatedImage],
        transform: Callable,
        batch_size: int,
        *,
        start_step: int = 0,
        workers: int = 1,
        prefetch: int = 4,
        start_image: int | None = None,
    ) -> None:
        """Prepare; nothing is read before the first batch is asked for.

        Args:
          pipeline: canvas, sizes, augmentation and seed.
          images: what `scan.scan_images` kept; at least one.
          transform: see `transform.apply_transform`.
          batch_size: B.
          start_step: batches to leave out at the start.
          workers: threads. With more than one the transform must be safe to call from several at a time, and its
            own random draws no longer repeat from run to run.
          prefetch: batches prepared ahead.
          start_image: number of the first sample of `start_step`; None: start_step * batch_size.

        Raises:
          ValueError: no images, or a number that is too small.
        """
        if not images:
            raise ValueError("no images: expected at least one image")
        if min(batch_size, workers) < 1 or min(start_step, prefetch) < 0:
            raise ValueError(
                f"batch_size {batch_size} and workers {workers} must be at least 1, "
                f"start_step {start_step} and prefetch {prefetch} at least 0"
            )
        self.pipeline, self.images, self.transform = pipeline, images, transform
        self.batch_size, self.start_step, self.workers, self.prefetch = batch_size, start_step, workers, prefetch
        self._ahead = 0 if start_image is None else start_image - start_step * batch_size
        self.dropped_by_transform = 0
        self._order = pipeline.order_of(images)
        self._lock = threading.Lock()
        self._compose = tf.function(
            self._compose_sample,
            autograph=False,
            input_signature=[
                tf.TensorSpec([None, None, 3], tf.uint8),
                tf.TensorSpec([None, None, None], tf.uint8),
                tf.TensorSpec([None, 4]),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None], tf.bool),
                tf.TensorSpec([2], tf.int32),
                tf.TensorSpec([], tf.int64),
                tf.TensorSpec([2], tf.int64),
            ],
        )

    @property
    def element_spec(self) -> Batch:
        """Return the shapes and dtypes of a batch."""
        sample = self._compose.get_concrete_function().structured_outputs
        return Batch(*(tf.TensorSpec([self.batch_size, *field.shape], field.dtype) for field in sample))

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches from `start_step` on, for ever.

        Raises:
          UserError: the batches would have to cross a network to their device.
          transform.TransformError: the transform returned something that cannot be trained on.
        """
        _refuse_remote_devices(self.transform)
        return self._run()

    def _run(self):
        pool = concurrent.futures.ThreadPoolExecutor(self.workers, thread_name_prefix="host_batches")
        waiting = collections.deque()
        step = self.start_step
        try:
            while True:
                while len(waiting) <= self.prefetch:
                    waiting.append(pool.submit(self._batch, step))
                    step += 1
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _batch(self, step: int) -> Batch:
        with tf.device("/CPU:0"):
            samples = [self._sample(step * self.batch_size + i + self._ahead) for i in range(self.batch_size)]
            return Batch(*(tf.stack(field) for field in zip(*samples)))

    def _sample(self, number: int) -> Batch:
        position, seed = self._order.position(tf.constant(number, tf.int64), self.pipeline.seed)
        annotated = self.images[int(position)]
        reader = MaskReader()
        masks = np.zeros((len(annotated.instances), annotated.height, annotated.width), np.uint8)
        for row, instance in enumerate(annotated.instances):
            if instance.mask is not None:
                masks[row] = reader.read(instance, annotated.height, annotated.width)
        sample = apply_transform(
            self.transform,
            upright_pixels(annotated),
            masks,
            [instance.class_id for instance in annotated.instances],
            [instance.box for instance in annotated.instances],
            has_mask=[instance.mask is not None for instance in annotated.instances],
            name=annotated.name,
        )
        with self._lock:
            self.dropped_by_transform += sample.dropped
        return self._compose(
            sample.image,
            sample.masks,
            sample.bboxes.astype(np.float32),
            sample.labels.astype(np.int32),
            sample.has_mask,
            np.array([annotated.height, annotated.width], np.int32),
            np.int64(annotated.image_id),
            seed,
        )

    def _compose_sample(self, image, masks, boxes, classes, has_mask, original_size, image_id, seed) -> Batch:
        return self.pipeline.compose(
            lambda: image,
            lambda windows, rows, side: sample_mask_stack(tf.gather(masks, rows), windows, side),
            size=tf.shape(image)[:2],
            original_size=original_size,
            boxes=boxes,
            classes=classes,
            has_mask=has_mask,
            image_id=image_id,
            seed=seed,
        )


def _refuse_remote_devices(transform):
    remote = [
        device.name
        for device in tf.config.list_logical_devices()
        if tf.DeviceSpec.from_string(device.name).job not in (None, "localhost")
    ]
    if remote:
        raise UserError(
            f"the Python transform {transform!r} cannot be used with {remote[0]}, which is reached over the network: "
            "Python runs on this machine, and every batch would have to cross. Run on the TPU's own host, or use the "
            "graph operations of data.augment.Augmentation"
        )
