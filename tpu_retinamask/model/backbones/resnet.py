"""ResNet-50, -101 and -152 in the layout of keras-resnet.

Layer names are those of keras-resnet (res2a_branch2a, bn2a_branch2a, ...), so that its weights load by name.
"""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.backbones.registry import BACKBONES, Backbone, PretrainedWeights
from tpu_retinamask.model.layers.content import Content, relu_of_content
from tpu_retinamask.model.layers.convolution import StridedConv2D, pad_sides
from tpu_retinamask.model.layers.normalization import check_normalization, make_normalization

BLOCKS: dict[str, tuple[int, ...]] = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
# What a ResNet must be built with to compute the features of keras.applications' ImageNet weights.
APPLICATION_OPTIONS = {
    "conv1_padding": "explicit",
    "pool_padding": "explicit",
    "epsilon": 1.001e-5,
    "stride_in_1x1": True,
}


class ResNet(Backbone):
    """ResNet with bottleneck blocks (arXiv 1512.03385)."""

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        normalization: str = "frozen",
        padding: str = "symmetric",
        conv1_padding: str = "explicit",
        pool_padding: str | None = None,
        stride_in_1x1: bool = True,
        epsilon: float = 1e-5,
        name: str | None = None,
    ) -> None:
        """Create the layers.

        Args:
          blocks: residual blocks of the four stages.
          normalization: see `make_normalization`.
          padding: what `pool_padding` is where it is not given: "symmetric" makes it "explicit", "same" leaves it so.
          conv1_padding: "explicit", three zeros on each side (keras-resnet 0.1, keras.applications), or "same"
            (keras-resnet 0.2); the two differ for even sides only.
          pool_padding: "same" (keras-resnet), or "explicit", one zero on each side (keras.applications); the
            two differ for even sides only.
          stride_in_1x1: stride 2 in the first 1x1 of a stage (the paper, keras-resnet, keras.applications, detectron2);
            False: in its 3x3, padded by one zero on each side (torchvision).
          epsilon: of the normalisation; keras.applications has 1.001e-5.
          name: of the layer.

        Raises:
          SettingError: a padding, or a normalisation, is none of these.
        """
        super().__init__(name=name)
        check_normalization(normalization)
        self.blocks, self.normalization = tuple(blocks), normalization
        if pool_padding is None:
            pool_padding = "explicit" if padding == "symmetric" else "same"
        for option, padding in (("conv1_padding", conv1_padding), ("pool_padding", pool_padding)):
            if padding not in ("explicit", "same"):
                raise SettingError(f"ResNet: {option} {padding!r} is neither 'explicit' nor 'same'")
        self.conv1_padding, self.pool_padding, self.epsilon = conv1_padding, pool_padding, epsilon
        self.stride_in_1x1 = stride_in_1x1
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
                        stride_in_1x1=stride_in_1x1,
                        epsilon=epsilon,
                    )
                    for index, suffix in enumerate(block_suffixes(blocks, stage))
                ]
            )

    def freezable_stages(self) -> list[list[keras.Layer]]:
        """Return the layers of the stem and of each stage, C1 to C5."""
        return [[self.conv1, self.bn1], *self.stages]

    @property
    def frozen_statistics(self) -> bool:
        """Return whether its batch normalisation is frozen."""
        return self.normalization == "frozen"

    @property
    def pretrained(self) -> PretrainedWeights | None:
        """Return the network of keras.applications that has its blocks."""
        depths = {tuple(blocks): name for name, blocks in BLOCKS.items()}
        if self.blocks not in depths:
            return None
        application = depths[self.blocks].replace("resnet", "ResNet")
        return PretrainedWeights(application=application, construction=APPLICATION_OPTIONS)

    def call(self, images: tf.Tensor, training: bool = False, content: Content | None = None) -> dict[str, tf.Tensor]:
        """Return C3, C4 and C5 of normalised images [B, H, W, 3]."""
        _, _, *levels = self.stage_outputs(images, training, content)
        return dict(zip(("C3", "C4", "C5"), levels))

    def stage_outputs(
        self, images: tf.Tensor, training: bool = False, content: Content | None = None
    ) -> tuple[tf.Tensor, ...]:
        """Return (C1, ..., C5) of normalised images [B, H, W, 3]; C1 is the first convolution's, before pooling."""
        x = pad_sides(images, 3) if self.conv1_padding == "explicit" else images
        inside = content and content.mask(2)
        x = relu_of_content(self.bn1(self.conv1(x), training=training, inside=inside), inside)
        outputs = [x]  # [B, H/2, W/2, 64]
        x = self.pool(pad_sides(x, 1) if self.pool_padding == "explicit" else x)  # [B, H/4, W/4, 64]
        before = content and content.mask(4)
        for stage, stride in zip(self.stages, (4, 8, 16, 32)):
            inside = content and content.mask(stride)
            for block in stage:
                x = block(x, training=training, inside=inside, before=before)
                before = inside
            outputs.append(x)  # C2 [B, H/4, W/4, 256] ... C5 [B, H/32, W/32, 2048]
        return tuple(outputs)


