"""Random changes of one sample: what may be drawn, the draw, and mirrors, quarter turns and colours themselves."""

import dataclasses
import math
from typing import NamedTuple

import tensorflow as tf

from tpu_retinamask.errors import SettingError
from tpu_retinamask.ops.select import select
from tpu_retinamask.setting_types import check_between, check_least, check_types, named


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How a training sample may be changed.

    Attributes:
      horizontal_flip: probability of mirroring left and right.
      vertical_flip: probability of mirroring top and bottom.
      rot90: probability of a turn by 90, 180 or 270 degrees, one as likely as the other.
      scale_jitter: (low, high); the resize scale is multiplied by a number drawn from this range. Where
        the picture then exceeds the canvas, a random window of it is cropped; where it is smaller, the canvas is
        padded. (0.1, 2.0), with InputPipeline.min_side None, is the large-scale jitter of arXiv 2012.07177.
      rotation: r; the picture is turned about its centre by an angle from [-r, r], in degrees.
      translation: t; it is shifted by shares of its width and of its height drawn from [-t, t].
      shear: s; its columns lean by an angle from [-s, s], in degrees.
      zoom: (low, high); it is scaled about its centre by a number drawn from this range, its frame kept. A box becomes
        the one that encloses the moved mask, or without a mask the moved corners of the box, clipped to the frame.
      fill: what these four draw into the frame from beyond the picture: 'nearest' repeats its border, as
        keras-retinanet does; 'zero' is black.
      brightness: b; a number drawn from [-b, b], in units of the full range, is added to the pixels.
      contrast: c; the distance to each channel's mean is multiplied by a number from [1 - c, 1 + c].
      hue: h; the hue is turned by a share of the colour circle drawn from [-h, h].
      saturation: s; the saturation of HSV is multiplied by a number from [1 - s, 1 + s], and clipped.

    Raises:
      SettingError: a probability outside [0, 1], a range that is empty or not positive, a colour change or an angle
        outside its limits, an unknown fill.
    """

    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    rot90: float = 0.0
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0
    translation: float = 0.0
    shear: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    fill: str = "nearest"
    brightness: float = 0.0
    contrast: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        limits = {
            "horizontal_flip": 1,
            "vertical_flip": 1,
            "rot90": 1,
            "contrast": 1,
            "saturation": 1,
            "translation": 1,
            "hue": 0.5,
            "rotation": 180,
            "shear": 80,
        }
        for name, limit in limits.items():
            check_between(named(self, name), 0, limit)
        for name in ("scale_jitter", "zoom"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise SettingError(f"{name} is {getattr(self, name)}, expected 0 < low <= high")
        check_least(named(self, "brightness"), 0)
        if self.fill not in ("nearest", "zero"):
            raise SettingError(f"fill is {self.fill!r}, expected 'nearest' or 'zero'")

    @property
    def is_affine(self) -> bool:
        """Tell whether a picture may be rotated, translated, sheared or zoomed."""
        return bool(self.rotation or self.translation or self.shear) or tuple(self.zoom) != (1.0, 1.0)


class Draw(NamedTuple):
    """What was drawn for one sample."""

    scale_factor: tf.Tensor  # float32
    position: tf.Tensor  # [2] float32 in [0, 1); y, x of the crop window
    mirror_x: tf.Tensor  # bool
    mirror_y: tf.Tensor  # bool
    quarter_turns: tf.Tensor  # int32, 0..3, counter-clockwise
    brightness: tf.Tensor  # float32; added, in units of the full range
    contrast: tf.Tensor  # float32; factor
    rotation: tf.Tensor  # float32; radians, counter-clockwise
    translation: tf.Tensor  # [2] float32; x, y in shares of the sides
    shear: tf.Tensor  # float32; radians
    zoom: tf.Tensor  # float32; factor
    hue: tf.Tensor  # float32; added, share of the circle
    saturation: tf.Tensor  # float32; factor


def draw(augmentation: Augmentation, seed: tf.Tensor) -> Draw:
    """Draw the changes of one sample; the same seed gives the same draw.

    Args:
      seed: [2] int32 or int64.
    """
    seeds = tf.unstack(tf.random.split(seed, 10))

    def uniform(index, low=0.0, high=1.0, shape=()):
        return tf.random.stateless_uniform(shape, seeds[index], low, high)

    turn = tf.cast(uniform(4) < augmentation.rot90, tf.int32)
    affine = uniform(7, -1.0, 1.0, [4])
    colours = uniform(8, -1.0, 1.0, [2])
    return Draw(
        scale_factor=uniform(0, *augmentation.scale_jitter),
        position=uniform(1, shape=[2]),
        mirror_x=uniform(2) < augmentation.horizontal_flip,
        mirror_y=uniform(3) < augmentation.vertical_flip,
        quarter_turns=turn * tf.random.stateless_uniform([], seeds[5], 1, 4, tf.int32),
        brightness=uniform(6, -1.0, 1.0, [2])[0] * augmentation.brightness,
        contrast=1.0 + uniform(6, -1.0, 1.0, [2])[1] * augmentation.contrast,
        rotation=affine[0] * math.radians(augmentation.rotation),
        translation=affine[1:3] * augmentation.translation,
        shear=affine[3] * math.radians(augmentation.shear),
        zoom=uniform(9, *augmentation.zoom),
        hue=colours[0] * augmentation.hue,
        saturation=1.0 + colours[1] * augmentation.saturation,
    )


def horizontal_flip(image: tf.Tensor, boxes: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mirror left and right.

    Args:
      image: [h, w, c].
      boxes: [n, 4] float32; x1, y1, x2, y2 in pixels of the image, half-open.
      masks: [n, R, R], each cropped to its box.

    Returns:
      (image [h, w, c], boxes [n, 4], masks [n, R, R]).
    """
    return mirror(image, boxes, masks, x=True, y=False)


