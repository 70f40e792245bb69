"""Annotated images to CSV and label maps, or to COCO: all comes through, and nothing else is touched."""

import csv
import json
import os
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from pycocotools import mask as rle_codec

from tpu_retinamask.coco.conversion import write_coco, write_csv
from tpu_retinamask.coco.label_maps import inside, layer_masks, mark_of
from tpu_retinamask.coco.writing import coco_from_images
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.mask_reader import read_mask
from tpu_retinamask.data.sources.coco_source import read_content
from tpu_retinamask.data.sources.registry import ReadOptions
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.errors import UserError

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 90, "name": "tooth brush"}]


def _rle(mask):
    found = rle_codec.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [20, 30], "counts": found["counts"].decode()}


def _square(y1, x1, y2, x2):
    mask = np.zeros((20, 30), bool)
    mask[y1:y2, x1:x2] = True
    return mask


A, B, C = _square(2, 3, 12, 14), _square(5, 10, 18, 20), _square(3, 20, 9, 29)  # A and B overlap
ANNOTATIONS = [
    {"image_id": 7, "category_id": 18, "bbox": [2.5, 1.5, 12.01, 11.02], "iscrowd": 0, "segmentation": _rle(A)},
    {"image_id": 5, "category_id": 3, "bbox": [20, 3, 9, 6], "iscrowd": 1, "segmentation": _rle(C)},
    {"image_id": 7, "category_id": 90, "bbox": [10, 5, 10, 13], "iscrowd": 0, "segmentation": _rle(B)},
    {"image_id": 7, "category_id": 3, "bbox": [20, 3, 9, 6], "iscrowd": 0, "segmentation": _rle(C)},
    {"image_id": 7, "category_id": 18, "bbox": [1, 1, 4, 4], "iscrowd": 0, "segmentation": None},
    {"image_id": 7, "category_id": 18, "bbox": [0, 0, 30, 20], "iscrowd": 1, "segmentation": _rle(A | C)},
    {"image_id": 9, "category_id": 18, "bbox": [1, 1, 0.4, 4], "iscrowd": 0, "segmentation": _rle(A & False)},
]
NAMES = {5: "b.png", 7: "sub/a.png", 9: "c.png", 11: "d.png"}


@pytest.fixture
def photos(tmp_path):
    """Write pictures of 20 x 30 pixels by name below photos/; return that folder."""

    def write(*names):
        rng = np.random.default_rng(0)
        for name in names:
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                PIL.Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
        return tmp_path / "photos"

    return write


@pytest.fixture
def opened(photos):
    """Read and open COCO annotations: (classes, images)."""

    def run(annotations=ANNOTATIONS, names=NAMES, **settings):
        folder = photos(*{name for name in names.values() if ".." not in name and not name.startswith("/")})
        images = [{"id": key, "file_name": name, "height": 20, "width": 30} for key, name in names.items()]
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        found = read_content(content, "instances.json", None, ReadOptions(SourceSettings(**settings), str(folder)))
        return found.classes, scan_images(found.images, on_bad_record=settings.get("on_bad_record", "stop")).images

    return run


@pytest.fixture
def convert(tmp_path, opened):
    """Convert COCO annotations; return what was done and the path of the CSV."""

    def run(*given, output="csv/train.csv", masks="masks", **options):
        classes, images = opened(*given, **options)
        path = tmp_path / output
        done = write_csv(images, classes, output=str(path), mask_folder=masks and str(tmp_path / masks))
        return done, path

    return run


def rows_of(path):
    return list(csv.reader(path.open()))


def test_overlapping_masks_share_no_label_map():
    places, layers = layer_masks([A, None, B, C])
    assert places == [(0, 1), None, (1, 1), (0, 2)] and len(layers) == 2
    for mask, place in ((A, places[0]), (B, places[2]), (C, places[3])):
        np.testing.assert_array_equal(layers[place[0]] == place[1], mask)
    pixels = [np.arange(600).reshape(20, 30) == i for i in range(256)]
    places, layers = layer_masks(pixels)
    assert places[254:] == [(0, 255), (1, 1)] and len(layers) == 2


