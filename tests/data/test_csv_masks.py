"""The mask column where it holds a mask, rows that are left out, classes that nobody numbers."""

import json

import numpy as np
import pytest
from pycocotools import mask as rle_codec

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.csv_annotations import read_csv
from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.mask_reader import read_mask
from tpu_retinamask.data.masks import ColourMask, FileMask
from tpu_retinamask.data.sources.opening import open_images
from tpu_retinamask.data.sources.settings import SourceSettings

MUG = ClassNames(("mug",))
TRIANGLE = [20, 12, 60, 12, 60, 52]
BOX = "20,12,60,52"
PIXELS = rle_codec.decode(rle_codec.frPyObjects([TRIANGLE], 96, 128))[..., 0].astype(bool)
RLE = rle_codec.encode(np.asfortranarray(PIXELS, np.uint8))
TEXT = RLE["counts"].decode()

SHAPES = {
    "decimals": "20.0 12.0 60.0 12.0 60.0 52.0",
    "whole numbers": "20 12 60 12 60 52",
    "commas": "20,12, 60,12, 60,52",
    "semicolons": "20 12;60 12;60 52",
    "a flat list": json.dumps(TRIANGLE),
    "polygons": json.dumps([TRIANGLE]),
    "pairs": "[[20, 12], [60, 12], [60, 52]]",
    "Python's tuples": "[(20, 12), (60, 12), (60, 52)]",
    "a tuple of tuples": "(20, 12), (60, 12), (60, 52)",
    "run lengths": json.dumps({"size": [96, 128], "counts": TEXT}),
    "as pandas saves them": str({"size": [96, 128], "counts": RLE["counts"]}),
    "run lengths as numbers": json.dumps({"size": [96, 128], "counts": [1940, 8, 10340]}),
}


def quoted(cell):
    return '"' + cell.replace('"', '""') + '"'


@pytest.mark.parametrize("case", SHAPES)
def test_polygons_and_run_lengths_of_a_cell(case, write):
    write("a.png", np.zeros((96, 128, 3), np.uint8))
    content = read_csv(write("t.csv", f"a.png,{BOX},mug,{quoted(SHAPES[case])}\n"), MUG)
    (record,) = scan_images(content.images).images
    found = read_mask(record.instances[0], 96, 128)
    if case == "run lengths as numbers":
        assert found.sum() == 8 and found[20:28, 20].all()  # 1940 = 20 * 96 + 20
    else:
        np.testing.assert_array_equal(found, PIXELS)