def vertical_flip(image: tf.Tensor, boxes: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mirror top and bottom; arguments and result as `horizontal_flip`."""
    return mirror(image, boxes, masks, x=False, y=True)


def mirror(
    image: tf.Tensor, boxes: tf.Tensor, masks: tf.Tensor, *, x: tf.Tensor | bool, y: tf.Tensor | bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mirror along x, along y, both or neither, as two bool scalars say; else as `horizontal_flip`."""
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    dims = tf.stack([y, x, tf.constant(False)])
    size = tf.cast(tf.shape(image)[:2], boxes.dtype)
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    # Boxes are half-open edges, not pixel centres: the edge x goes to w - x, without a "- 1".
    new_x1, new_x2 = select(x, size[1] - x2, x1), select(x, size[1] - x1, x2)
    new_y1, new_y2 = select(y, size[0] - y2, y1), select(y, size[0] - y1, y2)
    # Reverse refuses a tensor without rows, and an image may have no instances: one row too many.
    masks = tf.pad(masks, [[0, 1], [0, 0], [0, 0]])
    masks = tf.raw_ops.Reverse(tensor=masks, dims=tf.stack([tf.constant(False), y, x]))[:-1]
    return (tf.raw_ops.Reverse(tensor=image, dims=dims), tf.stack([new_x1, new_y1, new_x2, new_y2], axis=-1), masks)


def rot90(
    image: tf.Tensor, boxes: tf.Tensor, masks: tf.Tensor, quarter_turns: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Turn counter-clockwise by quarter turns, as `np.rot90` does.

    Args:
      image, boxes, masks: as for `horizontal_flip`.
      quarter_turns: int32 scalar, any whole number.

    Returns:
      (image, boxes, masks); an odd number of turns exchanges the sides of the image.
    """
    turns = tf.convert_to_tensor(quarter_turns, tf.int32) % 4
    odd = turns % 2 == 1
    transposed = (
        tf.transpose(image, select(odd, tf.constant([1, 0, 2]), tf.constant([0, 1, 2]))),
        tf.gather(boxes, select(odd, tf.constant([1, 0, 3, 2]), tf.constant([0, 1, 2, 3])), axis=-1),
        tf.transpose(masks, select(odd, tf.constant([0, 2, 1]), tf.constant([0, 1, 2]))),
    )
    return mirror(*transposed, x=turns >= 2, y=(turns == 1) | (turns == 2))


def adjust_colours(image: tf.Tensor, brightness: tf.Tensor, contrast: tf.Tensor) -> tf.Tensor:
    """Change contrast, then brightness.

    Args:
      image: [h, w, 3] float32, 0..255, content only: padding would shift the mean.
      brightness: float32 scalar in units of the full range.
      contrast: float32 scalar factor.

    Returns:
      [h, w, 3] float32, not clipped.
    """
    mean = tf.reduce_mean(image, axis=[0, 1])  # [3]
    return (image - mean) * contrast + mean + 255.0 * brightness


def adjust_hues(image: tf.Tensor, hue: tf.Tensor, saturation: tf.Tensor) -> tf.Tensor:
    """Turn the hue and scale the saturation of HSV; the value stays.

    Args:
      image: [h, w, 3] float32, 0..255.
      hue: float32 scalar, share of the colour circle, -1 to 1.
      saturation: float32 scalar factor from 0; the product is clipped to 1.

    Returns:
      [h, w, 3] float32, 0..255.
    """
    image = tf.raw_ops.AdjustHue(images=image, delta=hue)
    return tf.raw_ops.AdjustSaturation(images=image, scale=saturation)
