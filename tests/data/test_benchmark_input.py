"""The input benchmark: every stage of a real pipeline gets a figure, and the figures are read right."""

import math

import pytest

from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.augment.augmentation import Augmentation
from tpu_retinamask.data.prepared.reading import open_records
from tpu_retinamask.data.prepared.writing import RecordsBuilder
from tpu_retinamask.programs.benchmark_input import ADVICE, STAGES, Report, benchmark_input, format_report


@pytest.mark.parametrize("augmentation", [None, Augmentation(rotation=10.0, hue=0.1)])
def test_every_stage_and_the_whole_are_timed(augmentation, records, pipeline):
    report = benchmark_input(
        pipeline(augmentation=augmentation, min_side=(30, 40)), records, batch_size=2, images=2, batches=2
    )
    assert tuple(report.seconds) == STAGES
    assert all(math.isfinite(seconds) and seconds >= 0 for seconds in report.seconds.values())
    assert report.seconds["resize"] > 0 and report.seconds["batch"] > 0
    assert report.images_per_second > 0 and report.first_batch > 0 and report.batch_size == 2


@pytest.mark.ci
def test_a_prepared_data_set_is_timed_too(scene, pipeline, tmp_path):
    annotations, classes = scene
    names = read_classes(classes)
    scanned = scan_images(read_annotations(annotations, names))
    assert RecordsBuilder(str(tmp_path / "data"), names, {"train": scanned}, sources={}).build()
    records = open_records(str(tmp_path / "data")).split("train")
    for cache in (False, "files"):
        report = benchmark_input(pipeline(cache=cache), records, batch_size=2, images=3, batches=2)
        assert tuple(report.seconds) == STAGES and report.seconds["resize"] > 0


def test_the_table_by_hand():
    seconds = dict(zip(STAGES, (0.001, 0.004, 0.002, 0.0, 0.012, 0.001), strict=True))
    lines = format_report(Report(seconds, 80.0, 1.0, 4)).splitlines()
    table = {line.split()[0]: line.split()[1:] for line in lines[1:7]}
    assert table["read"] == ["1.00", "1,000", "5%"] and table["masks"] == ["12.00", "83", "60%"]
    assert table["augment"] == ["0.00", "-", "0%"]
    assert lines[7].split() == ["all", "alone", "20.00", "50", "100%"]
    assert lines[8].split() == ["pipeline", "12.50", "80.0"]
    assert lines[9] == f"masks bounds: 60% of the work. {ADVICE['masks']}"
    assert set(ADVICE) == set(STAGES)
