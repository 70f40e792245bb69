"""RoIAlign over a feature pyramid: two semantics, two implementations of the same numbers."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tpu_retinamask.ops.images import content_cells

SEMANTICS = ("aligned", "crop_and_resize")
IMPLEMENTATIONS = ("gather", "matmul")


def assign_levels(boxes: tf.Tensor, min_level: int, max_level: int) -> tf.Tensor:
    """Return the pyramid level of each box: `clip(floor(4 + log2(sqrt(w h) / 224 + 1e-7)))`.

    Args:
      boxes: [..., 4] float32 pixels; without area (padding): the lowest level.
      min_level: lowest level.
      max_level: highest level.

    Returns:
      [...] int32. Source: FPN, arXiv 1612.03144 equation 1.
    """
    size = boxes[..., 2:] - boxes[..., :2]
    side = tf.sqrt(tf.maximum(size[..., 0] * size[..., 1], 0.0))
    level = tf.floor(4.0 + tf.math.log(side / 224.0 + 1e-7) / math.log(2.0))
    return tf.cast(tf.clip_by_value(level, float(min_level), float(max_level)), tf.int32)


def multilevel_roi_align(
    features: Sequence[tf.Tensor],
    boxes: tf.Tensor,
    image_size: tuple[int, int],
    *,
    content_size: tf.Tensor | None = None,
    min_level: int = 3,
    output_size: int = 14,
    semantics: str = "aligned",
    sampling_ratio: int = 2,
    implementation: str = "gather",
) -> tf.Tensor:
    """Sample a grid of features inside each box from the pyramid level that fits its size.

    Semantics "aligned": cell i of level l is centred at (i + .5) 2**l pixels, each bin is the mean of
    `sampling_ratio`**2 bilinear samples, coordinates are clamped to the level (Mask R-CNN, arXiv
    1703.06870, with the half-pixel shift of detectron2), or to the part of it that sees the picture.
    "crop_and_resize": one sample a bin at
    `linspace(y1 * h / H, y2 * h / H - 1, output_size)`, zero outside the level (keras-maskrcnn).

    Implementation "gather" reads the four corners of every sample; "matmul" lays the levels into one
    map F and multiplies it by two interpolation matrices a region, `Wy F Wx^T`, with no gather forward and no scatter
    backward. Both are differentiable in the features; boxes carry no gradient.

    Args:
      features: one [B, h, w, F] a level, from `min_level` upwards.
      boxes: [B, K, 4] float32, canvas pixels.
      image_size: (H, W) of the canvas, pixels.
      content_size: [B, 2] int32, height and width of each picture at the top left of its canvas; None: all of it;
        "aligned" only.
      min_level: level of features[0].
      output_size: P, bins a side.
      semantics: one of SEMANTICS.
      sampling_ratio: samples a bin along each axis; "aligned" only.
      implementation: one of IMPLEMENTATIONS.

    Returns:
      [B, K, P, P, F] in the dtype of the features. A box of padding gives finite values.

    Raises:
      ValueError: unknown semantics or implementation.
    """
    if semantics not in SEMANTICS:
        raise ValueError(f"multilevel_roi_align: semantics {semantics!r} is not one of {SEMANTICS}")
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"multilevel_roi_align: implementation {implementation!r} is not one of {IMPLEMENTATIONS}")
    boxes = tf.stop_gradient(boxes)
    level = assign_levels(boxes, min_level, min_level + len(features) - 1) - min_level  # [B, K]
    cells = np.array([f.shape[1:3] for f in features], np.float32)  # [L, 2] as h, w
    extent = tf.gather(tf.constant(cells), level)  # [B, K, 2]
    if semantics == "aligned":
        samples = sampling_ratio
        strides = tf.constant([2.0 ** (min_level + i) for i in range(len(features))])
        stride = tf.gather(strides, level)
        seen = extent if content_size is None else _cells_seen(content_size, level, min_level, len(features))
        grid_y = _aligned_grid(boxes[..., 1], boxes[..., 3], stride, seen[..., 0], output_size * samples)
        grid_x = _aligned_grid(boxes[..., 0], boxes[..., 2], stride, seen[..., 1], output_size * samples)
    else:
        samples = 1
        # Gathered, not constant: XLA divides by a constant through its rounded reciprocal, and the last
        # sample of a box as large as the image would fall outside the level.
        divisors = [float(image_size[0]), float(image_size[1]), max(1.0, output_size - 1.0)]
        divisors = tf.gather(tf.constant([divisors] * len(features)), level)  # [B, K, 3]
        high, wide, steps = tf.unstack(divisors, axis=-1)
        grid_y = _cropped_grid(boxes[..., 1], boxes[..., 3], high, extent[..., 0], steps, output_size)
        grid_x = _cropped_grid(boxes[..., 0], boxes[..., 2], wide, extent[..., 1], steps, output_size)
    sample = _gather if implementation == "gather" else _matmul
    return sample(features, cells, level, grid_y, grid_x, extent, samples)


def _cells_seen(content_size, level, min_level, num_levels):
    """Return the rows and columns of each box's level that see the picture, [B, K, 2] float32, 1 or more."""
    of_levels = tf.stack([content_cells(content_size, 2 ** (min_level + i)) for i in range(num_levels)], 1)  # [B, L, 2]
    return tf.maximum(tf.gather(tf.cast(of_levels, tf.float32), level, batch_dims=1), 1.0)


