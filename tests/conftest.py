"""What stays in one test process, where the shared real data lies, programs run in forks, small made-up COCO files."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

# Where tests run in two processes, the files of each of these stay in one: they share a training, a compiled step or a
# process that has imported TensorFlow, which would be made twice.
TOGETHER = {
    "tests/programs/": "programs",
    "tests/extending/": "programs",
    "tests/field/": "programs",
    "tests/what_xla_refuses/": "the original's step",
}


# Half of the suite is compiling what runs for a second: machine code that is not optimised computes the same, and is
# there in half the time. XLA_FLAGS= in the environment tests what users run.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

# A shell's background jobs begin with Ctrl-C ignored, and hand that down to what the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)  # known to pytest-xdist alone
def pytest_xdist_make_scheduler(config, log):
    """Hand out tests by file, and what lies TOGETHER as if it were one file."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class LoadTogether(LoadFileScheduling):
        def _split_scope(self, nodeid):
            shared = [name for folder, name in TOGETHER.items() if nodeid.startswith(folder)]
            return shared[0] if shared else super()._split_scope(nodeid)

    return LoadTogether(config, log)


@pytest.fixture(scope="session")
def program_environment(pytestconfig) -> dict[str, str]:
    """The environment of the programs: the caller's, whatever the tests' own settings; compiled programs are kept."""
    kept = {"XDG_CACHE_HOME": str(pytestconfig.cache.mkdir("compiled"))}
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | kept


@pytest.fixture(scope="session")
def quick_program(tmp_path_factory, program_environment):
    """Run a program in a fork that need not import TensorFlow: quick_program("train", flag, gin=[...], cwd=folder).

    Gives a CompletedProcess with text output, some seconds earlier than a process of its own would.
    """
    elsewhere = tmp_path_factory.mktemp("elsewhere")  # not the checkout: nothing may depend on where one stands
    server = subprocess.Popen(
        [sys.executable, str(pathlib.Path(__file__).with_name("programs") / "forked.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
        env=program_environment,
    )

    def run(name, *flags, gin=(), cwd=elsewhere):
        command = [name, *map(str, flags), *(f"--gin_param={line}" for line in gin)]
        server.stdin.write(json.dumps([str(cwd), *command]) + "\n")
        server.stdin.flush()
        return subprocess.CompletedProcess(command, *json.loads(server.stdout.readline()))

    yield run
    server.stdin.close()
    server.wait()


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real data: $TPU_RETINAMASK_SHARED_DATA, or ../shared/data beside the repository."""
    repository = pathlib.Path(__file__).resolve().parents[1]
    folder = pathlib.Path(os.environ.get("TPU_RETINAMASK_SHARED_DATA", repository.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            f"NO REAL DATA: {folder} is missing, so nothing was checked against real annotations here; "
            "set TPU_RETINAMASK_SHARED_DATA to the folder that holds coco/ and nuclei/"
        )
    return folder


@pytest.fixture
def make_truth():
    """Build a COCO dataset: make_truth(images={id: (h, w)}, annotations=[...], categories=[...])."""

    def build(annotations, images=None, categories=("cell", "dust")):
        return {
            "images": [{"id": i, "height": h, "width": w} for i, (h, w) in (images or {1: (100, 100)}).items()],
            "categories": [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(categories)],
            "annotations": annotations,
        }

    return build


@pytest.fixture
def square():
    """Build an annotation or result whose mask is its box: square(x, y, side, category=10, image=1)."""
    # Not above: the process that hands out tests reads this file as well, and runs none.
    from tpu_retinamask.data.images.window_runs import encode_rle

    def build(x, y, side, *, category=10, image=1, size=(100, 100), **more):
        mask = np.zeros(size, bool)
        mask[y : y + side, x : x + side] = True
        return {
            "image_id": image, "category_id": category, "bbox": [x, y, side, side], "area": side * side,
            "segmentation": encode_rle(mask), **more,
        }  # fmt: skip

    return build
