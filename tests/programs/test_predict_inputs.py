"""What predict takes, on a made run: files, folders, patterns, pictures that lie on their side, formats, tiles."""

import json
import shutil
import signal
import subprocess
import time

import gin
import numpy as np
import PIL.Image
import pytest

from tpu_retinamask import config
from tpu_retinamask.training.checkpoints.state import TrainState

pytestmark = pytest.mark.ci  # a training, and a program for each canvas

PIXELS = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
QUICK = ["predict.jit_compile = False", "predict.batch_size = 2"]


@pytest.fixture(scope="module")
def made_run(training, tmp_path_factory):
    """A model directory as train leaves it, of a network that has learnt nothing."""
    folder = tmp_path_factory.mktemp("made")
    gin.clear_config()
    config.parse_gin([], [*training.gin, "DetectionFilter.score_threshold = 0.0", "DetectionFilter.max_detections = 5"])
    recipe = config.recipe()
    model = config.RetinaMask(2).create_weights(recipe.pipeline.image_size)
    TrainState(str(folder), model).save()
    for name, text in config.config_files().items():
        (folder / name).write_text(text)
    (folder / "classes.csv").write_text("disc,0\nsquare,1\n")
    gin.clear_config()
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The same upright picture in several files, and a file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    picture = PIL.Image.fromarray(PIXELS)
    picture.save(folder / "a.png")
    picture.save(folder / "scan [1].png")
    picture.save(folder / "b.webp", lossless=True)
    picture.save(folder / "C.TIF")
    exif = PIL.Image.Exif()
    exif[274] = 6  # to be turned clockwise by a quarter
    picture.transpose(PIL.Image.Transpose.ROTATE_90).save(folder / "phone.png", exif=exif)
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    return folder


@pytest.fixture
def predict(quick_program, made_run, tmp_path):
    """Run predict: predict(flag, ..., gin=[...]) -> (what it said, {file name: (its entry, its results)})."""

    def run(*flags, gin=()):
        out = tmp_path / f"out_{len(list(tmp_path.iterdir()))}"
        done = quick_program("predict", *flags, f"--model_dir={made_run}", f"--output_dir={out}", gin=[*QUICK, *gin])
        assert done.returncode == 0, done.stderr[-3000:]
        results = json.loads((out / "predictions.json").read_text())
        images = json.loads((out / "images.json").read_text())
        assert sorted(path.name for path in out.glob("*.png")) == sorted(image["picture"] for image in images)
        return done.stderr, {
            image["file_name"].rpartition("/")[2]: (
                image,
                [{**result, "image_id": 0, "file_name": ""} for result in results if result["image_id"] == image["id"]],
            )
            for image in images
        }

    return run


def test_a_folder_of_all_kinds_gives_one_picture_the_same_detections(predict, photos):
    said, found = predict(f"--images={photos}")
    assert sorted(found) == ["C.TIF", "a.png", "b.webp", "phone.png", "scan [1].png"]
    assert "1 files are no images and left out: Thumbs.db" in said
    assert "1 pictures lie on their side" in said
    expected = found["a.png"][1]
    assert len(expected) == 5
    for image, results in found.values():
        assert (image["height"], image["width"]) == (48, 64)  # upright
        assert results == expected


def test_several_patterns_a_literal_name_and_files_without_a_flag(predict, photos):
    assert sorted(predict(f"--images={photos}/b.webp,{photos}/*.png")[1]) == [
        *("a.png", "b.webp", "phone.png", "scan [1].png")
    ]
    found = predict(f"{photos}/b.webp", f"{photos}/a.png", f"--images={photos}/scan [1].png")[1]
    assert list(found) == ["b.webp", "a.png", "scan [1].png"]


def test_stored_pixels_where_the_run_or_the_user_says_so(predict, photos):
    said, found = predict(f"--images={photos}/phone.png", gin=["source.exif_orientation = 'ignore'"])
    assert (found["phone.png"][0]["height"], found["phone.png"][0]["width"]) == (64, 48)
    assert "lie on their side" not in said


