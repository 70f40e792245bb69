"""What is no file is refused by name before it is opened, and names and numbers of any length or kind are told."""

import os
import pathlib
import signal

import pytest

from tpu_retinamask.data.annotations.class_names import ClassNames, read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_csv
from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.data.images.bad_file import BadFile
from tpu_retinamask.data.images.finding import find_images
from tpu_retinamask.data.images.image_files import check_image, load_mask
from tpu_retinamask.data.sources.checked import load_json, load_xml
from tpu_retinamask.data.sources.opening import read_source, recognise
from tpu_retinamask.data.sources.pictures import picture_sizes
from tpu_retinamask.data.sources.registry import SOURCES
from tpu_retinamask.errors import UserError
from tpu_retinamask.file_kinds import refuse_no_file
from tpu_retinamask.files import file_sha256, read_bytes, read_head, read_text

COW = ClassNames(("cow",))
DIGITS = "7" * 5000  # more than int reads


@pytest.fixture(autouse=True)
def no_waiting():
    """End a test that waits for a pipe."""

    def end(*_):
        raise TimeoutError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["a pipe", "a device", "a folder"])
def no_file(request, tmp_path):
    """Return (the kind, a path that is of this kind; a pipe whose name has an ending)."""
    if request.param == "a device":
        return request.param, "/dev/zero"
    (os.mkfifo if request.param == "a pipe" else os.mkdir)(tmp_path / "there.png")
    (tmp_path / "link.csv").symlink_to(tmp_path / "there.png")
    return request.param, str(tmp_path / "link.csv")


def test_readers_of_whole_files_name_what_is_there(no_file):
    kind, path = no_file
    readers = [read_bytes, read_text, file_sha256, read_classes, load_json, load_xml, refuse_no_file]
    for read in (*readers, lambda path: read_csv(path, COW)):
        with pytest.raises(UserError, match=f"{path} is {kind}, expected a file"):
            read(path)
    for read in (lambda p: check_image(p, "apply"), load_mask):
        with pytest.raises(BadFile, match=f"{path} is {kind}, expected a file"):
            read(path)
    assert read_head(path, 8) == b"" and picture_sizes([path]) == {}


def test_every_kind_of_source_names_a_pipe(tmp_path):
    for ending in ("", ".csv", ".json", ".xml", ".yaml", ".txt"):
        path = str(tmp_path / f"pipe{ending}")
        os.mkfifo(path)
        with pytest.raises(UserError, match="is a pipe, expected a file"):
            read_source(path, COW, recognise(path))
    for kind in SOURCES.names():
        with pytest.raises((UserError, FileNotFoundError)):
            read_source(path, COW, kind)


def test_pipes_among_images_are_left_out_or_named_by_their_ending(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    for name in ("b.png", "c"):
        os.mkfifo(tmp_path / name)
    found = find_images(str(tmp_path))
    assert [os.path.basename(path) for path in found.paths] == ["a.png", "b.png"]
    assert [os.path.basename(path) for path in found.left_out] == ["c"]


def test_names_that_are_no_utf8_are_told_and_those_beside_are_read(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"\x89PNG")
    for given in (str(tmp_path), f"{tmp_path}/*.png"):
        found = find_images(given).paths
        assert [os.path.basename(path) for path in found] == ["a.png", "\udcff.png"]
    with pytest.raises(BadFile, match="is no name of a file"):
        check_image(found[1], "apply")
    (tmp_path / "t.csv").write_text("a.png,1,1,5,5,cow,m.png#1\n")
    assert len(read_csv(str(tmp_path / "t.csv"), COW).images) == 1  # the folder is listed for `m.png#1`


def test_a_zero_in_a_name_is_told(tmp_path):
    with pytest.raises(BadFile, match="is no name of a file"):
        check_image(f"{tmp_path}/a\0.png", "apply")


@pytest.mark.parametrize("known", ["cow", "7"])
@pytest.mark.parametrize("name", ["\u00b2", "\u0663", DIGITS, "x" * 3_000_000, "\x1b[31m"])
def test_a_class_of_any_digits_or_length_is_one_short_line(name, known, write):
    path = write("t.csv", f"a.png,1,1,5,5,{name},\n")
    with pytest.raises(AnnotationError, match=r"t.csv, line 1, column 6 \(class\): read") as error:
        read_csv(path, ClassNames((known,)))
    assert len(str(error.value)) < 1000 and "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        f"a.png,1,1,{DIGITS},5,cow,\n",
        "a.png,1,1,\u00b2,5,cow,\n",
        f"a.png,1,1,5,5,cow,m.png#{DIGITS}\n",
        "x" * 3_000_000 + "\n",
        f"a.png,1,1,5,5,cow,m.png,{'x' * 3_000_000}\n",
    ],
    ids=lambda text: text[:30],
)
def test_numbers_and_lines_of_any_length_are_one_short_line(text, write):
    with pytest.raises(AnnotationError) as error:
        read_csv(write("t.csv", text), COW)
    assert len(error.value.problems) == 1 and len(str(error.value)) < 1000


@pytest.mark.parametrize("number", [DIGITS, f"-{DIGITS}", f"+{DIGITS}", "\u00b2", "\u0663", "9" * 21])
def test_a_class_id_of_any_digits_is_one_short_line(number, write):
    with pytest.raises(AnnotationError, match=r"c.csv, line 1, column 2 \(id\): read") as error:
        read_classes(write("c.csv", f"cow,{number}\n"))
    assert len(str(error.value)) < 1000


def test_a_file_larger_than_any_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "t.csv", "wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room
    with pytest.raises(UserError, match=r"t.csv: 1,099,511,627,776 bytes, expected at most"):
        read_csv(str(tmp_path / "t.csv"), COW)
