"""Ground truth and results as they should not be, or rarely are."""

import json
import logging

import numpy as np
import pytest

from tpu_retinamask.coco.names import with_names
from tpu_retinamask.coco.scores import evaluate_coco


def both(metrics, name):
    return [metrics.overall["bbox"][name], metrics.overall["segm"][name]]


def without(entry, key):
    return {k: v for k, v in entry.items() if k != key}


def test_no_results(make_truth, square):
    metrics = evaluate_coco(make_truth([square(0, 0, 10)]), [])
    assert both(metrics, "AP") == both(metrics, "AP50") == both(metrics, "ARmax") == [0, 0]
    assert metrics.detections == 0 and metrics.ground_truths == 1


@pytest.mark.parametrize("with_results", [False, True])
def test_no_ground_truth_is_said_not_a_crash(make_truth, square, caplog, with_results):
    results = [square(0, 0, 10, score=0.9)] if with_results else []
    with caplog.at_level(logging.WARNING):
        metrics = evaluate_coco(make_truth([]), results)
    assert np.isnan(both(metrics, "AP") + both(metrics, "ARmax")).all()
    assert "hold no ground truth: AP and AR are undefined" in caplog.text


def test_a_dataset_without_the_annotations_key(make_truth):
    assert np.isnan(both(evaluate_coco(without(make_truth([]), "annotations"), []), "AP")).all()


def test_detections_on_an_image_without_annotations_are_false(make_truth, square):
    truth = make_truth([square(0, 0, 10)], images={1: (100, 100), 2: (100, 100)})
    results = [square(0, 0, 10, score=0.5), square(0, 0, 10, image=2, score=0.9)]
    assert both(evaluate_coco(truth, results), "AP") == pytest.approx([0.5, 0.5])
    assert both(evaluate_coco(truth, results[:1]), "AP") == pytest.approx([1, 1])


def test_unknown_ids_are_named(make_truth, square):
    truth = make_truth([square(0, 0, 10)])
    with pytest.raises(ValueError, match=r"image_ids that the ground truth[^$]*image_id 77 \(2 entries"):
        evaluate_coco(truth, [square(0, 0, 9, image=77, score=0.5)] * 2)
    with pytest.raises(ValueError, match=r"category_ids that the ground[^$]*category_id 1 \(1 entries"):
        evaluate_coco(truth, [square(0, 0, 9, category=1, score=0.5)])
    with pytest.raises(ValueError) as error:
        evaluate_coco(truth, [square(0, 0, 9, image=100 + i, score=0.5) for i in range(30)])
    assert "image_id 119 " in str(error.value) and "image_id 120 " not in str(error.value)
    assert "and 10 more" in str(error.value)


