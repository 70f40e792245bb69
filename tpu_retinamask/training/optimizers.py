"""Optimizer and learning-rate schedule from a few words."""

import keras
import tensorflow as tf

OPTIMIZERS = ("sgd", "adam", "adamw")
DECAYS = ("constant", "step", "cosine")
_NOT_DECAYED = ["bias", "gamma", "beta"]  # normalisation and bias, as the paper's recipe has it


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Scales a schedule linearly from `start_factor` to 1 over its first steps (arXiv 1706.02677)."""

    def __init__(self, schedule, steps: int, start_factor: float = 1 / 3) -> None:
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

    def __init__(self, rate: float, boundaries, factor: float = 0.1) -> None:
        """Create the schedule; `boundaries` are steps, rising."""
        super().__init__()
        self.rate, self.boundaries, self.factor = rate, tuple(boundaries), factor

    def __call__(self, step):
        """Return the learning rate at a step, float32 scalar."""
        drops = tf.reduce_sum(tf.cast(tf.cast(step, tf.int64) >= tf.constant(self.boundaries, tf.int64), tf.float32))
        return self.rate * self.factor**drops

    def get_config(self):
        """Return the constructor's arguments."""
        return {"rate": self.rate, "boundaries": self.boundaries, "factor": self.factor}


def _with_coupled_decay(base):
    """Return a Keras optimizer class whose weight decay is added to the gradient (L2 regularisation)."""

    class Coupled(base):
        """The base class, its gradients increased by `coupled_decay` times each kernel."""

        def __init__(self, *args, coupled_decay: float, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            self.coupled_decay = coupled_decay

        def build(self, variables):
            super().build(variables)
            self.decayed = [variable.path.rsplit("/", 1)[-1] not in _NOT_DECAYED for variable in variables]

        def update_step(self, gradient, variable, learning_rate):
            if self.decayed[self._get_variable_index(variable)]:
                gradient = gradient + self.coupled_decay * variable
            super().update_step(gradient, variable, learning_rate)

    Coupled.__name__ = base.__name__
    return Coupled


def make_optimizer(
    total_steps: int,
    *,
    batch_size: int | None = None,
    name: str = "sgd",
    learning_rate: float = 0.005,
    reference_batch: int | None = None,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    decoupled: bool | None = None,
    warmup_steps: int = 500,
    decay: str = "step",
    decay_at=(2 / 3, 8 / 9),
    final_factor: float = 0.01,
) -> keras.Optimizer:
    """Build an optimizer with its schedule.

    Args:
      total_steps: length of the training.
      batch_size: images of the global batch; needed with `reference_batch` only.
      name: one of OPTIMIZERS. SGD is `v = momentum v - rate g; w += v`.
      learning_rate: after warm-up.
      reference_batch: images a step that `learning_rate` and `warmup_steps` are given for: the rate is multiplied,
        the warm-up divided by batch_size / reference_batch (arXiv 1706.02677); None: both are taken as given.
      momentum: of "sgd".
      weight_decay: of kernels; bias and normalisation are left out.
      decoupled: the decay shrinks the weight by rate * weight_decay of itself (arXiv 1711.05101), beside momentum
        and moments; False: it is added to the gradient. None: decoupled for "adamw", the one thing that sets it
        apart from "adam".
      warmup_steps: cut to a tenth of the training when that is shorter.
      decay: one of DECAYS.
      decay_at: shares of the training at which "step" divides the rate by ten (the paper's 1.5x
        schedule: 180k and 240k of 270k).
      final_factor: share of the rate at which "cosine" ends.

    Returns:
      An optimizer whose variables are not built yet. It does not clip: the training step does.

    Raises:
      ValueError: unknown name or decay; reference_batch without batch_size.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"make_optimizer: name {name!r} is not one of {OPTIMIZERS}")
    if decay not in DECAYS:
        raise ValueError(f"make_optimizer: decay {decay!r} is not one of {DECAYS}")
    if reference_batch is not None:
        if batch_size is None:
            raise ValueError("make_optimizer: reference_batch scales the rate to batch_size, which is not given")
        learning_rate *= batch_size / reference_batch
        warmup_steps = round(warmup_steps * reference_batch / batch_size)
    if decay == "cosine":
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, total_steps, alpha=final_factor)
    elif decay == "step":
        schedule = StepDecay(learning_rate, [round(share * total_steps) for share in decay_at])
    else:
        schedule = StepDecay(learning_rate, [])
    schedule = WarmUp(schedule, min(warmup_steps, total_steps // 10))
    base, options = (keras.optimizers.SGD, {"momentum": momentum}) if name == "sgd" else (keras.optimizers.Adam, {})
    if not weight_decay:
        return base(schedule, **options)
    if not (name == "adamw" if decoupled is None else decoupled):
        return _with_coupled_decay(base)(schedule, coupled_decay=weight_decay, **options)
    # Keras's Adam decays weights as its AdamW does.
    optimizer = base(schedule, weight_decay=weight_decay, **options)
    optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    return optimizer
