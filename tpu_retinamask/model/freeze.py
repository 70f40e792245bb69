"""Layers that a training leaves as they are: no gradient, no weight decay, statistics that stay."""

import re
from collections.abc import Iterator, Sequence

import keras

from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.backbones.registry import Backbone
from tpu_retinamask.private.keras_names import child_layers


def freeze_stages(backbone: Backbone, stages: int) -> None:
    """Freeze the first stages of a backbone: 1 the stem, 2 the stem and C2, up to 5, all of it.

    Args:
      backbone: a layer of `model.backbone`.
      stages: 0 to 5.

    Raises:
      SettingError: there is no such stage.
    """
    parts = backbone.freezable_stages()
    if not 0 <= stages <= len(parts):
        raise SettingError(f"frozen_stages is {stages}, expected 0 (none) to {len(parts)} (the whole backbone)")
    for part in parts[:stages]:
        for layer in part:
            layer.trainable = False


def freeze_layers(model: keras.Model, patterns: str | Sequence[str]) -> list[str]:
    """Freeze every layer in whose path a pattern is found.

    Args:
      model: Keras model; it need not be built.
      patterns: regular expressions, or one, searched in paths such as "backbone/res2a/res2a_branch2a", "fpn/P3" and
        "pyramid_classification/pyramid_classification_0".

    Returns:
      The paths of the layers frozen by them.

    Raises:
      SettingError: a pattern is no regular expression, or is found in no path; lists the parts of the model.
    """
    if isinstance(patterns, str):
        patterns = (patterns,)
    frozen = []
    paths = dict(_leaves(model))
    for pattern in patterns:
        try:
            found = [path for path in paths if re.search(pattern, path)]
        except re.error as error:
            raise SettingError(f"freeze: {pattern!r} is no regular expression: {error}") from error
        if not found:
            raise SettingError(
                f"freeze: no layer has {pattern!r} in its path; the parts of the model are "
                f"{sorted({path.split('/')[0] for path in paths})}, and a path looks like {min(paths)!r}"
            )
        for path in found:
            paths[path].trainable = False
        frozen += found
    return frozen


def _leaves(layer: keras.Layer, prefix: str = "") -> Iterator[tuple[str, keras.Layer]]:
    for child in child_layers(layer):
        path = prefix + child.name
        if child_layers(child):
            yield from _leaves(child, path + "/")
        elif child.weights or not child.built:  # not those without weights, an activation or a pooling
            yield path, child
