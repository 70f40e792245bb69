"""Backbones against NumPy, at odd sizes, and what their normalisation does."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import resnet_reference, scenes

from tpu_retinamask.model.backbones.registry import make_backbone
from tpu_retinamask.model.backbones.resnet import BottleneckBlock, ResNet
from tpu_retinamask.model.backbones.small import SmallResNet
from tpu_retinamask.model.layers.normalization import make_normalization


def _blocks(backbone):
    return [[block.name[3:] for block in stage] for stage in backbone.stages]


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("size", [(33, 47), (64, 70), (1, 5)])
def test_small_backbone_equals_numpy_and_rounds_sides_up(size, padding):
    backbone = SmallResNet((3, 4, 5, 6, 7), (1, 1, 2, 1), normalization="frozen", padding=padding)
    image = np.random.default_rng(0).normal(size=(1, *size, 3)).astype(np.float32)
    backbone(image)
    weights = scenes.fill_weights(backbone)
    levels = backbone(image)
    expected = resnet_reference.small_network(image[0].astype(np.float64), weights, _blocks(backbone), padding)
    for level, output, reference in zip((3, 4, 5), levels.values(), expected):
        assert output.shape[1:3] == tuple(-(-side // 2**level) for side in size)
        # About ten layers of float32 sums of up to 63 terms.
        np.testing.assert_allclose(output[0], reference, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("conv1, size", [("explicit", (33, 47)), ("explicit", (34, 46)), ("same", (34, 46))])
def test_bottleneck_backbone_equals_numpy(conv1, size, padding):
    backbone = ResNet((1, 2, 1, 1), normalization="frozen", conv1_padding=conv1, padding=padding)
    image = np.random.default_rng(1).normal(size=(1, *size, 3)).astype(np.float32)
    backbone(image)
    weights = scenes.fill_weights(backbone, 1)
    expected = resnet_reference.bottleneck_network(
        image[0].astype(np.float64), weights, _blocks(backbone), conv1, padding
    )
    for output, reference in zip(backbone(image).values(), expected):
        # Fifteen layers of float32 sums of up to 4608 terms, compared with the largest value.
        np.testing.assert_allclose(output[0], reference, atol=2e-5 * np.abs(reference).max())


def test_conv1_paddings_agree_at_odd_sides_only():
    rng = np.random.default_rng(2)
    backbones = [ResNet((1, 1, 1, 1), conv1_padding=padding) for padding in ("explicit", "same")]
    for size, equal in (((33, 47), True), ((34, 48), False)):
        image = rng.normal(size=(1, *size, 3)).astype(np.float32)
        first, second = (backbone(image) for backbone in backbones)
        backbones[1].set_weights(backbones[0].get_weights())
        second = backbones[1](image)
        # The same products in another order where equal.
        assert np.allclose(first["C3"], second["C3"], atol=1e-4) == equal


def test_names_are_those_of_keras_resnet():
    assert _blocks(make_backbone("resnet50")) == [
        ["2a", "2b", "2c"],
        ["3a", "3b", "3c", "3d"],
        ["4a", "4b", "4c", "4d", "4e", "4f"],
        ["5a", "5b", "5c"],
    ]
    deep = _blocks(make_backbone("resnet101"))
    assert deep[:2] == [["2a", "2b", "2c"], ["3a", "3b1", "3b2", "3b3"]]
    assert deep[2] == ["4a"] + [f"4b{i}" for i in range(1, 23)]
    assert deep[3] == ["5a", "5b", "5c"]
    deeper = _blocks(make_backbone("resnet152"))
    assert deeper[1] == ["3a"] + [f"3b{i}" for i in range(1, 8)]
    assert deeper[2] == ["4a"] + [f"4b{i}" for i in range(1, 36)]
    block = make_backbone("resnet101").stages[2][1]
    assert [layer.name for layer in (*block.reduce, *block.spatial, *block.expand)] == [
        "res4b1_branch2a",
        "bn4b1_branch2a",
        "res4b1_branch2b",
        "bn4b1_branch2b",
        "res4b1_branch2c",
        "bn4b1_branch2c",
    ]
    first = make_backbone("resnet101").stages[2][0]
    assert [layer.name for layer in first.shortcut] == ["res4a_branch1", "bn4a_branch1"]


def test_stride_lies_in_the_first_convolution():
    block = BottleneckBlock(2, 2, "3a", project=True, normalization="frozen")
    image = np.random.default_rng(3).normal(size=(1, 6, 6, 3)).astype(np.float32)
    before = block(image).numpy()
    changed = image.copy()
    changed[:, 1::2] += 5  # rows that a 1x1 of stride 2 never reads
    np.testing.assert_array_equal(block(changed), before)


def test_frozen_normalisation_ignores_training_and_holds_nothing_trainable():
    backbone = make_backbone("small")
    image = np.random.default_rng(4).normal(size=(2, 40, 40, 3)).astype(np.float32)
    backbone(image)
    scenes.fill_weights(backbone, 2)
    before = [v.numpy() for v in backbone.weights]
    for trained, tested in zip(backbone(image, training=True), backbone(image, training=False)):
        np.testing.assert_array_equal(trained, tested)
    for variable, value in zip(backbone.weights, before):
        np.testing.assert_array_equal(variable, value)
    assert {v.name for v in backbone.trainable_variables} == {"kernel"}


def test_frozen_normalisation_folds_into_the_convolution():
    conv, norm = keras.layers.Conv2D(5, 3, use_bias=False), make_normalization("frozen", "bn")
    image = tf.constant(np.random.default_rng(5).normal(size=(1, 8, 8, 3)), tf.float32)
    norm(conv(image))
    scenes.fill_weights(conv, 3)
    scenes.fill_weights(norm, 4)
    scale = norm.gamma / tf.sqrt(norm.moving_variance + 1e-5)
    folded = tf.nn.conv2d(image, conv.kernel * scale, 1, "VALID") + norm.beta - norm.moving_mean * scale
    # 27 float32 products.
    np.testing.assert_allclose(norm(conv(image)), folded, atol=1e-5)


def test_batch_normalisation_uses_and_remembers_the_batch():
    norm = make_normalization("batch", "bn")
    x = np.random.default_rng(6).normal(3, 2, (4, 5, 6, 3)).astype(np.float32)
    y = norm(x, training=True)
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    # Means of 120 float32 numbers.
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), atol=1e-4)
    np.testing.assert_allclose(norm.moving_mean, 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, 0.9 + 0.1 * variance, rtol=1e-4)


def test_group_normalisation_does_not_mix_images():
    norm = make_normalization("group", "gn")
    x = np.random.default_rng(7).normal(size=(3, 5, 6, 32)).astype(np.float32)
    y = norm(x, training=True)
    groups = x[1].reshape(5, 6, 16, 2)
    expected = (groups - groups.mean(axis=(0, 1, 3), keepdims=True)) / np.sqrt(
        groups.var(axis=(0, 1, 3), keepdims=True) + 1e-5
    )
    np.testing.assert_allclose(y[1], expected.reshape(5, 6, 32), atol=1e-4)  # means of 60 float32 numbers


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="backbone 'vgg16' is not one of"):
        make_backbone("vgg16")
    with pytest.raises(ValueError, match="normalization 'layer' is not one of"):
        make_backbone("small", normalization="layer")