def test_every_row_worked_by_hand(convert):
    done, output = convert()
    assert rows_of(output) == [
        ["../photos/b.png", "", "", "", "", "", ""],
        ["../photos/sub/a.png", "2.5", "1.5", "14.51", "12.52", "dog", "../masks/sub/a.png#1"],
        ["../photos/sub/a.png", "10", "5", "20", "18", "tooth brush", "../masks/sub/a_1.png#1"],
        ["../photos/sub/a.png", "20", "3", "29", "9", "car", "../masks/sub/a.png#2"],
        ["../photos/sub/a.png", "1", "1", "5", "5", "dog", ""],
        ["../photos/c.png", "1", "1", "1.4", "5", "dog", ""],
        ["../photos/d.png", "", "", "", "", "", ""],
    ]
    assert done.summary() == "4 images with 5 instances, 2 mask files; 2 instances have no mask"


def test_what_training_reads_is_what_coco_said_and_back_again(convert):
    _, output = convert()
    names = ClassNames(("car", "dog", "tooth brush"))
    records = scan_images(read_annotations(str(output), names)).images
    found = [(i, record) for record in records for i in record.instances]
    for (instance, record), mask in zip(found, (A, B, C)):
        np.testing.assert_array_equal(read_mask(instance, record.height, record.width), mask)
    back = coco_from_images(records, names)
    wanted = [entry for entry in ANNOTATIONS if not entry["iscrowd"]]
    ids = {entry["name"]: entry["id"] for entry in CATEGORIES}
    assert [entry["bbox"] for entry in back["annotations"]] == [entry["bbox"] for entry in wanted]
    assert [ids[names.name_of(entry["category_id"])] for entry in back["annotations"]] == [
        entry["category_id"] for entry in wanted
    ]
    for entry, mask in zip(back["annotations"], (A, B, C)):
        np.testing.assert_array_equal(rle_codec.decode(entry["segmentation"]), mask)
    assert [entry["has_mask"] for entry in back["annotations"]] == [True] * 3 + [False] * 2


BAD = [
    {"image_id": 9, "category_id": 18, "bbox": [1, 1, 0, 4], "iscrowd": 0, "segmentation": None},
    {"image_id": 9, "category_id": 3, "bbox": [30, 1, 4, 4], "iscrowd": 0, "segmentation": None},
    {"image_id": 9, "category_id": 3, "bbox": [1, 14, 4, 4], "iscrowd": 0, "segmentation": _rle(C)},
]


def test_bad_instances_stop_or_are_counted(convert, opened):
    with pytest.raises(AnnotationError) as error:
        opened(ANNOTATIONS + BAD)
    assert list(error.value.problems) == [
        "annotations[7], c.png: the box 1,1,1,5 has no area (x1,y1,x2,y2)",
        "annotations[8], c.png: the box 30,1,34,5 lies outside the image of 30 x 20 pixels (width x height)",
        "annotations[9], c.png: mask of run lengths for 30 x 20 pixels has no pixel inside the box 1,14,5,18",
    ]
    done, _ = convert(ANNOTATIONS + BAD, on_bad_record="skip")
    assert done.instances == 5


def test_images_of_one_stem_are_kept_apart(convert):
    both = [dict(ANNOTATIONS[3], image_id=9), dict(ANNOTATIONS[3], image_id=11)]
    done, output = convert(both, {**NAMES, 11: "c.jpg"})
    assert [row[6] for row in rows_of(output) if row[6]] == ["../masks/c.png#1", "../masks/c.jpg.png#1"]
    assert done.mask_files == 2


def test_a_further_label_map_is_never_that_of_another_image(convert):
    every = [dict(entry, image_id=key) for key in (7, 9) for entry in (ANNOTATIONS[0], ANNOTATIONS[2])]
    names = {**NAMES, 9: "sub/a_1.png", 11: "sub/a_3.jpg"}
    done, output = convert([*every, dict(ANNOTATIONS[3], image_id=11)], names)
    assert [row[6] for row in rows_of(output) if row[6]] == [
        f"../masks/sub/{name}.png#1" for name in ("a", "a_2", "a_1", "a_1_1", "a_3")
    ]  # a_1 is the image's of that name, and so is a_3
    assert done.mask_files == 5


# ---- what is written stays where it belongs


