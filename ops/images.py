"""Pixels to network input."""

import tensorflow as tf

# Means and deviations of ImageNet in the forms their models were trained with (keras.applications).
_CAFFE_MEAN = (103.939, 116.779, 123.68)  # BGR
_TORCH_MEAN, _TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB
MODES = ("caffe", "tf", "torch")


def normalize_images(images: tf.Tensor, content_size: tf.Tensor | None, mode: str) -> tf.Tensor:
    """Normalise RGB pixels inside the graph, so that uint8 and float32 input give the same numbers.

    "caffe": BGR minus the ImageNet mean; "tf": x / 127.5 - 1; "torch": (x / 255 - mean) / deviation.

    Args:
      images: [B, H, W, 3] uint8 or float32 RGB in 0..255.
      content_size: [B, 2] int32, height and width of the picture; what lies outside becomes 0, as if
        the padding had been added after normalising. None: the whole canvas is picture.
      mode: one of MODES.

    Returns:
      [B, H, W, 3] float32.

    Raises:
      ValueError: unknown mode.
    """
    x = tf.cast(images, tf.float32)
    if mode == "caffe":
        x = x[..., ::-1] - tf.constant(_CAFFE_MEAN)
    elif mode == "tf":
        x = x / 127.5 - 1.0
    elif mode == "torch":
        x = (x / 255.0 - tf.constant(_TORCH_MEAN)) / tf.constant(_TORCH_STD)
    else:
        raise ValueError(f"normalize_images: mode {mode!r} is not one of {MODES}")
    if content_size is None:
        return x
    rows = tf.range(x.shape[1])[None, :] < content_size[:, :1]  # [B, H]
    columns = tf.range(x.shape[2])[None, :] < content_size[:, 1:]  # [B, W]
    return x * tf.cast(rows[:, :, None, None] & columns[:, None, :, None], tf.float32)
