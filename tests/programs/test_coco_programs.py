"""COCO files and results through the command, in this process: what a user types, and the words that come back."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as rle_codec

from tpu_retinamask.cli import main
from tpu_retinamask.programs import convert, evaluate, inspect_data, prepare  # noqa: F401  # gin takes no names once it has run

HEIGHT, WIDTH = 96, 128
SQUARES = {1: (20, 12, 40, 40), 2: (70, 20, 40, 50)}
POLYGONS = {n: [x, y, x + w, y, x + w, y + h, x, y + h] for n, (x, y, w, h) in SQUARES.items()}


def rle(number):
    found = rle_codec.merge(rle_codec.frPyObjects([POLYGONS[number]], HEIGHT, WIDTH))
    return {"size": [HEIGHT, WIDTH], "counts": found["counts"].decode()}


def truth(*names, **change):
    """One object an image."""
    return {
        "images": [{"id": n, "file_name": name, "height": HEIGHT, "width": WIDTH} for n, name in enumerate(names, 1)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": list(SQUARES[n]), "segmentation": [POLYGONS[n]]}
            for n in range(1, len(names) + 1)
        ],
        "categories": [{"id": 1, "name": "mug"}],
    } | change


def result(number, **change):
    box = {"bbox": list(SQUARES[number]), "segmentation": rle(number)}
    return {"image_id": number, "category_id": 1, "score": 0.9, **box, **change}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to stand in, with images/a.png and images/b.png; folder(name, content) writes JSON there."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        PIL.Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "images" / name)
    monkeypatch.chdir(tmp_path)

    def write(name, content):
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path

    return write


def numbers(path):
    found = json.loads(path.read_text())
    return {name: round(found[f"{name}/AP"], 3) for name in ("bbox", "segm") if f"{name}/AP" in found}


SCORE = ("evaluate", "--predictions=res.json", "--coco_json=gt.json", "--metrics=m.json")


# ---- results files


def test_results_named_as_predict_names_them_are_scored_against_any_numbering(folder):
    here = folder("gt.json", truth("x/b.png", "x/a.png"))
    named = [
        result(2, image_id=0, category_id=0, file_name="photos/a.png", category_name="mug"),
        result(1, image_id=1, category_id=0, file_name="photos/b.png", category_name="mug"),
    ]
    folder("res.json", named)
    assert main(SCORE) == 0 and numbers(here / "m.json") == {"bbox": 1.0, "segm": 1.0}
    other = truth("b.png", "a.png", categories=[{"id": 0, "name": "plate"}, {"id": 1, "name": "mug"}])
    folder("gt.json", other)
    assert main(SCORE) == 0 and numbers(here / "m.json") == {"bbox": 1.0, "segm": 1.0}


def test_results_that_name_other_files_are_refused(folder, capsys):
    folder("gt.json", truth("b.png", "a.png"))
    folder("res.json", [result(1, image_id=1, file_name="c.png", category_name="mug")])
    assert main(SCORE) == 2
    assert "res.json: file_names that the ground truth does not have" in (said := capsys.readouterr().err), said
    assert "'c.png' (1 entries)" in said and "Traceback" not in said


def test_results_without_masks_give_box_ap(folder, capsys):
    here = folder("gt.json", truth("a.png", "b.png"))
    folder("res.json", [{k: v for k, v in result(n).items() if k != "segmentation"} for n in (1, 2)])
    assert main(SCORE) == 0 and numbers(here / "m.json") == {"bbox": 1.0}
    assert "the results have no masks: box AP alone" in capsys.readouterr().err


BAD_COUNTS = {
    "too long": (rle(1)["counts"] + "Xm0", "pixels, expected 128 x 96 = 12288"),
    "repr of bytes": (f"b'{rle(1)['counts']}'", "write counts.decode()"),
    "empty": ("", "run lengths are an empty text"),
    "not ASCII": ("Grüße", "are not COCO's compressed text"),
    "negative": ([100, -5, 12193], "hold -5"),
    "too short": ([5], "sum to 5 pixels"),
}


@pytest.mark.parametrize("where", ["results", "ground truth"])
@pytest.mark.parametrize("case", BAD_COUNTS)
def test_run_lengths_that_do_not_fit_are_named_before_anything_runs(case, where, folder, capsys):
    counts, words = BAD_COUNTS[case]
    bad = {"size": [HEIGHT, WIDTH], "counts": counts}
    gt, res = truth("a.png"), [result(1)]
    (gt["annotations"] if where == "ground truth" else res)[0]["segmentation"] = bad
    folder("gt.json", gt)
    folder("res.json", res)
    assert main(SCORE) == 2
    said = capsys.readouterr().err
    assert words in said and ("res.json" if where == "results" else "gt.json") in said and "[0]" in said


def test_more_detections_are_counted_when_asked_and_other_settings_refused(folder, capsys):
    boxes = [(2 * (n % 60), 3 * (n // 60), 2, 3) for n in range(150)]
    gt = truth(
        "a.png", annotations=[{"id": n, "image_id": 1, "category_id": 1, "bbox": b} for n, b in enumerate(boxes)]
    )
    here = folder("gt.json", gt)
    folder(
        "res.json", [{"image_id": 1, "category_id": 1, "bbox": b, "score": 1 - n / 200} for n, b in enumerate(boxes)]
    )
    assert main(SCORE) == 0 and numbers(here / "m.json")["bbox"] == pytest.approx(0.66, abs=0.01)  # 100 of 150
    assert '--gin_param="evaluate.max_detections=150"' in capsys.readouterr().err
    assert main([*SCORE, "--gin_param=evaluate.max_detections=150"]) == 0
    assert numbers(here / "m.json") == {"bbox": 1.0}
    for setting, number in (("DetectionFilter.max_detections=300", 300), ("evaluate.batch_size=2", 100)):
        assert main([*SCORE, f"--gin_param={setting}"]) == 2
        said = capsys.readouterr().err
        assert f"{setting.partition('=')[0]}: not read where --predictions are scored" in said
        assert f'--gin_param="evaluate.max_detections={number}"' in said
    for value in ("'many'", "0", "-1", "True", "2.5"):
        assert main([*SCORE, f"--gin_param=evaluate.max_detections={value}"]) == 2
        assert f"evaluate.max_detections is {value}, expected" in capsys.readouterr().err
    assert main([*SCORE, "--model_dir=run"]) == 2
    assert "leave out --model_dir" in capsys.readouterr().err


def test_what_cannot_be_written_is_shown_and_told(folder, capsys):
    here = folder("gt.json", truth("a.png", "b.png"))
    folder("res.json", [result(1), result(2)])
    (here / "file").write_text("mine")
    assert main([*SCORE[:-1], "--metrics=file/m.json"]) == 2
    said = capsys.readouterr()
    assert "AP50" in said.out and "error: file/m.json could not be written: " in said.err
    assert "Traceback" not in said.err and (here / "file").read_text() == "mine"


# ---- convert from anything


def test_any_source_becomes_a_csv_and_a_coco_file_and_both_say_the_same(folder):
    here = folder("gt.json", truth("a.png", "b.png"))
    to_csv = ["convert", "--annotations=gt.json", "--images=images", "--output=t.csv", "--classes=c.csv", "--masks=m"]
    assert main(to_csv) == 0
    assert (
        here / "t.csv"
    ).read_text() == "images/a.png,20,12,60,52,mug,m/a.png#1\nimages/b.png,70,20,110,70,mug,m/b.png#1\n"
    assert (here / "c.csv").read_text() == "mug,0\n"
    assert main(to_csv) == 0  # again
    assert main(["convert", "--annotations=t.csv", "--output=back.json"]) == 0
    back = json.loads((here / "back.json").read_text())
    assert [entry["bbox"] for entry in back["annotations"]] == [list(map(float, SQUARES[n])) for n in (1, 2)]
    for entry in back["annotations"]:
        drawn = rle_codec.merge(rle_codec.frPyObjects([POLYGONS[entry["id"]]], HEIGHT, WIDTH))
        assert rle_codec.iou([entry["segmentation"]], [drawn], [0])[0, 0] == 1
    assert main(["convert", "--annotations=back.json", "--output=u.csv", "--masks=n"]) == 0
    assert (here / "u.csv").read_text() == (here / "t.csv").read_text().replace("m/", "n/images/")


def test_a_csv_of_polygons_needs_no_class_file(folder, capsys):
    here = folder("x.json", {})
    text = ",".join(map(str, POLYGONS[1]))
    (here / "p.csv").write_text(f'images/a.png,20,12,60,52,mug,"{text}"\nimages/b.png,70,20,110,70,cup,\n')
    assert main(["convert", "--annotations=p.csv", "--output=t.csv", "--masks=m", "--classes=c.csv"]) == 0
    assert (here / "c.csv").read_text() == "cup,0\nmug,1\n"
    labels = np.asarray(PIL.Image.open(here / "m/images/a.png"))
    assert labels[12:52, 20:60].all() and labels.sum() == 1600
    assert "the 2 classes are numbered in the order of their names (cup = 0, mug = 1)" in capsys.readouterr().err


CONVERT = ["convert", "--annotations=gt.json", "--images=images", "--output=t.csv", "--masks=m"]


@pytest.mark.parametrize(
    "change, words",
    [
        (["--images=elsewhere"], ["images[0], a.png: no such file: elsewhere/a.png"]),
        (["--output=t.xml"], ["expected a name that ends in .csv or .json"]),
        (["--output=gt.json"], ["--output=gt.json is a file that this conversion reads"]),
        (["--output=images/a.png.csv", "--masks=images"], ["label maps would replace images"]),
        (["--annotations=gone.json"], ["gone.json: no such file"]),
        (["--format=cocoa"], ["'cocoa' is not one of"]),
    ],
)
def test_a_mistake_writes_nothing(change, words, folder, capsys):
    here = folder("gt.json", truth("a.png", "b.png"))
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert main([*CONVERT, *change]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words) and "Traceback" not in said, said
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_crowds_alone_are_refused_before_anything_is_written_and_taken_when_asked(folder, capsys):
    gt = truth("a.png", "b.png")
    for entry in gt["annotations"]:
        entry["iscrowd"] = 1
    here = folder("gt.json", gt)
    assert main(CONVERT) == 2
    said = capsys.readouterr().err
    assert "no object is left" in said and "source.crowds='objects'" in said and not (here / "t.csv").exists()
    assert main([*CONVERT, "--gin_param=source.crowds='objects'"]) == 0
    assert (here / "t.csv").read_text().count("mug") == 2


def test_run_lengths_along_the_rows_are_doubted(folder, capsys):
    gt = truth("a.png", "b.png")
    for entry in gt["annotations"]:
        drawn = rle_codec.decode(rle(entry["id"]))
        runs = np.diff(np.flatnonzero(np.diff(drawn.reshape(-1), prepend=2, append=2)))
        entry["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [int(run) for run in runs]}
    folder("gt.json", gt)
    assert main([*CONVERT, "--classes=c.csv"]) == 0
    said = capsys.readouterr().err
    assert "2 of 2 masks have most of their pixels outside of their box" in said and "transposed" in said, said


@pytest.fixture
def phone(folder):
    """A photograph that its camera held upright, stored lying: 96 x 128 when turned; the box is on the upright one."""
    here = folder("x.json", {})
    upright = np.zeros((WIDTH, HEIGHT, 3), np.uint8)
    upright[100:120, 10:40] = 255
    exif = PIL.Image.Exif()
    exif[274] = 6  # to be turned clockwise by a quarter
    stored = PIL.Image.fromarray(upright).transpose(PIL.Image.Transpose.ROTATE_90)
    stored.save(here / "images" / "phone.jpg", exif=exif, quality=95)
    (here / "train.csv").write_text("images/phone.jpg,10,100,40,120,mug,\n")
    (here / "classes.csv").write_text("mug,0\n")
    return here


def test_a_turned_photograph_is_upright_in_prepare_and_inspect_data(phone, capsys):
    here, flags = phone, ["--annotations=train.csv", "--classes=classes.csv"]
    assert main(["prepare", *flags, "--data_dir=ds"]) == 2
    upright = "--gin_param=source.exif_orientation='apply'"  # as it is to be typed
    assert "--gin_param=\"source.exif_orientation='apply'\"" in capsys.readouterr().err
    flags += [upright]
    plain = ["--gin_param=InputPipeline.image_size=(128,128)", "--gin_param=InputPipeline.augmentation=None"]
    seen = ["--gin_file=recipe/small.gin", *plain, "--batches=1"]
    assert main(["prepare", *flags, "--data_dir=ds"]) == 0
    for name, given in {"csv": flags, "records": ["--data_dir=ds"]}.items():
        assert main(["inspect_data", *given, *seen, f"--output_dir={name}"]) == 0
        picture = np.asarray(PIL.Image.open(next((here / name).glob("*.png"))).convert("L"))
        scale = picture.shape[0] / 128
        inside = picture[int(104 * scale) : int(116 * scale), int(14 * scale) : int(36 * scale)]
        assert inside.mean() > 150 and picture[: int(90 * scale)].mean() < 40
    assert "1 images, 1 objects" in capsys.readouterr().out
    # As it is stored the box lies outside of it, which is told and not trained on.
    assert main(["prepare", *flags[:2], "--data_dir=lying", "--gin_param=source.exif_orientation='ignore'"]) == 2
    said = capsys.readouterr().err
    assert "outside the image" in said and "128 x 96" in said and not (here / "lying").exists(), said


@pytest.mark.parametrize("setting", ["exif_orientation", "train.exif_orientation", "InputPipeline.exif_orientation"])
def test_a_setting_that_is_elsewhere_is_named(setting, phone, capsys):
    flags = ["--annotations=train.csv", "--classes=classes.csv", "--model_dir=run", "--dry_run"]
    assert main(["train", *flags, "--gin_file=recipe/small.gin", f"--gin_param={setting}='apply'"]) == 2
    assert "source.exif_orientation" in capsys.readouterr().err and not (phone / "run").exists()


def test_a_picture_of_the_users_is_never_replaced(folder):
    here = folder("x.json", {})
    (here / "labels").mkdir()
    (here / "labels" / "gt.json").write_text(json.dumps(truth("../images/a.jpg", "../images/b.jpg")))
    for name in ("a", "b"):
        PIL.Image.open(here / f"images/{name}.png").save(here / f"images/{name}.jpg")
    before = {path: path.read_bytes() for path in (here / "images").iterdir()}
    flags = ["--images=labels", "--output=t.csv", "--classes=c.csv", "--masks=m"]
    assert main(["convert", "coco", "--instances=labels/gt.json", *flags]) == 0
    assert {path: path.read_bytes() for path in (here / "images").iterdir()} == before
    assert (here / "t.csv").read_text().splitlines()[0] == "images/a.jpg,20,12,60,52,mug,m/images/a.png#1"


def test_inspect_data_reads_coco_and_csv_alike(folder, capsys):
    here = folder("gt.json", truth("a.png", "b.png"))
    shutil.copy(here / "gt.json", here / "again.json")
    flags = ["--gin_file=recipe/small.gin", "--gin_param=InputPipeline.image_size=(128,128)", "--batches=1"]
    assert main([*CONVERT, "--classes=c.csv"]) == 0
    assert main(["inspect_data", "--annotations=gt.json", "--images=images", *flags]) == 0
    first = capsys.readouterr().out
    assert main(["inspect_data", "--annotations=t.csv", "--classes=c.csv", *flags]) == 0
    assert capsys.readouterr().out == first and "digest" in first and "2 images, 2 objects" in first
