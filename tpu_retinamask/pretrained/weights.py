"""Pretrained weights by layer name: snapshots of keras-maskrcnn and keras-retinanet, ImageNet, our checkpoints.

A source is read into `{layer: {weight: array}}`, such as `{"conv1": {"kernel": ...}}`, and then laid upon the model.
"""

import dataclasses
import os
import re

import h5py
import numpy as np
import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.model.backbones.resnet import ResNet
from tpu_retinamask.pretrained import keras_applications
from tpu_retinamask.training.checkpoints.files import CheckpointFiles, SavedCheckpoint

IMAGENET = "imagenet"
# What a backbone must be built with to compute keras-resnet's features (its versions differ in conv1_padding).
KERAS_RESNET_OPTIONS = {"pool_padding": "same", "epsilon": 1e-5}
# Layers whose numbers are constants here: keras-retinanet forks keep the anchors as weights.
IGNORED_LAYERS = re.compile(r"anchors(_\d+)?")
CHECKPOINT_KEY = re.compile(r"(model|average)/([^/]+)/\.ATTRIBUTES/VARIABLE_VALUE")
MASK_HEAD_LAYERS = re.compile(r"roi_mask.*")


class WeightsError(UserError):
    """A source of weights that does not fit the model, or is no source of weights."""


@dataclasses.dataclass(frozen=True)
class WeightsReport:
    """What became of every layer of a source of weights and of the model.

    Attributes:
      source: where the weights came from.
      loaded: layers that now hold the source's weights.
      mismatched: {layer: "source has ..., the model has ..."}; these layers keep their initial weights.
      ignored: layers of the source that are constants here.
      unused: other layers of the source that the model lacks.
      missing: layers of the model that the source lacks; they keep their initial weights.
    """

    source: str
    loaded: tuple
    mismatched: dict
    ignored: tuple
    unused: tuple
    missing: tuple

    def __str__(self) -> str:
        lines = [
            f"weights from {self.source}: {len(self.loaded)} of "
            f"{len(self.loaded) + len(self.mismatched) + len(self.missing)} layers loaded"
        ]
        lines += [f"  starts anew, {layer}: {why}" for layer, why in self.mismatched.items()]
        missing = self.missing
        if not any(MASK_HEAD_LAYERS.fullmatch(layer) for layer in (*self.loaded, *self.mismatched)):
            lines.append("  starts anew, the mask head: the source has none")
            missing = [layer for layer in missing if not MASK_HEAD_LAYERS.fullmatch(layer)]
        for title, layers in (
            ("starts anew, not in the source", missing),
            ("not in the model", self.unused),
            ("ignored, constants here", self.ignored),
        ):
            if layers:
                lines.append(f"  {title}: {', '.join(layers)}")
        return "\n".join(lines)


def load_weights(model, source: str, *, skip_mismatched: bool = False) -> WeightsReport:
    """Load the weights of a source into the layers of the same names.

    Args:
      model: RetinaMask with its weights created.
      source: a `.h5` file of keras-maskrcnn, keras-retinanet, keras-resnet or keras.applications (weights or whole
        model); a directory written by train, its folder `best`, or one checkpoint, of which the average of the weights
        is taken where it holds one; or "imagenet", which keras downloads.
      skip_mismatched: layers whose shapes differ keep their initial weights (a head for other classes).

    Returns:
      WeightsReport.

    Raises:
      FileNotFoundError: there is no such source.
      WeightsError: shapes differ (all such layers are listed), no layer has a name of the model's, the file is of
        another kind, or the backbone is built otherwise than the one the weights were trained in.
    """
    if source == IMAGENET:
        layers = keras_applications.download(model.backbone)
    else:
        checkpoint = find_checkpoint(source)
        if checkpoint:
            layers, averaged = read_checkpoint(checkpoint.path)
            return assign(
                model,
                layers,
                checkpoint.path + " (the average of its weights)" * averaged,
                skip_mismatched=skip_mismatched,
            )
        layers = read_h5(source)
    options = KERAS_RESNET_OPTIONS
    if keras_applications.recognise(layers):
        layers, options = keras_applications.to_keras_resnet(layers), keras_applications.BACKBONE_OPTIONS
    check_construction(model, source, options)
    return assign(model, layers, source, skip_mismatched=skip_mismatched)


def model_layers(model) -> dict:
    """Return the variables of a Keras model as `{layer: {weight: variable}}`."""
    layers = {}
    for variable in model.variables:
        layer, weight = variable.path.split("/")[-2:]
        layers.setdefault(layer, {})[weight] = variable
    return layers


