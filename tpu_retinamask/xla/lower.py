"""Lowering to StableHLO, by the kernels of this machine or of a TPU: what a compiler elsewhere is given."""

import re

import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.xla.audit import source_of
from tpu_retinamask.xla.purify import PureFunction

_NODE = re.compile(r"\{\{(?:function_)?node ([^}\s]+)\}\}")


class LoweringError(UserError):
    """An operation has no kernel on a TPU; names it and the line that made it."""


def lower_for_tpu(pure: PureFunction) -> bytes:
    """Return a pure function as serialized StableHLO.

    Every operation is lowered by the kernel that a TPU would use (XLA_TPU_JIT), which needs the TPU build of
    TensorFlow but no TPU.

    Args:
      pure: from `purify`.

    Raises:
      LoweringError: an operation has no such kernel.
      RuntimeError: this TensorFlow holds no TPU kernels at all.
    """
    return _lower(pure, "on a TPU", platform_name="TPU")


def lower_on_host(pure: PureFunction) -> bytes:
    """Return a pure function as serialized StableHLO, lowered by the kernels that XLA has for this machine's CPU.

    They know nothing of the CPU: the program runs wherever PJRT has a plugin. Any TensorFlow can do it.

    Args:
      pure: from `purify`.

    Raises:
      LoweringError: an operation has no such kernel.
    """
    return _lower(pure, "of XLA")


def _lower(pure: PureFunction, whose: str, **platform: str) -> bytes:
    function = tf.function(pure.function, jit_compile=True, autograph=False)
    try:
        # The text form breaks on large boolean constants.
        return function.experimental_get_compiler_ir(*pure.specs)(stage="stablehlo_serialized", **platform)
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise LoweringError(_explain(str(error), whose, pure.origins)) from error


def has_tpu_kernels() -> bool:
    """Return whether this TensorFlow is the build that knows a TPU's kernels."""
    probe = tf.function(lambda x: x + 1.0, jit_compile=True, autograph=False)
    try:
        probe.experimental_get_compiler_ir(tf.TensorSpec([1]))(stage="stablehlo_serialized", platform_name="TPU")
    except (tf.errors.OpError, ValueError, TypeError):
        return False
    return True


def _explain(message: str, whose: str, origins: dict) -> str:
    lines = [message.strip().splitlines()[0]]
    for name in dict.fromkeys(_NODE.findall(message)):
        if name in origins:
            op = origins[name]
            lines.append(f"{op.type} {op.name!r}\n    {source_of(op) or 'source unknown'}")
    return f"no kernel {whose}: " + "\n  ".join(lines)
