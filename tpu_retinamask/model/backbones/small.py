"""A small residual backbone: trains from nothing on two CPU cores."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from tpu_retinamask.model.backbones.normalization import make_normalization
from tpu_retinamask.model.backbones.registry import BACKBONES, Backbone


@BACKBONES.register("small")
class SmallResNet(Backbone):
    """Basic blocks on few channels: trains from nothing on two CPU cores."""

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64, 128, 192),
        blocks: Sequence[int] = (1, 1, 2, 1),
        *,
        normalization: str = "batch",
        name: str | None = None,
    ) -> None:
        """Create the layers; `widths` are the channels of C1..C5, `blocks` the residual blocks of C2..C5."""
        super().__init__(name=name)
        self.normalization = normalization
        self.stem = keras.layers.Conv2D(
            widths[0], 3, 2, "same", use_bias=False, name="stem", kernel_initializer="he_normal"
        )
        self.stem_norm = make_normalization(normalization, "bn_stem")
        self.stages = [
            [
                BasicBlock(
                    width, 2 if index == 0 else 1, f"{stage}{chr(ord('a') + index)}", normalization=normalization
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

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Return C3, C4 and C5 of normalised images [B, H, W, 3]."""
        x = tf.nn.relu(self.stem_norm(self.stem(images), training=training))  # [B, H/2, W/2, .]
        outputs = []
        for stage in self.stages:
            for block in stage:
                x = block(x, training=training)
            outputs.append(x)  # C2 [B, H/4, W/4, .] ... C5 [B, H/32, W/32, .]
        return dict(zip(("C3", "C4", "C5"), outputs[1:]))


class BasicBlock(keras.Layer):
    """Two 3x3 convolutions beside a shortcut; the shortcut projects where the stride is 2."""

    def __init__(self, filters: int, stride: int, suffix: str, *, normalization: str) -> None:
        """Create the layers; `suffix` is the stage and block letter of their names."""
        super().__init__(name=f"res{suffix}")

        def conv(branch, size, step):
            return keras.layers.Conv2D(
                filters,
                size,
                step,
                "same",
                use_bias=False,
                name=f"res{suffix}_{branch}",
                kernel_initializer="he_normal",
            )

        self.first, self.second = conv("branch2a", 3, stride), conv("branch2b", 3, 1)
        self.first_norm = make_normalization(normalization, f"bn{suffix}_branch2a")
        self.second_norm = make_normalization(normalization, f"bn{suffix}_branch2b")
        self.shortcut = conv("branch1", 1, stride) if stride > 1 else None

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the block's output, its side divided by the stride (rounded up)."""
        y = tf.nn.relu(self.first_norm(self.first(x), training=training))
        y = self.second_norm(self.second(y), training=training)
        return tf.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))
