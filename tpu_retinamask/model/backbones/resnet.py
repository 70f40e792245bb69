"""Residual backbones: ResNet-50/101/152 in the layout of keras-resnet, and a small one for CPU runs.

Layer names are those of keras-resnet (res2a_branch2a, bn2a_branch2a, ...), so that its weights load by name.
"""

import keras
import tensorflow as tf

NORMALIZATIONS = ("frozen", "batch", "group")
_BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
BACKBONES = ("small", *_BLOCKS)


def make_backbone(name: str, *, normalization: str = "frozen", **options) -> keras.Layer:
    """Build a backbone by name.

    Args:
      name: one of BACKBONES.
      normalization: "frozen" batch normalisation (statistics and scale never change; for pre-trained
        weights), "batch" (synchronised over replicas) or "group".
      **options: arguments of the backbone's class.

    Returns:
      A layer from [B, H, W, 3] to the tuple (C3, C4, C5), each [B, ceil(H / 2**l), ceil(W / 2**l), .].

    Raises:
      ValueError: unknown name or normalisation.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization {normalization!r} is not one of {NORMALIZATIONS}")
    if name == "small":
        return SmallResNet(normalization=normalization, name="backbone", **options)
    if name not in _BLOCKS:
        raise ValueError(f"backbone {name!r} is not one of {BACKBONES}")
    return ResNet(_BLOCKS[name], normalization=normalization, name="backbone", **options)


def make_normalization(kind: str, name: str, epsilon: float = 1e-5) -> keras.Layer:
    """Build the normalisation layer that a backbone puts after each convolution."""
    if kind == "group":
        return keras.layers.GroupNormalization(groups=16, epsilon=epsilon, name=name)
    frozen = kind == "frozen"
    # Statistics of one replica alone would differ between replicas and be lost by a checkpoint.
    return keras.layers.BatchNormalization(
        epsilon=epsilon, momentum=0.9, synchronized=not frozen, trainable=not frozen, name=name
    )


class ResNet(keras.Layer):
    """ResNet with bottleneck blocks, stride 2 in the first 1x1 of a stage (arXiv 1512.03385)."""

    def __init__(
        self,
        blocks,
        *,
        normalization: str = "frozen",
        conv1_padding: str = "explicit",
        pool_padding: str = "same",
        epsilon: float = 1e-5,
        **kwargs,
    ) -> None:
        """Create the layers.

        Args:
          blocks: residual blocks of the four stages.
          normalization: see `make_backbone`.
          conv1_padding: "explicit", three zeros on each side (keras-resnet 0.1, keras.applications), or "same"
            (keras-resnet 0.2); the two differ for even sides only.
          pool_padding: "same" (keras-resnet), or "explicit", one zero on each side (keras.applications); the
            two differ for even sides only.
          epsilon: of the normalisation; keras.applications has 1.001e-5.

        Raises:
          ValueError: a padding is neither of these.
        """
        super().__init__(**kwargs)
        for option, padding in (("conv1_padding", conv1_padding), ("pool_padding", pool_padding)):
            if padding not in ("explicit", "same"):
                raise ValueError(f"ResNet: {option} {padding!r} is neither 'explicit' nor 'same'")
        self.conv1_padding, self.pool_padding, self.epsilon = conv1_padding, pool_padding, epsilon
        self.conv1 = keras.layers.Conv2D(
            64, 7, 2, "valid" if conv1_padding == "explicit" else "same", use_bias=False, name="conv1"
        )
        self.bn1 = make_normalization(normalization, "bn_conv1", epsilon)
        # The pooled values are positive, so zeros around them change nothing but the places of the windows.
        self.pool = keras.layers.MaxPooling2D(3, 2, "valid" if pool_padding == "explicit" else "same")
        self.stages = []
        for stage in range(2, 2 + len(blocks)):
            self.stages.append(
                [
                    BottleneckBlock(
                        64 * 2 ** (stage - 2),
                        2 if index == 0 and stage > 2 else 1,
                        suffix,
                        project=index == 0,
                        normalization=normalization,
                        epsilon=epsilon,
                    )
                    for index, suffix in enumerate(block_suffixes(blocks, stage))
                ]
            )

    def freezable_stages(self) -> list:
        """Return the layers of the stem and of each stage, C1 to C5."""
        return [[self.conv1, self.bn1], *self.stages]

    def call(self, images, training=False):
        """Return (C3, C4, C5) of normalised images [B, H, W, 3]."""
        return self.stage_outputs(images, training)[2:]

    def stage_outputs(self, images, training=False):
        """Return (C1, ..., C5) of normalised images [B, H, W, 3]; C1 is the first convolution's, before pooling."""
        x = _pad(images, 3) if self.conv1_padding == "explicit" else images
        outputs = [tf.nn.relu(self.bn1(self.conv1(x), training=training))]  # [B, H/2, W/2, 64]
        x = self.pool(_pad(outputs[0], 1) if self.pool_padding == "explicit" else outputs[0])  # [B, H/4, W/4, 64]
        for stage in self.stages:
            for block in stage:
                x = block(x, training=training)
            outputs.append(x)  # C2 [B, H/4, W/4, 256] ... C5 [B, H/32, W/32, 2048]
        return tuple(outputs)


