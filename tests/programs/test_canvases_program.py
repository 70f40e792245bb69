"""Programs with several canvases: a run resumed to the bit, scored and looked at; both runtimes alike."""

import json

import numpy as np
import pytest
from programs.conftest import TINY, as_of_step, saved_numbers, train_flags

pytestmark = pytest.mark.ci  # a step is traced, or compiled, for each canvas and runtime

GIN = [
    *(line for line in TINY if "image_size" not in line),
    "InputPipeline.image_size = ((128, 128), (128, 192))",  # the picture "wide" is 64 x 96, the other five 64 x 64
    "train.steps = 6",
    "train.batch_size = 2",
    "train.checkpoint_every = 2",
    "train.log_every = 1",
    "train.steps_per_loop = 2",
    "train.jit_compile = False",  # as a compiled step would be, traced for each canvas
]


@pytest.fixture(scope="module")
def trained(shapes, quick_program, tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("canvases") / "run"
    done = quick_program("train", *train_flags(shapes, model_dir), gin=GIN)
    assert done.returncode == 0, done.stderr
    return model_dir, done.stderr


def test_a_resumed_run_is_the_unbroken_one_to_the_bit(trained, shapes, quick_program, tmp_path):
    model_dir, said = trained
    assert "2 canvases, for which as many programs are compiled" in said
    again = as_of_step(2, model_dir, tmp_path / "again")  # the fourth step has the wide canvas
    done = quick_program("train", *train_flags(shapes, again), gin=GIN)
    assert done.returncode == 0 and "resuming at step 2 of 6" in done.stderr, done.stderr
    expected, found = saved_numbers(model_dir, 6), saved_numbers(again, 6)
    assert len(expected) > 100 and expected.keys() == found.keys()
    assert [name for name in expected if not np.array_equal(expected[name], found[name])] == []


@pytest.mark.slow  # compiles two programs
def test_pjrt_makes_the_same_steps_and_its_programs_share_the_weights(trained, shapes, quick_program, tmp_path):
    pytest.importorskip("jax", reason="NO JAX: Python 3.10 has none that is supported")
    again = as_of_step(2, trained[0], tmp_path / "again")
    done = quick_program(
        "train", *train_flags(shapes, again), "--runtime=pjrt", f"--cache_dir={tmp_path}/compiled", gin=GIN
    )
    assert done.returncode == 0 and done.stderr.count("program compiled") == 2, done.stderr
    expected = saved_numbers(trained[0], 6)
    for name, value in saved_numbers(again, 6).items():
        # Four steps of other kernels.
        scale = max(np.abs(expected[name]).max(), 1e-3)
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-3 * scale, err_msg=name)


def test_each_picture_is_found_on_its_canvas(trained, shapes, quick_program, tmp_path):
    model_dir, _ = trained
    settings = ["DetectionFilter.score_threshold = 0.01", "predict.jit_compile = False"]
    found = {}
    for name, gin in {"several": settings, "wide": [*settings, "InputPipeline.image_size = (128, 192)"]}.items():
        folder = tmp_path / name
        done = quick_program(
            "predict", f"--images={shapes}/*[!s].png", f"--model_dir={model_dir}", f"--output_dir={folder}", gin=gin
        )
        assert done.returncode == 0, done.stderr
        found[name] = json.loads((folder / "predictions.json").read_text())
    # All six have the scale of 2 on the wide canvas too, and a canvas does not matter. On the square one the wide
    # picture, number 5, would have 1.33.
    several, wide = (sorted(results, key=lambda one: (one["image_id"], -one["score"])) for results in found.values())
    assert {one["image_id"] for one in several} >= {0, 5} and len(several) == len(wide) > 6
    for one, other in zip(several, wide):
        assert one["image_id"] == other["image_id"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-2)


def test_inspect_data_says_how_full_the_canvas_is(shapes, quick_program, tmp_path):
    done = quick_program(
        "inspect_data",
        f"--annotations={shapes}/train.csv",
        f"--classes={shapes}/classes.csv",
        "--batches=6",
        "--batch_size=2",
        gin=GIN,
    )
    assert done.returncode == 0, done.stderr
    assert "scale to the canvas of 128 x 128 or 128 x 192" in done.stdout
    assert "pictures fill 100% of their canvas" in done.stdout
    assert done.stdout.count("digest ") == 6
