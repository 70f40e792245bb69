"""Weights of torchvision's and detectron2's detectors: features equal to torchvision's, and what is not taken."""

import json
import pathlib
import pickle
import re

import keras
import numpy as np
import pytest
from reference.named_weights import picture, weights_named

from tpu_retinamask.model.backbones.registry import make_backbone
from tpu_retinamask.model.fpn import FeaturePyramid
from tpu_retinamask.model.heads import MaskHead
from tpu_retinamask.model.settings import NetworkSettings
from tpu_retinamask.ops.images import normalize_images
from tpu_retinamask.pretrained import load
from tpu_retinamask.pretrained.array_pickle import read_array_pickle
from tpu_retinamask.pretrained.detector_names import DETECTRON2, TORCHVISION, recognise, to_our_layers
from tpu_retinamask.pretrained.faults import WeightsError

GOLDEN = np.load(pathlib.Path(__file__).resolve().parents[1] / "golden_torchvision" / "features.npz")
RETINANET, MASKRCNN = "retinanet_resnet50_fpn", "maskrcnn_resnet50_fpn"


def _tensors(detector):
    return weights_named(json.loads(str(GOLDEN[f"{detector}/shapes"])))


class _Detector(keras.Model):
    """As much of a RetinaMask as these weights meet."""

    def __init__(self, pixel_mode="torch", **options):
        super().__init__(name="retinamask")
        self.backbone, self.pixel_mode = make_backbone("resnet50", options), pixel_mode
        self.fpn, self.mask_head = FeaturePyramid(), MaskHead(5, channels=256, upsample="deconv")
        self.mask_head.build((None, 14, 14, 256))
        self.settings = NetworkSettings()

    def build(self, input_shape):
        self.built = True

    def call(self, images):
        levels = self.backbone(images)
        return levels, self.fpn(levels)


@pytest.fixture(scope="module")
def model():
    model = _Detector(stride_in_1x1=False)
    model(normalize_images(picture(), None, "torch"))
    return model


def _assert_close(ours, theirs):
    assert np.abs(theirs).max() > 0.1  # a network that says nothing would agree with everything
    np.testing.assert_allclose(np.asarray(ours)[..., ::16], theirs, atol=1e-4 * np.abs(theirs).max(), rtol=0)


@pytest.mark.parametrize("detector", [RETINANET, MASKRCNN])
def test_features_equal_those_of_torchvision(model, detector, monkeypatch):
    """Of the same weights, to float32's rounding over 53 convolutions in another order of sums."""
    monkeypatch.setattr(load, "read_torch", lambda path: _tensors(detector))
    monkeypatch.setattr(load, "is_torch_file", lambda path: True)
    report = load.load_weights(model, "weights.pth")
    assert len([name for name in report.loaded if name.startswith(("res", "conv1"))]) == 53
    levels, pyramid = model(normalize_images(picture(), None, "torch"))
    shift = {RETINANET: 1, MASKRCNN: 0}[detector]  # of the first level that it has: C3, C2
    for level in (3, 4, 5):
        key = level - 2 - shift
        _assert_close(levels[f"C{level}"], GOLDEN[f"{detector}/C{key}"])
        _assert_close(pyramid[level - 3], GOLDEN[f"{detector}/P{key}"])
    if detector == RETINANET:
        _assert_close(pyramid[3], GOLDEN[f"{detector}/Pp6"])
        _assert_close(pyramid[4], GOLDEN[f"{detector}/Pp7"])
    else:
        maps = np.random.default_rng(8).normal(size=(2, 256, 14, 14)).astype(np.float32).transpose(0, 2, 3, 1)
        for layer in (*model.mask_head.hidden, model.mask_head.features):
            maps = layer(maps)
        _assert_close(maps, GOLDEN[f"{detector}/mask_features"])
        assert {"C2_reduced", "P2"} <= set(report.unused) and {"P6", "P7"} <= set(report.missing)
        assert list(report.mismatched) == ["roi_mask"]  # for 91 classes, and not refused


@pytest.mark.parametrize(
    "pixel_mode, options, words",
    [
        ("torch", {}, r"backbone.stride_in_1x1 = False \(the model: True\)"),
        ("caffe", {"stride_in_1x1": False}, r"pixel_mode = 'torch' \(the model: 'caffe'\)"),
    ],
)
def test_another_construction_is_refused_with_the_setting_that_mends_it(pixel_mode, options, words, monkeypatch):
    monkeypatch.setattr(load, "read_torch", lambda path: {"layer1.0.conv1.weight": np.zeros((64, 64, 1, 1))})
    monkeypatch.setattr(load, "is_torch_file", lambda path: True)
    with pytest.raises(WeightsError, match=words):
        load.load_weights(_Detector(pixel_mode, **options), "weights.pth")


