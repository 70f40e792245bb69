"""The wheel holds what a user needs, and works away from the checkout."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow  # builds with pip; test_layout compares the list of packages with the folders


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the sources, so that no build folder is left in the checkout."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    source.mkdir()
    for name in ("tpu_retinamask", "ops", "gin"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "--wheel-dir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_everything_and_no_bare_names(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, target in (
        ("ops", "tpu_retinamask/ops"),
        ("tpu_retinamask", "tpu_retinamask"),
        ("gin", "tpu_retinamask/configs"),
    ):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".gin", ".typed", ".html"):
                assert f"{target}/{path.relative_to(ROOT / folder)}" in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tpu_retinamask"}
    assert any(name.endswith("LICENSE") for name in names)


def test_the_installed_wheel_finds_its_gin_files_from_elsewhere(wheel, tmp_path):
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True)
    code = (
        "import tpu_retinamask, tpu_retinamask.ops.nms, gin\n"
        "from tpu_retinamask import config\n"
        "config.parse_gin(['run/nuclei_demo.gin'], [])\n"
        "print(config.find_gin_file('recipe/small'), gin.query_parameter('RetinaMask.backbone'))\n"
        "print(tpu_retinamask.__file__, tpu_retinamask.ops.nms.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(target)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = done.stdout.strip().splitlines()[-2:]
    assert first == f"{target}/tpu_retinamask/configs/model/small.gin small"
    assert second == f"{target}/tpu_retinamask/__init__.py {target}/tpu_retinamask/ops/nms.py"
