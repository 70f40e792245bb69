"""The normalisation that a backbone puts after its convolutions."""

import keras

from tpu_retinamask.errors import SettingError

NORMALIZATIONS = ("frozen", "batch", "group")


def make_normalization(kind: str, name: str, epsilon: float = 1e-5) -> keras.Layer:
    """Build the normalisation layer that a backbone puts after each convolution.

    Args:
      kind: "frozen" batch normalisation (statistics and scale never change; for pre-trained weights), "batch"
        (synchronised over replicas) or "group" (by image, 16 groups).
      name: of the layer.
      epsilon: added to the variance.

    Raises:
      SettingError: another kind.
    """
    check_normalization(kind)
    if kind == "group":
        return keras.layers.GroupNormalization(groups=16, epsilon=epsilon, name=name)
    frozen = kind == "frozen"
    # Statistics of one replica alone would differ between replicas and be lost by a checkpoint.
    return keras.layers.BatchNormalization(
        epsilon=epsilon, momentum=0.9, synchronized=not frozen, trainable=not frozen, name=name
    )


def check_normalization(kind: str) -> None:
    """Raise SettingError for a kind that is none of NORMALIZATIONS."""
    if kind not in NORMALIZATIONS:
        raise SettingError(f"normalization {kind!r} is not one of {NORMALIZATIONS}")
