"""Masks at the size of the picture, in graph operations: the numbers of `evaluation.results.paste_masks`."""

import tensorflow as tf

THRESHOLD = 0.5  # a sample above it belongs to the instance


def paste_masks(masks: tf.Tensor, boxes: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Draw box-relative masks into pictures.

    One instance after another, so that beside the result there is memory for one picture.

    Args:
      masks: [B, K, S, S] float32, probabilities inside the box.
      boxes: [B, K, 4] float32 in pixels of the picture; one without area, such as of padding, gives an empty mask.
      size: [2] int32, height and width of what is drawn into.

    Returns:
      [B, K, height, width] bool.
    """
    side = masks.shape[-1]
    flat, corners = tf.reshape(masks, [-1, side, side]), tf.reshape(tf.cast(boxes, tf.float64), [-1, 4])
    count = tf.shape(flat)[0]
    pasted = tf.TensorArray(tf.bool, count, element_shape=[None, None])

    def one(index, pasted):
        box, mask = corners[index], flat[index]
        y_low, y_high, y_weight, y_inside = _sample_axis(box[1], box[3], size[0], side)
        x_low, x_high, x_weight, x_inside = _sample_axis(box[0], box[2], size[1], side)
        upper, lower = tf.gather(mask, y_low), tf.gather(mask, y_high)  # [height, S]
        rows = upper + (lower - upper) * y_weight[:, None]
        left, right = tf.gather(rows, x_low, axis=1), tf.gather(rows, x_high, axis=1)  # [height, width]
        found = left + (right - left) * x_weight > THRESHOLD
        return index + 1, pasted.write(index, found & y_inside[:, None] & x_inside)

    _, pasted = tf.while_loop(lambda index, _: index < count, one, (0, pasted))
    shape = tf.concat([tf.shape(masks)[:2], size], 0)
    return tf.reshape(pasted.stack(), shape)


def _sample_axis(start, end, image_side, mask_side):
    """Return, for each pixel of one axis, the mask cells around it, the weight of the second, whether it is inside."""
    centres = tf.cast(tf.range(image_side), tf.float64) + 0.5
    inside = (centres >= start) & (centres < end)
    relative = (centres - start) / tf.maximum(end - start, 1e-9)
    position = tf.clip_by_value(relative * mask_side - 0.5, 0.0, mask_side - 1.0)
    low = tf.cast(tf.floor(position), tf.int32)
    high = tf.minimum(low + 1, mask_side - 1)
    return low, high, tf.cast(position - tf.cast(low, tf.float64), tf.float32), inside