REFUSED = {
    "Kaggle's runs": ("2000 10 2096 12", "do not say whether they count pixels down the columns or along the rows"),
    "well-known text": ("POLYGON ((20 12, 60 12, 60 52))", "well-known text is not read; write the polygon as"),
    "one run": ("2000 10", "do not say whether"),
    "either": ("20 12 35 13 50 48", "it may be a polygon, or pairs of start and length (Kaggle's)"),
    "two corners": ("20.5 12 60 52", "2 corners, expected 3 or more"),
    "odd": ("20 12 60 12 60", "5 numbers, expected an even count"),
    "half a list": ("[[20, 12, 60, 12", "begins like JSON and is none"),
    "run lengths without size": (json.dumps({"counts": TEXT}), "got an object with ['counts']"),
    "run lengths too short": (json.dumps({"size": [96, 128], "counts": [1]}), "sum to 1 pixels, expected 128 x 96"),
    "a list of words": ('["a", "b"]', "got 'a' in a polygon"),
    "an expression": ("[__import__('os').getcwd()]", "begins like JSON and is none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_ambiguous_or_none_is_refused_with_what_to_write(case, write):
    cell, message = REFUSED[case]
    with pytest.raises(AnnotationError) as error:
        read_csv(write("t.csv", f"a.png,{BOX},mug,{quoted(cell)}\n"), MUG)
    (problem,) = error.value.problems
    assert problem.startswith("t.csv, line 1, column 7 (mask): read ") and message in problem


def test_a_long_polygon_is_one_field(write):
    corners = " ".join(f"{20 + n % 40}.5 {12 + n % 39}.25" for n in range(30_000))
    content = read_csv(write("t.csv", f'a.png,{BOX},mug,"{corners}"\n'), MUG)
    assert len(content.images[0].instances[0].mask.polygons[0]) == 60_000


def test_suffixes_are_labels_or_colours(write, tmp_path):
    text = "".join(f"a.png,{BOX},mug,m.png#{suffix}\n" for suffix in ("7", "65535", "ff0000", "00FF7f", "000128"))
    masks = [instance.mask for instance in read_csv(write("t.csv", text), MUG).images[0].instances]
    path = str(tmp_path / "m.png")
    assert masks == [
        FileMask(path, 7),
        FileMask(path, 65535),
        ColourMask(path, (255, 0, 0)),
        ColourMask(path, (0, 255, 127)),
        ColourMask(path, (0, 1, 40)),
    ]
    assert [str(mask).rpartition("#")[2] for mask in masks[2:]] == ["ff0000", "00ff7f", "000128"]
    with pytest.raises(AnnotationError, match="or a colour such as #ff0000"):
        read_csv(write("t.csv", f"a.png,{BOX},mug,m.png#red\n"), MUG)
    write("m.png#red", b"")  # a file of this name wins
    assert read_csv(write("t.csv", f"a.png,{BOX},mug,m.png#red\n"), MUG).images[0].instances[0].mask == FileMask(
        str(tmp_path / "m.png#red")
    )


def test_bad_rows_can_be_left_out(write):
    path = write("t.csv", f"a.png,{BOX},mug\na.png,51,20,51,70,mug\na.png,1,2,3,4,cup\na.png,1,2\nb.png,{BOX},mug\n")
    with pytest.raises(AnnotationError, match="3 bad lines; correct them, or leave them out, counted, by --gin_param"):
        read_csv(path, MUG)
    content = read_csv(path, MUG, "skip")
    assert [(image.name, len(image.instances)) for image in content.images] == [("a.png", 1), ("b.png", 1)]
    (note,) = content.notes
    assert note.startswith("left out 3 bad lines:\n") and "line 2, column 4 (x2): read '51'" in note
    with pytest.raises(
        AnnotationError, match=r"t.csv: nothing is left after leaving out 1 bad lines[^-]*\n[^-]*$"
    ):  # no advice
        read_csv(write("t.csv", "a.png,51,20,51,70,mug\n"), MUG, "skip")


def test_a_program_that_skips_reads_the_rest(write):
    write("a.png", np.zeros((96, 128, 3), np.uint8))
    path = write("t.csv", f"a.png,{BOX},mug\na.png,51,20,51,70,mug\na.png,200,20,210,70,mug\n")
    classes = write("classes.csv", "mug,0\n")
    _, images = open_images(path, classes, None, settings=SourceSettings(on_bad_record="skip"))
    assert [instance.line for instance in images[0].instances] == [1]


def test_classes_are_sorted_where_nobody_numbers_them(write):
    content = read_csv(write("t.csv", f"a.png,{BOX},plate\na.png,{BOX},mug\nb.png,,,,,,\na.png,{BOX},plate\n"), None)
    assert content.classes.names == ("mug", "plate")
    assert [instance.class_id for instance in content.images[0].instances] == [1, 0]
    assert content.notes == (
        "no --classes: the 2 classes are numbered in the order of their names (mug = 0, plate = 1)",
    )


def test_backslashes_are_folders_unless_a_file_is_called_so(write, tmp_path):
    path = write("t.csv", f"images\\a.png,{BOX},mug,masks\\a.png#3\n")
    content = read_csv(path, MUG)
    assert content.images[0].image == str(tmp_path / "images" / "a.png")
    assert content.images[0].instances[0].mask == FileMask(str(tmp_path / "masks" / "a.png"), 3)
    assert content.notes == ("2 paths hold a backslash, which is read as /",)
    write("images\\a.png", b"")
    assert read_csv(path, MUG).images[0].image == str(tmp_path / "images\\a.png")


@pytest.mark.parametrize(
    "text, message",
    [
        ("ImageId,EncodedPixels\na.png,2000 10 2096 12\n", "a file of Kaggle's run lengths, which do not say"),
        ("filename,file_size,region_count,region_shape_attributes\n", "a file of VIA, which --format=via reads"),
        ("ImageID,XMin,YMin,XMax,YMax,LabelName\na.png,0.1,0.2,0.3,0.4,mug\n", "lie in 0..1: pixels are expected"),
        ("a.png,0.5,0.5,0.2,0.3,mug\n", "all coordinates of the 1 boxes lie in 0..1"),
    ],
)
def test_files_of_others_say_what_they_are(text, message, write):
    with pytest.raises(AnnotationError) as error:
        read_csv(write("t.csv", text), MUG, "skip")
    assert message in str(error.value)
