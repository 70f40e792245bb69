"""Imported by a gin file: a detector that finds nothing, at once."""

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.structures import Detections
from tpu_retinamask.tasks import inference


def _find_nothing(batch):
    images = len(batch.image_id)
    padding = np.full([images, 1], -1)
    return Detections(
        boxes=tf.constant(np.full([images, 1, 4], -1), tf.float32),
        scores=tf.constant(padding, tf.float32),
        classes=tf.constant(padding, tf.int32),
        masks=tf.zeros([images, 1, 28, 28]),
        cut=tf.zeros([images], tf.int32),
    )


inference.load_model = lambda *args, **kwargs: (None, ClassNames(("mug", "plate")))
inference.make_detector = lambda *args, **kwargs: _find_nothing
