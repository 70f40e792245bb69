"""From raw outputs to detections: decode, threshold, suppress, keep the best, add masks."""

import dataclasses

import tensorflow as tf

from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.ops.boxes import centres_inside, clip_boxes, pad_invalid
from tpu_retinamask.ops.nms import nms
from tpu_retinamask.ops.select import select
from tpu_retinamask.ops.topk import top_k_anchors
from tpu_retinamask.setting_types import check_between, check_least, check_types, named
from tpu_retinamask.structures import AnchorFrame, Detections, RawOutputs


@dataclasses.dataclass(frozen=True)
class DetectionFilter:
    """How detections are chosen among the anchors.

    Attributes:
      score_threshold: only scores above it count.
      class_thresholds: the same of each class, in the order of their ids, where it is higher; None: all alike.
      nms_iou: detections of one class with a larger IoU suppress each other; None: nothing is suppressed.
      max_detections: K, kept an image.
      max_masks: only this many of them, the best, get a mask; None: all do.
      top_k_per_level: candidates taken from each pyramid level before suppression.
      class_specific: suppress within each class; False: one class an anchor, its best, and all meet.
      clip_margin: boxes are clipped to [0, side - clip_margin] of the picture; keras-maskrcnn has 1.

    Raises:
      SettingError: a value of another type or out of its range.
    """

    score_threshold: float = 0.05
    class_thresholds: tuple[float, ...] | None = None
    nms_iou: float | None = 0.5
    max_detections: int = 100
    max_masks: int | None = None
    top_k_per_level: int = 1000
    class_specific: bool = True
    clip_margin: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        check_least(named(self, "max_detections", "max_masks", "top_k_per_level"), 1)
        check_between(named(self, "score_threshold", "class_thresholds", "nms_iou"), 0, 1)
        check_least(named(self, "clip_margin"), 0)

    def __call__(self, outputs: RawOutputs, frame: AnchorFrame, content_size: tf.Tensor | None = None) -> Detections:
        """Select detections, without masks.

        Args:
          outputs: RawOutputs; only logits and deltas are read, and nothing flows back into them.
          frame: anchors of the canvas, and what turns deltas into boxes.
          content_size: [B, 2] int32, height and width of the picture on the canvas. Boxes are clipped to it, and
            anchors whose centre is beside it, which training ignores, are no candidates. None: all of the canvas.

        Returns:
          Detections with masks of shape [B, K, 0, 0]. `cut` counts candidates above the threshold that
          `top_k_per_level` left out.
        """
        return self.with_anchors(outputs, frame, content_size)[0]

    def with_anchors(
        self, outputs: RawOutputs, frame: AnchorFrame, content_size: tf.Tensor | None = None
    ) -> tuple[Detections, tf.Tensor]:
        """Select detections and say which anchor each comes from.

        Args:
          outputs: as of `__call__`.
          frame: as of `__call__`.
          content_size: as of `__call__`.

        Returns:
          (Detections, anchor): anchor [B, K] int32 counts over all levels, -1 where padded.
        """
        limits = tf.cast(frame.image_size if content_size is None else content_size, tf.float32) - self.clip_margin
        candidates, start = [], 0
        for logits, deltas, level in zip(outputs.class_logits, outputs.box_deltas, frame.levels):
            inside = None if content_size is None else centres_inside(tf.constant(level), content_size)  # [B, n]
            scores, anchor, classes, cut = self._candidates(tf.stop_gradient(logits), inside, tf.sigmoid)
            deltas = tf.gather(tf.stop_gradient(deltas), anchor, batch_dims=1)  # [B, k, 4]
            boxes = clip_boxes(frame.coder.decode(deltas, tf.gather(tf.constant(level), anchor)), limits)
            candidates.append((boxes, scores, classes, anchor + start, cut))
            start += level.shape[0]
        *parts, cut = (list(part) for part in zip(*candidates))
        boxes, scores, classes, anchor = (tf.concat(part, 1) for part in parts)
        return self._suppress(boxes, scores, classes, anchor, tf.add_n(cut))

    def from_boxes(self, boxes: tf.Tensor, scores: tf.Tensor) -> tuple[Detections, tf.Tensor]:
        """Select detections among boxes that are decoded and clipped already.

        Args:
          boxes: [B, N, 4] float32 pixels.
          scores: [B, N, C] float32 probabilities.

        Returns:
          (Detections, row): row [B, K] int32 of `boxes`, -1 where padded; `top_k_per_level` holds for all N.
        """
        scores, row, classes, cut = self._candidates(tf.stop_gradient(scores), None, tf.identity)
        boxes = tf.gather(tf.stop_gradient(boxes), row, batch_dims=1)
        return self._suppress(boxes, scores, classes, row, cut)

    def _candidates(self, values, inside, to_scores):
        """Return score, anchor, class [B, k] of the best pairs, and how many others are above the threshold.

        Chosen by values [B, n, C], which grow with the scores: of all pairs the scores are counted and never written.
        """
        if self.class_thresholds is not None and len(self.class_thresholds) != values.shape[2]:
            raise SettingError(
                f"DetectionFilter.class_thresholds has {len(self.class_thresholds)} numbers, expected one for each of "
                f"{values.shape[2]} classes"
            )
        if not self.class_specific:
            best_class = tf.argmax(values, axis=2, output_type=tf.int32)
            values = tf.reduce_max(values, axis=2, keepdims=True)  # [B, n, 1]
        above = to_scores(values) > self.score_threshold
        above = above if inside is None else above & inside[:, :, None]
        above = tf.reduce_sum(tf.cast(above, tf.int32), axis=(1, 2))  # [B]
        values, anchor, classes = top_k_anchors(values, self.top_k_per_level, inside)  # [B, k]
        scores = select(values > values.dtype.min, to_scores(values), -1.0)  # the lowest: beside the picture
        if not self.class_specific:
            classes = tf.gather(best_class, anchor, batch_dims=1)
        kept = tf.reduce_sum(tf.cast(scores > self.score_threshold, tf.int32), axis=1)
        return scores, anchor, classes, above - kept

    def _suppress(self, boxes, scores, classes, anchor, cut):
        scores, order = tf.math.top_k(scores, scores.shape[1])  # sorts
        boxes, classes, anchor = (tf.gather(part, order, batch_dims=1) for part in (boxes, classes, anchor))
        keep = scores > self.score_threshold
        if self.class_thresholds is not None:
            keep &= scores > tf.gather(tf.constant(self.class_thresholds, tf.float32), tf.maximum(classes, 0))
        if self.nms_iou is not None:
            keep = nms(boxes, keep, self.nms_iou, classes if self.class_specific else None, self.max_detections)
        count = self.max_detections
        missing = max(0, count - scores.shape[1])  # tiny canvases have fewer anchors than K
        scores = tf.pad(select(keep, scores, -1.0), [[0, 0], [0, missing]], constant_values=-1.0)
        boxes = tf.pad(boxes, [[0, 0], [0, missing], [0, 0]])
        classes, anchor = (tf.pad(part, [[0, 0], [0, missing]]) for part in (classes, anchor))
        scores, index = tf.math.top_k(scores, count)  # [B, K]
        valid = scores >= 0.0
        boxes = pad_invalid(tf.gather(boxes, index, batch_dims=1), valid)
        classes, anchor = (select(valid, tf.gather(part, index, batch_dims=1), -1) for part in (classes, anchor))
        empty = tf.zeros([tf.shape(scores)[0], count, 0, 0])
        return Detections(boxes, select(valid, scores, -1.0), classes, empty, cut), anchor


def detect(
    model: RetinaMask, detection_filter: DetectionFilter, images: tf.Tensor, content_size: tf.Tensor
) -> Detections:
    """Find the objects of a batch of images, masks and all.

    Args:
      model: RetinaMask.
      detection_filter: DetectionFilter.
      images: [B, H, W, 3] uint8 or float32 RGB.
      content_size: [B, 2] int32.

    Returns:
      Detections with masks [B, K', 2P, 2P], probabilities of the detected class, of the first K' of K detections:
      `max_masks` of them, if it is less.
    """
    image_size = tuple(images.shape[1:3])
    outputs = model(images, content_size, training=False)
    found = detection_filter(outputs, model.frame(image_size), content_size)
    best = slice(detection_filter.max_masks)  # they come best first
    boxes, classes = found.boxes[:, best], found.classes[:, best]
    masks = tf.sigmoid(model.mask_logits(outputs.features, boxes, classes, image_size, content_size))
    return found._replace(masks=select(classes[:, :, None, None] >= 0, masks, 0.0))
