"""The runtime that a program's flags choose."""

import os

from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.training.runtimes import pjrt_runtime, tensorflow_runtime  # noqa: F401  # they take their seats
from tpu_retinamask.training.runtimes.registry import RUNTIMES, Runtime


def make_runtime(flags: Flags) -> Runtime:
    """Return the runtime of --runtime, --tpu and --replicas, where a program has these.

    Call it before anything makes TensorFlow look for devices.

    Raises:
      UserError: there is no such runtime, it is not installed, or its devices do not answer.
    """
    chosen = {name: flags[name].value for name in ("tpu", "replicas") if name in flags}
    return RUNTIMES.get(flags.runtime)(cache_dir=os.path.expanduser(flags.cache_dir), **chosen)
