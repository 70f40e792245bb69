"""COCO instances as a source: what is unambiguous is read with the right numbers, the rest is named, all at once."""

import itertools
import json

import numpy as np
import pytest
from pycocotools import mask as rle_codec
from reference.small_coco import DISC, HEIGHT, PLAIN, SQUARE, WIDTH, boxes, entry, opened, read

from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.data.images.mask_reader import read_mask
from tpu_retinamask.data.sources.opening import read_source
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions
from tpu_retinamask.errors import UserError


def test_polygons_and_both_run_lengths_are_the_pixels_of_pycocotools(coco):
    drawn = rle_codec.decode(rle_codec.frPyObjects([SQUARE], HEIGHT, WIDTH))[..., 0]
    rle = rle_codec.encode(np.asfortranarray(drawn))
    counts = [len(list(run)) for _, run in itertools.groupby(drawn.T.reshape(-1))]  # it begins with zeros
    assert sum(counts) == HEIGHT * WIDTH
    box = (70, 20, 40, 50)
    forms = [
        [SQUARE],
        {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()},
        {"size": [HEIGHT, WIDTH], "counts": counts},
    ]
    annotations = [dict(entry(n, 1 + n % 2, box=box), segmentation=form) for n, form in enumerate(forms)]
    _, images = opened(coco(annotations))
    masks = [(image, instance) for image in images for instance in image.instances]
    assert sorted(type(i.mask).__name__ for _, i in masks) == ["PolygonMask", "RunLengthMask", "RunLengthMask"]
    for _, instance in masks:
        np.testing.assert_array_equal(read_mask(instance, HEIGHT, WIDTH), drawn.astype(bool))
        assert instance.box == (70.0, 20.0, 110.0, 70.0)


def test_boxes_are_added_as_the_decimals_they_are_written_as(coco):
    assert boxes(read(coco([entry(1, box=(1.1, 10.1, 2.2, 0.2))]))) == [(1.1, 10.1, 3.3, 10.3)]


def test_categories_are_classes_in_the_order_of_their_ids(coco):
    categories = [{"id": 90, "name": "z"}, {"id": "7", "name": "y"}, {"id": 11, "name": "x"}, {"id": "b", "name": "w"}]
    content = read(coco([entry(1, category=90), entry(2, category=7)], categories=categories))
    assert content.classes.names == ("y", "x", "z", "w")
    assert [i.class_id for i in content.images[0].instances] == [2, 0]


# ---- each kind of field, in whichever form it can mean one thing


def without_box(annotation):
    return {name: value for name, value in annotation.items() if name != "bbox"}


