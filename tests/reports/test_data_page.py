"""The report of annotated images: its figures worked by hand, names as text, and what has no objects."""

import json
import re

import numpy as np
import PIL.Image
import pytest

from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.masks import ArrayMask
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.reports.data_page import Inspected, data_page
from tpu_retinamask.reports.settings import ReportSettings
from tpu_retinamask.structures import Batch

EVIL = '<script>alert("1")</script>'
NAMES = ClassNames((EVIL, None, "dust"))
PIPELINE = InputPipeline(image_size=(100, 100), max_instances=4, mask_size=8)


def _image(folder, number, *objects):
    """Return a picture of 50 x 100 pixels with objects: (class id, box, rectangle that the mask fills)."""
    path, instances = folder / f"{number}.png", []
    PIL.Image.fromarray(np.full((50, 100, 3), 90, np.uint8)).save(path)
    for class_id, box, (x1, y1, x2, y2) in objects:
        pixels = np.zeros((50, 100), np.uint8)
        pixels[y1:y2, x1:x2] = 1
        instances.append(AnnotatedInstance(1, box, class_id, ArrayMask(pixels)))
    return AnnotatedImage(str(path), f'"{number}">.png', number, 50, 100, 1, tuple(instances))


@pytest.fixture
def images(tmp_path):
    """A square of 32 that an anchor covers; one of 4 that none does, and whose mask lies elsewhere; nothing."""
    return [
        _image(tmp_path, 0, (0, (0, 0, 32, 32), (0, 0, 32, 32))),
        _image(tmp_path, 1, (0, (60, 40, 64, 44), (0, 0, 9, 9)), (2, (4, 4, 36, 36), (4, 4, 36, 36))),
        _image(tmp_path, 2),
    ]


def _page(images, validation=None, doubts=(), batches=(), classes=NAMES):
    found = Inspected(images, validation, classes, PIPELINE, AnchorGrid(), 0.5, batches, doubts, "a&b.csv")
    return data_page(found, ReportSettings(pictures=2, crops=1, side=128))


def _figures(text):
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)[1])


def test_figures_worked_by_hand(images):
    text = _page(images, validation=images[:1], doubts=[f"{EVIL} has few objects"])
    figures = _figures(text)
    assert (figures["images"], figures["objects"], figures["without_mask"]) == (3, 3, 0)
    assert figures["images_without_objects"] == 1
    assert figures["classes"] == {EVIL: 2, "dust": 1}
    assert figures["canvas_filled"] == pytest.approx(0.5)  # 50 x 100 on 100 x 100
    assert figures["coverage"] == pytest.approx(2 / 3)
    assert figures["proposed_coverage"] >= 2 / 3
    assert "RetinaMask.anchor_sizes = (" in text
    rows = re.findall(r"<tr><td>(.*?)</td><td>(\d+)</td><td>([\d.]+)</td><td>(\d+)</td><td>(\d+)</td></tr>", text)
    assert [row[1:] for row in rows] == [("2", "0.667", "2", "1"), ("1", "0.333", "1", "0")]
    assert "66.7% of 3 boxes" in text
    assert "Masks that look wrong (1)" in text and "100% of the mask lie outside of its box" in text


def test_names_are_text(images):
    text = _page(images, doubts=[EVIL])
    assert text.count("<script") == 1 and "alert" in text and 'alt=""' not in text
    assert "&lt;script&gt;alert(&quot;1&quot;)" in text


def test_samples_are_bounded(images):
    sample = Batch(*(np.asarray(part)[None] for part in PIPELINE.padding_sample()))
    shown = sample._replace(image_id=np.array([7]), content_size=np.array([[50, 100]]))
    text = _page(images, batches=[sample, *[shown] * 5])
    assert text.count("<figcaption>image 7</figcaption>") == 2


def test_no_objects_at_all(images):
    text = _page(images[2:])
    assert _figures(text)["coverage"] is None and "There are no boxes." in text
    assert not re.search(r"\bnan\b", text)
