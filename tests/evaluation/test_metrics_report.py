"""The metrics as a table and as a file."""

import json

import pytest

from tpu_retinamask.coco.scores import evaluate_coco
from tpu_retinamask.evaluation.report import format_table, metrics_json


@pytest.fixture
def metrics(make_truth, square):
    truth = make_truth(
        [square(0, 0, 10), square(30, 30, 10), square(60, 60, 10, category=20)],
        categories=("nucleus", "dust", "hair", "bubble"),
    )
    results = [
        square(0, 0, 10, score=0.9), square(80, 80, 9, score=0.8), square(30, 30, 10, score=0.7),
        square(9, 9, 9, score=0.6, category=40),
    ]  # fmt: skip
    return evaluate_coco(truth, results, max_detections=50)


def test_table_line_by_line(metrics):
    assert format_table(metrics).splitlines() == [
        "1 images, 3 ground truths, 0 crowd regions, 4 detections; at most 50 per image and class count",
        "",
        "         AP   AP50   AP75  APsmall  APmedium  APlarge    AR1   AR10  ARmax  ARsmall  ARmedium  ARlarge",
        "box   0.417  0.417  0.417    0.417         -        -  0.250  0.500  0.500    0.500         -        -",
        "mask  0.417  0.417  0.417    0.417         -        -  0.250  0.500  0.500    0.500         -        -",
        "",
        "class    ground truths  detections  box AP  box AP50  mask AP  mask AP50  best F1  above score",
        "nucleus              2           3   0.835     0.835    0.835      0.835    0.800        0.700",
        "dust                 1           0   0.000     0.000    0.000      0.000        -            -",
        "No ground truth, hence no part in the means, for 2 of 4 classes: hair, bubble (1 detections)",
        "",
        # The one of class bubble is wrong: of all, 2 of 3 are right and 2 of 3 are found down to 0.7.
        "One threshold for all: masks that score above 0.650 are best balanced, at IoU 0.5: precision 0.667, recall",
        "0.667, F1 0.667",
    ]


def test_many_absent_classes_stay_a_paragraph(make_truth, square):
    truth = make_truth([square(0, 0, 10)], categories=[f"class number {i}" for i in range(80)])
    lines = format_table(evaluate_coco(truth, [])).splitlines()
    assert len(lines) < 25 and max(map(len, lines)) <= 110
    assert all(f"class number {i}" in "\n".join(lines).replace("\n  ", " ") for i in range(80))


def test_names_can_be_given(metrics):
    assert "\nnoyau " in format_table(metrics, ["noyau", "poussière", "cheveu", "bulle"])
    table = format_table(metrics, {10: "noyau"})
    assert "\nnoyau " in table and "\ndust " in table
    with pytest.raises(ValueError, match="got 1 class names for 4 categories"):
        format_table(metrics, ["nucleus"])


def test_what_is_undefined_is_said(make_truth, square):
    table = format_table(evaluate_coco(make_truth([]), [], iou_types=("bbox",)))
    assert "There is no ground truth, so AP and AR are undefined." in table
    assert "nan" not in table and "mask" not in table
    maskless = {**square(0, 0, 10), "has_mask": 0}
    assert "1 ground truths have no mask" in format_table(evaluate_coco(make_truth([maskless]), []))


def test_file_holds_plain_numbers(metrics):
    numbers = json.loads(metrics_json(metrics))
    nucleus = (51 + 50 * 2 / 3) / 101
    assert numbers["segm/AP50/nucleus"] == pytest.approx(nucleus)
    assert numbers["segm/AP"] == numbers["bbox/AP50"] == pytest.approx(nucleus / 2)
    assert numbers["segm/APlarge"] is None and numbers["bbox/AP/hair"] is None
    assert (numbers["ground_truths/nucleus"], numbers["detections/bubble"]) == (2, 1)
    assert (numbers["images"], numbers["detections"], numbers["max_detections"]) == (1, 4, 50)
    assert (numbers["threshold"], numbers["f1"]) == (pytest.approx(0.65), pytest.approx(2 / 3))
    assert (numbers["threshold/nucleus"], numbers["recall/nucleus"]) == (pytest.approx(0.7), 1.0)
    assert numbers["threshold/dust"] is None and numbers["precision/hair"] is None
    assert all(value is None or type(value) in (int, float) for value in numbers.values())


def test_categories_of_one_name_keep_their_own_keys(make_truth, square):
    numbers = evaluate_coco(make_truth([square(0, 0, 9)], categories=("cell", "cell")), []).flat()
    assert (numbers["ground_truths/cell (10)"], numbers["ground_truths/cell (20)"]) == (1, 0)


def test_names_with_a_gap_between_the_ids_fit(make_truth):
    truth = make_truth([])
    assert format_table(evaluate_coco(truth, []), ("cell", None, "dust")) == format_table(evaluate_coco(truth, []))