def _as_detectron2(name):
    """Return detectron2's name of a tensor of torchvision's Mask R-CNN."""
    name = re.sub(r"backbone\.body\.layer(\d)", lambda m: f"backbone.bottom_up.res{int(m[1]) + 1}", name)
    name = re.sub(r"backbone\.body\.", "backbone.bottom_up.stem.", name)
    name = re.sub(r"downsample\.0", "shortcut", re.sub(r"downsample\.1", "shortcut.norm", name))
    name = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", name)
    name = re.sub(r"fpn\.inner_blocks\.(\d)\.0", lambda m: f"fpn_lateral{int(m[1]) + 2}", name)
    name = re.sub(r"fpn\.layer_blocks\.(\d)\.0", lambda m: f"fpn_output{int(m[1]) + 2}", name)
    name = re.sub(r"mask_head\.(\d)\.0", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}", name)
    return name.replace("mask_predictor.conv5_mask", "mask_head.deconv").replace(
        "mask_predictor.mask_fcn_logits", "mask_head.predictor"
    )


def test_detectron2s_names_are_those_of_the_same_layers():
    tensors = _tensors(MASKRCNN)
    renamed = {_as_detectron2(name): array for name, array in tensors.items()}
    assert "backbone.bottom_up.res3.0.shortcut.norm.running_mean" in renamed
    assert (recognise(tensors), recognise(renamed)) == (TORCHVISION, DETECTRON2)
    theirs, ours = to_our_layers(renamed, DETECTRON2), to_our_layers(tensors, TORCHVISION)
    assert theirs.keys() == ours.keys() and {"bn3a_branch1", "res4f_branch2c", "roi_mask_features"} <= theirs.keys()
    for layer, weights in ours.items():
        assert theirs[layer].keys() == weights.keys(), layer
        for name, array in weights.items():
            np.testing.assert_array_equal(theirs[layer][name], array)


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("head.classification_head.conv.2.0.weight", "pyramid_classification_2"),
        ("head.classification_head.conv.4.weight", "pyramid_classification_2"),  # torchvision before 0.13
        ("head.regression_head.conv.6.bias", "pyramid_regression_3"),
        ("head.regression_head.bbox_reg.weight", "head.regression_head.bbox_reg"),  # of other anchors
        ("backbone.fpn.inner_blocks.1.weight", "C4_reduced"),
        ("roi_heads.mask_head.mask_fcn4.weight", "roi_mask_3"),
    ],
)
def test_names_of_either_age_are_known(theirs, ours):
    blocks = {(2, 3), (3, 4), (4, 6), (5, 3)}
    body = {
        f"backbone.body.layer{stage - 1}.{count - 1}.conv3.weight": np.zeros((4, 1, 1, 1)) for stage, count in blocks
    }
    pyramid = {f"backbone.fpn.inner_blocks.{index}.weight": np.zeros((4, 4, 1, 1)) for index in range(3)}
    assert ours in to_our_layers({**body, **pyramid, theirs: np.zeros((4, 4, 1, 1))}, TORCHVISION)


def test_a_resnet_of_other_blocks_is_refused():
    with pytest.raises(WeightsError, match=r"\(2, 2, 2, 2\) blocks a stage, expected one of resnet50 \(3, 4, 6, 3\)"):
        to_our_layers({f"layer{stage}.1.conv2.weight": np.zeros((4, 4, 3, 3)) for stage in (1, 2, 3, 4)}, TORCHVISION)


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("wrapped", [True, False])
def test_pickled_arrays_are_read(tmp_path, protocol, wrapped):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "turned": np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
        "long": np.arange(300, dtype=np.int64),
        "none": np.zeros((0, 3), np.float32),
    }
    path = tmp_path / "model.pkl"
    state = {"model": arrays, "__author__": "somebody", "matching_heuristics": True} if wrapped else arrays
    path.write_bytes(pickle.dumps(state, protocol))
    found = read_array_pickle(str(path))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


class _Shell:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    "state, words",
    [
        ({"a": _Shell()}, "the name (builtins|__builtin__).print, expected tensors"),
        ({"a": np.array([object()])}, "numpy.dtype with other arguments"),
        ({"a": np.arange(3, dtype=">f4")}, "another order of bytes"),
        ({"a": 3}, "kind int by the name 'a', expected an array"),
        ([], "kind list, expected a dictionary of arrays"),
        ({"model": {}}, "kind dict, expected a dictionary of arrays"),
    ],
)
def test_what_is_no_dictionary_of_arrays_is_refused_and_nothing_is_run(tmp_path, capsys, state, words):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(state, 4))
    with pytest.raises(WeightsError, match=words):
        read_array_pickle(str(path))
    assert not capsys.readouterr().out


def test_a_pickle_that_was_cut_or_changed_is_read_or_refused_by_name(tmp_path):
    whole = pickle.dumps({"model": {"a": np.arange(4, dtype=np.float32)}}, 4)
    path, random = tmp_path / "model.pkl", np.random.default_rng(0)
    changed = [whole[:length] for length in range(len(whole))]
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] = random.integers(256)
        changed.append(bytes(damaged))
    refused = 0
    for content in changed:
        path.write_bytes(content)
        try:
            read_array_pickle(str(path))
        except WeightsError:
            refused += 1
    assert refused > len(whole)
