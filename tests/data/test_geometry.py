"""Scale, crop window and boxes: hand-worked cases, tf.image.resize, every size on one canvas."""

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.data.augment.geometry import clip_to_view, fit_scale, place, render


@pytest.mark.parametrize(
    "size, canvas, min_side, max_side, expected",
    [
        ((480, 640), (800, 1333), 800, 1333, 800 / 480),  # the short side decides
        ((400, 1200), (1333, 1333), 800, 1333, 1333 / 1200),  # the long side decides
        ((480, 640), (512, 512), 800, 1333, 512 / 640),  # the canvas decides
        ((480, 640), (512, 512), None, None, 0.8),
        ((480, 640), (2000, 2000), None, 320, 0.5),
        ((100, 50), (400, 100), None, None, 2.0),
    ],
)
def test_fit_scale_by_hand(size, canvas, min_side, max_side, expected):
    scale = fit_scale(tf.constant(size), tf.constant(canvas), min_side, max_side)
    np.testing.assert_allclose(scale, expected, rtol=1e-6)


def test_every_size_fits_the_canvas_it_was_scaled_for():
    canvas = tf.constant([512, 384])
    for height in range(1, 1200, 67):
        for width in range(1, 1200, 71):
            size = tf.constant([height, width])
            view = place(size, canvas, fit_scale(size, canvas, None, None), tf.constant([0.9, 0.9]))
            assert not view.cropped and np.all(view.content <= canvas), (height, width)
            assert np.any(view.content == canvas)
            np.testing.assert_array_equal(view.offset, [0, 0])
            assert np.all(view.window <= [width, height, width, height])


def test_render_is_tf_image_resize_where_the_sides_are_whole():
    image = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for scale, sides in ((2.0, (60, 80)), (0.5, (15, 20)), (1.0, (30, 40)), (1.3, (39, 52))):
        view = place(tf.constant([30, 40]), tf.constant(sides), tf.constant(scale), tf.zeros([2]))
        for antialias in (True, False):
            np.testing.assert_allclose(
                render(tf.constant(image), view, antialias),
                tf.image.resize(image, sides, antialias=antialias),
                atol=1e-3,
            )


def _triangles(image, scale, offset, content):
    """Average under triangles of 2 / scale pixels, pixel by pixel."""
    out = np.zeros((*content, 3))
    for row in range(content[0]):
        for column in range(content[1]):
            y, x = (row + offset[0] + 0.5) / scale, (column + offset[1] + 0.5) / scale
            weights = [
                np.maximum(0.0, 1.0 - np.abs(np.arange(side) + 0.5 - centre) * min(scale, 1.0))
                for side, centre in zip(image.shape, (y, x))
            ]
            total = np.einsum("y,x,yxc->c", weights[0], weights[1], image.astype(np.float64))
            out[row, column] = total / (weights[0].sum() * weights[1].sum())
    return out


def test_a_shrunk_picture_is_averaged_under_triangles():
    row = tf.constant([[0, 100, 200, 60]], tf.uint8)[..., None] * tf.ones([4, 1, 3], tf.uint8)
    halved = render(row, place(tf.constant([4, 4]), tf.constant([2, 2]), tf.constant(0.5), tf.zeros([2])))
    # Centres at 1 and 3: weights 3/4, 3/4, 1/4 of the three nearest, one more of which lies outside.
    np.testing.assert_allclose(halved[0, :, 0], [125 / 1.75, (25 + 150 + 45) / 1.75], rtol=1e-6)
    image = np.random.default_rng(2).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    for scale, canvas in ((0.37, (12, 16)), (0.8, (9, 10)), (0.11, (4, 5)), (1.6, (20, 20))):
        view = place(tf.constant([30, 41]), tf.constant(canvas), tf.constant(scale), tf.constant([0.7, 0.4]))
        expected = _triangles(image, scale, view.offset.numpy(), view.content.numpy())
        np.testing.assert_allclose(render(tf.constant(image), view), expected, atol=2e-3)  # of 255, in float32


def test_stripes_of_one_pixel_turn_grey_not_into_other_stripes():
    stripes = np.zeros((90, 90, 3), np.uint8)
    stripes[:, ::2] = 255
    for scale in (0.5, 0.34, 0.25):
        sides = [round(90 * scale)] * 2
        view = place(tf.constant([90, 90]), tf.constant(sides), tf.constant(scale), tf.zeros([2]))
        inner = slice(2, -2)  # at the border one stripe more of either kind is seen
        # A triangle lets a twentieth of such stripes through where it does not fall on them evenly, to both sides.
        assert np.ptp(render(tf.constant(stripes), view)[inner, inner]) < 32
    view = place(tf.constant([90, 90]), tf.constant([31, 31]), tf.constant(0.34), tf.zeros([2]))
    assert np.ptp(render(tf.constant(stripes), view, antialias=False)) > 100


