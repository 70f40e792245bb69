"""The golden network: gin/recipe/keras_maskrcnn.gin with the weights of the manifest."""

import functools
from typing import NamedTuple

import gin
import numpy as np
import pytest
import tensorflow as tf
from golden import golden_set

from tpu_retinamask import config
from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.model.retinamask import RetinaMask

_CAFFE_MEAN = (103.939, 116.779, 123.68)


class Original(NamedTuple):
    """What the configuration builds."""

    model: RetinaMask
    criterion: Criterion
    detection_filter: DetectionFilter

    def weight(self, name):
        """Return the variable of a manifest's "layer/weight"."""
        return weights_by_name(self.model)[tuple(name.split("/"))]


def weights_by_name(model) -> dict:
    """Return {(layer, weight): variable}; the last two parts of a path are the original's names."""
    return {tuple(variable.path.split("/")[-2:]): variable for variable in model.weights}


def _configure(build, *params):
    """Return what `build()` makes under keras_maskrcnn.gin and further settings."""
    config.parse_gin(["recipe/keras_maskrcnn.gin"], params)
    try:
        return build()
    finally:
        gin.clear_config()


@pytest.fixture(scope="session")
def configure():
    """A function from `build` and settings to what `build()` makes under the configuration."""
    return _configure


@pytest.fixture(scope="session")
def manifest():
    """The list of weights."""
    return golden_set.values("model/weights_manifest")


@pytest.fixture(scope="session")
def weights(manifest):
    """{(layer, weight): array} as the manifest's formula draws them."""
    return golden_set.make_weights(manifest)


@pytest.fixture(scope="session")
def build_original(manifest, weights):
    """A function from the padding of the first convolution to Original, weights set.

    What it returns is shared by all tests: who trains it puts the weights back.
    """

    @functools.cache
    def build(conv1_padding="explicit"):
        def make():
            model = config.RetinaMask(manifest["num_classes"]).create_weights((64, 64))
            return Original(model, config.Criterion(), config.DetectionFilter())

        original = _configure(make, f"RetinaMask.backbone_options = {{'conv1_padding': '{conv1_padding}'}}")
        variables = weights_by_name(original.model)
        assert set(variables) == set(weights)
        for name, variable in variables.items():
            variable.assign(weights[name])
        return original

    return build


@pytest.fixture(scope="session")
def read_images():
    """A function from a forward file's arrays to RGB images [B, H, W, 3], uint8 where the file has them."""

    def read(arrays):
        if "image_bgr_u8" in arrays:
            return tf.constant(arrays["image_bgr_u8"][..., ::-1].copy())
        return tf.constant((arrays["x"] + np.float32(_CAFFE_MEAN))[..., ::-1].copy())

    return read


@pytest.fixture
def training_options():
    """(optimizer, clip_norm) of the configuration."""
    return _configure(lambda: (config.make_optimizer(1000), gin.query_parameter("train.clip_norm")))
