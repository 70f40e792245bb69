"""What docs/extending.md adds, from files outside the package: trained, saved, scored and exported by gin alone."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
SMALL = """
InputPipeline.image_size = (64, 64)
InputPipeline.max_instances = 2
InputPipeline.mask_size = 28
RetinaMask.anchor_sizes = (16, 32, 64)
RetinaMask.fpn_channels = 16
RetinaMask.head_channels = 16
RetinaMask.head_depth = 1
RetinaMask.mask_channels = 16
RetinaMask.mask_depth = 1
Criterion.mask_rois = 4
Criterion.mask_rois_from_detections = 0
train.steps = 10
train.batch_size = 2
train.log_every = 1
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_program):
    """The files of the page in a folder of their own, and what ten steps of training with them said."""
    folder = tmp_path_factory.mktemp("toys")
    for name, text in BLOCKS.items():
        (folder / name).write_text(text + (SMALL if name == "toy.gin" else ""))
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        image = random.integers(0, 40, (64, 64, 3), dtype=np.uint8)
        image[10:40, 8:38] = 220
        PIL.Image.fromarray(image).save(folder / name)
    (folder / "objects.toy").write_text("a.png 8 10 38 40\nb.png 8 10 38 40\n")

    # As a user does: in the folder that holds the files, which `python -m` puts on the path.
    command = [sys.executable, "-m", "tpu_retinamask", "train", "--annotations=objects.toy", "--model_dir=run",
               "--gin_file=toy.gin", "--val_annotations=objects.toy"]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

    def program(*arguments):
        return quick_program(*arguments, cwd=folder)

    program.folder, program.said, program.printed = folder, done.stderr, done.stdout
    return program


def test_the_page_holds_the_files_and_tells_each_in_under_30_lines():
    toys = ("backbone", "term", "source", "exporter", "format", "callback")
    assert set(BLOCKS) == {"toy.gin", *(f"toy_{name}.py" for name in toys)}
    sections = PAGE.split("\n## ")[1:]
    assert len(sections) == 7
    for section in sections:  # prose and code, blank lines aside
        assert sum(bool(line.strip()) for line in section.splitlines()) < 30, section.splitlines()[0]


def test_no_file_of_the_package_knows_them():
    sources = [path.read_text() for folder in ("ops", "tpu_retinamask") for path in (ROOT / folder).rglob("*.py")]
    for word in (
        "two_strides",
        "TwoStrides",
        "area_loss",
        "ToySource",
        ".toy",
        "def write_text(",
        "class ObjectCounts",
        "Lowest",
    ):
        assert not any(word in text for text in sources), word


def test_ten_steps_are_trained_with_a_backbone_a_term_and_a_source_of_ones_own(run):
    assert "objects.toy: 2 images, read as toy" in run.said
    lines = [line for line in run.said.splitlines() if re.search(r" step \d+/10 ", line)]
    assert len(lines) == 10
    shape = r"loss (\S+) \(class (\S+)  box (\S+)  mask (\S+)  area (\S+)\)"
    terms = [tuple(map(float, re.search(shape, line).groups())) for line in lines]
    for total, first, second, third, area in terms:
        # Four decimals of each are shown.
        assert total == pytest.approx(first + second + third + 0.1 * area, abs=3e-4) and area > 0
    assert terms[-1][0] < terms[0][0]  # it learns
    assert "2 images, 2 ground truths" in run.said  # and is scored on the source


def test_a_callback_of_ones_own_is_told_of_every_step(run):
    rows = [json.loads(line) for line in (run.folder / "run" / "steps.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert [row["step"] for row in rows] == [*range(1, 11), 10] and "val/segm/AP" in rows[-1]
    assert f"lowest loss {min(losses):.4f} of 10 steps" in run.printed


def test_the_run_knows_what_it_was_made_of(run):
    assert (run.folder / "run" / "classes.csv").read_text() == "thing,0\n"
    assert "import toy_backbone" in (run.folder / "run" / "config.gin").read_text()


def test_it_is_exported_in_a_form_of_ones_own(run):
    done = run("export", "--allow_gin_imports", "--model_dir=run", "--output=toy.txt", "--format=text")
    assert done.returncode == 0, done.stderr[-2000:]
    written = (run.folder / "toy.txt").read_text()
    assert "retinamask/backbone/C4/kernel (3, 3, 16, 16)" in written and "roi_mask" in written


def test_what_was_found_is_written_in_a_form_of_ones_own(run):
    flags = (
        "--model_dir=run",
        "--output_dir=found",
        "--formats=counts",
        "--threshold=0",
        "--allow_gin_imports",
        "a.png",
        "b.png",
    )
    done = run("predict", *flags)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((run.folder / "found" / "predictions.json").read_text())
    counts = [sum(result["file_name"] == name for result in results) for name in ("a.png", "b.png")]
    assert (run.folder / "found" / "counts.txt").read_text() == f"a.png {counts[0]}\nb.png {counts[1]}\n"
    assert sorted(path.name for path in (run.folder / "found").iterdir()) == [
        "counts.txt", "images.json", "predictions.json"]  # fmt: skip


def test_code_of_ones_own_is_run_of_a_model_directory_where_that_is_said_alone(run):
    done = run("export", "--model_dir=run", "--output=refused.npz")
    assert done.returncode == 2 and "'two_strides' is not one of" in done.stderr and "Traceback" not in done.stderr
    assert "config.gin has import toy_backbone" in done.stderr and "--allow_gin_imports" in done.stderr


def test_the_project_exports_its_weights_as_numpy_arrays(run):
    done = run("export", "--allow_gin_imports", "--model_dir=run", "--output=run.npz")
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(run.folder / "run.npz") as arrays:
        assert arrays["retinamask/backbone/C4/kernel"].shape == (3, 3, 16, 16)
        assert '"classes": ["thing"]' in str(arrays["about"])
    again = run("export", "--allow_gin_imports", "--model_dir=run", "--output=run.npz")
    assert again.returncode == 2 and "run.npz exists" in again.stderr


def test_a_name_that_there_is_not_is_refused_with_those_that_there_are(run):
    done = run("export", "--allow_gin_imports", "--model_dir=run", "--output=x", "--format=txt")
    assert done.returncode == 2 and "'numpy'" in done.stderr and "'text'" in done.stderr
    done = run("train", "--annotations=objects.toy", "--model_dir=other", "--gin_file=toy.gin",
               "--gin_param=Criterion.terms = ('class', 'bux')")  # fmt: skip
    assert done.returncode == 2 and "'bux' is not one of" in done.stderr and "did you mean 'box'" in done.stderr
