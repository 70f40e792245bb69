"""RoIAlign: both semantics against slow loops, both implementations against each other."""

import numpy as np
import pytest
import tensorflow as tf
from reference import roi_align_reference

from tpu_retinamask.ops.roi_align import (
    IMPLEMENTATIONS,
    SEMANTICS,
    assign_levels,
    interpolation_matrix,
    multilevel_roi_align,
    pack_levels,
)

_SIZE = (176, 240)
# Inside, large, one pixel, tall, past the border, the whole image, no area, padding.
_BOXES = np.array(
    [
        [[10.3, 12.7, 61.2, 50.9], [5, 8, 230, 170], [100, 60, 101, 61], [3.5, 2.5, 20, 171]],
        [[-20, -30, 40, 50], [0, 0, 240, 176], [30, 30, 30, 50], [-1, -1, -1, -1]],
    ],
    np.float32,
)


def _pyramid(levels=3, channels=3, seed=0, size=_SIZE):
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(2, -(-size[0] // 2**l), -(-size[1] // 2**l), channels)).astype(np.float32)
        for l in range(3, 3 + levels)
    ]


def _reference(pyramid, boxes, size, semantics, image_size=_SIZE, ratio=2):
    out = np.zeros((*boxes.shape[:2], size, size, pyramid[0].shape[-1]))
    for b in range(boxes.shape[0]):
        for k in range(boxes.shape[1]):
            box = [float(v) for v in boxes[b, k]]
            level = roi_align_reference.level_of(box, 3, 2 + len(pyramid))
            feature = pyramid[level - 3][b].astype(np.float64)
            if semantics == "aligned":
                out[b, k] = roi_align_reference.aligned(feature, box, 2**level, size, ratio)
            else:
                out[b, k] = roi_align_reference.crop_and_resize(feature, box, image_size, size)
    return out


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("levels", [1, 3, 5])
def test_aligned_equals_loops(implementation, levels):
    pyramid = _pyramid(levels)
    rois = multilevel_roi_align(pyramid, tf.constant(_BOXES), _SIZE, output_size=7, implementation=implementation)
    # Positions up to 30 cells round by 2e-6, times differences of neighbouring values up to 6.
    np.testing.assert_allclose(rois, _reference(pyramid, _BOXES, 7, "aligned"), atol=3e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("levels", [3, 5])
def test_crop_and_resize_equals_loops(implementation, levels):
    pyramid = _pyramid(levels, seed=1)
    boxes = _BOXES.copy()
    # A sample that falls exactly on the border is decided by rounding: move the whole-image box inside.
    boxes[1, 1] = [0.5, 0.5, 239.5, 175.5]
    rois = multilevel_roi_align(
        pyramid,
        tf.constant(boxes),
        _SIZE,
        output_size=14,
        semantics="crop_and_resize",
        implementation=implementation,
    )
    np.testing.assert_allclose(rois, _reference(pyramid, boxes, 14, "crop_and_resize"), atol=3e-5)


@pytest.mark.parametrize("ratio", [1, 3])
def test_sampling_ratios(ratio):
    pyramid = _pyramid(2, seed=2)
    for implementation in IMPLEMENTATIONS:
        rois = multilevel_roi_align(
            pyramid,
            tf.constant(_BOXES),
            _SIZE,
            output_size=5,
            sampling_ratio=ratio,
            implementation=implementation,
        )
        np.testing.assert_allclose(rois, _reference(pyramid, _BOXES, 5, "aligned", ratio=ratio), atol=3e-5)


def test_hand_worked_aligned_box():
    # One level, stride 8, value = column index. A box from x = 8 to 24 covers cells 1 and 2: its two bins
    # are centred on them, and the mean of a linear function over a bin is its value at the bin's centre.
    feature = np.tile(np.arange(6, dtype=np.float32)[None, None, :, None], (1, 4, 1, 1))
    rois = multilevel_roi_align([feature], tf.constant([[[8.0, 8, 24, 24]]]), (32, 48), output_size=2)
    np.testing.assert_allclose(rois[0, 0, :, :, 0], [[1, 2], [1, 2]], atol=1e-6)


def test_hand_worked_crop_and_resize():
    # The same box in the original's semantics: samples at linspace(8 * 6 / 48, 24 * 6 / 48 - 1, 2) = 1, 2.
    feature = np.tile(np.arange(6, dtype=np.float32)[None, None, :, None], (1, 4, 1, 1))
    rois = multilevel_roi_align(
        [feature],
        tf.constant([[[8.0, 8, 24, 24], [24, 8, 64, 24]]]),
        (32, 48),
        output_size=2,
        semantics="crop_and_resize",
    )
    np.testing.assert_allclose(rois[0, 0, :, :, 0], [[1, 2], [1, 2]], atol=1e-6)
    # The second box ends at 8 cells - 1 = 7, outside the level: zero there.
    np.testing.assert_allclose(rois[0, 1, :, :, 0], [[3, 0], [3, 0]], atol=1e-6)


def test_whole_image_of_a_constant_is_constant():
    pyramid = [np.full_like(level, 2.5) for level in _pyramid(3)]
    for implementation in IMPLEMENTATIONS:
        rois = multilevel_roi_align(pyramid, tf.constant(_BOXES), _SIZE, implementation=implementation)
        # Weights of a sample sum to 1 but for rounding, padding included, since edges are clamped.
        np.testing.assert_allclose(rois, np.full((2, 4, 14, 14, 3), 2.5), rtol=1e-6)


def test_halving_image_and_box_changes_nothing():
    # Twice the cells a pixel: stride 8 on the half-size image is stride 16 on the full one.
    level = _pyramid(1, seed=3)[0]
    box = np.array([[[16.5, 24.25, 150, 160]], [[0, 0, 40, 100]]], np.float32)
    half = multilevel_roi_align([level], tf.constant(box / 2), (88, 120), output_size=7, min_level=3)
    full = multilevel_roi_align([level], tf.constant(box), (176, 240), output_size=7, min_level=4)
    np.testing.assert_array_equal(half, full)  # powers of two do not round
    half = multilevel_roi_align([level], tf.constant(box / 2), (88, 120), output_size=7, semantics="crop_and_resize")
    full = multilevel_roi_align([level], tf.constant(box), (176, 240), output_size=7, semantics="crop_and_resize")
    np.testing.assert_array_equal(half, full)


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_flipping_features_and_box_flips_the_region(semantics):
    level = np.random.default_rng(4).normal(size=(1, 22, 30, 2)).astype(np.float32)
    box = np.array([[[20, 17, 90, 70]]], np.float32)
    flipped_box = np.array([[[240 - 90, 17, 240 - 20, 70]]], np.float32)
    rois = multilevel_roi_align([level], tf.constant(box), _SIZE, semantics=semantics)
    flipped = multilevel_roi_align([level[:, :, ::-1]], tf.constant(flipped_box), _SIZE, semantics=semantics)
    # Mirrored positions round differently, by 2e-6 cells.
    np.testing.assert_allclose(flipped[:, :, :, ::-1], rois, atol=2e-5)


def test_levels_at_their_borders():
    sides = [1, 111.99, 112, 223.9, 224, 447.9, 448, 895.9, 896, 1791.9, 1792, 5000]
    boxes = tf.constant([[0, 0, side, side] for side in sides], tf.float32)
    expected = [3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    np.testing.assert_array_equal(assign_levels(boxes, 3, 7), expected)
    assert [roi_align_reference.level_of([0, 0, side, side], 3, 7) for side in sides] == expected
    compiled = tf.function(lambda b: assign_levels(b, 3, 7), jit_compile=True)
    np.testing.assert_array_equal(compiled(boxes), expected)
    np.testing.assert_array_equal(assign_levels(boxes, 3, 5), np.minimum(expected, 5))
    np.testing.assert_array_equal(assign_levels(boxes, 2, 5), [2, 2, 3, 3, 4, 4, 5, 5, 5, 5, 5, 5])


def test_level_counts_the_area_not_the_sides():
    boxes = tf.constant(
        [
            [0, 0, 448, 112],
            [10, 10, 234, 234],
            [0, 0, 448, 111],
            [5, 5, 5, 900],
            [9, 0, 1, 900],
            [-1, -1, -1, -1],
        ],
        tf.float32,
    )
    np.testing.assert_array_equal(assign_levels(boxes, 3, 7), [4, 4, 3, 3, 3, 3])


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_implementations_agree_in_value_and_gradient(semantics):
    pyramid = [tf.constant(level) for level in _pyramid(3, channels=5, seed=5)]
    rng = np.random.default_rng(6)
    corner = rng.uniform(-20, 180, (2, 12, 2))
    boxes = tf.constant(np.concatenate([corner, corner + np.exp(rng.uniform(0, 5.5, (2, 12, 2)))], 2), tf.float32)
    weight = tf.constant(rng.normal(size=(2, 12, 7, 7, 5)), tf.float32)

    def run(implementation):
        with tf.GradientTape() as tape:
            tape.watch(pyramid)
            rois = multilevel_roi_align(
                pyramid, boxes, _SIZE, output_size=7, semantics=semantics, implementation=implementation
            )
            total = tf.reduce_sum(rois * weight)
        return [rois, *tape.gradient(total, pyramid)]

    for first, second in zip(run("gather"), run("matmul")):
        # Weights computed as fraction or as 1 - |distance|: a rounding of a position, 2e-6 cells, times
        # differences of values up to 6, several hundred terms in the gradient.
        np.testing.assert_allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("semantics", SEMANTICS)
def test_gradient_equals_finite_differences(semantics, implementation):
    pyramid = [tf.constant(level) for level in _pyramid(2, channels=1, seed=7, size=(40, 56))]
    boxes = tf.constant([[[3.0, 5, 30, 33], [-9, 2, 14, 50]], [[0, 0, 56, 40], [-1, -1, -1, -1]]])
    weight = tf.random.stateless_normal([2, 2, 4, 4, 1], seed=[1, 2])

    def total(pyramid):
        rois = multilevel_roi_align(
            pyramid, boxes, (40, 56), output_size=4, semantics=semantics, implementation=implementation
        )
        return tf.reduce_sum(rois * weight)

    with tf.GradientTape() as tape:
        tape.watch(pyramid)
        value = total(pyramid)
    gradients = tape.gradient(value, pyramid)
    # The function is linear in the features: a step of 1 is exact but for rounding of the sum.
    for cell in [(0, 0, 0), (0, 2, 3), (1, 4, 6), (1, 1, 0), (0, 4, 3), (1, 2, 2)]:
        moved = pyramid[0] + tf.scatter_nd([[*cell, 0]], [1.0], pyramid[0].shape)
        assert float(total([moved, pyramid[1]]) - value) == pytest.approx(float(gradients[0][(*cell, 0)]), abs=2e-5)
    assert not np.any(gradients[1])  # no box of this image is large enough for P4


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_no_gradient_reaches_the_boxes(semantics):
    pyramid, boxes = _pyramid(3), tf.Variable(_BOXES)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(multilevel_roi_align(pyramid, boxes, _SIZE, semantics=semantics))
    assert tape.gradient(total, boxes) is None


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("semantics", SEMANTICS)
def test_padding_and_wild_boxes_stay_finite(semantics, implementation):
    pyramid = [tf.constant(level) for level in _pyramid(3)]
    boxes = tf.constant(
        [[[-1, -1, -1, -1], [0, 0, 0, 0], [9, 9, 2, 2], [1e6, 1e6, 2e6, 2e6], [-1e6, 5, 1e6, 6]]] * 2,
        tf.float32,
    )
    with tf.GradientTape() as tape:
        tape.watch(pyramid)
        rois = multilevel_roi_align(pyramid, boxes, _SIZE, semantics=semantics, implementation=implementation)
        total = tf.reduce_sum(tf.square(rois))
    assert np.isfinite(rois).all()
    for gradient in tape.gradient(total, pyramid):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_batch_equals_singles(implementation):
    pyramid = _pyramid(3, seed=8)
    rois = multilevel_roi_align(pyramid, tf.constant(_BOXES), _SIZE, output_size=7, implementation=implementation)
    for b in range(2):
        one = multilevel_roi_align(
            [level[b : b + 1] for level in pyramid],
            tf.constant(_BOXES[b : b + 1]),
            _SIZE,
            output_size=7,
            implementation=implementation,
        )
        # A matrix product may sum in another order for another batch.
        np.testing.assert_allclose(rois[b], one[0], atol=1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("semantics", SEMANTICS)
def test_compiled_equals_eager(semantics, implementation):
    pyramid = [tf.constant(level) for level in _pyramid(3, seed=9)]

    def run(boxes):
        with tf.GradientTape() as tape:
            tape.watch(pyramid)
            rois = multilevel_roi_align(
                pyramid, boxes, _SIZE, output_size=7, semantics=semantics, implementation=implementation
            )
            total = tf.reduce_sum(tf.square(rois))
        return [rois, *tape.gradient(total, pyramid)]

    # Away from the image's border, where rounding decides whether a sample of crop_and_resize is outside.
    boxes = tf.constant(np.where(_BOXES == 240, 239.5, np.where(_BOXES == 176, 175.5, _BOXES)), tf.float32)
    for compiled, eager in zip(tf.function(run, jit_compile=True)(boxes), run(boxes)):
        np.testing.assert_allclose(compiled, eager, atol=1e-4)  # as between the implementations


def test_rounding_of_the_image_border_is_the_same_when_compiled():
    # The last sample of a box as large as the image lies exactly on the last cell: inside, but where
    # float32 rounds it up (13 * (7 / 13) > 7 on a level of 8 cells), as in the original.
    for size in [(352, 480), (333, 500), (876, 1876), (256, 320)]:
        pyramid = [tf.ones([1, -(-size[0] // 2**l), -(-size[1] // 2**l), 1]) for l in range(3, 8)]
        boxes = tf.constant([[[0, 0, size[1], size[0]], [0, 0, 40, size[0]], [0, 0, size[1], 100]]], tf.float32)

        def run(boxes):
            return multilevel_roi_align(pyramid, boxes, size, semantics="crop_and_resize")

        eager = run(boxes).numpy()
        # Weights of a sample inside sum to 1, outside to 0.
        np.testing.assert_allclose(tf.function(run, jit_compile=True)(boxes), eager, atol=1e-5)
        assert eager[0, :, :-1, :-1].min() > 0.99


def test_bfloat16_features_stay_near_float32():
    pyramid = _pyramid(3, seed=10)
    exact = multilevel_roi_align(pyramid, tf.constant(_BOXES), _SIZE, output_size=7)
    for implementation in IMPLEMENTATIONS:
        rough = multilevel_roi_align(
            [tf.cast(level, tf.bfloat16) for level in pyramid],
            tf.constant(_BOXES),
            _SIZE,
            output_size=7,
            implementation=implementation,
        )
        assert rough.dtype == tf.bfloat16
        # 8 bits of mantissa: 2**-9 relative in features, in two weights and in the sums, values up to 4.
        np.testing.assert_allclose(tf.cast(rough, tf.float32), exact, atol=0.06)


def test_interpolation_matrix_by_hand():
    matrix = interpolation_matrix(tf.constant([0.0, 0.25, 2.0, -0.1, 2.1]), 3)
    np.testing.assert_allclose(matrix, [[1, 0, 0], [0.75, 0.25, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]], atol=1e-7)
    grouped = interpolation_matrix(tf.constant([[0.0, 1.0, 1.5, 2.0]]), 3, samples=2)
    np.testing.assert_allclose(grouped[0], [[0.5, 0.5, 0], [0, 0.25, 0.75]], atol=1e-7)


@pytest.mark.parametrize(
    "sides", [[(22, 30)], [(22, 30), (11, 15), (6, 8), (3, 4), (2, 2)], [(3, 5), (2, 3), (1, 2), (1, 1)]]
)
def test_packed_levels_lie_apart(sides):
    rng = np.random.default_rng(11)
    pyramid = [rng.uniform(1, 2, (2, *side, 3)).astype(np.float32) for side in sides]
    atlas, corners = pack_levels(pyramid)
    rest = atlas.numpy()
    for level, (row, column) in zip(pyramid, corners.astype(int)):
        there = rest[:, row : row + level.shape[1], column : column + level.shape[2]]
        np.testing.assert_array_equal(there, level)
        there[:] = 0  # a level over another would find the zeros of the first
    assert not rest.any()
    # No higher than two levels, no wider than the largest but where the others round up beside it.
    assert atlas.shape[1] == sum(side[0] for side in sides[:2])
    assert atlas.shape[2] == max(sides[0][1], sum(side[1] for side in sides[1:]))


def test_a_region_of_one_level_never_sees_another():
    """Each level is a number of its own, regions reach past all borders, and levels touch in the packed map."""
    pyramid = [np.full_like(level, 10.0**index) for index, level in enumerate(_pyramid(5))]
    rng = np.random.default_rng(12)
    corner = rng.uniform(-100, 220, (2, 40, 2))
    sides = np.exp(rng.uniform(0, 8.5, (2, 40, 1)) + rng.uniform(-0.5, 0.5, (2, 40, 2)))
    boxes = tf.constant(np.concatenate([corner, corner + sides], 2), tf.float32)
    level = assign_levels(boxes, 3, 7) - 3
    assert set(level.numpy().ravel()) == set(range(5))
    rois = multilevel_roi_align(pyramid, boxes, _SIZE, implementation="matmul").numpy()
    expected = np.broadcast_to((10.0 ** level.numpy())[:, :, None, None, None], rois.shape)
    np.testing.assert_allclose(rois, expected, rtol=1e-6)  # weights sum to 1 but for rounding


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="semantics 'pool' is not one of"):
        multilevel_roi_align(_pyramid(1), tf.constant(_BOXES), _SIZE, semantics="pool")
    with pytest.raises(ValueError, match="implementation 'loop' is not one of"):
        multilevel_roi_align(_pyramid(1), tf.constant(_BOXES), _SIZE, implementation="loop")
