"""The Python door: the README's ten lines, and a detector that finds what the programs find."""

import functools
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as rle_codec

import tpu_retinamask
from tpu_retinamask.errors import UserError
from tpu_retinamask.tasks import inference
from tpu_retinamask.tasks.picture_batches import PictureBatches

ROOT = pathlib.Path(__file__).resolve().parents[2]
(SNIPPET,) = re.findall(r"```python\n(import tpu_retinamask\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.ci
def test_the_readme_trains_and_predicts_in_ten_lines(shapes, training, tmp_path):
    assert len([line for line in SNIPPET.splitlines() if line.strip()]) <= 10
    shutil.copytree(shapes, tmp_path, dirs_exist_ok=True)
    PIL.Image.open(shapes / "two.png").convert("RGB").save(tmp_path / "photo.jpg", quality=95)
    settings = [
        *training.gin,
        "train.steps = 2",
        "train.jit_compile = False",
        "DetectionFilter.score_threshold = 0.001",
    ]
    assert '"train.epochs = 40"' in SNIPPET
    code = SNIPPET.replace('"train.epochs = 40"', ", ".join(map(repr, settings)))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"^(disc|square) 0\.\d\d at \[", done.stdout, re.MULTILINE), done.stdout
    # What was set in Python stands in the run's configuration, for the programs to go on with.
    written = (tmp_path / "runs" / "mine" / "config.gin").read_text()
    assert "RetinaMask.fpn_channels = 16" in written and "train.steps = 2" in written
    assert "make_optimizer.learning_rate = 0.01" in written and "focal_gamma" not in written


@pytest.fixture(scope="module")
def detector(trained):
    return tpu_retinamask.load(str(trained[0]))


def test_a_detector_finds_what_predict_finds(trained, shapes, detector, quick_program, tmp_path):
    done = quick_program(
        "predict", f"--images={shapes}/*e.png", f"--model_dir={trained[0]}", f"--output_dir={tmp_path}"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "predictions.json").read_text())
    files = {image["id"]: image["file_name"] for image in json.loads((tmp_path / "images.json").read_text())}
    assert len(files) == 4 and results  # none, one, three, wide
    pictures = {path: np.asarray(PIL.Image.open(path).convert("RGB")) for path in files.values()}
    for given in (list(files.values()), list(pictures.values())):  # paths, and arrays
        for image_id, found in zip(files, detector(given), strict=True):
            expected = [result for result in results if result["image_id"] == image_id]
            corners = np.array([result["bbox"] for result in expected]).reshape(-1, 4)
            corners[:, 2:] += corners[:, :2]
            np.testing.assert_allclose(found.boxes, corners, atol=2e-3)  # written with three decimals
            np.testing.assert_array_equal(found.scores, np.array([r["score"] for r in expected], np.float32))
            assert [detector.classes.ids[name] for name in found.names] == [r["category_id"] for r in expected]
            masks = np.array([rle_codec.decode(r["segmentation"]) for r in expected], bool)
            np.testing.assert_array_equal(found.masks, masks.reshape(found.masks.shape))
            assert found.masks.shape[1:] == found.size == pictures[files[image_id]].shape[:2]


def test_one_picture_alone_is_a_list_of_one(shapes, detector):
    (by_path,) = detector(str(shapes / "two.png"))
    (by_array,) = detector(np.asarray(PIL.Image.open(shapes / "two.png").convert("RGB")))
    assert len(by_path.names) >= 2 and by_path.names == by_array.names
    np.testing.assert_array_equal(by_path.boxes, by_array.boxes)


def test_pictures_in_batches_of_fixed_sizes_are_those_one_by_one(shapes, trained, detector):
    recipe = tpu_retinamask.read_recipe(str(trained[0] / "config.gin"))
    make = functools.partial(inference.make_detector, detector.model, recipe.detection_filter, jit_compile=False)
    batches = PictureBatches(make, detector.pipeline, detector.classes, (1, 3))
    pictures = [np.asarray(PIL.Image.open(shapes / f"{name}.png").convert("RGB")) for name in ("two", "wide", "none")]
    alone = detector(pictures)
    for count in (1, 2, 3):
        found = batches([batches.fit(picture) for picture in pictures[:count]])
        assert len(found) == count
        for one, expected in zip(found, alone):
            assert one.size == expected.size and one.names == expected.names
            np.testing.assert_allclose(one.boxes, expected.boxes, atol=1e-2)
            np.testing.assert_allclose(one.mask_probabilities, expected.mask_probabilities, atol=1e-3)


@pytest.mark.parametrize(
    "picture, message",
    [
        (np.zeros((4, 4, 3), np.float32), r"float32 \(4, 4, 3\), expected uint8 \[height, width, 3\]"),
        (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\), expected uint8"),
        ("nowhere.png", "nowhere.png: no such file"),
    ],
    ids=["dtype", "gray", "missing"],
)
def test_what_is_no_picture_is_named(detector, picture, message):
    with pytest.raises(UserError, match=message):
        detector([picture])


def test_the_package_lists_what_it_offers():
    assert {"load", "train", "RetinaMask", "Criterion", "DetectionFilter", "InputPipeline", "TrainSettings"} <= set(
        dir(tpu_retinamask)
    )
    with pytest.raises(AttributeError, match="no attribute 'trian'; it offers .*train"):
        tpu_retinamask.trian  # noqa: B018
    assert tpu_retinamask.TrainSettings(batch_size=4).batch_size == 4
    with pytest.raises(UserError, match="holds no config.gin, so no training was started there"):
        tpu_retinamask.load("/nowhere")


def test_a_recipe_says_the_same_in_gin_and_in_python(tmp_path):
    Recipe, read = tpu_retinamask.Recipe, tpu_retinamask.read_recipe
    settings = [
        "train.epochs = 3",
        "RetinaMask.backbone = 'small'",
        "Augmentation.rot90 = 0.5",
        "InputPipeline.augmentation = @Augmentation()",
        "Criterion.proposal_filter = @p/DetectionFilter()",
        "p/DetectionFilter.nms_iou = 0.6",
    ]
    by_gin = read(settings=settings)
    by_hand = Recipe(
        train=tpu_retinamask.TrainSettings(epochs=3),
        network=tpu_retinamask.NetworkSettings(backbone="small"),
        pipeline=tpu_retinamask.InputPipeline(augmentation=tpu_retinamask.Augmentation(rot90=0.5)),
        criterion=tpu_retinamask.Criterion(proposal_filter=tpu_retinamask.DetectionFilter(nms_iou=0.6)),
    )
    assert by_gin == by_hand
    from tpu_retinamask import config

    for name in (config.CONFIG_FILE, config.OPERATIVE_FILE):
        text = config.recipe_files(by_hand)[name]
        (tmp_path / name).write_text(text)
        assert read(str(tmp_path / name)) == by_hand
