"""VGG Image Annotator: files as versions 1, 2 and 3 write them, and what is wrong with others."""

import json
import math

import numpy as np
import pytest

from tpu_retinamask.data.annotations.class_names import ClassNames

RECT = {"name": "rect", "x": 10, "y": 20, "width": 30, "height": 40}
TRIANGLE = {"name": "polygon", "all_points_x": [0, 50, 0], "all_points_y": [0, 0, 40]}


def project(regions, attributes=None, name="a.png"):
    return {
        "_via_settings": {"ui": {}, "core": {}, "project": {"name": "p"}},
        "_via_img_metadata": {f"{name}77": {"filename": name, "size": 77, "regions": regions, "file_attributes": {}}},
        "_via_attributes": {"region": attributes or {}, "file": {}},
    }


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


@pytest.fixture
def via2(save, picture):
    """Write a project of version 2 with the regions of one picture."""
    picture("a.png")
    return lambda regions, attributes=None: save("p.json", project(regions, attributes))


def test_shapes_of_version_2(via2, objects):
    circle = {"name": "circle", "cx": 50, "cy": 40, "r": 30}
    ellipse = {"name": "ellipse", "cx": 50, "cy": 40, "rx": 40, "ry": 10, "theta": math.pi / 2}
    path = via2([region(shape, what="x") for shape in (RECT, TRIANGLE, circle, ellipse)])
    (found,) = objects(path)
    assert [name for name, _, _ in found] == ["x"] * 4
    boxes = [box for _, box, _ in found]
    assert boxes[:3] == [(10, 20, 40, 60), (0, 0, 50, 40), (20, 10, 80, 70)]
    np.testing.assert_allclose(boxes[3], (40, 0, 60, 80), atol=1e-9)
    assert found[0][2] is None
    rows, columns = np.mgrid[:80, :100] + 0.5
    for mask, inside in ((found[2][2], np.hypot(columns - 50, rows - 40) / 30),
                         (found[3][2], np.hypot((columns - 50) / 10, (rows - 40) / 40))):  # fmt: skip
        assert mask[inside < 0.95].all() and not mask[inside > 1.05].any()


def test_points_and_lines_are_left_out_and_counted(via2, read):
    line = {"name": "polyline", "all_points_x": [1, 2, 3], "all_points_y": [1, 2, 3]}
    content = read(via2([region(RECT, what="x"), region({"name": "point", "cx": 1, "cy": 1}, what="x"), region(line)]))
    assert len(content.images[0].instances) == 1
    assert [note for note in content.notes if "left out" in note] == [
        "left out 1 regions of the shape 'point', which have no area",
        "left out 1 regions of the shape 'polyline', which have no area",
    ]


def test_the_class_is_the_attribute_with_a_common_name_and_its_options_are_the_order(via2, read, wrong):
    both = {
        "quality": {"type": "text"},
        "Class": {"type": "dropdown", "options": {"dog": "a dog", "cow": "", "cat": ""}},
    }
    content = read(via2([region(RECT, quality="good", Class="cat"), region(TRIANGLE, Class="dog")], both))
    assert content.classes.names == ("dog", "cow", "cat")
    assert [found.class_id for found in content.images[0].instances] == [2, 0]
    assert "of the attributes 'quality', 'Class', 'Class' was taken for the class" in content.notes
    message = wrong(via2([region(RECT, quality="good", colour="red")]))
    assert "regions have 2 attributes, 'quality', 'colour', expected one, or one that is called class" in message


def test_checkboxes_and_missing_values(via2, read, wrong):
    ticked = {"what": {"type": "checkbox", "options": {"cat": "", "dog": ""}}}
    content = read(via2([region(RECT, what={"dog": True, "cat": False})], ticked))
    assert content.classes.names == ("cat", "dog") and content.images[0].instances[0].class_id == 1
    message = wrong(via2([region(RECT, what={"dog": True, "cat": True}), region(RECT, what=""), region(RECT)], ticked))
    assert "3 bad entries" in message
    assert "regions[0]: what: got 2 ticked values, expected one" in message
    assert "regions[2]: what: got nothing, expected the class of the region" in message


def test_regions_without_attributes_are_of_one_class(save, picture, read):
    # As the well-known set of balloons: version 1, an object of regions, no attribute.
    picture("b.jpg")
    path = save("v.json", {"b.jpg1": {"filename": "b.jpg", "size": 1, "regions": {"0": region(TRIANGLE)}}})
    content = read(path)
    assert content.classes.names == ("object",)
    assert content.notes == ("regions have no attribute, so all are of the class 'object'",)
    content = read(path, ClassNames(("balloon",)))
    assert content.classes.names == ("balloon",) and "'balloon'" in content.notes[0]


def test_csv_of_version_1_and_2(save, picture, objects, read):
    picture("a, b.png")
    header = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\r\n"
    rows = [
        ('"a, b.png"', '"{""name"":""rect"",""x"":10,""y"":20,""width"":30,""height"":40}"', '"{""name"":""cat""}"'),
        ('"a, b.png"', '"{""name"":""circle"",""cx"":50,""cy"":40,""r"":8}"', '"{""name"":""dog""}"'),
    ]
    text = "".join(f'{name},5,"{{}}",2,0,{shape},{value}\r\n' for name, shape, value in rows)
    for path in (save("new.csv", header + text), save("old.csv", "#" + header + text)):
        ((cat, dog),) = objects(path)
        assert cat == ("cat", (10, 20, 40, 60), None) and dog[:2] == ("dog", (42, 32, 58, 48))
        assert [found.line for found in read(path).images[0].instances] == [2, 3]


