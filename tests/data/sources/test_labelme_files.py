"""labelme: files as it writes them, and what is wrong with others."""

import base64
import json
import pathlib

import numpy as np
import pytest
from reference.labelled_set import base64_png, drawn


def shape(kind, points, label="cat", **more):
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        **more,
    }


@pytest.fixture
def labelme(save, picture):
    """Write a file of labelme with shapes, and its picture."""

    def write_file(*shapes, name="a", **more):
        picture(f"{name}.jpg")
        content = {
            "version": "5.4.1",
            "flags": {},
            "shapes": list(shapes),
            "imagePath": f"{name}.jpg",
            "imageData": None,
        }
        return save(f"{name}.json", content | {"imageHeight": 80, "imageWidth": 100} | more)

    return write_file


def test_shapes(labelme, objects):
    (found,) = objects(
        labelme(
            shape("polygon", [[1.5, 2], [50.25, 2], [20, 60]]),
            shape("rectangle", [[40, 60], [10, 20]], "dog"),
            shape("circle", [[50, 40], [50, 60]]),
            shape("mask", [[5, 6], [7, 7]], mask=base64_png(np.array([[1, 0, 1], [0, 1, 0]], bool))),
        )
    )
    assert [entry[:2] for entry in found] == [
        ("cat", (1.5, 2, 50.25, 60)),
        ("dog", (10, 20, 40, 60)),
        ("cat", (30, 20, 70, 60)),
        ("cat", (5, 6, 8, 8)),
    ]
    np.testing.assert_array_equal(found[0][2], drawn((1.5, 2, 50.25, 2, 20, 60), 100, 80))
    assert found[1][2] is None
    assert np.argwhere(found[3][2]).tolist() == [[6, 5], [6, 7], [7, 6]]


def test_a_group_is_one_object_of_its_class(labelme, objects):
    left, right = [[0, 0], [10, 0], [10, 10], [0, 10]], [[20, 0], [30, 0], [30, 10], [20, 10]]
    mask = base64_png(np.ones((4, 5), bool))
    (found,) = objects(
        labelme(
            shape("polygon", left, group_id=1),
            shape("polygon", left, "dog", group_id=1),
            shape("polygon", right, group_id=1),
            shape("mask", [[50, 50], [54, 53]], group_id=2, mask=mask),
            shape("rectangle", [[60, 50], [70, 60]], group_id="2"),
            shape("rectangle", [[1, 1], [2, 2]], group_id=3),
            shape("rectangle", [[5, 5], [8, 9]], group_id=3),
        )
    )
    assert [entry[:2] for entry in found] == [
        ("cat", (0, 0, 30, 10)),
        ("dog", (0, 0, 10, 10)),
        ("cat", (50, 50, 70, 60)),
        ("cat", (1, 1, 8, 9)),
    ]
    assert found[0][2].sum() == 200 and found[1][2].sum() == 100 and found[2][2].sum() == 4 * 5 + 100
    assert found[3][2] is None


def test_a_folder_is_read_by_name_and_other_json_left_out(labelme, save, read):
    labelme(shape("polygon", [[0, 0], [9, 0], [0, 9]], "dog"), name="b")
    path = pathlib.Path(labelme(shape("polygon", [[0, 0], [9, 0], [0, 9]]), name="a"))
    save("zz.json", {"images": [], "annotations": []})
    content = read(path.parent)
    assert [image.name for image in content.images] == ["a.jpg", "b.jpg"] and content.classes.names == ("cat", "dog")
    assert content.notes == ("left out 1 JSON files of the folder that are not labelme's",)
    assert len(read(path).images) == 1


def test_points_and_lines_are_left_out(labelme, read):
    flat = [shape(kind, [[1, 1], [2, 2]]) for kind in ("point", "line", "linestrip", "line")]
    content = read(labelme(shape("rectangle", [[1, 1], [5, 5]]), *flat))
    assert len(content.images[0].instances) == 1
    assert "left out 2 shapes of type 'line', which have no area" in content.notes


def test_files_of_old_versions_have_no_kind_and_no_size(labelme, objects):
    old = {"label": "cat", "line_color": None, "fill_color": None, "points": [[0, 0], [9, 0], [0, 9]]}
    (found,) = objects(labelme(old, imageHeight=None, imageWidth=None))
    assert found[0][1] == (0, 0, 9, 9) and found[0][2].any()