def block_suffixes(blocks, stage: int) -> list:
    """Return what keras-resnet calls the blocks of a stage (2 to 5), given the numbers of blocks of all four.

    It letters the blocks of ResNet-50 (4a, 4b, 4c) and counts those of C3 and C4 in deeper networks (4a, 4b1, 4b2).
    """
    numbered = sum(blocks) > 16 and stage in (3, 4)
    return [f"{stage}a"] + [
        f"{stage}b{i}" if numbered else f"{stage}{chr(ord('a') + i)}" for i in range(1, blocks[stage - 2])
    ]


def _pad(x, margin: int):
    return tf.pad(x, [[0, 0], [margin, margin], [margin, margin], [0, 0]])


class BottleneckBlock(keras.Layer):
    """1x1, 3x3, 1x1 convolutions beside a shortcut."""

    def __init__(
        self, filters: int, stride: int, suffix: str, *, project: bool, normalization: str, epsilon: float = 1e-5
    ) -> None:
        """Create the layers; `suffix` is the stage and block letter of their names, as in "2a"."""
        super().__init__(name=f"res{suffix}")

        def conv_and_norm(branch, channels, size, step):
            conv = keras.layers.Conv2D(
                channels,
                size,
                step,
                "same",
                use_bias=False,
                name=f"res{suffix}_{branch}",
                kernel_initializer="he_normal",
            )
            return conv, make_normalization(normalization, f"bn{suffix}_{branch}", epsilon)

        self.reduce = conv_and_norm("branch2a", filters, 1, stride)
        self.spatial = conv_and_norm("branch2b", filters, 3, 1)
        self.expand = conv_and_norm("branch2c", 4 * filters, 1, 1)
        self.shortcut = conv_and_norm("branch1", 4 * filters, 1, stride) if project else None

    def call(self, x, training=False):
        """Return the block's output, its side divided by the stride (rounded up)."""
        y = x
        for conv, norm in (self.reduce, self.spatial):
            y = tf.nn.relu(norm(conv(y), training=training))
        y = self.expand[1](self.expand[0](y), training=training)
        if self.shortcut is not None:
            x = self.shortcut[1](self.shortcut[0](x), training=training)
        return tf.nn.relu(y + x)


class SmallResNet(keras.Layer):
    """Basic blocks on few channels: trains from nothing on two CPU cores."""

    def __init__(
        self, widths=(16, 32, 64, 128, 192), blocks=(1, 1, 2, 1), *, normalization: str = "batch", **kwargs
    ) -> None:
        """Create the layers; `widths` are the channels of C1..C5, `blocks` the residual blocks of C2..C5."""
        super().__init__(**kwargs)
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

    def freezable_stages(self) -> list:
        """Return the layers of the stem and of each stage, C1 to C5."""
        return [[self.stem, self.stem_norm], *self.stages]

    def call(self, images, training=False):
        """Return (C3, C4, C5) of normalised images [B, H, W, 3]."""
        x = tf.nn.relu(self.stem_norm(self.stem(images), training=training))  # [B, H/2, W/2, .]
        outputs = []
        for stage in self.stages:
            for block in stage:
                x = block(x, training=training)
            outputs.append(x)  # C2 [B, H/4, W/4, .] ... C5 [B, H/32, W/32, .]
        return tuple(outputs[1:])


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

    def call(self, x, training=False):
        """Return the block's output, its side divided by the stride (rounded up)."""
        y = tf.nn.relu(self.first_norm(self.first(x), training=training))
        y = self.second_norm(self.second(y), training=training)
        return tf.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))
