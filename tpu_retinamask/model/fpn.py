"""Feature pyramid network, P3 to P7 (arXiv 1612.03144, 1708.02002)."""

from collections.abc import Mapping

import keras
import tensorflow as tf

from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.layers.content import Content, only_content
from tpu_retinamask.model.layers.convolution import StridedConv2D
from tpu_retinamask.model.layers.normalization import norm_after
from tpu_retinamask.ops.resize import upsample_nearest


class FeaturePyramid(keras.Layer):
    """Top-down pyramid with lateral 1x1 and smoothing 3x3 convolutions."""

    def __init__(
        self,
        channels: int = 256,
        *,
        p6_from: str = "p5",
        num_levels: int = 5,
        padding: str = "symmetric",
        normalization: str = "none",
        name: str | None = None,
    ) -> None:
        """Create the layers.

        Args:
          channels: F, of every level.
          p6_from: "c5" (RetinaNet, keras-retinanet) or "p5" (RetinaMask).
          num_levels: 3, 4 or 5 levels from P3 upwards.
          padding: of the convolutions of P6 and P7; see `layers.convolution.StridedConv2D`.
          normalization: after each convolution, "none" or "group".
          name: of the layer.

        Raises:
          SettingError: p6_from or num_levels is none of these.
        """
        super().__init__(name=name)
        if p6_from not in ("c5", "p5"):
            raise SettingError(f"FeaturePyramid: p6_from {p6_from!r} is neither 'c5' nor 'p5'")
        if num_levels not in (3, 4, 5):
            raise SettingError(f"FeaturePyramid: num_levels {num_levels} is not 3, 4 or 5")
        self.p6_from = p6_from
        conv = keras.layers.Conv2D
        self.lateral = [conv(channels, 1, name=f"C{level}_reduced") for level in (3, 4, 5)]
        self.smooth = [conv(channels, 3, padding="same", name=f"P{level}") for level in (3, 4, 5)]
        self.coarse = [StridedConv2D(channels, 3, padding, name=f"P{level}") for level in range(6, 3 + num_levels)]
        convolutions = [*self.lateral, *self.smooth, *self.coarse]
        self.norms = {conv.name: norm_after(conv, normalization) for conv in convolutions}

    def call(self, backbone_features: Mapping[str, tf.Tensor], content: Content | None = None) -> tuple[tf.Tensor, ...]:
        """Return (P3, ..., P7), each [B, ceil(H / 2**l), ceil(W / 2**l), F], of the levels C3, C4 and C5.

        Args:
          backbone_features: [B, h, w, .] of each level.
          content: where the pictures lie; beside them every level is zero. None: the canvas is all picture.
        """

        def inside(level):
            return content and content.mask(2**level)

        def only(x, level):
            return only_content(x, inside(level))

        def normed(conv, x, level):
            return self.norms[conv.name](conv(x), inside=inside(level))

        merged = [normed(self.lateral[2], backbone_features["C5"], 5)]
        for index, level in ((1, 4), (0, 3)):
            lateral = normed(self.lateral[index], backbone_features[f"C{level}"], level)
            merged.insert(0, upsample_nearest(merged[0], lateral.shape[1:3]) + lateral)
        levels = [
            only(normed(smooth, only(x, level), level), level)
            for level, (smooth, x) in enumerate(zip(self.smooth, merged), 3)
        ]  # P3, P4, P5
        x = only(backbone_features["C5"], 5) if self.p6_from == "c5" else levels[-1]
        for level, conv in enumerate(self.coarse, 6):
            x = only(normed(conv, x if level == 6 else tf.nn.relu(x), level), level)
            levels.append(x)
        return tuple(levels)
