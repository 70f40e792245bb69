"""Pretrained weights by layer name: snapshots of keras-maskrcnn and keras-retinanet, ImageNet, our checkpoints.

A source is read into `{layer: {weight: array}}`, such as `{"conv1": {"kernel": ...}}`, and then laid upon the model.
"""

import dataclasses
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from tpu_retinamask.model.backbones.resnet import APPLICATION_OPTIONS
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.pretrained import keras_applications
from tpu_retinamask.pretrained.array_pickle import read_array_pickle
from tpu_retinamask.pretrained.detector_names import recognise, to_our_layers
from tpu_retinamask.pretrained.efficientnet_lite import to_efficientnet_lite
from tpu_retinamask.pretrained.faults import WeightsError
from tpu_retinamask.pretrained.h5_file import IMAGENET, read_h5
from tpu_retinamask.pretrained.own_checkpoint import find_checkpoint, read_checkpoint
from tpu_retinamask.pretrained.torch_file import installed_file, is_torch_file, read_torch

log = logging.getLogger(__name__)

# What a backbone must be built with to compute keras-resnet's features (its versions differ in conv1_padding).
KERAS_RESNET_OPTIONS = {"pool_padding": "same", "epsilon": 1e-5, "stride_in_1x1": True}
# Layers whose numbers are constants here: keras-retinanet forks keep the anchors as weights.
IGNORED_LAYERS = re.compile(r"anchors(_\d+)?")
MASK_HEAD_LAYERS = re.compile(r"roi_mask.*")
# What a detector of another library may have in other shapes than ours.
AROUND_BACKBONE = re.compile(r"C\d_reduced|P\d|pyramid_.*|roi_mask.*")


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


def load_weights(model: RetinaMask, source: str, *, skip_mismatched: bool = False) -> WeightsReport:
    """Load the weights of a source into the layers of the same names.

    Args:
      model: RetinaMask with its weights created.
      source: a `.h5` file of keras-maskrcnn, keras-retinanet, keras-resnet or keras.applications (weights or whole
        model); a `.pth` or `.pkl` of torchvision's or detectron2's ResNet, Mask R-CNN or RetinaNet, whose heads start
        anew where their shapes differ; a directory written by train, its folder `best`, or one checkpoint, of which
        the average of the weights is taken where it holds one; or "imagenet": what the backbone names, which keras
        downloads or a package holds.
      skip_mismatched: layers whose shapes differ keep their initial weights (a head for other classes).

    Returns:
      WeightsReport.

    Raises:
      FileNotFoundError: there is no such source.
      WeightsError: shapes differ (all such layers are listed), no layer has a name of the model's, the file is of
        another kind, a number is not finite, or the backbone is built otherwise than the one the weights were
        trained in.
    """
    if source == IMAGENET:
        return _load_imagenet(model, skip_mismatched=skip_mismatched)
    checkpoint = find_checkpoint(source)
    if checkpoint:
        layers, averaged = read_checkpoint(checkpoint.path)
        return assign(
            model,
            layers,
            checkpoint.path + " (the average of its weights)" * averaged,
            skip_mismatched=skip_mismatched,
        )
    if source.endswith(".keras"):  # a zip, as those of PyTorch are
        raise WeightsError(
            f"{source}: an archive of Keras 3, expected weights in HDF5: load it where it was made and save it by "
            "model.save('weights.h5')"
        )
    if source.endswith(".pkl") or is_torch_file(source):
        return _load_detector(model, source, skip_mismatched=skip_mismatched)
    layers = read_h5(source)
    options = KERAS_RESNET_OPTIONS
    if keras_applications.recognise(layers):
        layers, options = keras_applications.to_keras_resnet(layers), APPLICATION_OPTIONS
    check_construction(model, source, options)
    return assign(model, layers, source, skip_mismatched=skip_mismatched)


def _load_detector(model: RetinaMask, source: str, *, skip_mismatched: bool) -> WeightsReport:
    """Lay the weights of a detector of torchvision's or detectron2's upon the model."""
    tensors = read_array_pickle(source) if source.endswith(".pkl") else read_torch(source)
    detectors = recognise(tensors)
    if detectors is None:
        raise WeightsError(
            f"{source}: its tensors are none of a ResNet of torchvision or detectron2, nor of a detector with one: it "
            f"has {_some(tensors)}"
        )
    check_construction(model, source, detectors.construction, detectors.pixel_mode)
    layers = to_our_layers(tensors, detectors)
    return assign(model, layers, source, skip_mismatched=skip_mismatched, may_differ=AROUND_BACKBONE)


def model_layers(model: keras.Model) -> dict:
    """Return the variables of a Keras model as `{layer: {weight: variable}}`."""
    layers = {}
    for variable in model.variables:
        layer, weight = variable.path.split("/")[-2:]
        layers.setdefault(layer, {})[weight] = variable
    return layers


