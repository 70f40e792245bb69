"""What crosses a wall: the tensors that data, model, training and evaluation hand to each other.

Every box in this project is `x1, y1, x2, y2` in pixels, float32, half-open (`x2 - x1` is the width).
B batch, H W canvas height and width, M padded instances per image, R side of a cropped ground-truth
mask, N anchors of all levels, A anchors per cell, C classes (no background), K detections kept,
S side of a predicted mask, F feature channels. Padding is always explicit: class -1.
"""

from typing import Any, NamedTuple

import tensorflow as tf

BACKGROUND = -1  # anchor label: trained towards "no class"; class: padding row
IGNORED = -2  # anchor label: takes part in no loss


class Batch(NamedTuple):
    """One batch of images with their padded ground truth, as the input pipeline yields it."""

    image: tf.Tensor  # [B, H, W, 3] uint8 RGB; the picture at the top left, zeros right and below
    content_size: tf.Tensor  # [B, 2] int32; height, width of the picture inside the canvas
    boxes: tf.Tensor  # [B, M, 4] float32; canvas pixels, zeros where padded
    classes: tf.Tensor  # [B, M] int32; -1 where padded
    masks: tf.Tensor  # [B, M, R, R] uint8; 1 = instance, cropped to its own box and resized to R x R
    has_mask: tf.Tensor  # [B, M] bool; False: the box is trained, the mask loss skips it
    image_scale: tf.Tensor  # [B] float32; canvas pixels per original pixel
    original_size: tf.Tensor  # [B, 2] int32; height, width of the image file
    image_id: tf.Tensor  # [B] int64; position of the image in its annotation file; -1: a padding image
    dropped: tf.Tensor  # [B] int32; instances beyond M that were left out of this sample


class Targets(NamedTuple):
    """What the box and class heads are trained towards, one row an anchor."""

    labels: tf.Tensor  # [B, N] int32; class id, BACKGROUND or IGNORED
    deltas: tf.Tensor  # [B, N, 4] float32; encoded box, meaningful where labels >= 0
    matched: tf.Tensor  # [B, N] int32; row of the matched ground-truth box


class AnchorFrame(NamedTuple):
    """The anchors of one canvas."""

    image_size: tuple[int, int]  # H, W of the canvas
    levels: list  # of [n, 4] float32 arrays, one a pyramid level; canvas pixels, N in all
    coder: Any  # ops.boxes.CenterBoxCoder or CornerBoxCoder: turns boxes into deltas and back


class RawOutputs(NamedTuple):
    """What the network says before any selection, one entry a pyramid level."""

    features: tuple  # of [B, h, w, F]
    class_logits: tuple  # of [B, h * w * A, C] float32
    box_deltas: tuple  # of [B, h * w * A, 4] float32


class MaskRois(NamedTuple):
    """Regions whose masks are trained, a fixed number R an image."""

    boxes: tf.Tensor  # [B, R, 4] float32
    matched: tf.Tensor  # [B, R] int32; row of the ground-truth box
    valid: tf.Tensor  # [B, R] bool
    overflow: tf.Tensor  # [B] int32; matched regions that found no place


class Detections(NamedTuple):
    """The objects found, best first; every field -1 where padded (masks: 0)."""

    boxes: tf.Tensor  # [B, K, 4] float32; canvas pixels
    scores: tf.Tensor  # [B, K] float32
    classes: tf.Tensor  # [B, K] int32
    # [B, K', S, S] float32 probabilities of the detected class inside the box, of the first K' of K, most often all
    masks: tf.Tensor
    cut: tf.Tensor  # [B] int32; candidates above the score threshold that a top-k before NMS left out


class FittedPicture(NamedTuple):
    """A picture on the canvas, as `Batch` has it."""

    image: tf.Tensor  # [H, W, 3] uint8
    content_size: tf.Tensor  # [2] int32
    scale: tf.Tensor  # float32 scalar; canvas pixels per pixel of the picture
