"""Fixtures of the data tests: small files written on the spot, and the real data kept beside the project."""

import io
import json
import pathlib

import numpy as np
import PIL.Image
import pytest
from reference.small_coco import HEIGHT, SQUARE, WIDTH, entry

from tpu_retinamask.data.annotations.class_names import ClassNames, read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.mask_reader import read_mask
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.structures import Batch

ROOT = pathlib.Path(__file__).resolve().parents[2]


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
    labels[4, 5] = 2  # a pixel of another object, so that no mask is a plain rectangle
    labels[10:20, 6:12] = 2
    labels[18:20, 10:12] = 0
    labels[5:23, 20:31] = 3
    labels[5:9, 20:22] = 0
    write("a_labels.png", labels)
    write("b.png", rng.integers(0, 256, (20, 16, 3), dtype=np.uint8))
    first, second = np.zeros((20, 16), np.uint8), np.zeros((20, 16), np.uint8)
    first[1:7, 2:9] = 255
    first[1, 2:4] = 0
    second[8:20, 4:16] = 1
    second[8:10, 13:16] = 0
    write("b1.png", first)
    write("b2.png", second)
    write("c.png", rng.integers(0, 256, (12, 40, 3), dtype=np.uint8))
    annotations = write(
        "train.csv",
        (
            "a.png,3,2,14,9,cat,a_labels.png#1\n"
            "a.png,6,10,12,20,dog,a_labels.png#2\n"
            "a.png,20,5,31,23,cat,a_labels.png#3\n"
            "b.png,2,1,9,7,dog,b1.png\n"
            "b.png,4,8,16,20,cat,b2.png\n"
            "b.png,0,0,5,5,cat\n"
            "c.png,,,,,,\n"
        ),
    )
    return annotations, write("classes.csv", "cat,0\ndog,1\n")


@pytest.fixture
def records(scene):
    """The scanned records of `scene`."""
    annotations, classes = scene
    return scan_images(read_annotations(annotations, read_classes(classes))).images


@pytest.fixture
def scan(write):
    """Scan annotations given as text, all of the class `cow`."""

    def scan_text(text, **options):
        return scan_images(read_annotations(write("t.csv", text), ClassNames(("cow",))), **options)

    return scan_text


@pytest.fixture
def problems_of(scan):
    """Scan annotations that must be refused; return the list of problems."""

    def scan_bad_text(text, **options):
        with pytest.raises(AnnotationError) as error:
            scan(text, **options)
        return error.value.problems

    return scan_bad_text


@pytest.fixture
def pipeline():
    """Build a small input pipeline without augmentation, changed by keyword."""

    def build(**options):
        settings = {"image_size": (64, 64), "max_instances": 4, "mask_size": 12, "augmentation": None}
        return InputPipeline(**(settings | options))

    return build


@pytest.fixture
def samples():
    """Split the first batches of a dataset (or all) into one Batch of arrays per image."""

    def split(dataset, count=-1):
        found = [Batch(*(field.numpy() for field in batch)) for batch in dataset.take(count)]
        return [Batch(*(field[index] for field in batch)) for batch in found for index in range(len(batch.image_id))]

    return split


@pytest.fixture
def assert_same_batch():
    """Compare two batches or samples field by field, to the bit."""

    def compare(a, b):
        for name, left, right in zip(Batch._fields, a, b, strict=True):
            np.testing.assert_array_equal(left, right, err_msg=name)

    return compare


@pytest.fixture
def reference_masks():
    """Crop the masks of a record to R x R, from the host reader: the pixel under each cell's centre."""

    def crop(record, mask_size):
        centres = (np.arange(mask_size) + 0.5) / mask_size
        crops = np.zeros((len(record.instances), mask_size, mask_size), np.uint8)
        for index, instance in enumerate(record.instances):
            if instance.mask is None:
                continue
            mask = read_mask(instance, record.height, record.width)
            x1, y1, x2, y2 = instance.box
            rows, columns = (y1 + (y2 - y1) * centres).astype(int), (x1 + (x2 - x1) * centres).astype(int)
            crops[index] = mask[np.ix_(rows, columns)]
        return crops

    return crop


@pytest.fixture
def coco(write):
    """Write images a.png and b.png and a COCO file of changed parts; return its path."""
    for name in ("images/a.png", "images/b.png"):
        write(name, np.zeros((HEIGHT, WIDTH, 3), np.uint8))

    def build(annotations=None, images=None, categories=None, head=b"", **change):
        content = {
            "images": images or [{"id": n, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}
                                 for n, name in ((1, "a"), (2, "b"))],
            "annotations": [entry(1), entry(2, 2, box=(70, 20, 40, 50), segmentation=(SQUARE,))]
            if annotations is None else annotations,
            "categories": categories or [{"id": 1, "name": "mug"}],
        } | change  # fmt: skip
        content = {key: value for key, value in content.items() if value is not ...}
        return write("instances.json", head.decode("latin-1").encode("latin-1") + json.dumps(content).encode())

    return build
