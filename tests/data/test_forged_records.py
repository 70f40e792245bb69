"""Prepared data sets whose files were cut, or forged with checksums that fit: refused by name before they are used."""

import hashlib
import io
import os
import pathlib
import struct
import zipfile
import zlib

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.mask_reader import read_mask
from tpu_retinamask.data.prepared.index import SplitIndex
from tpu_retinamask.data.prepared.reading import open_records, verify_records
from tpu_retinamask.data.prepared.writing import RecordsBuilder
from tpu_retinamask.data.record_checks import RecordsError
from tpu_retinamask.data.record_format import parse_example, read_stored_image, read_stored_masks
from tpu_retinamask.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """One picture with two objects, one without, in a shard each: {name: content}."""
    folder = tmp_path_factory.mktemp("scene")
    mask = np.zeros((10, 20, 1), np.uint8)
    mask[2:8, 3:9] = 255
    for name, pixels in (("a.png", np.ones((10, 20, 3), np.uint8)), ("b.png", np.zeros((8, 8, 3), np.uint8))):
        (folder / name).write_bytes(tf.io.encode_png(pixels).numpy())
    (folder / "m.png").write_bytes(tf.io.encode_png(mask).numpy())
    (folder / "t.csv").write_text("a.png,3,2,9,8,cat,m.png\na.png,1,1,5,5,dog,\nb.png,,,,,,\n")
    (folder / "classes.csv").write_text("cat,0\ndog,1\n")
    classes = read_classes(str(folder / "classes.csv"))
    scanned = scan_images(read_annotations(str(folder / "t.csv"), classes))
    RecordsBuilder(str(folder / "data"), classes, {"train": scanned}, sources={}, images_per_shard=1).build()
    return {path.name: path.read_bytes() for path in (folder / "data").iterdir()}


@pytest.fixture
def data(prepared, tmp_path):
    """The data set in a folder of the test's own."""
    for name, content in prepared.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def _sign(data: pathlib.Path) -> None:
    """Make SHA256SUMS fit, as who forges files would."""
    names = [line.split("  ")[1] for line in (data / "SHA256SUMS").read_text().splitlines()]
    sums = [f"{hashlib.sha256((data / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (data / "SHA256SUMS").write_text("".join(sums))


def test_it_is_whole_as_it_was_written(data):
    assert verify_records(str(data)) == len(list(data.iterdir())) - 1
    assert len(open_records(str(data)).split("train")) == 2


@pytest.mark.parametrize("opened", [verify_records, open_records])
def test_a_list_of_checksums_cut_at_any_byte_is_named(opened, data):
    whole = (data / "SHA256SUMS").read_bytes()
    for length in [0, 1, 64, 66, *range(70, len(whole), 37), whole.rindex(b"\n", 0, -1) + 1, len(whole) - 1]:
        (data / "SHA256SUMS").write_bytes(whole[:length])
        with pytest.raises(RecordsError, match="damaged files; .*\n  SHA256SUMS: "):
            opened(str(data))


def test_checksums_of_other_files_and_random_bytes_are_named(data):
    whole = (data / "SHA256SUMS").read_text()
    line = whole.splitlines()[0]
    for content in (
        whole + line + "\n",
        whole.replace("classes.csv", "../etc/x"),
        whole + f"{'0' * 64}  x\n",
        "\xff\0",
    ):
        (data / "SHA256SUMS").write_bytes(content.encode("latin-1"))
        with pytest.raises(RecordsError, match="\n  SHA256SUMS: "):
            verify_records(str(data))


_SPLIT = '{"format": 1, "splits": {"train": {"images": 2, "instances": 2, "shards": %s}}}'


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "\xff", "[" * 100_000, '{"format": 1}', '{"format": 1, "splits": {"a/b": {}}}']
    + [_SPLIT % number for number in ("1e9", "1000000000000", "-1")],
    ids=lambda content: repr(content[-40:]),
)
def test_a_prepared_json_that_tells_something_else_is_named(content, data):
    (data / "prepared.json").write_bytes(content.encode("latin-1"))
    _sign(data)
    with pytest.raises(RecordsError):
        open_records(str(data))


@pytest.mark.parametrize("name", ["prepared.json", "classes.csv"])
def test_what_is_read_first_is_compared_with_its_checksum(name, data):
    (data / name).write_bytes((data / name).read_bytes() + b"\n")
    with pytest.raises(RecordsError, match=f"{name}: its content has changed"):
        open_records(str(data))