@pytest.mark.parametrize(
    "name, kept",
    [
        ("a/b.png", "a/b.png"),
        ("../photos/a.png", "photos/a.png"),
        ("../../../etc/a.png", "etc/a.png"),
        ("x/../../a.png", "a.png"),
        ("/data/up/a.png", "data/up/a.png"),
        ("//data/a.png", "data/a.png"),
        ("C:\\data\\a.png", "data/a.png"),
        ("https://example.org/a.png", "example.org/a.png"),
        ("./a.png", "a.png"),
        ("..", "image"),
        ("", "image"),
    ],
)
def test_a_name_that_climbs_out_stays_inside(name, kept):
    assert inside(name) == kept


def test_file_names_that_climb_out_write_below_masks_alone(convert, photos, tmp_path):
    folder = photos("a.png", "b.png")
    names = {5: "../photos/a.png", 7: str(folder / "b.png")}
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done, output = convert([dict(ANNOTATIONS[3], image_id=key) for key in names], names)
    assert done.mask_files == 2 and {path: path.read_bytes() for path in folder.iterdir()} == before
    masks = [row[6].removeprefix("../").removesuffix("#1") for row in rows_of(output)]
    assert masks[0] == "masks/photos/a.png" and masks[1].startswith("masks/") and masks[1].endswith("photos/b.png")
    assert all((tmp_path / path).is_file() for path in masks)
    everything = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert everything == {"photos/a.png", "photos/b.png", "csv/train.csv", *masks}


def test_two_names_that_are_one_below_masks_are_kept_apart(convert, photos):
    photos("photos/a.png", "a.png")
    names = {5: "../photos/a.png", 7: "photos/a.png"}
    done, output = convert([dict(ANNOTATIONS[3], image_id=key) for key in names], names)
    assert [row[6] for row in rows_of(output)] == ["../masks/photos/a.png#1", "../masks/photos/a.png.png#1"]
    assert done.mask_files == 2


@pytest.mark.parametrize("folder", ["photos", "x/../photos", "link"])
def test_label_maps_never_replace_images(folder, convert, photos, tmp_path):
    before = (photos(*NAMES.values()) / "b.png").read_bytes()
    os.symlink(tmp_path / "photos", tmp_path / "link")
    with pytest.raises(AnnotationError, match="4 label maps would replace images.*--masks"):
        convert(masks=folder)
    assert (tmp_path / "photos" / "b.png").read_bytes() == before


def test_a_link_in_the_folder_leads_nowhere(convert, photos, tmp_path):
    photos(*NAMES.values())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "masks").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "masks" / "sub")
    with pytest.raises(AnnotationError, match=r"masks/sub/a.png is a link to .*elsewhere/a.png, outside of"):
        convert()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_rerun_replaces_its_own_and_nothing_else(convert, tmp_path):
    _, output = convert()
    first = output.read_text()
    convert(ANNOTATIONS[:4])  # of the same output: its own
    assert output.read_text() != first and mark_of(str(tmp_path / "masks/sub/a.png")) == "../csv/train.csv"
    with pytest.raises(AnnotationError) as error:  # of another: the label maps belong to the first
        convert(output="csv/val.csv")
    (problem,) = error.value.problems
    assert problem.endswith("masks/sub/a.png is there already, and not from an earlier conversion to this output")
    assert not (tmp_path / "csv/val.csv").exists()
    mine = tmp_path / "own" / "c.png"
    mine.parent.mkdir()
    PIL.Image.fromarray(np.zeros((4, 4), np.uint8)).save(mine)
    with pytest.raises(AnnotationError, match="own/c.png is there already"):
        convert(output="csv/val.csv", masks="own")


def test_a_further_label_map_replaces_nothing_either(convert, tmp_path):
    mine = tmp_path / "masks" / "sub" / "a_1.png"
    mine.parent.mkdir(parents=True)
    PIL.Image.fromarray(np.zeros((4, 4), np.uint8)).save(mine)
    before = mine.read_bytes()
    with pytest.raises(AnnotationError, match="a_1.png is there already"):
        convert()
    assert mine.read_bytes() == before


