"""Pictures of detections: what is coloured, what is left alone."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from tpu_retinamask.data.windows import Window, window_of
from tpu_retinamask.evaluation.colours import PALETTE, class_colour
from tpu_retinamask.evaluation.pictures import draw_detections, save_picture


def rectangle(x1, y1, x2, y2, size):
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_mask_is_tinted_inside_outlined_at_its_rim_and_nothing_else_changes():
    image = np.full((600, 640, 3), 100, np.uint8)  # large enough to keep its size
    mask = rectangle(200, 100, 300, 160, (600, 640))
    box = [190, 90, 310, 170]
    drawn = draw_detections(image, [box], [window_of(mask)], [0], [0.9], ["cell"], labels=False)
    colour = np.array(PALETTE[0])
    core = rectangle(202, 102, 298, 158, (600, 640))  # outlines of a picture this size are 2 pixels wide
    tinted = (0.7 * 100 + 0.3 * colour).astype(np.uint8)
    np.testing.assert_allclose(np.unique(drawn[core], axis=0).astype(int), tinted[None].astype(int), atol=1)
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
    masks = [window_of(rectangle(*box, (600, 600))) for box in boxes]
    drawn = draw_detections(image, boxes, masks, [0] * 64, [0.9] * 64, ["cell"])
    centres = drawn[120:420:40, 120:420:40].astype(int)  # [8, 8, 3], the tint of each object
    assert (np.abs(np.diff(centres, axis=0)).max(-1) > 10).all()
    assert (np.abs(np.diff(centres, axis=1)).max(-1) > 10).all()


def test_small_pictures_are_drawn_larger():
    image = np.full((200, 260, 3), 50, np.uint8)
    mask = rectangle(10, 20, 50, 60, (200, 260))
    drawn = draw_detections(image, [[10, 20, 50, 60]], [window_of(mask)], [0], [0.9], ["cell"], labels=False)
    assert drawn.shape == (400, 520, 3)
    changed = np.argwhere((drawn != 50).any(-1))
    np.testing.assert_array_equal([changed.min(0), changed.max(0) + 1], [[40, 20], [120, 100]])
    for side, drawn_side in ((511, 1022), (512, 512), (64, 512), (63, 504), (20, 160)):
        assert draw_detections(image[:1, :1].repeat(side, 1), [], None, [], None, ["cell"]).shape[1] == drawn_side


def test_padding_and_low_scores_are_not_drawn():
    image = np.full((600, 600, 3), 80, np.uint8)
    masks = [window_of(np.ones((600, 600), bool))] * 2
    drawn = draw_detections(image, [[0, 0, 600, 600]] * 2, masks, [-1, 0], [0.9, 0.29], ["cell"], score_threshold=0.3)
    np.testing.assert_array_equal(drawn[:600], image)
    none = draw_detections(image, np.zeros((0, 4)), [], [], [], ["cell"])
    np.testing.assert_array_equal(none[:600], image)
    assert len(drawn) > 600 and drawn.shape == none.shape  # below is a line each
    assert (drawn[600:] != none[600:]).any()


def test_small_objects_lie_over_large_ones():
    image = np.zeros((600, 600, 3), np.uint8)
    boxes = [[280, 280, 320, 320], [100, 100, 500, 500]]
    masks = [window_of(rectangle(*box, (600, 600))) for box in boxes]
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
        np.testing.assert_array_equal(draw_detections(*arguments, [1], [0.9], {0: "cell", 1: "dust"}), dust)


def test_classes_have_their_colours_and_touching_objects_of_one_differ_in_shade():
    image = np.zeros((600, 600, 3), np.uint8)
    boxes = [[100, 100, 200, 200], [200, 100, 300, 200], [300, 100, 400, 200], [100, 400, 200, 500]]
    masks = [window_of(rectangle(*box, (600, 600))) for box in boxes]
    drawn = draw_detections(image, boxes, masks, [1, 1, 0, 1], [0.9] * 4, ["cell", "dust"], labels=False)
    first, second, other, far = (tuple(drawn[y, x + 50]) for x, y, _, _ in boxes)  # their outlines
    assert other == PALETTE[0] and first == far == PALETTE[1] and second not in (PALETTE[0], PALETTE[1])
    assert np.argmax(second) == np.argmax(first) == 1  # a green as well
    legend = drawn[600:].reshape(-1, 3)
    assert all((legend == colour).all(-1).sum() > 50 for colour in (PALETTE[0], PALETTE[1]))
    many = [class_colour(number) for number in range(80)]
    assert many[:12] == list(PALETTE) and len(set(many)) == 80


def test_truth_is_drawn_without_a_score_and_without_a_threshold():
    image = np.zeros((600, 600, 3), np.uint8)
    arguments = (image, [[100, 300, 400, 500]], None, [0])
    truth, found = (draw_detections(*arguments, scores, ["mug"], score_threshold=0.5) for scores in (None, [1.0]))
    widths = [(drawn == PALETTE[0]).all(-1).any(0).sum() for drawn in (truth, found)]
    assert 20 < widths[0] < widths[1] - 20  # of their plates: "mug", "mug 1.00"
    assert draw_detections(image, [], None, [], None, ["mug"]).shape == image.shape  # nothing to remark


def test_what_scored_less_is_told_where_nothing_is_drawn():
    image = np.zeros((600, 600, 3), np.uint8)

    def below(*scores, threshold=0.5):
        boxes = [[0, 0, 9, 9]] * len(scores)
        return draw_detections(image, boxes, None, [0] * len(scores), scores, ["mug"], score_threshold=threshold)[600:]

    assert below(0.5).size == 0  # it is drawn
    said = [below(), below(0.3), below(0.3, 0.2), below(0.4), below(0.3, threshold=0.6)]
    assert all((one > 200).all(-1).sum() > 100 for one in said)
    assert len({one.tobytes() for one in said}) == 5
    narrow = draw_detections(np.zeros((600, 60, 3), np.uint8), [], None, [], [], ["mug"])
    assert narrow.shape[1] == 320 and narrow.shape[0] > 600


@pytest.mark.parametrize("side", [200, 640, 4000])
def test_lines_and_text_follow_the_picture(side):
    image = np.zeros((side, side, 3), np.uint8)
    box = side * np.array([0.2, 0.3, 0.7, 0.8])
    drawn = draw_detections(image, [box], None, [0], [0.9], ["mug"])
    across = drawn.shape[0]
    plain = draw_detections(image, [box], None, [0], [0.9], ["mug"], labels=False)
    line = (plain[across // 2, : across // 2] > 0).any(-1).sum()
    assert line / across == pytest.approx(1 / 640, abs=0.6 / across)
    plate = (drawn == PALETTE[0]).all(-1).any(1).sum()
    assert plate / across == pytest.approx(1 / 45, rel=0.35)


def test_masks_and_boxes_at_and_beyond_the_edge():
    image = np.zeros((600, 600, 3), np.uint8)
    boxes = [[-20, -20, 30, 30], [590, 590, 700, 700], [5, 5, 5, 5], [300, 300, 300.4, 300.4]]
    corner = np.ones((30, 30), bool)
    masks = [Window(0, 0, corner), Window(590, 590, corner[:10, :10]), None, Window(0, 0, corner[:0])]
    drawn = draw_detections(image, boxes, masks, [0] * 4, [0.9] * 4, ["cell"])
    assert (drawn[0, 0] > 0).any() and (drawn[-1, -1] > 0).any()
    assert (drawn[297, 297:303] > 0).any(-1).all()  # a box that its line would hide has it around


def test_a_large_picture_is_drawn_on_in_place():
    image = np.zeros((3000, 4000, 3), np.uint8)
    boxes = [[400 * i, 300 * i, 400 * i + 500, 300 * i + 300] for i in range(9)]
    masks = [Window(x1, y1, np.ones((y2 - y1, x2 - x1), bool)) for x1, y1, x2, y2 in boxes]
    masks[8] = Window(3200, 2400, np.ones((300, 500), bool))
    tracemalloc.start()
    drawn = draw_detections(image, boxes, masks, [0] * 9, [0.9] * 9, ["cell", "dust"])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert drawn.shape[:2] > (3000, 3999) and most < 1.5 * image.nbytes  # one picture and windows


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="float32, expected .h, w, 3. of uint8"):
        draw_detections(np.zeros((8, 8, 3), np.float32), np.zeros((0, 4)), None, [], [], [])
    image, wide = np.zeros((8, 8, 3), np.uint8), Window(0, 0, np.ones((7, 9), bool))
    with pytest.raises(ValueError, match="a mask that leaves the image of 8 x 8"):
        draw_detections(image, [[0, 0, 1, 1]], [wide], [0], [1], ["a"])
    with pytest.raises(ValueError, match="1 boxes, 2 classes, 1 scores, 1 masks; expected as many of each"):
        draw_detections(image, [[0, 0, 1, 1]], None, [0, 0], [1], ["a"])


def test_saved_picture_reads_back(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    save_picture(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), image)
    flat = np.full((20, 30, 3), 90, np.uint8)
    save_picture(tmp_path / "b.JPG", flat)
    assert np.abs(np.asarray(Image.open(tmp_path / "b.JPG")).astype(int) - 90).max() <= 2
    with pytest.raises(ValueError, match="ends in '.gif', expected .png, .jpg or .jpeg"):
        save_picture(tmp_path / "c.gif", image)
