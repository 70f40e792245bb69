"""Preparing survives being stopped, and damage to what it wrote is named."""

import json
import pathlib

import pytest
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.prepared import writing as records_builder
from tpu_retinamask.data.prepared.reading import RecordsError, open_records, verify_records
from tpu_retinamask.data.prepared.writing import RecordsBuilder
from tpu_retinamask.errors import UserError


@pytest.fixture
def builder(scene):
    """Make a builder of the scene's three images, one a shard, in two splits."""
    annotations, classes_file = scene
    classes = read_classes(classes_file)
    scanned = scan_images(read_annotations(annotations, classes))
    one = scan_images(read_annotations(annotations, classes)[:1])

    def build(data_dir, **options):
        settings = {"sources": {"train": "1234"}, "images_per_shard": 1} | options
        return RecordsBuilder(str(data_dir), classes, {"train": scanned, "validation": one}, **settings)

    return build


def _content(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


@pytest.fixture
def whole(builder, tmp_path):
    """The folder of a data set prepared without interruption."""
    assert builder(tmp_path / "whole").build() is True
    return tmp_path / "whole"


def test_the_files_are_those_of_a_tfds_data_set(whole):
    assert sorted(_content(whole)) == sorted(
        [
            "SHA256SUMS",
            "classes.csv",
            "dataset_info.json",
            "features.json",
            "index-train.npz",
            "index-validation.npz",
            "objects-class.labels.txt",
            "prepared.json",
            "retinamask-validation.tfrecord-00000-of-00001",
            *(f"retinamask-train.tfrecord-0000{i}-of-00003" for i in range(3)),
        ]
    )
    prepared = json.loads((whole / "prepared.json").read_text())
    assert prepared["splits"]["train"]["images"] == 3 and prepared["splits"]["train"]["instances"] == 6
    assert prepared["splits"]["train"]["scan"] == "3 images with 6 instances; nothing dropped"
    assert not any(str(whole.parent) in content.decode("latin-1") for content in _content(whole).values())


# Every rename of the whole; those of the plan, of a shard, of its index and of the last file are of different kinds.
@pytest.mark.parametrize(
    "stop_at", [place if place in (0, 4, 6, 22) else pytest.param(place, marks=pytest.mark.slow) for place in range(23)]
)
def test_stopped_anywhere_it_ends_with_the_same_bytes(stop_at, whole, builder, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    calls = iter(range(10**6))
    rename = tf.io.gfile.rename

    def dies(*arguments, **options):  # everything that is written passes through a rename
        if next(calls) == stop_at:
            raise Killed
        return rename(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(records_builder.tf.io.gfile, "rename", dies)
        with pytest.raises(Killed):
            builder(tmp_path / "stopped").build()
    with pytest.raises(RecordsError, match="is unfinished: run prepare again with the same flags"):
        open_records(str(tmp_path / "stopped"))
    assert builder(tmp_path / "stopped").build() is True
    assert _content(tmp_path / "stopped") == _content(whole)


def test_shards_that_are_whole_are_not_written_again(builder, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    first = builder(tmp_path / "data")
    monkeypatch.setattr(first, "_finish", lambda plan: None)
    first.build()
    shard = tmp_path / "data" / "retinamask-train.tfrecord-00001-of-00003"
    before = shard.stat().st_mtime_ns
    damaged = tmp_path / "data" / "retinamask-train.tfrecord-00002-of-00003"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    builder(tmp_path / "data").build()
    assert shard.stat().st_mtime_ns == before
    assert "going on: 3 of 4 images are in finished shards" in caplog.text
    assert verify_records(str(tmp_path / "data")) == 11


def test_a_finished_data_set_is_left_alone(whole, builder):
    before = {path.name: path.stat().st_mtime_ns for path in whole.iterdir()}
    assert builder(whole).build() is False
    assert {path.name: path.stat().st_mtime_ns for path in whole.iterdir()} == before


@pytest.mark.parametrize(
    "options, key", [({"sources": {"train": "5678"}}, "sources"), ({"images_per_shard": 2}, "images_per_shard, splits")]
)
def test_another_source_is_refused(options, key, whole, builder):
    before = _content(whole)
    with pytest.raises(RecordsError, match=rf"from something else \({key} differ\): choose another --data_dir"):
        builder(whole, **options).build()
    assert _content(whole) == before


def test_a_folder_with_other_files_is_refused(builder, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(RecordsError, match=r"holds other files \(cat.jpg\): give prepare a folder of its own"):
        builder(tmp_path / "photos").build()


def test_a_folder_that_cannot_be_written_is_named(builder, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RecordsError, match="cannot write to .*file/data: .*run the same command again"):
        builder(tmp_path / "file" / "data").build()
    with pytest.raises(ValueError, match="images_per_shard is 0, expected at least 1"):
        builder(tmp_path / "data", images_per_shard=0)


def _damage(path, at=-20):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("file", ["retinamask-train.tfrecord-00001-of-00003", "index-train.npz", "dataset_info.json"])
def test_verification_names_what_has_changed(file, whole):
    assert verify_records(str(whole)) == 11
    _damage(whole / file)
    with pytest.raises(RecordsError, match=f"1 damaged files; .*\n  {file}: its content has changed"):
        verify_records(str(whole))
    (whole / file).unlink()
    with pytest.raises(RecordsError, match=f"{file}: missing"):
        verify_records(str(whole))


def test_opening_sees_missing_and_cut_shards_and_a_damaged_index(whole):
    data = open_records(str(whole))
    shard = whole / "retinamask-train.tfrecord-00002-of-00003"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(RecordsError, match=f"00002-of-00003: {size - 5} bytes, expected {size}"):
        data.split("train")
    shard.unlink()
    with pytest.raises(RecordsError, match="00002-of-00003: missing"):
        data.split("train")
    assert len(data.split("validation")) == 1
    _damage(whole / "index-validation.npz")
    with pytest.raises(RecordsError, match="index-validation.npz: another checksum"):
        data.split("validation")
    assert issubclass(RecordsError, UserError)


def test_a_record_damaged_later_stops_the_batch(whole, pipeline):
    records = open_records(str(whole)).split("train")
    _damage(whole / "retinamask-train.tfrecord-00000-of-00003", at=400)  # of the same size: only its checksum tells
    with pytest.raises(tf.errors.DataLossError, match="corrupted record"):
        next(iter(pipeline().eval_dataset(records, 1)))


def test_what_is_no_data_set_is_refused(whole, tmp_path):
    with pytest.raises(RecordsError, match="holds no prepared data set .* write one with prepare"):
        open_records(str(tmp_path))
    with pytest.raises(RecordsError, match=r"has no split 'test'; it has \['train', 'validation'\]"):
        open_records(str(whole)).split("test")
    (whole / "prepared.json").write_text('{"format": 99}')
    with pytest.raises(RecordsError, match="says format 99, expected 1"):
        open_records(str(whole))
