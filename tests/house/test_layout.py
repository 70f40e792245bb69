"""How the house is laid: files, names and packaging."""

import collections
import configparser
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON_FILES = sorted(path for folder in ("ops", "tpu_retinamask", "tests") for path in (ROOT / folder).rglob("*.py"))


def _run(code, **options):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, **options
    )


def test_no_file_is_longer_than_400_lines():
    assert len(PYTHON_FILES) > 80
    long = {
        str(path.relative_to(ROOT)): count
        for path in PYTHON_FILES
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}


def test_test_files_have_names_of_their_own():
    # With importlib imports and no __init__.py, two files of one name would be the same module to some tools.
    names = collections.Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_modules_can_be_told_from_their_names():
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}
    assert [str(path) for path in PYTHON_FILES if path.stem in vague or path.parent.name in vague] == []


def test_every_module_says_what_it_is():
    silent = [
        str(path.relative_to(ROOT))
        for path in PYTHON_FILES
        if path.stat().st_size and not path.read_text(encoding="utf-8").lstrip().startswith(('"""', 'r"""'))
    ]
    assert silent == []


def test_gin_holds_no_python():
    # gin/__init__.py would make `import gin` find our folder.
    assert list((ROOT / "gin").rglob("*.py")) == []
    assert len(list((ROOT / "gin").rglob("*.gin"))) >= 2


def test_setup_cfg_lists_every_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    found = {"tpu_retinamask", "tpu_retinamask.configs", "tpu_retinamask.ops"}
    found |= {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "tpu_retinamask").rglob("*/__init__.py")
    }
    assert listed == found
    required = setup["options"]["install_requires"]
    assert "tensorflow" not in required  # which of them is the user's choice
    assert (ROOT / "tpu_retinamask" / "py.typed").is_file()


def test_the_fixtures_of_all_tests_import_no_tensorflow():
    # tests/tpu/conftest.py must come first: TensorFlow's TPU build else looks for a TPU for eight minutes. And the
    # process that hands out tests to two others runs none itself.
    done = _run("import conftest, sys; print('tensorflow' in sys.modules)", cwd=ROOT / "tests")
    assert done.stdout == "False\n", done.stderr[-1000:]


def test_a_bare_ops_is_refused_by_name():
    done = _run("import ops", cwd=ROOT)
    assert done.returncode == 1
    assert "ImportError: this folder was imported as 'ops'" in done.stderr
    assert "tpu_retinamask.ops" in done.stderr.strip().splitlines()[-1]


def test_gin_is_the_library_even_in_the_checkout():
    done = _run("import gin; gin.configurable; print(gin.__file__)", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.startswith(str(ROOT / "gin"))


@pytest.mark.parametrize("module", ["train", "benchmark"])
def test_a_program_run_by_its_path_finds_pythons_own_modules(module):
    # By path, the program's folder comes first on sys.path: a module of ours named like one of Python's would win.
    done = subprocess.run(
        [sys.executable, str(ROOT / "tpu_retinamask" / f"{module}.py"), "--help"],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--gin_file" in done.stdout, done.stderr[-1000:]


def test_without_tensorflow_the_import_says_what_to_install():
    done = _run(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'tensorflow' else find(name, *rest)\n"
        "import tpu_retinamask"
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: tpu_retinamask needs a TensorFlow")
    assert all(extra in last for extra in ("[cpu]", "[gpu]", "[tpu]"))


def test_importing_the_package_loads_no_tensorflow():
    done = _run("import tpu_retinamask, sys; print('tensorflow' in sys.modules, tpu_retinamask.__version__)")
    assert done.stdout.split()[0] == "False", done.stderr
    version = (ROOT / "tpu_retinamask" / "version.py").read_text()
    assert done.stdout.split()[1] in version


def test_importing_everything_starts_no_tensorflow():
    # Once it has started its devices are fixed: replicas on one CPU and described TPUs would be refused.
    done = _run(
        "import tensorflow as tf, tpu_retinamask.api, tpu_retinamask.xla.purify, tpu_retinamask.programs.train\n"
        "cpu, = tf.config.list_physical_devices('CPU')\n"
        "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
        "print(len(tf.config.list_logical_devices('CPU')))"
    )
    assert done.stdout == "2\n", done.stderr[-1000:]