def _aligned_grid(low, high, stride, cells, count):
    """Return sample positions [B, K, count] in cells, 0 = centre of the first cell."""
    steps = (tf.range(count, dtype=tf.float32) + 0.5) / count
    grid = (low[..., None] + steps * (high - low)[..., None]) / stride[..., None] - 0.5
    return tf.minimum(tf.maximum(grid, 0.0), cells[..., None] - 1.0)


def _cropped_grid(low, high, side, cells, steps, count):
    # The order of the operations is the original's, so that a sample on the border falls on its side.
    last = tf.maximum(cells - 1.0, 1.0)
    low = (low / side * cells) / last
    high = (high / side * cells - 1.0) / last
    step = (high - low) * last / steps
    return low[..., None] * last[..., None] + tf.range(count, dtype=tf.float32) * step[..., None]


def _inside(grid, cells):
    return tf.cast((grid >= 0.0) & (grid <= cells[..., None] - 1.0), tf.float32)


def _gather(features, cells, level, grid_y, grid_x, extent, samples):
    """Read the corners of every sample; the samples of a bin one after the other, so that XLA joins them in one loop.

    A gather of all samples at once, averaged behind it, takes five times as long on a CPU. Backward it is the other way
    round: a scatter for each corner of all samples takes less than one for each corner of each sample.
    """
    starts = np.concatenate([[0], np.cumsum(cells.prod(axis=1))[:-1]]).astype(np.int32)
    start = tf.gather(tf.constant(starts), level)[..., None, None]  # [B, K, 1, 1]
    width = tf.cast(extent[..., 1], tf.int32)[..., None, None]
    _, num_boxes, count = grid_y.shape
    bins, share = count // samples, 1.0 / samples**2

    def corners(rows, columns):
        """Yield (cell, weight) of the corners of samples, [B, K, h, w] each, cells counted over all levels."""
        for y, wy in _corners(rows, extent[..., 0]):
            for x, wx in _corners(columns, extent[..., 1]):
                yield start + y[..., :, None] * width + x[..., None, :], wy[..., :, None] * wx[..., None, :] * share

    @tf.custom_gradient
    def read(*features):
        channels, dtype = features[0].shape[-1], features[0].dtype
        sizes = [feature.shape[1] * feature.shape[2] for feature in features]
        flat = tf.concat([tf.reshape(f, [-1, size, channels]) for f, size in zip(features, sizes)], axis=1)
        out = 0.0
        for sample_y in range(samples):
            for sample_x in range(samples):
                for cell, weight in corners(grid_y[..., sample_y::samples], grid_x[..., sample_x::samples]):
                    values = tf.gather(flat, tf.reshape(cell, [-1, num_boxes * bins * bins]), batch_dims=1)
                    out += values * tf.cast(tf.reshape(weight, [-1, num_boxes * bins * bins, 1]), dtype)

        def gradient(upstream):
            batch, total = tf.shape(upstream)[0], sum(sizes)
            of_samples = tf.reshape(upstream, [-1, num_boxes, bins, 1, bins, 1, channels])
            of_samples = tf.broadcast_to(of_samples, [batch, num_boxes, bins, samples, bins, samples, channels])
            of_samples = tf.reshape(of_samples, [-1, channels])
            image = tf.range(batch)[:, None, None, None] * total
            found = tf.add_n(
                [
                    tf.math.unsorted_segment_sum(
                        of_samples * tf.cast(tf.reshape(weight, [-1, 1]), dtype),
                        tf.reshape(image + cell, [-1]),
                        batch * total,
                    )
                    for cell, weight in corners(grid_y, grid_x)
                ]
            )
            parts = tf.split(tf.reshape(found, [-1, total, channels]), sizes, axis=1)
            return [tf.reshape(part, tf.shape(feature)) for part, feature in zip(parts, features)]

        return tf.reshape(out, [-1, num_boxes, bins, bins, channels]), gradient

    return read(*features)