def test_results_without_segmentation_are_named(make_truth, square):
    results = [square(0, 0, 10, score=0.9), without(square(5, 5, 9, score=0.8), "segmentation")]
    with pytest.raises(ValueError, match=r"results\[1\] \(image 1\): no segmentation, but masks are scored"):
        evaluate_coco(make_truth([square(0, 0, 10)]), results)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"score": float("nan")}, r"results\[0\]: score: got nan, expected a finite number"),
        ({"score": "high"}, r"results\[0\]: score: got 'high', expected a finite number"),
        ({"score": None}, r"results\[0\]: score: got null, expected a finite number"),
        ({"bbox": [1, 2, 3]}, r"results\[0\]: bbox: got \[1, 2, 3\], expected x, y, width, height"),
        ({"bbox": {"x": 1}}, r"results\[0\]: bbox: got .*, expected x, y, width, height"),
        ({"image_id": [1]}, r"results\[0\]: image_id: got a list of 1, expected a whole number or a text"),
        ({"image_id": True}, r"results\[0\]: image_id: got True, expected a whole number or a text"),
        ({"category_id": {}}, r"results\[0\]: category_id: got an object that is empty, expected a whole number"),
        ({"segmentation": {"size": [50, 60], "counts": "0"}}, r"size \[50, 60\], the image \[100, 100\]"),
        ({"segmentation": {"size": [100, 100]}}, r"segmentation: got an object with \['size'\], expected polygons"),
        ({"segmentation": {"size": [100, 100], "counts": [9, 9]}}, "sum to 18 pixels, expected 100 x 100 = 10000"),
        ({"segmentation": {"size": [100, 100], "counts": [100, -5, 9905]}}, "hold -5"),
        ({"segmentation": {"size": [100, 100], "counts": ""}}, "run lengths are an empty text"),
        ({"segmentation": {"size": [100, 100], "counts": "Grüße"}}, "are not COCO's compressed text"),
        ({"segmentation": {"size": [100, 100], "counts": "b'PX'"}}, "write counts.decode"),
        (
            {"segmentation": {"size": [100, 100], "counts": [[1], [2, 3]]}},
            r"got run lengths .*, expected whole numbers",
        ),
        (
            {"segmentation": {"size": [100, 100], "counts": [10**30]}},
            r"got run lengths \[1000.*, expected whole numbers",
        ),
        ({"segmentation": {"size": ["a", None], "counts": "0"}}, "of run lengths, expected .height, width."),
    ],
)
def test_impossible_results_are_named(make_truth, square, change, message):
    with pytest.raises(ValueError, match=message):
        evaluate_coco(make_truth([square(0, 0, 10)]), [{**square(0, 0, 10, score=0.5), **change}])


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"image_id": 5},
            r"annotations\[0\]: image_id: got 5, which is not among the images, expected one of the 1 ids",
        ),
        ({"category_id": 5}, r"annotations\[0\]: category_id: got 5, which is not among the categories"),
        (
            {"bbox": None, "segmentation": []},
            r"annotations\[0\]: bbox: got null, expected x, y, width, height, or a seg",
        ),
        ({"segmentation": {"size": [9, 9], "counts": "0"}}, r"annotations\[0\]: segmentation: .*size \[9, 9\]"),
        ({"segmentation": {"size": [100, 100], "counts": [10001]}}, "sum to 10001 pixels, expected 100 x 100 = 10000"),
        ({"iscrowd": "yes"}, r"annotations\[0\]: iscrowd: got 'yes', expected a whole number"),
        ({"area": "big"}, r"annotations\[0\]: area: got 'big', expected a finite number"),
    ],
)
def test_impossible_ground_truth_is_named(make_truth, square, change, message):
    with pytest.raises(ValueError, match=message):
        evaluate_coco(make_truth([{**square(0, 0, 10), **change}]), [])


def test_missing_bbox_and_repeated_image_id_are_named(make_truth, square):
    with pytest.raises(ValueError, match=r"annotations\[0\]: bbox: got nothing"):
        evaluate_coco(make_truth([without(without(square(0, 0, 10), "bbox"), "segmentation")]), [])
    truth = make_truth([])
    truth["images"] *= 2
    with pytest.raises(ValueError, match=r"images\[1\]: id: got 1, expected another than that of images\[0\]"):
        evaluate_coco(truth, [])


@pytest.mark.parametrize("change", [{"has_mask": 0}, {"segmentation": []}, {"segmentation": None}, {}])
def test_ground_truth_without_mask_is_ignored_in_mask_ap(make_truth, square, change, caplog):
    # The object without mask is found with a higher score: held against it, mask AP would be 0.5.
    maskless = {**square(40, 40, 20), **change}
    if not change:
        del maskless["segmentation"]
    truth = make_truth([square(0, 0, 10), maskless])
    results = [square(0, 0, 10, score=0.5), square(41, 41, 17, score=0.9)]
    with caplog.at_level(logging.WARNING):
        metrics = evaluate_coco(truth, results)
    assert [metrics.overall["segm"][name] for name in ("AP", "ARmax")] == pytest.approx([1, 1])
    assert metrics.overall["bbox"]["AP50"] == pytest.approx(1)
    assert metrics.overall["bbox"]["AP75"] < 0.9  # boxes count as ever
    assert metrics.without_mask == 1 and metrics.ground_truths == 2
    assert "1 of 2 ground truths have no mask" in caplog.text
    # Missing the box is no fault in mask AP, and one in box AP.
    missed = evaluate_coco(truth, results[:1])
    assert missed.overall["segm"]["AP"] == pytest.approx(1)
    assert missed.overall["bbox"]["ARmax"] == pytest.approx(0.5)


