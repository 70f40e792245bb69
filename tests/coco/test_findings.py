"""What became of each object and each detection, worked by hand; the same counts as precision and recall."""

import numpy as np
import pytest

from tpu_retinamask.coco.breakdowns import by_object_count, precision_by_recall
from tpu_retinamask.coco.findings import bad_masks, confusion_matrix, find
from tpu_retinamask.coco.scores import score_coco
from tpu_retinamask.data.images.window_runs import encode_rle
from tpu_retinamask.evaluation.class_thresholds import least_scores


@pytest.fixture
def scene(make_truth, square):
    """Two pictures of cells (10) and dust (20): a find, a confusion, a miss and something that is not there."""
    truth = make_truth(
        [
            square(0, 0, 20),
            square(40, 0, 20),
            square(70, 70, 20, category=20),
            square(0, 0, 20, image=2),
        ],
        images={1: (100, 100), 2: (100, 100), 3: (100, 100)},
    )
    results = [
        square(0, 0, 20, score=0.9),
        square(40, 0, 20, category=20, score=0.8),  # a cell, seen as dust
        square(0, 60, 20, score=0.7),  # nothing there
        square(0, 0, 20, image=2, score=0.2),  # found, below the threshold
        square(70, 70, 20, category=20, score=0.1),
    ]
    return truth, results


def test_found_confused_wrong_and_missed(scene):
    _, scoring = score_coco(*scene)
    one, two, three = find(scoring, [0.5, 0.5])
    assert [(pair.detection["score"], pair.iou) for pair in one.found] == [(0.9, 1.0)]
    assert [(pair.truth["category_id"], pair.detection["category_id"]) for pair in one.confused] == [(10, 20)]
    assert [detection["score"] for detection in one.wrong] == [0.7]
    assert [truth["category_id"] for truth in one.missed] == [20]
    assert (one.mistakes, one.f1) == (3, 2 / (2 + 2 + 1 + 1))
    assert (len(two.found), len(two.missed), two.f1) == (0, 1, 0)
    assert (three.mistakes, three.f1) == (0, 1)
    counts = confusion_matrix([one, two, three], scoring.category_ids)
    assert counts.tolist() == [[1, 1, 1], [0, 0, 1], [1, 0, 0]]
    # Without a threshold those below it are found; no object is missed.
    low = confusion_matrix(find(scoring, [0.0, 0.0]), scoring.category_ids)
    assert low.tolist() == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_the_diagonal_is_the_recall_of_the_figures(make_truth, square):
    random = np.random.default_rng(0)
    places = [(x, y) for x in range(0, 90, 22) for y in range(0, 90, 22)]
    truths = [square(*place, 18, category=10 * (1 + k % 2)) for k, place in enumerate(places)]
    results = [
        square(x + random.integers(0, 9), y, 18, category=10 * (1 + random.integers(0, 2)), score=random.random())
        for x, y in places * 2
    ]
    for iou_types in (("bbox",), ("bbox", "segm")):
        metrics, scoring = score_coco(make_truth(truths), results, iou_types=iou_types)
        counts = confusion_matrix(find(scoring, least_scores(metrics)), scoring.category_ids)
        for k, row in enumerate(metrics.per_class):
            assert counts[k].sum() == row.ground_truths
            assert counts[k, k] / row.ground_truths == pytest.approx(row.best.recall)
            assert counts[k, k] / counts[:, k].sum() == pytest.approx(row.best.precision)


def test_crowds_and_boxes_without_masks_are_no_mistakes(make_truth, square):
    bare = square(50, 50, 20)
    del bare["segmentation"]
    truth = make_truth([square(0, 0, 30, iscrowd=1), bare], categories=("cell",))
    results = [square(2, 2, 10, score=0.9), square(50, 50, 20, score=0.8)]
    (found,) = find(score_coco(truth, results)[1], [0.5])
    assert found.mistakes == 0 and found.found == []


def test_bad_masks_are_those_of_good_boxes(make_truth, square):
    mask = np.zeros((100, 100), bool)
    mask[:10, :40] = True  # of 40 x 40: IoU 0.25
    bad = {**square(0, 0, 40, score=0.9), "segmentation": encode_rle(mask)}
    truth = make_truth([square(0, 0, 40), square(50, 50, 30)], categories=("cell",))
    _, scoring = score_coco(truth, [bad, square(50, 50, 30, score=0.8)])
    assert [(pair.iou, pair.truth["id"]) for pair in bad_masks(scoring, [0.5])] == [(0.25, 1)]
    assert bad_masks(scoring, [0.95]) == []
    _, boxes = score_coco(truth, [bad], iou_types="bbox")
    assert bad_masks(boxes, [0.5]) == []


def test_pictures_by_their_objects(make_truth, square):
    many = [square(20 * x, 20 * y, 10, image=2) for x in range(3) for y in range(2)]
    two = [square(0, 0, 10, image=4), square(30, 0, 10, image=4)]
    truth = make_truth([square(0, 0, 10), *many, *two], images=dict.fromkeys((1, 2, 3, 4), (100, 100)))
    results = [square(0, 0, 10, score=0.9), square(60, 60, 10, image=3, score=0.9)]
    metrics, scoring = score_coco(truth, results)
    few, more = by_object_count(scoring)
    # One of three objects, found before anything wrong: precision 1 up to recall 1/3.
    assert (few.least, few.most, few.images, few.objects, few.ap["segm"]["AP"]) == (1, 2, 2, 3, pytest.approx(34 / 101))
    assert (more.least, more.most, more.images, more.objects, more.ap["bbox"]["AP"]) == (6, 6, 1, 6, 0)
    recall, ious, precision = precision_by_recall(scoring)
    assert (len(recall), len(ious), precision.shape) == (101, 10, (10, 101, 2))
    assert np.isnan(precision[:, :, 1]).all()  # no dust
    assert np.mean(precision[:, :, 0]) == pytest.approx(metrics.overall["segm"]["AP"])


@pytest.mark.parametrize("truths, results", [(0, 0), (0, 1), (1, 0)])
def test_nothing_wanted_or_nothing_found(make_truth, square, truths, results):
    metrics, scoring = score_coco(
        make_truth([square(0, 0, 10)] * truths, categories=("cell",)), [square(0, 0, 10, score=0.9)] * results
    )
    assert least_scores(metrics) == [0.5]
    (found,) = find(scoring, [0.5])
    assert (len(found.wrong), len(found.missed)) == (results, truths)
    assert confusion_matrix([found], scoring.category_ids).tolist() == [[0, truths], [results, 0]]
    assert len(by_object_count(scoring)) == truths