def _corners(grid, cells):
    """Return the two neighbours of each position along one axis: [(index, weight), (index, weight)]."""
    inside = _inside(grid, cells)
    last = cells[..., None] - 1.0
    grid = tf.minimum(tf.maximum(grid, 0.0), last)
    low = tf.floor(grid)
    high = tf.minimum(low + 1.0, last)
    fraction = grid - low
    return [(tf.cast(low, tf.int32), (1.0 - fraction) * inside), (tf.cast(high, tf.int32), fraction * inside)]


def _matmul(features, cells, level, grid_y, grid_x, extent, samples):
    atlas, corners = pack_levels(features)  # [B, h, w, F]
    corner = tf.gather(tf.constant(corners), level)  # [B, K, 2]
    rows = _matrix_of_level(grid_y, atlas.shape[1], samples, corner[..., 0], extent[..., 0])  # [B, K, P, h]
    columns = _matrix_of_level(grid_x, atlas.shape[2], samples, corner[..., 1], extent[..., 1])  # [B, K, P, w]
    strip = tf.einsum("bkph,bhwf->bkpwf", tf.cast(rows, atlas.dtype), atlas)
    return tf.einsum("bkqw,bkpwf->bkpqf", tf.cast(columns, atlas.dtype), strip)


def pack_levels(features: Sequence[tf.Tensor]) -> tuple[tf.Tensor, np.ndarray]:
    """Lay the levels of a pyramid into one map: the largest above, the others side by side below it.

    A region reads one level. From one map two products read that of every region, whatever levels there are, where a
    map a level would be multiplied by every region and all but one of the results be zero.

    Args:
      features: one [B, h, w, F] a level, the largest first.

    Returns:
      (atlas, corners): atlas [B, h', w', F], zero where no level lies, and corners [L, 2] float32, the row and column
      of each level's first cell.
    """
    sides = np.array([feature.shape[1:3] for feature in features])
    below = sides[1:, 1].sum()
    width, height = max(sides[0, 1], below), sides[1:, 0].max(initial=0)
    rest = [tf.pad(f, [[0, 0], [0, height - f.shape[1]], [0, 0], [0, 0]]) for f in features[1:]]
    parts = [features[0], tf.concat(rest, axis=2)] if rest else [features[0]]
    parts = [tf.pad(part, [[0, 0], [0, 0], [0, width - part.shape[2]], [0, 0]]) for part in parts]
    columns = np.concatenate([[0, 0], np.cumsum(sides[1:, 1])])[: len(features)]
    rows = [0] + [sides[0, 0]] * len(rest)
    return tf.concat(parts, axis=1), np.stack([rows, columns], axis=1).astype(np.float32)


def interpolation_matrix(grid: tf.Tensor, cells: int, samples: int = 1) -> tf.Tensor:
    """Return the linear interpolation of positions as a matrix, `max(0, 1 - |position - cell|)`.

    Args:
      grid: [..., P * samples] float32 positions in cells, 0 = centre of the first cell.
      cells: number of cells n; positions outside [0, n - 1] get a row of zeros.
      samples: neighbouring positions averaged into one row.

    Returns:
      [..., P, n] float32.
    """
    every = tf.constant(float(cells), shape=[1] * (grid.shape.rank - 1))
    return _matrix_of_level(grid, cells, samples, tf.zeros_like(every), every)


def _matrix_of_level(grid, width, samples, corner, extent):
    """Return [..., P, width]: the interpolation of `extent` cells [...] that begin in column `corner` [...]."""
    inside = tf.cast((grid >= 0.0) & (grid <= extent[..., None] - 1.0), tf.float32)[..., None]
    cell = tf.range(width, dtype=tf.float32) - corner[..., None]  # [..., width], exact: the cells of the level itself
    weights = tf.maximum(0.0, 1.0 - tf.abs(grid[..., None] - cell[..., None, :])) * inside
    if samples == 1:
        return weights
    shape = weights.shape
    grouped = tf.reshape(weights, [-1, *shape[1:-2], shape[-2] // samples, samples, width])
    return tf.reduce_mean(grouped, axis=-2)