def assign(model, layers: dict, source: str, *, skip_mismatched: bool = False) -> WeightsReport:
    """Lay `{layer: {weight: array}}` upon a model; see `load_weights`. Nothing changes if it raises."""
    ours = model_layers(model)
    ignored = tuple(name for name in layers if IGNORED_LAYERS.fullmatch(name))
    common = [name for name in ours if name in layers]
    if not common:
        raise WeightsError(
            f"{source}: none of its layers has the name of a layer of the model. It has "
            f"{_some(layers)}; the model has {_some(ours)}"
        )
    mismatched = {}
    for name in common:
        theirs, mine = _shapes(layers[name]), _shapes(ours[name])
        if theirs != mine:
            mismatched[name] = f"the source has {_describe(theirs)}, the model has {_describe(mine)}"
    if mismatched and not skip_mismatched:
        listed = "\n".join(f"  {name}: {why}" for name, why in mismatched.items())
        raise WeightsError(
            f"{source}: {len(mismatched)} layers have other shapes than the model's:\n{listed}\nConfigure the model as "
            "the source was, or give --skip_mismatched to start these layers anew (a head for other classes)."
        )
    loaded = tuple(name for name in common if name not in mismatched)
    for name in loaded:
        for weight, variable in ours[name].items():
            variable.assign(layers[name][weight])
    return WeightsReport(
        source=source,
        loaded=loaded,
        mismatched=mismatched,
        ignored=ignored,
        unused=tuple(name for name in layers if name not in ours and name not in ignored),
        missing=tuple(name for name in ours if name not in layers),
    )


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
        root = file["model_weights"] if "model_weights" in file else file
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


def find_checkpoint(source: str) -> SavedCheckpoint | None:
    """Return the newest intact checkpoint of a directory written by train, or the one named; None: `source` is a file.

    Raises:
      FileNotFoundError: a directory without a checkpoint.
      DamagedCheckpointError: the one named is damaged, or all of a directory.
    """
    if tf.io.gfile.exists(f"{source}.index"):
        directory, name = os.path.split(source)
        step = int(name.rsplit("-", 1)[-1]) if re.fullmatch(r"ckpt-\d+", name) else None
        files = CheckpointFiles(directory)
        return SavedCheckpoint(source, 0, {}) if step is None or not files.holds(step) else files.at(step)
    if not tf.io.gfile.isdir(source):
        return None
    newest = CheckpointFiles(os.path.join(source, "checkpoints")).newest() or CheckpointFiles(source).newest()
    if newest is None:
        raise FileNotFoundError(f"{source} holds no checkpoint, neither directly nor in its folder `checkpoints`")
    return newest


def read_checkpoint(path: str) -> tuple[dict, bool]:
    """Return the model's weights `{layer: {weight: array}}` of a checkpoint of ours, and whether they are averages.

    Raises:
      WeightsError: it is a checkpoint of something else, or damaged.
    """
    layers, averaged = {}, False
    try:
        reader = tf.train.load_checkpoint(path)
        for key in sorted(reader.get_variable_to_shape_map(), reverse=True):  # the averages, over the weights, last
            match = CHECKPOINT_KEY.fullmatch(key)
            if match:
                # As TensorFlow writes the key of a dict: "/" is ".S", "." is "..". See `training.state`.
                layer, weight = match[2].replace(".S", "/").replace("..", ".").split("/")[-2:]
                layers.setdefault(layer, {})[weight] = reader.get_tensor(key)
                averaged |= match[1] == "average"
    except tf.errors.OpError as error:
        raise WeightsError(f"{path} cannot be read: {error.message}") from error
    if not layers:
        raise WeightsError(f"{path} was not written by train: it holds no variables of a model by their paths")
    return layers, averaged


def check_construction(model, source: str, options: dict):
    """Refuse a ResNet that would compute other features from the same weights: raises WeightsError, naming options."""
    if not isinstance(model.backbone, ResNet):
        return
    wanted = {**{f"backbone.{name}": value for name, value in options.items()}, "pixel_mode": "caffe"}
    actual = {**{f"backbone.{name}": getattr(model.backbone, name) for name in options}, "pixel_mode": model.pixel_mode}
    differing = [name for name in wanted if wanted[name] != actual[name]]
    if differing:
        listed = ", ".join(f"{name} = {wanted[name]!r} (the model: {actual[name]!r})" for name in differing)
        raise WeightsError(
            f"{source}: these weights were trained with {listed}; built otherwise, the backbone computes other "
            f"features. Set RetinaMask.backbone_options = {options} and RetinaMask.pixel_mode = 'caffe'"
        )


def _shapes(weights: dict) -> dict:
    return {name: tuple(np.shape(weights[name])) for name in sorted(weights)}


def _describe(shapes: dict) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())


def _some(names, count: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