def block_suffixes(blocks: Sequence[int], stage: int) -> list[str]:
    """Return what keras-resnet calls the blocks of a stage (2 to 5), given the numbers of blocks of all four.

    It letters the blocks of ResNet-50 (4a, 4b, 4c) and counts those of C3 and C4 in deeper networks (4a, 4b1, 4b2).
    """
    numbered = sum(blocks) > 16 and stage in (3, 4)
    return [f"{stage}a"] + [
        f"{stage}b{i}" if numbered else f"{stage}{chr(ord('a') + i)}" for i in range(1, blocks[stage - 2])
    ]


class BottleneckBlock(keras.Layer):
    """1x1, 3x3, 1x1 convolutions beside a shortcut."""

    def __init__(
        self,
        filters: int,
        stride: int,
        suffix: str,
        *,
        project: bool,
        normalization: str,
        stride_in_1x1: bool = True,
        epsilon: float = 1e-5,
    ) -> None:
        """Create the layers; `suffix` is the stage and block letter of their names, as in "2a"."""
        super().__init__(name=f"res{suffix}")
        self.late_stride = stride > 1 and not stride_in_1x1

        def conv_and_norm(branch, channels, size, step):
            options: dict[str, Any] = dict(use_bias=False, name=f"res{suffix}_{branch}", kernel_initializer="he_normal")
            if size > 1 and step > 1:
                conv = StridedConv2D(channels, size, **options)
            else:
                conv = keras.layers.Conv2D(channels, size, step, "same", **options)
            return conv, make_normalization(normalization, f"bn{suffix}_{branch}", epsilon)

        self.reduce = conv_and_norm("branch2a", filters, 1, 1 if self.late_stride else stride)
        self.spatial = conv_and_norm("branch2b", filters, 3, stride if self.late_stride else 1)
        self.expand = conv_and_norm("branch2c", 4 * filters, 1, 1)
        self.shortcut = conv_and_norm("branch1", 4 * filters, 1, stride) if project else None

    def call(
        self,
        x: tf.Tensor,
        training: bool = False,
        inside: tf.Tensor | None = None,
        before: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Return the block's output, its side divided by the stride (rounded up).

        Args:
          x: [B, h, w, F].
          training: see `Backbone.call`.
          inside: [B, h', w', 1] of the output's cells, 1 where the picture is; None: everywhere.
          before: [B, h, w, 1] of the input's cells.
        """
        given = {"training": training, "inside": inside}
        reduced = before if self.late_stride else inside
        # The 3x3 alone sees its neighbours, so its input alone must be zero beside the picture.
        y = relu_of_content(self.reduce[1](self.reduce[0](x), training=training, inside=reduced), reduced)
        y = tf.nn.relu(self.spatial[1](self.spatial[0](y), **given))
        y = self.expand[1](self.expand[0](y), **given)
        if self.shortcut is not None:
            x = self.shortcut[1](self.shortcut[0](x), **given)
        return tf.nn.relu(y + x)


for _name, _blocks in BLOCKS.items():
    BACKBONES.register(_name)(functools.partial(ResNet, _blocks))
