"""Each exported form, run by a process that cannot import the package, finds what the Detector finds."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import tpu_retinamask
from tpu_retinamask.errors import UserError
from tpu_retinamask.evaluation.results import paste_masks as paste_on_the_host
from tpu_retinamask.exporters.new_output import new_folder, write_file
from tpu_retinamask.exporters.pasting import paste_masks
from tpu_retinamask.files import WriteError
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.training.checkpoints.state import TrainState

pytestmark = pytest.mark.ci  # five forms are written, and run without the package

HERE = pathlib.Path(__file__).parent
PICTURES = HERE.parents[1] / "examples" / "nuclei" / "val" / "images"
NETWORK = dict(
    backbone="small",
    backbone_options={"widths": (16, 16, 16, 16, 16), "blocks": (1, 1, 1, 1)},
    normalization="group",
    pixel_mode="torch",
    anchor_sizes=(24, 48, 96),
    anchor_scales=(1.0,),
    fpn_channels=16,
    head_channels=16,
    head_depth=1,
    head_initializer="he_normal",
    mask_channels=16,
    mask_depth=1,
    mask_upsample="nearest",
    roi_size=7,
)
MASKS = 20  # of at most 30 objects
SETTINGS = [f"RetinaMask.{name} = {value!r}" for name, value in NETWORK.items()] + [
    "InputPipeline.image_size = (96, 128)",
    "DetectionFilter.score_threshold = 0.4",
    "DetectionFilter.max_detections = 30",
    f"DetectionFilter.max_masks = {MASKS}",
    "DetectionFilter.top_k_per_level = 200",
]
# What is kept out of the process that runs each form, beside the package and what else a program of ours imports.
NO_TENSORFLOW = "tensorflow,keras"
BLOCKED = {
    "saved_model": "jax",
    "stablehlo": NO_TENSORFLOW,
    "tflite": f"{NO_TENSORFLOW},jax",
    "onnx": f"{NO_TENSORFLOW},jax",
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A model directory whose weights were drawn, not trained: scores from 0 to 1, boxes and masks of all kinds."""
    folder = tmp_path_factory.mktemp("runs") / "drawn"
    folder.mkdir()
    (folder / "config.gin").write_text("\n".join(SETTINGS) + "\n")
    (folder / "classes.csv").write_text("disc,0\nsquare,1\n")
    model = RetinaMask(2, **NETWORK).create_weights((96, 128))
    draw = np.random.default_rng(3)
    spread = {"pyramid_classification": 0.02, "pyramid_regression": 0.02, "roi_mask": 0.1}
    for variable in model.variables:
        layer, name = variable.path.split("/")[-2:]
        if name == "kernel":
            scale = spread.get(layer, (2 / np.prod(variable.shape[:-1])) ** 0.5)
            variable.assign(draw.normal(0, scale, variable.shape))
        elif layer in spread:
            variable.assign(draw.normal(-1.0 if layer == "pyramid_classification" else 0, 0.2, variable.shape))
    TrainState(str(folder), model).save()
    return folder


@pytest.fixture(scope="module")
def pictures():
    """Four real pictures of several sizes, colours and shapes; one is cut to a strip."""
    paths = sorted(PICTURES.glob("*.png"))
    found = [np.asarray(PIL.Image.open(path).convert("RGB")) for path in (paths[0], paths[1], paths[7], paths[12])]
    return [*found[:3], np.ascontiguousarray(found[3][40:77])]


@pytest.fixture(scope="module")
def expected(run_dir, pictures):
    """What the Detector finds, uncompiled: the numbers of `predict`."""
    return tpu_retinamask.load(str(run_dir), jit_compile=False)(pictures)


