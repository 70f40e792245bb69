"""One set, labelled once and written as every tool writes it, is read back as the same boxes, masks and batches."""

import pathlib

import numpy as np
import pytest
from reference.labelled_set import CLASSES, SET, box_of, drawn, is_box, window, write_csv
from reference.tool_writers import OUTLINES, PIXELS, written

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.augment.augmentation import Augmentation
from tpu_retinamask.data.images.mask_reader import read_mask
from tpu_retinamask.data.sources.opening import open_sources, read_source
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.errors import UserError

# Formats whose pictures come in the order of their files' names, not of the set.
BY_NAME = {"labelme", "voc", "yolo", "yolo --images", "supervisely"}
WITHOUT_A_LIST = {"via2 json", "via2 csv", "via3 csv", "labelme", "voc", "labelstudio", "labelstudio min"}
KINDS = [(name, False) for name in OUTLINES] + [(name, True) for name in PIXELS]


def expected(name):
    # Where nothing but the label files says which pictures are meant, those without objects are not.
    found = [entry for entry in SET if name not in ("via3 csv", "yolo --images") or entry[3]]
    if name == "supervisely":  # by the names of the pictures with their suffix
        return sorted(found, key=lambda entry: entry[0] + ".json")
    return sorted(found, key=lambda entry: entry[0]) if name in BY_NAME else found


def check(images, classes, name, pixels):
    wanted = expected(name)
    assert [pathlib.PurePosixPath(image.image).name for image in images] == [entry[0] for entry in wanted]
    for image, (_, width, height, shapes) in zip(images, wanted):
        assert (image.width, image.height) == (width, height)
        assert [classes.names[found.class_id] for found in image.instances] == [label for label, _ in shapes]
        for found, (_, shape) in zip(image.instances, shapes):
            if is_box(shape):
                assert found.box == box_of(shape) and found.mask is None
                continue
            truth = drawn(shape, width, height)
            assert found.box == (tuple(map(float, window(truth))) if pixels else box_of(shape))
            np.testing.assert_array_equal(read_mask(found, height, width), truth)


@pytest.mark.parametrize("name, pixels", KINDS)
def test_boxes_and_masks_come_back_exactly(name, pixels, tmp_path):
    path, source = written(name, tmp_path, pixels)
    content = read_source(path, None)
    assert content.classes.names == tuple(sorted(CLASSES)) == CLASSES
    check(scan_images(content.images).images, content.classes, name, pixels)
    assert SOURCES.get(source).read(path, None, ReadOptions()).classes == content.classes


@pytest.mark.parametrize("name, pixels", KINDS)
def test_each_is_recognised_by_its_own_source_alone(name, pixels, tmp_path):
    path, source = written(name, tmp_path, pixels)
    claimed = {other for other in SOURCES.names() if other != "csv" and SOURCES.get(other).recognise(path)}
    assert claimed == {source}


OTHERS = {
    "coco.json": {"images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}], "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}], "categories": [{"id": 1, "name": "cat"}]},
    "coco_sorted.json": {"annotations": [{"id": n, "segmentation": [[1.5] * 50]} for n in range(9000)], "images": []},
    "results.json": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 0.5}],
    "other.json": {"project": 1, "file": 2, "shapes": []},
    "list.json": [1, 2, [3]],
    "empty.json": "",
    "half.json": '{"a": "' + "b" * 300_000,
    "rows.csv": "a.png,1,2,3,4,cat,\n",
    "rows.txt": "a.png,1,2,3,4,cat,\nb.png,,,,,,\n",
    "other.xml": "<?xml version='1.0'?><svg/>",
    "other.yaml": "a: 1\n",
    "bytes.json": b"\xff\x00{",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_of_another_kind_is_left_to_it(name, save, tmp_path):
    path = save(name, OTHERS[name])
    for tried in (path, str(tmp_path), str(tmp_path / "gone"), "gs://", "", "a\0b", "\ud800", path + "#val"):
        own = ["coco"] if tried == path and name.startswith("coco") else []
        assert [kind for kind in SOURCES.names() if kind != "csv" and SOURCES.get(kind).recognise(tried)] == own


