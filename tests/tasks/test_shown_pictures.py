"""What TensorBoard shows of an evaluation: the same few pictures, truth beside detections, and spreads by hand."""

import types

import numpy as np
import PIL.Image
import pytest

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.tasks.shown_pictures import MOST_SHOWN, ShownPictures, spreads

SIDE = 64


@pytest.fixture
def images(tmp_path):
    for number in range(9):
        PIL.Image.fromarray(np.full((SIDE, SIDE, 3), 10 * number, np.uint8)).save(tmp_path / f"{number}.png")
    return [AnnotatedImage(str(tmp_path / f"{i}.png"), f"{i}.png", 100 + i, SIDE, SIDE, 1, ()) for i in range(9)]


def entry(image_id, x, **more):
    return {"image_id": image_id, "category_id": 0, "bbox": [x, 8.0, 16.0, 16.0], **more}


def differs(part, gray):
    return bool(np.any(part != gray))


def test_the_same_few_pictures_truth_beside_what_was_found(images):
    shown = ShownPictures(images, ["cat"])
    scoring = types.SimpleNamespace(truth=types.SimpleNamespace(annotations=[entry(102, 8.0)]))
    results = [entry(100, 8.0, score=0.6), entry(105, 8.0, score=0.4), entry(108, 8.0, score=0.9)]
    found = shown.pictures(scoring, results, 0.5)
    assert list(found) == [f"val/picture_{number}" for number in range(MOST_SHOWN)]  # 0, 2, 5 and 8
    scale = 8  # small pictures are drawn larger
    for (name, picture), (gray, truth, seen) in zip(
        found.items(), [(0, False, True), (20, True, False), (50, False, False), (80, False, True)]
    ):
        left, right = picture[: SIDE * scale, : SIDE * scale], picture[: SIDE * scale, -SIDE * scale :]
        assert (differs(left, gray), differs(right, gray)) == (truth, seen), name


def test_a_picture_that_is_gone_is_left_out_and_one_that_nothing_is_known_of_drawn_from_a_half(images, tmp_path):
    (tmp_path / "0.png").unlink()
    scoring = types.SimpleNamespace(truth=types.SimpleNamespace(annotations=[]))
    results = [entry(108, 8.0, score=0.45)]
    found = ShownPictures(images, ["cat"]).pictures(scoring, results, None)
    assert list(found) == ["val/picture_1", "val/picture_2", "val/picture_3"]
    assert not differs(found["val/picture_3"][:SIDE, -SIDE:], 80)
    assert ShownPictures([], []).pictures(scoring, [], None) == {}


def test_spreads_by_hand():
    found = spreads([entry(1, 0.0, score=0.25), {"score": 0.5, "bbox": [0, 0, 4.0, 9.0]}])
    assert found["val/scores"].tolist() == [0.25, 0.5] and found["val/box_sides"].tolist() == [16.0, 6.0]
    assert [len(values) for values in spreads([]).values()] == [0, 0]
