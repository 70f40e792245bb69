"""Anchor boxes of a feature pyramid, as constants."""

import dataclasses
from collections.abc import Sequence

import numpy as np

ROUNDINGS = ("none", "cell")


@dataclasses.dataclass(frozen=True)
class AnchorGrid:
    """Sizes, strides, ratios and scales of the anchors, one size and stride a pyramid level.

    Args:
      levels: pyramid levels l; level l has ceil(side / 2**l) cells a side.
      sizes: side of the square anchor of scale 1 at each level, pixels.
      strides: distance of neighbouring cell centres at each level, pixels.
      ratios: height / width.
      scales: multiples of `sizes`.
      rounding: "none", or "cell": width and height of each ratio are whole pixels where the anchor is as large as the
        cell, and grow from there with size and scale (the paper's code): at ratio 1/2 an anchor of 8 x 8 is 11 x 6.

    Raises:
      ValueError: sizes or strides do not match the levels, a value is not positive, another rounding, or one that
        leaves an anchor without area.
    """

    levels: tuple = (3, 4, 5, 6, 7)
    sizes: tuple = (32, 64, 128, 256, 512)
    strides: tuple = (8, 16, 32, 64, 128)
    ratios: tuple = (0.5, 1.0, 2.0)
    scales: tuple = (2**0, 2 ** (1 / 3), 2 ** (2 / 3))
    rounding: str = "none"

    def __post_init__(self) -> None:
        for name in ("levels", "sizes", "strides", "ratios", "scales"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("sizes", "strides"):
            if len(getattr(self, name)) != len(self.levels):
                raise ValueError(
                    f"AnchorGrid.{name} has {len(getattr(self, name))} entries but there are {len(self.levels)} "
                    f"pyramid levels {self.levels}: give one for each level"
                )
        if min(self.sizes + self.strides + self.ratios + self.scales) <= 0:
            raise ValueError(f"AnchorGrid holds a value that is not positive: {self}")
        if self.rounding not in ROUNDINGS:
            raise ValueError(f"AnchorGrid.rounding {self.rounding!r} is not one of {ROUNDINGS}")
        if any((self.cell_sides(size, stride) <= 0).any() for size, stride in zip(self.sizes, self.strides)):
            raise ValueError(
                f"AnchorGrid: one of the ratios {self.ratios} leaves no whole pixel of a side in a cell of "
                f"{min(self.strides)} pixels: choose others, or the rounding 'none'"
            )

    @property
    def per_cell(self) -> int:
        """Return A, the anchors of one cell."""
        return len(self.ratios) * len(self.scales)

    def level_shapes(self, image_size: tuple[int, int]) -> list:
        """Return [(height, width), ...] in cells for an image of (height, width) pixels."""
        return [tuple(-(-side // 2**level) for side in image_size) for level in self.levels]

    def anchors(self, image_size: tuple[int, int]) -> list:
        """Return the anchors of each level.

        Args:
          image_size: (height, width) of the canvas, pixels.

        Returns:
          One float32 array [h * w * A, 4] a level, pixels, not clipped; cells run over y, then x, and
          within a cell over ratios, then scales. Cell (i, j) is centred at ((j + .5), (i + .5)) * stride.
        """
        return [level.astype(np.float32) for level in self.anchors_float64(image_size)]

    def anchors_float64(self, image_size: tuple[int, int]) -> list:
        """Return the anchors before the rounding to float32 (keras-maskrcnn makes its targets from these)."""
        grids = []
        for (height, width), size, stride in zip(self.level_shapes(image_size), self.sizes, self.strides):
            x = (np.arange(width) + 0.5) * stride
            y = (np.arange(height) + 0.5) * stride
            centres = np.stack(np.broadcast_arrays(x[None, :, None], y[:, None, None]), axis=-1)  # [h, w, 1, 2]
            half = self.cell_sides(size, stride) / 2  # [A, 2]
            grids.append(np.concatenate([centres - half, centres + half], axis=-1).reshape(-1, 4))
        return grids

    def cell_sides(self, size: float, stride: float) -> np.ndarray:
        """Return width and height of the anchors of one cell, [A, 2] float64, ratio-major."""
        # float32 first: keras-retinanet stores ratios and scales in the float type of Keras.
        ratios = np.asarray(self.ratios, np.float32).astype(np.float64)[:, None]
        scales = np.asarray(self.scales, np.float32).astype(np.float64)[None, :]
        if self.rounding == "cell":
            width = np.rint(np.sqrt(stride**2 / ratios))  # [ratios, 1]
            height = np.rint(width * ratios)
            return np.stack([side * (size / stride) * scales for side in (width, height)], axis=-1).reshape(-1, 2)
        width = np.sqrt((size * scales) ** 2 / ratios)  # [ratios, scales]
        return np.stack([width, width * ratios], axis=-1).reshape(-1, 2)

    def best_iou(self, boxes: np.ndarray | Sequence) -> np.ndarray:
        """Return the largest IoU that any anchor of an unbounded grid has with each box.

        A shape's IoU with a box falls with the distance of the centres along each axis, so only the cell
        nearest to the box's centre has to be looked at: exact, and one IoU a shape in place of thousands.

        Args:
          boxes: [n, 4] pixels.

        Returns:
          [n] float64; 0 for boxes without area.
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        centre, side = (boxes[:, 2:] + boxes[:, :2]) / 2, boxes[:, 2:] - boxes[:, :2]
        best = np.zeros(len(boxes))
        for size, stride in zip(self.sizes, self.strides):
            nearest = (np.floor(centre / stride) + 0.5) * stride  # [n, 2]
            half = self.cell_sides(size, stride)[None] / 2  # [1, A, 2]
            low = np.maximum(nearest[:, None] - half, boxes[:, None, :2])
            high = np.minimum(nearest[:, None] + half, boxes[:, None, 2:])
            overlap = np.prod(np.maximum(high - low, 0), axis=-1)  # [n, A]
            union = np.prod(2 * half, axis=-1) + np.prod(side, axis=-1)[:, None] - overlap
            best = np.maximum(best, (overlap / union).max(axis=1))
        return best
