"""convert as a user runs it, both ways, and crowd regions in the evaluation of a model."""

import json

import pytest


@pytest.fixture(scope="module")
def coco_json(shapes, quick_program, tmp_path_factory):
    """The validation shapes as COCO instances."""
    path = tmp_path_factory.mktemp("coco") / "instances.json"
    done = quick_program(
        "convert", "csv", f"--annotations={shapes}/val.csv", f"--classes={shapes}/classes.csv", f"--output={path}"
    )
    assert done.returncode == 0, done.stderr
    assert "instances.json: 3 images with 4 instances; nothing dropped" in done.stderr
    return path


@pytest.fixture
def to_csv(coco_json, shapes, quick_program):
    """Convert the instances to val.csv, classes.csv and masks in a folder; gives the process."""

    def convert(folder):
        places = (f"--output={folder}/val.csv", f"--classes={folder}/classes.csv", f"--masks={folder}/masks")
        done = quick_program("convert", "coco", f"--instances={coco_json}", f"--images={shapes}", *places)
        assert done.returncode == 0, done.stderr
        return done

    return convert


def test_there_and_back_again(coco_json, to_csv, quick_program, tmp_path):
    done = to_csv(tmp_path)
    assert "3 images with 4 instances, 2 mask files; 0 instances have no mask" in done.stderr
    assert (tmp_path / "classes.csv").read_text() == "disc,0\nsquare,1\n"
    done = quick_program(
        "convert",
        "csv",
        f"--annotations={tmp_path}/val.csv",
        f"--classes={tmp_path}/classes.csv",
        f"--output={tmp_path}/again.json",
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(path.read_text()) for path in (coco_json, tmp_path / "again.json"))
    assert first["annotations"] == second["annotations"] and len(first["annotations"]) == 4
    assert first["categories"] == second["categories"]


def test_classes_that_a_kill_left_empty_are_written(to_csv, tmp_path):
    (tmp_path / "classes.csv").write_text("")
    to_csv(tmp_path)
    assert (tmp_path / "classes.csv").read_text() == "disc,0\nsquare,1\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.csv", "masks", "val.csv"]


def test_a_model_is_scored_against_the_coco_file(coco_json, shapes, trained, quick_program, tmp_path):
    # The same truth in other numbers: image and category ids as COCO has them, one object become a crowd.
    truth = json.loads(coco_json.read_text())
    for entry in truth["images"]:
        entry.update(id=entry["id"] + 5000, file_name=f"val2017/{entry['file_name']}")
    for entry in truth["categories"]:
        entry["id"] += 40
    for entry in truth["annotations"]:
        entry.update(image_id=entry["image_id"] + 5000, category_id=entry["category_id"] + 40)
    truth["annotations"][0]["iscrowd"] = 1
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    done = quick_program(
        "evaluate",
        f"--annotations={shapes}/val.csv",
        f"--coco_json={tmp_path}/truth.json",
        f"--model_dir={trained[0]}",
        f"--metrics={tmp_path}/metrics.json",
    )
    assert done.returncode == 0, done.stderr
    assert "3 images, 3 ground truths, 1 crowd regions" in done.stdout
    results = json.loads((tmp_path / "predictions.json").read_text())
    assert results and all(entry["image_id"] >= 5000 and entry["category_id"] >= 40 for entry in results)


MISTAKES = {
    "no direction": (("convert", "--output={folder}/x"), ["say which way", "convert coco", "convert csv"]),
    "missing flags": (("convert", "coco", "--output={folder}/x"), ["needs --instances, --images, --classes, --masks"]),
    "not a COCO file": (
        (
            "convert",
            "coco",
            "--instances={shapes}/classes.csv",
            "--images=.",
            "--output={folder}/x",
            "--classes={folder}/c",
            "--masks={folder}/m",
        ),
        ["not JSON"],
    ),
    "other classes": (
        (
            "convert",
            "coco",
            "--instances={coco}",
            "--images={shapes}",
            "--output={folder}/x",
            "--classes={folder}/classes.csv",
            "--masks={folder}/m",
        ),
        ["holds other classes than"],
    ),
    "a wrong folder of images": (
        (
            "convert",
            "coco",
            "--instances={coco}",
            "--images={folder}",
            "--output={folder}/x",
            "--classes={folder}/c",
            "--masks={folder}/m",
        ),
        ["images[0], two.png: no such file: {folder}/two.png", "--gin_param=\"source.on_bad_record='skip'\""],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name, coco_json, shapes, quick_program, tmp_path):
    (tmp_path / "classes.csv").write_text("cat,0\n")
    command, words = MISTAKES[name]
    done = quick_program(*(part.format(folder=tmp_path, shapes=shapes, coco=coco_json) for part in command))
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert all(word.replace("{folder}", str(tmp_path)) in done.stderr for word in words), done.stderr
    assert not (tmp_path / "x").exists()