def test_a_csv_with_bad_rows_names_the_lines(save, picture, wrong):
    picture("a.png")
    header = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
    bad = header + 'a.png,5,{},1,0,"{""name"":",{}\na.png,5\na.png,5,{},1,0,"{""name"":""star""}",{}\n'
    message = wrong(save("bad.csv", bad))
    assert "line 2: not JSON" in message and "line 3: got 2 columns, expected the 7 of the header" in message
    assert "line 4: shape_attributes: got the shape 'star', expected rect, polygon" in message
    assert "line 2: unexpected end of data" in wrong(save("quote.csv", header + 'a.png,5,"{},1,0,{},{}'))


def version_3(metadata, attribute=None, files=("a.png",)):
    numbers = [str(number) for number in range(1, len(files) + 1)]
    return {
        "project": {"pid": "x", "rev": "y", "pname": "p", "created": 1, "vid_list": numbers},
        "config": {"file": {"loc_prefix": {"1": ""}}},
        "attribute": attribute or {},
        "file": {n: {"fid": n, "fname": name, "type": 2, "loc": 1, "src": ""} for n, name in zip(numbers, files)},
        "metadata": {f"m{at}": value for at, value in enumerate(metadata)},
        "view": {n: {"fid_list": [n]} for n in numbers},
    }


def test_shapes_and_options_of_version_3(save, picture, objects, read):
    picture("a.png")
    attribute = {
        "1": {"aname": "kind", "anchor_id": "FILE1_Z0_XY1", "type": 3, "options": {"0": "cat", "9": "dog"}},
        "2": {"aname": "note", "anchor_id": "FILE1_Z0_XY0", "type": 1, "options": {}},
    }
    shapes = [
        [2, 10, 20, 30, 40],
        [3, 50, 40, 30],
        [4, 50, 40, 30, 10],
        [7, 0, 0, 50, 0, 0, 40],
        [1, 5, 5],
        [6, 1, 1, 2, 2],
    ]
    metadata = [{"vid": "1", "flg": 0, "z": [], "xy": xy, "av": {"1": "9"}} for xy in shapes]
    metadata += [
        {"vid": "1", "flg": 0, "z": [], "xy": [], "av": {"2": "x"}},
        {"vid": 1, "z": [0, 1.5], "xy": [], "av": {}},
    ]
    path = save("via3.json", version_3(metadata, attribute))
    (found,) = objects(path)
    assert [entry[:2] for entry in found] == [
        ("dog", (10, 20, 40, 60)),
        ("dog", (20, 10, 80, 70)),
        ("dog", (20, 30, 80, 50)),
        ("dog", (0, 0, 50, 40)),
    ]
    content = read(path)
    assert content.classes.names == ("cat", "dog")
    assert sum("left out 1" in note for note in content.notes) == 4


def test_what_is_wrong_in_version_3_is_named(save, picture, wrong):
    picture("a.png")
    kind = {"1": {"aname": "kind", "anchor_id": "FILE1_Z0_XY1", "type": 4, "options": {"0": "cat"}}}
    metadata = [
        {"vid": "1", "z": [], "xy": [2, 10, 20, 30], "av": {"1": "0"}},
        {"vid": "1", "z": [], "xy": [2, 10, 20, 30, 40], "av": {"1": "5"}},
        {"vid": "8", "z": [], "xy": [2, 10, 20, 30, 40], "av": {"1": "0"}},
        {"vid": "1", "z": [], "xy": [2, 10, "x", 30, 40], "av": {"1": "0"}},
        {"vid": "1", "z": [], "xy": [12, 10], "av": {"1": "0"}},
        {"vid": "1", "z": [], "xy": [[2], 10, 20, 30, 40], "av": {"1": "0"}},
    ]
    message = wrong(save("via3.json", version_3(metadata, kind)))
    for part in (
        "m0: xy: got 3 numbers, expected 4",
        "m1: av 1: got '5', expected one of the options 0",
        "m2: vid: got '8', expected one of the 1 views",
        "m3: xy: got 'x', expected a number of pixels",
        "m4: xy: got the shape 12, expected 2 (rectangle)",
        "m5: xy: got a list of 1, expected the number of a shape",
    ):
        assert part in message
    assert "gone.png is missing" in wrong(save("v.json", version_3([], kind, ("gone.png",))))


def test_boxes_beyond_the_picture_are_clipped_for_outlines_alone(via2, read):
    polygon = {"name": "polygon", "all_points_x": [-5, 50, 120], "all_points_y": [-5, 90, 10]}
    content = read(via2([region(polygon, what="x")]))
    assert content.images[0].instances[0].box == (0, 0, 100, 80)
    content = read(via2([region({**RECT, "x": -5}, what="x")]))
    assert content.images[0].instances[0].box == (-5, 20, 25, 60)  # the scan tells


def test_json_that_is_something_else_is_refused(save, wrong):
    assert "expected an object" in wrong(save("v.json", json.dumps({"_via_img_metadata": {"a": 3}})))
