"""Results in the ids of a COCO file."""

import pytest

from tpu_retinamask.coco.numbering import renumber_results
from tpu_retinamask.coco.scores import evaluate_coco
from tpu_retinamask.errors import UserError

BOX = {"bbox": [0, 0, 10, 10], "area": 100}
DATASET = {
    "images": [
        {"id": 900, "file_name": "train/a.jpg", "height": 50, "width": 50},
        {"id": 17, "file_name": "b.jpg", "height": 50, "width": 50},
        {"id": 3, "file_name": "c.jpg", "height": 50, "width": 50},
    ],
    "categories": [{"id": 90, "name": "cat"}, {"id": 8, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 900, "category_id": 90, "iscrowd": 0, **BOX},
        {"id": 2, "image_id": 17, "category_id": 8, "iscrowd": 1, **BOX},
        {"id": 3, "image_id": 3, "category_id": 8, "iscrowd": 0, **BOX},
    ],
}
IMAGES, NAMES = {0: "images/a.jpg", 4: "b.jpg"}, ("cat", None, "dog")
RESULTS = [
    {"image_id": 0, "category_id": 0, "bbox": [0, 0, 10, 10], "score": 0.9},
    {"image_id": 4, "category_id": 2, "bbox": [0, 0, 10, 10], "score": 0.8},
    {"image_id": 4, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.7},
]


def test_ids_follow_names_and_unused_outputs_are_left_out(caplog):
    found, truth = renumber_results(RESULTS, DATASET, IMAGES, NAMES)
    assert [(entry["image_id"], entry["category_id"], entry["score"]) for entry in found] == [
        (900, 90, 0.9),
        (17, 8, 0.8),
    ]
    assert [entry["id"] for entry in truth["images"]] == [900, 17]
    assert [entry["id"] for entry in truth["annotations"]] == [1, 2]
    assert "1 of the 3 images of the COCO file are not among the annotated images" in caplog.text
    assert RESULTS[0]["image_id"] == 0 and len(DATASET["images"]) == 3


def test_a_detection_on_a_crowd_is_not_held_against_the_model():
    found, truth = renumber_results(RESULTS, DATASET, IMAGES, NAMES)
    metrics = evaluate_coco(truth, found, iou_types="bbox")
    assert metrics.crowds == 1 and metrics.overall["bbox"]["AP"] == pytest.approx(1)
    truth["annotations"][1]["iscrowd"] = 0  # now wanted, and found
    truth["annotations"].append(dict(truth["annotations"][1], bbox=[30, 30, 9, 9]))  # and another that is not
    assert evaluate_coco(truth, found, iou_types="bbox").overall["bbox"]["AP"] < 0.8


@pytest.mark.parametrize(
    "images, names, message",
    [
        ({0: "z.jpg"}, NAMES, r"lacks 1 image names: z.jpg; it has 3, such as train/a.jpg, b.jpg, c.jpg"),
        (IMAGES, ("cat", "horse"), r"lacks 1 category names: horse; it has 2"),
    ],
)
def test_unknown_names_are_listed(images, names, message):
    with pytest.raises(UserError, match=message):
        renumber_results([], DATASET, images, names)


def test_names_used_twice_are_refused():
    double = dict(DATASET, images=[*DATASET["images"], {"id": 4, "file_name": "val/a.jpg"}])
    with pytest.raises(
        UserError, match="the image 'a.jpg' twice, and 'images/a.jpg' may be any of 'train/a.jpg', 'val"
    ):
        renumber_results([], double, IMAGES, NAMES)
    double = dict(DATASET, categories=[*DATASET["categories"], {"id": 4, "name": "dog"}])
    with pytest.raises(UserError, match="the category 'dog' twice"):
        renumber_results([], double, IMAGES, NAMES)


def test_images_of_one_name_are_told_by_as_many_folders_as_it_takes():
    truth = dict(DATASET, images=[dict(DATASET["images"][0], id=n, file_name=f"{name}/1.png") for n, name in
                                  enumerate(("x/cam1", "x/cam2", "y/cam2"))], annotations=[])  # fmt: skip
    ours = {0: "set/y/cam2/1.png", 1: "set/x/cam2/1.png", 2: "set/z/cam1/1.png"}
    results = [{"image_id": n, "category_id": 0, "bbox": [0, 0, 1, 1], "score": 1} for n in ours]
    found, _ = renumber_results(results, truth, ours, ("cat",))
    assert [entry["image_id"] for entry in found] == [2, 1, 0]
    with pytest.raises(UserError, match="'1.png' twice, and 'cam2/1.png' may be any of 'x/cam2/1.png', 'y/cam2/1.png'"):
        renumber_results([], truth, {0: "cam2/1.png"}, ("cat",))
    with pytest.raises(UserError, match="'p/b.jpg' and 'q/b.jpg' would both be 'b.jpg'"):
        renumber_results([], DATASET, {0: "p/b.jpg", 1: "q/b.jpg"}, ("cat",))