READ = {
    "image_id as text": {"annotations": [entry(1, "1"), entry(2, "2", box=(70, 20, 40, 50), segmentation=(SQUARE,))]},
    "image_id as float": {"annotations": [entry(1, 1.0), entry(2, 2.0, box=(70, 20, 40, 50), segmentation=(SQUARE,))]},
    "iscrowd null": {"annotations": [entry(1, iscrowd=None), entry(2, 2, box=(70, 20, 40, 50), iscrowd=False)]},
    "iscrowd text": {"annotations": [entry(1, iscrowd="0"), entry(2, 2, box=(70, 20, 40, 50), iscrowd=0.0)]},
    "bbox empty": {"annotations": [entry(1, box=()), entry(2, 2, box=(), segmentation=(SQUARE,))]},
    "bbox text": {"annotations": [entry(1, box=("20", "12", "40", "40")), entry(2, 2, box=(70, 20.0, 40, "50"))]},
    "bbox null": {"annotations": [entry(1) | {"bbox": None}, entry(2, 2, segmentation=(SQUARE,)) | {"bbox": None}]},
    "no bbox": {"annotations": [without_box(entry(1)), without_box(entry(2, 2, segmentation=(SQUARE,)))]},
    "sizes as text": {"images": [{"id": n, "file_name": f"{name}.png", "height": "96", "width": "128.0"}
                                 for n, name in ((1, "a"), (2, "b"))]},
    "sizes -1": {"images": [{"id": n, "file_name": f"{name}.png", "height": -1, "width": -1}
                            for n, name in ((1, "a"), (2, "b"))]},
    "no sizes": {"images": [{"id": n, "file_name": f"{name}.png"} for n, name in ((1, "a"), (2, "b"))]},
    "byte order mark": {"head": b"\xef\xbb\xbf"},
    "backslashes": {"images": [{"id": n, "file_name": f".\\{name}.png"} for n, name in ((1, "a"), (2, "b"))]},
    "no area": {"annotations": [entry(1, area=None), entry(2, 2, box=(70, 20, 40, 50), area="12.5")]},
    "ids 0": {"images": [{"id": n, "file_name": f"{name}.png"} for n, name in ((0, "a"), (1, "b"))],
              "annotations": [entry(0, "0"), entry(1, 1, box=(70, 20, 40, 50))]},
    "text ids of images": {"images": [{"id": f"x-{name}", "file_name": f"{name}.png"} for name in ("a", "b")],
                           "annotations": [entry(0, "x-a"), entry(1, "x-b", box=(70, 20, 40, 50))]},
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_fields_are_read_where_they_can_mean_one_thing(case, coco):
    path = coco(**READ[case])
    assert boxes(read(path)) == PLAIN
    _, images = opened(path)
    assert [(image.name.removeprefix("./"), len(image.instances)) for image in images] == [("a.png", 1), ("b.png", 1)]


POLYGONS = {
    "flat": (DISC, 12, 0),
    "pairs alone": ([[20, 12], [60, 12], [60, 52]], 3, 0),
    "pairs in a list": ([[[20, 12], [60, 12], [60, 52]]], 3, 0),
    "two": ([DISC, SQUARE], 16, 0),
    "text of numbers": ([["20", "12", "60", "12", "60", "52"]], 3, 0),
    "one and a line": ([DISC, [1, 2, 3, 4]], 12, 1),
    "two points": ([[20, 12, 60, 52]], None, 1),
    "one point": ([[20, 12]], None, 1),
    "empty lists": ([[], []], None, 0),
    "null": (None, None, 0),
    "empty object": ({}, None, 0),
}


@pytest.mark.parametrize("case", POLYGONS)
def test_polygons_of_every_nesting(case, coco):
    segmentation, corners, flat = POLYGONS[case]
    content = read(coco([dict(entry(1), segmentation=segmentation)]))
    mask = content.images[0].instances[0].mask
    assert (None if mask is None else sum(len(one) // 2 for one in mask.polygons)) == corners
    assert any(f"{flat} polygons have fewer than three corners" in note for note in content.notes) == bool(flat)


REFUSED = {
    "null annotation": ({"annotations": [entry(1), None]}, "annotations[1]: got null, expected an object {...}"),
    "image_id list": (
        {"annotations": [entry(1, [1])]},
        "annotations[0] (id 1): image_id: got a list of 1, which is not among the images, expected one of the 2 ids",
    ),
    "image_id null": ({"annotations": [entry(1, None)]}, "annotations[0] (id 1): image_id: got null"),
    "image_id true": ({"annotations": [entry(1, True)]}, "annotations[0] (id 1): image_id: got True"),
    "category null": (
        {"annotations": [entry(1, category=None)]},
        "category_id: got null, which is not among the categories",
    ),
    "category unknown": (
        {"annotations": [entry(1, category=7)]},
        "category_id: got 7, which is not among the categories",
    ),
    "bbox of three": (
        {"annotations": [entry(1, box=(1, 2, 3))]},
        "bbox: got [1, 2, 3], expected x, y, width, height, four finite numbers",
    ),
    "bbox of words": (
        {"annotations": [entry(1, box=(1, 2, 3, "far"))]},
        "bbox: got [1, 2, 3, 'far'], expected x, y, width, height",
    ),
    "bbox NaN": ({"annotations": [entry(1, box=(1, 2, 3, float("nan")))]}, "bbox: got [1, 2, 3, nan]"),
    "neither bbox nor mask": (
        {"annotations": [entry(1, box=(), segmentation=())]},
        "bbox: got a list that is empty, expected x, y, width, height, or a segmentation to take it from",
    ),
    "iscrowd 2": ({"annotations": [entry(1, iscrowd=2)]}, "iscrowd: got 2, expected 0 or 1"),
    "iscrowd word": ({"annotations": [entry(1, iscrowd="no")]}, "iscrowd: got 'no', expected a whole number"),
    "odd count": (
        {"annotations": [entry(1, segmentation=([1, 2, 3, 4, 5, 6, 7],))]},
        "segmentation: a polygon has 7 numbers, expected an even count",
    ),
    "text": (
        {"annotations": [dict(entry(1), segmentation="20,12,60,12")]},
        "segmentation: got '20,12,60,12', expected polygons",
    ),
    "a number": ({"annotations": [dict(entry(1), segmentation=5)]}, "segmentation: got 5, expected polygons"),
    "null corner": (
        {"annotations": [entry(1, segmentation=([1, 2, 3, None, 5, 6],))]},
        "segmentation: got None in a polygon",
    ),
    "infinite corner": (
        {"annotations": [entry(1, segmentation=([1, 2, 3, float("inf"), 5, 6],))]},
        "holds one that is not finite",
    ),
    "a list of run lengths": (
        {"annotations": [entry(1, segmentation=({"size": [96, 128], "counts": [1]},))]},
        "got a list with an object in it",
    ),
    "runs too short": (
        {"annotations": [dict(entry(1), segmentation={"size": [96, 128], "counts": [100, 20]})]},
        "segmentation: run lengths sum to 120 pixels, expected 128 x 96 = 12288 (width x height)",
    ),
    "runs too long": (
        {"annotations": [dict(entry(1), segmentation={"size": [96, 128], "counts": [100, 20, 99999]})]},
        "run lengths sum to 100119 pixels",
    ),
    "size swapped": (
        {"annotations": [dict(entry(1), segmentation={"size": [128, 96], "counts": [12288]})]},
        "run lengths have size [128, 96], the image [96, 128] (height, width); it looks like [width, height]",
    ),
    "counts null": (
        {"annotations": [dict(entry(1), segmentation={"size": [96, 128], "counts": None})]},
        "got counts None, expected a list",
    ),
    "no file_name": (
        {"images": [{"id": 1}, {"id": 2, "file_name": "b.png"}]},
        "images[0]: file_name: got nothing, expected the name of an image file",
    ),
    "file_name null": (
        {"images": [{"id": 1, "file_name": None}, {"id": 2, "file_name": "b.png"}]},
        "images[0]: file_name: got null, expected text",
    ),
    "image id null": (
        {"images": [{"id": None, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}], "annotations": [entry(1, 2)]},
        "images[0]: id: got null, expected a whole number or a text",
    ),
    "image id twice": (
        {"images": [{"id": 1, "file_name": "a.png"}, {"id": "1", "file_name": "b.png"}], "annotations": [entry(1)]},
        "images[1]: id: got '1', expected another than that of images[0]",
    ),
    "width word": (
        {"images": [{"id": 1, "file_name": "a.png", "width": "wide", "height": 3}], "annotations": []},
        "images[0]: width: got 'wide', expected a whole number",
    ),
    "category name list": (
        {"categories": [{"id": 1, "name": ["mug"]}]},
        "categories[0]: name: got a list of 1, expected the name of a class",
    ),
    "category name empty": (
        {"categories": [{"id": 1, "name": " "}]},
        "categories[0]: name: got ' ', expected the name of a class",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_named(case, coco):
    change, message = REFUSED[case]
    with pytest.raises(AnnotationError) as error:
        read(coco(**change))
    assert any(message in problem for problem in error.value.problems), error.value
    assert str(error.value).startswith("instances.json: ")
    assert "--gin_param=\"source.on_bad_record='skip'\"" in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": 5}, r"instances.json: images: got 5, expected a list"),
        ({"annotations": {"1": 2}}, r"instances.json: annotations: got an object of 1, expected a list"),
        ({"categories": ...}, r"instances.json: got an object with .'annotations', 'images'.; expected a COCO dataset"),
    ],
)
def test_what_is_no_coco_file_is_said(change, message, coco):
    with pytest.raises(UserError, match=message):
        SOURCES.get("coco").read(coco(**change), None, ReadOptions())


def test_a_list_is_no_coco_file(write):
    path = write("list.json", json.dumps([{"images": []}]))
    with pytest.raises(UserError, match="is JSON of no kind that is known .*coco.*name one by --format"):
        read_source(path, None)
    with pytest.raises(UserError, match="list.json: got a list .*; expected a COCO dataset"):
        read_source(path, None, "coco")


def test_bad_entries_are_listed_together_or_left_out_counted(coco):
    path = coco([entry(1), None, entry(3, 99), entry(4, box=(1, 2)), entry(5, 2, box=(70, 20, 40, 50))])
    with pytest.raises(AnnotationError) as error:
        read(path)
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        "annotations[1]", "annotations[2] (id 3)", "annotations[3] (id 4)",
    ]  # fmt: skip
    content = read(path, on_bad_record="skip")
    assert boxes(content) == PLAIN and any("left out 3 bad entries" in note for note in content.notes)


def test_where_nothing_is_left_the_advice_is_not_what_was_followed(coco):
    path = coco([entry(1)], images=[None])
    with pytest.raises(
        AnnotationError, match="2 bad entries; correct them, or leave them out, counted, by --gin_param"
    ):
        read(path)
    with pytest.raises(AnnotationError, match="nothing is left after leaving out 2 bad entries") as error:
        read(path, on_bad_record="skip")
    assert "--gin_param" not in str(error.value)
    assert error.value.problems[1].endswith("expected the id of one, of which there is none")


def test_objects_of_an_image_that_cannot_be_used_are_not_blamed(coco):
    images = [{"id": 1}, {"id": 2, "file_name": 5}, {"id": 3, "file_name": "b.png"}]
    content = read(coco([entry(1), entry(2, 2), entry(3, 3)], images=images), on_bad_record="skip")
    assert [image.name for image in content.images] == ["b.png"] and boxes(content) == PLAIN[:1]
    with pytest.raises(AnnotationError) as error:
        read(coco([entry(1), entry(2, 2), entry(3, 3)], images=images))
    assert len(error.value.problems) == 2