def test_crowd_regions_are_kept_as_coco_does(make_truth, square):
    column_major = [0, 100 * 40, 100 * 60]  # the left 40 columns
    crowd = {
        "image_id": 1, "category_id": 10, "bbox": [0, 0, 40, 100], "area": 4000, "iscrowd": 1,
        "segmentation": {"size": [100, 100], "counts": column_major},
    }  # fmt: skip
    truth = make_truth([square(60, 60, 20), crowd])
    results = [square(60, 60, 20, score=0.5), square(5, 5, 9, score=0.9), square(20, 50, 9, score=0.8)]
    metrics = evaluate_coco(truth, results)
    assert both(metrics, "AP") == pytest.approx([1, 1])
    assert (metrics.ground_truths, metrics.crowds) == (1, 1)
    outside = evaluate_coco(truth, results + [square(45, 0, 9, score=0.95)])
    assert both(outside, "AP") == pytest.approx([0.5, 0.5])


def test_polygons_are_as_good_as_run_lengths(make_truth, square):
    x, y, side = 10, 20, 30
    polygon = {**square(x, y, side), "segmentation": [[x, y, x + side, y, x + side, y + side, x, y + side]]}
    for truth, result in ((polygon, square(x, y, side)), (square(x, y, side), polygon)):
        metrics = evaluate_coco(make_truth([truth]), [{**result, "score": 1}])
        assert both(metrics, "AP") == pytest.approx([1, 1])
    # A polygon of two points is no mask; pycocotools would read it as a box.
    line = {**square(x, y, side), "segmentation": [[x, y, side, side]]}
    assert evaluate_coco(make_truth([line]), []).without_mask == 1


@pytest.mark.parametrize("ids", [(0, 1), (5, 5), (None, None)])
def test_annotation_ids_do_not_matter(make_truth, square, ids):
    # pycocotools reads id 0 as "not found" and keeps one of two annotations with the same id.
    truths = [square(0, 0, 10), square(30, 30, 10)]
    for truth, annotation_id in zip(truths, ids):
        if annotation_id is not None:
            truth["id"] = annotation_id
    results = [square(0, 0, 10, score=0.9), square(30, 30, 10, score=0.8)]
    assert both(evaluate_coco(make_truth(truths), results), "AP") == pytest.approx([1, 1])


def test_area_is_worked_out_where_missing(make_truth, square):
    truth = make_truth([without(square(0, 0, 40), "area")])
    metrics = evaluate_coco(truth, [square(0, 0, 40, score=1)])
    assert both(metrics, "APmedium") == pytest.approx([1, 1])
    assert np.isnan(both(metrics, "APsmall")).all()


def test_zero_size_boxes_and_empty_masks(make_truth, square):
    results = [{**square(0, 0, 0, score=0.9), "bbox": [5, 5, 0, 0]}, square(0, 0, 10, score=0.5)]
    assert both(evaluate_coco(make_truth([square(0, 0, 10)]), results), "AP") == pytest.approx([0.5, 0.5])
    truth = make_truth([square(0, 0, 10), square(0, 0, 0)])
    metrics = evaluate_coco(truth, results[1:])
    assert both(metrics, "AP") == pytest.approx([51 / 101, 51 / 101])


def test_images_without_size_can_still_be_scored_by_box(make_truth, square):
    truth = make_truth([square(0, 0, 10)])
    truth["images"] = [{"id": 1}]
    metrics = evaluate_coco(truth, [square(0, 0, 10, score=1)], iou_types="bbox")
    assert metrics.overall["bbox"]["AP"] == pytest.approx(1)
    with pytest.raises(ValueError, match="image 1 has no height and width, which masks need"):
        evaluate_coco(truth, [])


