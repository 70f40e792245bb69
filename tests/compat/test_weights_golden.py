"""A snapshot in keras-maskrcnn's own layout gives keras-maskrcnn's own outputs."""

import json

import h5py
import numpy as np
import pytest
import tensorflow as tf
from reference import keras_snapshot
from reference.keras_snapshot import GOLDEN

from tpu_retinamask import config
from tpu_retinamask.compat import weights

FORWARD = [path.stem for path in sorted((GOLDEN / "model").glob("forward_*.npz"))]


@pytest.fixture(name="snapshot", scope="module")
def _snapshot(tmp_path_factory):
    path = tmp_path_factory.mktemp("snapshot") / "resnet50_csv_50.h5"
    yield keras_snapshot.write_snapshot(path, keras_snapshot.manifest_weights())
    path.unlink()


@pytest.fixture(name="network", scope="module")
def _network():
    """Return `conv1_padding -> model`, built once each."""
    num_classes = json.loads((GOLDEN / "model" / "weights_manifest.json").read_text())["num_classes"]
    models = {}

    def build(conv1_padding):
        if conv1_padding not in models:
            config.parse_gin(["model/keras_maskrcnn.gin"],
                             [f"RetinaMask.backbone_options = {{'conv1_padding': '{conv1_padding}'}}"])
            models[conv1_padding] = config.RetinaMask(num_classes).create_weights()
        return models[conv1_padding]

    return build


def test_the_synthetic_snapshot_has_the_layout_of_the_original(snapshot):
    layout = json.loads((GOLDEN / "model" / "h5_weights_layout.json").read_text())["groups"]
    expected = {f"{group['layer']}/{name}": tuple(shape) for group in layout for name, shape in group["weights"]}
    actual = {}
    with h5py.File(snapshot) as file:
        file.visititems(lambda name, item: actual.update({name: getattr(item, "shape", None)}))
    actual = {name: shape for name, shape in actual.items() if shape is not None}  # None: a group
    assert actual == expected


def test_every_layer_is_loaded_and_counted(snapshot, network):
    model = network("explicit")
    report = weights.load_weights(model, snapshot)
    assert set(report.loaded) == set(weights.model_layers(model))
    assert not (report.mismatched or report.missing or report.unused or report.ignored)
    assert model.count_params() == 39_312_612 + 21_002 * model.num_classes


# The padding of keras-resnet 0.2 needs a second network; the backbone's own tests have it at small sizes.
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow) if name.endswith("_conv1_same") else name for name in FORWARD] or [None])
def test_outputs_equal_the_originals(name, snapshot, network):
    assert name is not None, f"{GOLDEN}/model holds no forward_*.npz"
    golden = np.load(GOLDEN / "model" / f"{name}.npz")
    same = name.endswith("_conv1_same")  # such a file has the images of its namesake
    pixels = np.load(GOLDEN / "model" / f"{name.removesuffix('_conv1_same')}.npz")
    images = tf.constant(pixels["image_bgr_u8"][..., ::-1])
    content = tf.constant([images.shape[1:3]] * len(images), tf.int32)
    model = network("same" if same else "explicit")
    weights.load_weights(model, snapshot)
    config.parse_gin(["model/keras_maskrcnn.gin"], [])

    outputs = model(images, content)
    # Some fifty layers of float32 sums of up to 4608 terms in another order; values up to about 1.
    np.testing.assert_allclose(tf.concat(outputs.box_deltas, 1), golden["regression"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(tf.sigmoid(tf.concat(outputs.class_logits, 1)), golden["classification"],
                               atol=1e-5, rtol=0)
    size = tuple(images.shape[1:3])
    found = config.DetectionFilter()(outputs, model.anchor_grid.anchors(size), model.box_coder, size)
    np.testing.assert_array_equal(found.classes, golden["labels"])
    np.testing.assert_allclose(found.boxes, golden["boxes"], atol=5e-3)  # pixels, from deltas times sides of 1000
    np.testing.assert_allclose(found.scores, golden["scores"], atol=1e-5)
    best = golden["masks_top20"]  # [B, 20, 28, 28, C]
    masks = tf.sigmoid(model.mask_logits(outputs.features, found.boxes[:, :best.shape[1]], None, size))
    np.testing.assert_allclose(masks, best, atol=1e-4)
    assert not np.any(found.cut)
