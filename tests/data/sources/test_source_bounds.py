"""What would fill the memory or run for hours is refused, or done in bounds."""

import base64
import resource
import zlib

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from reference.labelled_set import png

from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.image_files import BadFile
from tpu_retinamask.data.images.run_lengths import LONGEST_OUTLINE, polygon_pixels
from tpu_retinamask.data.masks import PolygonMask
from tpu_retinamask.data.sources.registry import SOURCES

LABELME = {"version": "5", "flags": {}, "imagePath": "a.png", "imageData": None, "imageHeight": 80, "imageWidth": 100}


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_bomb_of_entities_is_refused(save, picture, wrong):
    picture("images/a.png")
    entities = '<!ENTITY a0 "cat">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    text = f'<?xml version="1.0"?><!DOCTYPE annotations [{entities}]><annotations><image name="&a11;"/></annotations>'
    assert "defines entities of its own" in wrong(save("annotations.xml", text))
    text = '<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>'
    path = save("voc/Annotations/a.xml", text)
    assert "defines entities of its own" in wrong(path[: -len("/Annotations/a.xml")])


@pytest.mark.parametrize(
    "begin, end", [('{"shapes": ', "}"), ('{"_via_img_metadata": ', "}"), ('[{"data": 1, "annotations": ', "}]")]
)
def test_json_that_is_nested_deep_is_refused(begin, end, save, wrong):
    deep = 100_000
    for text in (f"{begin}{'[' * deep}{']' * deep}{end}", begin + '{"a":' * deep + "1" + "}" * deep + end):
        path = save("a.json", text.replace('"shapes"', '"version": 1, "shapes"'))
        assert "nested too deep" in wrong(path)
    assert {name for name in SOURCES.names() if SOURCES.get(name).recognise(path)}


def test_xml_that_is_nested_deep_is_read_or_refused(save, picture, read):
    picture("images/a.png")
    deep = "<box>" * 100_000 + "</box>" * 100_000
    image = f'<image name="a.png" width="100" height="80">{deep}</image>'
    path = save("annotations.xml", f"<annotations>{image}</annotations>")
    assert len(read(path, on_bad_record="skip", allow_empty=True, unused_classes="keep").images) == 1


def test_a_yaml_that_is_nested_deep_is_refused(save, wrong):
    assert "nested too deep" in wrong(save("data.yaml", f"train: {'[' * 20000}{']' * 20000}"))
    assert "expected a data.yaml of at most" in wrong(save("data.yaml", "train: a\nnames: [" + "a, " * 500_000 + "]"))


def zigzag(corners, width, height):
    """A polygon that crosses the whole picture at every corner."""
    ys = np.linspace(0, height, corners)
    return tuple(np.stack([np.arange(corners) % 2 * width, ys], axis=-1).reshape(-1).tolist())


def test_a_polygon_that_fills_the_picture_with_its_outline_is_refused_before_it_is_drawn():
    before = peak_bytes()
    with pytest.raises(BadFile, match=r"outlines of 400,.* pixels in all, expected at most 2,000,000"):
        polygon_pixels([zigzag(100_000, 4000, 4000)], 4000, 4000)
    assert peak_bytes() - before < 100 << 20
    # Just below the bound it is drawn, as pycocotools does, in bounded memory.
    polygon = zigzag(4000, 480, 480)
    drawn = polygon_pixels([polygon], 480, 480)
    np.testing.assert_array_equal(
        drawn, coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([list(polygon)], 480, 480)))
    )
    assert peak_bytes() - before < 1 << 30
    # The parts of an object count together, and holes too.
    part = zigzag(2100, 480, 480)
    with pytest.raises(BadFile, match="outlines of"):
        polygon_pixels([part, part], 480, 480)
    assert LONGEST_OUTLINE == 2_000_000


def test_a_polygon_of_many_corners_is_read(save, picture, read):
    picture("a.png")
    angles = np.linspace(0, 2 * np.pi, 100_000, endpoint=False)
    points = np.stack([50 + 30 * np.cos(angles), 40 + 30 * np.sin(angles)], axis=-1)
    shape = {"label": "cat", "shape_type": "polygon", "points": points.tolist(), "group_id": None}
    (image,) = read(save("a.json", LABELME | {"shapes": [shape]})).images
    assert isinstance(image.instances[0].mask, PolygonMask)
    (scanned,) = scan_images([image]).images
    assert scanned.instances[0].box == (20, 10, 80, 70)


@pytest.mark.parametrize("text", ["0 0.5 " * 8_000_000, "0" * 50_000_000, " " * 50_000_000 + "0 0.5"])
def test_a_label_file_of_one_line_of_50_megabytes_is_refused(text, save, picture, wrong):
    picture("d/images/a.png")
    save("d/labels/a.txt", text)
    path = save("d/classes.txt", "cat\n")[: -len("/classes.txt")]
    before = peak_bytes()
    said = wrong(path)
    assert "1 bad entries" in said and "line 1: got" in said and len(said) < 1000
    assert peak_bytes() - before < 500 << 20


def test_masks_that_claim_to_be_large_are_refused(save, picture, wrong):
    picture("images/a.png")
    picture("a.png")
    runs = '<mask label="cat" rle="100000000000000" left="0" top="0" width="10000000" height="10000000"/>'
    image = f'<image name="a.png" width="10000000" height="10000000">{runs}</image>'
    assert "got a mask of 10000000 x 10000000 pixels" in wrong(
        save("annotations.xml", f"<annotations>{image}</annotations>")
    )
    # A PNG of few bytes whose header claims 16384 x 16384 pixels, in a picture that claims them too.
    data = bytearray(png(np.zeros((1, 1), np.uint8)))
    data[16:24] = (16384).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    shape = {"label": "cat", "shape_type": "mask", "points": [[0, 0], [16383, 16383]], "group_id": None}
    shape["mask"] = base64.b64encode(data).decode()
    path = save("a.json", LABELME | {"shapes": [shape], "imageHeight": 16384, "imageWidth": 16384})
    assert "got base64 that holds no readable PNG" in wrong(path)


def test_many_repeated_faults_are_shown_in_part(save, picture, wrong):
    picture("a.png")
    shape = {"label": "cat", "shape_type": "polygon", "points": "x" * 10_000, "group_id": None}
    said = wrong(save("a.json", LABELME | {"shapes": [shape] * 5000}))
    assert "5000 bad entries" in said and "and 4980 more" in said and len(said) < 10_000