def test_files_that_are_not_what_they_should_be(make_truth, tmp_path):
    truth = make_truth([])
    with pytest.raises(FileNotFoundError, match="ground truth .*absent.json: no such file"):
        evaluate_coco(tmp_path / "absent.json", [])
    (tmp_path / "half.json").write_text('[{"image_id": 1,')
    with pytest.raises(ValueError, match="results .*half.json: not JSON: .*line 1"):
        evaluate_coco(truth, tmp_path / "half.json")
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with pytest.raises(ValueError, match="results .*truth.json: got an object of 3, .*looks like a dataset"):
        evaluate_coco(truth, tmp_path / "truth.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="ground truth .*list.json: got a list that is empty; expected a COCO dataset"):
        evaluate_coco(tmp_path / "list.json", [])


def test_arguments_are_checked(make_truth):
    with pytest.raises(ValueError, match="iou_types=.*expected 'bbox', 'segm' or both"):
        evaluate_coco(make_truth([]), [], iou_types=("mask",))
    with pytest.raises(ValueError, match="max_detections=5, expected at least 10"):
        evaluate_coco(make_truth([]), [], max_detections=5)


# ---- what is unambiguous is read


@pytest.mark.parametrize(
    "change",
    [
        {"image_id": "1"},
        {"image_id": 1.0},
        {"image_id": " 1 "},
        {"category_id": "10"},
        {"category_id": np.int64(10)},
        {"bbox": ["0", "0", "10", "10"]},
        {"bbox": np.array([0, 0, 10, 10], np.float32)},
        {"bbox": None},
        {"bbox": []},
        {"segmentation": [0, 0, 10, 0, 10, 10, 0, 10]},
        {"segmentation": [[[0, 0], [10, 0], [10, 10], [0, 10]]]},
        {"segmentation": [[0, 0], [10, 0], [10, 10], [0, 10]]},
        {"score": "0.9"},
    ],
    ids=str,
)
def test_results_are_read_where_they_can_mean_one_thing(make_truth, square, change):
    metrics = evaluate_coco(make_truth([square(0, 0, 10)]), [{**square(0, 0, 10, score=0.9), **change}])
    assert both(metrics, "AP") == pytest.approx([1, 1])


@pytest.mark.parametrize(
    "change",
    [
        {"image_id": "1"},
        {"category_id": 10.0},
        {"iscrowd": None},
        {"iscrowd": "0"},
        {"iscrowd": False},
        {"area": "100"},
        {"area": None},
        {"bbox": []},
        {"segmentation": [[0, 0], [10, 0], [10, 10], [0, 10]]},
        {"id": "a text"},
    ],
    ids=str,
)
def test_ground_truth_is_read_where_it_can_mean_one_thing(make_truth, square, change):
    metrics = evaluate_coco(make_truth([{**square(0, 0, 10), **change}]), [square(0, 0, 10, score=0.9)])
    assert both(metrics, "AP") == pytest.approx([1, 1])


def test_image_ids_that_are_names_of_files_stand_for_these(make_truth, square):
    truth = make_truth([square(0, 0, 10), square(0, 0, 10, image=2)], images={1: (100, 100), 2: (100, 100)})
    for entry, name in zip(truth["images"], ("fire1-80.jpg", "x/fire1-81.jpg")):
        entry["file_name"] = name
    results = [square(0, 0, 10, image=name, score=0.9) for name in ("fire1-80", "fire1-81.jpg")]
    assert both(evaluate_coco(truth, results), "AP") == pytest.approx([1, 1])
    truth["images"][1]["file_name"] = "x/fire1-80.jpg"  # now the name may be either
    with pytest.raises(ValueError, match="image_id 'fire1-80'"):
        evaluate_coco(truth, results[:1])


def test_names_that_results_say_win_over_their_ids(make_truth, square):
    truth = make_truth([square(0, 0, 10, image=7)], images={5: (100, 100), 7: (100, 100)})
    truth["images"][0]["file_name"], truth["images"][1]["file_name"] = "a.png", "b.png"
    truth["categories"][0]["name"], truth["categories"][1]["name"] = "dust", "cell"
    (named,) = with_names([square(0, 0, 10, image=0, category=1, score=0.9)], {0: "photos/b.png"}, {1: "dust"})
    assert both(evaluate_coco(truth, [named]), "AP") == pytest.approx([1, 1])
    with pytest.raises(ValueError, match=r"such as 'a.png', 'b.png'[^$]*file_name 'c.png' \(1 entries"):
        evaluate_coco(truth, [dict(named, file_name="c.png")])
    with pytest.raises(ValueError, match=r"such as 'dust', 'cell'[^$]*category_name 'mug' \(1 entries"):
        evaluate_coco(truth, [dict(named, category_name="mug")])
    truth["categories"][1]["name"] = "dust"
    with pytest.raises(ValueError, match="category_name: got 'dust', which 2 categories are called"):
        evaluate_coco(truth, [named])


def test_a_category_id_that_is_the_name_of_one_category_stands_for_it(make_truth, square):
    truth, result = make_truth([square(0, 0, 10)]), square(0, 0, 10, score=0.9)
    assert both(evaluate_coco(truth, [dict(result, category_id=" cell")]), "AP") == pytest.approx([1, 1])
    truth["categories"][1]["name"] = "cell"  # now it may be either
    with pytest.raises(ValueError, match="category_id ' cell'"):
        evaluate_coco(truth, [dict(result, category_id=" cell")])


def test_what_is_in_the_ground_truth_twice_is_told(make_truth, square, caplog):
    truth = make_truth(
        [square(0, 0, 10), square(0, 0, 9), square(0, 0, 10, image=2)], images={1: (99, 99), 2: (99, 99)}
    )
    for entry, found in zip(truth["images"], ("a.png", "b.png")):
        entry["file_name"] = found
    evaluate_coco(truth, [], iou_types="bbox")
    assert "repeat" not in caplog.text and "name a file" not in caplog.text
    truth["annotations"][1]["bbox"] = [0, 0, 10, 10]
    truth["images"][1]["file_name"] = "a.png"
    evaluate_coco(truth, [], iou_types="bbox")
    assert "ground truth: 1 images name a file that another names too" in caplog.text
    assert "ground truth: 1 objects repeat the class, box and mask of another" in caplog.text


def test_boxes_of_another_kind_are_told(make_truth, square, caplog):
    truth, box = make_truth([square(60, 60, 30)]), square(60, 60, 30, score=0.9)
    evaluate_coco(truth, [box, dict(box, bbox=[60, 60, 90, 90])], iou_types="bbox")
    assert "stick out" not in caplog.text  # half of them
    evaluate_coco(truth, [dict(box, bbox=[60, 60, 90, 90])], iou_types="bbox")
    assert "results: 1 of 1 boxes stick out of their image: are they x1, y1, x2, y2" in caplog.text
    evaluate_coco(truth, [dict(box, bbox=[0.6, 0.6, 0.3, 0.3])], iou_types="bbox")
    assert "results: all coordinates of the 1 boxes lie in 0..1: pixels are expected" in caplog.text
    truth["annotations"][0]["bbox"] = [0.6, 0.6, 0.3, 0.3]
    with pytest.raises(ValueError, match="ground truth: all coordinates of the 1 boxes lie in 0..1"):
        evaluate_coco(truth, [], iou_types="bbox")
    truth["annotations"][0]["bbox"] = [60, 60, -30, 30]
    with pytest.raises(ValueError, match=r"annotations\[0\]: bbox: got \[60.*, -30.*no side below 0"):
        evaluate_coco(truth, [], iou_types="bbox")
    with pytest.raises(ValueError, match=r"results\[0\]: bbox: got \[60.*, -30.*no side below 0"):
        evaluate_coco(make_truth([square(60, 60, 30)]), [dict(box, bbox=[60, 60, 30, -30])], iou_types="bbox")


def test_results_without_masks_give_box_ap(make_truth, square):
    truth = make_truth([square(0, 0, 10)])
    boxes = [without(square(0, 0, 10, score=0.9), "segmentation")]
    assert list(evaluate_coco(truth, boxes, iou_types=None).overall) == ["bbox"]
    assert list(evaluate_coco(truth, [square(0, 0, 10, score=0.9)], iou_types=None).overall) == ["bbox", "segm"]
    assert list(evaluate_coco(truth, [], iou_types=None).overall) == ["bbox", "segm"]
    with pytest.raises(ValueError, match="no segmentation"):
        evaluate_coco(truth, [*boxes, square(0, 0, 10, score=0.9)], iou_types=None)


def test_masks_beside_their_boxes_are_told(make_truth, square, caplog):
    wrong = {**square(0, 0, 10), "segmentation": square(5, 40, 30)["segmentation"]}
    evaluate_coco(make_truth([square(0, 0, 10)]), [square(0, 0, 10, score=1)])
    assert "most of their pixels" not in caplog.text
    evaluate_coco(make_truth([square(0, 0, 10)]), [{**wrong, "score": 1}])
    assert "results: 1 of 1 masks have most of their pixels outside of their box" in caplog.text
    evaluate_coco(make_truth([wrong]), [])
    assert "ground truth: 1 of 1 masks have most" in caplog.text
