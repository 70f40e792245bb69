"""Fixtures of the data tests: small files written on the spot, and the real data kept beside the project."""

import io
import os
import pathlib

import numpy as np
import PIL.Image
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real data that may not be copied into the project."""
    folder = pathlib.Path(os.environ.get("TPU_RETINAMASK_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            f"NO REAL DATA: {folder} does not exist. Set TPU_RETINAMASK_SHARED_DATA to the folder that holds "
            "csv_wild/, nuclei/ and coco/. Hand-written equivalents of each format are tested without it.")
    return folder


@pytest.fixture
def write(tmp_path):
    """Write bytes, text, an array or a Pillow image into the test's folder; return its path as a string."""

    def write_file(name, content, image_format=None, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            content = PIL.Image.fromarray(content)
        if isinstance(content, PIL.Image.Image):
            buffer = io.BytesIO()
            content.save(buffer, image_format or path.suffix[1:].upper().replace("JPG", "JPEG"), **options)
            content = buffer.getvalue()
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write_file


@pytest.fixture
def scene(write):
    """Two pictures and their masks: one label map with 3 objects, one picture with a file per object.

    `a.png` is 24 x 32 (height x width), objects 1..3 in `a_labels.png`; `b.png` is 20 x 16 with two mask
    files and one object without a mask; `c.png` is empty. Returns the path of the CSV and of the classes.
    """
    rng = np.random.default_rng(5)
    write("a.png", rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    labels = np.zeros((24, 32), np.uint8)
    labels[2:9, 3:14] = 1
    labels[4, 5] = 0  # a hole, so that no mask is a plain rectangle
    labels[10:20, 6:12] = 2
    labels[18:20, 10:12] = 0
    labels[5:23, 20:31] = 3
    labels[5:9, 20:22] = 0
    write("a_labels.png", labels)
    write("b.png", rng.integers(0, 256, (20, 16, 3), dtype=np.uint8))
    first, second = np.zeros((20, 16), np.uint8), np.zeros((20, 16), np.uint8)
    first[1:7, 2:9] = 255
    first[1, 2] = 0
    second[8:20, 4:16] = 1
    second[8:10, 4:6] = 0
    write("b1.png", first)
    write("b2.png", second)
    write("c.png", rng.integers(0, 256, (12, 40, 3), dtype=np.uint8))
    annotations = write("train.csv", (
        "a.png,3,2,14,9,cat,a_labels.png#1\n"
        "a.png,6,10,12,20,dog,a_labels.png#2\n"
        "a.png,20,5,31,23,cat,a_labels.png#3\n"
        "b.png,2,1,9,7,dog,b1.png\n"
        "b.png,4,8,16,20,cat,b2.png\n"
        "b.png,0,0,5,5,cat\n"
        "c.png,,,,,,\n"))
    return annotations, write("classes.csv", "cat,0\ndog,1\n")
