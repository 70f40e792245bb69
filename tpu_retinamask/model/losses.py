"""What the network is trained towards, and how far it is from there."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.loss_terms import LOSS_TERMS, anchors_per_cell, by_level
from tpu_retinamask.model.mask_rois import select_mask_rois
from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.ops.losses import distance_moments, mask_loss, mask_loss_sum, sigmoid_focal_loss, smooth_l1_loss
from tpu_retinamask.ops.masks import crop_masks
from tpu_retinamask.ops.matching import TIES, match_anchors
from tpu_retinamask.setting_types import check_between, check_least, check_types, named
from tpu_retinamask.structures import AnchorFrame, Batch, MaskRois, RawOutputs, Targets

BOX_LOSSES = ("self_adjusting", "smooth_l1")
MASK_TARGETS = ("aligned", "crop_and_resize")
MASK_AVERAGES = ("regions", "images")


@dataclasses.dataclass(frozen=True)
class Criterion:
    """Targets and losses of RetinaMask.

    Attributes:
      positive_iou: anchors with at least this IoU are positive.
      negative_iou: anchors above this and below `positive_iou` are ignored.
      best_match_iou: each box also takes its best anchors if their IoU exceeds this; None: off.
      best_match_ties: of the anchors that tie for a box, the "nearest" alone are taken, or "all" (the paper); see
        `ops.matching.match_anchors`. Of all, for boxes under 16 pixels of COCO, more than half lie beside the box.
      focal_alpha: weight of positive classes.
      focal_gamma: focus on hard examples; 0 is plain cross-entropy.
      focal_class_weights: weight of each class's part of the focal loss, positives and negatives alike: of all classes
        in the order of their ids, or by name, 1 where not given. None: 1.
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
      mask_average: the mask loss is the mean over all "regions" of the global batch (the paper's code), or over its
        "images" of the mean of each, whose few regions then weigh more than the many of another (keras-maskrcnn).
      class_weight: weight of the class loss in the sum.
      box_weight: weight of the box loss.
      mask_weight: weight of the mask loss.
      terms: what is summed, by the names of the seat `loss_terms.LOSS_TERMS`; each is shown as NAME_loss.
      term_weights: weights of further terms than the three above, by name; 1 where not given.

    Raises:
      SettingError: a value of another type, or none of those that there are.
    """

    positive_iou: float = 0.5
    negative_iou: float = 0.4
    best_match_iou: float | None = 0.0
    best_match_ties: str = "nearest"
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    focal_class_weights: tuple[float, ...] | dict | None = None
    focal_adds_batch: bool = True
    box_loss: str = "self_adjusting"
    smooth_l1_beta: float = 0.11
    mask_rois: int = 100
    mask_rois_from_detections: int = 100
    mask_rois_from_truth: bool = True
    proposal_filter: DetectionFilter | None = None
    mask_targets: str = "aligned"
    mask_average: str = "regions"
    class_weight: float = 1.0
    box_weight: float = 1.0
    mask_weight: float = 1.0
    terms: tuple[str, ...] = ("class", "box", "mask")
    term_weights: dict | None = None

    def __post_init__(self) -> None:
        check_types(self)
        choices = {
            "box_loss": BOX_LOSSES,
            "mask_targets": MASK_TARGETS,
            "mask_average": MASK_AVERAGES,
            "best_match_ties": TIES,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise SettingError(f"{name} {getattr(self, name)!r} is not one of {known}")
        check_between(named(self, "positive_iou", "negative_iou", "best_match_iou", "focal_alpha"), 0, 1)
        if self.negative_iou > self.positive_iou:
            raise SettingError(
                f"negative_iou is {self.negative_iou}, expected positive_iou = {self.positive_iou} or less"
            )
        check_least(named(self, "smooth_l1_beta", "mask_rois"), 0, above=True)
        check_least(
            named(self, "focal_gamma", "mask_rois_from_detections", "class_weight", "box_weight", "mask_weight"), 0
        )
        for term in self.terms:
            LOSS_TERMS.get(term)
        given = self.focal_class_weights or ()
        for weight in given.values() if isinstance(given, dict) else given:
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise SettingError(f"focal_class_weights holds {weight!r}, expected finite numbers from 0")
        if not self.terms or len(set(self.terms)) < len(self.terms):
            raise SettingError(f"terms is {self.terms}, expected one name or more, each once")
        for term, weight in (self.term_weights or {}).items():
            if term not in self.terms:
                raise SettingError(f"term_weights names {term!r}, which is not among terms {self.terms}")
            if term in self._own_weights:
                raise SettingError(f"term_weights names {term!r}, whose weight is the setting {term}_weight")
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise SettingError(f"term_weights gives {term!r} the weight {weight!r}, expected a number")

    def for_classes(self, names: Sequence[str | None]) -> "Criterion":
        """Return these settings with weights of classes by id in place of those by name.

        Args:
          names: of the classes, by id; None: an id that no class has.

        Raises:
          SettingError: a weight for a name that no class has.
        """
        if not isinstance(self.focal_class_weights, dict):
            return self
        unknown = sorted(set(self.focal_class_weights) - set(names))
        if unknown:
            raise SettingError(f"Criterion.focal_class_weights names {unknown}, but the classes are {list(names)[:20]}")
        return dataclasses.replace(
            self, focal_class_weights=tuple(float(self.focal_class_weights.get(name, 1.0)) for name in names)
        )

    def _class_weights(self, num_classes: int) -> tuple[float, ...] | None:
        weights = self.focal_class_weights
        if isinstance(weights, dict):
            raise SettingError("focal_class_weights is by name, and the names of the classes are not known here")
        if weights is not None and len(weights) != num_classes:
            raise SettingError(
                f"Criterion.focal_class_weights has {len(weights)} values, expected one for each of the {num_classes} "
                "classes"
            )
        return weights

    @property
    def weights(self) -> dict[str, float]:
        """Return the weight of each term in the sum, in the order of `terms`."""
        known = {**self._own_weights, **(self.term_weights or {})}
        return {term: float(known.get(term, 1.0)) for term in self.terms}

    @property
    def _own_weights(self) -> dict[str, float]:
        return {"class": self.class_weight, "box": self.box_weight, "mask": self.mask_weight}

    @property
    def self_adjusting(self) -> bool:
        """Return whether the box loss needs the running statistics of the distances."""
        return self.box_loss == "self_adjusting"

    def assign(self, frame: AnchorFrame, batch: Batch) -> Targets:
        """Return the targets of every anchor; they depend on the boxes alone, not on the network.

        Args:
          frame: anchors of the batch's canvas.
          batch: Batch.
        """
        anchors = tf.constant(np.concatenate(frame.levels))  # [N, 4]
        labels, matched = match_anchors(
            anchors,
            batch.boxes,
            batch.classes,
            batch.content_size,
            positive_iou=self.positive_iou,
            negative_iou=self.negative_iou,
            best_match_iou=self.best_match_iou,
            best_match_ties=self.best_match_ties,
        )
        boxes = tf.gather(batch.boxes, matched, batch_dims=1)  # [B, N, 4]
        return Targets(labels, frame.coder.encode(boxes, anchors[None]), matched)

    def choose_rois(self, outputs: RawOutputs | None, frame: AnchorFrame, batch: Batch) -> MaskRois:
        """Return the regions whose masks are trained; no gradient flows back through the choice.

        Args:
          outputs: RawOutputs, whose detections join the boxes; None where `mask_rois_from_detections` is 0.
          frame: anchors of the batch's canvas.
          batch: Batch.
        """
        boxes = None
        if self.mask_rois_from_detections and outputs is not None:
            proposals = dataclasses.replace(
                self.proposal_filter or DetectionFilter(nms_iou=0.4), max_detections=self.mask_rois_from_detections
            )
            boxes = proposals(outputs, frame, batch.content_size).boxes
        return select_mask_rois(batch, boxes, num_rois=self.mask_rois, from_truth=self.mask_rois_from_truth)

    def box_distance_moments(self, outputs: RawOutputs, targets: Targets) -> tf.Tensor:
        """Return count, sum and sum of squares of the distances of positives, [3, 4]; see `ops.losses`."""
        return tf.add_n(
            [
                distance_moments(predicted, target, labels >= 0)
                for predicted, target, labels in zip(
                    outputs.box_deltas, by_level(targets.deltas, outputs), by_level(targets.labels, outputs)
                )
            ]
        )

    def class_loss_of(
        self, outputs: RawOutputs, targets: Targets, num_positive: tf.Tensor, batch_size: int
    ) -> tf.Tensor:
        """Return the focal loss of all anchors, float32 scalar; levels are summed one by one: [B, N, C] never exists.

        Args:
          outputs: RawOutputs.
          targets: Targets.
          num_positive: float32 scalar, positives of the global batch, all replicas.
          batch_size: images of the global batch.
        """
        total = tf.add_n(
            [
                sigmoid_focal_loss(
                    logits,
                    level,
                    alpha=self.focal_alpha,
                    gamma=self.focal_gamma,
                    per_cell=anchors,
                    class_weights=self._class_weights(logits.shape[-1]),
                )
                for logits, level, anchors in zip(
                    outputs.class_logits, by_level(targets.labels, outputs), anchors_per_cell(outputs)
                )
            ]
        )
        return total / (num_positive + float(batch_size) if self.focal_adds_batch else tf.maximum(1.0, num_positive))

    def box_loss_of(
        self,
        outputs: RawOutputs,
        targets: Targets,
        num_positive: tf.Tensor,
        beta: tf.Tensor | float | None = None,
    ) -> tf.Tensor:
        """Return the smooth L1 loss of positive anchors, float32 scalar.

        Args:
          outputs: RawOutputs.
          targets: Targets.
          num_positive: as of `class_loss_of`.
          beta: [4] float32, of the self-adjusting loss; None: `smooth_l1_beta`, from which it starts.
        """
        beta = self.smooth_l1_beta if beta is None else beta
        total = tf.add_n(
            [
                smooth_l1_loss(predicted, target, level >= 0, beta=beta)
                for predicted, target, level in zip(
                    outputs.box_deltas, by_level(targets.deltas, outputs), by_level(targets.labels, outputs)
                )
            ]
        )
        count = tf.maximum(1.0, num_positive)
        return total / (4.0 * count if self.self_adjusting else count)

    def mask_loss(
        self, logits: tf.Tensor, rois: MaskRois, batch: Batch, batch_size: int, num_regions: tf.Tensor
    ) -> tf.Tensor:
        """Return the mask loss, float32 scalar; see `mask_average`. It is 0 where there is no region.

        Args:
          logits: [B, R, S, S], of each region's matched class.
          rois: MaskRois.
          batch: Batch.
          batch_size: images of the global batch.
          num_regions: float32 scalar, valid regions of the global batch.
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
        targets = tf.stop_gradient(targets)
        if self.mask_average == "images":
            return tf.reduce_sum(mask_loss(logits, targets, rois.valid)) / float(batch_size)
        pixels = float(logits.shape[-1] * logits.shape[-2])
        return tf.reduce_sum(mask_loss_sum(logits, targets, rois.valid)) / (pixels * tf.maximum(1.0, num_regions))
