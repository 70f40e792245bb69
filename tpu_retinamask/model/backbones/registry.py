"""The seat of backbones, and what a network asks of one."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.layers.content import Content
from tpu_retinamask.seats import Seat

PYRAMID_STRIDES = {"C3": 8, "C4": 16, "C5": 32}  # what the pyramid is built on, in canvas pixels a cell
BACKBONES: Seat[Callable[..., "Backbone"]] = Seat("backbone", "tpu_retinamask.backbones")


class PretrainedWeights(NamedTuple):
    """Where the ImageNet weights of a backbone come from, and what it must be for them.

    One of `application`, `package` and `read` is given.
    """

    application: str | None = None  # network of keras.applications, whose weights Keras downloads
    read: Callable[[], dict] | None = None  # returns {layer: {weight: array}}, by the backbone's own names
    construction: Mapping[str, Any] = {}  # attributes of the backbone with which it computes the same features
    pixel_mode: str = "caffe"  # see `ops.images`
    package: str | None = None  # distribution with a file of PyTorch, whose names `pretrained.efficientnet_lite` knows


class Backbone(keras.Layer):
    """From a canvas to feature maps, by the name of their level; inherit from it, or have what it has.

    Attributes:
      strides: canvas pixels per cell of each level that `call` returns; the pyramid takes C3, C4 and C5.
      pretrained: where its ImageNet weights come from, or None.
    """

    strides: Mapping[str, int] = PYRAMID_STRIDES
    pretrained: PretrainedWeights | None = None

    def call(self, images: tf.Tensor, training: bool = False, content: Content | None = None) -> dict[str, tf.Tensor]:
        """Return the features of each level, [B, ceil(H / stride), ceil(W / stride), .].

        Args:
          images: [B, H, W, 3] normalised, zero beside the picture.
          training: whether "batch" normalisation uses the batch's statistics.
          content: where the pictures lie; None: the canvas is all picture. A backbone that does not ask for it gets
            none: what it returns beside the picture is left out, but its features near the border, and statistics by
            group or batch, then depend on the canvas.
        """
        raise NotImplementedError(f"{type(self).__name__} has no call")

    def freezable_stages(self) -> list[list[keras.Layer]]:
        """Return the layers of each stage that `RetinaMask.frozen_stages` counts, the first first; none by default."""
        return []

    @property
    def frozen_statistics(self) -> bool:
        """Return whether it normalises by statistics that training never changes: useless without trained weights."""
        return False


def make_backbone(
    name: str, options: Mapping[str, Any] = {}, *, normalization: str = "frozen", padding: str = "symmetric"
) -> Backbone:
    """Build a backbone by name.

    Args:
      name: of one in BACKBONES.
      options: further arguments of the backbone's class.
      normalization: see `layers.normalization.make_normalization`; given to a backbone that asks for it.
      padding: see `layers.convolution.StridedConv2D`; likewise.

    Raises:
      SettingError: unknown name, normalisation or option, or levels that no pyramid can be built on.
    """
    build = BACKBONES.get(name)
    accepted = inspect.signature(build).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    own = sorted(set(accepted) - {"name", "normalization", "padding"})  # these are settings of the network
    unknown = [] if takes_any else sorted(set(options) - set(own))
    if unknown:
        raise SettingError(f"backbone_options {unknown} are not among those of {name!r}: {own}")
    given = {"normalization": normalization, "padding": padding}
    given = {option: value for option, value in given.items() if option in accepted}
    try:
        backbone = build(name="backbone", **options, **given)
    except SettingError:
        raise
    except (TypeError, ValueError) as error:
        raise SettingError(f"backbone {name!r} cannot be built with the options {dict(options)}: {error}") from error
    strides = {level: backbone.strides.get(level) for level in PYRAMID_STRIDES}
    if strides != PYRAMID_STRIDES:
        raise SettingError(f"backbone {name!r} has the strides {dict(backbone.strides)}, expected {PYRAMID_STRIDES}")
    return backbone


def check_levels(features: Mapping[str, tf.Tensor], image_size: Sequence[int], name: str) -> None:
    """Refuse features that the pyramid, and the anchors on it, cannot be laid upon.

    Args:
      features: what a backbone returned.
      image_size: (H, W) of the canvas.
      name: of the backbone.

    Raises:
      SettingError: no dict by level, or a level that is missing or has another size than its stride says.
    """
    if not isinstance(features, Mapping):
        raise SettingError(
            f"backbone {name!r} returns {type(features).__name__}, expected a dict of {[*PYRAMID_STRIDES]}"
        )
    for level, stride in PYRAMID_STRIDES.items():
        wanted = tuple(-(-side // stride) for side in image_size)
        shape = features[level].shape if level in features else None
        if shape is None or len(shape) != 4 or tuple(shape[1:3]) != wanted:
            returned = "not at all" if shape is None else f"of shape {tuple(shape)}"
            raise SettingError(
                f"backbone {name!r} on a canvas of {image_size[0]} x {image_size[1]} returns {level} {returned}, "
                f"expected [B, {wanted[0]}, {wanted[1]}, .]"
            )
