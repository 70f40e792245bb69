"""The last operations on a sample: which instances stay, changes of colour and sides, padding to static shape."""

import tensorflow as tf

from tpu_retinamask.data.augment.augmentation import Augmentation, Draw, adjust_colours, adjust_hues, mirror, rot90
from tpu_retinamask.structures import Batch


def choose(visible: tf.Tensor, seed: tf.Tensor | None, most: int) -> tf.Tensor:
    """Return up to `most` visible instances: with a seed at random and in random order, else the first ones.

    Args:
      visible: [n] bool.
      seed: [2] int64, or None.
      most: of them.

    Returns:
      [m] int32, rows of the instances.
    """
    rank = tf.zeros([tf.size(visible)])
    if seed is not None:
        # Their order matters too: of more objects than `Criterion.mask_rois`, the first have their masks trained.
        rank = tf.random.stateless_uniform([tf.size(visible)], seed)
    # Ranks lie in [0, 1): adding 1 sorts every hidden instance behind every visible one.
    order = tf.argsort(rank + tf.cast(~visible, tf.float32), stable=True)
    return order[: tf.minimum(tf.reduce_sum(tf.cast(visible, tf.int32)), most)]


def change(
    image: tf.Tensor, boxes: tf.Tensor, masks: tf.Tensor, settings: Augmentation, changes: Draw | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Change colours, mirror and turn a picture that lies on its canvas, boxes and masks with it.

    Args:
      image: float32 [h, w, 3], 0 to 255.
      boxes: [m, 4] float32 pixels.
      masks: uint8 [m, R, R].
      settings: say which changes there are.
      changes: what was drawn; None: none.

    Returns:
      uint8 [h, w, 3] or [w, h, 3], boxes and masks.
    """
    if changes is not None and (settings.hue or settings.saturation):
        image = adjust_hues(image, changes.hue, changes.saturation)
    if changes is not None and (settings.brightness or settings.contrast):
        image = adjust_colours(image, changes.brightness, changes.contrast)
    image = tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)
    if changes is None:
        return image, boxes, masks
    image, boxes, masks = mirror(image, boxes, masks, x=changes.mirror_x, y=changes.mirror_y)
    return rot90(image, boxes, masks, changes.quarter_turns)


def pad(
    empty: Batch,
    *,
    image: tf.Tensor,
    boxes: tf.Tensor,
    classes: tf.Tensor,
    masks: tf.Tensor,
    has_mask: tf.Tensor,
    **scalars: tf.Tensor,
) -> Batch:
    """Pad a sample to the shapes of an empty one.

    Args:
      empty: from `padding_sample`.
      image: uint8 [h, w, 3], no larger than the canvas.
      boxes, classes, masks, has_mask: of m <= M instances.
      **scalars: the other fields, as they are.
    """
    content_size = tf.shape(image)[:2]
    height, width = empty.image.shape[:2]
    below, right = tf.unstack(tf.constant([height, width]) - content_size)
    rows, side = empty.masks.shape[:2]
    spare = rows - tf.shape(boxes)[0]

    def pad_rows(values, value=0):
        padded = tf.pad(values, [[0, spare]] + [[0, 0]] * (values.shape.rank - 1), constant_values=value)
        return tf.ensure_shape(padded, [rows, *values.shape[1:]])

    image = tf.ensure_shape(tf.pad(image, [[0, below], [0, right], [0, 0]]), empty.image.shape)
    return Batch(
        image=image,
        content_size=content_size,
        boxes=pad_rows(boxes),
        classes=pad_rows(classes, -1),
        masks=pad_rows(tf.ensure_shape(masks, [None, side, side])),
        has_mask=pad_rows(has_mask, False),
        **scalars,
    )


def padding_sample(canvas: tuple[int, int], rows: int, side: int) -> Batch:
    """Return the sample without a picture that fills a batch: image_id -1.

    Args:
      canvas: H, W.
      rows: M, of ground truth.
      side: of a mask.
    """
    return Batch(
        image=tf.zeros([*canvas, 3], tf.uint8),
        content_size=tf.zeros([2], tf.int32),
        boxes=tf.zeros([rows, 4]),
        classes=tf.fill([rows], -1),
        masks=tf.zeros([rows, side, side], tf.uint8),
        has_mask=tf.zeros([rows], tf.bool),
        image_scale=tf.constant(1.0),
        original_size=tf.zeros([2], tf.int32),
        image_id=tf.constant(-1, tf.int64),
        dropped=tf.constant(0),
    )