@pytest.mark.parametrize("text", ["a.png,1,2,3,4,cow\n", "photos/b.png,1,2,3,4,cow,photos/b.png#1\n", ""])
def test_a_csv_that_no_conversion_wrote_is_not_replaced(text, convert, tmp_path):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "train.csv").write_text(text)
    with pytest.raises(UserError, match="train.csv is there already.*give another path"):
        convert()
    assert (tmp_path / "csv" / "train.csv").read_text() == text and not (tmp_path / "masks").exists()


def test_masks_need_a_folder_and_boxes_none(convert, tmp_path):
    with pytest.raises(UserError, match="3 objects have masks: .*--masks=FOLDER"):
        convert(masks=None)
    done, output = convert([ANNOTATIONS[4]], masks=None)
    assert done.instances == 1 and [row[6] for row in rows_of(output)] == ["", "", "", ""]


def test_coco_is_written_with_names_that_are_found_again(opened, tmp_path):
    classes, images = opened()
    output = tmp_path / "json" / "out.json"
    write_coco(images, classes, output=str(output))
    content = json.loads(output.read_text())
    assert [entry["file_name"] for entry in content["images"]] == [f"../photos/{name}" for name in NAMES.values()]
    again = read_content(content, str(output), None, ReadOptions())
    assert [image.instances for image in scan_images(again.images).images] != []
    found = [instance.box for image in again.images for instance in image.instances]
    assert found == [i.box for image in images for i in image.instances]
    write_coco(images[:2], classes, output=str(output))  # its own
    assert len(json.loads(output.read_text())["images"]) == 2
    write_coco(images, classes, output=str(tmp_path / "in.json"), image_folder=str(tmp_path / "photos"))
    names = [entry["file_name"] for entry in json.loads((tmp_path / "in.json").read_text())["images"]]
    assert names == list(NAMES.values())
    (tmp_path / "mine.json").write_text('{"images": []}')
    with pytest.raises(UserError, match="mine.json is there already"):
        write_coco(images, classes, output=str(tmp_path / "mine.json"))
    with pytest.raises(UserError, match="in.json is a file that this conversion reads"):
        write_coco(images, classes, output=str(tmp_path / "in.json"), inputs=[str(tmp_path / "in.json")])
    with pytest.raises(UserError, match="b.png is a file that this conversion reads"):
        write_coco(images, classes, output=str(tmp_path / "photos" / "b.png"))


def _content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("older", [False, True])
def test_killed_at_any_point_a_rerun_ends_with_the_same_bytes(older, opened, tmp_path, monkeypatch):
    """There are four renames: of two label maps, of the classes and, last, of the CSV."""

    class Killed(BaseException):
        pass

    rename = tf.io.gfile.rename
    left = [0]

    def dies(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return rename(*arguments, **options)

    def run(annotations=ANNOTATIONS):
        classes, images = opened(annotations)
        beside = [(str(tmp_path / "csv" / "classes.csv"), classes.to_csv())]
        folder = str(tmp_path / "csv" / "masks")
        write_csv(images, classes, output=str(tmp_path / "csv" / "a.csv"), beside=beside, mask_folder=folder, threads=1)
        return _content(tmp_path / "csv")

    monkeypatch.setattr(tf.io.gfile, "rename", dies)
    left[0] = 4
    whole = run()
    for at in range(4):
        shutil.rmtree(tmp_path / "csv")
        if older:  # of other annotations: its CSV must not lie beside new label maps
            left[0] = 4
            run([*ANNOTATIONS[:2], dict(ANNOTATIONS[2], segmentation=_rle(_square(6, 11, 10, 15))), *ANNOTATIONS[3:]])
        left[0] = at
        with pytest.raises(Killed):
            run()
        assert not (tmp_path / "csv" / "a.csv").exists()
        left[0] = 4
        assert run() == whole


def test_a_csv_without_masks_is_written_again_where_it_would_be_the_same(opened, tmp_path):
    classes, images = opened([dict(annotation, segmentation=None) for annotation in ANNOTATIONS])
    output = str(tmp_path / "a.csv")
    for _ in range(2):
        write_csv(images, classes, output=output, mask_folder=None)
    with pytest.raises(UserError, match="a.csv is there already"):
        write_csv(images[1:], classes, output=output, mask_folder=None)
