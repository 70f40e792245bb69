"""The training step: forward, targets, losses, backward, update. One function, used by every program.

`make_train_step` returns the view of a single replica. On one device it is compiled whole
(`compile_step`); under a strategy the loop passes it to `strategy.run`.
"""

import keras
import tensorflow as tf

from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.structures import Batch


def _no_probe(name, tensor):
    del name, tensor


def compute_losses(model, criterion: Criterion, batch: Batch, probe=_no_probe):
    """Run the network on a batch and return its losses.

    Args:
      model: RetinaMask.
      criterion: Criterion.
      batch: Batch of this replica.
      probe: called with the name and value of each intermediate result (`--debug`).

    Returns:
      (total, metrics): the scalar to differentiate, and a dict of float32 scalars. All are this replica's
      share: their sum over replicas is the value of the whole batch.
    """
    image_size = tuple(batch.image.shape[1:3])
    anchors = model.anchor_grid.anchors(image_size)
    targets = criterion.assign(anchors, model.box_coder, batch)
    probe("targets", targets)
    # Known before the forward pass, so the sum over replicas never waits for the network.
    own_positive = tf.reduce_sum(tf.cast(targets.labels >= 0, tf.float32))
    num_positive = sum_over_replicas(own_positive)
    batch_size = batch.image.shape[0] * tf.distribute.get_strategy().num_replicas_in_sync

    outputs = model(batch.image, batch.content_size, training=True)
    probe("outputs", outputs)
    class_loss, box_loss = criterion.anchor_losses(outputs, targets, num_positive, batch_size)

    rois = criterion.choose_rois(outputs, anchors, model.box_coder, batch)
    probe("mask_rois", rois)
    roi_classes = tf.gather(batch.classes, rois.matched, batch_dims=1)  # [B, R]
    mask_logits = model.mask_logits(outputs.features, rois.boxes, roi_classes, image_size)  # [B, R, S, S]
    probe("mask_logits", mask_logits)
    mask_loss = criterion.mask_loss(mask_logits, rois, batch, batch_size)

    total = criterion.class_weight * class_loss + criterion.box_weight * box_loss + criterion.mask_weight * mask_loss
    return total, {
        "loss": total,
        "class_loss": class_loss,
        "box_loss": box_loss,
        "mask_loss": mask_loss,
        "num_positive": own_positive,
        "mask_rois": tf.reduce_sum(tf.cast(rois.valid, tf.float32)),
        "mask_rois_overflow": tf.reduce_sum(tf.cast(rois.overflow, tf.float32)),
        "boxes_dropped": tf.reduce_sum(tf.cast(batch.dropped, tf.float32)),
    }


def make_train_step(model, criterion: Criterion, optimizer: keras.Optimizer, *, clip_norm: float | None = None,
                    probe=_no_probe):
    """Return `train_step(batch) -> metrics`, which updates the model once.

    Args:
      model: RetinaMask with its weights created.
      criterion: Criterion.
      optimizer: built Keras optimizer; it must not clip by itself, since it would clip each replica's
        gradients before their sum.
      clip_norm: largest global norm of the gradients of the whole batch; None: not clipped.
      probe: see `compute_losses`.

    Returns:
      A function of a Batch with static shapes; its metrics are those of `compute_losses`, summed over
      replicas, and gradient_norm and learning_rate.

    Raises:
      ValueError: the optimizer clips.
    """
    if optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue:
        raise ValueError("make_train_step: the optimizer has a clipping option set; pass clip_norm here instead, "
                         "which clips once, after the gradients of all replicas are summed")
    variables = model.trainable_variables
    # Keras sums gradients over replicas when it applies them: by then they are summed already, and clipped.
    optimizer._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables

    def train_step(batch: Batch):
        with tf.GradientTape() as tape:
            total, metrics = compute_losses(model, criterion, batch, probe)
        gradients = sum_over_replicas(tape.gradient(total, [v.value for v in variables]))
        for variable, gradient in zip(variables, gradients):
            probe(f"gradient of {variable.path}", gradient)
        norm = tf.linalg.global_norm(gradients)
        if clip_norm is not None:
            scale = clip_norm / tf.maximum(norm, clip_norm)
            gradients = [g * scale for g in gradients]
        rate = tf.cast(optimizer.learning_rate, tf.float32)
        optimizer.apply(gradients, variables)
        return sum_over_replicas(metrics) | {"gradient_norm": norm, "learning_rate": rate}

    return train_step


def compile_step(train_step, *, jit_compile: bool = True):
    """Return the step as one tf.function; with jit_compile it is a single XLA program, traced once."""
    return tf.function(train_step, jit_compile=jit_compile, autograph=False)


def sum_over_replicas(value):
    """Return the sum over all replicas of a tensor, or of each in a list or dict; itself where there is one."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
