"""Where anchors fit the boxes badly, better ones are proposed, as flags that work when pasted."""

import logging
import re
import shlex

import gin
import numpy as np
import pytest

from tpu_retinamask import config
from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.model.settings import NetworkSettings
from tpu_retinamask.tasks.preflight import report_coverage

PIPELINE = InputPipeline(image_size=(256, 256))


def _images(sides, seed=0):
    """Return pictures of the canvas' size, a box of each side (width, height) in each at a place of its own."""
    random, images = np.random.default_rng(seed), []
    for number, (width, height) in enumerate(sides):
        x, y = random.uniform(0, 256 - width), random.uniform(0, 256 - height)
        instance = AnnotatedInstance(1, (x, y, x + width, y + height), 0, None)
        images.append(AnnotatedImage(f"{number}.png", f"{number}.png", number, 256, 256, 1, (instance,)))
    return images


def _said(images, caplog, settings=None, iou=0.5):
    caplog.clear()
    caplog.set_level(logging.INFO)
    report_coverage((settings or NetworkSettings()).anchor_grid(), images, PIPELINE, iou)
    return caplog.messages[-1]


def test_small_boxes_are_covered_by_what_is_proposed(caplog):
    random = np.random.default_rng(1)
    images = _images(random.uniform(14, 40, (300, 2)))
    said = _said(images, caplog)
    before = float(re.search(r"anchors cover ([\d.]+)% of 300 boxes", said)[1])
    after = float(re.search(r"found late or never: ([\d.]+)% would have one with ", said)[1])
    assert before < 80 < 98 < after
    params = [word.removeprefix("--gin_param=") for word in shlex.split(said) if word.startswith("--gin_param=")]
    assert [param.split("=")[0] for param in params] == [
        "RetinaMask.anchor_sizes",
        "RetinaMask.anchor_ratios",
        "RetinaMask.anchor_scales",
    ]
    try:
        config.parse_gin([], [param.rstrip(";") for param in params])
        covered = _said(images, caplog, config.NetworkSettings())
    finally:
        gin.clear_config()
    assert float(re.search(r"anchors cover ([\d.]+)%", covered)[1]) == after
    assert caplog.records[-1].levelno == logging.INFO


def test_where_no_anchors_would_do_better_none_are_proposed(caplog):
    said = _said(_images([(3, 3)] * 40), caplog)
    assert "cover 0.0% of 40 boxes" in said and "anchor_sizes=" not in said
    assert "a larger InputPipeline.image_size makes small boxes larger" in said


def test_of_fewer_levels_none_are_proposed(caplog):
    said = _said(_images([(14, 14)] * 40), caplog, NetworkSettings(anchor_sizes=(64, 128, 256)))
    assert "choose RetinaMask.anchor_sizes and anchor_ratios to fit them" in said


@pytest.mark.parametrize("side", [32, 64])
def test_where_all_are_covered_nothing_is_proposed(side, caplog):
    said = _said(_images([(side, side)] * 40), caplog)
    assert "cover 100.0% of 40 boxes" in said and "found late" not in said
