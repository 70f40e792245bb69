"""Where on the canvas a picture lies: what is beside it does not exist for the network."""

import tensorflow as tf

from tpu_retinamask.ops.images import content_cells, content_mask


class Content:
    """The cells of feature maps that see the picture, for a batch; made anew in each call of the network.

    Beside the picture features are held at zero, as beyond the border of a canvas that the picture fills, and no
    statistic counts them. So a picture has the same features on every canvas that holds it.
    """

    def __init__(self, content_size: tf.Tensor, image_size: tuple[int, int], dtype: tf.DType) -> None:
        """Take the pictures' sizes.

        Args:
          content_size: [B, 2] int32, height and width of each picture, at the top left of its canvas.
          image_size: (H, W) of the canvas.
          dtype: of the features.
        """
        self._content_size, self._image_size, self._dtype = content_size, image_size, dtype
        self._masks: dict[int, tf.Tensor] = {}

    def mask(self, stride: int) -> tf.Tensor:
        """Return 1 in the cells of a picture and 0 beside it, [B, ceil(H / stride), ceil(W / stride), 1]."""
        if stride not in self._masks:
            height, width = (-(-side // stride) for side in self._image_size)
            cells = content_cells(self._content_size, stride)
            self._masks[stride] = tf.cast(content_mask(cells, height, width), self._dtype)
        return self._masks[stride]


def only_content(x: tf.Tensor, inside: tf.Tensor | None) -> tf.Tensor:
    """Return features [B, h, w, F] with zeros beside the picture.

    Args:
      x: features.
      inside: `Content.mask` of their stride; None: the canvas is all picture.
    """
    return x if inside is None else x * inside


def relu_of_content(x: tf.Tensor, inside: tf.Tensor | None) -> tf.Tensor:
    """Return the ReLU of features [B, h, w, F] with zeros beside the picture.

    Its gradient is that of a plain ReLU: what is zero beside the picture lets none through.

    Args:
      x, inside: see `only_content`.
    """
    return tf.nn.relu(x) if inside is None else _masked_relu(x, inside)


@tf.custom_gradient
def _masked_relu(x, inside):
    y = tf.nn.relu(x * inside)
    return y, lambda upstream: (tf.raw_ops.ReluGrad(gradients=upstream, features=y), None)


def relu6_of_content(x: tf.Tensor, inside: tf.Tensor | None) -> tf.Tensor:
    """Return features [B, h, w, F] held between 0 and 6, with zeros beside the picture; see `relu_of_content`."""
    return tf.nn.relu6(x) if inside is None else _masked_relu6(x, inside)


@tf.custom_gradient
def _masked_relu6(x, inside):
    y = tf.nn.relu6(x * inside)
    return y, lambda upstream: (tf.raw_ops.Relu6Grad(gradients=upstream, features=y), None)
