"""The training step: forward, targets, losses, backward, update. One function, used by every program.

`make_train_step` returns the view of a single replica. On one device it is compiled whole
(`devices.placement.compile_step`); under a strategy the loop passes it to `strategy.run`.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tpu_retinamask.errors import UserError, listed
from tpu_retinamask.model.loss_terms import LossInputs, compute_terms
from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.ops.replicas import sum_over_replicas
from tpu_retinamask.private import keras_names
from tpu_retinamask.structures import Batch, MaskRois
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.micro_batches import micro_batch, repeat
from tpu_retinamask.training.weight_average import WeightAverage

Probe = Callable[[str, Any], None]
COUNTS = ("num_positive", "mask_rois", "mask_rois_overflow", "boxes_dropped")


class StepLosses(NamedTuple):
    """What one pass over a batch, or a part of one, gives; of this replica but for the moments."""

    total: tf.Tensor  # the scalar to differentiate
    metrics: dict[str, tf.Tensor]  # float32 scalars by `metric_names`; their sum over replicas is the batch's
    moments: tf.Tensor  # [3, 4]; of the box distances of all replicas, those of earlier parts added


class Whole(NamedTuple):
    """What the losses of a share of a batch are divided by: counts of the whole, all replicas and parts together."""

    num_positive: tf.Tensor  # float32 scalar, positive anchors
    batch_size: int  # images
    # float32 scalar, regions whose masks are trained. None: known only behind the forward pass, where detections join
    # them. Of a batch taken in parts it is then this part's number times the number of parts.
    num_regions: tf.Tensor | None = None


def metric_names(criterion: Criterion) -> tuple[str, ...]:
    """Name the metrics of a step's losses: the sum, each term of it, and what is counted."""
    return ("loss", *(f"{term}_loss" for term in criterion.terms), *COUNTS)


def no_probe(name: str, tensor: Any) -> None:
    """Look at no intermediate result."""
    del name, tensor


def compute_losses(
    model: RetinaMask,
    criterion: Criterion,
    batch: Batch,
    probe: Probe = no_probe,
    *,
    whole: Whole | None = None,
    statistics: BoxStatistics | None = None,
    moments: tf.Tensor | None = None,
) -> StepLosses:
    """Run the network on a batch and return its losses.

    Args:
      model: RetinaMask.
      criterion: Criterion.
      batch: Batch of this replica.
      probe: called with the name and value of each intermediate result (`--debug`).
      whole: of the batch that this one is a share of; None: this batch on all replicas is the whole.
      statistics: of the self-adjusting box loss; None: it has the beta from which it starts.
      moments: [3, 4] of the parts of the batch that came before; None: there were none.
    """
    frame = model.frame(tuple(batch.image.shape[1:3]))
    with tf.name_scope("targets"):
        targets = criterion.assign(frame, batch)
    probe("targets", targets)
    own_positive = tf.reduce_sum(tf.cast(targets.labels >= 0, tf.float32))
    if whole is None:
        # Known before the forward pass, so the sum over replicas never waits for the network.
        whole = Whole(sum_over_replicas(own_positive), _replicas() * batch.image.shape[0])
    num_positive, batch_size, num_regions = whole

    outputs = model(batch.image, batch.content_size, training=True)
    probe("outputs", outputs)
    beta: tf.Tensor | float = criterion.smooth_l1_beta
    moments = tf.zeros([3, 4]) if moments is None else moments
    if criterion.self_adjusting and statistics is not None:
        with tf.name_scope("losses"):
            moments += sum_over_replicas(criterion.box_distance_moments(outputs, targets))
            beta = statistics.beta_with(moments)
        probe("box_beta", beta)

    with tf.name_scope("selection"):
        rois = criterion.choose_rois(outputs, frame, batch)
    probe("mask_rois", rois)
    if num_regions is None:
        parts = batch_size / (_replicas() * batch.image.shape[0])
        num_regions = parts * sum_over_replicas(count_regions(rois))
    roi_classes = tf.gather(batch.classes, rois.matched, batch_dims=1)  # [B, R]
    mask_logits = model.mask_logits(
        outputs.features, rois.boxes, roi_classes, frame.image_size, batch.content_size
    )  # [B, R, S, S]
    probe("mask_logits", mask_logits)

    given = LossInputs(
        criterion, batch, frame, targets, outputs, rois, mask_logits, num_positive, num_regions, batch_size, beta
    )
    with tf.name_scope("losses"):
        terms = compute_terms(given)
    weighted = [weight * terms[term] for term, weight in criterion.weights.items()]
    total = functools.reduce(operator.add, weighted)
    counts = (own_positive, rois.valid, rois.overflow, batch.dropped)
    metrics = {"loss": total} | {f"{term}_loss": value for term, value in terms.items()}
    metrics |= {name: tf.reduce_sum(tf.cast(count, tf.float32)) for name, count in zip(COUNTS, counts)}
    return StepLosses(total, metrics, moments)


def count_regions(rois: MaskRois) -> tf.Tensor:
    """Return the number of valid regions of this replica, float32 scalar without gradient."""
    return tf.stop_gradient(tf.reduce_sum(tf.cast(rois.valid, tf.float32)))


