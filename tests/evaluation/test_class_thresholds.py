"""The file of thresholds: what is written is read back by class, and another file is refused by name."""

import json

import pytest

from tpu_retinamask.coco.scores import evaluate_coco
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.errors import UserError
from tpu_retinamask.evaluation.class_thresholds import is_thresholds, read_thresholds, thresholds_json

CLASSES = ClassNames(("cell", None, "dust"))


@pytest.fixture
def written(make_truth, square, tmp_path):
    """The thresholds of an evaluation that found a cell at 0.8, and no dust."""
    truth = make_truth([square(0, 0, 20), square(50, 50, 20, category=20)])
    metrics = evaluate_coco(truth, [square(0, 0, 20, score=0.8), square(30, 0, 10, score=0.4)])
    path = tmp_path / "thresholds.json"
    path.write_text(thresholds_json(metrics))
    return path


def test_read_back_by_class_id(written):
    content = json.loads(written.read_text())
    assert (content["all"], content["classes"]) == (pytest.approx(0.6), {"cell": pytest.approx(0.6), "dust": None})
    assert is_thresholds(written.read_text())
    assert read_thresholds(str(written), CLASSES) == pytest.approx((0.6, 0.6, 0.6))
    written.write_text(json.dumps({**content, "classes": {"dust": 0.25, "cell": 1}}))
    assert read_thresholds(str(written), CLASSES) == pytest.approx((1.0, 0.6, 0.25))


@pytest.mark.parametrize(
    "content, said",
    [
        ({"classes": {"cell": 0.5, "dots": 0.5}}, "'dots': expected a class of the class file; .*'dust'"),
        ({"classes": {"cell": 0.5}}, "'dust' is not among them"),
        ({"classes": {"cell": 0.5, "dust": 1.5}}, "'dust': got '1.5', expected a number from 0 to 1, or null"),
        ({"classes": {"cell": 0.5, "dust": True}}, "'dust': got 'True'"),
        ({"classes": {"cell": 0.5, "dust": None}}, "null for 'dust' and for `all`"),
        ({"classes": [0.5, 0.5]}, "expected the thresholds.json that evaluate --report writes"),
        ([], "expected the thresholds.json"),
    ],
)
def test_another_file_is_refused(tmp_path, content, said):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(content))
    assert not is_thresholds(path.read_text())
    with pytest.raises(UserError, match=said):
        read_thresholds(str(path), CLASSES)


def test_what_is_no_json_is_refused(tmp_path):
    path = tmp_path / "t.json"
    path.write_text("cell,0.5")
    with pytest.raises(UserError, match="no JSON"):
        read_thresholds(str(path), CLASSES)
    with pytest.raises(FileNotFoundError):
        read_thresholds(str(tmp_path / "gone.json"), CLASSES)
