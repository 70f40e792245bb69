"""File contents to pixels, in graph operations: what training and the scan before it both read with."""

import tensorflow as tf

from tpu_retinamask.ops.select import select


def decode_image(data: tf.Tensor) -> tf.Tensor:
    """Decode a JPEG, PNG, GIF (first frame) or BMP file to uint8 RGB [h, w, 3].

    The slow integer inverse cosine transform gives the very pixels that Pillow reads, so that what is
    trained, what is predicted on and what a person looks at are one picture; the default transform of
    TensorFlow differs by up to 8 of 255. Grayscale is repeated, alpha is left out (not blended), 16-bit
    PNG keeps its high byte, a stored EXIF orientation is not applied.

    Args:
      data: string scalar, the bytes of the file.
    """
    image = tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def decode_mask(data: tf.Tensor) -> tf.Tensor:
    """Decode a mask or label map to uint16 [h, w], non-zero where any colour channel is.

    PNG of fewer than 16 bits is stretched to 16: a stored value v of b bits reads v * 65535 / (2^b - 1),
    which `label_step` gives. Alpha is left out.

    Args:
      data: string scalar, the bytes of the file.
    """
    pixels = tf.cond(
        tf.strings.substr(data, 0, 4) == b"\x89PNG",
        lambda: tf.io.decode_png(data, channels=0, dtype=tf.uint16),
        # decode_image would stretch these by 256 and not by 257, so 255 would not become 65535.
        lambda: tf.cast(tf.io.decode_image(data, channels=0, expand_animations=False), tf.uint16) * 257,
    )
    pixels = tf.ensure_shape(pixels, [None, None, None])
    channels = tf.shape(pixels)[-1]
    colours = channels - (1 - channels % 2)  # 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha
    return tf.reduce_max(pixels[..., :colours], axis=-1)


def label_step(bit_depth: int) -> int:
    """Give what `decode_mask` reads for the label 1 in a gray PNG of 1, 2, 4, 8 or 16 bits."""
    return 65535 // (2**bit_depth - 1)


def apply_orientation(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn stored pixels upright as their EXIF orientation says.

    Args:
      image: [h, w, 3] stored pixels.
      orientation: int32 scalar, the EXIF tag 274, 1..8 (1: upright already).

    Returns:
      [h, w, 3], or [w, h, 3] for the orientations 5..8.
    """
    return tf.cond(orientation == 1, lambda: image, lambda: _turn(image, orientation))


def _turn(image, orientation):
    # The eight orientations are a transposition (5..8) followed by mirrors.
    order = select(orientation >= 5, tf.constant([1, 0, 2]), tf.constant([0, 1, 2]))
    mirror_y = tf.reduce_any(orientation == [3, 4, 7, 8])
    mirror_x = tf.reduce_any(orientation == [2, 3, 6, 7])
    dims = tf.stack([mirror_y, mirror_x, tf.constant(False)])
    turned = tf.raw_ops.Reverse(tensor=tf.transpose(image, order), dims=dims)
    return tf.ensure_shape(turned, [None, None, 3])
