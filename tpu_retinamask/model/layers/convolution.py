"""Convolutions of stride 2, and the zeros around what they see."""

from typing import Any

import keras
import tensorflow as tf

from tpu_retinamask.errors import SettingError

PADDINGS = ("symmetric", "same")


class StridedConv2D(keras.layers.Conv2D):
    """A convolution of stride 2 whose windows lie the same on every canvas, or as Keras lays them.

    "symmetric" adds size // 2 zeros on each side, as PyTorch's detectors do: the first window is centred on the first
    cell, whatever the side. "same" is TensorFlow's: on even sides it adds one zero less, all of them at the end, so
    that every window lies one cell further than on odd sides.
    """

    def __init__(self, filters: int, size: int, padding: str = "symmetric", **options: Any) -> None:
        """Create the layer.

        Args:
          filters: channels of the output.
          size: of the kernel, odd.
          padding: one of PADDINGS.
          **options: see keras.layers.Conv2D.

        Raises:
          SettingError: another padding.
        """
        if padding not in PADDINGS:
            raise SettingError(f"padding {padding!r} is not one of {PADDINGS}")
        super().__init__(filters, size, 2, "same" if padding == "same" else "valid", **options)
        self.margin = 0 if padding == "same" else size // 2

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return [B, ceil(h / 2), ceil(w / 2), filters] of [B, h, w, F]."""
        return super().call(pad_sides(inputs, self.margin) if self.margin else inputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the output, padding included."""
        batch, height, width, channels = input_shape
        return super().compute_output_shape((batch, height + 2 * self.margin, width + 2 * self.margin, channels))


def pad_sides(x: tf.Tensor, margin: int) -> tf.Tensor:
    """Return [B, h, w, F] with so many zeros on each side."""
    return tf.pad(x, [[0, 0], [margin, margin], [margin, margin], [0, 0]])
