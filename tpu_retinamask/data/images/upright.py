"""The pixels of a picture as they are trained on, on the host."""

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.images.decode import apply_orientation, decode_image
from tpu_retinamask.data.images.mask_reader import picture_bytes


def upright_pixels(image: AnnotatedImage) -> np.ndarray:
    """Return the pixels of a picture, uint8 [h, w, 3], turned as its orientation says.

    Raises:
      FileNotFoundError, UserError: its file is gone or cannot be read.
      tf.errors.InvalidArgumentError: it cannot be decoded.
    """
    return apply_orientation(decode_image(picture_bytes(image.image)), tf.constant(image.orientation)).numpy()
