"""The shape report equals the table of the original notes, and allocates nothing of it."""

import re

import pytest
import tensorflow as tf

from tpu_retinamask import config
from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.programs import inspect_data

# What the original printed of its shapes: batch 2, 876 x 1876, 300 classes. It lists the two
# concatenations image by image.
NOTES = """
image: (2, 876, 1876, 3)
backbone: (2, 110, 235, 512) (2, 55, 118, 1024) (2, 28, 59, 2048)
feature pyramid: (2, 110, 235, 256) (2, 55, 118, 256) (2, 28, 59, 256) (2, 14, 30, 256) (2, 7, 15, 256)
regression: (2, 232650, 4) (2, 58410, 4) (2, 14868, 4) (2, 3780, 4) (2, 945, 4)
concat_regression: (2, 310653, 4)
classification: (2, 232650, 300) (2, 58410, 300) (2, 14868, 300) (2, 3780, 300) (2, 945, 300)
concat_classification: (2, 310653, 300)
model.output: (2, 310653, 4) (2, 310653, 300) (2, 100, 235204)
"""
ROW = re.compile(r"  .*(\([0-9, ]+\)) +([a-z0-9]+) +([0-9,]+) bytes")


def _parse(text):
    """Return {title: [shape, ...]} and [(shape, type, bytes), ...] of a printed report."""
    sections, rows, title = {}, [], None
    for line in text.splitlines():
        match = ROW.fullmatch(line)
        if match:
            shape = tuple(int(side) for side in match[1].strip("()").split(","))
            sections[title].append(shape)
            rows.append((shape, match[2], int(match[3].replace(",", ""))))
        elif line.endswith(":"):
            title = line[:-1]
            sections[title] = []
    return sections, rows


def test_report_equals_the_notes_line_by_line(quick_program):
    process = quick_program("inspect_data", "--shapes", "--image_size", "876x1876", "--num_classes", "300")
    assert process.returncode == 0, process.stderr
    sections, rows = _parse(process.stdout)
    expected = {}
    for line in NOTES.strip().splitlines():
        title, shapes = line.split(": ")
        expected[title] = [tuple(map(int, shape.split(", "))) for shape in re.findall(r"\(([^)]*)\)", shapes)]
    assert list(sections.items()) == list(expected.items())
    assert "anchors: 310653 an image" in process.stdout
    # Less than the original's: P6 from P5, and a 2 x 2 deconvolution in place of a 3 x 3 convolution.
    parameters = 39_312_612 + 21_002 * 300 - (2048 - 256) * 9 * 256 - (9 - 4) * 256 * 256
    assert f"parameters: {parameters:,}" in process.stdout
    for shape, kind, size in rows:
        elements = 1
        for side in shape:
            elements *= side
        assert size == elements * {"uint8": 1, "float32": 4}[kind]
    assert rows[-1] == ((2, 100, 4 + 28 * 28 * 300), "float32", 188_163_200)


def test_nothing_of_the_table_is_allocated():
    model = RetinaMask(
        2,
        backbone="small",
        fpn_channels=8,
        head_channels=8,
        head_depth=1,
        mask_channels=8,
        mask_depth=1,
        anchor_sizes=(32, 64, 128),
    ).create_weights((64, 64))
    table = dict(inspect_data.shape_table(model, DetectionFilter(max_detections=20), (200, 333), 1_000_000))
    assert [row.shape for row in table["feature pyramid"]] == [
        (1_000_000, 25, 42, 8),
        (1_000_000, 13, 21, 8),
        (1_000_000, 7, 11, 8),
    ]
    assert table["model.output"][2].shape == (1_000_000, 20, 4 + 28 * 28 * 2)
    assert sum(row.bytes for rows in table.values() for row in rows) > 2**38  # more than any machine of ours has
    assert [row.dtype for row in table["image"]] == [tf.uint8]


@pytest.mark.parametrize("text", ["876", "876,1876", "0x5", "-3x5", "876x1876x3", "axb", "1.5x2", ""])
def test_malformed_image_sizes_are_refused(text):
    with pytest.raises(config.UserError, match="is not HEIGHTxWIDTH in pixels, such as 876x1876"):
        inspect_data.parse_image_size(text)
    assert inspect_data.parse_image_size("7x11") == (7, 11)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--image_size=876x1876"], "error: nothing to show: give --shapes"),
        (["--shapes", "--image_size=1x1"], "error: --shapes needs --num_classes"),
    ],
)
def test_missing_flags_are_named(arguments, message, quick_program):
    process = quick_program("inspect_data", *arguments)
    assert process.returncode == 2
    assert message in process.stderr and "Traceback" not in process.stderr
