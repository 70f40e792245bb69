"""For which kind of device a program is being traced: what is fastest there differs."""

import contextlib
import contextvars
from collections.abc import Iterator

import tensorflow as tf

PLATFORMS = ("cpu", "gpu", "tpu")
_told: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


@contextlib.contextmanager
def tracing_for(platform: str) -> Iterator[None]:
    """Say for which platform all that is traced within the block will be compiled, whatever TensorFlow runs on.

    Raises:
      ValueError: none of PLATFORMS.
    """
    if platform not in PLATFORMS:
        raise ValueError(f"platform {platform!r}, expected one of {PLATFORMS}")
    token = _told.set(platform)
    try:
        yield
    finally:
        _told.reset(token)


def current_platform() -> str:
    """Return "cpu", "gpu" or "tpu": what `tracing_for` said, else where TensorFlow's own strategy would run."""
    told = _told.get()
    if told is not None:
        return told
    if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy):
        return "tpu"
    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
