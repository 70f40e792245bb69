"""A backbone from outside the package: it joins by name, is built at its canvas, and is told what does not fit."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.backbones.registry import BACKBONES, Backbone, PretrainedWeights, make_backbone
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.pretrained.faults import WeightsError
from tpu_retinamask.pretrained.load import load_weights

SMALL = dict(
    fpn_channels=8, head_channels=8, head_depth=1, mask_channels=8, mask_depth=1, roi_size=4, anchor_sizes=(16, 32, 64)
)


@BACKBONES.register("toy_positions")
class Positions(Backbone):
    """A convolution a level upon pixels to which a weight for each place of the canvas is added."""

    def __init__(self, width=4, keep=("C3", "C4", "C5"), name=None):
        super().__init__(name=name)
        self.keep = tuple(keep)
        self.levels = [keras.layers.Conv2D(width, 1, stride, "same", name=f"at{stride}") for stride in (8, 16, 32)]

    def build(self, input_shape):
        self.positions = self.add_weight(shape=(1, *input_shape[1:3], 1), initializer="zeros", name="positions")

    def call(self, images, training=False):
        x = images + tf.cast(self.positions, images.dtype)
        found = {level: conv(x) for level, conv in zip(("C3", "C4", "C5"), self.levels)}
        return {level: found[level] for level in self.keep}

    def freezable_stages(self):
        return [[layer] for layer in self.levels]


@BACKBONES.register("toy_tuple")
class Tuple(Positions):
    def call(self, images, training=False):
        return tuple(super().call(images, training).values())


@BACKBONES.register("toy_coarse")
class Coarse(Positions):
    @property
    def strides(self):
        return {"C3": 4, "C4": 8, "C5": 16}


@BACKBONES.register("toy_wrong_side")
class WrongSide(Positions):
    def call(self, images, training=False):
        found = super().call(images, training)
        return found | {"C4": found["C5"]}


def _toy(name="toy_positions", size=(64, 96), **options):
    return RetinaMask(2, backbone=name, **SMALL, **options).create_weights(size)


def test_its_weights_are_those_of_the_canvas():
    for size in ((64, 96), (40, 56)):
        model = _toy(size=size)
        assert model.backbone.positions.shape == (1, *size, 1)
        assert model.backbone.positions.path == "retinamask/backbone/positions"
        levels = model(np.zeros((1, *size, 3), np.uint8)).class_logits
        assert [level.shape[1] for level in levels] == [len(level) for level in model.frame(size).levels]


def test_the_canvas_is_asked_for():
    with pytest.raises(TypeError, match="image_size"):
        RetinaMask(2, backbone="toy_positions", **SMALL).create_weights()


def test_options_stages_and_precision_reach_it():
    model = _toy(backbone_options={"width": 6}, frozen_stages=2, dtype="mixed_bfloat16")
    assert [layer.filters for layer in model.backbone.levels] == [6, 6, 6]
    assert [layer.trainable for layer in model.backbone.levels] == [False, False, True]
    assert model(np.zeros((1, 64, 96, 3), np.uint8)).features[0].dtype == tf.bfloat16
    with pytest.raises(SettingError, match=r"frozen_stages is 4, expected 0 .none. to 3"):
        _toy(frozen_stages=4)


def test_normalisation_goes_to_those_that_ask_for_it():
    assert not make_backbone("toy_positions", normalization="frozen").frozen_statistics
    assert make_backbone("small", normalization="frozen").frozen_statistics
    assert not make_backbone("small", normalization="group").frozen_statistics


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(
        SettingError, match=r"backbone 'resnet5' is not one of .*'toy_positions'.*did you mean 'resnet50'"
    ):
        RetinaMask(2, backbone="resnet5")


def test_an_unknown_option_is_told_with_those_that_there_are():
    with pytest.raises(
        SettingError, match=r"backbone_options \['widht'\] are not among those of 'toy_positions'.*'width'"
    ):
        _toy(backbone_options={"widht": 6})


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("toy_positions", {"keep": ("C3", "C5")}, r"64 x 96 returns C4 not at all, expected \[B, 4, 6, .\]"),
        ("toy_wrong_side", {}, r"returns C4 of shape \(1, 2, 3, 4\), expected \[B, 4, 6, .\]"),
        ("toy_tuple", {}, "returns tuple, expected a dict of"),
        ("toy_coarse", {}, r"has the strides {'C3': 4.*expected {'C3': 8"),
    ],
)
def test_levels_that_no_pyramid_fits_are_refused(name, options, words):
    with pytest.raises(SettingError, match=words):
        _toy(name, backbone_options=options)


def test_pretrained_weights_come_from_where_it_says(monkeypatch):
    model = _toy()
    kernel = np.full((1, 1, 3, 4), 0.5, np.float32)
    layers = {f"at{stride}": {"kernel": kernel, "bias": np.ones(4, np.float32)} for stride in (8, 16, 32)}
    with pytest.raises(WeightsError, match=r"no ImageNet weights for this backbone \(toy_positions\)"):
        load_weights(model, "imagenet")
    source = PretrainedWeights(read=lambda: layers, construction={"keep": ("C3", "C4", "C5")}, pixel_mode="torch")
    monkeypatch.setattr(Positions, "pretrained", source)
    with pytest.raises(WeightsError, match=r"pixel_mode = 'torch' \(the model: 'caffe'\)"):
        load_weights(model, "imagenet")
    model = _toy(pixel_mode="torch")
    assert set(load_weights(model, "imagenet").loaded) == set(layers)
    np.testing.assert_array_equal(model.backbone.levels[1].kernel, kernel)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("efficientnet_lite0", {"padding": "same"}, "['padding'] are not among those"),
        ("resnet50", {"name": "mine"}, "['name'] are not among those"),
        ("efficientnet_lite0", {"epsilon": "a"}, "cannot be built with the options {'epsilon': 'a'"),
    ],
)
def test_options_that_are_none_or_of_another_type_are_refused(name, options, words):
    with pytest.raises(SettingError, match=re.escape(words)):
        make_backbone(name, options)
