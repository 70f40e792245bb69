"""Optimizer and learning-rate schedule from a few words."""

import keras
import tensorflow as tf

OPTIMIZERS = ("sgd", "adam", "adamw")
DECAYS = ("constant", "step", "cosine")
_NOT_DECAYED = ["bias", "gamma", "beta"]  # normalisation and bias, as the paper's recipe has it


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Scales a schedule linearly from `start_factor` to 1 over its first steps (arXiv 1706.02677)."""

    def __init__(self, schedule, steps: int, start_factor: float = 1 / 3):
        """Wrap a schedule; `steps` 0 changes nothing."""
        super().__init__()
        self.schedule, self.steps, self.start_factor = schedule, steps, start_factor

    def __call__(self, step):
        """Return the learning rate at a step, float32 scalar."""
        if not self.steps:
            return self.schedule(step)
        progress = tf.minimum(1.0, tf.cast(step, tf.float32) / self.steps)
        return self.schedule(step) * (self.start_factor + (1.0 - self.start_factor) * progress)

    def get_config(self):
        """Return the constructor's arguments."""
        return {"schedule": self.schedule, "steps": self.steps, "start_factor": self.start_factor}


class StepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Divides the rate by ten at each of the given shares of the training."""

    def __init__(self, rate: float, boundaries, factor: float = 0.1):
        """Create the schedule; `boundaries` are steps, rising."""
        super().__init__()
        self.rate, self.boundaries, self.factor = rate, tuple(boundaries), factor

    def __call__(self, step):
        """Return the learning rate at a step, float32 scalar."""
        drops = tf.reduce_sum(tf.cast(tf.cast(step, tf.int64) >= tf.constant(self.boundaries, tf.int64), tf.float32))
        return self.rate * self.factor ** drops

    def get_config(self):
        """Return the constructor's arguments."""
        return {"rate": self.rate, "boundaries": self.boundaries, "factor": self.factor}


def make_optimizer(total_steps: int, *, name: str = "sgd", learning_rate: float = 0.005, momentum: float = 0.9,
                   weight_decay: float = 0.0, warmup_steps: int = 500, decay: str = "step",
                   decay_at=(2 / 3, 8 / 9), final_factor: float = 0.01) -> keras.Optimizer:
    """Build an optimizer with its schedule.

    Args:
      total_steps: length of the training.
      name: one of OPTIMIZERS; "adam" and "adamw" are the same, decay being decoupled in both.
      learning_rate: after warm-up.
      momentum: of "sgd".
      weight_decay: decoupled, times the learning rate; bias and normalisation are left out.
      warmup_steps: cut to a tenth of the training when that is shorter.
      decay: one of DECAYS.
      decay_at: shares of the training at which "step" divides the rate by ten (the paper's 1.5x
        schedule: 180k and 240k of 270k).
      final_factor: share of the rate at which "cosine" ends.

    Returns:
      An optimizer whose variables are not built yet. It does not clip: the training step does.

    Raises:
      ValueError: unknown name or decay.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"make_optimizer: name {name!r} is not one of {OPTIMIZERS}")
    if decay not in DECAYS:
        raise ValueError(f"make_optimizer: decay {decay!r} is not one of {DECAYS}")
    if decay == "cosine":
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, total_steps, alpha=final_factor)
    elif decay == "step":
        schedule = StepDecay(learning_rate, [int(share * total_steps) for share in decay_at])
    else:
        schedule = StepDecay(learning_rate, [])
    schedule = WarmUp(schedule, min(warmup_steps, total_steps // 10))
    decayed = {"weight_decay": weight_decay or None}
    if name == "sgd":
        optimizer = keras.optimizers.SGD(schedule, momentum=momentum, **decayed)
    else:
        # Keras's Adam decays weights as its AdamW does, which only refuses to do without decay.
        optimizer = keras.optimizers.Adam(schedule, **decayed)
    optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    return optimizer
