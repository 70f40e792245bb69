"""Optimizer and learning-rate schedule from a few words."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tpu_retinamask.errors import SettingError
from tpu_retinamask.private.keras_names import variable_index
from tpu_retinamask.setting_types import check_between, check_least, check_names, check_types, named

OPTIMIZERS = ("sgd", "adam", "adamw")
DECAYS = ("constant", "step", "cosine")
_NOT_DECAYED = ["bias", "gamma", "beta"]  # normalisation and bias, as the paper's recipe has it
_BIASES = ["bias", "beta"]  # beta is what PyTorch calls the bias of a normalisation


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Scales a schedule linearly from `start_factor` to 1, which update number `steps` has (arXiv 1706.02677)."""

    def __init__(
        self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int, start_factor: float = 1 / 3
    ) -> None:
        """Wrap a schedule; `steps` 0 changes nothing."""
        super().__init__()
        self.schedule, self.steps, self.start_factor = schedule, steps, start_factor

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Return the learning rate at a step, float32 scalar."""
        if not self.steps:
            return self.schedule(step)
        progress = tf.minimum(1.0, (tf.cast(step, tf.float32) + 1.0) / self.steps)
        return self.schedule(step) * (self.start_factor + (1.0 - self.start_factor) * progress)

    def get_config(self) -> dict:
        """Return the constructor's arguments."""
        return {"schedule": self.schedule, "steps": self.steps, "start_factor": self.start_factor}


class StepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Divides the rate by ten at each of the given updates; the first is number 1, at step 0."""

    def __init__(self, rate: float, boundaries: Sequence[int], factor: float = 0.1) -> None:
        """Create the schedule; `boundaries` are numbers of updates, rising."""
        super().__init__()
        self.rate, self.boundaries, self.factor = rate, tuple(boundaries), factor

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Return the learning rate at a step, float32 scalar."""
        update = tf.cast(step, tf.int64) + 1
        drops = tf.reduce_sum(tf.cast(update >= tf.constant(self.boundaries, tf.int64), tf.float32))
        return self.rate * self.factor**drops

    def get_config(self) -> dict:
        """Return the constructor's arguments."""
        return {"rate": self.rate, "boundaries": self.boundaries, "factor": self.factor}


class _ByKind(keras.optimizers.Optimizer):
    """Before a Keras optimizer: kernels are decayed through their gradients, biases have a rate of their own."""

    def __init__(
        self,
        *args: Any,
        coupled_decay: float = 0.0,
        bias_rate: float = 1.0,
        backbone_rate: float = 1.0,
        **kwargs: Any,
    ) -> None:
        """Take the arguments of the optimizer.

        Args:
          *args: of the optimizer.
          coupled_decay: share of each kernel that is added to its gradient (L2 regularisation).
          bias_rate: factor of the learning rate for biases, those of normalisation too.
          backbone_rate: factor of the learning rate for what lies in the backbone.
          **kwargs: of the optimizer.
        """
        super().__init__(*args, **kwargs)
        self.coupled_decay, self.bias_rate, self.backbone_rate = coupled_decay, bias_rate, backbone_rate

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Note of which kind each variable is."""
        super().build(variables)
        names = [variable.path.rsplit("/", 1)[-1] for variable in variables]
        self.decayed = [name not in _NOT_DECAYED for name in names]
        self.is_bias = [name in _BIASES for name in names]
        self.of_backbone = ["backbone" in variable.path.split("/") for variable in variables]

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable by its gradient, its decay and its rate."""
        index = variable_index(self, variable)
        if self.coupled_decay and self.decayed[index]:
            gradient = gradient + self.coupled_decay * variable
        if self.bias_rate != 1.0 and self.is_bias[index]:
            learning_rate = learning_rate * self.bias_rate
        if self.backbone_rate != 1.0 and self.of_backbone[index]:
            learning_rate = learning_rate * self.backbone_rate
        super().update_step(gradient, variable, learning_rate)


