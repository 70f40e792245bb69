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
    return x * tf.cast(content_mask(content_size, x.shape[1], x.shape[2]), tf.float32)


def content_cells(content_size: tf.Tensor, stride: int) -> tf.Tensor:
    """Return how many cells of a feature map a picture reaches into, `ceil(side / stride)`.

    Args:
      content_size: [..., 2] int32, height and width of the picture.
      stride: canvas pixels per cell.

    Returns:
      [..., 2] int32.
    """
    return (content_size + (stride - 1)) // stride


def content_mask(cells: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Return which cells of a map hold the picture at its top left.

    Args:
      cells: [B, 2] int32, rows and columns of the picture.
      height: h of the map.
      width: w of the map.

    Returns:
      [B, h, w, 1] bool.
    """
    rows = tf.range(height)[None, :] < cells[:, :1]  # [B, h]
    columns = tf.range(width)[None, :] < cells[:, 1:]  # [B, w]
    return rows[:, :, None, None] & columns[:, None, :, None]
