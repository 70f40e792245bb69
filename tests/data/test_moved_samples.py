"""Rotation, translation, shear and zoom: hand-worked boxes, slow references, and whole samples."""

import math

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.augment.affine import centre_matrix, enclosing_boxes, moved_boxes, render_moved, resample_masks
from tpu_retinamask.data.augment.augmentation import Augmentation
from tpu_retinamask.data.augment.geometry import place, render
from tpu_retinamask.keras_maskrcnn.affine import centre_transform, transform_boxes

pytestmark = pytest.mark.ci  # many samples of every change

AFFINE = Augmentation(horizontal_flip=0.5, rot90=0.5, rotation=40.0, translation=0.1, shear=15.0, zoom=(0.7, 1.3))


def matrix_of(size, rotation=0.0, translation=(0.0, 0.0), shear=0.0, zoom=1.0):
    return centre_matrix(
        tf.constant(size),
        rotation=math.radians(rotation),
        translation=tf.constant(translation),
        shear=math.radians(shear),
        zoom=zoom,
    )


def reference_matrix(size, rotation=0.0, translation=(0.0, 0.0), shear=0.0, zoom=1.0):
    """Compose the four moves one after another in float64."""
    turn, lean = math.radians(rotation), math.tan(math.radians(shear))
    turned = np.array([[math.cos(turn), math.sin(turn), 0], [-math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    shifted = np.array([[1, 0, translation[0]], [0, 1, translation[1]], [0, 0, 1]])
    return centre_transform(shifted @ turned @ [[1, lean, 0], [0, 1, 0], [0, 0, 1]] @ np.diag([zoom, zoom, 1]), *size)


MOVES = {
    "rotation": {"rotation": 25.0},
    "translation": {"translation": (0.1, -0.2)},
    "shear": {"shear": 20.0},
    "zoom": {"zoom": 1.4},
    "all": {"rotation": -50.0, "translation": (-0.05, 0.1), "shear": -12.0, "zoom": 0.8},
}


def seen(size, canvas=None, scale=1.0, position=(0.0, 0.0)):
    return place(tf.constant(size), tf.constant(canvas or size), tf.constant(scale), tf.constant(position))


@pytest.mark.parametrize("move", MOVES)
def test_matrix_and_corner_boxes_equal_the_originals_maths(move):
    matrix = matrix_of((20, 30), **MOVES[move])
    expected = reference_matrix((20, 30), **MOVES[move])
    np.testing.assert_allclose(matrix, expected, atol=1e-5)
    boxes = np.array([[1.0, 2, 6, 5], [0, 0, 30, 20]], np.float32)
    np.testing.assert_allclose(moved_boxes(boxes, matrix), transform_boxes(boxes, expected), atol=1e-4)


def test_nothing_drawn_moves_nothing():
    image = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    matrix = matrix_of((13, 17))
    np.testing.assert_array_equal(matrix, np.eye(3))
    np.testing.assert_array_equal(render_moved(image, seen((13, 17)), matrix, "zero"), image)
    # A crop of a scaled picture is that of the unmoved path; the two operations round differently.
    view = seen((13, 17), (16, 20), 1.7, (0.4, 0.9))
    assert view.cropped
    np.testing.assert_allclose(render_moved(image, view, matrix, "nearest"), render(image, view), atol=2e-2)
    masks = np.random.default_rng(1).integers(0, 2, (3, 8, 8), dtype=np.uint8)
    boxes = np.array([[0, 0, 8, 8], [2, 1, 10, 13], [1.5, 2.25, 9, 9]], np.float32)
    np.testing.assert_array_equal(resample_masks(masks, boxes, boxes, matrix, 8), masks)


def test_what_a_move_shrinks_is_averaged_like_what_a_view_shrinks():
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    # Shrunk by the view: the very operation of the unmoved path, then a move by nothing.
    view = seen((60, 80), (24, 32), 0.4)
    found = render_moved(image, view, matrix_of((60, 80)), "zero")
    np.testing.assert_allclose(found, render(image, view), atol=2e-2)
    # Shrunk by the zoom about the centre: (40, 30) stays, so what is seen begins at 24, 18 of the frame.
    zoomed = render_moved(image, seen((60, 80)), matrix_of((60, 80), zoom=0.4), "zero").numpy()
    np.testing.assert_allclose(zoomed[18:42, 24:56], found, atol=2e-2)
    assert not zoomed[:17].any() and not zoomed[:, :23].any()
    stripes = np.zeros((90, 90, 3), np.uint8)
    stripes[:, ::2] = 255
    turned = render_moved(stripes, seen((90, 90), (30, 30), 1 / 3), matrix_of((90, 90), rotation=20.0), "nearest")
    assert np.ptp(turned.numpy()[6:-6, 6:-6]) < 32  # what a triangle lets through; see test_geometry
    coarse = render_moved(
        stripes, seen((90, 90), (30, 30), 1 / 3), matrix_of((90, 90), rotation=20.0), "nearest", False
    )
    assert np.ptp(coarse.numpy()[6:-6, 6:-6]) > 100


def test_a_quarter_turn_is_rot90():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    matrix = matrix_of((24, 24), rotation=90.0)
    np.testing.assert_allclose(render_moved(image, seen((24, 24)), matrix, "zero"), np.rot90(image), atol=2e-3)
    np.testing.assert_allclose(moved_boxes(tf.constant([[1.0, 2, 7, 5]]), matrix), [[2, 17, 5, 23]], atol=1e-5)
    mask = rng.integers(0, 2, (1, 6, 6), dtype=np.uint8)
    mask[0, [0, -1], 0] = mask[0, 0, -1] = 1  # reaches all sides of its box
    boxes = tf.constant([[2.0, 4, 8, 10]])
    windows = enclosing_boxes(tf.constant(mask), boxes, matrix)
    np.testing.assert_allclose(windows, [[4, 16, 10, 22]], atol=1e-5)
    np.testing.assert_array_equal(resample_masks(mask, boxes, windows, matrix, 6)[0], np.rot90(mask[0]))


def test_boxes_enclose_the_moved_masks_by_hand():
    """In 8 x 8 a quarter turn moves (x, y) to (y, 8 - x): what counts is the mask and not its box."""
    masks = np.zeros((3, 2, 2), np.uint8)
    masks[0, 0, 0] = 1  # of the box 0,0,4,4 the part 0,0,2,2
    masks[1] = [[0, 1], [1, 0]]
    boxes = tf.constant([[0.0, 0, 4, 4], [0, 0, 4, 4], [1, 2, 5, 6]])  # the last has no mask
    turned = enclosing_boxes(tf.constant(masks), boxes, matrix_of((8, 8), rotation=90.0))
    np.testing.assert_allclose(turned, [[0, 6, 2, 8], [0, 4, 4, 8], [2, 3, 6, 7]], atol=1e-5)
    # An eighth turn about (4, 4) moves (x, y) to (4 + (dx + dy) / r, 4 + (dy - dx) / r), r the root of 2.
    tilted = enclosing_boxes(tf.constant(masks), boxes, matrix_of((8, 8), rotation=45.0))
    r = math.sqrt(2)
    np.testing.assert_allclose(tilted[0], [4 - 8 / r, 4 - 2 / r, 4 - 4 / r, 4 + 2 / r], atol=1e-5)
    # The two cells of the other diagonal: (2, 0), (4, 2), (0, 2), (2, 4) are their outermost corners.
    np.testing.assert_allclose(tilted[1], [4 - 6 / r, 4 - 4 / r, 4 - 2 / r, 4 + 4 / r], atol=1e-5)
    assert enclosing_boxes(tf.constant(masks[:0]), boxes[:0], matrix_of((8, 8))).shape == (0, 4)


@pytest.mark.parametrize("fill", ["nearest", "zero"])
def test_a_whole_shift_fills_as_asked(fill):
    image = np.random.default_rng(4).integers(1, 256, (10, 20, 3), dtype=np.uint8)
    moved = render_moved(image, seen((10, 20)), matrix_of((10, 20), translation=(0.1, -0.2)), fill)
    padded = np.pad(image, [(0, 2), (2, 0), (0, 0)], mode="edge" if fill == "nearest" else "constant")
    np.testing.assert_allclose(moved, padded[2:, :20], atol=2e-3)


@pytest.mark.parametrize("move", MOVES)
def test_pixels_equal_pillow(move):
    image = np.random.default_rng(5).integers(0, 256, (22, 30, 3), dtype=np.uint8)
    scale, canvas = 1.5, (33, 40)
    view = seen((22, 30), canvas, scale, (0.0, 0.5))
    found = render_moved(image, view, matrix_of((22, 30), **MOVES[move]), "zero").numpy()
    top, left = view.offset.numpy()
    onto = np.array([[scale, 0, -left], [0, scale, -top], [0, 0, 1]]) @ reference_matrix((22, 30), **MOVES[move])
    back = np.linalg.inv(onto)
    y, x = np.mgrid[:33, :40] + 0.5
    u, v, _ = back @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    inner = ((u > 1) & (u < 29) & (v > 1) & (v < 21)).reshape(33, 40)  # Pillow extrapolates at the border
    assert inner.sum() > 300
    for channel in range(3):
        plane = PIL.Image.fromarray(image[..., channel].astype(np.float32))
        expected = plane.transform(
            (40, 33), PIL.Image.Transform.AFFINE, back[:2].ravel(), PIL.Image.Resampling.BILINEAR
        )
        # Positions are float32 of numbers up to 40 here: off by 1e-5 pixels, times a slope of 255 a pixel.
        np.testing.assert_allclose(found[..., channel][inner], np.asarray(expected)[inner], atol=1e-2)
    outside = ((u < 0) | (u > 30) | (v < 0) | (v > 22)).reshape(33, 40)
    assert not found[outside].any()


@pytest.mark.parametrize("move", MOVES)
def test_boxes_and_masks_equal_a_slow_move_of_every_pixel(move):
    """A mask whose pixels are its cells: the outermost pixel corners, and each crop cell looked up alone."""
    mask = np.random.default_rng(6).random((1, 12, 12)) < 0.15
    boxes = tf.constant([[5.0, 4, 17, 16]])
    matrix, exact = matrix_of((20, 30), **MOVES[move]), reference_matrix((20, 30), **MOVES[move])
    found = enclosing_boxes(tf.constant(mask.astype(np.uint8)), boxes, matrix)
    corners = np.array([[x + 5 + i, y + 4 + j, 1] for y, x in np.argwhere(mask[0]) for i in (0, 1) for j in (0, 1)])
    u, v, _ = exact @ corners.T
    np.testing.assert_allclose(found, [[u.min(), v.min(), u.max(), v.max()]], atol=1e-4)
    crop = resample_masks(mask.astype(np.uint8), boxes, found, matrix, 25).numpy()[0]
    x1, y1, x2, y2 = found.numpy()[0].astype(np.float64)
    unsure = 0
    for i, j in np.ndindex(25, 25):
        x, y, _ = np.linalg.inv(exact) @ [x1 + (x2 - x1) * (j + 0.5) / 25, y1 + (y2 - y1) * (i + 0.5) / 25, 1]
        near_edge = min(abs(x - round(x)), abs(y - round(y))) < 1e-4
        column, row = math.floor(x) - 5, math.floor(y) - 4
        expected = 0 <= column < 12 and 0 <= row < 12 and mask[0, row, column]
        assert crop[i, j] == expected or near_edge
        unsure += near_edge
    assert unsure < 60


@pytest.fixture
def painted(write):
    """One picture of two objects, each of a colour of its own; the second has no mask."""
    labels = np.zeros((60, 80), np.uint8)
    labels[12:40, 14:44] = 1
    labels[12:26, 14:28] = 0
    labels[30:50, 50:70] = 2
    write("x.png", np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)[labels])
    write("m.png", labels)
    return scan_images(
        read_annotations(
            write("t.csv", "x.png,14,12,44,40,cat,m.png#1\nx.png,50,30,70,50,cat\n"),
            read_classes(write("c.csv", "cat,0\n")),
        )
    ).images


def test_boxes_and_masks_stay_on_their_object(painted, pipeline, samples):
    built = pipeline(image_size=(120, 120), mask_size=24, augmentation=AFFINE)
    checked = without_mask = 0
    for sample in samples(built.train_dataset(painted, 8), 8):
        height, width = sample.content_size
        for row in np.flatnonzero(sample.classes >= 0):
            x1, y1, x2, y2 = sample.boxes[row]
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
            if min(x1, y1, width - x2, height - y2) < 1:
                continue  # cut: an object beyond the frame may touch it anywhere
            shown = sample.image[..., 0 if sample.has_mask[row] else 1] > 127
            rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
            # Half brightness may lie a pixel inside a tilted corner of the scaled picture; a cell is 0.6 pixels.
            framed = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose([x1, y1, x2, y2], framed, atol=2.0)
            if not sample.has_mask[row]:
                assert not sample.masks[row].any()
                without_mask += 1
                continue
            centres = (np.arange(24) + 0.5) / 24
            inside = shown[np.ix_((y1 + (y2 - y1) * centres).astype(int), (x1 + (x2 - x1) * centres).astype(int))]
            assert np.mean(inside != sample.masks[row]) < 0.06
            checked += 1
    assert checked > 20 and without_mask > 20


def test_moved_samples_are_a_function_of_their_number(records, pipeline, samples, assert_same_batch):
    built = pipeline(max_instances=2, augmentation=AFFINE, num_parallel_calls=1)
    whole = samples(built.train_dataset(records, 3), 4)
    other = pipeline(max_instances=2, augmentation=AFFINE, num_parallel_calls=7, cache="files")
    for a, b in zip(whole[3:], samples(other.train_dataset(records, 3, start_step=1), 3), strict=True):
        assert_same_batch(a, b)


def test_objects_moved_out_of_the_frame_are_padding(painted, pipeline, samples):
    built = pipeline(image_size=(60, 80), augmentation=Augmentation(horizontal_flip=0.0, translation=1.0))
    found = samples(built.train_dataset(painted, 8), 4)
    counts = [int((sample.classes >= 0).sum()) for sample in found]
    assert {0, 1} <= set(counts) and all(sample.dropped == 0 for sample in found)
    for sample, count in zip(found, counts):
        assert not sample.boxes[count:].any() and not sample.masks[count:].any() and not sample.has_mask[count:].any()
