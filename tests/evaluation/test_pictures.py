"""Pictures of detections: what is coloured, what is left alone."""

import numpy as np
import pytest
from PIL import Image

from tpu_retinamask.evaluation.pictures import PALETTE, draw_detections, save_picture


def rectangle(x1, y1, x2, y2, size):
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_mask_is_tinted_inside_outlined_at_its_rim_and_nothing_else_changes():
    image = np.full((600, 640, 3), 100, np.uint8)  # large enough to keep its size
    mask = rectangle(200, 100, 300, 160, (600, 640))
    box = [190, 90, 310, 170]
    drawn = draw_detections(image, [box], mask[None], [0], [0.9], ["cell"], labels=False)
    colour = np.array(PALETTE[0])
    core = rectangle(202, 102, 298, 158, (600, 640))  # outlines of a picture this size are 2 pixels wide
    tinted = (0.7 * 100 + 0.3 * colour).astype(np.uint8)
    np.testing.assert_array_equal(np.unique(drawn[core], axis=0), tinted[None])
    np.testing.assert_array_equal(np.unique(drawn[mask & ~core], axis=0), colour[None])
    frame = rectangle(190, 90, 310, 170, (600, 640)) & ~rectangle(191, 91, 309, 169, (600, 640))
    edge = (0.45 * 100 + 0.55 * colour).astype(np.uint8)
    np.testing.assert_array_equal(np.unique(drawn[frame], axis=0), edge[None])
    assert (drawn[~mask & ~frame] == 100).all()
    assert (image == 100).all()


def test_touching_objects_of_one_class_differ_in_colour():
    image = np.zeros((600, 600, 3), np.uint8)
    corners = [(x, y) for y in range(100, 420, 40) for x in range(100, 420, 40)]
    boxes = [[x, y, x + 40, y + 40] for x, y in corners]
    masks = np.stack([rectangle(*box, (600, 600)) for box in boxes])
    drawn = draw_detections(image, boxes, masks, [0] * 64, [0.9] * 64, ["cell"])
    centres = drawn[120:420:40, 120:420:40].astype(int)  # [8, 8, 3], the tint of each object
    assert (np.abs(np.diff(centres, axis=0)).max(-1) > 10).all()
    assert (np.abs(np.diff(centres, axis=1)).max(-1) > 10).all()


def test_small_pictures_are_drawn_at_twice_the_size():
    image = np.full((100, 120, 3), 50, np.uint8)
    mask = rectangle(10, 20, 50, 60, (100, 120))
    drawn = draw_detections(image, [[10, 20, 50, 60]], mask[None], [0], [0.9], ["cell"], labels=False)
    assert drawn.shape == (200, 240, 3)
    changed = np.argwhere((drawn != 50).any(-1))
    np.testing.assert_array_equal([changed.min(0), changed.max(0) + 1], [[40, 20], [120, 100]])


def test_padding_and_low_scores_are_not_drawn():
    image = np.full((600, 600, 3), 80, np.uint8)
    masks = np.ones((2, 600, 600), bool)
    drawn = draw_detections(image, [[0, 0, 600, 600]] * 2, masks, [-1, 0], [0.9, 0.29], ["cell"], score_threshold=0.3)
    np.testing.assert_array_equal(drawn, image)
    none = draw_detections(image, np.zeros((0, 4)), np.zeros((0, 600, 600), bool), [], [], ["cell"])
    np.testing.assert_array_equal(none, image)


def test_small_objects_lie_over_large_ones():
    image = np.zeros((600, 600, 3), np.uint8)
    boxes = [[280, 280, 320, 320], [100, 100, 500, 500]]
    masks = np.stack([rectangle(*box, (600, 600)) for box in boxes])
    drawn = draw_detections(image, boxes, masks, [0, 0], [0.9, 0.8], ["cell"], labels=False)
    colours = {tuple(drawn[280, 300]), tuple(drawn[100, 300])}  # both outlines are whole
    assert colours == {PALETTE[0], PALETTE[1]}


@pytest.mark.parametrize("count, labelled", [(20, True), (21, False)])
def test_many_objects_carry_no_text_unless_asked(count, labelled):
    image = np.zeros((600, 600, 3), np.uint8)
    boxes = [[20 * i, 300, 20 * i + 15, 315] for i in range(count)]
    arguments = (image, boxes, None, [0] * count, [0.9] * count, ["cell"])
    automatic = draw_detections(*arguments)
    np.testing.assert_array_equal(automatic, draw_detections(*arguments, labels=labelled))
    assert (automatic != draw_detections(*arguments, labels=not labelled)).any()


def test_labels_name_the_class_and_stay_inside_the_picture():
    image = np.zeros((600, 600, 3), np.uint8)
    corner_boxes = [[0, 0, 9, 9], [591, 0, 600, 9], [0, 591, 9, 600], [591, 591, 600, 600]]
    for box in corner_boxes:
        arguments = (image, [box], None)
        plain = draw_detections(*arguments, [0], [0.9], ["cell"], labels=False)
        cell, dust = (draw_detections(*arguments, [c], [0.9], ["cell", "dust"]) for c in (0, 1))
        plate = (cell == PALETTE[0]).all(-1)
        assert 500 < plate.sum() < 5000  # whole plate, minus its text
        assert (plain == PALETTE[0]).all(-1).sum() == 0
        assert (cell != dust).any()
        np.testing.assert_array_equal(draw_detections(*arguments, [1], [0.9], {1: "dust"}), dust)


def test_masks_and_boxes_at_and_beyond_the_edge():
    image = np.zeros((600, 600, 3), np.uint8)
    boxes = [[-20, -20, 30, 30], [590, 590, 700, 700], [5, 5, 5, 5], [300, 300, 300.4, 300.4]]
    masks = np.zeros((4, 600, 600), bool)
    masks[0, :30, :30] = masks[1, 590:, 590:] = True
    drawn = draw_detections(image, boxes, masks, [0] * 4, [0.9] * 4, ["cell"])
    assert (drawn[0, 0] > 0).any() and (drawn[-1, -1] > 0).any() and (drawn[300, 300] > 0).any()


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="float32, expected .h, w, 3. of uint8"):
        draw_detections(np.zeros((8, 8, 3), np.float32), np.zeros((0, 4)), None, [], [], [])
    with pytest.raises(ValueError, match=r"masks \(1, 7, 8\) for an image \(8, 8\)"):
        draw_detections(np.zeros((8, 8, 3), np.uint8), [[0, 0, 1, 1]], np.ones((1, 7, 8)), [0], [1], ["a"])


def test_saved_picture_reads_back(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    save_picture(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), image)
    flat = np.full((20, 30, 3), 90, np.uint8)
    save_picture(tmp_path / "b.JPG", flat)
    assert np.abs(np.asarray(Image.open(tmp_path / "b.JPG")).astype(int) - 90).max() <= 2
    with pytest.raises(ValueError, match="ends in '.gif', expected .png, .jpg or .jpeg"):
        save_picture(tmp_path / "c.gif", image)