def assign(
    model: RetinaMask,
    layers: dict,
    source: str,
    *,
    skip_mismatched: bool = False,
    may_differ: re.Pattern | None = None,
) -> WeightsReport:
    """Lay `{layer: {weight: array}}` upon a model; see `load_weights`. Nothing changes if it raises.

    Layers whose whole names match `may_differ` start anew where their shapes differ, asked or not.
    """
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
    refused = {name: why for name, why in mismatched.items() if not (may_differ and may_differ.fullmatch(name))}
    if refused and not skip_mismatched:
        listed = "\n".join(f"  {name}: {why}" for name, why in refused.items())
        raise WeightsError(
            f"{source}: {len(refused)} layers have other shapes than the model's:\n{listed}\nConfigure the model as "
            "the source was, or give --skip_mismatched to start these layers anew (a head for other classes)."
        )
    loaded = tuple(name for name in common if name not in mismatched)
    for name in loaded:
        for weight in ours[name]:
            _check_numbers(source, name, weight, layers[name][weight])
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


def _load_imagenet(model: RetinaMask, *, skip_mismatched: bool) -> WeightsReport:
    """Lay the ImageNet weights of the model's backbone upon it, from where the backbone says."""
    pretrained = model.backbone.pretrained
    if pretrained is None:
        raise WeightsError(
            f"--weights={IMAGENET}: there are no ImageNet weights for this backbone ({model.settings.backbone}): those "
            "of keras.applications exist for resnet50, resnet101 and resnet152, those of tpu-retinamask[pretrained] "
            "for efficientnet_lite0, efficientnet_lite1 and efficientnet_lite2"
        )
    if pretrained.read is not None:
        layers = pretrained.read()
    elif pretrained.package is not None:
        layers = to_efficientnet_lite(read_torch(installed_file(pretrained.package)))
    elif pretrained.application is None:
        raise WeightsError(
            f"the backbone {model.settings.backbone} says neither `application`, `package` nor `read` of its weights"
        )
    else:
        layers = keras_applications.to_keras_resnet(keras_applications.download(pretrained.application))
    check_construction(model, IMAGENET, pretrained.construction, pretrained.pixel_mode)
    return assign(model, layers, IMAGENET, skip_mismatched=skip_mismatched)


def check_construction(model: RetinaMask, source: str, options: Mapping[str, Any], pixel_mode: str = "caffe") -> None:
    """Refuse a backbone that would compute other features from the same weights.

    Args:
      model: whose backbone says, by attributes of these names, how it is built.
      source: of the weights.
      options: attributes and values that the weights were trained with.
      pixel_mode: that they were trained with.

    Raises:
      WeightsError: names the options that differ.
    """
    silent = [name for name in options if not hasattr(model.backbone, name)]
    if len(silent) == len(options):
        log.info("%s: the backbone %s has no %s to compare", source, model.settings.backbone, ", ".join(options))
        return
    wanted = {**{f"backbone.{name}": value for name, value in options.items()}, "pixel_mode": pixel_mode}
    actual = {f"backbone.{name}": getattr(model.backbone, name, None) for name in options}
    actual["pixel_mode"] = model.pixel_mode
    differing = [name for name in wanted if wanted[name] != actual[name]]
    if differing:
        listed = ", ".join(f"{name} = {wanted[name]!r} (the model: {actual[name]!r})" for name in differing)
        raise WeightsError(
            f"{source}: these weights were trained with {listed}; built otherwise, the backbone computes other "
            f"features. Set RetinaMask.backbone_options = {dict(options)} and RetinaMask.pixel_mode = {pixel_mode!r}"
        )


def _check_numbers(source: str, layer: str, weight: str, value: Any) -> None:
    """Refuse what no network was trained to."""
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "fiu" and numbers.dtype.name != "bfloat16":
        raise WeightsError(f"{source}: {layer}/{weight} holds {numbers.dtype}, expected numbers")
    with np.errstate(over="ignore"):
        finite = np.isfinite(numbers.astype(np.float32))
    if not finite.all():
        raise WeightsError(
            f"{source}: {layer}/{weight} holds {finite.size - np.count_nonzero(finite)} of {finite.size} numbers that "
            "are NaN or infinite: the training that wrote them had diverged, or the file is damaged"
        )
    if weight == "moving_variance" and (numbers < 0).any():
        raise WeightsError(f"{source}: {layer}/{weight} holds a variance below 0: the file is damaged")


def _shapes(weights: dict) -> dict:
    return {name: tuple(np.shape(weights[name])) for name in sorted(weights)}


def _describe(shapes: dict) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())


def _some(names: Iterable[str], count: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
