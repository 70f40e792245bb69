"""Label Studio: exports as it writes them, and what is wrong with others."""

import numpy as np
import pytest
from reference.tool_writers import brush_runs

from tpu_retinamask.data.sources.brush_runs import brush_pixels
from tpu_retinamask.data.sources.checked import BadEntry

SIZE = {"original_width": 100, "original_height": 80, "image_rotation": 0}


def result(kind, label="cat", **value):
    labels = {kind: [label]} if label is not None else {}
    return {"id": "x", "type": kind, "from_name": "l", "to_name": "i", **SIZE, "value": value | labels}


def task(*results, image="/data/upload/3/0a1b2c3d-a.jpg", **annotation):
    done = {"id": 1, "was_cancelled": False, "result": list(results), **annotation}
    return {"id": 7, "data": {"image": image}, "annotations": [done], "predictions": []}


@pytest.fixture
def studio(save, picture):
    """Write an export of tasks and the picture a.jpg."""

    def write_export(*tasks):
        picture("images/a.jpg")
        return save("project-1.json", list(tasks))

    return write_export


RECT = result("rectanglelabels", x=10, y=25, width=30, height=50, rotation=0)


def test_results(studio, objects, read):
    mask = np.zeros((80, 100), bool)
    mask[10:20, 30:50], mask[12, 40] = True, False
    path = studio(
        task(
            RECT,
            result("polygonlabels", "dog", points=[[0, 0], [50, 0], [0, 50]], closed=True),
            result("ellipselabels", x=50, y=50, radiusX=30, radiusY=12.5, rotation=90),
            result("brushlabels", "dog", format="rle", rle=brush_runs(mask)),
            result("rectanglelabels", x=50, y=25, width=20, height=50, rotation=90),
            {"id": "c", "type": "choices", "value": {"choices": ["good"]}},
        )
    )
    (found,) = objects(path)
    assert [entry[0] for entry in found] == ["cat", "dog", "cat", "dog", "cat"]
    boxes = [(10, 20, 40, 60), (0, 0, 50, 40), (40, 10, 60, 70), (30, 10, 50, 20), (10, 20, 50, 40)]
    for entry, box in zip(found, boxes):
        np.testing.assert_allclose(entry[1], box, atol=1e-9)
    np.testing.assert_array_equal(found[3][2], mask)
    turned = np.zeros((80, 100), bool)
    turned[20:40, 10:50] = True  # around its corner, clockwise
    np.testing.assert_array_equal(found[4][2], turned)
    assert read(path).notes == ("left out 1 results of type 'choices'",)


def test_separate_tags_of_outline_and_label(studio, objects):
    outline = result("rectangle", None, x=10, y=25, width=30, height=50)
    label = result("labels", "dog", x=10, y=25, width=30, height=50)
    assert objects(studio(task(outline, label))) == [[("dog", (10, 20, 40, 60), None)]]


def test_the_newest_annotation_that_was_not_skipped_is_read(studio, objects, read):
    other = result("rectanglelabels", "dog", x=0, y=0, width=10, height=10)
    one = task(RECT, updated_at="2024-02-01T00:00:00Z")
    one["annotations"] += [
        {"id": 2, "result": [other], "updated_at": "2024-01-01T00:00:00Z"},
        {"id": 3, "result": [other], "was_cancelled": True, "updated_at": "2024-03-01T00:00:00Z"},
    ]
    one["predictions"] = [{"result": [other]}]
    empty = task(image="/data/local-files/?d=photos%5Cb.jpg")
    empty["annotations"] = []
    path = studio(one, empty)
    assert objects(path) == [[("cat", (10, 20, 40, 60), None)]]
    assert read(path).notes == (
        "left out 1 annotations of a task that has a newer one",
        "left out 1 predictions of a model",
        "left out 1 tasks that nobody has finished",
    )


@pytest.mark.parametrize(
    "said",
    ["/data/local-files/?d=some/where/a.jpg", "s3://bucket/a.jpg", "https://x.org/y/a.jpg?t=1", "a.jpg", "x\\a.jpg"],
)
def test_pictures_are_found_by_name(said, studio, read):
    assert read(studio(task(RECT, image=said))).images[0].image.endswith("images/a.jpg")


def test_json_min(studio, objects):
    label = {"x": 10, "y": 25, "width": 30, "height": 50, "rotation": 0, "rectanglelabels": ["cat"], **SIZE}
    short = {"picture": "/data/upload/3/0a1b2c3d-a.jpg", "id": 7, "label": [label], "annotator": 1, "annotation_id": 5}
    assert objects(studio(short | {"lead_time": 1.5, "choice": "good"})) == [[("cat", (10, 20, 40, 60), None)]]


@pytest.mark.parametrize(
    "entry, message",
    [
        (result("rectanglelabels", None, x=1, y=1, width=1, height=1), "rectanglelabels: got 0 labels, expected one"),
        (result("rectanglelabels", x=1, y=1, width=1), "value: height: got nothing, expected a number of pixels"),
        (result("rectanglelabels", x=1, y=1, width=0, height=5), "expected one with an area"),
        (result("polygonlabels", points=[[1, 1]]), "value.points: got 1 points, expected the 3 or more corners"),
        (result("brushlabels", format="rle", rle=[1, 2]), "value.rle: got run lengths that end in the middle"),
        (
            result("brushlabels", format="rle", rle=[0, 0, 0, 4, 0, 0, 0]),
            "run lengths of 4 values, expected 100 x 80 x 4",
        ),
        (result("brushlabels", format="rle", rle=[0, 999]), "value.rle: got 999, expected bytes"),
        (RECT | {"image_rotation": 90}, "image_rotation: got 90, expected 0"),
        (RECT | {"original_width": None}, "original_width: got null, expected a number of pixels"),
        (RECT | {"value": 5}, "value: got 5, expected an object"),
    ],
)
def test_what_is_wrong_is_named(entry, message, studio, wrong):
    said = wrong(studio(task(RECT, entry)))
    assert "1 bad entries" in said and "project-1.json, task 1, result[1]" in said and message in said


def test_other_tasks(studio, wrong):
    assert "task 1: the picture: got 'gone.jpg', expected a picture" in wrong(studio(task(RECT, image="gone.jpg")))
    bare = task(RECT)
    bare["data"] = {"text": "hello"}
    assert "task 1.data: got 0 texts that name a picture" in wrong(studio(bare))


def test_runs_of_a_brush_are_read_whatever_they_are_cut_into():
    rng = np.random.default_rng(1)
    for width, height in ((1, 1), (7, 3), (64, 40)):
        mask = rng.random((height, width)) < 0.4
        np.testing.assert_array_equal(brush_pixels(brush_runs(mask), width, height, "x"), mask)
    with pytest.raises(BadEntry, match="expected at most"):
        brush_pixels([0], 1 << 15, 1 << 15, "x")
