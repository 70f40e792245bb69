"""Weights that follow from their names alone, so that a golden file need not hold them."""

import zlib

import numpy as np


def weights_named(shapes):
    """Return {name: float32 array} of names and shapes: kernels that keep sizes, plausible norms."""
    made = {}
    for name, shape in shapes.items():
        random = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("running_var"):
            made[name] = random.uniform(0.5, 1.5, shape)
        elif len(shape) == 4:
            made[name] = random.normal(0.0, np.sqrt(2.0 / np.prod(shape[1:])), shape)
        elif name.endswith("weight"):
            made[name] = random.uniform(0.5, 1.0, shape)
        else:
            made[name] = random.normal(0.0, 0.1, shape)
        made[name] = made[name].astype(np.float32)
    return made


def picture():
    """Return pixels [1, 64, 96, 3] uint8."""
    return np.random.default_rng(7).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
