"""Class files: every accepted form, every refusal in its exact words."""

import pytest

from tpu_retinamask.data.annotations.class_names import ClassNames, read_classes
from tpu_retinamask.data.annotations.csv_rows import AnnotationError

BAD_CLASSES = {
    "one column": ("cow\n", "c.csv, line 1: read 'cow', expected 2 columns `name,id`, not 1"),
    "three columns": ("cow,0,red\n", "c.csv, line 1: read 'cow,0,red', expected 2 columns `name,id`, not 3"),
    "semicolon": (
        "cow;0\n",
        "c.csv, line 1: read 'cow;0', expected 2 columns `name,id`, not 1 (use commas between columns)",
    ),
    "no name": (",0\n", "c.csv, line 1, column 1 (name): read '', expected a class name"),
    "malformed id": ("cow,zero\n", "c.csv, line 1, column 2 (id): read 'zero', expected a whole number from 0"),
    "decimal id": ("cow,1.0\n", "c.csv, line 1, column 2 (id): read '1.0', expected a whole number from 0"),
    "no id": ("cow,\n", "c.csv, line 1, column 2 (id): read '', expected a whole number from 0"),
    "name and id exchanged": ("0,cow\n", "c.csv, line 1, column 2 (id): read 'cow', expected a whole number from 0"),
    "negative id": (
        "cow,-1\n",
        "c.csv, line 1, column 2 (id): read '-1', expected an id that is not negative; ids start at 0",
    ),
    "enormous id": (
        "cow,99999\n",
        "c.csv, line 1, column 2 (id): read '99999', expected an id up to 65535; ids start at 0",
    ),
    "duplicate name": (
        "cow,0\nsheep,1\ncow,2\n",
        "c.csv, line 3, column 1 (name): read 'cow', expected a new name; line 1 has this one "
        "already (duplicate class name)",
    ),
    "duplicate id": (
        "cow,0\n\nsheep,0\n",
        "c.csv, line 3, column 2 (id): read '0', expected a new id; line 1 has this one already (duplicate class id)",
    ),
    "header alone": ("name,id\n", "c.csv, line 1: only a header row, expected at least one row `name,id`"),
}


@pytest.mark.parametrize("case", BAD_CLASSES)
def test_refused_class_rows(case, write):
    text, expected = BAD_CLASSES[case]
    with pytest.raises(AnnotationError) as error:
        read_classes(write("c.csv", text))
    assert error.value.problems == (expected,)


def test_an_empty_class_file_is_refused(write):
    with pytest.raises(AnnotationError, match="c.csv: the file is empty"):
        read_classes(write("c.csv", "\n"))


@pytest.mark.parametrize(
    "text",
    ["cow,0\nsheep,1\n", "cow,0\r\nsheep,1", "\ufeffsheep,1\n\ncow,0\n", "class_name,class_id\ncow, 0\nsheep,+1\n"],
)
def test_accepted_class_files(text, write):
    classes = read_classes(write("c.csv", text))
    assert classes == ClassNames(("cow", "sheep"))
    assert classes.num_classes == 2 and classes.ids == {"cow": 0, "sheep": 1}
    assert [classes.name_of(0), classes.name_of(1)] == ["cow", "sheep"]


def test_one_class_with_id_67_warns_of_67_unused_outputs(write, caplog):
    classes = read_classes(write("class_map.csv", "cell phone,67\n"))
    assert classes.num_classes == 68 and classes.ids == {"cell phone": 67}
    assert (classes.name_of(67), classes.name_of(3)) == ("cell phone", "unused_3")
    assert [record.getMessage() for record in caplog.records] == [
        "class_map.csv: 67 of the 68 class outputs are unused, because the highest id is 67 and only 1 "
        "classes are named; number the classes from 0 without gaps to save them"
    ]
    for outside in (-1, 68):
        with pytest.raises(IndexError, match=f"class id {outside} is outside 0..67"):
            classes.name_of(outside)


def test_class_file_is_written_so_that_it_reads_back(write):
    classes = ClassNames(("a,b", None, 'the "third"', "\u00fc"))
    assert read_classes(write("c.csv", classes.to_csv())) == classes
    assert classes.to_csv().splitlines()[0] == '"a,b",0'
