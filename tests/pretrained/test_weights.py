"""Loading weights by layer name: what matches, what does not, and what is refused."""

import functools
import types

import h5py
import keras
import numpy as np
import pytest
from reference import keras_snapshot

from tpu_retinamask.model.backbones.resnet import ResNet
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.pretrained import h5_file, load
from tpu_retinamask.pretrained.faults import WeightsError

BY_CLASS = ("pyramid_classification", "roi_mask")  # layers whose shapes depend on the number of classes


@functools.cache
def _built(num_classes, options):
    keras.utils.set_random_seed(0)
    model = RetinaMask(
        num_classes,
        backbone="small",
        fpn_channels=16,
        head_channels=16,
        head_depth=1,
        mask_channels=16,
        mask_depth=1,
        **dict(options),
    ).create_weights((64, 64))
    return model, [variable.numpy() for variable in model.variables]


def _model(num_classes=3, **options):
    """Return a small network with its initial weights; building it anew for every test takes too long."""
    model, initial = _built(num_classes, tuple(options.items()))
    for variable, value in zip(model.variables, initial):
        variable.assign(value)
    return model


def _random_weights(model, seed=1):
    """Return {layer: {weight: array}} of the model's shapes, filled at random."""
    rng = np.random.default_rng(seed)
    return {
        layer: {name: rng.uniform(0.5, 1.5, variable.shape).astype(np.float32) for name, variable in own.items()}
        for layer, own in load.model_layers(model).items()
    }


def _assert_holds(model, layers, names):
    ours = load.model_layers(model)
    for name in names:
        for weight, value in layers[name].items():
            np.testing.assert_array_equal(ours[name][weight], value)


@pytest.mark.parametrize("whole_model", [False, True])
def test_weights_file_and_whole_model_load_every_variable(tmp_path, whole_model):
    model = _model()
    layers = _random_weights(model)
    path = keras_snapshot.write_snapshot(tmp_path / "a.h5", layers, whole_model=whole_model)
    report = load.load_weights(model, path)
    assert sum(map(len, layers.values())) == len(model.variables)
    assert set(report.loaded) == set(layers)
    _assert_holds(model, layers, layers)


def test_file_without_attributes_loads_by_its_groups(tmp_path):
    model = _model()
    layers = _random_weights(model)
    path = keras_snapshot.write_snapshot(tmp_path / "a.h5", layers)
    with h5py.File(path, "a") as file:
        for item in (file, *file.values()):
            for name in list(item.attrs):
                del item.attrs[name]
    assert set(load.load_weights(model, path).loaded) == set(layers)


