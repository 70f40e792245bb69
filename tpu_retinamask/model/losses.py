"""What the network is trained towards, and how far it is from there."""

import dataclasses

import numpy as np
import tensorflow as tf

from tpu_retinamask.model.mask_rois import select_mask_rois
from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.ops.losses import distance_moments, mask_loss, sigmoid_focal_loss, smooth_l1_loss
from tpu_retinamask.ops.masks import crop_masks
from tpu_retinamask.ops.matching import match_anchors
from tpu_retinamask.structures import Batch, MaskRois, RawOutputs, Targets

BOX_LOSSES = ("self_adjusting", "smooth_l1")


@dataclasses.dataclass(frozen=True)
class Criterion:
    """Targets and losses of RetinaMask.

    Args:
      positive_iou: anchors with at least this IoU are positive.
      negative_iou: anchors above this and below `positive_iou` are ignored.
      best_match_iou: each box also takes its best anchors if their IoU exceeds this; None: off.
      focal_alpha: weight of positive classes.
      focal_gamma: focus on hard examples; 0 is plain cross-entropy.
      focal_adds_batch: divide the focal loss by #positives + B (the paper), not max(1, #positives).
      box_loss: "self_adjusting" (the paper): smooth L1 whose beta follows the running mean and variance of the
        distances, summed and divided by 4 #positives; or "smooth_l1": a fixed beta, divided by #positives.
      smooth_l1_beta: where the box loss turns from square to line, 1 / sigma**2; of "self_adjusting" the largest.
      mask_rois: R, regions an image whose masks are trained.
      mask_rois_from_detections: ground-truth boxes are joined by this many detections; 0: none.
      mask_rois_from_truth: whether the ground-truth boxes themselves are regions; keras-maskrcnn has
        detections alone, and no mask loss until these are good.
      proposal_filter: how the detections that become regions are chosen; None: as the paper does, 1000 a
        level, suppression at 0.4.
      mask_targets: "aligned", the mask at the cells of the region, rounded to 0 or 1; "crop_and_resize",
        interpolated and not rounded (keras-maskrcnn); see `ops.masks`.
      class_weight: weight of the class loss in the sum.
      box_weight: weight of the box loss.
      mask_weight: weight of the mask loss.

    Raises:
      ValueError: unknown box loss.
    """

    positive_iou: float = 0.5
    negative_iou: float = 0.4
    best_match_iou: float | None = 0.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    focal_adds_batch: bool = True
    box_loss: str = "self_adjusting"
    smooth_l1_beta: float = 0.11
    mask_rois: int = 100
    mask_rois_from_detections: int = 100
    mask_rois_from_truth: bool = True
    proposal_filter: DetectionFilter | None = None
    mask_targets: str = "aligned"
    class_weight: float = 1.0
    box_weight: float = 1.0
    mask_weight: float = 1.0

    def __post_init__(self):
        if self.box_loss not in BOX_LOSSES:
            raise ValueError(f"box_loss {self.box_loss!r} is not one of {BOX_LOSSES}")

    @property
    def self_adjusting(self) -> bool:
        """Return whether the box loss needs the running statistics of the distances."""
        return self.box_loss == "self_adjusting"

    def assign(self, anchors, box_coder, batch: Batch) -> Targets:
        """Return the targets of every anchor; they depend on the boxes alone, not on the network.

        Args:
          anchors: one [n, 4] array a level.
          box_coder: of the model.
          batch: Batch.
        """
        anchors = tf.constant(np.concatenate(anchors))  # [N, 4]
        labels, matched = match_anchors(
            anchors,
            batch.boxes,
            batch.classes,
            batch.content_size,
            positive_iou=self.positive_iou,
            negative_iou=self.negative_iou,
            best_match_iou=self.best_match_iou,
        )
        boxes = tf.gather(batch.boxes, matched, batch_dims=1)  # [B, N, 4]
        return Targets(labels, box_coder.encode(boxes, anchors[None]), matched)

    def choose_rois(self, outputs: RawOutputs, anchors, box_coder, batch: Batch) -> MaskRois:
        """Return the regions whose masks are trained; no gradient flows back through the choice."""
        boxes = None
        if self.mask_rois_from_detections:
            proposals = dataclasses.replace(
                self.proposal_filter or DetectionFilter(nms_iou=0.4), max_detections=self.mask_rois_from_detections
            )
            boxes = proposals(outputs, anchors, box_coder, tuple(batch.image.shape[1:3])).boxes
        return select_mask_rois(batch, boxes, num_rois=self.mask_rois, from_truth=self.mask_rois_from_truth)

    def box_distance_moments(self, outputs: RawOutputs, targets: Targets) -> tf.Tensor:
        """Return count, sum and sum of squares of the distances of positives, [3, 4]; see `ops.losses`."""
        return tf.add_n(
            [
                distance_moments(predicted, target, labels >= 0)
                for predicted, target, labels in zip(
                    outputs.box_deltas, _by_level(targets.deltas, outputs), _by_level(targets.labels, outputs)
                )
            ]
        )

    def anchor_losses(self, outputs: RawOutputs, targets: Targets, num_positive, batch_size, beta=None):
        """Return class loss and box loss, float32 scalars.

        Levels are summed one by one, so [B, N, C] never exists.

        Args:
          outputs: RawOutputs.
          targets: Targets.
          num_positive: float32 scalar, positives of the global batch, all replicas.
          batch_size: images of the global batch.
          beta: [4] float32, of the self-adjusting loss; None: `smooth_l1_beta`, from which it starts.
        """
        labels, deltas = _by_level(targets.labels, outputs), _by_level(targets.deltas, outputs)
        beta = self.smooth_l1_beta if beta is None else beta
        class_loss = tf.add_n(
            [
                sigmoid_focal_loss(logits, level, alpha=self.focal_alpha, gamma=self.focal_gamma)
                for logits, level in zip(outputs.class_logits, labels)
            ]
        )
        box_loss = tf.add_n(
            [
                smooth_l1_loss(predicted, target, level >= 0, beta=beta)
                for predicted, target, level in zip(outputs.box_deltas, deltas, labels)
            ]
        )
        count = tf.maximum(1.0, num_positive)
        class_count = num_positive + float(batch_size) if self.focal_adds_batch else count
        return class_loss / class_count, box_loss / (4.0 * count if self.self_adjusting else count)

    def mask_loss(self, logits, rois: MaskRois, batch: Batch, batch_size):
        """Return the mask loss, float32 scalar: mean over the global batch of each image's mean.

        Args:
          logits: [B, R, S, S], of each region's matched class.
          rois: MaskRois.
          batch: Batch.
          batch_size: images of the global batch.
        """
        targets = crop_masks(
            batch.masks,
            batch.boxes,
            rois.boxes,
            rois.matched,
            logits.shape[-1],
            binary=self.mask_targets == "aligned",
            semantics=self.mask_targets,
        )
        return tf.reduce_sum(mask_loss(logits, tf.stop_gradient(targets), rois.valid)) / float(batch_size)


def _by_level(values, outputs: RawOutputs) -> list:
    """Return [B, N, ...] cut into one tensor a pyramid level."""
    return tf.split(values, [level.shape[1] for level in outputs.class_logits], axis=1)
