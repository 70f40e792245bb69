"""EfficientNet-Lite: its blocks, where its windows lie, and that what is beside a picture does not matter."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from reference import scenes

from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.backbones.efficientnet_lite import EfficientNetLite, scaled_width
from tpu_retinamask.model.backbones.registry import make_backbone
from tpu_retinamask.model.layers.content import Content, relu6_of_content
from tpu_retinamask.model.retinamask import RetinaMask

pytestmark = pytest.mark.ci  # many networks are made

_PICTURE, _CANVAS = (75, 90), (96, 130)  # no level divides them


@functools.cache
def _backbone(**options):
    backbone = EfficientNetLite(0.25, **options)
    backbone(np.zeros((1, 64, 64, 3), np.float32))
    scenes.fill_weights(backbone, 4)
    for variable in backbone.weights:
        if variable.path.endswith("_depthwise/kernel"):  # which sees one channel, not all that it was drawn for
            variable.assign(variable * np.sqrt(variable.shape[2]))
    return backbone


def _image(size, seed=0):
    return np.random.default_rng(seed).normal(size=(1, *size, 3)).astype(np.float32)


def _assert_same(levels, expected):
    for ours, theirs in zip(levels.values(), expected.values(), strict=True):
        theirs = np.asarray(theirs)
        assert np.abs(theirs).max() > 1e-3 and np.std(theirs) > 1e-4  # something to compare
        ours = np.asarray(ours)[:, : theirs.shape[1], : theirs.shape[2]]
        # Some fifty layers of float32 sums in another order, divided by the deviation of as few as nine cells.
        np.testing.assert_allclose(ours, theirs, atol=3e-4 * np.abs(theirs).max(), rtol=0)


def test_scaled_networks_have_the_blocks_and_widths_of_the_paper():
    found = {}
    for name in ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"):
        backbone = make_backbone(name)
        widths = [stage[0].project[0].filters for stage in backbone.stages]
        found[name] = ([len(stage) for stage in backbone.stages], widths)
    assert found == {
        "efficientnet_lite0": ([1, 2, 2, 3, 3, 4, 1], [16, 24, 40, 80, 112, 192, 320]),
        "efficientnet_lite1": ([1, 3, 3, 4, 4, 5, 1], [16, 24, 40, 80, 112, 192, 320]),
        "efficientnet_lite2": ([1, 3, 3, 4, 4, 5, 1], [16, 24, 48, 88, 120, 208, 352]),
    }
    assert [scaled_width(16, 1.1), scaled_width(40, 1.1), scaled_width(8, 1.7)] == [16, 48, 16]
    assert scaled_width(9, 1.0) == 16  # 8 would be less than nine tenths


# 64 is even at each stride, 65 odd, 66 changes: even, odd, odd, odd, odd.
@pytest.mark.parametrize("side", [64, 65, 66])
def test_windows_lie_where_same_lays_them_on_pictures_of_the_trained_side(side):
    trained, same = _backbone(trained_side=side), _backbone(padding="same")
    image = _image((side, side))
    _assert_same(trained(image), same(image))
    if side == 64:
        symmetric = _backbone(padding="symmetric")(image)["C3"]
        assert not np.allclose(symmetric, same(image)["C3"], atol=1e-2 * np.abs(symmetric).max())


@pytest.mark.parametrize(
    "trained_side, normalization", [(None, "frozen"), (224, "frozen"), (260, "batch"), (None, "group")]
)
def test_the_canvas_does_not_matter(trained_side, normalization):
    backbone = _backbone(trained_side=trained_side, normalization=normalization)
    moving = [(v, v.numpy()) for v in backbone.non_trainable_variables]
    image = _image(_PICTURE)
    expected = backbone(image, training=True)
    for side, level in zip((8, 16, 32), expected.values()):
        assert level.shape[1:3] == tuple(-(-length // side) for length in _PICTURE)
    for variable, value in moving:  # what a batch adds to them depends on the batch alone
        variable.assign(value)
    laid = np.zeros((1, *_CANVAS, 3), np.float32)
    laid[:, : _PICTURE[0], : _PICTURE[1]] = image
    content = Content(tf.constant([_PICTURE], tf.int32), _CANVAS, tf.float32)
    _assert_same(backbone(laid, training=True, content=content), expected)


def test_relu6_and_its_gradient_are_those_of_the_picture_alone():
    x = tf.constant([[[[-1.0], [2.0], [5.9], [7.0]], [[3.0], [9.0], [-2.0], [1.0]]]])  # [1, 2, 4, 1]
    inside = tf.constant([[[[1.0], [1.0], [1.0], [1.0]], [[1.0], [0.0], [0.0], [0.0]]]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = relu6_of_content(x, inside)
    np.testing.assert_array_equal(y[0, ..., 0], np.float32([[0, 2, 5.9, 6], [3, 0, 0, 0]]))
    gradient = tape.gradient(y, x, 3.0 * tf.ones_like(x))
    np.testing.assert_array_equal(gradient[0, ..., 0], [[0, 3, 3, 0], [3, 0, 0, 0]])


def test_stages_are_frozen_from_the_stem_on_and_hold_all_weights():
    backbone = make_backbone("efficientnet_lite0", normalization="batch")
    backbone(np.zeros((1, 64, 64, 3), np.float32))
    stages = backbone.freezable_stages()
    assert [layer.name for layer in stages[0]] == ["stem", "bn_stem", "block0"]
    assert [[layer.name for layer in stage] for stage in stages[1:3]] == [["block1", "block2"], ["block3", "block4"]]
    held = {v.path for stage in stages for layer in stage for v in layer.variables}
    assert held == {v.path for v in backbone.variables}


def test_frozen_stages_leave_what_is_trained():
    model = RetinaMask(2, backbone="efficientnet_lite0", frozen_stages=3, anchor_sizes=(32, 64, 128))
    model.create_weights((64, 64))
    trained = {v.path.split("/")[-2] for v in model.trainable_variables if "/backbone/" in v.path}
    # Kernels of blocks 5 to 15, three each: frozen statistics take scale and shift with them.
    assert len(trained) == 33 and min(int(name[5:].split("_")[0]) for name in trained) == 5


@pytest.mark.parametrize(
    "options, words",
    [
        ({"padding": "valid"}, "padding 'valid' is not one of"),
        ({"trained_side": 0}, "trained_side 0 is neither None nor a side"),
        ({"trained_side": "224"}, "trained_side '224' is neither"),
        ({"normalization": "layer"}, "normalization 'layer' is not one of"),
    ],
)
def test_what_there_is_not_is_refused(options, words):
    with pytest.raises(SettingError, match=words):
        EfficientNetLite(**options)
