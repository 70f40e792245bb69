"""Annotation files: every accepted form, every refusal in its exact words, files of the wild."""

import logging
import os

import pytest

from tpu_retinamask.data.annotated_image import ListedImage, ListedInstance
from tpu_retinamask.data.annotations.class_names import ClassNames, read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.data.masks import FileMask

CLASSES = ClassNames(("cow", "sheep", "cell phone"))
XYWH = "files that hold x, y, width, height look like this"
SEVEN = "7 columns image,x1,y1,x2,y2,class,mask (or 6, without a mask)"


def records_of(records, folder):
    """Shorten records to (image, [(line, box, class, mask, value)]) with paths relative to the folder."""

    def shorten(path):
        return path and os.path.relpath(path, folder) if path and path.startswith(str(folder)) else path

    return [
        (
            shorten(record.image),
            [
                (i.line, i.box, i.class_id, i.mask and shorten(i.mask.path), i.mask and i.mask.value)
                for i in record.instances
            ],
        )
        for record in records
    ]


BOX = (1.0, 2.0, 3.0, 4.0)

ACCEPTED = {
    "seven columns": ("a.png,1,2,3,4,cow,m.png\n", [("a.png", [(1, BOX, 0, "m.png", None)])]),
    "six columns: no mask": ("a.png,1,2,3,4,cow\n", [("a.png", [(1, BOX, 0, None, None)])]),
    "empty seventh column: no mask": ("a.png,1,2,3,4,cow,\n", [("a.png", [(1, BOX, 0, None, None)])]),
    "negative image, six commas": ("a.png,,,,,,\n", [("a.png", [])]),
    "negative image, five commas": ("a.png,,,,,\n", [("a.png", [])]),
    "decimals": ("a.png,1.5,.25,30.,4e1,cow\n", [("a.png", [(1, (1.5, 0.25, 30.0, 40.0), 0, None, None)])]),
    "negative coordinates are for the scan to judge": (
        "a.png,-1,2,3,4,cow\n",
        [("a.png", [(1, (-1.0, 2.0, 3.0, 4.0), 0, None, None)])],
    ),
    "CRLF": ("a.png,1,2,3,4,cow,m.png\r\nb.png,,,,,,\r\n", [("a.png", [(1, BOX, 0, "m.png", None)]), ("b.png", [])]),
    "CR alone": ("a.png,1,2,3,4,cow\rb.png,,,,,\r", [("a.png", [(1, BOX, 0, None, None)]), ("b.png", [])]),
    "no final newline": ("a.png,1,2,3,4,sheep", [("a.png", [(1, BOX, 1, None, None)])]),
    "byte order mark": ("\ufeffa.png,1,2,3,4,cow\n", [("a.png", [(1, BOX, 0, None, None)])]),
    "blank lines keep the line numbers": (
        "\n  \na.png,1,2,3,4,cow\n\n,,,,,,\nb.png,,,,,,\n",
        [("a.png", [(3, BOX, 0, None, None)]), ("b.png", [])],
    ),
    "header": ("image,x1,y1,x2,y2,class,mask\na.png,1,2,3,4,cow\n", [("a.png", [(2, BOX, 0, None, None)])]),
    "header of other names": (
        "filename,XMin,YMin,XMax,YMax,label\na.png,1,2,3,4,cow\n",
        [("a.png", [(2, BOX, 0, None, None)])],
    ),
    "quotes": ('"a,b.png","1",2,3,4,"cell phone","m.png"\n', [("a,b.png", [(1, BOX, 2, "m.png", None)])]),
    "spaces around fields": (" a.png , 1,2 ,3,4, cow ,m.png \n", [("a.png", [(1, BOX, 0, "m.png", None)])]),
    "absolute path": (
        "/data/imgs/a.png,1,2,3,4,cow,/m/m.png\n",
        [("/data/imgs/a.png", [(1, BOX, 0, "/m/m.png", None)])],
    ),
    "URL": (
        "gs://bucket/a.png,1,2,3,4,cow,gs://bucket/m.png#3\n",
        [("gs://bucket/a.png", [(1, BOX, 0, "gs://bucket/m.png", 3)])],
    ),
    "label map": (
        "a.png,1,2,3,4,cow,m.png#7\na.png,1,2,3,4,cow,m.png#300\n",
        [("a.png", [(1, BOX, 0, "m.png", 7), (2, BOX, 0, "m.png", 300)])],
    ),
    "a file of the literal name wins over the label suffix": (
        "a.png,1,2,3,4,cow,here.png#7\n",
        [("a.png", [(1, BOX, 0, "here.png#7", None)])],
    ),
    "a hash without digits is part of the name": (
        "a.png,1,2,3,4,cow,m#x.png\n",
        [("a.png", [(1, BOX, 0, "m#x.png", None)])],
    ),
    "rows of an image need not be neighbours": (
        "a.png,1,2,3,4,cow\nb.png,1,2,3,4,cow\na.png,1,2,3,4,sheep\n",
        [("a.png", [(1, BOX, 0, None, None), (3, BOX, 1, None, None)]), ("b.png", [(2, BOX, 0, None, None)])],
    ),
    "two spellings of one path": (
        "./a.png,1,2,3,4,cow\nx/../a.png,1,2,3,4,sheep\n",
        [("a.png", [(1, BOX, 0, None, None), (2, BOX, 1, None, None)])],
    ),
    "a repeated row is left out": (
        "a.png,1,2,3,4,cow,m.png\na.png,1.0,2,3,4,cow,m.png\n",
        [("a.png", [(1, BOX, 0, "m.png", None)])],
    ),
    "a repeated negative row is left out": ("a.png,,,,,,\na.png,,,,,\n", [("a.png", [])]),
    "same box, other mask or class: another instance": (
        "a.png,1,2,3,4,cow,m.png\na.png,1,2,3,4,cow,n.png\na.png,1,2,3,4,sheep,m.png\n",
        [("a.png", [(1, BOX, 0, "m.png", None), (2, BOX, 0, "n.png", None), (3, BOX, 1, "m.png", None)])],
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted_forms(case, write, tmp_path):
    text, expected = ACCEPTED[case]
    write("here.png#7", b"")
    records = read_annotations(write("train.csv", text), CLASSES)
    assert records_of(records, tmp_path) == expected


BAD = {
    "five columns": ("a.png,1,2,3,4\n", f"t.csv, line 1: read 'a.png,1,2,3,4', expected {SEVEN}, not 5"),
    "eight columns": (
        "a.png,1,2,3,4,cow,m.png,\n",
        f"t.csv, line 1: read 'a.png,1,2,3,4,cow,m.png,', expected {SEVEN}, not 8",
    ),
    "image alone": (
        "a.png\n",
        f"t.csv, line 1: read 'a.png', expected {SEVEN}, not 1; an image without objects is written `image,,,,,,`",
    ),
    "semicolons": (
        "a.png;1;2;3;4;cow\n",
        f"t.csv, line 1: read 'a.png;1;2;3;4;cow', expected {SEVEN}, not 1; use commas between columns",
    ),
    "word for a number": (
        "a.png,one,2,3,4,cow\n",
        "t.csv, line 1, column 2 (x1): read 'one', expected a number such as 12 or 12.5",
    ),
    "decimal comma": (
        'a.png,"1,5",2,3,4,cow\n',
        "t.csv, line 1, column 2 (x1): read '1,5', expected a number such as 12 or 12.5",
    ),
    "Python's own number forms": (
        "a.png,1_0,2,33,4,cow\n",
        "t.csv, line 1, column 2 (x1): read '1_0', expected a number such as 12 or 12.5",
    ),
    "one coordinate missing": (
        "a.png,1,2,3,,cow\n",
        "t.csv, line 1, column 5 (y2): read '', expected a number such as 12 or 12.5 "
        "(give all four coordinates, or none for an image without objects)",
    ),
    "nan": ("a.png,1,nan,3,4,cow\n", "t.csv, line 1, column 3 (y1): read 'nan', expected a finite number"),
    "infinity": ("a.png,1,2,-inf,4,cow\n", "t.csv, line 1, column 4 (x2): read '-inf', expected a finite number"),
    "too large": ("a.png,1,2,1e999,4,cow\n", "t.csv, line 1, column 4 (x2): read '1e999', expected a finite number"),
    "x2 below x1": (
        "a.png,20,2,17,40,cow\n",
        "t.csv, line 1, column 4 (x2): read '17', expected a number greater than x1 = 20 "
        f"(x2 must be greater than x1; {XYWH})",
    ),
    "x2 equal to x1": (
        "a.png,20,2,20,40,cow\n",
        "t.csv, line 1, column 4 (x2): read '20', expected a number greater than x1 = 20 "
        f"(x2 must be greater than x1; {XYWH})",
    ),
    "y2 below y1": (
        "a.png,1,30,3,4.5,cow\n",
        "t.csv, line 1, column 5 (y2): read '4.5', expected a number greater than y1 = 30 "
        f"(y2 must be greater than y1; {XYWH})",
    ),
    "misspelt class": (
        "a.png,1,2,3,4,Sheeps\n",
        "t.csv, line 1, column 6 (class): read 'Sheeps', expected a class of the class file; the nearest are 'sheep'",
    ),
    "class in capitals": (
        "a.png,1,2,3,4,COW\n",
        "t.csv, line 1, column 6 (class): read 'COW', expected a class of the class file; the nearest are 'cow'",
    ),
    "unlike any class": (
        "a.png,1,2,3,4,zzz\n",
        "t.csv, line 1, column 6 (class): read 'zzz', expected a class of the class file: 'cow', 'sheep', 'cell phone'",
    ),
    "class id for a name": (
        "a.png,1,2,3,4,1\n",
        "t.csv, line 1, column 6 (class): read '1', expected the name of a class, not its id",
    ),
    "box without a class": (
        "a.png,1,2,3,4,,m.png\n",
        "t.csv, line 1, column 6 (class): read '', expected a class of the class file: 'cow', 'sheep', 'cell phone'",
    ),
    "class without a box": (
        "a.png,,,,,cow,\n",
        "t.csv, line 1, column 6 (class): read 'cow', expected nothing, because the four "
        "coordinates are empty (an image without objects)",
    ),
    "mask without a box": (
        "a.png,,,,,,m.png\n",
        "t.csv, line 1, column 7 (mask): read 'm.png', expected nothing, because the four "
        "coordinates are empty (an image without objects)",
    ),
    "no image": (",1,2,3,4,cow,m.png\n", "t.csv, line 1, column 1 (image): read '', expected the path of an image"),
    "label 0": (
        "a.png,1,2,3,4,cow,m.png#0\n",
        "t.csv, line 1, column 7 (mask): read 'm.png#0', expected a label from 1 to 65535 after '#' "
        "(0 is the background of a label map), or a colour such as #ff0000",
    ),
    "label beyond 16 bits": (
        "a.png,1,2,3,4,cow,m.png#65536\n",
        "t.csv, line 1, column 7 (mask): read 'm.png#65536', expected a label from 1 to "
        "65535 after '#' (0 is the background of a label map), or a colour such as #ff0000",
    ),
    "negative, then boxes": (
        "a.png,,,,,,\nb.png,,,,,,\na.png,1,2,3,4,cow\n",
        "t.csv, line 3: a.png has a box here but is listed as an image without objects "
        "in line 1; remove one of the two rows",
    ),
    "boxes, then negative": (
        "a.png,1,2,3,4,cow\na.png,,,,,,\n",
        "t.csv, line 2: a.png is listed as an image without objects here but has a box "
        "in line 1; remove one of the two rows",
    ),
    "header of x, y, width, height": (
        "image,x,y,width,height,class\na.png,1,2,3,4,cow\n",
        "t.csv, line 1: read 'image,x,y,width,height,class', expected a header row in the order "
        f"image,x1,y1,x2,y2,class,mask; reorder or convert the columns ({XYWH})",
    ),
    "header in another order": (
        "image,x1,x2,y1,y2,class\na.png,1,2,3,4,cow\n",
        "t.csv, line 1: read 'image,x1,x2,y1,y2,class', expected a header row in the order "
        "image,x1,y1,x2,y2,class,mask; reorder or convert the columns",
    ),
    "header of eight columns": (
        "image,x1,y1,x2,y2,class,mask,area\na.png,1,2,3,4,cow,m.png\n",
        "t.csv, line 1: read 'image,x1,y1,x2,y2,class,mask,area', expected a header row in the order "
        "image,x1,y1,x2,y2,class,mask; reorder or convert the columns",
    ),
    "header alone": ("image,x1,y1,x2,y2,class,mask\n", "t.csv, line 1: only a header row, expected at least one image"),
    "a header that is not first": (
        "a.png,1,2,3,4,cow\nimage,x1,y1,x2,y2,class\n",
        "t.csv, line 2, column 2 (x1): read 'x1', expected a number such as 12 or 12.5",
    ),
    "line numbers count blank and CRLF lines": (
        "a.png,1,2,3,4,cow\r\n\r\nb.png,1,2,3,x,cow\r\n",
        "t.csv, line 3, column 5 (y2): read 'x', expected a number such as 12 or 12.5",
    ),
    "quote left open": (
        'a.png,1,2,3,4,cow\n"b.png,1,2,3,4,cow\nc.png,1,2,3,4,cow\n',
        't.csv, line 3: unexpected end of data, expected comma-separated fields whose quotes (") are closed',
    ),
    "quote over two lines": (
        'a.png,1,2,3,4,cow\n"b\n.png",1,2,3,4,cow\n',
        "t.csv, line 2: a quoted field runs over the end of the line, expected every "
        'quote (") to be closed on its own line',
    ),
    "UTF-16": (
        "a.png,1,2,3,4,cow\n".encode("utf-16"),
        "t.csv, line 1: read the byte 0xff, expected UTF-8 text (the file starts like UTF-16; save it as UTF-8)",
    ),
    "Latin-1": (
        "a.png,1,2,3,4,cow\nk\u00fche.png,1,2,3,4,cow\n".encode("latin-1"),
        "t.csv, line 2: read the byte 0xfc, expected UTF-8 text",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_rows_name_line_column_value_and_cure(case, write):
    text, expected = BAD[case]
    with pytest.raises(AnnotationError) as error:
        read_annotations(write("t.csv", text), CLASSES)
    assert error.value.problems == (expected,)
    heading, line = str(error.value).split("\n")
    assert heading.startswith("t.csv: 1 bad line") and line == f"  {expected}"


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(text, write):
    with pytest.raises(AnnotationError, match="t.csv: the file is empty, expected at least one row"):
        read_annotations(write("t.csv", text), CLASSES)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.csv: no such file"):
        read_annotations(str(tmp_path / "none.csv"), CLASSES)


def test_all_bad_lines_come_at_once_but_twenty_are_shown(write):
    text = "good.png,1,2,3,4,cow\n" + "".join(f"{n}.png,5,5,4,9,cow\n" for n in range(23))
    with pytest.raises(AnnotationError) as error:
        read_annotations(write("t.csv", text), CLASSES)
    lines = str(error.value).split("\n")
    assert lines[0] == (
        "t.csv: 23 bad lines; correct them, or leave them out, counted, by --gin_param=\"source.on_bad_record='skip'\""
    )
    assert [line.split(",")[1] for line in lines[1:21]] == [f" line {n}" for n in range(2, 22)]
    assert lines[21:] == ["  and 3 more"]
    assert len(error.value.problems) == 23


def test_record_holds_name_and_line_as_written(write, tmp_path):
    records = read_annotations(write("t.csv", "\n./a.png,1,2,3,4,cow,m.png#2\n"), CLASSES)
    assert records == [
        ListedImage(
            image=str(tmp_path / "a.png"),
            name="./a.png",
            line=2,
            instances=(ListedInstance(2, BOX, 0, FileMask(str(tmp_path / "m.png"), 2)),),
        )
    ]


def test_paths_are_relative_to_the_csv_and_not_to_the_working_directory(write, tmp_path, monkeypatch):
    write("sub/t.csv", "../a.png,1,2,3,4,cow,m.png\n")
    monkeypatch.chdir(tmp_path)
    (record,) = read_annotations("sub/t.csv", CLASSES)
    assert (record.image, record.instances[0].mask) == ("a.png", FileMask("sub/m.png"))


def test_skipped_header_and_repeated_rows_are_logged(write, caplog):
    caplog.set_level(logging.INFO)
    read_annotations(
        write("t.csv", ("image,x1,y1,x2,y2,class\na.png,1,2,3,4,cow\na.png,1,2,3,4,cow\na.png,1,2,3,4,cow\n")), CLASSES
    )
    assert [record.getMessage() for record in caplog.records] == [
        "t.csv, line 1: skipped the header row image,x1,y1,x2,y2,class",
        "t.csv: left out 2 rows that repeat an earlier row in every column (first: line 3)",
    ]


def test_x_y_width_height_in_the_corner_columns_is_refused(write):
    text = "1.jpg,42,88,108,213,cow\r\n1.jpg,140,65,285,228,cow\r\n1.jpg,429,107,25,108,cow\r\n"
    with pytest.raises(AnnotationError) as error:
        read_annotations(write("output.csv", text), CLASSES)
    assert error.value.problems == (
        "output.csv, line 3, column 4 (x2): read '25', expected a number greater than x1 = 429 "
        f"(x2 must be greater than x1; {XYWH})",
    )


def test_boxes_of_one_pixel_and_one_mask_file_for_all_rows(write, tmp_path):
    text = "p/1.png,0,0,1,1,cow,m/general.png\np/2.png,0,0,1,1,cow,m/general.png\n"
    records = read_annotations(write("annotation.csv", text), CLASSES)
    unit = (0.0, 0.0, 1.0, 1.0)
    assert records_of(records, tmp_path) == [
        ("p/1.png", [(1, unit, 0, "m/general.png", None)]),
        ("p/2.png", [(2, unit, 0, "m/general.png", None)]),
    ]


# file -> (images, instances, images without objects), or the number of bad lines
WILD = {
    "DavidMartinez16+Mask-Detection-and-Segmentation/annotations.csv": (708, 708, 0),
    "DavidMartinez16+Mask-Detection-and-Segmentation/annotations_test.csv": (169, 169, 0),
    "HackTheDeep+trilobite_bits_keras/annotations.csv": (42, 144, 0),
    "HackTheDeep+trilobite_bits_keras/output.csv": 86,
    "byc980317+PhoneFinder/phone_train.csv": (129, 129, 0),
    "fizyr+keras-retinanet-test-data/csv_annotations.csv": (1, 1, 0),
    "from_issues/keras-maskrcnn_22_annotations.csv": (2, 3, 0),
    "from_issues/keras-maskrcnn_22_nomask_annotations.csv": (1, 1, 0),
    "from_issues/keras-maskrcnn_67_annotations.csv": (3, 2, 2),
    "from_issues/keras-retinanet_936_annotations.csv": (1, 1, 0),
    "irakaundal+keras-retinanet/annotation.csv": (1450, 1450, 0),
}
WILD_CLASSES = {
    "DavidMartinez16+Mask-Detection-and-Segmentation/classes.csv": ("mask", "no_mask"),
    "HackTheDeep+trilobite_bits_keras/class_map.csv": ("head", "thorax", "pagidium"),
    "byc980317+PhoneFinder/class_map.csv": (None,) * 67 + ("cell phone",),
    "fizyr+keras-retinanet-test-data/csv_classes.csv": ("person",),
    "from_issues/keras-maskrcnn_67_classes.csv": ("apple",),
    "irakaundal+keras-retinanet/class.csv": ("pristine", "fake"),
}


def test_every_file_from_the_wild_has_a_verdict(shared_data):
    folder = shared_data / "csv_wild"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.csv")}
    assert found == set(WILD) | set(WILD_CLASSES)


@pytest.mark.parametrize("name", WILD_CLASSES)
def test_class_files_from_the_wild(name, shared_data):
    assert read_classes(str(shared_data / "csv_wild" / name)).names == WILD_CLASSES[name]


@pytest.mark.parametrize("name", WILD)
def test_annotation_files_from_the_wild(name, shared_data):
    path = shared_data / "csv_wild" / name
    own = [other for other in WILD_CLASSES if other.split("/")[0] == name.split("/")[0] != "from_issues"]
    classes = ClassNames(("apple", "car", "cow", "sheep"))
    if own:
        classes = read_classes(str(shared_data / "csv_wild" / own[0]))
    if isinstance(WILD[name], int):
        with pytest.raises(AnnotationError) as error:
            read_annotations(str(path), classes)
        assert len(error.value.problems) == WILD[name]
        assert all(XYWH in problem for problem in error.value.problems)
        return
    records = read_annotations(str(path), classes)
    counts = (
        len(records),
        sum(len(record.instances) for record in records),
        sum(1 for record in records if not record.instances),
    )
    assert counts == WILD[name]
