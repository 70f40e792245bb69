"""Reports and thresholds: written whole beside the metrics, and nothing of anyone else's is replaced."""

import json

import pytest

from tpu_retinamask.coco.scores import evaluate_coco
from tpu_retinamask.errors import UserError
from tpu_retinamask.evaluation.report import metrics_json
from tpu_retinamask.programs import score_files
from tpu_retinamask.reports.page import page

pytestmark = pytest.mark.ci  # two programs, for files whose text tests/reports reads


@pytest.fixture
def metrics(make_truth, square):
    return evaluate_coco(make_truth([square(0, 0, 20)]), [square(0, 0, 20, score=0.8)])


def test_an_earlier_report_is_replaced(tmp_path, metrics):
    for title in ("first", "second"):
        with score_files.held(str(tmp_path / "metrics.json"), report=True) as files:
            files.write(metrics, report=page(title, "", [], {}))
    assert "<title>second</title>" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "metrics.json").read_text() == metrics_json(metrics)
    assert json.loads((tmp_path / "thresholds.json").read_text())["classes"] == {
        "cell": pytest.approx(0.8),
        "dust": None,
    }
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "report.html", "thresholds.json"}


def test_without_the_flag_neither_is_written(tmp_path, metrics):
    with score_files.held(str(tmp_path / "metrics.json")) as files:
        files.write(metrics)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("report.html", "<!doctype html><title>mine</title>", "report.html is there already, and is no report of ours"),
        ("thresholds.json", '{"cell": 0.5}', "thresholds.json is there already, and no evaluation wrote it"),
    ],
)
def test_files_of_others_are_kept(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said), score_files.held(str(tmp_path / "metrics.json"), report=True):
        pass
    assert (tmp_path / name).read_text() == content
    with score_files.held(str(tmp_path / "metrics.json")):  # without the flag they are no concern
        pass


@pytest.mark.parametrize("more", [[], ["--shapes"]])
def test_inspect_data_is_told_where_its_report_goes(quick_program, shapes, more):
    done = quick_program("inspect_data", f"--annotations={shapes}/train.csv", "--report", *more)
    assert done.returncode == 2 and "--report is written of images, into --output_dir" in done.stderr


def test_inspect_data_writes_its_report(quick_program, shapes, tmp_path):
    flags = f"--annotations={shapes}/train.csv", f"--output_dir={tmp_path}/seen", "--report"
    done = quick_program("inspect_data", *flags, gin=["InputPipeline.image_size = (64, 64)", "report.pictures = 1"])
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / "seen" / "report.html").read_text()
    assert '"objects": 9' in text and text.count("<figcaption>image ") == 1
    warned = [line for line in done.stderr.splitlines() if "fewer than 10 objects" in line]
    assert len(warned) == 1 and "2 of 2 classes have fewer than 10 objects" in text
