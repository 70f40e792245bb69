"""CVAT for images 1.1: elements as it writes them, and what is wrong with others."""

import numpy as np
import pytest
from reference.labelled_set import drawn

META = """<meta><task><labels>
<label><name>dog</name><color>#fff</color><attributes></attributes></label><label><name>cat</name></label>
<label><name>nose</name><parent>dog</parent></label></labels></task></meta>"""


@pytest.fixture
def cvat(save, picture):
    """Write an XML file with the elements of one picture."""

    def write_file(elements, meta=META):
        picture("images/a b.jpg")
        image = f'<image id="0" name="a b.jpg" width="100" height="80">{elements}</image>'
        return save(
            "annotations.xml", f"<?xml version='1.0'?><annotations><version>1.1</version>{meta}{image}</annotations>"
        )

    return write_file


BOX = '<box label="cat" source="manual" occluded="0" xtl="10.50" ytl="20.00" xbr="40.00" ybr="60.25" z_order="0"{}/>'


def test_elements(cvat, objects, read):
    path = cvat(
        BOX.format("")
        + '<polygon label="dog" points="1.50,2.00;50.25,2.00;20.00,60.00"><attribute name="x">1</attribute></polygon>'
        + '<mask label="cat" rle="1, 1, 2, 2" left="5" top="6" width="3" height="2"/>'
        + '<ellipse label="dog" cx="50" cy="40" rx="30" ry="10" rotation="90"/>'
        + '<polyline label="dog" points="1,1;2,2"/><points label="dog" points="1,1"/><tag label="dog"/>'
    )
    (found,) = objects(path)
    assert [entry[:2] for entry in found[:3]] == [
        ("cat", (10.5, 20, 40, 60.25)),
        ("dog", (1.5, 2, 50.25, 60)),
        ("cat", (6, 6, 8, 8)),
    ]
    assert found[0][2] is None
    np.testing.assert_array_equal(found[1][2], drawn((1.5, 2, 50.25, 2, 20, 60), 100, 80))
    assert np.argwhere(found[2][2]).tolist() == [[6, 6], [7, 6], [7, 7]]
    np.testing.assert_allclose(found[3][1], (40, 10, 60, 70), atol=1e-9)
    content = read(path)
    assert content.classes.names == ("dog", "cat")  # without the part of a skeleton
    assert sum("which are no outline" in note for note in content.notes) == 3


def test_a_turned_box_is_a_polygon_in_its_extent(cvat, objects):
    ((found,),) = objects(cvat('<box label="cat" xtl="20" ytl="30" xbr="60" ybr="50" rotation="90.00"/>'))
    np.testing.assert_allclose(found[1], (30, 20, 50, 60), atol=1e-9)
    truth = np.zeros((80, 100), bool)
    truth[20:60, 30:50] = True
    np.testing.assert_array_equal(found[2], truth)
    ((found,),) = objects(cvat('<box label="cat" xtl="20" ytl="30" xbr="60" ybr="50" rotation="30"/>'))
    half = 20 * np.cos(np.pi / 6) + 10 * np.sin(np.pi / 6), 20 * np.sin(np.pi / 6) + 10 * np.cos(np.pi / 6)
    np.testing.assert_allclose(found[1], (40 - half[0], 40 - half[1], 40 + half[0], 40 + half[1]), atol=1e-9)
    # Clockwise as one sees it: the right end is lower.
    assert found[2][48, 55] and not found[2][32, 55]


def test_a_group_of_outlines_is_one_object_and_of_boxes_is_not(cvat, objects):
    (found,) = objects(
        cvat(
            '<polygon label="cat" group_id="4" points="0,0;10,0;10,10;0,10"/>'
            '<mask label="cat" group_id="4" rle="0, 4" left="20" top="0" width="2" height="2"/>'
            + BOX.format(' group_id="4"')
        )
    )
    assert [entry[1] for entry in found] == [(0, 0, 22, 10), (10.5, 20, 40, 60.25)]
    assert found[0][2].sum() == 104


@pytest.mark.parametrize(
    "element, message",
    [
        (BOX.replace("10.50", "x").format(""), "box 1: xtl: got 'x', expected a number of pixels"),
        (BOX.replace('ytl="20.00"', "").format(""), "box 1: ytl: got nothing, expected a number of pixels"),
        (BOX.replace("cat", "cow").format(""), None),
        (
            BOX.replace("40.00", "4.00").format(""),
            "box 1: got the extent 10.5, 20, 4, 60.25, expected one with an area",
        ),
        ('<polygon label="cat" points="1,2;3"/>', "points[1]: got a list of 1, expected a point [x, y]"),
        ('<polygon label="cat" points=""/>', "got 0 points, expected the 3 or more corners"),
        ('<mask label="cat" rle="1, 2" left="5" top="6" width="3" height="2"/>', "whose sum is 3 x 2 = 6"),
        ('<mask label="cat" rle="7, -1" left="5" top="6" width="3" height="2"/>', "whose sum is 3 x 2 = 6"),
        (
            '<mask label="cat" rle="6" left="99" top="6" width="3" height="2"/>',
            "expected it inside the picture of 100 x 80",
        ),
        ('<mask label="cat" rle="6" left="5" top="6" width="3" height="2"/>', "got a mask without a pixel"),
        ('<ellipse label="cat" cx="9" cy="9" rx="-1" ry="2"/>', "rx: got the radius -1, expected one greater than 0"),
    ],
)
def test_what_is_wrong_is_named(element, message, cvat, read, wrong):
    path = cvat(element)
    if message is None:  # a label beside the task's
        content = read(path)
        assert content.classes.names == ("dog", "cat", "cow")
        assert "1 classes are not in its list and were put behind: cow" in content.notes
    else:
        said = wrong(path)
        assert "annotations.xml, image 1 (a b.jpg), " in said and message in said


def test_other_files_are_refused(cvat, save, wrong, read):
    tracks = "<annotations><version>1.1</version><track id='0' label='cat'><box frame='0'/></track></annotations>"
    assert "export the task as 'CVAT for images 1.1'" in wrong(save("v.xml", tracks))
    assert "not an XML file" in wrong(save("v.xml", "<annotations><image>"))
    assert "no picture was found" in wrong(save("v.xml", "<annotations></annotations>"))
    path = cvat("")
    assert "1 pictures and no object at all" in wrong(path)
    assert read(path, allow_empty=True).classes.names == ("dog", "cat")
    twice = META.replace("<name>cat", "<name>dog")
    assert "1 names stand for several classes: 'dog'" in wrong(cvat(BOX.format("").replace("cat", "dog"), twice))
    assert read(cvat(BOX.format("").replace("cat", "dog"), twice), repeated_names="merge").classes.names == ("dog",)
