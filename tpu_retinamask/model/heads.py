"""Heads: class and box of every anchor, mask of every region."""

import math

import keras
import tensorflow as tf

from tpu_retinamask.model.layers.content import relu_of_content
from tpu_retinamask.model.layers.normalization import norm_after
from tpu_retinamask.ops.relu_dot import relu_dot
from tpu_retinamask.ops.resize import conv3x3_after_upsample

_PRIOR = 0.01  # share of anchors that the class head calls positive before training


class AnchorHead(keras.Layer):
    """Convolutions shared by all pyramid levels, then `per_cell * outputs` values a cell."""

    def __init__(
        self,
        per_cell: int,
        outputs: int,
        *,
        channels: int = 256,
        depth: int = 4,
        initializer: str | keras.Initializer = "normal",
        prior: bool = False,
        normalization: str = "none",
        name: str,
    ) -> None:
        """Create the layers.

        Args:
          per_cell: A, anchors a cell.
          outputs: values an anchor: C for classes, 4 for boxes.
          channels: of the hidden convolutions.
          depth: number of hidden convolutions.
          initializer: of the hidden kernels: "normal" is N(0, 0.01), which suits 256 channels; narrow
            heads vanish under it and want "he_normal".
          prior: bias the last layer to the logit of 0.01.
          normalization: after each hidden convolution, "none" or "group", of each level by itself.
          name: prefix of the layer names, as in keras-retinanet.
        """
        super().__init__(name=name)
        hidden = _normal() if initializer == "normal" else initializer
        self.per_cell, self.outputs = per_cell, outputs
        self.hidden = [
            keras.layers.Conv2D(channels, 3, padding="same", name=f"{name}_{i}", kernel_initializer=hidden)
            for i in range(depth)
        ]
        self.norms = [norm_after(conv, normalization) for conv in self.hidden]
        bias = keras.initializers.Constant(-math.log((1 - _PRIOR) / _PRIOR)) if prior else "zeros"
        self.last = keras.layers.Conv2D(
            per_cell * outputs, 3, padding="same", name=name, kernel_initializer=_normal(), bias_initializer=bias
        )

    def call(self, features: tf.Tensor, inside: tf.Tensor | None = None) -> tf.Tensor:
        """Return [B, h * w * A, outputs] float32 of one level.

        Args:
          features: [B, h, w, F], zero beside the picture.
          inside: [B, h, w, 1], 1 where the picture is; None: everywhere.
        """
        x = features
        for conv, norm in zip(self.hidden, self.norms):
            x = relu_of_content(norm(conv(x), inside=inside), inside)
        x = tf.cast(self.last(x), tf.float32)  # [B, h, w, A * outputs]
        return tf.reshape(x, [-1, x.shape[1] * x.shape[2] * self.per_cell, self.outputs])


class MaskHead(keras.Layer):
    """Fully convolutional mask of a region: hidden 3x3s, x2 up-sampling, one 1x1 a class."""

    def __init__(
        self,
        num_classes: int,
        *,
        channels: int = 256,
        depth: int = 4,
        upsample: str = "nearest",
        initializer: str | keras.Initializer = "he_normal",
        name: str = "roi_mask",
    ) -> None:
        """Create the layers.

        Args:
          num_classes: C.
          channels: of the hidden convolutions.
          depth: number of hidden convolutions before the up-sampling.
          upsample: "nearest" then a 3x3 convolution (keras-maskrcnn), or "deconv", a 2x2 transposed
            convolution of stride 2 (the paper).
          initializer: of the hidden kernels.
          name: prefix of the layer names.

        Raises:
          ValueError: upsample is neither of these.
        """
        super().__init__(name=name)
        if upsample not in ("nearest", "deconv"):
            raise ValueError(f"MaskHead: upsample {upsample!r} is neither 'nearest' nor 'deconv'")
        conv = dict(activation="relu", kernel_initializer=initializer)
        self.hidden = [
            keras.layers.Conv2D(channels, 3, padding="same", name=f"{name}_{i}", **conv) for i in range(depth)
        ]
        self.upsample = upsample
        if upsample == "deconv":
            self.features = keras.layers.Conv2DTranspose(channels, 2, 2, name=f"{name}_features", **conv)
        else:
            self.features = keras.layers.Conv2D(channels, 3, padding="same", name=f"{name}_features", **conv)
        self.last = keras.layers.Conv2D(num_classes, 1, name=name, kernel_initializer=_normal())

    def build(self, input_shape: tuple) -> None:
        """Create all weights; the last two layers are never called, only their weights are read."""
        shape = tuple(input_shape)
        for layer in [*self.hidden, self.features]:
            layer.build(shape)
            shape = (*shape[:-1], layer.filters)
        self.last.build(shape)

    def call(self, rois: tf.Tensor, classes: tf.Tensor | None = None) -> tf.Tensor:
        """Return mask logits.

        With classes, only each region's own class is computed: its column of the 1x1 kernel is gathered,
        C times less work and memory than all classes, with the same loss and gradients.

        Args:
          rois: [B, K, P, P, F].
          classes: [B, K] int32, clipped to 0 where padded; None: all classes.

        Returns:
          float32 [B, K, 2P, 2P] for the given classes, or [B, K, 2P, 2P, C].
        """
        _, num_rois, side, _, channels = rois.shape
        x = tf.reshape(rois, [-1, side, side, channels])  # [B * K, P, P, F]
        for conv in self.hidden:
            x = conv(x)
        up_kernel, up_bias = (tf.convert_to_tensor(v) for v in (self.features.kernel, self.features.bias))
        if self.upsample == "deconv":
            # Each cell becomes 2 x 2, none of which sees another: a product, whose results are put in their places
            # when they are logits, 256 times fewer.
            x = tf.einsum("nhwf,abgf->nhwabg", x, up_kernel)
        else:
            x = conv3x3_after_upsample(x, up_kernel)  # [B * K, 2P, 2P, F]
        x = tf.reshape(x, [-1, 4 * side * side, x.shape[-1]])  # [B * K, 4PP, F]
        kernel, bias = tf.convert_to_tensor(self.last.kernel)[0, 0], tf.convert_to_tensor(self.last.bias)
        if classes is None:
            logits = tf.einsum("rsf,fc->rsc", tf.nn.relu(x + up_bias), kernel) + bias
        else:
            column = tf.reshape(tf.maximum(classes, 0), [-1])  # [B * K]
            weights = tf.gather(tf.transpose(kernel), column)  # [B * K, F]
            # As a column, so that its gradient comes back dense, like every other, and not as IndexedSlices.
            logits = (relu_dot(x, up_bias, weights) + tf.gather(bias[:, None], column))[..., None]
        logits = tf.cast(logits, tf.float32)  # [B * K, 4PP, C], or 1 in place of C
        last = logits.shape[-1]
        if self.upsample == "deconv":
            # Five dimensions: the interpreter of TFLite knows no more of a slice, and few of anything.
            logits = tf.transpose(tf.reshape(logits, [-1, side, side, 2, 2 * last]), [0, 1, 3, 2, 4])
        shape = [-1, num_rois, 2 * side, 2 * side]
        return tf.reshape(logits, shape if classes is not None else [*shape, last])


def _normal():
    return keras.initializers.RandomNormal(stddev=0.01)
