"""Snapshots as Keras 2.3 writes them."""

import h5py

SUB_MODELS = {
    "pyramid_regression": "regression_submodel",
    "pyramid_classification": "classification_submodel",
    "roi_mask": "mask_submodel",
}


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
