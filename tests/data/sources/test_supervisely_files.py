"""Supervisely: projects as it exports them, and what is wrong with others."""

import base64
import pathlib
import zlib

import numpy as np
import pytest
from reference.labelled_set import base64_png, drawn, png


def thing(kind, title="cat", **more):
    return {"id": 1, "classId": 2, "classTitle": title, "geometryType": kind, "tags": [], "labelerLogin": "x", **more}


def points(exterior, *interior):
    return {"points": {"exterior": exterior, "interior": list(interior)}}


@pytest.fixture
def project(save, picture, tmp_path):
    """Write a project of one picture with objects; return its folder."""

    def write_project(*objects, size=(100, 80), meta=True):
        picture("project/ds 1/img/a.jpg")
        if meta:
            classes = [{"title": "dog", "shape": "any"}, {"title": "cat", "shape": "any"}]
            save("project/meta.json", {"classes": classes, "tags": []})
        content = {
            "description": "",
            "tags": [],
            "size": {"width": size[0], "height": size[1]},
            "objects": list(objects),
        }
        save("project/ds 1/ann/a.jpg.json", content)
        return str(tmp_path / "project")

    return write_project


OUTER, INNER = [[10, 10], [60, 10], [60, 50], [10, 50]], [[20, 20], [40, 20], [40, 40], [20, 40]]


def test_objects(project, objects, read):
    pixels = np.array([[1, 0, 1], [0, 1, 0]], bool)
    bitmap = {"bitmap": {"data": base64_png(pixels, compress=True), "origin": [5, 6]}}
    path = project(
        thing("polygon", **points(OUTER, INNER, [[45, 12], [50, 12], [50, 20]])),
        thing("rectangle", "dog", **points([[40, 60], [10, 20]])),
        thing("bitmap", **bitmap),
        thing("line", **points([[1, 1], [5, 5]])),
        thing("point", **points([[1, 1]])),
    )
    (found,) = objects(path)
    assert [entry[:2] for entry in found] == [
        ("cat", (10, 10, 60, 50)),
        ("dog", (10, 20, 41, 61)),
        ("cat", (5, 6, 8, 8)),
    ]
    holes = drawn(np.ravel(INNER), 100, 80) | drawn((45, 12, 50, 12, 50, 20), 100, 80)
    np.testing.assert_array_equal(found[0][2], drawn(np.ravel(OUTER), 100, 80) & ~holes)
    assert found[0][2].sum() < 50 * 40 - 20 * 20 + 1 and not found[0][2][30, 30]
    assert found[1][2] is None and np.argwhere(found[2][2]).tolist() == [[6, 5], [6, 7], [7, 6]]
    content = read(path)
    assert content.classes.names == ("dog", "cat")
    assert content.notes == ("left out 1 objects of the geometry 'line'", "left out 1 objects of the geometry 'point'")
    # A data set of the project has the same classes; without meta.json they are sorted.
    assert read(pathlib.Path(path, "ds 1")).classes.names == ("dog", "cat")
    pathlib.Path(path, "meta.json").unlink()
    assert read(path).classes.names == ("cat", "dog")


def test_bitmaps_with_an_alpha_channel_or_a_palette(project, objects):
    alpha = np.zeros((2, 3, 4), np.uint8)
    alpha[0, 1] = 0, 0, 0, 255  # black, and part of the object
    data = base64.b64encode(zlib.compress(png(alpha))).decode()
    ((found,),) = objects(project(thing("bitmap", bitmap={"data": data, "origin": [5, 6]})))
    assert np.argwhere(found[2]).tolist() == [[6, 6]] and found[1] == (6, 6, 7, 7)


def bomb():
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(300)]
    return base64.b64encode(b"".join([*parts, packer.flush()])).decode()


@pytest.mark.parametrize(
    "entry, message",
    [
        (thing("polygon", **points(OUTER[:2])), "points.exterior: got 2 points, expected the 3 or more corners"),
        (thing("polygon", **points(OUTER, INNER[:1])), "points.interior[0]: got 1 points, expected the 3 or more"),
        (thing("rectangle", **points(OUTER)), "points.exterior: got 4 points, expected the 2 corners of a rectangle"),
        (thing("polygon"), "points: got nothing, expected an object"),
        (thing("polygon", None, **points(OUTER)), "classTitle: got null, expected the name of a class"),
        (thing("bitmap", bitmap={"data": "AAAA", "origin": [1, 1]}), "bitmap.data: got base64 of no zlib stream"),
        (thing("bitmap", bitmap={"data": "é", "origin": [1, 1]}), "bitmap.data: got 'é', expected base64"),
        (
            thing("bitmap", bitmap={"data": "AAAA", "origin": [1]}),
            "bitmap.origin: got a list of 1, expected the column",
        ),
        (
            thing("bitmap", bitmap={"data": base64_png(np.ones((9, 9), bool), True), "origin": [95, 0]}),
            "got 9 x 9 pixels at 95, 0, expected them inside the picture of 100 x 80",
        ),
        (thing("bitmap", bitmap={"data": bomb(), "origin": [0, 0]}), "got more than 268,435,456 bytes"),
    ],
)
def test_what_is_wrong_is_named(entry, message, project, wrong):
    said = wrong(project(entry, thing("rectangle", **points(OUTER[::2]))))
    assert "1 bad entries" in said and "a.jpg.json, objects[0]" in said and message in said


def test_other_sizes_and_files(project, save, wrong):
    said = wrong(project(thing("rectangle", **points(OUTER[::2])), size=(10, 80)))
    assert "drawn on a picture of 10 x 80 pixels" in said
    path = project(thing("rectangle", **points(OUTER[::2])))
    save("project/ds 1/ann/b.jpg.json", {"size": {"height": 1, "width": 1}, "objects": []})
    save("project/ds 1/ann/c.jpg.json", "[")
    said = wrong(path)
    assert "b.jpg.json: got 'b.jpg', expected a picture" in said and "c.jpg.json: not JSON" in said