@pytest.fixture(scope="module")
def found_by(run_dir, pictures, quick_program, tmp_path_factory):
    """Export a form and run it elsewhere: found_by("stablehlo", gin setting, ...) -> ({name: array}, its path)."""
    folder = tmp_path_factory.mktemp("exported")
    np.savez(folder / "pictures.npz", **{f"{number:02d}": picture for number, picture in enumerate(pictures)})

    def run(form, *gin, name=None, flags=()):
        output = folder / (name or form)
        done = quick_program(
            "export", f"--model_dir={run_dir}", f"--output={output}", f"--format={form}", *flags, gin=gin
        )
        assert done.returncode == 0, done.stderr[-3000:]
        blocked = "tpu_retinamask,gin,absl.flags,h5py,pycocotools,PIL," + BLOCKED[form]
        command = [HERE / "without_the_package.py", form, output, folder / "pictures.npz", f"{output}.npz", blocked]
        done = subprocess.run([sys.executable, "-I", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        with np.load(f"{output}.npz") as arrays:
            return {key: arrays[key] for key in arrays.files}, output

    return run


def check_equal(found, wanted, *, score=1e-3, mask=1e-2):
    """Compare one picture's objects: within 0.5 pixels, and these of scores and mask probabilities."""
    count = len(wanted.scores)
    assert count > 5 and len(found["scores"]) == count and len(found["masks"]) == min(count, MASKS)
    free = set(range(count))
    for row in range(count):  # scores that are nearly equal may come in either order
        near = [
            other
            for other in free
            if found["classes"][other] == wanted.classes[row]
            and abs(found["scores"][other] - wanted.scores[row]) <= score
            and np.abs(found["boxes"][other] - wanted.boxes[row]).max() <= 0.5
        ]
        assert near, f"object {row}: {wanted.scores[row]} {wanted.boxes[row]} is not found"
        other = near[0]
        free.discard(other)
        np.testing.assert_allclose(found["mask_boxes"][other], wanted.mask_boxes[row], atol=0.5)
        if max(row, other) < MASKS:
            np.testing.assert_allclose(found["masks"][other], wanted.mask_probabilities[row], atol=mask)


def of_picture(arrays, name):
    """Return the objects of one answer of a SavedModel, padding left out."""
    answer = {key.split("/")[1]: value[0] for key, value in arrays.items() if key.startswith(f"{name}/")}
    count = answer.pop("count")
    for key in ("scores", "classes", "boxes", "mask_boxes"):
        assert (answer[key][count:] == -1).all()
    assert not answer["masks"][count:].any()
    return {key: value[: min(count, len(value))] for key, value in answer.items()}


def check_about(about, run_dir):
    """Look at what a form says of itself."""
    assert about["classes"] == ["disc", "square"] and about["image_size"] == [96, 128]
    assert about["tpu_retinamask"] == tpu_retinamask.__version__
    assert about["detection_filter"]["score_threshold"] == 0.4
    manifest = json.loads((run_dir / "checkpoints" / "ckpt-0.manifest.json").read_text())
    assert about["checkpoint"] == {
        "step": 0, "sha256": {name: entry["sha256"] for name, entry in manifest["files"].items()}
    }  # fmt: skip


def test_the_drawn_network_finds_what_tells_forms_apart(expected):
    scores = np.concatenate([found.scores for found in expected])
    masks = np.concatenate([found.mask_probabilities[:MASKS].ravel() for found in expected])
    assert scores.std() > 0.02 and masks.std() > 0.1
    assert {0, 1} <= set(np.concatenate([found.classes for found in expected]).tolist())


def test_a_saved_model_finds_the_same_in_arrays_and_in_files(found_by, run_dir, pictures, expected):
    arrays, output = found_by("saved_model")
    for number, (picture, wanted) in enumerate(zip(pictures, expected)):
        for way in ("images", "encoded"):
            found = of_picture(arrays, f"{way}_{number}")
            pasted = found.pop("pasted_masks", None)
            check_equal(found, wanted, score=1e-5, mask=1e-4)
            if pasted is not None:
                height, width = picture.shape[:2]
                assert not pasted[:, height:].any() and not pasted[:, :, width:].any()
                different = pasted[:, :height, :width] != wanted.masks[: len(pasted)]
                assert pasted.any() and different.mean() < 1e-4
    about = json.loads(arrays["about/about"].item())
    check_about(about, run_dir)
    assert json.loads(str(arrays["asset/about"])) == about
    assert sorted(os.listdir(output)) == ["assets", "fingerprint.pb", "saved_model.pb", "variables"]


def check_each(arrays, expected):
    """Compare what a runner found in each picture."""
    for number, wanted in enumerate(expected):
        check_equal({key.split("/")[1]: value for key, value in arrays.items() if f"_{number}/" in key}, wanted)


def test_stablehlo_finds_the_same_by_jax_alone(found_by, run_dir, expected):
    pytest.importorskip("jax")
    arrays, output = found_by("stablehlo", "export.batch_size = 3")  # four pictures: one batch is filled up
    check_each(arrays, expected)
    check_about(json.loads((output / "about.json").read_text()), run_dir)
    assert (output / "program.stablehlo").read_bytes().startswith(b"ML\xefR\rStableHLO")


def test_tflite_finds_the_same_by_its_own_operations(found_by, run_dir, expected):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    arrays, output = found_by("tflite", "export.precision = 'float16'")
    check_each(arrays, expected)
    about = json.loads((output / "about.json").read_text())
    check_about(about, run_dir)
    assert about["precision"] == "float16"
    program = litert.Interpreter(str(output / "model.tflite"))
    # No operation of TensorFlow's, which a phone would have to carry; no tensor that an interpreter refuses.
    assert b"Flex" not in (output / "model.tflite").read_bytes()
    assert max(len(tensor["shape"]) for tensor in program.get_tensor_details()) <= 5


@pytest.mark.slow  # tf2onnx takes half a minute for a network of any size
def test_onnx_finds_the_same_by_onnxruntime(found_by, run_dir, expected):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    arrays, output = found_by("onnx")
    check_each(arrays, expected)
    check_about(json.loads((output / "about.json").read_text()), run_dir)


def test_what_is_there_is_never_written_over(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name, says in {
        "mine": "exists",
        "mine/notes.txt": "exists",
        "mine/notes.txt/x": "no folder",
        "link": "exists",
    }.items():
        with pytest.raises(UserError, match=says), new_folder(str(tmp_path / name)):
            raise AssertionError("nothing is worked out")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["link", "mine"] and os.listdir(tmp_path / "mine") == ["notes.txt"]


def test_a_form_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(WriteError, match="disk is full"), new_folder(str(tmp_path / "new")) as folder:
        write_file(os.path.join(folder, "half"), b"half")
        raise OSError("disk is full")
    assert not os.listdir(tmp_path)
    with new_folder(f"{tmp_path}/below/new/") as folder:
        write_file(os.path.join(folder, "whole"), b"whole")
    assert os.listdir(tmp_path / "below") == ["new"] and (tmp_path / "below" / "new" / "whole").read_bytes() == b"whole"


def test_what_a_form_cannot_be_is_refused_by_name(run_dir, quick_program, tmp_path):
    def says(form, *gin):
        done = quick_program("export", f"--model_dir={run_dir}", f"--output={tmp_path}/x", f"--format={form}", gin=gin)
        assert done.returncode == 2 and "Traceback" not in done.stderr and not os.listdir(tmp_path)
        return done.stderr

    assert "export.precision is 'float16', which tflite has" in says("saved_model", "export.precision = 'float16'")
    assert "expected one of 'float32', 'float16'" in says("tflite", "export.precision = 'int8'")
    assert "'saved_model'" in says("onxx")


def test_pasting_in_the_graph_is_pasting_on_the_host():
    draw = np.random.default_rng(0)
    masks = draw.random((2, 5, 7, 7), np.float32)
    low = draw.uniform(-5, 20, (2, 5, 2))
    boxes = np.concatenate([low, low + draw.uniform(0.2, 25, (2, 5, 2))], -1).astype(np.float32)
    boxes[1, 4], masks[0, 0] = -1, 0.5  # padding; exactly at the threshold
    pasted = paste_masks(tf.constant(masks), tf.constant(boxes), tf.constant([21, 33])).numpy()
    assert pasted.shape == (2, 5, 21, 33)
    for row in range(2):
        np.testing.assert_array_equal(pasted[row], paste_on_the_host(masks[row], boxes[row], 21, 33))
