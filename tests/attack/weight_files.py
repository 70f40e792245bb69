"""Files of weights under attack: small ones of each kind, and how they are read."""

import math
import pickle

import numpy as np
from reference.keras_snapshot import write_snapshot
from reference.torch_writers import View


def _arrays():
    return {"conv/kernel": np.arange(8, dtype=np.float32).reshape(2, 4), "conv/bias": np.ones(4, np.float32)}


def _described(found):
    """Return names, shapes and bytes of arrays, after a look at whether each is one of numbers."""
    told = []
    for name, array in sorted(found.items()):
        array = np.asarray(array)
        assert array.dtype.kind in "fiub" and math.prod(array.shape) == array.size <= 1 << 20, (name, array.dtype)
        told.append((name, array.shape, str(array.dtype), array.tobytes()))
    return told


def lay_h5(folder):
    write_snapshot(
        folder / "weights.h5", {"conv": {"kernel": _arrays()["conv/kernel"], "bias": np.ones(4, np.float32)}}
    )
    return ""


def read_h5(folder, _):
    from tpu_retinamask.pretrained.h5_file import read_h5

    layers = read_h5(str(folder / "weights.h5"))
    return _described(
        {f"{layer}/{name}": value for layer, weights in layers.items() for name, value in weights.items()}
    )


def torch(write):
    def lay(folder):
        state = {name: View(value.ravel(), 0, value.shape, (4, 1)[-value.ndim :]) for name, value in _arrays().items()}
        write(folder / "weights.pth", state)
        return ""

    def read(folder, _):
        from tpu_retinamask.pretrained.torch_file import read_torch

        return _described(read_torch(str(folder / "weights.pth")))

    return lay, read


def lay_pkl(folder):
    (folder / "weights.pkl").write_bytes(pickle.dumps({"model": _arrays(), "__author__": "x"}, 4))
    return ""


def read_pkl(folder, _):
    from tpu_retinamask.pretrained.array_pickle import read_array_pickle

    return _described(read_array_pickle(str(folder / "weights.pkl")))