@pytest.mark.parametrize("name", OUTLINES)
def test_given_classes_number_the_objects_and_unknown_ones_are_named(name, tmp_path):
    path, _ = written(name, tmp_path)
    given = ClassNames(("dog", "zebra crossing", "cow", "cat"))
    content = read_source(path, given)
    assert content.classes == given
    check(scan_images(content.images).images, given, name, False)
    with pytest.raises(UserError) as error:
        read_source(path, ClassNames(("dog", "zebra crossin", "cat")))
    assert "'zebra crossing', expected a class of the class file; the nearest are 'zebra crossin'" in str(error.value)
    assert "1 bad entries" in str(error.value)
    skipping = ReadOptions(SourceSettings(on_bad_record="skip"))
    left = read_source(path, ClassNames(("dog", "zebra crossin", "cat")), None, skipping)
    assert sum(len(image.instances) for image in left.images) == 7 and "left out 1 bad entries" in left.notes[-1]


@pytest.mark.parametrize("name", OUTLINES)
def test_the_order_of_the_classes_is_the_list_of_the_source_or_sorted(name, tmp_path, monkeypatch):
    monkeypatch.setattr("reference.labelled_set.CLASSES", ("zebra crossing", "bird", "dog", "cat"))
    path, _ = written(name, tmp_path)
    if name == "yolo":
        file = pathlib.Path(path)
        file.write_text(file.read_text().replace("nc: 3", "nc: 4"))
    content = read_source(path, None)
    if name in WITHOUT_A_LIST:
        assert content.classes.names == CLASSES
        return
    assert content.classes.names == ("zebra crossing", "bird", "dog", "cat")
    leaving_out = ReadOptions(SourceSettings(unused_classes="leave_out"))
    content = read_source(path, None, None, leaving_out)
    assert content.classes.names == ("zebra crossing", "dog", "cat")
    assert any("left out 1 classes without an object: bird" in note for note in content.notes)
    check(scan_images(content.images).images, content.classes, name, False)


@pytest.mark.parametrize("name", OUTLINES)
def test_images_says_where_the_pictures_lie(name, tmp_path):
    path, _ = written(name, tmp_path / "labels")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for picture in [file for file in (tmp_path / "labels").rglob("*.png") if "Segmentation" not in str(file)]:
        picture.rename(elsewhere / picture.name)
    told = r"expected a picture: .* is missing.*--images=FOLDER says where|train: no such folder or list of pictures"
    with pytest.raises((UserError, FileNotFoundError), match=told):
        read_source(path, None)
    content = read_source(path, None, None, ReadOptions(image_folder=str(elsewhere)))
    check(scan_images(content.images).images, content.classes, "yolo --images" if name == "yolo" else name, False)


CHANGES = Augmentation(vertical_flip=0.5, rot90=0.5)


@pytest.mark.parametrize(
    "augmentation, names", [(None, ("via2 json", "cvat", "labelstudio")), (CHANGES, ("via3 project",))]
)
def test_batches_of_the_formats_are_those_of_the_csv_to_the_bit(
    augmentation, names, tmp_path, pipeline, samples, assert_same_batch
):
    made = pipeline(augmentation=augmentation, max_instances=4)
    annotations = write_csv(tmp_path / "csv")
    wanted = open_sources(annotations, str(tmp_path / "csv" / "classes.csv"), None, None)
    truth = samples(made.train_dataset(wanted.train, 2), 4)
    assert sum(int(sample.boxes.any(axis=-1).sum()) for sample in truth) > 8
    for name in names:
        path, _ = written(name, tmp_path / name)
        found = open_sources(path, None, None, None)
        assert found.classes == wanted.classes
        for a, b in zip(truth, samples(made.train_dataset(found.train, 2), 4), strict=True):
            assert_same_batch(a, b)