def test_larger_pictures_are_cut_and_others_are_not(predict, photos, tmp_path):
    PIL.Image.fromarray(np.tile(PIXELS, (3, 3, 1))).save(tmp_path / "large.png")
    tile = ["predict.tile = (48, 64)", "predict.tile_overlap = 16"]
    said, found = predict(f"{photos}/a.png", f"{tmp_path}/large.png", f"{photos}/b.webp", gin=tile)
    assert "tiles of 64 x 48 pixels, 16 or more over each other" in said and "1 of 3 pictures are cut, into 16" in said
    assert found["a.png"][1] == found["b.webp"][1] and len(found["a.png"][1]) == 5
    image, results = found["large.png"]
    assert (image["height"], image["width"]) == (144, 192)
    assert 5 < len(results) <= 16 * 5
    assert all(result["segmentation"]["size"] == [144, 192] for result in results)
    assert max(result["bbox"][0] for result in results) > 100  # of the whole picture, not of its first tile


def test_forms_and_threshold_by_flags(quick_program, made_run, photos, tmp_path):
    flags = (f"{photos}/a.png", f"--model_dir={made_run}", f"--output_dir={tmp_path}/out")
    done = quick_program("predict", *flags, "--formats=csv,labelme", "--threshold=0", gin=QUICK)
    assert done.returncode == 0, done.stderr[-3000:]
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["images.json", "labelme/a.json", "predictions.csv", "predictions.json"]  # no picture
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 5
    done = quick_program("predict", *flags, "--formats=labelmee", gin=QUICK)
    assert done.returncode == 2 and "did you mean 'labelme'" in done.stderr
    done = quick_program("predict", *flags, "--threshold=2", gin=QUICK)
    assert done.returncode == 1 and "--threshold=2: 2.0 is not a number in the range [0.0, 1.0]" in done.stderr


def test_pictures_that_are_read_and_files_of_others_are_kept(quick_program, made_run, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.json").write_text("[]")
    for out, words in (("in", "holds files of the same names"), ("out", "no earlier run wrote")):
        before = {path.name: path.read_bytes() for path in (tmp_path / out).iterdir()}
        done = quick_program(
            "predict", f"{tmp_path}/in/a.png", f"--model_dir={made_run}", f"--output_dir={tmp_path}/{out}", gin=QUICK
        )
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert {path.name: path.read_bytes() for path in (tmp_path / out).iterdir()} == before


@pytest.mark.slow  # test_picture_folder has the order; here the process is killed
def test_killed_over_an_older_output_it_leaves_nothing_of_that_and_a_rerun_is_whole(
    program, quick_program, made_run, tmp_path
):
    random = np.random.default_rng(2)
    (tmp_path / "in").mkdir()
    for number in range(40):
        pixels = random.integers(0, 256, (400, 600, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    place = (f"--model_dir={made_run}", f"--output_dir={tmp_path}/out")
    assert quick_program("predict", f"{tmp_path}/in/0.png", *place, gin=QUICK).returncode == 0
    flags = ("predict", f"--images={tmp_path}/in", f"--model_dir={made_run}")
    assert quick_program(*flags, f"--output_dir={tmp_path}/whole", gin=QUICK).returncode == 0
    out = tmp_path / "out"
    for least in (2, 20):
        process = subprocess.Popen(
            program.command(*flags, f"--output_dir={out}", gin=QUICK),
            cwd=program.folder,
            env=program.environment,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not (
            len(json.loads((out / "images.json").read_bytes() or b"[]")) == 40 and len(list(out.glob("*.png"))) >= least
        ):
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (out / "predictions.json").exists()
        for picture in out.glob("*.png"):
            assert picture.read_bytes() == (tmp_path / "whole" / picture.name).read_bytes()
    assert quick_program(*flags, f"--output_dir={out}", gin=QUICK).returncode == 0
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}


def test_what_is_missing_ends_it_with_words(quick_program, made_run, photos, tmp_path):
    place = (f"--model_dir={made_run}", f"--output_dir={tmp_path}/out")
    for flags, words in (
        ((f"--images={photos}/missing.png",), "missing.png: no such file or folder"),
        ((), "give the pictures: --images=FOLDER"),
        ((f"--images={photos}/Thumbs.db",), "not an image"),
    ):
        done = quick_program("predict", *flags, *place, gin=QUICK)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
