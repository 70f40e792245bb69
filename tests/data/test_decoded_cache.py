"""Images kept decoded: the batches of the files to the bit, no file opened again, refused where memory is short."""

import logging

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.augment.augmentation import Augmentation
from tpu_retinamask.data.stream import decoded_cache
from tpu_retinamask.data.stream.decoded_cache import available_memory, decoded_bytes, fits_in_memory

CHANGES = Augmentation(horizontal_flip=0.5, rot90=0.5, scale_jitter=(0.5, 2.5), rotation=20.0)


def test_decoded_images_give_the_batches_of_the_files(records, pipeline, samples, assert_same_batch):
    expected = samples(pipeline(augmentation=CHANGES).train_dataset(records, 3), 3)
    dataset = pipeline(augmentation=CHANGES, cache="decoded").train_dataset(records, 3)
    for path in {
        file for record in records for file in (record.image, *(i.mask.path for i in record.instances if i.mask))
    }:
        tf.io.gfile.remove(path)
    for a, b in zip(expected, samples(dataset, 3), strict=True):
        assert_same_batch(a, b)


def test_a_picture_turned_by_its_exif_is_kept_upright(write, pipeline, samples, assert_same_batch):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    stored = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)
    write("x.jpg", PIL.Image.fromarray(stored), exif=exif, quality=95)
    rows = read_annotations(write("t.csv", "x.jpg,16,0,24,8,cat\n"), read_classes(write("c.csv", "cat,0\n")))
    upright = scan_images(rows, exif_orientation="apply").images
    for a, b in zip(
        samples(pipeline().train_dataset(upright, 1), 1),
        samples(pipeline(cache="decoded").train_dataset(upright, 1), 1),
        strict=True,
    ):
        assert_same_batch(a, b)


def test_the_estimate_counts_pixels_and_bounds_masks(records):
    pixels = 3 * (24 * 32 + 20 * 16 + 12 * 40)
    assert pixels < decoded_bytes(records) < pixels + 120  # 7 boxes of at most 228 pixels, a bit each
    assert available_memory() > 2**20


def test_where_memory_is_short_the_files_are_read_and_a_warning_says_so(
    records, pipeline, samples, assert_same_batch, monkeypatch, caplog
):
    assert fits_in_memory(800, "x", available=1000) and not fits_in_memory(801, "x", available=1000)
    monkeypatch.setattr(decoded_cache, "available_memory", lambda: 5000)
    with caplog.at_level(logging.INFO, logger="tpu_retinamask"):
        dataset = pipeline(cache="decoded").train_dataset(records, 3)
    assert "decoded images: 0.00 GB, 0.00 GB of memory are free, of which at most 80% is used" in caplog.text
    for a, b in zip(samples(pipeline().train_dataset(records, 3), 1), samples(dataset, 1), strict=True):
        assert_same_batch(a, b)


def test_an_unknown_cache_is_refused(pipeline):
    with pytest.raises(ValueError, match="cache is 'pixels', expected 'files', 'decoded' or False"):
        pipeline(cache="pixels")
