"""YOLO: data sets as Ultralytics and Roboflow write them, and what is wrong with others."""

import pathlib

import numpy as np
import PIL.Image
import pytest
from reference.labelled_set import drawn

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.sources.opening import open_sources, read_splits
from tpu_retinamask.errors import UserError

YAML = "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['cat', 'dog']\n\nroboflow:\n  workspace: x\n"


@pytest.fixture
def yolo(save, picture, tmp_path):
    """Write a data set as Roboflow does, of one picture in train and one in valid; return the data.yaml."""

    def write_set(labels, yaml=YAML, valid="1 0.5 0.5 0.5 0.5"):
        picture("set/train/images/a_jpg.rf.1.jpg")
        picture("set/valid/images/b.png")
        if labels is not None:
            save("set/train/labels/a_jpg.rf.1.txt", labels)
        save("set/valid/labels/b.txt", valid)
        return save("set/data.yaml", yaml)

    return write_set


def test_boxes_and_polygons(yolo, objects):
    (found,) = objects(yolo("0 0.25 0.5 0.3 0.5\n1 0 0 0.5 0.0 0 0.5\n"))
    assert [entry[0] for entry in found] == ["cat", "dog"]
    np.testing.assert_allclose(found[0][1], (10, 20, 40, 60), atol=1e-12)
    assert found[0][2] is None and found[1][1] == (0, 0, 50, 40)
    np.testing.assert_array_equal(found[1][2], drawn((0, 0, 50, 0, 0, 40), 100, 80))


def test_splits(yolo, read, wrong):
    path = yolo("0 0.25 0.5 0.3 0.5")
    folder = str(pathlib.Path(path).parent)
    for val in (f"{path}#val", f"{path}#valid", f"{folder}#val"):
        assert [pathlib.Path(image.image).name for image in read(val).images] == ["b.png"]
    assert len(read(folder).images) == 1
    sources = open_sources(path, None, f"{path}#val", None)
    assert sources.classes.names == ("cat", "dog") and len(sources.validation) == 1
    digests = {name: split.sha256 for name, split in read_splits(path, None, f"{path}#val").items() if split.sha256}
    assert set(digests) == {"train"}
    assert "data.yaml: test: got nothing, expected the folder of the pictures; it has ['train', 'val']" in wrong(
        f"{path}#test"
    )


def test_a_yaml_as_ultralytics_writes_it(save, picture, read):
    picture("d/images/train/a.jpg")
    picture("d/images/train/bg.jpg")
    picture("d/images/val/b.jpg")
    save("d/labels/train/a.txt", "1 0.5 0.5 0.5 0.5\r\n1 0.5 0.5 0.5 0.5\r\n\r\n")
    save("d/labels/val/b.txt", "")
    path = save(
        "d/coco.yaml",
        "path: ../datasets/d # elsewhere\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n",
    )
    content = read(path)
    assert [(image.name.split("/")[-1], len(image.instances)) for image in content.images] == [
        ("a.jpg", 1),
        ("bg.jpg", 0),
    ]
    assert content.notes == (
        "1 pictures have no label file and are trained as background",
        "left out 1 lines that repeat one of their file",
    )
    assert len(read(f"{path}#val", allow_empty=True).images) == 1
    # A folder without a data.yaml has the names that are given, or those of classes.txt.
    pathlib.Path(path).unlink()
    folder = str(pathlib.Path(path).parent)
    with pytest.raises(UserError, match="nothing names the classes"):
        read(folder)
    assert read(folder, ClassNames(("x", "y"))).images[0].instances[0].class_id == 1
    save("d/classes.txt", "ant\nbee\n")
    assert read(folder).classes.names == ("ant", "bee")


def test_a_list_of_pictures(save, picture, read):
    picture("d/images/x/a.jpg")
    save("d/labels/x/a.txt", "0 0.5 0.5 0.5 0.5")
    save("d/train.txt", "./images/x/a.jpg\n")
    path = save("d/data.yaml", "train: train.txt\nval: [images/x]\nnames: [cat]\n")
    assert len(read(path).images) == len(read(f"{path}#val").images) == 1
    assert len(read(pathlib.Path(path).with_name("train.txt"), ClassNames(("cat",))).images) == 1


