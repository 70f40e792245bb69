"""Frozen layers leave the trainable variables, and take nothing else with them."""

import pytest

from tpu_retinamask.model.retinamask import RetinaMask

pytestmark = pytest.mark.ci  # many networks are made

SMALL = dict(
    backbone="small",
    normalization="batch",
    fpn_channels=16,
    head_channels=16,
    head_depth=1,
    mask_channels=16,
    mask_depth=1,
    anchor_sizes=(32, 64, 128),
)


def _paths(**options):
    """Trainable variables and all variables, by path without the model's name."""
    model = RetinaMask(3, **(SMALL | options)).create_weights((64, 64))
    return [{v.path.split("/", 1)[1] for v in variables} for variables in (model.trainable_variables, model.variables)]


@pytest.mark.parametrize("backbone", ["small", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_stages_by_number(backbone):
    stem = {"small": {"stem", "bn_stem"}, "resnet50": {"conv1", "bn_conv1"}}[backbone]
    free, variables = _paths(backbone=backbone)
    for stages in range(6):
        trainable, same = _paths(backbone=backbone, frozen_stages=stages)
        assert same == variables  # all are there still
        frozen = {path.split("/")[1] for path in free - trainable}  # layer or block of the backbone
        expected = stem if stages else set()
        for stage in range(2, stages + 1):
            expected = expected | {path.split("/")[1] for path in variables if path.startswith(f"backbone/res{stage}")}
        assert frozen == expected
        assert all(path.startswith("backbone/") for path in free - trainable)
    assert not any(path.startswith("backbone/") for path in trainable)


@pytest.mark.parametrize(
    "freeze, frozen",
    [
        (("^backbone",), lambda path: path.startswith("backbone/")),
        ("fpn/P[67]", lambda path: path.startswith(("fpn/P6", "fpn/P7"))),
        (("^pyramid_", "^roi_mask"), lambda path: path.startswith(("pyramid_", "roi_mask"))),
        ((r"/bn",), lambda path: "/bn" in path),
        (("roi_mask_features$",), lambda path: "roi_mask_features" in path),
    ],
)
def test_layers_by_pattern(freeze, frozen):
    options = {"anchor_sizes": (32, 64, 128, 256, 512)}
    free, _ = _paths(**options)
    trainable, _ = _paths(freeze=freeze, **options)
    assert free - trainable == {path for path in free if frozen(path)} != set()


def test_frozen_statistics_stay_under_batch_normalisation(small_model, make_scene_images):
    model = small_model(normalization="batch", frozen_stages=2)
    before = {v.path: v.numpy() for v in model.non_trainable_variables}
    model(make_scene_images, training=True)
    moved = {
        v.path for v in model.non_trainable_variables if "moving_" in v.path and (v.numpy() != before[v.path]).any()
    }
    assert moved and not any("stem" in path or "2a_" in path for path in moved)


@pytest.fixture
def make_scene_images():
    """A picture of noise."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)


@pytest.fixture
def small_model():
    """Build a small network."""
    return lambda **options: RetinaMask(3, **(SMALL | options)).create_weights((64, 64))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"frozen_stages": 6}, "frozen_stages is 6, expected 0"),
        ({"frozen_stages": -1}, "frozen_stages is -1"),
        ({"freeze": ("backbon/",)}, "no layer has 'backbon/' in its path.*'backbone', 'fpn'"),
        ({"freeze": "("}, r"freeze holds '\(', expected regular expressions"),
    ],
)
def test_what_freezes_nothing_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        RetinaMask(3, **(SMALL | options))
