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
BY_NAME = {"labelme", "voc", "yolo", "supervisely"}
WITHOUT_A_LIST = {"via2 json", "via2 csv", "via3 csv", "labelme", "voc", "labelstudio", "labelstudio min"}
KINDS = [(name, False) for name in OUTLINES] + [(name, True) for name in PIXELS]


def expected(name):
    found = [entry for entry in SET if name != "via3 csv" or entry[3]]
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
    if name != "yolo":  # whose pictures are what the folder holds
        with pytest.raises(UserError, match=r"expected a picture: .* is missing.*--images=FOLDER says where"):
            read_source(path, None)
        content = read_source(path, None, None, ReadOptions(image_folder=str(elsewhere)))
        check(scan_images(content.images).images, content.classes, name, False)


@pytest.mark.parametrize(
    "augmentation", [None, Augmentation(vertical_flip=0.5, scale_jitter=(0.5, 2.0), rotation=20.0)]
)
def test_batches_of_the_formats_are_those_of_the_csv_to_the_bit(
    augmentation, tmp_path, pipeline, samples, assert_same_batch
):
    made = pipeline(augmentation=augmentation, max_instances=4)
    annotations = write_csv(tmp_path / "csv")
    wanted = open_sources(annotations, str(tmp_path / "csv" / "classes.csv"), None, None)
    by_name = {image.name: image for image in wanted.train}
    for name, pixels in (("via2 json", False), ("cvat", False), ("via3 project", False), ("labelstudio", False)):
        path, _ = written(name, tmp_path / name, pixels)
        found = open_sources(path, None, None, None)
        assert found.classes == wanted.classes
        truth = samples(made.train_dataset([by_name[pathlib.Path(image.image).name] for image in found.train], 2), 4)
        for a, b in zip(truth, samples(made.train_dataset(found.train, 2), 4), strict=True):
            assert_same_batch(a, b)
