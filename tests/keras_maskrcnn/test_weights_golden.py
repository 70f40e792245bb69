"""A snapshot in keras-maskrcnn's own layout gives keras-maskrcnn's own outputs."""

import h5py
import numpy as np
import pytest
import tensorflow as tf
from golden import golden_set
from reference import keras_snapshot

from tpu_retinamask.pretrained.load import load_weights, model_layers

FORWARD = golden_set.present(("forward_even", "forward_odd"), "model/{}.npz")


@pytest.fixture(name="snapshot", scope="module")
def _snapshot(tmp_path_factory, weights):
    layers = {}
    for (layer, weight), value in weights.items():
        layers.setdefault(layer, {})[weight] = value
    path = tmp_path_factory.mktemp("snapshot") / "resnet50_csv_50.h5"
    yield keras_snapshot.write_snapshot(path, layers)
    path.unlink()  # 157 MB


@pytest.fixture(name="loaded", scope="module")
def _loaded(build_original, snapshot):
    """Return the golden network, its weights lost and found again in the snapshot, and the report."""
    original = build_original("explicit")
    for variable in original.model.variables:
        variable.assign(tf.fill(variable.shape, 0.5))
    return original, load_weights(original.model, snapshot)


def test_the_synthetic_snapshot_has_the_layout_of_the_original(snapshot):
    layout = golden_set.values("model/h5_weights_layout")["groups"]
    expected = {f"{group['layer']}/{name}": tuple(shape) for group in layout for name, shape in group["weights"]}
    actual = {}
    with h5py.File(snapshot) as file:
        file.visititems(lambda name, item: actual.update({name: getattr(item, "shape", None)}))
    assert {name: shape for name, shape in actual.items() if shape is not None} == expected  # None: a group


def test_every_variable_is_loaded_and_counted(loaded, weights):
    original, report = loaded
    layers = model_layers(original.model)
    assert set(report.loaded) == set(layers)
    assert not (report.mismatched or report.missing or report.unused or report.ignored)
    assert sum(map(len, layers.values())) == len(original.model.variables) == len(weights)
    for (layer, weight), value in weights.items():
        np.testing.assert_array_equal(layers[layer][weight].numpy(), value)
    assert original.model.count_params() == 39_312_612 + 21_002 * original.model.num_classes


@pytest.mark.parametrize("name", FORWARD or [None])
def test_outputs_equal_the_originals(name, loaded, read_images):
    assert name is not None, f"{golden_set.FOLDER}/model holds no forward_*.npz"
    (model, _, detection_filter), _ = loaded
    golden = golden_set.Arrays(f"model/{name}")
    images = read_images(golden)
    size = tuple(images.shape[1:3])
    outputs = model(images)
    # Some fifty layers of float32 sums of up to 4608 terms, in another order; values up to a few units.
    golden.compare("regression", tf.concat(outputs.box_deltas, 1), atol=5e-5)
    golden.compare("classification", tf.sigmoid(tf.concat(outputs.class_logits, 1)), atol=5e-6)
    found = detection_filter(outputs, model.frame(size))
    assert not np.any(found.cut)
    golden.compare("labels", found.classes)
    golden.compare("boxes", found.boxes, atol=2e-3)  # pixels: 5e-5 of anchors up to 800 wide, times 0.2
    golden.compare("scores", found.scores, atol=5e-6)
    masks = tf.sigmoid(model.mask_logits(outputs.features, found.boxes[:, :20], None, size))
    golden.compare("masks_top20", masks, atol=1e-4)
