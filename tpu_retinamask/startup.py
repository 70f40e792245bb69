"""How TensorFlow is started: quietly, and without a search for a TPU where there is none; imports nothing of ours."""

import os
import sys
import tempfile

# Without them TensorFlow's TPU build asks the network for a TPU around it, for eight minutes where nobody answers.
NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else a second process is refused the library
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def expect_no_tpu() -> None:
    """Make these settings, but for those that the user has made, before TensorFlow is imported here or in a child."""
    for name, value in NO_TPU.items():
        os.environ.setdefault(name, value)


def import_tensorflow_quietly() -> None:
    """Import TensorFlow without its start-up chatter, some of which no log level silences."""
    if "tensorflow" in sys.modules:
        return
    # What fails is an exception as well; what it logs beside is such as that a program it has kept is not a text file.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:  # what it said is the reason
            said.seek(0)
            os.write(terminal, said.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
