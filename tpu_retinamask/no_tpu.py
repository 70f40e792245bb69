"""Settings with which TensorFlow's TPU build starts on a machine that has no TPU; imports nothing of ours.

Without them `import tensorflow` asks the network for a TPU around it, for eight minutes where nobody answers.
"""

import os

ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else a second process is refused the library
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def expect_no_tpu():
    """Make the settings, but for those that the user has made, before TensorFlow is imported here or in a child."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
