"""The debug step names the first tensor that is not finite."""

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.debug import TensorStatistics, debug_step
from tpu_retinamask.training.step import make_train_step

pytestmark = pytest.mark.ci  # steps are run one operation after the other


@pytest.fixture
def debug(small_model, built_optimizer, make_batch):
    """Run the debug step: debug(spoil=function of the model, batch=..., criterion options) -> (name, lines, model)."""

    def run(spoil=lambda model: None, batch=None, **options):
        model = small_model(normalization="batch")
        optimizer = built_optimizer(model)
        spoil(model)
        criterion = Criterion(**{"mask_rois": 8, "mask_rois_from_detections": 0, **options})
        lines = []

        def make_step(probe):
            return make_train_step(
                model, criterion, optimizer, clip_norm=1.0, probe=probe, box_statistics=BoxStatistics()
            )

        name = debug_step(make_step, model, make_batch(3, 2) if batch is None else batch, lines.append)
        return name, lines, model

    return run


def _put_nan(variable):
    value = variable.numpy()
    value.flat[5] = np.nan
    variable.assign(value)


def test_a_sound_step_names_nothing(debug):
    name, lines, model = debug()
    assert name is None
    assert not any("^^^" in line for line in lines)
    names = [line.split()[:2] for line in lines]
    order = [
        names.index(expected)
        for expected in (
            ["batch.image", "[2,"],
            ["targets.labels", "[2,"],
            ["layer", "stem"],
            ["layer", "res3a_branch2a"],
            ["layer", "P5"],
            ["layer", "pyramid_classification_0"],
            ["outputs.class_logits[0]", "[2,"],
            ["mask_rois.boxes", "[2,"],
            ["mask_logits", "[2,"],
            ["gradient", "of"],
            ["metrics.loss", "[]"],
        )
    ]
    assert order == sorted(order)  # lines come in the order of computation
    for variable in model.trainable_variables:  # long names are cut at the front
        assert any(line.startswith(f"gradient of {variable.path}"[-64:]) for line in lines), variable.path


def test_the_statistics_are_those_of_the_tensor(debug):
    _, lines, _ = debug()
    (line,) = [line for line in lines if line.startswith("batch.has_mask")]
    minimum, mean, maximum = line.split("]")[1].split()
    assert (float(minimum), float(mean), float(maximum)) == (0.0, 0.3125, 1.0)  # 3 + 2 of 2 * 8


def test_a_weight_is_named(debug):
    def spoil(model):
        _put_nan(model.fpn.smooth[1].kernel)

    name, lines, _ = debug(spoil)
    assert name == "variable retinamask/fpn/P4/kernel"
    assert [line for line in lines if "^^^" in line] == [
        "^^^ first tensor that is not finite: variable retinamask/fpn/P4/kernel (1 of 2304 values)"
    ]


def test_a_layer_that_overflows_is_named(debug):
    def spoil(model):
        call = model.fpn.smooth[1].call
        model.fpn.smooth[1].call = lambda x: call(x) * float("inf")  # its weights are sound

    assert debug(spoil)[0] == "layer P4"


def test_a_deep_layer_is_named_and_not_what_follows_it(debug):
    def spoil(model):
        model.backbone.stages[2][1].second.kernel.assign(tf.fill(model.backbone.stages[2][1].second.kernel.shape, 3e38))

    name, lines, _ = debug(spoil)
    assert name == "layer res4b_branch2b"
    assert any(line.startswith("layer bn4b_branch2b") and line.split()[-1].isdigit() for line in lines)


def test_an_image_is_named(debug, make_batch):
    batch = make_batch(3, 2)
    pixels = tf.cast(batch.image, tf.float32) + tf.constant([0.0, float("nan"), 0.0])
    assert debug(batch=batch._replace(image=pixels))[0] == "batch.image"


def test_a_gradient_is_named(debug):
    name, lines, _ = debug(mask_weight=1e39)
    assert name.startswith("gradient of retinamask/")
    assert any(line.startswith("metrics.mask_loss") and line.endswith("  ") for line in lines)  # the loss was sound


def test_layers_are_left_as_they_were(debug):
    _, _, model = debug()
    assert model.fpn.smooth[1].call.__name__ == "call"


def test_statistics_skip_what_is_empty_and_keep_the_first():
    lines = []
    statistics = TensorStatistics(lines.append)
    statistics("nothing", tf.zeros([0, 4]))
    statistics("pair", (tf.ones([2]), {"late": tf.constant([np.inf, 2.0, -3.0])}))
    statistics("later", tf.constant(np.nan))
    assert statistics.first_bad == "pair[1].late"
    assert not any(line.startswith("nothing") for line in lines)
    (line,) = [line for line in lines if line.startswith("pair[1].late")]
    assert line.split()[2:] == ["-3", "-0.5", "2", "1"]  # of the finite values; one is not


def test_bfloat16_is_read():
    statistics = TensorStatistics(lambda line: None)
    statistics("half", tf.constant([1.0, np.nan], tf.bfloat16))
    assert statistics.first_bad == "half"