class _GradientMomentum(keras.optimizers.SGD):
    """SGD whose momentum holds gradients, as PyTorch's: a change of the rate tells at the very step."""

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable: `v = momentum v + g; w -= rate v`."""
        if self.momentum:
            velocity = self.momentums[variable_index(self, variable)]
            # Two updates, not one sum: with a coupled decay that would be of three, which TensorFlow, short of memory,
            # adds in the order in which they are ready. Replicas do so each for itself, and would drift apart.
            self.assign(velocity, self.momentum * velocity)
            self.assign_add(velocity, gradient)
            gradient = velocity
        self.assign_sub(variable, learning_rate * gradient)


# Named like what they extend: a checkpoint lists the variables of an optimizer below the name of its class.
class SGD(_ByKind, _GradientMomentum):
    """Stochastic gradient descent."""


class KerasSGD(_ByKind, keras.optimizers.SGD):
    """Stochastic gradient descent whose momentum holds steps: `v = momentum v - rate g; w += v`."""


class Adam(_ByKind, keras.optimizers.Adam):
    """Adam."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Settings of an optimizer and its schedule; gin knows them as `make_optimizer`.

    Attributes:
      name: one of OPTIMIZERS. SGD is `v = momentum v + g; w -= rate v`.
      learning_rate: after warm-up.
      reference_batch: images a step that `learning_rate` and `warmup_steps` are given for: the rate is multiplied,
        the warm-up divided by batch_size / reference_batch (arXiv 1706.02677); None: both are taken as given.
      momentum: of "sgd".
      rate_in_momentum: SGD is `v = momentum v - rate g; w += v`, as Keras has it: after a change of the rate, steps of
        the former one go on in the momentum.
      bias_rate: factor of the rate for biases; the paper has 2.
      backbone_rate: factor of the rate for the backbone, whose pretrained weights want smaller steps than new heads; a
        decoupled decay keeps the whole rate.
      weight_decay: of kernels; bias and normalisation are left out.
      decoupled: the decay shrinks the weight by rate * weight_decay of itself (arXiv 1711.05101), beside momentum
        and moments; False: it is added to the gradient. None: decoupled for "adamw", the one thing that sets it
        apart from "adam".
      warmup_steps: cut to a tenth of the training when that is shorter.
      decay: one of DECAYS.
      decay_at: shares of the training at which "step" divides the rate by ten (the paper's 1.5x
        schedule: 180k and 240k of 270k).
      final_factor: share of the rate at which "cosine" ends.

    Raises:
      SettingError: a value of another type, or none of those that there are.
    """

    name: str = "sgd"
    learning_rate: float = 0.005
    reference_batch: int | None = None
    momentum: float = 0.9
    rate_in_momentum: bool = False
    bias_rate: float = 1.0
    backbone_rate: float = 1.0
    weight_decay: float = 1e-4
    decoupled: bool | None = None
    warmup_steps: int = 500
    decay: str = "step"
    decay_at: tuple[float, ...] = (2 / 3, 8 / 9)
    final_factor: float = 0.01

    def __post_init__(self) -> None:
        check_types(self)
        for name, known in (("name", OPTIMIZERS), ("decay", DECAYS)):
            if getattr(self, name) not in known:
                raise SettingError(f"{name} {getattr(self, name)!r} is not one of {known}")
        check_least(named(self, "learning_rate", "reference_batch"), 0, above=True)
        check_least(named(self, "bias_rate", "backbone_rate", "weight_decay", "warmup_steps"), 0)
        check_between(named(self, "momentum", "decay_at", "final_factor"), 0, 1)

    def build(self, total_steps: int, batch_size: int | None = None) -> keras.Optimizer:
        """Build the optimizer.

        Args:
          total_steps: length of the training.
          batch_size: images of the global batch; needed with `reference_batch` only.

        Returns:
          An optimizer whose variables are not built yet. It does not clip: the training step does.

        Raises:
          SettingError: reference_batch without batch_size.
        """
        rate, warmup_steps = self.learning_rate, self.warmup_steps
        if self.reference_batch is not None:
            if batch_size is None:
                raise SettingError("reference_batch scales the rate to batch_size, which is not given")
            rate *= batch_size / self.reference_batch
            warmup_steps = round(warmup_steps * self.reference_batch / batch_size)
        if self.decay == "cosine":
            schedule = keras.optimizers.schedules.CosineDecay(rate, total_steps, alpha=self.final_factor)
        else:
            shares = self.decay_at if self.decay == "step" else ()
            schedule = StepDecay(rate, [round(share * total_steps) for share in shares])
        schedule = WarmUp(schedule, min(warmup_steps, total_steps // 10))
        options: dict[str, Any] = {"bias_rate": self.bias_rate, "backbone_rate": self.backbone_rate}
        kind: type[keras.optimizers.Optimizer] = Adam
        if self.name == "sgd":
            kind, options["momentum"] = KerasSGD if self.rate_in_momentum else SGD, self.momentum
        if not self.weight_decay:
            return kind(schedule, **options)
        if not (self.name == "adamw" if self.decoupled is None else self.decoupled):
            return kind(schedule, coupled_decay=self.weight_decay, **options)
        # Keras's Adam decays weights as its AdamW does.
        optimizer = kind(schedule, weight_decay=self.weight_decay, **options)
        optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
        return optimizer


def make_optimizer(total_steps: int, *, batch_size: int | None = None, **settings: Any) -> keras.Optimizer:
    """Build an optimizer of single settings; see `OptimizerSettings`."""
    check_names(OptimizerSettings, settings, "make_optimizer")
    return OptimizerSettings(**settings).build(total_steps, batch_size)
