"""COCO average precision: worked by hand, and against COCOeval.summarize()."""

import contextlib
import copy
import io
import json
import logging

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tpu_retinamask.coco.scores import evaluate_coco
from tpu_retinamask.data.images.window_runs import encode_rle

SUMMARIZED = ("AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge",
              "AR1", "AR10", "ARmax", "ARsmall", "ARmedium", "ARlarge")  # fmt: skip


@pytest.mark.parametrize(
    "order, expected",
    [
        # Precision after each detection, then its envelope over 101 recall points.
        ("found false found", (51 * 1 + 50 * 2 / 3) / 101),  # 1 up to recall 0.5, then 2/3
        ("false found found", 2 / 3),
        ("found found false", 1.0),
        ("found false false", 51 / 101),
        ("false false found", 51 / 101 / 3),
        ("found", 51 / 101),
        ("false", 0.0),
    ],
)
def test_average_precision_worked_by_hand(make_truth, square, order, expected):
    truth = make_truth([square(0, 0, 10), square(30, 30, 10)], categories=("cell",))
    places = {"found": iter([(0, 0), (30, 30)]), "false": iter([(60, 60), (80, 80)])}
    results = [square(*next(places[kind]), 10, score=0.9 - i / 10) for i, kind in enumerate(order.split())]
    metrics = evaluate_coco(truth, results)
    for iou_type in ("bbox", "segm"):
        assert metrics.overall[iou_type]["AP"] == pytest.approx(expected, abs=1e-12)
        assert metrics.overall[iou_type]["AP50"] == pytest.approx(expected, abs=1e-12)
        assert metrics.overall[iou_type]["ARmax"] == pytest.approx(order.count("found") / 2)
        assert metrics.overall[iou_type]["AR1"] == (0.5 if order.startswith("found") else 0)


def test_thresholds_of_overlap(make_truth, square):
    # The box is exact; the mask covers 29 of 40 rows: IoU 0.725 passes 0.50 .. 0.70, five of ten.
    mask = np.zeros((100, 100), bool)
    mask[:29, :40] = True
    result = {**square(0, 0, 40, score=1.0), "segmentation": encode_rle(mask)}
    metrics = evaluate_coco(make_truth([square(0, 0, 40)]), [result])
    np.testing.assert_allclose([metrics.overall["bbox"][k] for k in ("AP", "AP50", "AP75")], [1, 1, 1])
    np.testing.assert_allclose([metrics.overall["segm"][k] for k in ("AP", "AP50", "AP75")], [0.5, 1, 0])


def test_mean_over_classes_with_ground_truth(make_truth, square):
    annotations = [square(0, 0, 10), square(30, 30, 10, category=20)]
    truth = make_truth(annotations, categories=("cell", "dust", "none"))
    results = [square(0, 0, 10, score=0.9), square(60, 60, 10, category=30, score=0.8)]
    metrics = evaluate_coco(truth, results)
    assert metrics.overall["segm"]["AP"] == pytest.approx(0.5)  # cell 1, dust 0; "none" takes no part
    rows = {row.name: row for row in metrics.per_class}
    assert [(r.ground_truths, r.detections) for r in metrics.per_class] == [(1, 1), (1, 0), (0, 1)]
    assert (rows["cell"].ap["segm"], rows["dust"].ap["segm"]) == (pytest.approx(1), 0)
    assert np.isnan(rows["none"].ap["segm"]) and np.isnan(rows["none"].ap50["bbox"])


def test_mask_sizes_are_judged_by_mask_area(make_truth, square):
    # A false detection of 400 mask pixels in a box of 1600: small as a mask, medium as a box.
    wrong = {**square(50, 50, 20, score=0.9), "bbox": [50, 50, 40, 40]}
    metrics = evaluate_coco(make_truth([square(0, 0, 20)]), [wrong, square(0, 0, 20, score=0.5)])
    assert metrics.overall["segm"]["APsmall"] == pytest.approx(0.5)
    assert metrics.overall["bbox"]["APsmall"] == pytest.approx(1.0)
    assert np.isnan(metrics.overall["segm"]["APlarge"])


