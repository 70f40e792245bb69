"""ImageNet weights of keras.applications' ResNet50, ResNet101 and ResNet152 in the layers of our backbone.

The same networks as keras-resnet's, with stride 2 in the first 1x1, but their convolutions have a bias, their pooling
pads one zero on each side, and their batch normalisation adds 1.001e-5 to the variance.
"""

import re

import keras

from tpu_retinamask.errors import UserError
from tpu_retinamask.model.backbones.resnet import block_suffixes

MODELS = {16: "ResNet50", 33: "ResNet101", 50: "ResNet152"}  # by their number of residual blocks
_LAYER = re.compile(r"conv([2-5])_block([1-9]\d?)_([0-3])_(conv|bn)", re.ASCII)
_BRANCHES = ("branch1", "branch2a", "branch2b", "branch2c")  # of convolutions 0 (the shortcut) to 3 of a block


def recognise(layers: dict) -> bool:
    """Return whether `{layer: {weight: array}}` has the names of keras.applications' residual networks."""
    return "conv1_conv" in layers


def to_keras_resnet(layers: dict) -> dict:
    """Rename the layers as keras-resnet does and fold each convolution's bias into the normalisation after it.

    `BN(x + bias)` subtracts the moving mean: it equals `BN'(x)` with the moving mean lowered by the bias.

    Args:
      layers: {layer: {weight: array}} of keras.applications' ResNet50, ResNet101 or ResNet152.

    Returns:
      The same of our backbone; layers outside the backbone (`predictions`) keep their names and weights.

    Raises:
      UserError: a ResNet V2, whose normalisation comes before the convolution, or not one of these networks.
    """
    try:
        return _to_keras_resnet(layers)
    except (LookupError, ValueError, TypeError) as error:  # of a layer that another needs, or of another shape
        if isinstance(error, UserError):
            raise
        raise UserError(f"these weights of keras.applications lack what belongs together: {error}") from error


def _to_keras_resnet(layers: dict) -> dict:
    counts = {}
    for stage, block in (map(int, match.groups()[:2]) for match in map(_LAYER.fullmatch, layers) if match):
        counts[stage] = max(counts.get(stage, 0), block)
    blocks = [counts.get(stage, 0) for stage in (2, 3, 4, 5)]
    if sum(blocks) not in MODELS or "conv1_bn" not in layers:
        raise UserError(
            f"these weights of keras.applications are of none of {list(MODELS.values())} "
            f"(blocks {blocks}, {'with' if 'conv1_bn' in layers else 'without'} conv1_bn)"
        )
    suffixes = {stage: block_suffixes(blocks, stage) for stage in counts}
    renamed, biases = {}, {}
    for name, weights in layers.items():
        weights = dict(weights)
        new, norm = _rename(name, suffixes)
        if norm is not None:
            biases[norm] = weights.pop("bias", 0.0)
        renamed[new] = weights
    for norm, bias in biases.items():
        renamed[norm]["moving_mean"] = renamed[norm]["moving_mean"] - bias
    return renamed


def download(application: str) -> dict:
    """Return the ImageNet weights `{layer: {weight: array}}` of a network, which keras downloads and keeps.

    Args:
      application: its name in keras.applications, such as "ResNet50".

    Raises:
      UserError: the download failed.
    """
    try:
        model = getattr(keras.applications, application)(include_top=False, weights="imagenet")
    except OSError as error:
        raise UserError(
            f"keras could not download the ImageNet weights of {application}: {error}. Download them "
            "elsewhere and give the .h5 file"
        ) from error
    return layers_of(model)


def layers_of(model: keras.Model) -> dict:
    """Return the weights `{layer: {weight: array}}` of a Keras model whose layers are not nested."""
    return {
        layer.name: {variable.name: variable.numpy() for variable in layer.weights}
        for layer in model.layers
        if layer.weights
    }


def _rename(name: str, suffixes: dict):
    """Return a layer's name in keras-resnet and, for a convolution, that of the normalisation after it."""
    match = _LAYER.fullmatch(name)
    if match:
        suffix, branch = suffixes[int(match[1])][int(match[2]) - 1], _BRANCHES[int(match[3])]
        new, norm = f"res{suffix}_{branch}", f"bn{suffix}_{branch}"
    elif name in ("conv1_conv", "conv1_bn"):
        new, norm = "conv1", "bn_conv1"
    else:
        return name, None
    return (new, norm) if name.endswith("conv") else (norm, None)
