"""A prepared data set gives what its CSV gives, to the bit, and TFDS reads it."""

import pathlib
import zlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from reference.encoded_images import encode

from tpu_retinamask.coco.writing import coco_from_images
from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.augment.augmentation import Augmentation
from tpu_retinamask.data.images.mask_reader import read_mask
from tpu_retinamask.data.images.packed_masks import unpack_mask
from tpu_retinamask.data.prepared.reading import open_records
from tpu_retinamask.data.prepared.writing import RecordsBuilder
from tpu_retinamask.data.stream.host_batches import HostBatches

NUCLEI = pathlib.Path(__file__).resolve().parents[2] / "examples" / "nuclei"
EVERYTHING = Augmentation(
    horizontal_flip=0.5, vertical_flip=0.5, rot90=0.5, scale_jitter=(0.5, 2.5), brightness=0.2, contrast=0.3
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A CSV of everything that is read, scanned, and the same prepared: (ScanResult, PreparedData, classes)."""
    folder = tmp_path_factory.mktemp("everything")
    rng = np.random.default_rng(8)
    pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    labels = np.zeros((24, 32), np.uint16)
    labels[2:9, 3:14], labels[4, 5], labels[10:20, 6:12], labels[5:23, 20:31] = 1, 700, 700, 3
    blob = np.zeros((24, 32), np.uint8)
    blob[3:9, 4:11], blob[12:20, 14:30], blob[14, 16] = 255, 1, 0
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    files = {
        "a.png": encode(PIL.Image.fromarray(pixels), "PNG"),
        "b.jpg": encode(PIL.Image.fromarray(pixels), "JPEG"),
        "turned.jpg": encode(PIL.Image.fromarray(pixels.transpose(1, 0, 2)), "JPEG", exif=exif),
        "film.gif": encode(PIL.Image.fromarray(pixels[..., 0]), "GIF"),
        "gray.bmp": encode(PIL.Image.fromarray(pixels[..., 0]), "BMP"),
        "deep.png": encode(PIL.Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG"),
        "labels.png": encode(PIL.Image.fromarray(labels), "PNG"),
        "blob.png": encode(PIL.Image.fromarray(blob), "PNG"),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "classes.csv").write_text("cat,0\ndog,2\n")
    (folder / "train.csv").write_text(
        "a.png,3,2,14,9,cat,labels.png#1\na.png,6,10,12,20,dog,labels.png#700\na.png,20,5,31,23,cat,labels.png#3\n"
        "b.jpg,3.7,2.9,11.2,9.1,dog,blob.png\nb.jpg,13.5,11.25,30,20.001,cat,blob.png\nb.jpg,0,0,5,5,cat\n"
        "turned.jpg,4,3,11,9,cat,blob.png\n"  # the box is smaller than its mask
        "film.gif,20,5,31,23,dog,labels.png#3\ngray.bmp,1,1,30,20,cat,\ndeep.png,,,,,,\n"
    )
    classes = read_classes(str(folder / "classes.csv"))
    scanned = scan_images(read_annotations(str(folder / "train.csv"), classes), exif_orientation="apply")
    builder = RecordsBuilder(str(folder / "data"), classes, {"train": scanned}, sources={}, images_per_shard=4)
    assert builder.build()
    return scanned, open_records(str(folder / "data")), classes


def test_the_scene_holds_what_is_hard(prepared):
    scanned, data, _ = prepared
    assert scanned.shared_masks == 1 and {record.orientation for record in scanned.images} == {1, 6}
    assert (len(scanned.images), data.splits) == (6, ["train"])
    assert len({record.image.shard for record in data.split("train")}) == 2


@pytest.mark.parametrize(
    "mode, options",
    [
        ("eval_dataset", {"cache": True}),
        ("eval_dataset", {"image_size": (24, 32), "mask_size": 28}),
        ("train_dataset", {"augmentation": EVERYTHING, "seed": 5, "max_instances": 2}),
    ],
)
def test_batches_equal_those_of_the_csv_to_the_bit(mode, options, prepared, pipeline, samples, assert_same_batch):
    scanned, data, _ = prepared
    build = getattr(pipeline(**options), mode)
    expected, found = (samples(build(records, 4), 9) for records in (scanned.images, data.split("train")))
    assert len(expected) >= 8 and sum(int(sample.masks.any()) for sample in expected) >= 4
    for a, b in zip(expected, found, strict=True):
        assert_same_batch(a, b)


def test_a_stream_resumed_from_records_in_memory_is_that_of_the_csv(prepared, pipeline, samples, assert_same_batch):
    scanned, data, _ = prepared
    whole = samples(pipeline().train_dataset(scanned.images[1::2], 2), 8)
    resumed = samples(pipeline(cache=True).train_dataset(data.split("train")[1::2], 2, start_step=5), 3)
    for a, b in zip(whole[10:], resumed, strict=True):
        assert_same_batch(a, b)


def test_real_nuclei_from_records_equal_those_from_the_csv(tmp_path, pipeline, samples, assert_same_batch):
    classes = read_classes(str(NUCLEI / "classes.csv"))
    scanned = scan_images(read_annotations(str(NUCLEI / "val.csv"), classes)[:6])
    RecordsBuilder(str(tmp_path / "data"), classes, {"validation": scanned}, sources={}).build()
    stored = open_records(str(tmp_path / "data")).split("validation")
    built = pipeline(image_size=(256, 256), max_instances=100, mask_size=28)
    expected, found = samples(built.eval_dataset(scanned.images, 3)), samples(built.eval_dataset(stored, 3))
    assert sum(int(sample.has_mask.sum()) for sample in expected) > 100
    for a, b in zip(expected, found, strict=True):
        assert_same_batch(a, b)
    assert coco_from_images(stored, classes) == coco_from_images(scanned.images, classes)


def test_the_ground_truth_of_an_evaluation_is_the_same(prepared):
    scanned, data, classes = prepared
    assert data.classes == classes
    assert coco_from_images(data.split("train"), classes) == coco_from_images(scanned.images, classes)


def test_records_tell_what_the_scan_told(prepared):
    scanned, data, _ = prepared
    stored = data.split("train")
    for a, b in zip(scanned.images, stored, strict=True):
        assert (a.name, a.image_id, a.height, a.width, a.orientation) == (
            b.name,
            b.image_id,
            b.height,
            b.width,
            b.orientation,
        )
        assert [(i.line, i.box, i.class_id, i.mask is None) for i in a.instances] == [
            (i.line, i.box, i.class_id, i.mask is None) for i in b.instances
        ]
    assert stored[-1] == stored[5] and stored[:2] == [stored[0], stored[1]]
    with pytest.raises(IndexError):
        stored[6]


def test_python_transforms_see_the_same_pictures(prepared, pipeline, assert_same_batch):
    scanned, data, _ = prepared

    def darken(image, masks, labels, bboxes):
        return {"image": image // 2, "masks": masks, "labels": labels, "bboxes": bboxes}

    # Both read whole masks here; a file that two instances share without labels is a whole file in one of them only.
    plain = [scanned.images[0], *scanned.images[2:]]
    stored = [data.split("train")[i] for i in (0, 2, 3, 4, 5)]
    batches = [iter(HostBatches(pipeline(augmentation=None), records, darken, 3)) for records in (plain, stored)]
    for _ in range(3):
        assert_same_batch(*(next(stream) for stream in batches))


def test_tfds_reads_the_folder(prepared):
    tfds = pytest.importorskip("tensorflow_datasets")
    scanned, data, _ = prepared
    builder = tfds.builder_from_directory(data.data_dir)
    assert builder.info.splits["train"].num_examples == 6 and builder.info.splits["train"].shard_lengths == [4, 2]
    assert builder.info.features["objects"]["class"].names == ["cat", "unused_1", "dog"]
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)  # shard by shard, in order
    seen = list(builder.as_dataset(split="train", read_config=config).as_numpy_iterator())
    for record, example in zip(scanned.images, seen, strict=True):
        assert (example["image/id"], example["image/filename"].decode()) == (record.image_id, record.name)
        stored = (record.width, record.height) if record.orientation >= 5 else (record.height, record.width)
        assert example["image"].shape == (*stored, 3)
        np.testing.assert_array_equal(
            example["objects"]["box"], np.array([i.box for i in record.instances], np.float32).reshape(-1, 4)
        )
        np.testing.assert_array_equal(example["objects"]["class"], [i.class_id for i in record.instances])
        packed = np.frombuffer(zlib.decompress(example["masks"]), np.uint8)
        for number, instance in enumerate(record.instances):
            assert example["objects"]["has_mask"][number] == (instance.mask is not None)
            if instance.mask is not None and instance.mask.value is not None:
                np.testing.assert_array_equal(
                    unpack_mask(packed, example["objects"]["mask_window"], number, record.height, record.width),
                    read_mask(instance, record.height, record.width),
                )


def test_the_graph_is_native_and_reads_no_python(prepared, pipeline):
    dataset = pipeline().eval_dataset(prepared[1].split("train"), 2)
    graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
    used = {node.op for node in graph.node}
    used |= {node.op for function in graph.library.function for node in function.node_def}
    assert not used & {"PyFunc", "EagerPyFunc", "PyFuncStateless", "Where", "ReadFile"}
    assert {"TFRecordDatasetV2", "DecodeCompressed", "ScaleAndTranslate"} <= used
