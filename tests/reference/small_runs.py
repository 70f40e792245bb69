"""Models and optimizers of a small network, with random numbers in every variable."""

import keras
import numpy as np

from tpu_retinamask.model.retinamask import RetinaMask

SMALL = dict(
    backbone="small",
    normalization="batch",
    fpn_channels=8,
    head_channels=8,
    head_depth=1,
    mask_channels=8,
    mask_depth=1,
    anchor_sizes=(32, 64, 128),
)


def small_run(num_classes, seed):
    """Return a model and its optimizer, with numbers of the seed's in every variable."""
    model = RetinaMask(num_classes, **SMALL).create_weights((64, 64))
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    optimizer.build(model.trainable_variables)
    scramble(model, optimizer, seed)
    return model, optimizer


def scramble(model, optimizer, seed):
    rng = np.random.default_rng(seed)
    for variable in model.variables + optimizer.variables:
        if variable.dtype == "float32":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype(np.float32))
