"""Large pictures in tiles: which tiles, and the objects of the picture out of those of its tiles."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from pycocotools import mask as rle_codec

from tpu_retinamask.data.images.window_runs import encode_rle
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.errors import SettingError
from tpu_retinamask.structures import Detections
from tpu_retinamask.tasks.inference import detect_all
from tpu_retinamask.tasks.tiles import Cutting, Tile, detect_in_tiles, joined, tiles_of

MASK = 28


@pytest.mark.parametrize(
    "size, tile, overlap, count",
    [((400, 600), (400, 600), 100, 1), ((401, 600), (400, 600), 100, 2), ((4000, 6000), (400, 600), 100, 13 * 12),
     ((300, 1500), (400, 600), 100, 3), ((1000, 1000), (500, 500), 0, 4)],
)  # fmt: skip
def test_tiles_cover_the_picture_and_lie_over_each_other(size, tile, overlap, count):
    found = tiles_of(*size, tile, overlap)
    assert len(found) == count
    covered = np.zeros(size, np.uint8)
    for one in found:
        assert (one.height, one.width) == (min(tile[0], size[0]), min(tile[1], size[1]))
        assert 0 <= one.x <= size[1] - one.width and 0 <= one.y <= size[0] - one.height
        covered[one.y : one.y + one.height, one.x : one.x + one.width] = 1
    assert covered.all()
    for axis, side in ((0, "width"), (1, "height")):
        starts = sorted({one[axis] for one in found})
        steps = np.diff(starts)
        assert all(steps <= getattr(found[0], side) - overlap)
        # Every object no larger than the overlap lies whole in one tile.
        for start in range(0, size[1 - axis] - overlap, 7):
            assert any(s <= start and start + overlap <= s + getattr(found[0], side) for s in starts)


def test_settings_that_do_not_get_on_are_refused():
    assert Cutting.of(None, None).tiles(9000, 9000) == [Tile(0, 0, 9000, 9000)]
    assert Cutting.of(512, None) == ((512, 512), 128) and Cutting.of((400, 600), 50) == ((400, 600), 50)
    with pytest.raises(SettingError, match="predict.tile_overlap is 512, expected 0 or more and less"):
        Cutting.of(512, 512)
    with pytest.raises(SettingError, match="predict.tile_overlap is 64, expected None"):
        Cutting.of(None, 64)
    assert "tiles of 600 x 400 pixels, 50 or more" in str(Cutting.of((400, 600), 50))


def _result(box, score=0.9, category=0):
    return {"image_id": 0, "category_id": category, "bbox": list(map(float, box)), "score": score}


LEFT, RIGHT = Tile(0, 0, 100, 100), Tile(60, 0, 100, 100)  # of a picture of 160 x 100; 60 to 100 lie in both


@pytest.mark.parametrize(
    "left, right, expected",
    [
        ([[70, 10, 20, 20]], [[10, 10, 20, 20]], [[70, 10, 20, 20]]),  # seen whole in both
        ([[70, 10, 20, 20]], [[30, 10, 20, 20]], [[70, 10, 20, 20], [90, 10, 20, 20]]),  # two, a third over each other
        ([[90, 10, 10, 20]], [[30, 10, 25, 20]], [[90, 10, 25, 20]]),  # the left tile saw a part
        ([[80, 10, 20, 20]], [[20, 10, 20, 20]], [[80, 10, 20, 20]]),  # at the seam, yet whole in the other
        ([[10, 10, 80, 80]], [[5, 40, 10, 10]], [[10, 10, 80, 80], [65, 40, 10, 10]]),  # a small one within a large one
        ([[10, 10, 90, 80]], [[5, 40, 10, 10]], [[10, 10, 90, 80], [65, 40, 10, 10]]),  # and in one that a seam cuts
        ([[5, 5, 9, 9], [6, 5, 9, 9]], [], [[5, 5, 9, 9], [6, 5, 9, 9]]),  # of one tile: suppression has seen them
        ([], [], []),
    ],
)
def test_an_object_of_two_tiles_is_one_and_two_are_two(left, right, expected):
    found = [(LEFT, [_result(box) for box in left]), (RIGHT, [_result(box) for box in right])]
    assert sorted(r["bbox"] for r in joined(found, 100, 160, image_id=7)) == sorted(expected)
    assert all(r["image_id"] == 7 for r in joined(found, 100, 160, image_id=7))


def test_the_whole_wins_over_a_better_part_and_classes_do_not_meet():
    part, whole = _result([90, 10, 10, 20], 0.99), _result([30, 10, 25, 20], 0.5)
    (kept,) = joined([(LEFT, [part]), (RIGHT, [whole])], 100, 160, image_id=0)
    assert kept["score"] == 0.5
    other = _result([30, 10, 25, 20], 0.5, category=1)
    assert len(joined([(LEFT, [part]), (RIGHT, [other])], 100, 160, image_id=0)) == 2
    # Two alike: the better.
    both = [(LEFT, [_result([70, 10, 20, 20], 0.3)]), (RIGHT, [_result([10, 10, 20, 20], 0.6)])]
    assert [r["score"] for r in joined(both, 100, 160, image_id=0)] == [0.6]


@pytest.mark.parametrize("kind", ["scattered", "full", "empty", "full height"])
def test_a_mask_is_moved_to_the_bit(kind):
    random = np.random.default_rng(3)
    tile = Tile(13, 0 if kind == "full height" else 5, 40, 30)
    height, width = (30 if kind == "full height" else 50), 70
    mask = np.zeros((30, 40), bool)
    if kind == "scattered":
        mask[:] = random.random((30, 40)) < 0.5
    elif kind != "empty":
        mask[:] = True
    result = _result([0, 0, 40, 30]) | {"segmentation": encode_rle(mask)}
    (moved,) = joined([(tile, [result])], height, width, image_id=0)
    expected = np.zeros((height, width), bool)
    expected[tile.y : tile.y + 30, tile.x : tile.x + 40] = mask
    assert moved["segmentation"] == encode_rle(expected)
    np.testing.assert_array_equal(rle_codec.decode(moved["segmentation"]), expected)


def _objects_found(batch):
    """A detector that finds boxes of one colour, red the class 0 and green the class 1, to the pixel."""
    found = []
    for image in batch.image.numpy():
        rows = []
        for class_id in (0, 1):
            labels = _labelled(image[..., class_id] > 128)
            for number in range(1, labels.max() + 1):
                ys, xs = np.nonzero(labels == number)
                box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                rows.append((box, 0.5 + len(ys) / 1e4, class_id))
        found.append(rows)
    count = max(1, *map(len, found))
    boxes, scores = np.full((len(found), count, 4), -1.0, np.float32), np.full((len(found), count), -1.0, np.float32)
    classes = np.full((len(found), count), -1, np.int32)
    for row, (index, one) in itertools.product(range(1), enumerate(found)):
        for row, (box, score, class_id) in enumerate(one):
            boxes[index, row], scores[index, row], classes[index, row] = box, score, class_id
    masks = np.ones((len(found), count, MASK, MASK), np.float32)
    return Detections(*map(tf.constant, (boxes, scores, classes, masks, np.zeros(len(found), np.int32))))


def _labelled(mask):
    """Number the rectangles of a mask, which do not touch each other."""
    corner = mask & ~np.pad(mask, [(1, 0), (0, 0)])[:-1] & ~np.pad(mask, [(0, 0), (1, 0)])[:, :-1]
    labels = np.zeros(mask.shape, int)
    for number, (y, x) in enumerate(np.argwhere(corner), start=1):
        rows = np.argmin(np.append(mask[y:, x], False))
        columns = np.argmin(np.append(mask[y, x:], False))
        labels[y : y + rows, x : x + columns] = number
    return labels


def test_a_picture_of_6000_x_4000_gives_the_objects_of_a_small_one():
    random = np.random.default_rng(0)
    small = np.full((400, 600, 3), 20, np.uint8)
    truths = []
    for y, x in itertools.product(range(10, 360, 45), range(10, 560, 45)):
        h, w, class_id = *random.integers(8, 30, 2), random.integers(0, 2)
        small[y : y + h, x : x + w, class_id] = 250
        truths.append((class_id, [x, y, w, h]))
    pipeline = InputPipeline(image_size=(400, 600), augmentation=None, max_instances=2, mask_size=8)

    def of_small():
        (tile,) = tiles_of(400, 600, (400, 600), 100)
        return detect_in_tiles(_objects_found, pipeline, small, [tile], image_id=0, batch_size=1, category_ids=[0, 1])

    alone = sorted((r["category_id"], r["bbox"]) for r in of_small())
    assert alone == sorted(truths)
    large = np.full((4000, 6000, 3), 20, np.uint8)
    corners = [(0, 0), (3600, 5400), (1803, 2711), (777, 4123)]  # where seams lie and where they do not
    for y, x in corners:
        large[y : y + 400, x : x + 600] = small
    tiles = tiles_of(4000, 6000, (400, 600), 100)
    found = detect_in_tiles(_objects_found, pipeline, large, tiles, image_id=3, batch_size=8, category_ids=[0, 1])
    expected = sorted((c, [x + left, y + top, w, h]) for c, (x, y, w, h) in truths for top, left in corners)
    assert len(found) == len(expected) == 4 * len(truths)
    for (category, box), one in zip(expected, sorted(found, key=lambda r: (r["category_id"], r["bbox"]))):
        assert one["category_id"] == category and np.abs(np.subtract(one["bbox"], box)).max() <= 1
        drawn = rle_codec.toBbox(one["segmentation"])
        assert np.abs(drawn - box).max() <= 1 and one["segmentation"]["size"] == [4000, 6000]
    assert [r["score"] for r in found] == sorted((r["score"] for r in found), reverse=True)


def test_a_picture_looked_at_in_one_tile_is_the_picture_looked_at_whole(tmp_path):
    pixels = np.full((90, 120, 3), 20, np.uint8)
    pixels[10:30, 40:80, 0] = 250
    pipeline = InputPipeline(image_size=(64, 64), augmentation=None, max_instances=2, mask_size=8)
    import PIL.Image

    from tpu_retinamask.data.annotated_image import ListedImage
    from tpu_retinamask.data.annotations.scan import scan_images

    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    listed = [ListedImage(image=str(tmp_path / "a.png"), name="a.png", line=1, instances=())]
    ((_, whole),) = detect_all(_objects_found, pipeline.eval_dataset(scan_images(listed).images, 2), [0, 1])
    tiled = detect_in_tiles(
        _objects_found, pipeline, pixels, [Tile(0, 0, 120, 90)], image_id=0, batch_size=3, category_ids=[0, 1]
    )
    assert sorted(whole, key=lambda result: -result["score"]) == tiled and tiled
