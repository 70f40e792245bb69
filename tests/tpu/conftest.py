"""Before TensorFlow's TPU build is imported, here and in child processes: it must not look for a TPU around it."""

from tpu_retinamask.startup import expect_no_tpu

expect_no_tpu()
