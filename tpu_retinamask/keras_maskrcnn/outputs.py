"""The seven outputs of a keras-maskrcnn prediction model, from a RetinaMask model."""

import tensorflow as tf

from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.model.retinamask import RetinaMask

NAMES = ("regression", "classification", "boxes_masks", "boxes", "scores", "labels", "masks")


def keras_maskrcnn_outputs(
    model: RetinaMask,
    detection_filter: DetectionFilter,
    images: tf.Tensor,
    content_size: tf.Tensor | None = None,
    *,
    normalized: bool = False,
) -> list:
    """Predict in the form of keras-maskrcnn: a list of 7 tensors, in the order of `NAMES`.

    N anchors of all levels, C classes, K detections an image, S side of a mask. Masks of all C classes are
    computed for every row, rows of padding too (boxes, scores and labels of these are -1): at C = 300 that is 94 MB
    an image, where `model.postprocess.detect` gives the mask of the detected class in 0.3 MB.

    Args:
      model: RetinaMask.
      detection_filter: `postprocess.DetectionFilter`; its `max_detections` is K.
      images: [B, H, W, 3] RGB, uint8 or float32, 0..255; or normalised, see below.
      content_size: [B, 2] int32, height and width of each picture on the canvas; None: all of it. It tells which
        pixels to normalise; the original detects beside the picture too, if `RetinaMask.mask_padding` is off.
      normalized: the images are normalised already as the model's `pixel_mode` says, as `CSVGenerator` gives them.

    Returns:
      regression [B, N, 4] (encoded boxes), classification [B, N, C] (probabilities), boxes_masks
      [B, K, 4 + S * S * C] (boxes, then masks flattened), boxes [B, K, 4], scores [B, K], labels [B, K] int32,
      masks [B, K, S, S, C] (probabilities inside each box); float32 but for the labels.

    Raises:
      ValueError: normalised images with a content size, which they no longer need.
    """
    if normalized and content_size is not None:
        raise ValueError(
            "keras_maskrcnn_outputs: content_size tells which pixels to normalise, but normalized=True "
            "says that this is done; leave one of them out"
        )
    images = tf.convert_to_tensor(images)
    image_size = tuple(images.shape[1:3])
    if normalized:  # undoing the normalisation would cost the last digits
        outputs = model.outputs(tf.cast(images, model.compute_type))
    else:
        outputs = model(images, content_size, training=False)
    found = detection_filter(outputs, model.frame(image_size))
    masks = tf.sigmoid(model.mask_logits(outputs.features, found.boxes, None, image_size))  # [B, K, S, S, C]
    _, rows, height, width, classes = masks.shape
    flat = tf.reshape(masks, [-1, rows, height * width * classes])
    return [
        tf.concat(outputs.box_deltas, axis=1),
        tf.sigmoid(tf.concat(outputs.class_logits, axis=1)),
        tf.concat([found.boxes, flat], axis=-1),
        found.boxes,
        found.scores,
        found.classes,
        masks,
    ]
