"""Before TensorFlow's TPU build is imported, here and in child processes: it must not look for a TPU around it."""

import os

from tpu_retinamask.xla import aot

for name, value in aot.ENVIRONMENT.items():
    os.environ.setdefault(name, value)
