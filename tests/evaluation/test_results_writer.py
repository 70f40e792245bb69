"""Detections to COCO results: coordinates, padding, run lengths, the file."""

import json

import numpy as np
import pytest
from pycocotools import mask as rle_codec

from tpu_retinamask.coco.scores import evaluate_coco
from tpu_retinamask.data.images.window_runs import encode_rle
from tpu_retinamask.evaluation.results import (
    detections_to_results,
    paste_masks,
    result_entry,
    write_results,
)
from tpu_retinamask.files import WriteError
from tpu_retinamask.structures import Detections


def detections(boxes, scores, classes, masks):
    return Detections(
        boxes=np.asarray(boxes, np.float32),
        scores=np.asarray(scores, np.float32),
        classes=np.asarray(classes, np.int32),
        masks=None if masks is None else np.asarray(masks, np.float32),
        cut=np.zeros(len(boxes), np.int32),
    )


def test_rle_survives_a_round_trip_through_json():
    rng = np.random.default_rng(1)
    for mask in (rng.random((17, 23)) > 0.5, np.zeros((4, 9), bool), np.ones((9, 4), bool)):
        rle = json.loads(json.dumps(encode_rle(mask)))
        np.testing.assert_array_equal(rle_codec.decode(rle), mask)
        assert rle["size"] == list(mask.shape)


def test_rle_worked_by_hand():
    # Column-major run lengths of [[0, 1], [1, 1]]: one 0, then three 1s.
    rle = encode_rle(np.array([[0, 1], [1, 1]], bool))
    uncompressed = rle_codec.frPyObjects({"size": [2, 2], "counts": [1, 3]}, 2, 2)
    assert rle == {"size": [2, 2], "counts": uncompressed["counts"].decode()}


def test_rle_needs_two_axes():
    with pytest.raises(ValueError, match=r"\(1, 4, 4\)"):
        encode_rle(np.zeros((1, 4, 4), bool))


def test_entry_in_coco_form():
    entry = result_entry(np.int64(7), np.int32(3), np.float32([1.23456, 2, 11.5, 22.25]), np.float32(0.93))
    assert entry == {"image_id": 7, "category_id": 3, "bbox": [1.235, 2.0, 10.265, 20.25], "score": 0.93}
    assert type(entry["image_id"]) is int and type(entry["score"]) is float


def test_entry_keeps_scores_apart():
    high = np.float32(0.9)
    low = np.nextafter(high, np.float32(0))
    entries = [result_entry(1, 1, [0, 0, 1, 1], score)["score"] for score in (high, low)]
    assert entries[0] > entries[1]
    assert [np.float32(score) for score in entries] == [high, low]


def test_boxes_and_masks_return_to_original_pixels():
    # Scale 2: a canvas box of 4,8 .. 24,28 is 2,4 .. 12,14 in the file, whose size is 20 x 30.
    batch = detections([[[4, 8, 24, 28]]], [[0.5]], [[1]], np.ones((1, 1, 14, 14)))
    (entry,) = detections_to_results(batch, [5], [2.0], [[20, 30]], [100, 200])
    assert (entry["image_id"], entry["category_id"], entry["bbox"]) == (5, 200, [2.0, 4.0, 10.0, 10.0])
    expected = np.zeros((20, 30), bool)
    expected[4:14, 2:12] = True
    np.testing.assert_array_equal(rle_codec.decode(entry["segmentation"]), expected)


def test_mask_of_a_box_beyond_the_image_is_cut_not_squeezed():
    # The left half of the mask is the object; the box's right half hangs over the image's edge at x = 10.
    mask = np.zeros((1, 1, 28, 28))
    mask[..., :14] = 1
    batch = detections([[[0, 0, 20, 8]]], [[0.5]], [[0]], mask)
    (entry,) = detections_to_results(batch, [1], [1.0], [[8, 10]], [1])
    assert entry["bbox"] == [0.0, 0.0, 10.0, 8.0]
    decoded = rle_codec.decode(entry["segmentation"])
    np.testing.assert_array_equal(decoded, paste_masks(mask[0], [[0, 0, 20, 8]], 8, 10)[0])
    assert decoded.all()  # squeezed into the clipped box, only 5 of 10 columns would be set


