"""Which RoIAlign a program holds, by the platform that it is lowered for."""

import pytest
import tensorflow as tf

from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.traced_for import PLATFORMS, current_platform, tracing_for

SMALL = {"backbone": "small", "fpn_channels": 8, "head_depth": 1, "head_channels": 8, "mask_depth": 1, "roi_size": 7}


@pytest.fixture(scope="module")
def model():
    """A network that chooses by itself."""
    made = RetinaMask(2, **SMALL, mask_channels=8).create_weights((128, 128))
    assert made.settings.roi_implementation == "auto"
    return made


def lowered(model, platform):
    """Return RoIAlign with its backward pass, and the mask head, as XLA is given them."""
    levels = [tf.TensorSpec([1, side, side, 8]) for side in (16, 8, 4, 2, 1)]

    def losses_and_gradients(boxes, *features):
        with tracing_for(platform), tf.GradientTape() as tape:
            tape.watch(features)
            # Masks of all classes: the gradient of a gathered class' kernel is a scatter of its own, a small one.
            loss = tf.reduce_sum(model.mask_logits(features, boxes, None, (128, 128)) ** 2)
        gradients = tape.gradient(loss, features, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, *gradients

    function = tf.function(losses_and_gradients, jit_compile=True, autograph=False)
    return function.experimental_get_compiler_ir(tf.TensorSpec([1, 3, 4]), *levels)(stage="hlo")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_scatters_are_for_cpus_alone(model, platform):
    assert (" scatter(" in lowered(model, platform)) == (platform == "cpu")


def test_what_is_told_holds_within_the_block():
    before = current_platform()
    with tracing_for("tpu"):
        assert current_platform() == "tpu"
        with tracing_for("gpu"):
            assert current_platform() == "gpu"
        assert current_platform() == "tpu"
    assert current_platform() == before


def test_an_unknown_platform_is_refused():
    with pytest.raises(ValueError, match="'npu', expected one of"), tracing_for("npu"):
        pass
