"""The seat of loss terms, what one is given, and the three of the paper."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.seats import Seat
from tpu_retinamask.structures import AnchorFrame, Batch, MaskRois, RawOutputs, Targets

if TYPE_CHECKING:
    from tpu_retinamask.model.losses import Criterion


class LossInputs(NamedTuple):
    """All that a term may look at: what the network said, and what it is trained towards; of this replica alone."""

    criterion: "Criterion"  # its settings
    batch: Batch  # of this replica
    frame: AnchorFrame  # anchors of the canvas, N in all
    targets: Targets  # of every anchor
    outputs: RawOutputs  # logits and deltas of every anchor, level by level
    rois: MaskRois  # R regions an image whose masks are trained
    mask_logits: tf.Tensor  # [B, R, S, S] float32, of each region's matched class
    num_positive: tf.Tensor  # float32 scalar; positive anchors of the global batch, all replicas
    num_regions: tf.Tensor  # float32 scalar; valid regions of the global batch; see `step.Whole`
    batch_size: int  # images of the global batch
    beta: tf.Tensor | float  # [4] or scalar; where the box loss turns from square to line


# A term returns this replica's share of a float32 scalar: the sum over replicas is the value of the global batch.
LossTerm = Callable[[LossInputs], tf.Tensor]
LOSS_TERMS: Seat[LossTerm] = Seat("loss term", "tpu_retinamask.loss_terms")


@LOSS_TERMS.register("class")
def class_loss(given: LossInputs) -> tf.Tensor:
    """Return the focal loss of every anchor."""
    return given.criterion.class_loss_of(given.outputs, given.targets, given.num_positive, given.batch_size)


@LOSS_TERMS.register("box")
def box_loss(given: LossInputs) -> tf.Tensor:
    """Return the smooth L1 loss of positive anchors."""
    return given.criterion.box_loss_of(given.outputs, given.targets, given.num_positive, given.beta)


@LOSS_TERMS.register("mask")
def mask_loss(given: LossInputs) -> tf.Tensor:
    """Return the cross-entropy of the masks of regions."""
    return given.criterion.mask_loss(given.mask_logits, given.rois, given.batch, given.batch_size, given.num_regions)


def compute_terms(given: LossInputs) -> dict[str, tf.Tensor]:
    """Return the value of each term of the criterion, in its order.

    Raises:
      UserError: a term returns something else than a float32 scalar.
    """
    values = {}
    for term in given.criterion.terms:
        value = values[term] = tf.convert_to_tensor(LOSS_TERMS.get(term)(given))
        if value.shape.rank != 0 or value.dtype != tf.float32:
            raise UserError(
                f"loss term {term!r} returns {value.dtype.name} of shape {value.shape}, expected a float32 scalar: a "
                "sum over images or anchors, divided by a count of the global batch"
            )
    return values


def by_level(values: tf.Tensor, outputs: RawOutputs) -> list[tf.Tensor]:
    """Return [B, N, ...] cut into one tensor a pyramid level."""
    return tf.split(values, [level.shape[1] for level in outputs.class_logits], axis=1)


def anchors_per_cell(outputs: RawOutputs) -> list[int]:
    """Return A of each pyramid level; 1 where the outputs come without features, so that nothing tells."""
    if not outputs.features:
        return [1] * len(outputs.class_logits)
    cells = [feature.shape[1] * feature.shape[2] for feature in outputs.features]
    return [level.shape[1] // of_level for level, of_level in zip(outputs.class_logits, cells)]
