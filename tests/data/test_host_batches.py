"""Batches behind a Python transform: those of the pipeline where it changes nothing, its changes where it does."""

import itertools
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.augment.augmentation import Augmentation
from tpu_retinamask.data.augment.transform import TransformError
from tpu_retinamask.data.stream.host_batches import HostBatches
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.errors import UserError

_NUCLEI = Path(__file__).resolve().parents[2] / "examples/nuclei"
EVERYTHING = Augmentation(
    horizontal_flip=0.5, vertical_flip=0.5, rot90=0.5, scale_jitter=(0.5, 2.0), brightness=0.2, contrast=0.3
)


def unchanged(**sample):
    """Return what was given."""
    return sample


def flipped(image, masks, labels, bboxes):
    """Mirror left and right, as albumentations' HorizontalFlip."""
    width = image.shape[1]
    return {
        "image": image[:, ::-1].copy(),
        "masks": [mask[:, ::-1] for mask in masks],
        "labels": labels,
        "bboxes": [(width - x2, y1, width - x1, y2) for x1, y1, x2, y2 in bboxes],
    }


@pytest.fixture(scope="module")
def records():
    """Five pictures of nuclei, with 12 to 131 instances."""
    rows = read_annotations(str(_NUCLEI / "val.csv"), read_classes(str(_NUCLEI / "classes.csv")))
    return scan_images(rows[:5]).images


def pipeline(augmentation=None, **options):
    """Return a pipeline of a small canvas."""
    return InputPipeline(**{"image_size": (128, 160), "max_instances": 40, "augmentation": augmentation, **options})


def take(batches, count):
    """Return the first batches as NumPy arrays."""
    return [batch._make(field.numpy() for field in batch) for batch in itertools.islice(batches, count)]


@pytest.mark.parametrize("workers", [1, 3])
def test_without_a_change_they_are_the_pipelines_own(records, workers):
    """Every field, dtype and shape, bit for bit, over more than an epoch, behind the pipeline's own augmentation."""
    ours = take(HostBatches(pipeline(EVERYTHING), records, unchanged, 2, start_step=1, workers=workers), 5)
    theirs = take(pipeline(EVERYTHING).train_dataset(records, 2, start_step=1), 5)
    for batch, expected in zip(ours, theirs):
        for name, value, wanted in zip(batch._fields, batch, expected):
            assert value.dtype == wanted.dtype
            np.testing.assert_array_equal(value, wanted, err_msg=name)


def test_shapes_are_static_and_told_beforehand(records):
    batches = HostBatches(pipeline(), records, unchanged, 2)
    assert batches.element_spec == pipeline().train_dataset(records, 2).element_spec
    for field, spec in zip(next(iter(batches)), batches.element_spec):
        assert spec.is_compatible_with(field)


def test_a_transform_is_applied(records):
    plain = take(HostBatches(pipeline(), records, unchanged, 1), 5)
    moved = take(HostBatches(pipeline(), records, flipped, 1), 5)
    compared = 0
    for batch, expected in zip(moved, plain):
        height, width = expected.content_size[0]
        assert tuple(batch.content_size[0]) == (height, width)
        if width != batch.original_size[0, 1] * batch.image_scale[0]:
            continue  # a picture whose scaled width is rounded samples elsewhere when it is mirrored
        compared += 1
        mirrored = expected.image[0, :height, :width][:, ::-1].astype(int)
        assert abs(batch.image[0, :height, :width] - mirrored).max() <= 1  # ties of the rounding
        np.testing.assert_array_equal(batch.classes, expected.classes)
        valid = expected.classes[0] >= 0
        boxes = expected.boxes[0][valid]
        np.testing.assert_allclose(
            batch.boxes[0][valid],
            np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1),
            atol=1e-3,
        )
    assert compared >= 2


def test_a_picture_may_change_its_size_and_lose_instances(records):
    def crop(image, masks, labels, bboxes):
        boxes = np.clip(bboxes, 0, 100)
        return {
            "image": image[:100, :100],
            "masks": [mask[:100, :100] for mask in masks],
            "labels": labels,
            "bboxes": boxes,
        }

    batches = HostBatches(pipeline(), records, crop, 1)
    for batch in take(batches, 5):
        record = next(record for record in records if record.image_id == batch.image_id[0])
        assert tuple(batch.original_size[0]) == (record.height, record.width)
        assert batch.content_size[0, 0] == batch.content_size[0, 1]
        np.testing.assert_allclose(batch.image_scale[0], 1.28, rtol=1e-6)
        valid = batch.classes[0] >= 0
        assert np.all(batch.boxes[0][valid] <= 128) and np.all(batch.masks[0][valid].any(axis=(1, 2)))
    assert batches.dropped_by_transform > 0


def test_one_worker_calls_in_order_and_so_repeats(records):
    def note(into):
        rng = np.random.default_rng(0)

        def transform(image, **rest):
            into.append(rng.integers(1000))
            return {"image": np.maximum(image, into[-1] % 200).astype(np.uint8), **rest}

        return transform

    first, second = (take(HostBatches(pipeline(), records, note([]), 2), 3) for _ in range(2))
    for batch, expected in zip(first, second):
        np.testing.assert_array_equal(batch.image, expected.image)


def test_a_refusal_reaches_the_loop_and_names_the_image(records):
    batches = iter(HostBatches(pipeline(), records, lambda **sample: {**sample, "masks": []}, 1))
    with pytest.raises(TransformError, match=r"transform of \S+\.png: masks is 0 masks for"):
        next(batches)


def test_its_threads_end_with_it(records):
    before = threading.active_count()
    batches = iter(HostBatches(pipeline(), records, unchanged, 1, workers=2))
    next(batches)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("host_batches")]
    assert threads
    batches.close()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert threading.active_count() <= before


def test_a_tpu_behind_a_network_is_refused_by_name(records, monkeypatch):
    batches = HostBatches(pipeline(), records, unchanged, 1)
    remote = "/job:worker/replica:0/task:0/device:TPU:0"
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda: [SimpleNamespace(name="/device:CPU:0"), SimpleNamespace(name=remote)]
    )
    with pytest.raises(UserError, match=f"unchanged.*cannot be used with {remote}, which is reached over the network"):
        iter(batches)
    local = "/job:localhost/replica:0/task:0/device:TPU:0"  # a TPU VM: the host of the TPU is this machine
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: [SimpleNamespace(name=local)])
    iter(batches).close()


def test_inside_the_graph_pipeline_it_is_refused_by_name():
    with pytest.raises(UserError, match="augmentation is .*unchanged.*expected an Augmentation or None.*HostBatches"):
        pipeline(unchanged)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": []}, "no images"),
        ({"batch_size": 0}, "batch_size 0 and workers 1 must be at least 1"),
        ({"workers": 0}, "workers 0 must be at least 1"),
        ({"start_step": -1}, "start_step -1"),
    ],
)
def test_refused_arguments(records, options, message):
    with pytest.raises(ValueError, match=message):
        HostBatches(**{"pipeline": pipeline(), "images": records, "transform": unchanged, "batch_size": 1, **options})
