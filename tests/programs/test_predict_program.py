"""Prediction and scoring of a trained directory: no configuration is repeated."""

import json
import re

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as rle

NAMES = ["four", "none", "one", "three", "two", "wide"]  # as a sorted glob finds them


@pytest.fixture(scope="module")
def predicted(trained, shapes, quick_program, tmp_path_factory):
    """The output folder of predict on all pictures, label maps left out."""
    folder = tmp_path_factory.mktemp("predicted") / "new"
    done = quick_program(
        "predict", f"--images={shapes}/*[!s].png", f"--model_dir={trained[0]}", f"--output_dir={folder}"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def evaluated(trained, shapes, quick_program):
    """What evaluate printed for the validation images."""
    done = quick_program("evaluate", f"--annotations={shapes}/val.csv", f"--model_dir={trained[0]}", "--report")
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def _boxes(results):
    boxes = np.array([result["bbox"] for result in results], float).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def test_one_picture_an_image_many_times_its_size(predicted, shapes):
    assert sorted(path.stem for path in predicted.glob("*.png")) == NAMES
    for name in NAMES:
        before, after = PIL.Image.open(shapes / f"{name}.png"), PIL.Image.open(predicted / f"{name}.png")
        larger = 6 if name == "wide" else 8  # small images are drawn larger, with a legend or a remark below
        size = larger * before.width, larger * before.height
        assert after.width == size[0] and after.height > size[1]
        plain = before.resize(size, PIL.Image.Resampling.BICUBIC)
        changed = np.any(np.asarray(plain) != np.asarray(after.convert("RGB"))[: size[1]])
        assert changed == (name != "none")  # nothing is drawn where there is nothing


def test_predictions_are_coco_results_in_original_pixels(predicted):
    results = json.loads((predicted / "predictions.json").read_text())
    images = {image["id"]: image for image in json.loads((predicted / "images.json").read_text())}
    assert [images[number]["picture"] for number in sorted(images)] == [f"{name}.png" for name in NAMES]
    assert {image["picture"]: (image["height"], image["width"]) for image in images.values()} == {
        f"{name}.png": (64, 96 if name == "wide" else 64) for name in NAMES
    }
    assert results
    for result in results:
        image = images[result["image_id"]]
        assert set(result) >= {"image_id", "category_id", "bbox", "score", "segmentation"}
        assert result["category_id"] in (0, 1) and 0.05 < result["score"] <= 1.0
        assert result["segmentation"]["size"] == [image["height"], image["width"]]
        x1, y1, x2, y2 = _boxes([result])[0]
        assert 0 <= x1 <= x2 <= image["width"] and 0 <= y1 <= y2 <= image["height"]
        ys, xs = np.nonzero(rle.decode(result["segmentation"]))
        if len(ys):  # pixels of a mask lie in its box, up to the box's fraction of a pixel
            assert xs.min() >= x1 - 1 and xs.max() + 1 <= x2 + 1 and ys.min() >= y1 - 1 and ys.max() + 1 <= y2 + 1


def test_the_objects_are_found_where_they_are(predicted, shapes):
    results = json.loads((predicted / "predictions.json").read_text())
    images = {image["id"]: image["picture"] for image in json.loads((predicted / "images.json").read_text())}
    rows = [line.split(",") for line in (shapes / "train.csv").read_text().splitlines()]
    truths = [(row[0], np.array(row[1:5], float), row[5], row[6]) for row in rows if row[1]]
    for picture, box, name, mask in truths:
        near = [
            result
            for result in results
            if images[result["image_id"]] == picture
            and result["category_id"] == ["disc", "square"].index(name)
            and result["score"] > 0.5
            and np.abs(_boxes([result])[0] - box).max() <= 4
        ]  # pixels; the objects are 16 wide
        assert near, (picture, box, name)
        file, number = mask.split("#")
        truth = np.asarray(PIL.Image.open(shapes / file)) == int(number)
        overlaps = [
            np.sum(truth & found) / np.sum(truth | found)
            for found in (rle.decode(result["segmentation"]).astype(bool) for result in near)
        ]
        assert max(overlaps) > 0.7, (picture, box, name)


def test_evaluate_scores_and_writes(trained, evaluated):
    metrics = json.loads((trained[0] / "metrics.json").read_text())
    assert metrics["segm/AP50"] >= 0.9 and metrics["bbox/AP50"] >= 0.9
    lines = evaluated.stdout.splitlines()
    (table,) = [line.split() for line in lines if line.startswith("mask  ")]
    assert float(table[2]) == pytest.approx(metrics["segm/AP50"], abs=5e-4)  # three decimals
    for name in ("disc", "square"):
        assert [line.split()[1] for line in lines if line.startswith(name + " ")] == ["2"]  # ground truths
    assert json.loads((trained[0] / "predictions.json").read_text())


def test_the_report_and_the_thresholds_are_of_the_same_evaluation(trained, evaluated, shapes, quick_program, tmp_path):
    text, metrics = ((trained[0] / name).read_text() for name in ("report.html", "metrics.json"))
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', text)[1])
    assert figures["metrics"] == json.loads(metrics)
    assert text.count("data:image/jpeg") >= 3  # the pictures
    thresholds = trained[0] / "thresholds.json"
    assert json.loads(thresholds.read_text())["classes"] == pytest.approx(figures["thresholds"])
    # Drawn and listed is what reaches the threshold of its class.
    edited = tmp_path / "mine.json"
    edited.write_text(json.dumps({"classes": {"disc": 0.97, "square": 0.2}}))
    done = quick_program(
        "predict", f"{shapes}/two.png", f"--model_dir={trained[0]}", f"--output_dir={tmp_path}/out", "--formats=csv",
        f"--thresholds={edited}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "out" / "predictions.json").read_text())
    wanted = [
        one["category_name"] for one in results if one["score"] >= {"disc": 0.97, "square": 0.2}[one["category_name"]]
    ]
    listed = [line.split(",")[5] for line in (tmp_path / "out" / "predictions.csv").read_text().splitlines()]
    assert sorted(wanted) == sorted(filter(None, listed))


def test_training_and_evaluate_agree(trained, evaluated):
    logged = [line.split() for line in trained[1].stderr.splitlines() if line.startswith(("box  ", "mask  "))]
    printed = [line.split() for line in evaluated.stdout.splitlines() if line.startswith(("box  ", "mask  "))]
    assert len(logged) == 2
    for one, two in zip(logged, printed):
        # The last step was followed by the very same evaluation; batches of 2 and 4 may round otherwise.
        assert [float(x) if x != "-" else -1 for x in one[1:]] == pytest.approx(
            [float(x) if x != "-" else -1 for x in two[1:]], abs=0.002
        )


def test_a_results_file_is_scored_without_a_model(trained, evaluated, shapes, quick_program, tmp_path):
    annotations = []
    for line in (shapes / "val.csv").read_text().splitlines():
        file, *box, name, mask = line.split(",")
        if box[0]:
            path, number = mask.split("#")
            x1, y1, x2, y2 = map(int, box)
            code = rle.encode(np.asfortranarray(np.asarray(PIL.Image.open(shapes / path)) == int(number)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": ["two", "none", "wide"].index(file[:-4]),
                    "category_id": int(name == "square"),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(rle.area(code)),
                    "iscrowd": 0,
                    "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
                }
            )
    truth = {
        "images": [
            {"id": i, "height": 64, "width": 96 if name == "wide" else 64, "file_name": f"{name}.png"}
            for i, name in enumerate(["two", "none", "wide"])
        ],
        "categories": [{"id": 0, "name": "disc"}, {"id": 1, "name": "square"}],
        "annotations": annotations,
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    done = quick_program(
        "evaluate",
        f"--predictions={trained[0]}/predictions.json",
        f"--coco_json={tmp_path}/truth.json",
        f"--metrics={tmp_path}/scores.json",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ours = json.loads((trained[0] / "metrics.json").read_text())
    theirs = json.loads((tmp_path / "scores.json").read_text())
    for key in ("bbox/AP", "segm/AP", "segm/AP50/disc", "detections"):
        assert theirs[key] == pytest.approx(ours[key], abs=1e-9)
