"""RetinaMask instance segmentation as one static-shape XLA program."""

from importlib.util import find_spec

from tpu_retinamask.version import __version__

if find_spec("tensorflow") is None:
    raise ImportError(
        "tpu_retinamask needs a TensorFlow, and none is installed. Choose the one for your machine: "
        "`pip install 'tpu-retinamask[cpu]'`, `[gpu]` or `[tpu]`."
    )

__all__ = ["__version__"]
