"""COCO instances to CSV: every box, class and mask comes through, crowds stay behind and are counted."""

import csv

import numpy as np
import pytest
from pycocotools import mask as rle_codec

from tpu_retinamask.coco.conversion import class_names, layer_masks, write_csv
from tpu_retinamask.coco.writing import coco_from_images
from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.mask_reader import read_mask

CATEGORIES = {18: {"id": 18, "name": "dog"}, 3: {"id": 3, "name": "car"}, 90: {"id": 90, "name": "tooth brush"}}


def _rle(mask):
    return rle_codec.encode(np.asfortranarray(mask.astype(np.uint8)))


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


@pytest.fixture
def images(write):
    """Three pictures of 20 x 30 pixels by their COCO ids."""
    rng = np.random.default_rng(0)
    for name in ("sub/a.png", "b.png", "c.png", "d.png"):
        write(f"photos/{name}", rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    return {
        key: {"id": key, "file_name": name, "height": 20, "width": 30}
        for key, name in ((5, "b.png"), (7, "sub/a.png"), (9, "c.png"), (11, "d.png"))
    }


@pytest.fixture
def convert(tmp_path, images):
    def run(annotations, **options):
        output = tmp_path / "csv" / "train.csv"
        done = write_csv(
            images,
            annotations,
            CATEGORIES,
            image_folder=str(tmp_path / "photos"),
            output=str(output),
            mask_folder=str(tmp_path / "masks"),
            **options,
        )
        return done, output

    return run


def test_classes_are_numbered_in_the_order_of_their_ids():
    assert class_names(CATEGORIES).names == ("car", "dog", "tooth brush")
    with pytest.raises(AnnotationError, match="'dog' is used twice"):
        class_names(CATEGORIES | {4: {"id": 4, "name": "dog"}})
    with pytest.raises(AnnotationError, match="0 categories"):
        class_names({})


def test_overlapping_masks_share_no_label_map():
    places, layers = layer_masks([A, None, B, C])
    assert places == [(0, 1), None, (1, 1), (0, 2)] and len(layers) == 2
    for mask, place in ((A, places[0]), (B, places[2]), (C, places[3])):
        np.testing.assert_array_equal(layers[place[0]] == place[1], mask)
    pixels = [np.arange(600).reshape(20, 30) == i for i in range(256)]
    places, layers = layer_masks(pixels)
    assert places[254:] == [(0, 255), (1, 1)] and len(layers) == 2


def test_every_row_worked_by_hand(convert):
    done, output = convert(ANNOTATIONS)
    assert list(csv.reader(output.open())) == [
        ["../photos/b.png", "", "", "", "", "", ""],
        ["../photos/sub/a.png", "2.5", "1.5", "14.51", "12.52", "dog", "../masks/sub/a.png#1"],
        ["../photos/sub/a.png", "10", "5", "20", "18", "tooth brush", "../masks/sub/a_1.png#1"],
        ["../photos/sub/a.png", "20", "3", "29", "9", "car", "../masks/sub/a.png#2"],
        ["../photos/sub/a.png", "1", "1", "5", "5", "dog", ""],
        ["../photos/c.png", "1", "1", "1.4", "5", "dog", ""],
        ["../photos/d.png", "", "", "", "", "", ""],
    ]
    assert done.summary() == (
        "4 images with 5 instances, 2 mask files; 2 instances have no mask; left out 2 crowd regions (1 images hold "
        "nothing else and stand there as images without objects)"
    )


def test_what_training_reads_is_what_coco_said_and_back_again(convert, write):
    _, output = convert(ANNOTATIONS)
    names = read_classes(write("classes.csv", class_names(CATEGORIES).to_csv()))
    records = scan_images(read_annotations(str(output), names)).images
    found = [(i, record) for record in records for i in record.instances]
    for (instance, record), mask in zip(found, (A, B, C)):
        np.testing.assert_array_equal(read_mask(instance, record.height, record.width), mask)
    back = coco_from_images(records, names)
    wanted = [entry for entry in ANNOTATIONS if not entry["iscrowd"]]
    ids = {entry["name"]: key for key, entry in CATEGORIES.items()}
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


def test_bad_instances_stop_or_are_counted(convert):
    with pytest.raises(AnnotationError) as error:
        convert(ANNOTATIONS + BAD)
    assert list(error.value.problems) == [
        "c.png, dog at 1,1,0,4 (x,y,width,height): the box has no area",
        "c.png, car at 30,1,4,4 (x,y,width,height): the box lies outside the image of 30 x 20 pixels",
        "c.png, car at 1,14,4,4 (x,y,width,height): the mask has no pixel inside the box",
    ]
    done, _ = convert(ANNOTATIONS + BAD, on_bad_record="skip")
    assert (done.dropped, done.instances) == (3, 5) and done.summary().endswith("and 3 bad instances")
    with pytest.raises(ValueError, match="on_bad_record is 'perhaps'"):
        convert(ANNOTATIONS, on_bad_record="perhaps")


def test_two_images_of_one_name_are_refused_and_of_one_stem_kept_apart(convert, images):
    images[11]["file_name"] = "c.jpg"
    done, output = convert([dict(ANNOTATIONS[3], image_id=9), dict(ANNOTATIONS[3], image_id=11)])
    assert [row[6] for row in csv.reader(output.open()) if row[6]] == ["../masks/c.png#1", "../masks/c.jpg.png#1"]
    assert done.mask_files == 2
    images[11]["file_name"] = "c.png"
    images[5]["file_name"] = "c.png"
    with pytest.raises(AnnotationError, match="'c.png' is used twice"):
        convert([])


def test_a_further_label_map_is_never_that_of_another_image(convert, images):
    images[9]["file_name"], images[11]["file_name"] = "sub/a_1.png", "sub/a_3.jpg"
    every = [dict(entry, image_id=key) for key in (7, 9) for entry in (ANNOTATIONS[0], ANNOTATIONS[2])]
    done, output = convert([*every, dict(ANNOTATIONS[3], image_id=11)])
    assert [row[6] for row in csv.reader(output.open()) if row[6]] == [
        f"../masks/sub/{name}.png#1" for name in ("a", "a_2", "a_1", "a_1_1", "a_3")
    ]  # a_1 is the image's of that name, and so is a_3
    assert done.mask_files == 5


def test_label_maps_never_replace_images(tmp_path, images):
    before = (tmp_path / "photos" / "b.png").read_bytes()
    with pytest.raises(AnnotationError, match="4 label maps would replace images.*--masks"):
        write_csv(
            images,
            ANNOTATIONS,
            CATEGORIES,
            image_folder=str(tmp_path / "photos"),
            output=str(tmp_path / "train.csv"),
            mask_folder=str(tmp_path / "x" / ".." / "photos"),
        )
    assert (tmp_path / "photos" / "b.png").read_bytes() == before
