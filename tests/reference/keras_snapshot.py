"""Snapshots as Keras 2.3 writes them, and the weights that the golden manifest describes."""

import json
import os
import pathlib
import zlib

import h5py
import numpy as np

GOLDEN = pathlib.Path(os.environ.get("GOLDEN_DIR", pathlib.Path(__file__).parents[1] / "golden"))
SUB_MODELS = {"pyramid_regression": "regression_submodel", "pyramid_classification": "classification_submodel",
              "roi_mask": "mask_submodel"}


def manifest_weights(name: str = "weights_manifest.json") -> dict:
    """Return {layer: {weight: array}}, drawn by the manifest's formula and compared with its sums."""
    manifest = json.loads((GOLDEN / "model" / name).read_text())
    layers = {}
    for tensor in manifest["tensors"]:
        seed = zlib.crc32(f"{manifest['salt']}{tensor['layer']}/{tensor['weight']}".encode()) & 0xFFFFFFFF
        assert seed == tensor["seed"]
        value = _draw(np.random.RandomState(seed), tensor).astype(np.float32)
        np.testing.assert_allclose(value.astype(np.float64).sum(), tensor["float64_sum"], rtol=1e-9, atol=1e-9)
        layers.setdefault(tensor["layer"], {})[tensor["weight"]] = value
    return layers


def _draw(rng, tensor):
    shape, kind = tensor["shape"], tensor["kind"]
    if kind == "kernel":
        return rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[:-1])), size=shape) * tensor["scale"]
    if kind == "prior_bias":
        return np.full(shape, -np.log(99.0))
    if kind in ("bn_gamma", "bn_moving_variance"):
        return rng.uniform(0.5, 1.5, size=shape)
    return rng.normal(0.0, {"bias": 0.01, "bn_beta": 0.1, "bn_moving_mean": 0.1}[kind], size=shape)


def write_snapshot(path, layers: dict, *, whole_model: bool = False):
    """Write {layer: {weight: array}} as Keras 2.3 does: a group a layer, the heads in groups of their sub-models."""
    groups = {}
    for layer, weights in layers.items():
        groups.setdefault(_group(layer), []).extend((f"{layer}/{name}:0", value) for name, value in weights.items())
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        if whole_model:
            file.create_dataset("optimizer_weights/training/Adam/iterations:0", data=7)
        root.attrs["layer_names"] = [name.encode() for name in ["input_1", *groups]]
        root.attrs["backend"], root.attrs["keras_version"] = b"tensorflow", b"2.3.1"
        root.create_group("input_1").attrs["weight_names"] = []
        for name, datasets in groups.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [dataset.encode() for dataset, _ in datasets]
            for dataset, value in datasets:
                group.create_dataset(dataset, data=value)
    return str(path)


def _group(layer: str) -> str:
    return next((group for prefix, group in SUB_MODELS.items() if layer.startswith(prefix)), layer)
