"""Weights in the HDF5 files of Keras, of which nothing is believed: neither sizes nor links nor kinds of numbers."""

import math
import os
from collections.abc import Iterator

import h5py
import numpy as np

from tpu_retinamask.errors import read_as
from tpu_retinamask.file_kinds import refuse_no_file
from tpu_retinamask.pretrained.faults import FAULTS, WeightsError

IMAGENET = "imagenet"
DEEPEST = 32  # groups in groups
MOST_OBJECTS = 200_000  # groups and datasets
# What compressed weights may declare by the bytes of their file; those of a network hardly compress, but its zeros do.
MOST_EXPANDED, ALWAYS_ALLOWED = 4, 1 << 26
_REMEDY = "take the file anew from where it was published"


def read_h5(path: str) -> dict:
    """Return the weights `{layer: {weight: array}}` of a file that Keras wrote in its HDF5 format.

    Groups are layers. A group with several layers is a sub-model, whose datasets say their own layers' names
    (`mask_submodel/roi_mask_0/kernel:0`). A whole model keeps its weights in the group `model_weights`.

    Raises:
      FileNotFoundError: no such file.
      WeightsError: not such a file, cut, or with something in it that weights never are: links, numbers that lie in
        another file, more of them than the file has room for, text.
    """
    if os.path.exists(path):
        refuse_no_file(path)
    else:
        raise FileNotFoundError(
            f"{path}: no such weights; give a .h5 file, a directory written by train, or {IMAGENET!r}"
        )
    try:
        if not h5py.is_hdf5(path):
            raise WeightsError(f"{path} is not an HDF5 file, which weights of Keras are")
        with h5py.File(path, "r") as file:
            return _layers(path, file)
    except WeightsError:
        raise
    except FAULTS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} cannot be read as HDF5: {reason}. It is cut or damaged; {_REMEDY}") from error


def _layers(path: str, file: h5py.File) -> dict:
    root, layers = file, {}
    if "model_weights" in file:
        root = _child(path, file, "model_weights")
    if not isinstance(root, h5py.Group):
        raise WeightsError(f"{path}: model_weights is no group of layers; {_REMEDY}")
    if "_layer_checkpoint_dependencies" in root or ("layers" in root and "layer_names" not in root.attrs):
        raise WeightsError(
            f"{path} is a `.weights.h5` of Keras 3, which numbers weights in place of naming them: "
            "save the whole model with model.save('name.h5')"
        )
    reader = _Reader(path, MOST_EXPANDED * os.path.getsize(path) + ALWAYS_ALLOWED)
    for group_name in root:
        group = _child(path, root, group_name)
        if not isinstance(group, h5py.Group):
            continue
        datasets = dict(reader.datasets(group, group_name))
        owners = {name: (group_name, *name.split("/"))[-2] for name in datasets}
        several = len(set(owners.values())) > 1
        for name, dataset in datasets.items():
            # Keras numbers the scope of a layer that is built twice in a session; the group keeps the layer's name.
            layer = owners[name] if several else group_name
            layers.setdefault(layer, {})[name.split("/")[-1].split(":")[0]] = reader.numbers(
                dataset, f"{group_name}/{name}"
            )
    if not layers:
        raise WeightsError(f"{path} holds no weights")
    return layers


def _child(path: str, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | h5py.Datatype:
    """Return what lies in a group, unless it lies elsewhere."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise WeightsError(f"{path}: {read_as(name)} is a link to something else, expected weights; {_REMEDY}")
    return group[name]


class _Reader:
    """Walks the groups of a file and reads datasets, as long as they can be what the file holds."""

    def __init__(self, path: str, most_bytes: int) -> None:
        self._path, self._left = path, most_bytes
        self._seen: set[tuple] = set()

    def datasets(self, group: h5py.Group, place: str, depth: int = 1, before: str = "") -> Iterator[tuple]:
        """Yield (name, dataset) of a group and the groups in it; each may be reached by one road only."""
        self._see(group, place)
        if depth > DEEPEST:
            raise WeightsError(f"{self._path}: over {DEEPEST} groups lie one in the other, expected layers; {_REMEDY}")
        for name in group:
            item, own = _child(self._path, group, name), f"{before}{name}"
            if isinstance(item, h5py.Group):
                yield from self.datasets(item, f"{place}/{name}", depth + 1, f"{own}/")
            elif isinstance(item, h5py.Dataset):
                self._see(item, f"{place}/{name}")
                yield own, item

    def numbers(self, dataset: h5py.Dataset, place: str) -> np.ndarray:
        """Return the numbers of a dataset, which lie in the file itself and fit into it."""
        found = f"{self._path}: {read_as(place)}"
        if dataset.dtype.kind not in "fiu" or dataset.dtype.itemsize > 8 or dataset.shape is None:
            raise WeightsError(f"{found} holds {dataset.dtype}, expected numbers; {_REMEDY}")
        if dataset.external or dataset.is_virtual:
            raise WeightsError(f"{found} has its numbers in another file, expected them in this one; {_REMEDY}")
        if dataset.nbytes > self._left or not _is_stored(dataset):
            stored = dataset.id.get_storage_size()
            raise WeightsError(f"{found} declares {dataset.nbytes:,} bytes of numbers and holds {stored:,}; {_REMEDY}")
        self._left -= dataset.nbytes
        return dataset[()]

    def _see(self, item: h5py.Group | h5py.Dataset, place: str) -> None:
        info = h5py.h5o.get_info(item.id)
        key = (info.fileno, info.addr)
        if key in self._seen:
            raise WeightsError(f"{self._path}: {read_as(place)} lies in two places, or in itself; {_REMEDY}")
        if len(self._seen) >= MOST_OBJECTS:
            raise WeightsError(f"{self._path}: over {MOST_OBJECTS} groups and arrays, expected layers; {_REMEDY}")
        self._seen.add(key)


def _is_stored(dataset: h5py.Dataset) -> bool:
    """Tell whether all numbers of a dataset were written, and none is but a default."""
    if dataset.chunks is None:
        return dataset.id.get_storage_size() == dataset.nbytes
    wanted = math.prod(-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks))
    return dataset.id.get_num_chunks() == wanted
