"""Weights in the HDF5 files of Keras."""

import os

import h5py

from tpu_retinamask.errors import UserError

IMAGENET = "imagenet"


class WeightsError(UserError):
    """A source of weights that does not fit the model, or is no source of weights."""


def read_h5(path: str) -> dict:
    """Return the weights `{layer: {weight: array}}` of a file that Keras wrote in its HDF5 format.

    Groups are layers. A group with several layers is a sub-model, whose datasets say their own layers' names
    (`mask_submodel/roi_mask_0/kernel:0`). A whole model keeps its weights in the group `model_weights`.

    Raises:
      FileNotFoundError: no such file.
      WeightsError: not such a file.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path}: no such weights; give a .h5 file, a directory written by train, or {IMAGENET!r}"
        )
    if not h5py.is_hdf5(path):
        raise WeightsError(f"{path} is not an HDF5 file, which weights of Keras are")
    layers = {}

    def take(group_name, group):
        datasets = {}
        group.visititems(lambda name, item: datasets.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        owners = {name: (group_name, *name.split("/"))[-2] for name in datasets}
        several = len(set(owners.values())) > 1
        for name, dataset in datasets.items():
            # Keras numbers the scope of a layer that is built twice in a session; the group keeps the layer's name.
            layer = owners[name] if several else group_name
            layers.setdefault(layer, {})[name.split("/")[-1].split(":")[0]] = dataset[()]

    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        if "_layer_checkpoint_dependencies" in root or ("layers" in root and "layer_names" not in root.attrs):
            raise WeightsError(
                f"{path} is a `.weights.h5` of Keras 3, which numbers weights in place of naming them: "
                "save the whole model with model.save('name.h5')"
            )
        for group_name, group in root.items():
            if isinstance(group, h5py.Group):
                take(group_name, group)
    if not layers:
        raise WeightsError(f"{path} holds no weights")
    return layers
