"""The report of an evaluation: its figures are those of metrics.json, to the eye and to a program; names are text."""

import html.parser
import json
import math
import re

import numpy as np
import pytest

from tpu_retinamask.coco.scores import score_coco
from tpu_retinamask.evaluation.report import metrics_json
from tpu_retinamask.reports.evaluation_page import Evaluated, evaluation_page
from tpu_retinamask.reports.settings import ReportSettings

FEW = ReportSettings(pictures=2, crops=2, side=64)
EVIL = '<script>alert("1")</script>'


class Read(html.parser.HTMLParser):
    """The tables of a page as rows of cells, its JSON, and its tags with what would be fetched or run."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self.links, self.figures, self.images, self._into = [], [], [], "", [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given.get("type")))
        self.links += [value for name, value in attributes if name in ("src", "href")]
        assert not [name for name in given if name.startswith("on")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "img":
            self.images.append(given["alt"])
        self._into = tag

    def handle_endtag(self, tag):
        self._into = None

    def handle_data(self, data):
        if self._into in ("td", "th"):
            self.rows[-1][-1] += data
        if self._into == "script":
            self.figures += data

    def table(self, first):
        """Return the rows below the heading that begins with these cells, as far as they are as long as it."""
        start = next(k for k, row in enumerate(self.rows) if row[: len(first)] == first)
        below = self.rows[start + 1 :]
        end = next((k for k, row in enumerate(below) if len(row) != len(self.rows[start])), len(below))
        return [dict(zip(self.rows[start], row)) for row in below[:end]]


def _page(truth, results, settings=FEW, pixels=None, **options):
    metrics, scoring = score_coco(truth, results, **options)
    return metrics, evaluation_page(
        Evaluated(metrics, scoring, pixels or (lambda image_id: None), {"model_dir": "runs/a&b"}), settings
    )


def _shown(value):
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


@pytest.fixture
def evil(make_truth, square):
    """Truth of two classes, of which one has a name that would be a script; each picture is one object's."""
    truth = make_truth(
        [square(0, 0, 40), square(50, 50, 40, category=20), square(0, 0, 40, image=2)],
        images={1: (100, 100), 2: (100, 100), 3: (100, 100)},
        categories=(EVIL, 'a"b'),
    )
    truth["images"][0]["file_name"] = '"><img src=x onerror=alert(1)>.png'
    results = [
        square(0, 0, 40, score=0.9),
        square(50, 50, 40, score=0.8),  # dust, seen as a cell
        square(0, 50, 30, score=0.7),
        square(5, 0, 40, image=2, score=0.75),
    ]
    return truth, results


def test_the_figures_are_those_of_metrics_json(evil):
    metrics, text = _page(*evil)
    found = Read(text)
    written = json.loads(metrics_json(metrics))
    assert json.loads(found.figures)["metrics"] == written
    overall = found.table(["", "AP"])
    assert [row[""] for row in overall] == ["box", "mask"]
    for row, kind in zip(overall, ("bbox", "segm")):
        assert {name: cell for name, cell in row.items() if name} == {
            name: _shown(written[f"{kind}/{name}"]) for name in metrics.overall[kind]
        }
    classes = found.table(["class", "ground truths"])
    assert [row["class"] for row in classes] == [EVIL, 'a"b']
    for row in classes:
        name = row["class"]
        assert int(row["detections"]) == written[f"detections/{name}"]
        assert row["mask AP50"] == _shown(written[f"segm/AP50/{name}"])
        assert row["box AP"] == _shown(written[f"bbox/AP/{name}"])
        assert row["F1"] == _shown(written[f"f1/{name}"])
    assert classes[0]["threshold"] == _shown(written[f"threshold/{EVIL}"])
    figures = json.loads(found.figures)
    assert figures["confusion"]["counts"] == [[2, 0, 0], [1, 0, 0], [0, 0, 0]]  # the best threshold is above 0.7
    counts = [int(row["detections"]) for row in found.table(["score", "detections"])]
    assert sum(counts) == written["detections"] == sum(one["count"] for one in figures["calibration"]["bins"])


def test_nothing_is_fetched_run_or_taken_for_markup(evil):
    pixels = np.full((100, 100, 3), 90, np.uint8)
    found = Read(_page(*evil, pixels=lambda image_id: pixels if image_id < 3 else None)[1])
    assert all(link.startswith(("#", "data:")) for link in found.links)
    assert [tag for tag in found.tags if tag[0] in ("script", "iframe", "link")] == [
        ("link", None),
        ("script", "application/json"),
    ]
    assert len(found.images) == 2 + 0 + 1 + 0  # two pictures, a confusion; no false positive above the threshold
    assert any(EVIL in caption for caption in found.images)


def test_what_is_shown_is_bounded_and_the_worst_come_first(make_truth, square):
    # Picture k has k of four objects found.
    spots = [(0, 0), (50, 0), (0, 50), (50, 50)]
    truth = make_truth(
        [square(*spot, 40, image=k) for k in range(5) for spot in spots],
        images=dict.fromkeys(range(5), (100, 100)),
        categories=("cell",),
    )
    results = [square(*spot, 40, image=k, score=0.9) for k in range(5) for spot in spots[:k]]
    pixels = np.zeros((100, 100, 3), np.uint8)
    _, text = _page(truth, results, ReportSettings(pictures=3, crops=2, side=64), lambda image_id: pixels)
    captions = Read(text).images
    assert [caption.split(":")[0] for caption in captions[:3]] == ["0", "1", "2"]
    assert len(captions) == 3 + 2  # and two misses of ten
    assert "3 of 5 are shown" in text and "2 of 10 are shown" in text
    assert len(text) < 60_000


@pytest.mark.parametrize("truths, results", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("iou_types", ["bbox", ("bbox", "segm")])
def test_degenerate_evaluations_have_a_report(make_truth, square, truths, results, iou_types):
    truth = make_truth([square(0, 0, 10)] * truths, categories=("cell",))
    metrics, text = _page(truth, [square(0, 0, 10, score=0.9)] * results, iou_types=iou_types)
    assert json.loads(Read(text).figures)["metrics"] == json.loads(metrics_json(metrics))
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