FAR = 10**15
FORGED = {
    "a record of 10^15 bytes": ({"length": [FAR, 8]}, "is longer than its shard"),
    "a record of one byte more": ({"length": lambda old: old + 1}, "is longer than its shard"),
    "a shorter record": ({"length": lambda old: old - 1}, "has another length in its shard"),
    "a negative length": ({"length": [-1, 8]}, "is longer than its shard"),
    "a length that overflows": ({"length": [2**63 - 1, 8]}, "is longer than its shard"),
    "an offset far away": ({"offset": [0, FAR]}, "begins outside its shard"),
    "a negative offset": ({"offset": [-5, 0]}, "begins outside its shard"),
    "a shard that is none": ({"shard": [0, 2]}, "lies in a shard that there is not"),
    "another's shard": ({"shard": [1, 1]}, "is longer than its shard"),
    "more shards": ({"shard_bytes": [5, 5, 5]}, "it tells of other shards"),
    "shards of other sizes": ({"shard_bytes": [FAR, FAR]}, f"bytes, expected {FAR}"),
    "no width": ({"size": [[10, 0], [8, 8]]}, "has no size"),
    "a huge picture": ({"size": [[10**6, 10**6], [8, 8]]}, "has no size"),
    "a turn of 9": ({"orientation": [9, 1]}, "has a turn"),
    "a class too many": ({"class_id": [0, 2]}, "record 0 of 2, 'a.png', has a class outside 0..1"),
    "a negative class": ({"class_id": [-1, 1]}, "has a class outside"),
    "a box that is no number": ({"box": [[np.nan, 2, 9, 8], [1, 1, 5, 5]]}, "has a box outside"),
    "a box outside": ({"box": [[3, 2, 9, 11], [1, 1, 5, 5]]}, "has a box outside"),
    "a box turned over": ({"box": [[9, 2, 3, 8], [1, 1, 5, 5]]}, "has a box outside"),
    "objects of nobody": ({"splits": [0, 2, 1]}, "not shared out"),
    "splits that overflow": ({"splits": [0, -(2**62), 2]}, "not shared out"),
    "a list too short": ({"image_id": [1]}, "not of one length: image_id"),
    "other kinds": ({"class_id": [0.0, 1.0]}, "its array class_id is float64"),
    "other sides": ({"box": [[1, 2], [3, 4]]}, "its array box is"),
    "names that are bytes": ({"name": [b"a", b"b"]}, "its array name is"),
    "fewer images": (
        {k: [v] for k, v in {"shard": 1, "offset": 0, "image_id": 1, "name": "b", "orientation": 1}.items()}
        | {"length": lambda old: old[1:], "size": [[8, 8]], "splits": [0, 2], "box": [[1, 1, 2, 2]] * 2},
        "it has 1 images, and prepared.json tells of 2",
    ),
}


@pytest.mark.parametrize("forged", FORGED)
def test_an_index_is_compared_with_shards_classes_and_itself(forged, data):
    changes, words = FORGED[forged]
    index = SplitIndex.from_bytes((data / "index-train.npz").read_bytes())
    for field, value in changes.items():
        old = getattr(index, field)
        new = value(old) if callable(value) else np.array(value)
        keep = forged in ("other kinds", "names that are bytes") or field == "name"
        index = index._replace(**{field: new if keep else new.astype(old.dtype if field != "length" else np.int64)})
    (data / "index-train.npz").write_bytes(index.to_bytes())
    _sign(data)
    with pytest.raises(RecordsError, match=words):
        open_records(str(data)).split("train")


def test_an_index_that_declares_a_terabyte_is_refused_before_it_is_made(data):
    index = SplitIndex.from_bytes((data / "index-train.npz").read_bytes())
    for shape in ((10**9,), (10**15,), (-1,), (2, 10**12)):
        buffer, header = io.BytesIO(), io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(buffer, "w") as archive:
            for field, values in index._asdict().items():
                one = io.BytesIO()
                np.save(one, values)
                archive.writestr(f"{field}.npy", header.getvalue() if field == "offset" else one.getvalue())
        (data / "index-train.npz").write_bytes(buffer.getvalue())
        _sign(data)
        with pytest.raises(RecordsError, match="index-train.npz: it"):
            open_records(str(data)).split("train")


def test_an_index_flipped_or_cut_anywhere_is_refused_or_still_fits(data):
    whole, rng = (data / "index-train.npz").read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 60).tolist():
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]):
            (data / "index-train.npz").write_bytes(content)
            _sign(data)
            try:
                open_records(str(data)).split("train")
            except RecordsError as error:
                assert "index-train.npz: " in str(error)


def test_a_frame_that_tells_another_length_is_refused(data):
    shard = data / "retinamask-train.tfrecord-00000-of-00002"
    shard.write_bytes(struct.pack("<Q", 10**15) + shard.read_bytes()[8:])
    _sign(data)
    with pytest.raises(RecordsError, match="record 0 of 2, 'a.png', has another length in its shard"):
        open_records(str(data)).split("train")


def test_pipes_in_place_of_files_are_named_and_nothing_waits_for_them(data):
    for name in ("retinamask-train.tfrecord-00001-of-00002", "index-train.npz", "classes.csv", "SHA256SUMS"):
        (data / name).unlink()
        os.mkfifo(data / name)
        with pytest.raises(UserError, match=f"{name}.* is a pipe, expected a file"):
            verify_records(str(data))
        with pytest.raises(UserError, match="is a pipe, expected a file"):
            open_records(str(data)).split("train")


def _example(data):
    place = open_records(str(data)).split("train")[0].image
    content = pathlib.Path(place.shard).read_bytes()[12:-4]
    return tf.train.Example.FromString(content), place