@pytest.mark.parametrize(
    "entry, message",
    [
        (shape("polygon", [[1, 1], [2, 2]]), "shapes[0]: points: got 2 points, expected the 3 or more corners"),
        (shape("polygon", [[1, 1], [2, "x"], [3, 4]]), "points[1]: got a list of 2, expected a point [x, y]"),
        (shape("polygon", [[1, 1], [2, 1], [3, 1]]), "got the extent 1, 1, 3, 1, expected one with an area"),
        (shape("polygon", [[200, 1], [220, 1], [230, 9]]), "expected one with an area inside the picture of 100 x 80"),
        (shape("rectangle", [[1, 1]]), "got 1 points, expected 2"),
        (shape("circle", [[1, 1], [1, 1]]), "got the radius 0, expected one greater than 0"),
        (shape("heart", [[1, 1]]), "shape_type: got 'heart', expected polygon, rectangle, circle, mask"),
        (shape("rectangle", [[1, 1], [5, 5]], label=""), "label: got '', expected the name of a class"),
        (shape("rectangle", [[1, 1], [5, 5]], label=None), "label: got null, expected the name of a class"),
        (shape("mask", [[1, 1], [5, 5]], mask="%%%"), "mask: got base64 that holds no readable PNG"),
        (shape("mask", [[1, 1], [5, 5]], mask=None), "mask: got null, expected text"),
        (shape("mask", [[1, 1], [5, 5]], mask=base64_png(np.ones((2, 2), bool))), "2 x 2 pixels, expected the 5 x 5"),
        (shape("mask", [[98, 1], [102, 5]], mask=base64_png(np.ones((5, 5), bool))), "inside the picture of 100 x 80"),
        (shape("mask", [[1, 1], [2, 2]], mask=base64_png(np.zeros((2, 2), bool))), "got a mask without a pixel"),
        (
            shape("polygon", [[1e300, 1], [2, 1], [3, 9]]),
            "points[0]: got a list of 2, expected a point [x, y] in pixels",
        ),
        (7, "shapes[0]: got 7, expected an object"),
    ],
)
def test_what_is_wrong_is_named(entry, message, labelme, wrong):
    said = wrong(labelme(entry, shape("rectangle", [[1, 1], [5, 5]])))
    assert "1 bad entries" in said and message in said and "shapes[0]" in said


def test_a_file_that_begins_with_its_picture_is_recognised(labelme, read):
    path = pathlib.Path(labelme(shape("rectangle", [[1, 1], [5, 5]]), imageData="A" * 500_000))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: content[name] for name in ("version", "imageData", "imagePath", "shapes")}))
    assert len(read(path).images[0].instances) == 1


def test_missing_pictures_broken_files_and_other_sizes(labelme, save, wrong, read):
    path = labelme(
        shape("rectangle", [[1, 1], [5, 5]]), imagePath="gone.jpg", imageData=base64.b64encode(b"x").decode()
    )
    said = wrong(path)
    assert "imagePath: got 'gone.jpg', expected a picture" in said and "a copy lies in imageData" in said
    said = wrong(labelme(shape("rectangle", [[1, 1], [5, 5]]), imageWidth=200))
    assert "drawn on a picture of 200 x 80 pixels (width x height), but" in said and "has 100 x 80" in said
    good = pathlib.Path(labelme(shape("rectangle", [[1, 1], [5, 5]])))
    save("b.json", '{"version": "5", "shapes": [')
    assert "b.json: not JSON" in wrong(good.parent)
    assert len(read(good.parent, on_bad_record="skip").images) == 1


def test_two_files_of_one_picture_are_joined(labelme, read):
    labelme(shape("rectangle", [[1, 1], [5, 5]]))
    path = labelme(shape("rectangle", [[2, 2], [9, 9]], "dog"), name="b", imagePath="./a.jpg")
    (image,) = read(pathlib.Path(path).parent).images
    assert [found.box for found in image.instances] == [(1, 1, 5, 5), (2, 2, 9, 9)]


def test_the_folder_of_images_replaces_whatever_a_file_says(labelme, picture, read, tmp_path):
    picture("photos/x/a.jpg")
    picture("photos/b.jpg")
    for name in ("x/a.jpg", "C:\\x\\a.jpg", "/gone/b.jpg", "s3://bucket/a/b.jpg", str(tmp_path / "photos/b.jpg")):
        path = labelme(shape("rectangle", [[1, 1], [5, 5]]), imagePath=name)
        (image,) = read(path, image_folder=str(tmp_path / "photos")).images
        assert image.image == str(tmp_path / "photos" / ("b.jpg" if name.endswith("b.jpg") else "x/a.jpg"))
