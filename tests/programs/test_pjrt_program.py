"""The programs with --runtime=pjrt: their checkpoints and answers are those of TensorFlow's runtime."""

import json
import subprocess

import numpy as np
import pytest
from programs.conftest import TINY, as_of_step, saved_numbers, train_flags

pytest.importorskip("jax", reason="NO JAX: Python 3.10 has none that is supported, so no program ran on PJRT here")

GIN = [
    *TINY,
    "train.steps = 6",
    "train.batch_size = 2",
    "train.checkpoint_every = 3",
    "train.log_every = 1",
    "train.evaluate_every = 3",
]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Flags of the runtime, whose programs are kept."""
    return "--runtime=pjrt", f"--cache_dir={tmp_path_factory.mktemp('compiled')}"


@pytest.fixture(scope="module")
def trained(shapes, quick_program, compiled, tmp_path_factory):
    """A run of six steps, scored by --val_annotations: (model directory, what it said)."""
    model_dir = tmp_path_factory.mktemp("pjrt")
    done = quick_program(
        "train", *train_flags(shapes, model_dir), f"--val_annotations={shapes}/val.csv", *compiled, gin=GIN
    )
    assert done.returncode == 0, done.stderr
    return model_dir, done.stderr


@pytest.mark.ci
def test_killed_it_goes_on_to_the_bit_with_the_program_that_was_kept(
    trained, shapes, program, quick_program, compiled, tmp_path
):
    model_dir, said = trained
    assert "program compiled" in said and "program read" not in said
    again = tmp_path / "again"
    program.kill_at("saved ", "train", *train_flags(shapes, again), *compiled, gin=GIN)
    done = quick_program("train", *train_flags(shapes, again), *compiled, gin=GIN)
    assert (
        "resuming at step 3" in done.stderr
        and "program read from" in done.stderr
        and "program compiled" not in done.stderr
    )
    expected, found = saved_numbers(model_dir, 6), saved_numbers(again, 6)
    assert len(expected) > 150 and expected.keys() == found.keys()
    assert [name for name in expected if not np.array_equal(expected[name], found[name])] == []


@pytest.mark.ci
def test_tensorflow_goes_on_where_pjrt_stopped(trained, shapes, quick_program, compiled, tmp_path):
    again = as_of_step(3, trained[0], tmp_path / "again")
    # Uncompiled, which its tests compare with the compiled step.
    done = quick_program("train", *train_flags(shapes, again), gin=[*GIN, "train.jit_compile = False"])
    assert "resuming at step 3" in done.stderr, done.stderr
    expected = saved_numbers(trained[0], 6)
    for name, value in saved_numbers(again, 6).items():
        # Three steps of other kernels.
        scale = max(np.abs(expected[name]).max(), 1e-3)
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-3 * scale, err_msg=name)
    back = as_of_step(3, again, tmp_path / "back")
    done = quick_program("train", *train_flags(shapes, back), *compiled, gin=GIN)
    assert done.returncode == 0 and "resuming at step 3" in done.stderr, done.stderr


@pytest.mark.ci
def test_evaluate_and_predict_find_the_same(trained, shapes, quick_program, compiled, tmp_path):
    model_dir, said = trained
    assert said.count("evaluation") == 2
    found = {}
    for name, flags in {"tensorflow": (), "pjrt": compiled}.items():
        folder = tmp_path / name
        done = quick_program(
            "evaluate",
            f"--annotations={shapes}/val.csv",
            f"--model_dir={model_dir}",
            f"--metrics={folder}/metrics.json",
            *flags,
        )
        assert done.returncode == 0, done.stderr
        done = quick_program(
            "predict",
            f"--images={shapes}/t*.png",
            f"--model_dir={model_dir}",
            f"--output_dir={folder}/pictures",
            *flags,
            gin=["DetectionFilter.score_threshold = 0.01"],
        )
        assert done.returncode == 0, done.stderr
        results = json.loads((folder / "pictures" / "predictions.json").read_text())
        found[name] = json.loads((folder / "metrics.json").read_text()), results
    assert len(found["pjrt"][1]) == len(found["tensorflow"][1]) > 4
    for ours, theirs in zip(*(results for _, results in found.values())):
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=1e-3)
    scores = [metrics["bbox/AP"] for metrics, _ in found.values()]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    # The evaluation within the training was of the last step's weights, not of those that it had scored before.
    mask_aps = [entry["val/segm/AP"] for entry in json.loads((model_dir / "history.json").read_text())]
    assert mask_aps[1] == pytest.approx(found["pjrt"][0]["segm/AP"], abs=1e-6) and mask_aps[0] != mask_aps[1]


@pytest.mark.ci
def test_a_dry_run_traces_the_step_and_writes_nothing(shapes, quick_program, tmp_path):
    done = quick_program(
        "train", *train_flags(shapes, tmp_path / "run"), "--runtime=pjrt", "--replicas=2", "--dry_run", gin=GIN
    )
    assert done.returncode == 0, done.stderr
    assert "no forbidden ops for 2 replicas" in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.slow  # it compiles a program of its own
def test_benchmark_says_what_it_ran(quick_program, compiled):
    settings = ["benchmark.image_size = (128, 128)", "benchmark.max_instances = 4", "benchmark.num_classes = 2"]
    done = quick_program("benchmark", "--mode=jit", *compiled, gin=[*GIN, *settings, "benchmark.steps = 2"])
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    assert figures["mode"] == "pjrt" and figures["batch"] == "2 x 128 x 128" and np.isfinite(figures["loss"])
    assert "program compiled" in done.stderr


def test_benchmark_compiles_on_it_or_not_at_all(quick_program, compiled):
    done = quick_program("benchmark", "--mode=no_jit", *compiled, gin=GIN)
    assert done.returncode != 0 and "TensorFlow alone runs a step uncompiled" in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tpu=local"], ["--tpu=local", "leave --tpu out"]),
        (["--replicas=0"], ["--replicas=0", "expected 1 or more"]),
        (["--replicas=4"], ["train.batch_size is 2", "choose a multiple of 4"]),
        (["--runtime=pjtr"], ["pjtr", "pjrt", "tensorflow"]),
    ],
)
def test_a_mistake_is_told(flags, words, shapes, quick_program, tmp_path):
    done = quick_program("train", *train_flags(shapes, tmp_path), "--runtime=pjrt", *flags, gin=GIN)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_without_jax_it_is_told_what_to_install(shapes, program, tmp_path):
    (tmp_path / "jax.py").write_text("raise ImportError('No module named jax')\n")
    # A process of its own: in a fork Keras has imported jax already.
    done = subprocess.run(
        program.command("train", *train_flags(shapes, tmp_path / "run"), "--runtime=pjrt", gin=GIN),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=program.environment,
    )
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "tpu-retinamask[pjrt]" in done.stderr, done.stderr
