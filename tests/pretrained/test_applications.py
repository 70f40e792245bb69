"""ImageNet networks of keras.applications: their features from our backbone, for each of the three depths."""

import functools
import types

import keras
import numpy as np
import pytest

from tpu_retinamask.errors import UserError
from tpu_retinamask.model.backbones.registry import make_backbone
from tpu_retinamask.model.backbones.resnet import APPLICATION_OPTIONS
from tpu_retinamask.model.settings import NetworkSettings
from tpu_retinamask.pretrained import h5_file, keras_applications, load
from tpu_retinamask.pretrained.faults import WeightsError

# Blocks are lettered in the first and counted in the other two.
DEPTHS = ["resnet50", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet101", "resnet152"))]
ENDS = {"resnet50": (4, 6, 3), "resnet101": (4, 23, 3), "resnet152": (8, 36, 3)}  # blocks of C3, C4, C5
CLASSES = {"resnet50": "ResNet50", "resnet101": "ResNet101", "resnet152": "ResNet152"}


@functools.cache
def _source(depth):
    """Return keras.applications' network with random weights, biases and statistics that keep activations near 1."""
    model = getattr(keras.applications, CLASSES[depth])(include_top=False, weights=None)
    rng = np.random.default_rng(7)
    for layer in model.layers:
        for variable in layer.weights:
            shape, name = variable.shape, variable.name
            if name == "kernel":
                value = rng.normal(0, np.sqrt(1.0 / np.prod(shape[:-1])), shape)
            elif name in ("moving_variance", "gamma"):
                # The last normalisation of a block is small, lest 50 residual sums add up to infinity.
                value = rng.uniform(0.5, 1.5, shape) * (0.3 if name == "gamma" and "_3_bn" in layer.name else 1.0)
            else:  # bias, beta, moving_mean
                value = rng.normal(0, 0.3, shape)
            variable.assign(value)
    # Variance 0: here the epsilon is all that is divided by.
    norm = model.get_layer("conv1_bn")
    norm.moving_variance.assign(norm.moving_variance * 0.0)
    norm.gamma.assign(norm.gamma * 0.003)
    return model


class _Detector(keras.Model):
    """As much of a RetinaMask as the weights of a backbone need."""

    def __init__(self, depth, **options):
        super().__init__(name="retinamask")
        self.backbone, self.pixel_mode = make_backbone(depth, options), "caffe"

    def call(self, images):
        return self.backbone(images)


@functools.cache
def _detector(depth):
    model = _Detector(depth, **APPLICATION_OPTIONS)
    model(keras.KerasTensor((1, 64, 64, 3)))
    return model


def _load_source(depth, path=None):
    layers = keras_applications.layers_of(_source(depth)) if path is None else h5_file.read_h5(path)
    return load.assign(_detector(depth), keras_applications.to_keras_resnet(layers), "keras.applications")


@pytest.mark.parametrize("depth", DEPTHS)
def test_features_equal_those_of_keras_applications(depth):
    report = _load_source(depth)
    assert len(report.loaded) == len(load.model_layers(_detector(depth)))
    assert not (report.missing or report.unused or report.mismatched)
    names = [f"conv{stage}_block{block}_out" for stage, block in zip((3, 4, 5), ENDS[depth])]
    features = keras.Model(_source(depth).inputs, [_source(depth).get_layer(name).output for name in names])
    # An odd size; and an even one, where the places of the padding show.
    for size in ((65, 97), (64, 96)):
        images = np.random.default_rng(8).normal(0, 50, (1, *size, 3)).astype(np.float32)
        for ours, theirs in zip(_detector(depth)(images).values(), features([images])):
            assert ours.shape == theirs.shape
            theirs = np.asarray(theirs)
            assert np.abs(theirs).max() > 0.5  # a network that says nothing would agree with everything
            # Up to 150 convolutions in float32, with the bias folded elsewhere.
            np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=0)


def test_file_of_a_whole_network_loads_and_its_classifier_is_unused(tmp_path):
    model = _source("resnet50")
    pooled = keras.layers.GlobalAveragePooling2D()(model.output)
    classifier = keras.Model(model.input, keras.layers.Dense(10, name="predictions")(pooled))
    classifier.save(tmp_path / "resnet50.h5")
    report = load.load_weights(_detector("resnet50"), str(tmp_path / "resnet50.h5"))
    assert report.unused == ("predictions",) and not report.missing
    loaded = load.model_layers(_detector("resnet50"))
    norm, conv = model.get_layer("conv4_block6_2_bn"), model.get_layer("conv4_block6_2_conv")
    np.testing.assert_array_equal(loaded["res4f_branch2b"]["kernel"], conv.kernel)
    np.testing.assert_allclose(loaded["bn4f_branch2b"]["moving_mean"], norm.moving_mean - conv.bias, atol=1e-7)
    np.testing.assert_array_equal(loaded["bn4f_branch2b"]["gamma"], norm.gamma)


def test_imagenet_takes_the_network_of_the_backbones_depth(monkeypatch):
    asked = []

    def network(include_top, weights):
        asked.append((include_top, weights))
        return _source("resnet50")

    monkeypatch.setattr(keras.applications, "ResNet50", network)
    report = load.load_weights(_detector("resnet50"), "imagenet")
    assert asked == [(False, "imagenet")] and not report.missing


def test_backbone_of_another_construction_is_refused_with_the_setting_that_mends_it(monkeypatch):
    monkeypatch.setattr(keras.applications, "ResNet50", lambda **_: _source("resnet50"))
    model = types.SimpleNamespace(
        backbone=make_backbone("resnet50"), pixel_mode="caffe", settings=NetworkSettings(backbone="resnet50")
    )
    with pytest.raises(WeightsError, match="RetinaMask.backbone_options = .*'pool_padding': 'explicit'"):
        load.load_weights(model, "imagenet")


def test_networks_that_keras_applications_lacks_are_refused(monkeypatch):
    small = types.SimpleNamespace(backbone=make_backbone("small"), settings=NetworkSettings(backbone="small"))
    with pytest.raises(UserError, match=r"this backbone \(small\).*exist for resnet50, resnet101 and resnet152"):
        load.load_weights(small, "imagenet")

    def offline(**_):
        raise OSError("no route to host")

    monkeypatch.setattr(keras.applications, "ResNet50", offline)
    with pytest.raises(UserError, match="could not download.*no route to host"):
        keras_applications.download(make_backbone("resnet50").pretrained.application)
    second = {"conv1_conv": {"kernel": np.zeros(1)}, "conv2_block1_1_conv": {"kernel": np.zeros(1)}}
    with pytest.raises(UserError, match="of none of"):
        keras_applications.to_keras_resnet(second)