def test_shares_of_a_photograph_on_its_side(write, save, read):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    write("d/images/a.jpg", PIL.Image.new("RGB", (100, 80)), exif=exif)
    save("d/labels/a.txt", "0 0.5 0.5 0.5 0.5")
    folder = pathlib.Path(save("d/classes.txt", "cat")).parent
    assert read(folder, exif_orientation="ignore").images[0].instances[0].box == (25, 20, 75, 60)
    assert read(folder, exif_orientation="apply").images[0].instances[0].box == (20, 25, 60, 75)


def test_rounding_at_the_border_is_no_fault(yolo, read):
    (image,) = read(yolo("0 0.9 0.5 0.200002 0.5\n1 -0.0005 0 1.0004 0 0.5 1.0004")).images
    assert image.instances[0].box[2] == 100 and image.instances[1].box == (0, 0, 100, 80)


@pytest.mark.parametrize(
    "line, message",
    [
        ("0 0.5 0.5 0.5", "line 1: got 4 numbers, expected 5 (class, x, y, width, height)"),
        ("0 0.5 0.5 0.5 0.5 0.9", "line 1: got 6 numbers, expected 5"),
        ("0 0.5 0.5 0.5 0.5 0.9 0.1 0.1", "line 1: got 8 numbers, expected 5"),
        ("2 0.5 0.5 0.5 0.5", "line 1: got the class '2', expected a number from 0 to 1"),
        ("-1 0.5 0.5 0.5 0.5", "line 1: got the class '-1', expected a number from 0 to 1"),
        ("cat 0.5 0.5 0.5 0.5", "line 1: got the class 'cat', expected a number from 0 to 1"),
        ("0 50 0.5 0.5 0.5", "line 1: got '50', expected a share of the picture's size from 0 to 1"),
        ("0 nan 0.5 0.5 0.5", "line 1: got 'nan', expected a share"),
        ("0 0.5 0.5 0 0.5", "line 1: got the extent 50, 20, 50, 60, expected one with an area"),
        (b"\xff\xfe0 0.5", "a_jpg.rf.1.txt: byte 0 is no UTF-8 text"),
    ],
)
def test_what_is_wrong_is_named(line, message, yolo, wrong):
    said = wrong(yolo(line))
    assert "1 bad entries" in said and message in said and "a_jpg.rf.1.txt" in said


@pytest.mark.parametrize(
    "yaml, message",
    [
        ("train: [", "not a YAML file"),
        ("train: images\n- x", "not a YAML file"),
        ("[train: x]", "data.yaml: got a list of 1, expected an object"),
        ("train: train/images\nnames: {0: cat, 2: dog}", "names: got the numbers a list of 2, expected 0, 1, 2, ..."),
        ("train: train/images\nnames: cat", "names: got 'cat', expected the names of the classes"),
        ("train: train/images\nnames: [cat, '']", "names[1]: got '', expected the name of a class"),
        ("train: train/images\nnames: [cat]\nnc: 80", "nc: got 80, expected 1, which are named"),
        ("train: train/images\nnames: [cat, cat]", "1 names stand for several classes: 'cat'"),
        ("train: 5\nnames: [cat]", "data.yaml: train: got 5, expected a folder or a list of pictures"),
        ("a: &a [x]\ntrain: *a\nnames: [cat]", "holds aliases"),
    ],
)
def test_a_data_yaml_that_is_wrong_is_named(yaml, message, yolo, wrong):
    assert message in wrong(yolo("0 0.5 0.5 0.5 0.5", yaml))


def test_folders_that_are_not_there(yolo, read, wrong):
    with pytest.raises(FileNotFoundError, match="train: no such folder or list of pictures: .*gone"):
        read(yolo("0 0.5 0.5 0.5 0.5", "train: gone\nnames: [cat]"))
    path = yolo("0 0.5 0.5 0.5 0.5")
    pathlib.Path(path).with_name("train").joinpath("images", "a_jpg.rf.1.jpg").write_bytes(b"no picture")
    assert "got a file whose size cannot be read" in wrong(path)


@pytest.mark.parametrize("value", ["!!int ''", "!!bool x", "!!binary x", "2001-99-99", "!!python/object:os.system x"])
def test_tags_of_yaml_are_refused(value, yolo, wrong):
    assert "not a YAML file" in wrong(yolo("0 0.5 0.5 0.5 0.5", f"train: train/images\nnames: [{value}]"))
