"""Weights of torchvision's and detectron2's ResNet detectors, by their names, in the layers of our network."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tpu_retinamask.model.backbones.resnet import BLOCKS, block_suffixes
from tpu_retinamask.pretrained.faults import WeightsError

_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_BRANCHES = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}


class Detectors(NamedTuple):
    """What the weights of a library's detectors are, besides their names."""

    library: str
    construction: Mapping[str, Any]  # of a ResNet that computes their features
    pixel_mode: str  # that they were trained with


TORCHVISION = Detectors(
    "torchvision",
    {"stride_in_1x1": False, "conv1_padding": "explicit", "pool_padding": "explicit", "epsilon": 1e-5},
    "torch",
)
DETECTRON2 = Detectors(
    "detectron2",
    {"stride_in_1x1": True, "conv1_padding": "explicit", "pool_padding": "explicit", "epsilon": 1e-5},
    "caffe",
)

# torchvision's layers as detectron2 would name those of a backbone, and as we name the others.
_TORCHVISION = (
    (r"(?:backbone\.body\.)?conv1", "stem.conv1"),
    (r"(?:backbone\.body\.)?bn1", "stem.conv1.norm"),
    (r"(?:backbone\.body\.)?layer(\d)\.(\d+)\.conv(\d)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}"),
    (r"(?:backbone\.body\.)?layer(\d)\.(\d+)\.bn(\d)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.norm"),
    (r"(?:backbone\.body\.)?layer(\d)\.(\d+)\.downsample\.0", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut"),
    (r"(?:backbone\.body\.)?layer(\d)\.(\d+)\.downsample\.1", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut.norm"),
    (r"backbone\.fpn\.extra_blocks\.p(6|7)", lambda m: f"P{m[1]}"),
    # Convolutions alone are numbered by 1, convolutions and their activations in one list by 2.
    (r"head\.classification_head\.conv\.(\d)\.0", lambda m: f"pyramid_classification_{m[1]}"),
    (r"head\.classification_head\.conv\.(\d)", lambda m: f"pyramid_classification_{int(m[1]) // 2}"),
    (r"head\.classification_head\.cls_logits", "pyramid_classification"),
    (r"head\.regression_head\.conv\.(\d)\.0", lambda m: f"pyramid_regression_{m[1]}"),
    (r"head\.regression_head\.conv\.(\d)", lambda m: f"pyramid_regression_{int(m[1]) // 2}"),
    (r"roi_heads\.mask_head\.(\d)\.0", lambda m: f"roi_mask_{m[1]}"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)", lambda m: f"roi_mask_{int(m[1]) - 1}"),
    (r"roi_heads\.mask_predictor\.conv5_mask", "roi_mask_features"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits", "roi_mask"),
)
_DETECTRON2 = (
    (r"(?:backbone\.bottom_up\.)?(stem\.conv1(?:\.norm)?)", lambda m: m[1]),
    (r"(?:backbone\.bottom_up\.)?(res\d\.\d+\.(?:conv\d|shortcut)(?:\.norm)?)", lambda m: m[1]),
    (r"backbone\.fpn_lateral(\d)", lambda m: f"C{m[1]}_reduced"),
    (r"backbone\.fpn_output(\d)", lambda m: f"P{m[1]}"),
    (r"backbone\.top_block\.p(6|7)", lambda m: f"P{m[1]}"),
    (r"head\.cls_subnet\.(\d)", lambda m: f"pyramid_classification_{int(m[1]) // 2}"),
    (r"head\.bbox_subnet\.(\d)", lambda m: f"pyramid_regression_{int(m[1]) // 2}"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)", lambda m: f"roi_mask_{int(m[1]) - 1}"),
    (r"roi_heads\.mask_head\.deconv", "roi_mask_features"),
    (r"roi_heads\.mask_head\.predictor", "roi_mask"),
)


def recognise(names: Mapping[str, object]) -> Detectors | None:
    """Return whose detector, or ResNet, has tensors of these names; None where nobody's."""
    if any(re.match(r"(backbone\.bottom_up\.)?stem\.conv1\.", name) for name in names):
        return DETECTRON2
    if any(re.match(r"(backbone\.body\.)?layer1\.0\.", name) for name in names):
        return TORCHVISION
    return None


def to_our_layers(tensors: Mapping[str, np.ndarray], detectors: Detectors) -> dict[str, dict[str, np.ndarray]]:
    """Return weights {layer: {weight: array}} by our names, with channels last; what we have not keeps its name.

    The last layer of the boxes is left out, and of detectron2 that of the classes: their anchors lie half a cell
    elsewhere, and detectron2's are in another order.

    Args:
      tensors: {name: array} of PyTorch: convolutions [F', F, h, w], transposed ones [F, F', h, w].
      detectors: from `recognise`.

    Raises:
      WeightsError: a backbone that is no ResNet with bottleneck blocks of 50, 101 or 152 layers.
    """
    table = _with_pyramid(tensors) if detectors is TORCHVISION else _DETECTRON2
    renamed: dict[str, dict[str, np.ndarray]] = {}
    for name, array in tensors.items():
        layer, _, weight = name.rpartition(".")
        if weight != "num_batches_tracked":  # of PyTorch's normalisation, which Keras' does without
            renamed.setdefault(_renamed(layer, table), {})[weight] = np.asarray(array)
    suffixes = _suffixes(renamed, detectors)
    layers = {}
    for name, weights in renamed.items():
        ours = _resnet_layer(name, suffixes)
        if ours.startswith("bn"):
            weights = {_NORM.get(weight, weight): array for weight, array in weights.items()}
        else:
            weights = {
                "kernel" if weight == "weight" and array.ndim == 4 else weight: _channels_last(array)
                for weight, array in weights.items()
            }
        layers[ours] = weights
    return layers


def _with_pyramid(tensors: Mapping[str, np.ndarray]) -> tuple[tuple[str, str | Callable[[re.Match], str]], ...]:
    """Return torchvision's table with its pyramid, whose levels it counts from the lowest that it has."""
    found = [re.match(r"backbone\.fpn\.inner_blocks\.(\d)", name) for name in tensors]
    lowest = 5 - max((int(match[1]) for match in found if match), default=0)
    return (
        *_TORCHVISION,
        (r"backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?", lambda m: f"C{lowest + int(m[1])}_reduced"),
        (r"backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?", lambda m: f"P{lowest + int(m[1])}"),
    )


def _renamed(layer: str, table: tuple[tuple[str, str | Callable[[re.Match], str]], ...]) -> str:
    for pattern, new in table:
        if match := re.fullmatch(pattern, layer):
            return new if isinstance(new, str) else new(match)
    return layer


def _suffixes(layers: Mapping[str, object], detectors: Detectors) -> dict[int, list[str]]:
    """Return what keras-resnet calls the blocks of each stage."""
    places = {tuple(map(int, match.groups())) for name in layers if (match := re.match(r"res(\d)\.(\d+)\.", name))}
    blocks = tuple(max((index + 1 for at, index in places if at == stage), default=0) for stage in (2, 3, 4, 5))
    if blocks not in BLOCKS.values() or not any(name.endswith(".conv3") for name in layers):
        raise WeightsError(
            f"a backbone of {detectors.library} with {blocks} blocks a stage, expected one of "
            f"{', '.join(f'{name} {blocks}' for name, blocks in BLOCKS.items())}"
        )
    return {stage: block_suffixes(blocks, stage) for stage in (2, 3, 4, 5)}


def _resnet_layer(name: str, suffixes: Mapping[int, list[str]]) -> str:
    """Return the name that keras-resnet gives a layer of the backbone; others keep theirs."""
    if name in ("stem.conv1", "stem.conv1.norm"):
        return "bn_conv1" if name.endswith("norm") else "conv1"
    match = re.fullmatch(r"res(\d)\.(\d+)\.(conv[123]|shortcut)(\.norm)?", name)
    if match is None:
        return name
    return f"{'bn' if match[4] else 'res'}{suffixes[int(match[1])][int(match[2])]}_{_BRANCHES[match[3]]}"


def _channels_last(array: np.ndarray) -> np.ndarray:
    # Of a transposed convolution too: PyTorch has its inputs first, Keras last.
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
