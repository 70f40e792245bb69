"""What is told before a training: copies, pictures in both splits, classes and masks that are missing, masks beside."""

import numpy as np
import PIL.Image
import pytest

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.doubts import doubts
from tpu_retinamask.data.annotations.scan import scan_images

CLASSES = ClassNames(("cat", "dog", None, "owl"))


@pytest.fixture
def scanned(write):
    """Scan a CSV of pictures that are written by name: {name: array}."""

    def scan(rows, name="train.csv", **pictures):
        for picture, array in pictures.items():
            write(picture.replace("__", "/") + ".png", array)
        return scan_images(read_annotations(write(name, rows), CLASSES))

    return scan


def picture(seed):
    # Large patches, so that a thumbnail of one has something to show.
    return np.kron(np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8), np.ones((12, 12, 1), np.uint8))


def test_a_plain_data_set_is_told_nothing(scanned, write):
    write("m.png", np.full((48, 48), 255, np.uint8))
    rows = "".join(f"{name}.png,{i},0,{i + 9},9,{kind},m.png\n" for name in "ab" for kind in ("cat", "dog", "owl")
                   for i in range(10))  # fmt: skip
    assert doubts({"train": scanned(rows, a=picture(1), b=picture(2))}, CLASSES) == []


def test_pictures_of_both_splits_and_those_that_are_there_twice_are_named(scanned):
    train = scanned("a.png,0,0,9,9,cat,\nb.png,,,,,,\nc.png,,,,,,\n", a=picture(1), b=picture(2), c=picture(1))
    val = scanned("v.png,,,,,,\nw.png,,,,,,\nx.png,,,,,,\n", "val.csv", v=picture(1), w=picture(2), x=picture(3))
    said = doubts({"train": train, "validation": val})
    assert said[0] == (
        "2 pictures are in train and in validation, byte for byte: what is scored there was trained on "
        "(a.png = c.png, b.png = w.png)"
    )
    assert said[1] == (
        "train: 1 pictures are there more than once, under other names with the same bytes (a.png = c.png)"
    )
    assert said[2] == "train: 1 of 1 objects have no mask: their boxes are trained alone"
    assert len(said) == 3


def test_copies_in_one_split_alone_are_not_said_to_be_in_both(scanned):
    train = scanned("a.png,,,,,,\nc.png,,,,,,\n", a=picture(1), c=picture(1))
    val = scanned("x.png,,,,,,\n", "val.csv", x=picture(3))
    assert doubts({"train": train, "validation": val}) == [
        "train: 1 pictures are there more than once, under other names with the same bytes (a.png = c.png)"
    ]


def test_one_name_in_two_folders_is_told_where_the_pictures_look_alike(scanned):
    brighter = np.clip(picture(1).astype(int) + 2, 0, 255).astype(np.uint8)  # other bytes, the same to the eye
    rows = "one/a.png,,,,,,\ntwo/a.png,,,,,,\none/b.png,,,,,,\ntwo/b.png,,,,,,\n"
    found = scanned(rows, one__a=picture(1), two__a=brighter, one__b=picture(2), two__b=picture(3))
    assert doubts({"train": found}) == [
        "1 pairs of pictures of one name in two folders look alike: are they copies? (one/a.png = two/a.png)"
    ]


def test_classes_of_none_and_of_few_objects_are_named_and_gaps_are_not(scanned):
    rows = "".join(f"a.png,{i},0,{i + 9},9,cat,\n" for i in range(10)) + "a.png,1,1,5,5,dog,\n"
    said = doubts({"train": scanned(rows, a=picture(1))}, CLASSES)
    assert said[:2] == [
        "1 of 3 classes have no object to train on: owl",
        "1 of 3 classes have fewer than 10 objects: dog (1)",
    ]


def test_train_and_inspect_data_say_it_of_real_pictures(shared_data, quick_program, tmp_path):
    """Two validation pictures of COCO are trained on as well; of each mask the inverse is given."""
    folder = shared_data / "coco"
    rows = (folder / "train.csv").read_text().splitlines()
    own = list(dict.fromkeys(row.split(",")[0] for row in rows))[:6]
    shared = [row for row in rows if row.split(",")[0] in own[:2]]
    for name, chosen in (("train", [row for row in rows if row.split(",")[0] in own]), ("val", shared)):
        (tmp_path / f"{name}.csv").write_text("\n".join(
            ",".join(str(folder / part) if i in (0, 6) and part else part for i, part in enumerate(row.split(",")))
            for row in chosen
        ))  # fmt: skip
    done = quick_program(
        "inspect_data",
        f"--annotations={tmp_path}/train.csv",
        f"--val_annotations={tmp_path}/val.csv",
        f"--classes={folder}/classes.csv",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 pictures are in train and in validation, byte for byte" in done.stderr
    assert "classes have no object to train on" in done.stderr
    assert f"{tmp_path}/val.csv: 2 images," in done.stdout and f"{tmp_path}/train.csv: 6 images," in done.stdout


@pytest.mark.ci
def test_inverted_masks_are_told_by_inspect_data(quick_program, tmp_path):
    rows = []
    for number in range(4):
        PIL.Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
        mask = np.full((48, 48), 255, np.uint8)
        mask[10:20, 10:20] = 0
        mask[12, 12] = 255
        PIL.Image.fromarray(mask).save(tmp_path / f"{number}_mask.png")
        rows.append(f"{number}.png,10,10,20,20,cat,{number}_mask.png")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    (tmp_path / "classes.csv").write_text("cat,0\n")
    done = quick_program("inspect_data", f"--annotations={tmp_path}/train.csv", f"--classes={tmp_path}/classes.csv")
    assert "4 of 4 masks have most of their pixels outside of their box: they may be inverted" in done.stderr