@pytest.mark.parametrize("size", [(2, 1000), (1, 1200), (1000, 3)])
def test_a_picture_thinner_than_a_pixel_keeps_its_colour(size):
    canvas, image = tf.constant([50, 50]), tf.fill([*size, 3], tf.constant(200, tf.uint8))
    view = place(tf.constant(size), canvas, fit_scale(tf.constant(size), canvas, None, None), tf.zeros([2]))
    assert sorted(view.content.numpy()) == [1, 50]
    for antialias in (True, False):
        np.testing.assert_allclose(render(image, view, antialias), 200.0, atol=1e-3)


def test_an_enlarged_picture_is_the_same_to_the_bit_with_and_without_antialiasing():
    image = tf.constant(np.random.default_rng(3).integers(0, 256, (30, 41, 3), dtype=np.uint8))
    for scale in (1.0, 1.3, 2.0, 3.7):
        view = place(tf.constant([30, 41]), tf.constant([50, 60]), tf.constant(scale), tf.constant([0.3, 0.8]))
        np.testing.assert_array_equal(render(image, view), render(image, view, antialias=False))


def test_a_crop_is_a_window_of_the_whole_picture():
    image = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    whole = tf.image.resize(image, (60, 80)).numpy()
    view = place(tf.constant([30, 40]), tf.constant([20, 90]), tf.constant(2.0), tf.constant([0.5, 0.9]))
    # 41 places for a window of 20 rows in 60; the width fits, so it is not moved.
    np.testing.assert_array_equal(view.offset, [20, 0])
    np.testing.assert_array_equal(view.content, [20, 80])
    np.testing.assert_array_equal(view.window, [0, 10, 40, 20])
    np.testing.assert_allclose(render(tf.constant(image), view), whole[20:40], atol=2e-3)


def test_the_crop_window_reaches_both_ends():
    for position, offset in ((0.0, 0), (0.999999, 40)):
        view = place(tf.constant([30, 40]), tf.constant([20, 80]), tf.constant(2.0), tf.constant([position, position]))
        np.testing.assert_array_equal(view.offset, [offset, 0])


def test_boxes_are_clipped_to_the_window_and_what_is_hardly_seen_is_left_out():
    # Scale 2, canvas 20 x 20 from a picture of 30 x 40: the window is x 0..10, y 0..10.
    view = place(tf.constant([30, 40]), tf.constant([20, 20]), tf.constant(2.0), tf.zeros([2]))
    boxes = tf.constant(
        [
            [1, 2, 4, 5],  # whole
            [8, 8, 12, 10],  # half
            [9, 0, 19, 5],  # exactly a tenth
            [9, 0, 20, 5],  # a little less
            [9.75, 0, 10.25, 2],  # half, but half a canvas pixel wide
            [12, 0, 14, 2],  # outside
            [9.75, 9.75, 10, 10],  # small, whole: stays
        ],
        tf.float32,
    )
    clipped, on_canvas, visible = clip_to_view(boxes, view)
    assert visible.numpy().tolist() == [True, True, True, False, False, False, True]
    np.testing.assert_array_equal(clipped[1], [8, 8, 10, 10])
    np.testing.assert_array_equal(on_canvas[:3], [[2, 4, 8, 10], [16, 16, 20, 20], [18, 0, 20, 10]])


def test_boxes_of_a_moved_window_are_shifted():
    view = place(tf.constant([30, 40]), tf.constant([20, 20]), tf.constant(2.0), tf.constant([0.5, 0.75]))
    np.testing.assert_array_equal(view.offset, [20, 45])
    _, on_canvas, visible = clip_to_view(tf.constant([[23.0, 11.0, 27.0, 14.0]]), view)
    assert visible.numpy().all()
    np.testing.assert_array_equal(on_canvas, [[1, 2, 9, 8]])


def test_without_a_crop_every_box_stays_and_border_boxes_reach_the_content():
    # 199 * 0.5 = 99.5 rounds to 100; 197 * 0.5 = 98.5 rounds to 98: the last half pixel is not seen.
    for width, content in ((199, 100), (197, 98)):
        view = place(tf.constant([10, width]), tf.constant([200, 200]), tf.constant(0.5), tf.zeros([2]))
        np.testing.assert_array_equal(view.content, [5, content])
        boxes = tf.constant([[width - 4.0, 0, width, 10.0], [0, 0, 1, 1]])
        _, on_canvas, visible = clip_to_view(boxes, view)
        assert visible.numpy().all()
        np.testing.assert_array_equal(on_canvas[0, 2], min(width / 2, content))
        np.testing.assert_array_equal(on_canvas[1], [0, 0, 0.5, 0.5])
