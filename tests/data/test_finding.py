"""Which files are meant: files, folders and patterns, as people give them."""

import os

import numpy as np
import pytest

from tpu_retinamask.data.images.finding import find_images
from tpu_retinamask.errors import UserError

PIXELS = np.full((4, 4, 3), 9, np.uint8)


@pytest.fixture
def folder(write, tmp_path):
    """photos/ with images of many names, upper/ with capitals, mixed/ with other files and a folder."""
    for name in ("photos/a.png", "photos/b.jpg", "photos/scan [2024].png", "photos/Grü 猫.png", "mixed/p.png"):
        write(name, PIXELS)
    write("photos/x,y.png", PIXELS)
    write("set [1]/q.png", PIXELS)
    write("upper/P1.JPG", PIXELS, "JPEG")
    write("mixed/no_ending", PIXELS, "PNG")
    write("mixed/Thumbs.db", b"\xd0\xcf\x11\xe0 anything")
    write("mixed/notes.txt", "words")
    write("mixed/broken.jpeg", "no picture, but meant as one")
    write("mixed/sub/below.png", PIXELS)
    write("other/notes.txt", "words")
    return str(tmp_path)


@pytest.mark.parametrize(
    "given, names, left_out",
    [
        ("photos", ["Grü 猫.png", "a.png", "b.jpg", "scan [2024].png", "x,y.png"], 0),
        ("photos/", ["Grü 猫.png", "a.png", "b.jpg", "scan [2024].png", "x,y.png"], 0),
        ("photos/a.png", ["a.png"], 0),
        ("photos/b.jpg,photos/a.png", ["b.jpg", "a.png"], 0),
        ("photos/b.jpg, photos/*.png", ["b.jpg", "Grü 猫.png", "a.png", "scan [2024].png", "x,y.png"], 0),
        ("photos/scan [2024].png", ["scan [2024].png"], 0),
        ("photos/x,y.png", ["x,y.png"], 0),
        ("photos/a.png,photos/x,y.png", ["a.png", "x,y.png"], 0),
        ("photos/a.png,photos", ["a.png", "Grü 猫.png", "b.jpg", "scan [2024].png", "x,y.png"], 0),  # each once
        ("photos/Gr*.png", ["Grü 猫.png"], 0),
        ("set [1]/*.png", ["q.png"], 0),
        ("upper/*.jpg", ["P1.JPG"], 0),
        ("mixed/*", ["broken.jpeg", "no_ending", "p.png"], 2),
        ("mixed", ["broken.jpeg", "no_ending", "p.png"], 2),
        (["photos/a.png", "mixed/p.png"], ["a.png", "p.png"], 0),
        ("mixed/notes.txt", ["notes.txt"], 0),  # named: whoever reads it says what is wrong with it
    ],
)
def test_what_is_meant_is_found_and_what_is_no_image_is_counted(folder, monkeypatch, given, names, left_out):
    monkeypatch.chdir(folder)
    found = find_images(given)
    assert [os.path.basename(path) for path in found.paths] == names
    assert all(os.path.isfile(path) for path in found.paths)
    assert len(found.left_out) == left_out


@pytest.mark.parametrize(
    "given, words",
    [
        ("photos/missing.png", ["--images=photos/missing.png: no such file or folder"]),
        ("photos/A.png", ["did you mean photos/a.png?"]),
        ("photos/a.png,photos/missing.png", ["--images=photos/missing.png"]),
        ("nothing/*.png", ["nothing/*.png", "no file matches"]),
        ("nothing/a.png", ["there is no folder nothing"]),
        ("other", ["--images=other: no image lies there, but 1 other files, such as notes.txt"]),
        ("other/*", ["no image lies there"]),
        (",", ["names no file"]),
    ],
)
def test_what_is_not_there_is_named(folder, monkeypatch, given, words):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError) as error:
        find_images(given)
    assert all(word in str(error.value) for word in words), error.value
