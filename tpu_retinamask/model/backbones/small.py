"""A small residual backbone: trains from nothing on two CPU cores."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from tpu_retinamask.model.backbones.registry import BACKBONES, Backbone
from tpu_retinamask.model.layers.content import Content, relu_of_content
from tpu_retinamask.model.layers.convolution import StridedConv2D
from tpu_retinamask.model.layers.normalization import make_normalization


@BACKBONES.register("small")
class SmallResNet(Backbone):
    """Basic blocks on few channels: trains from nothing on two CPU cores."""

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64, 128, 192),
        blocks: Sequence[int] = (1, 1, 2, 1),
        *,
        normalization: str = "batch",
        padding: str = "symmetric",
        name: str | None = None,
    ) -> None:
        """Create the layers.

        Args:
          widths: channels of C1 to C5.
          blocks: residual blocks of C2 to C5.
          normalization: see `make_normalization`.
          padding: of convolutions of stride 2; see `layers.convolution.StridedConv2D`.
          name: of the layer.
        """
        super().__init__(name=name)
        self.normalization = normalization
        self.stem = StridedConv2D(widths[0], 3, padding, use_bias=False, name="stem", kernel_initializer="he_normal")
        self.stem_norm = make_normalization(normalization, "bn_stem")
        self.stages = [
            [
                BasicBlock(
                    width,
                    2 if index == 0 else 1,
                    f"{stage}{chr(ord('a') + index)}",
                    normalization=normalization,
                    padding=padding,
                )
                for index in range(count)
            ]
            for stage, (width, count) in enumerate(zip(widths[1:], blocks), start=2)
        ]

    def freezable_stages(self) -> list[list[keras.Layer]]:
        """Return the layers of the stem and of each stage, C1 to C5."""
        return [[self.stem, self.stem_norm], *self.stages]

    @property
    def frozen_statistics(self) -> bool:
        """Return whether its batch normalisation is frozen."""
        return self.normalization == "frozen"

    def call(self, images: tf.Tensor, training: bool = False, content: Content | None = None) -> dict[str, tf.Tensor]:
        """Return C3, C4 and C5 of normalised images [B, H, W, 3]."""
        inside = content and content.mask(2)
        x = relu_of_content(self.stem_norm(self.stem(images), training=training, inside=inside), inside)
        outputs = []  # x: [B, H/2, W/2, .]
        for stage, stride in zip(self.stages, (4, 8, 16, 32)):
            inside = content and content.mask(stride)
            for block in stage:
                x = block(x, training=training, inside=inside)
            outputs.append(x)  # C2 [B, H/4, W/4, .] ... C5 [B, H/32, W/32, .]
        return dict(zip(("C3", "C4", "C5"), outputs[1:]))


class BasicBlock(keras.Layer):
    """Two 3x3 convolutions beside a shortcut; the shortcut projects where the stride is 2."""

    def __init__(self, filters: int, stride: int, suffix: str, *, normalization: str, padding: str) -> None:
        """Create the layers; `suffix` is the stage and block letter of their names."""
        super().__init__(name=f"res{suffix}")

        def conv(branch, size, step):
            options = dict(use_bias=False, name=f"res{suffix}_{branch}", kernel_initializer="he_normal")
            if step == 2 and size > 1:
                return StridedConv2D(filters, size, padding, **options)
            return keras.layers.Conv2D(filters, size, step, "same", **options)

        self.first, self.second = conv("branch2a", 3, stride), conv("branch2b", 3, 1)
        self.first_norm = make_normalization(normalization, f"bn{suffix}_branch2a")
        self.second_norm = make_normalization(normalization, f"bn{suffix}_branch2b")
        self.shortcut = conv("branch1", 1, stride) if stride > 1 else None

    def call(self, x: tf.Tensor, training: bool = False, inside: tf.Tensor | None = None) -> tf.Tensor:
        """Return the block's output, its side divided by the stride (rounded up).

        Args:
          x: [B, h, w, F], zero beside the picture.
          training: see `Backbone.call`.
          inside: [B, h', w', 1] of the output's cells, 1 where the picture is; None: everywhere.
        """
        y = relu_of_content(self.first_norm(self.first(x), training=training, inside=inside), inside)
        y = self.second_norm(self.second(y), training=training, inside=inside)
        return relu_of_content(y + (x if self.shortcut is None else self.shortcut(x)), inside)