def test_padding_rows_and_padding_images_are_skipped():
    boxes = np.full((3, 3, 4), -1.0)
    classes = np.full((3, 3), -1)
    scores = np.full((3, 3), -1.0)
    boxes[:, 0], classes[:, 0], scores[:, 0] = [0, 0, 4, 4], 0, 0.9
    boxes[2, 1], classes[2, 1], scores[2, 1] = [1, 1, 3, 3], 1, 0.8
    batch = detections(boxes, scores, classes, np.zeros((3, 3, 4, 4)))
    results = detections_to_results(batch, [40, -1, 42], [1, 1, 1], [[8, 8]] * 3, [1, 2])
    assert [(r["image_id"], r["category_id"], round(r["score"], 3)) for r in results] == [
        (40, 1, 0.9), (42, 1, 0.9), (42, 2, 0.8)]  # fmt: skip


@pytest.mark.parametrize("masks", [None, np.zeros((1, 1, 0, 0))])
def test_a_detector_without_masks_writes_boxes(masks):
    batch = detections([[[0, 0, 4, 4]]], [[0.5]], [[0]], masks)
    (entry,) = detections_to_results(batch, [1], [1.0], [[8, 8]], [1])
    assert "segmentation" not in entry and entry["bbox"] == [0, 0, 4, 4]


def test_detections_beyond_the_masks_are_boxes_and_say_so():
    boxes = [[[0, 0, 4, 4], [1, 1, 3, 3]]]
    batch = detections(boxes, [[0.9, 0.8]], [[0, 0]], np.ones((1, 1, 4, 4)))
    first, second = detections_to_results(batch, [1], [1.0], [[8, 8]], [1])
    assert rle_codec.decode(first["segmentation"]).sum() == 16
    assert second["segmentation"] is None and second["bbox"] == [1, 1, 2, 2]
    truth = {
        "images": [{"id": 1, "height": 8, "width": 8}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": entry["bbox"], "iscrowd": 0,
             "segmentation": first["segmentation"]} for n, entry in enumerate((first, second), 1)
        ],
    }  # fmt: skip
    metrics = evaluate_coco(truth, [first, second])
    # Both boxes are found; of the two masks one is, above all others: precision 1 up to half of the recall.
    assert metrics.overall["bbox"]["AP"] == pytest.approx(1.0)
    assert metrics.overall["segm"]["AP"] == pytest.approx(51 / 101)


def test_no_detections_at_all():
    padding = np.full((2, 5), -1)
    batch = detections(np.full((2, 5, 4), -1), padding, padding, np.zeros((2, 5, 4, 4)))
    assert detections_to_results(batch, [1, 2], [1, 1], [[8, 8]] * 2, [1]) == []


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classes": [[2]]}, r"image 9 has a detection of class 2 but category_ids has 2 entries"),
        ({"boxes": [[[0, 0, np.inf, 4]]]}, r"image 9, detection 0: box \[0.0, 0.0, inf, 4.0\]"),
        ({"scores": [[np.nan]]}, r"image 9, detection 0: .* score nan"),
        ({"scores": [[0.5, 0.4]]}, r"scores has shape \(1, 2\), expected \(1, 1\)"),
    ],
)
def test_impossible_detections_are_refused(change, message):
    fields = {"boxes": [[[0, 0, 4, 4]]], "scores": [[0.5]], "classes": [[0]], "masks": np.ones((1, 1, 4, 4))}
    with pytest.raises(ValueError, match=message):
        detections_to_results(detections(**{**fields, **change}), [9], [1.0], [[8, 8]], [1, 2])


def test_a_scale_of_zero_is_refused():
    batch = detections([[[0, 0, 4, 4]]], [[0.5]], [[0]], None)
    with pytest.raises(ValueError, match="image 9 has scale 0.0"):
        detections_to_results(batch, [9], [0.0], [[8, 8]], [1])


def test_file_is_complete_or_absent(tmp_path):
    path = tmp_path / "new" / "predictions.json"
    write_results(path, [result_entry(1, 2, [0, 0, 3, 4], 0.5, encode_rle(np.eye(4)))])
    before = json.loads(path.read_text())
    assert before[0]["bbox"] == [0, 0, 3, 4]
    np.testing.assert_array_equal(rle_codec.decode(before[0]["segmentation"]), np.eye(4))
    with pytest.raises(ValueError):
        write_results(path, [{"score": float("nan")}])  # JSON has no nan
    assert json.loads(path.read_text()) == before  # the old file stands
    write_results(path, [])
    assert json.loads(path.read_text()) == []
    (path.parent / "folder").mkdir()
    with pytest.raises(WriteError, match="folder could not be written: "):
        write_results(path.parent / "folder", [])
    # No temporary file is left, neither by success nor by failure.
    assert sorted(p.name for p in path.parent.iterdir()) == ["folder", "predictions.json"]