def crowded_scene(square):
    """130 objects of one class in one image, all found."""
    truths = [square(8 * (i % 12), 8 * (i // 12), 5) for i in range(130)]
    return truths, [{**truth, "score": 0.99 - i / 1000} for i, truth in enumerate(truths)]


def test_more_than_100_objects_in_an_image(make_truth, square, caplog):
    truths, results = crowded_scene(square)
    truth = make_truth(truths)
    with caplog.at_level(logging.WARNING):
        limited = evaluate_coco(truth, results)
    assert "130 objects of one class, but only 100 detections count" in caplog.text
    assert limited.overall["segm"]["ARmax"] == pytest.approx(100 / 130)
    assert limited.overall["segm"]["AP"] == pytest.approx(77 / 101)  # recall points 0.00 .. 0.76
    caplog.clear()
    full = evaluate_coco(truth, results, max_detections=131)
    for iou_type in ("bbox", "segm"):
        assert full.overall[iou_type]["AP"] == pytest.approx(1)
        assert full.overall[iou_type]["ARmax"] == pytest.approx(1)
    assert full.overall["segm"]["AR10"] == pytest.approx(10 / 130)
    assert caplog.text == ""


def random_scene(square):
    """A scene with found, missed, shifted, doubled and false objects of all sizes, and a crowd."""
    rng = np.random.default_rng(3)
    truths, results = [], []
    for image in range(1, 9):
        for _ in range(rng.integers(0, 14)):
            category = int(rng.choice([10, 20, 30]))
            side = int(rng.choice([6, 20, 31, 33, 60, 110]))
            x, y = (int(v) for v in rng.integers(0, 256 - side, 2))
            place = dict(category=category, image=image, size=(256, 256))
            truths.append(square(x, y, side, **place, iscrowd=int(rng.random() < 0.1), id=len(truths) + 1))
            for _ in range(rng.integers(0, 3)):
                shift = rng.integers(-side // 8 - 1, side // 8 + 2, 2)
                x2, y2 = (int(v) for v in np.clip([x, y] + shift, 0, 256 - side))
                results.append(square(x2, y2, side, **place, score=round(float(rng.random()), 2)))
        x, y = (int(v) for v in rng.integers(0, 200, 2))
        results.append(square(x, y, 40, category=40, image=image, size=(256, 256), score=0.5))
    return truths, results


def test_equals_summarize_to_the_last_bit(make_truth, square):
    truths, results = random_scene(square)
    truth = make_truth(truths, images=dict.fromkeys(range(1, 9), (256, 256)), categories=("a", "b", "c", "d"))
    metrics = evaluate_coco(truth, results)
    for iou_type in ("bbox", "segm"):
        entries = copy.deepcopy(results)
        for entry in entries:
            del entry["area"], entry["bbox" if iou_type == "segm" else "segmentation"]
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = copy.deepcopy(truth)
            coco.createIndex()
            official = COCOeval(coco, coco.loadRes(entries), iou_type)
            official.evaluate()
            official.accumulate()
            official.summarize()
        stats = np.array([np.nan if value == -1 else value for value in official.stats])
        assert np.isfinite(stats).all() and 0.2 < stats[0] < 0.9  # the scene tests something
        ours = np.array([metrics.overall[iou_type][name] for name in SUMMARIZED])
        np.testing.assert_array_equal(ours, stats)


def test_files_give_the_same_numbers_and_nothing_is_printed_or_changed(make_truth, square, tmp_path, capsys):
    truths, results = random_scene(square)
    truth = make_truth(truths, images=dict.fromkeys(range(1, 9), (256, 256)), categories=("a", "b", "c", "d"))
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    before = copy.deepcopy((truth, results))
    in_memory = evaluate_coco(truth, results)
    from_files = evaluate_coco(str(tmp_path / "truth.json"), tmp_path / "results.json")
    assert from_files.flat().keys() == in_memory.flat().keys()
    np.testing.assert_array_equal(list(from_files.flat().values()), list(in_memory.flat().values()))
    assert (truth, results) == before
    assert capsys.readouterr().out == ""


def test_progress_is_logged(make_truth, square, caplog):
    with caplog.at_level(logging.INFO):
        evaluate_coco(make_truth([square(0, 0, 9)]), [], iou_types=("segm",), progress=True)
    assert "Scoring mask: 1 images, 1 ground truths, 0 detections" in caplog.text


def test_one_iou_type_only(make_truth, square):
    entry = square(0, 0, 10, score=0.9)
    del entry["segmentation"]
    metrics = evaluate_coco(make_truth([square(0, 0, 10)]), [entry], iou_types=("bbox",))
    assert list(metrics.overall) == ["bbox"]
    assert metrics.overall["bbox"]["AP"] == pytest.approx(1)
    entry = square(0, 0, 10, score=0.9)
    del entry["bbox"]  # official mask results have none; it is taken from the mask
    metrics = evaluate_coco(make_truth([square(0, 0, 10)]), [entry])
    assert [metrics.overall[t]["AP"] for t in ("bbox", "segm")] == pytest.approx([1, 1])
