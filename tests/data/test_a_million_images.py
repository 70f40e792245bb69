"""A prepared set of very many images is opened by its index: no object an image, no loop over them."""

import numpy as np
import pytest

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.image_arrays import image_arrays
from tpu_retinamask.data.prepared.reading import RecordSplit, SplitIndex
from tpu_retinamask.data.stream.image_tensors import image_tensors
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.data.stream.summary import summarize
from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.tasks import preflight


def synthetic_index(count, per_image, seed=0):
    """Return the index of `count` images in shards of 1000, 640 x 480 or 480 x 640, of `per_image` objects each."""
    rng = np.random.default_rng(seed)
    total, shards = count * per_image, -(-count // 1000)
    corner, side = rng.uniform(0, 400, (total, 2)), rng.uniform(8, 80, (total, 2))
    length = rng.integers(50_000, 150_000, count)
    landscape = rng.random(count) < 0.5
    return SplitIndex(
        shard_bytes=np.full(shards, 10**8),
        shard=np.repeat(np.arange(shards, dtype=np.int32), 1000)[:count],
        offset=np.concatenate([[0], np.cumsum(length)[:-1]]),
        length=length,
        image_id=np.arange(count),
        name=np.char.add("train/", np.arange(count).astype("U7")),
        size=np.stack([np.where(landscape, 480, 640), np.where(landscape, 640, 480)], axis=1).astype(np.int32),
        orientation=np.ones(count, np.int32),
        splits=np.arange(count + 1) * per_image,
        line=np.arange(total),
        box=np.concatenate([corner, corner + side], axis=1),
        class_id=rng.integers(0, 80, total, dtype=np.int32),
        has_mask=np.ones(total, bool),
    )


class Counted(RecordSplit):
    """Counts the images that are made one by one."""

    made = 0

    def __getitem__(self, position):
        Counted.made += 1
        return super().__getitem__(position)


@pytest.fixture
def split():
    Counted.made = 0
    return Counted("nowhere", "train", synthetic_index(5000, 3))


def test_arrays_tensors_files_and_places_are_those_of_the_images_one_by_one(split):
    arrays, one_by_one = image_arrays(split), image_arrays(list(split))
    for field, expected in zip(arrays, one_by_one, strict=True):
        np.testing.assert_array_equal(field, expected)
    fast, slow = image_tensors(split, False), image_tensors(list(split), False)
    for field, expected in zip(fast[:-1], slow[:-1], strict=True):
        np.testing.assert_array_equal(field, expected)
    assert list(preflight.files_of(split)) == [("image", f"nowhere/retinamask-train.tfrecord-{i:05d}-of-00005")
                                               for i in range(5)]  # fmt: skip
    assert set(preflight.files_of(list(split))) == set(preflight.files_of(split))


def test_nothing_that_a_training_does_before_its_first_step_makes_images_one_by_one(split, caplog):
    caplog.set_level("INFO")
    pipeline = InputPipeline(image_size=(64, 64), repeat_rare=0.1)
    grid = AnchorGrid(sizes=(4, 8, 16, 32, 64))
    preflight.report_coverage(grid, split, pipeline, 0.5)
    summarize(split, ClassNames(tuple(map(str, range(80)))), pipeline)
    list(preflight.files_of(split))
    dataset = pipeline.train_dataset(split, 2)
    assert dataset.element_spec.image.shape == (2, 64, 64, 3)
    assert Counted.made == 0
    assert "of 15000 boxes at IoU 0.5" in caplog.text


def test_of_more_boxes_than_are_compared_the_figure_says_so(split, caplog, monkeypatch):
    caplog.set_level("INFO")
    whole = float(np.mean(
        AnchorGrid(sizes=(4, 8, 16, 32, 64)).best_iou(image_arrays(split).boxes / 10) >= 0.5
    ))  # fmt: skip
    monkeypatch.setattr(preflight, "MOST_COMPARED", 5000)
    preflight.report_coverage(AnchorGrid(sizes=(4, 8, 16, 32, 64)), split, InputPipeline(image_size=(64, 64)), 0.5)
    said = next(record.getMessage() for record in caplog.records if "anchors cover" in record.getMessage())
    assert "of 5000 out of 15000 boxes" in said
    # A share of 5000 evenly chosen ones is within 4 deviations, 4 * sqrt(.25 / 5000).
    assert abs(float(said.split("cover ")[1].split("%")[0]) / 100 - whole) < 0.03


@pytest.mark.slow
def test_a_million_images_are_opened_in_a_minute_and_two_gigabytes(tmp_path):
    """Written as prepare writes an index, opened in a process of its own, which tells its memory."""
    import json
    import subprocess
    import sys

    content = synthetic_index(1_000_000, 7).to_bytes()
    (tmp_path / "index.npz").write_bytes(content)
    code = """
import json, resource, sys, time
import tensorflow as tf
begun = time.monotonic()
from tpu_retinamask.data.prepared.reading import RecordSplit, SplitIndex
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.tasks import preflight
split = RecordSplit("nowhere", "train", SplitIndex.from_bytes(open(sys.argv[1], "rb").read()))
pipeline = InputPipeline()
preflight.report_coverage(AnchorGrid(), split, pipeline, 0.5)
list(preflight.files_of(split))
dataset = pipeline.train_dataset(split, 16)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"images": len(split), "seconds": time.monotonic() - begun, "bytes": peak}))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "index.npz")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    print(said)
    assert said["images"] == 1_000_000
    assert said["bytes"] < 2 << 30
