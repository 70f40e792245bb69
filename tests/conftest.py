"""Where the shared real data lies, and small made-up COCO files."""

import os
import pathlib

import numpy as np
import pytest

from tpu_retinamask.evaluation.results import encode_rle


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real data: $TPU_RETINAMASK_SHARED_DATA, or ../shared/data beside the repository."""
    repository = pathlib.Path(__file__).resolve().parents[1]
    folder = pathlib.Path(os.environ.get("TPU_RETINAMASK_SHARED_DATA", repository.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            f"NO REAL DATA: {folder} is missing, so nothing was checked against real annotations here; "
            "set TPU_RETINAMASK_SHARED_DATA to the folder that holds coco/ and nuclei/"
        )
    return folder


@pytest.fixture
def make_truth():
    """Build a COCO dataset: make_truth(images={id: (h, w)}, annotations=[...], categories=[...])."""

    def build(annotations, images=None, categories=("cell", "dust")):
        return {
            "images": [{"id": i, "height": h, "width": w} for i, (h, w) in (images or {1: (100, 100)}).items()],
            "categories": [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(categories)],
            "annotations": annotations,
        }

    return build


@pytest.fixture
def square():
    """Build an annotation or result whose mask is its box: square(x, y, side, category=10, image=1)."""

    def build(x, y, side, *, category=10, image=1, size=(100, 100), **more):
        mask = np.zeros(size, bool)
        mask[y : y + side, x : x + side] = True
        return {
            "image_id": image, "category_id": category, "bbox": [x, y, side, side], "area": side * side,
            "segmentation": encode_rle(mask), **more,
        }  # fmt: skip

    return build