def _ints(example, name, values):
    del example.features.feature[name].int64_list.value[:]
    example.features.feature[name].int64_list.value.extend(values)


def _floats(example, name, values):
    del example.features.feature[name].float_list.value[:]
    example.features.feature[name].float_list.value.extend(values)


def _text(example, name, value):
    example.features.feature[name].bytes_list.value[:] = [value]


RECORDS = {
    "a class too many": (lambda one: _ints(one, "objects/class", [0, 2]), "a class"),
    "a class of 64 bits": (lambda one: _ints(one, "objects/class", [0, 1 << 32]), "a class"),
    "a negative class": (lambda one: _ints(one, "objects/class", [-1, 0]), "a class"),
    "a box that is no number": (lambda one: _floats(one, "objects/box", [np.nan, 1, 2, 3, 0, 0, 1, 1]), "a box"),
    "a box without end": (lambda one: _floats(one, "objects/box", [0, 1, np.inf, 3, 0, 0, 1, 1]), "a box"),
    "a box outside": (lambda one: _floats(one, "objects/box", [0, 1, 21, 3, 0, 0, 1, 1]), "a box"),
    "fewer classes": (lambda one: _ints(one, "objects/class", [0]), "the number of its objects"),
    "no width": (lambda one: _ints(one, "image/size", [10, 0]), "the height and width"),
    "a huge picture": (lambda one: _ints(one, "image/size", [1 << 31, 1 << 31]), "the height and width"),
    "a size that overflows": (lambda one: _ints(one, "image/size", [1 << 62, 4]), "the height and width"),
    "a turn of 0": (lambda one: _ints(one, "image/orientation", [0]), "the turn"),
    "a mask outside": (lambda one: _ints(one, "objects/mask_window", [19, 2, 6, 6, 0, 0, 0, 0]), "the place of a mask"),
    "a mask far away": (
        lambda one: _ints(one, "objects/mask_window", [(1 << 63) - 1, 2, 6, 6, 0, 0, 0, 0]),
        "the place of a mask",
    ),
    "a larger mask": (lambda one: _ints(one, "objects/mask_window", [0, 0, 20, 10, 0, 0, 0, 0]), "more or fewer bytes"),
    "masks that explode": (lambda one: _text(one, "masks", zlib.compress(bytes(1 << 24))), "the size of its masks"),
    "masks that are none": (lambda one: _text(one, "masks", b"none"), "inflate"),
}


@pytest.mark.parametrize("forged", RECORDS)
def test_a_record_that_holds_something_else_ends_its_batch(forged, data):
    change, words = RECORDS[forged]
    example, _ = _example(data)
    assert parse_example(example.SerializeToString(), tf.constant(2, tf.int64)).packed.shape == (5,)
    change(example)
    with pytest.raises(tf.errors.OpError, match=words) as error:
        parse_example(example.SerializeToString(), tf.constant(2, tf.int64))
    assert words in ("inflate", "more or fewer bytes") or "the record of a.png does not hold what was written: " in str(
        error.value
    )


def test_a_picture_of_another_size_than_was_said_ends_its_batch(data, pipeline):
    example, place = _example(data)
    _text(example, "image", tf.io.encode_png(np.zeros((11, 20, 3), np.uint8)).numpy())
    index = SplitIndex.from_bytes((data / "index-train.npz").read_bytes())
    with tf.io.TFRecordWriter(place.shard) as writer:
        writer.write(example.SerializeToString())
    size = os.path.getsize(place.shard)
    index = index._replace(
        shard_bytes=np.array([size, index.shard_bytes[1]]), length=np.array([size - 16, index.length[1]])
    )
    (data / "index-train.npz").write_bytes(index.to_bytes())
    _sign(data)
    images = open_records(str(data)).split("train")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"another height and width .*\[11 20\]"):
        next(iter(pipeline().eval_dataset(images, 1)))


@pytest.mark.parametrize("forged", ["a mask outside", "a larger mask", "masks that are none", "masks that explode"])
def test_masks_are_checked_where_they_are_read_on_the_host(forged, data):
    example, place = _example(data)
    RECORDS[forged][0](example)
    content = example.SerializeToString()
    pathlib.Path(place.shard).write_bytes(struct.pack("<Q", len(content)) + bytes(4) + content + bytes(4))
    place = type(place)(place.shard, 0, len(content))
    with pytest.raises(RecordsError, match="the record at byte 0 does not hold what was written: "):
        read_stored_masks(place)


def test_what_is_no_record_is_named_on_the_host(data):
    image = open_records(str(data)).split("train")[0]
    assert read_mask(image.instances[0], 10, 20).sum() == 36
    shard = pathlib.Path(image.image.shard)
    whole = shard.read_bytes()
    for content in (whole[:12] + bytes(range(256)) * 9, whole[:40], struct.pack("<Q", 5) + whole[8:]):
        shard.write_bytes(content)
        with pytest.raises(RecordsError, match="the record at byte 0 does not hold what was written: "):
            read_stored_image(image.image)
