"""From raw outputs to detections: decode, threshold, suppress, keep the best, add masks."""

import dataclasses

import tensorflow as tf

from tpu_retinamask.ops.boxes import clip_boxes, pad_invalid
from tpu_retinamask.ops.nms import nms
from tpu_retinamask.ops.select import select
from tpu_retinamask.ops.topk import top_k_anchors
from tpu_retinamask.structures import Detections, RawOutputs


@dataclasses.dataclass(frozen=True)
class DetectionFilter:
    """How detections are chosen among the anchors.

    Args:
      score_threshold: only scores above it count.
      nms_iou: detections of one class with a larger IoU suppress each other.
      max_detections: K, kept an image.
      top_k_per_level: candidates taken from each pyramid level before suppression.
      class_specific: suppress within each class; False: one class an anchor, its best, and all meet.
      clip_margin: boxes are clipped to [0, side - clip_margin]; keras-maskrcnn has 1.
    """

    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100
    top_k_per_level: int = 1000
    class_specific: bool = True
    clip_margin: float = 0.0

    def __call__(self, outputs: RawOutputs, anchors, box_coder, image_size) -> Detections:
        """Select detections, without masks.

        Args:
          outputs: RawOutputs; only logits and deltas are read, and nothing flows back into them.
          anchors: one [n, 4] array a level.
          box_coder: of the model; turns deltas into boxes.
          image_size: (H, W) of the canvas.

        Returns:
          Detections with masks of shape [B, K, 0, 0]. `cut` counts candidates above the threshold that
          `top_k_per_level` left out.
        """
        levels = zip(outputs.class_logits, outputs.box_deltas, anchors)
        candidates = [self._level_candidates(*level, box_coder) for level in levels]
        boxes, scores, classes, cut = (list(part) for part in zip(*candidates))
        scores, boxes, classes = tf.concat(scores, 1), tf.concat(boxes, 1), tf.concat(classes, 1)  # [B, k, ...]
        limits = tf.constant([side - self.clip_margin for side in image_size], tf.float32)
        boxes = clip_boxes(boxes, limits)
        scores, order = tf.math.top_k(scores, scores.shape[1])  # sorts
        boxes, classes = tf.gather(boxes, order, batch_dims=1), tf.gather(classes, order, batch_dims=1)
        keep = nms(boxes, scores > self.score_threshold, self.nms_iou, classes if self.class_specific else None)
        return self._best(boxes, scores, classes, keep, tf.add_n(cut))

    def _level_candidates(self, logits, deltas, anchors, box_coder):
        scores = tf.sigmoid(tf.stop_gradient(logits))  # [B, n, C]
        if not self.class_specific:
            best_class = tf.argmax(scores, axis=2, output_type=tf.int32)
            scores = tf.reduce_max(scores, axis=2, keepdims=True)  # [B, n, 1]
        above = tf.reduce_sum(tf.cast(scores > self.score_threshold, tf.int32), axis=(1, 2))  # [B]
        scores, anchor, classes = top_k_anchors(scores, self.top_k_per_level)  # [B, k]
        if not self.class_specific:
            classes = tf.gather(best_class, anchor, batch_dims=1)
        kept = tf.reduce_sum(tf.cast(scores > self.score_threshold, tf.int32), axis=1)
        deltas = tf.gather(tf.stop_gradient(deltas), anchor, batch_dims=1)  # [B, k, 4]
        boxes = box_coder.decode(deltas, tf.gather(tf.constant(anchors), anchor))
        return boxes, scores, classes, above - kept

    def _best(self, boxes, scores, classes, keep, cut):
        count = self.max_detections
        missing = max(0, count - scores.shape[1])  # tiny canvases have fewer anchors than K
        scores = tf.pad(select(keep, scores, -1.0), [[0, 0], [0, missing]], constant_values=-1.0)
        boxes, classes = tf.pad(boxes, [[0, 0], [0, missing], [0, 0]]), tf.pad(classes, [[0, 0], [0, missing]])
        scores, index = tf.math.top_k(scores, count)  # [B, K]
        valid = scores >= 0.0
        boxes = pad_invalid(tf.gather(boxes, index, batch_dims=1), valid)
        classes = select(valid, tf.gather(classes, index, batch_dims=1), -1)
        empty = tf.zeros([tf.shape(scores)[0], count, 0, 0])
        return Detections(boxes, select(valid, scores, -1.0), classes, empty, cut)


def detect(model, detection_filter: DetectionFilter, images, content_size, *, max_masks: int | None = None) -> Detections:
    """Find the objects of a batch of images, masks and all.

    Args:
      model: RetinaMask.
      detection_filter: DetectionFilter.
      images: [B, H, W, 3] uint8 or float32 RGB.
      content_size: [B, 2] int32.
      max_masks: masks for the best few only (the paper: 50); the other detections are dropped.

    Returns:
      Detections with masks [B, K, 2P, 2P], probabilities of the detected class.
    """
    image_size = tuple(images.shape[1:3])
    outputs = model(images, content_size, training=False)
    found = detection_filter(outputs, model.anchor_grid.anchors(image_size), model.box_coder, image_size)
    if max_masks is not None:
        found = found._replace(boxes=found.boxes[:, :max_masks], scores=found.scores[:, :max_masks],
                               classes=found.classes[:, :max_masks])
    masks = tf.sigmoid(model.mask_logits(outputs.features, found.boxes, found.classes, image_size))
    return found._replace(masks=select(found.classes[:, :, None, None] >= 0, masks, 0.0))