def test_scope_numbered_by_keras_is_still_the_layer_of_its_group(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["conv1/conv1_2/kernel:0"] = np.ones([7, 7, 3, 64], np.float32)
    assert list(h5_file.read_h5(tmp_path / "a.h5")) == ["conv1"]


def test_retinanet_snapshot_loads_and_says_that_the_mask_head_starts_anew(tmp_path):
    model = _model()
    before = {name: variable.numpy() for name, variable in load.model_layers(model)["roi_mask"].items()}
    layers = {name: value for name, value in _random_weights(model).items() if not name.startswith("roi_mask")}
    report = load.load_weights(model, keras_snapshot.write_snapshot(tmp_path / "retinanet.h5", layers))
    assert set(report.loaded) == set(layers)
    assert set(report.missing) == {"roi_mask_0", "roi_mask_features", "roi_mask"}
    assert "starts anew, the mask head: the source has none" in str(report)
    assert f"{len(layers)} of {len(layers) + 3} layers loaded" in str(report)
    _assert_holds(model, layers, layers)
    _assert_holds(model, {"roi_mask": before}, ["roi_mask"])


def test_report_names_layers_of_one_side_only_and_passes_over_anchors(tmp_path):
    model = _model()
    layers = _random_weights(model)
    del layers["P4"]
    layers["fc1000"] = {"kernel": np.zeros([2048, 1000], np.float32)}
    for index in (0, 1):
        layers[f"anchors_{index}"] = {"anchors": np.zeros([9, 4], np.float32)}
    report = load.load_weights(model, keras_snapshot.write_snapshot(tmp_path / "a.h5", layers))
    assert report.missing == ("P4",) and report.unused == ("fc1000",)
    assert report.ignored == ("anchors_0", "anchors_1")
    for line in (
        "starts anew, not in the source: P4",
        "not in the model: fc1000",
        "ignored, constants here: anchors_0, anchors_1",
    ):
        assert line in str(report)


def test_every_shape_that_differs_is_refused_by_name_and_nothing_changes(tmp_path):
    path = keras_snapshot.write_snapshot(tmp_path / "a.h5", _random_weights(_model(num_classes=5)))
    model = _model(num_classes=3)
    before = [variable.numpy() for variable in model.variables]
    with pytest.raises(WeightsError) as error:
        load.load_weights(model, path)
    message = str(error.value)
    assert "2 layers have other shapes" in message and "--skip_mismatched" in message
    assert (
        "pyramid_classification: the source has bias [45], kernel [3, 3, 16, 45], "
        "the model has bias [27], kernel [3, 3, 16, 27]"
    ) in message
    assert "roi_mask: the source has bias [5], kernel [1, 1, 16, 5], the model has bias [3]" in message
    for variable, value in zip(model.variables, before):
        np.testing.assert_array_equal(variable, value)


def test_skip_mismatched_starts_these_heads_anew_and_loads_the_rest(tmp_path):
    layers = _random_weights(_model(num_classes=5))
    path = keras_snapshot.write_snapshot(tmp_path / "a.h5", layers)
    model = _model(num_classes=3)
    initial = {name: load.model_layers(model)[name]["kernel"].numpy() for name in BY_CLASS}
    report = load.load_weights(model, path, skip_mismatched=True)
    assert set(report.mismatched) == set(BY_CLASS)
    _assert_holds(model, layers, set(layers) - set(BY_CLASS))
    for name, kernel in initial.items():
        np.testing.assert_array_equal(load.model_layers(model)[name]["kernel"], kernel)
        assert f"starts anew, {name}: the source has" in str(report)
    # The prior of the class head: 1% of the anchors.
    np.testing.assert_allclose(load.model_layers(model)["pyramid_classification"]["bias"], -np.log(99), rtol=1e-6)


def test_batch_normalization_is_not_laid_upon_group_normalization(tmp_path):
    path = keras_snapshot.write_snapshot(tmp_path / "a.h5", _random_weights(_model(normalization="batch")))
    with pytest.raises(
        WeightsError,
        match=r"bn_stem: the source has beta \[16\], gamma \[16\], moving_mean \[16\], "
        r"moving_variance \[16\], the model has beta \[16\], gamma \[16\]",
    ):
        load.load_weights(_model(normalization="group"), path)


def test_what_is_no_source_of_weights_is_refused(tmp_path):
    model = _model()
    with pytest.raises(FileNotFoundError, match="no such weights"):
        load.load_weights(model, str(tmp_path / "missing.h5"))
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        load.load_weights(model, str(tmp_path))
    (tmp_path / "text.h5").write_text("404: not found")
    with pytest.raises(WeightsError, match="not an HDF5 file"):
        load.load_weights(model, str(tmp_path / "text.h5"))
    (tmp_path / "new.keras").write_bytes(b"PK\x03\x04")
    with pytest.raises(WeightsError, match="an archive of Keras 3, expected weights in HDF5: .* model.save"):
        load.load_weights(model, str(tmp_path / "new.keras"))
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(WeightsError, match="holds no weights"):
        load.load_weights(model, str(tmp_path / "empty.h5"))
    path = keras_snapshot.write_snapshot(tmp_path / "other.h5", {"dense": {"kernel": np.zeros([3, 4], np.float32)}})
    with pytest.raises(WeightsError, match="none of its layers has the name of a layer of the model"):
        load.load_weights(model, path)
    dense = keras.Sequential([keras.Input([3]), keras.layers.Dense(4)])
    dense.save_weights(tmp_path / "new.weights.h5")
    with pytest.raises(WeightsError, match="numbers weights in place of naming them"):
        load.load_weights(model, str(tmp_path / "new.weights.h5"))


def test_backbone_built_for_other_weights_is_refused():
    backbone = ResNet((1, 1, 1, 1), pool_padding="explicit", epsilon=1.001e-5, name="backbone")
    model = types.SimpleNamespace(backbone=backbone, pixel_mode="torch")
    with pytest.raises(WeightsError) as error:
        load.check_construction(model, "a.h5", load.KERAS_RESNET_OPTIONS)
    for part in (
        "backbone.pool_padding = 'same' (the model: 'explicit')",
        "backbone.epsilon = 1e-05 (the model: 1.001e-05)",
        "pixel_mode = 'caffe' (the model: 'torch')",
        "RetinaMask.backbone_options = {'pool_padding': 'same'",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "value, words",
    [
        (np.nan, "1 of 16 numbers that are NaN or infinite"),
        (-np.inf, "NaN or infinite"),
        (1e300, "NaN or infinite"),  # as the float32 that it becomes
        (-1.0, "a variance below 0"),
        ("text", "expected numbers"),
    ],
)
def test_numbers_that_no_network_has_are_refused_and_nothing_changes(value, words):
    model = _model()
    weights = _random_weights(model)
    variance = weights["bn_stem"]["moving_variance"].astype(object if value == "text" else np.float64)
    variance[3] = value
    weights["bn_stem"]["moving_variance"] = variance
    before = [variable.numpy() for variable in model.variables]
    with pytest.raises(WeightsError, match=f"^x.h5: bn_stem/moving_variance holds .*{words}"):
        load.assign(model, weights, "x.h5")
    for variable, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)