def make_train_step(
    model: RetinaMask,
    criterion: Criterion,
    optimizer: keras.Optimizer,
    *,
    clip_norm: float | None = None,
    probe: Probe = no_probe,
    accumulate_steps: int = 1,
    box_statistics: BoxStatistics | None = None,
    average: WeightAverage | None = None,
) -> Callable[[Batch], dict[str, tf.Tensor]]:
    """Return `train_step(batch) -> metrics`, which updates the model once.

    Args:
      model: RetinaMask with its weights created.
      criterion: Criterion.
      optimizer: built Keras optimizer; it must not clip by itself, since it would clip each replica's
        gradients before their sum.
      clip_norm: largest global norm of the gradients of the whole batch; None: not clipped.
      probe: see `compute_losses`.
      accumulate_steps: parts that the batch is divided into; the network sees one at a time, and their gradients
        are summed. The update is that of the undivided batch, but that "batch" normalisation takes its statistics
        from each part, that the self-adjusting box loss of a part knows the parts before it only, and that where
        detections join the regions of the masks each part's regions are averaged by themselves.
      box_statistics: state of the self-adjusting box loss, to be saved; None: only where the loss does not adjust
        itself.
      average: average of the weights, moved after each update, to be saved; None: none.

    Returns:
      A function of a Batch with static shapes; its metrics are those of `compute_losses`, summed over
      replicas, gradient_norm, learning_rate and, where the box loss adjusts itself, box_beta (mean of 4).

    Raises:
      ValueError: the optimizer clips, or the box loss adjusts itself and has no statistics.
      UserError: every layer is frozen; on a call: the batch does not divide into the parts, or no loss depends on a
        variable.
    """
    if optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue:
        raise ValueError(
            "make_train_step: the optimizer has a clipping option set; pass clip_norm here instead, "
            "which clips once, after the gradients of all replicas are summed"
        )
    variables = model.trainable_variables
    if not variables:
        raise UserError(
            "every layer is frozen, so there is nothing to train: look at RetinaMask.frozen_stages and "
            "RetinaMask.freeze"
        )
    if accumulate_steps < 1:
        raise UserError(f"train.accumulate_steps is {accumulate_steps}, expected 1 (the batch undivided) or more")
    if criterion.self_adjusting and box_statistics is None:
        raise ValueError(
            "make_train_step: the self-adjusting box loss needs box_statistics; make BoxStatistics("
            "criterion.smooth_l1_beta) in the scope of the strategy that trains"
        )
    detections_join = criterion.mask_rois_from_detections > 0
    keras_names.leave_sums_to_caller(optimizer)  # by then they are summed already, and clipped

    def part_of_step(part: Batch, whole: Whole | None, moments: tf.Tensor) -> tuple[tf.Tensor, list, dict]:
        """Return the moments, those of this part on all replicas added, and this replica's gradients and metrics."""
        with tf.GradientTape() as tape:
            total, metrics, moments = compute_losses(
                model, criterion, part, probe, whole=whole, statistics=box_statistics, moments=moments
            )
        gradients = tape.gradient(total, [v.value for v in variables])
        unreached = [variable.path for variable, gradient in zip(variables, gradients) if gradient is None]
        if unreached:
            raise UserError(
                f"no loss of Criterion.terms = {criterion.terms} depends on {len(unreached)} of the {len(variables)} "
                f"variables that are trained:\n{listed(unreached)}\nAdd the term that trains them, or freeze their "
                "layers (RetinaMask.freeze)"
            )
        return moments, gradients, metrics

    def count(part: Batch) -> tf.Tensor:
        """Return what the boxes alone tell: positive anchors and, without detections, regions; [2] float32."""
        frame = model.frame(tuple(part.image.shape[1:3]))
        positives = tf.reduce_sum(tf.cast(criterion.assign(frame, part).labels >= 0, tf.float32))
        regions = tf.zeros([]) if detections_join else count_regions(criterion.choose_rois(None, frame, part))
        return tf.stack([positives, regions])

    def accumulate(batch: Batch):
        """Return the sums of `part_of_step` over all parts, taken one after another."""

        def part(index):
            return micro_batch(batch, index, accumulate_steps)

        # The boxes alone tell the counts that the losses of every part are divided by.
        counts = repeat(accumulate_steps, lambda index, total: total + count(part(index)), tf.zeros([2]))
        positives, regions = tf.unstack(sum_over_replicas(counts))
        whole = Whole(positives, _replicas() * batch.image.shape[0], None if detections_join else regions)

        def add(index, so_far):
            moments, *sums = so_far
            moments, *of_part = part_of_step(part(index), whole, moments)
            return moments, *tf.nest.map_structure(tf.add, sums, of_part)

        zeros = [tf.zeros(v.shape, v.dtype) for v in variables], dict.fromkeys(metric_names(criterion), tf.zeros([]))
        return repeat(accumulate_steps, add, (tf.zeros([3, 4]), *zeros))

    def train_step(batch: Batch):
        if accumulate_steps == 1:
            moments, gradients, metrics = part_of_step(batch, None, tf.zeros([3, 4]))
        else:
            moments, gradients, metrics = accumulate(batch)
        with tf.name_scope("update"):
            return update(gradients, metrics, moments)

    def update(gradients, metrics, moments):
        gradients = sum_over_replicas(gradients)
        for variable, gradient in zip(variables, gradients):
            probe(f"gradient of {variable.path}", gradient)
        norm = tf.linalg.global_norm(gradients)
        if clip_norm is not None:
            scale = clip_norm / tf.maximum(norm, clip_norm)
            gradients = [g * scale for g in gradients]
        metrics = sum_over_replicas(metrics) | {
            "gradient_norm": norm,
            "learning_rate": tf.cast(optimizer.learning_rate, tf.float32),
        }
        optimizer.apply(gradients, variables)
        if criterion.self_adjusting and box_statistics is not None:
            metrics["box_beta"] = tf.reduce_mean(box_statistics.update(moments))
        if average is not None:
            average.update(optimizer.iterations)
        return metrics

    return train_step


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync
