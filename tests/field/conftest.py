"""Runs the lines of the cases in ../shared/field as a user types them, in a copy of their folders."""

import hashlib
import shlex
from pathlib import Path

import pytest
from field.made_files import lay_out

STAND_INS = Path(__file__).with_name("stand_ins")
# Half of a network, whose step is traced in seconds; nothing of it is what a case is about.
SMALLEST = [
    "RetinaMask.backbone_options = {'widths': (16, 16, 16, 16, 16), 'blocks': (1, 1, 1, 1)}",
    "RetinaMask.anchor_sizes = (24, 48, 96)",
    "RetinaMask.anchor_scales = (1.0,)",
    *("RetinaMask.fpn_channels = 16", "RetinaMask.head_channels = 16", "RetinaMask.mask_channels = 16"),
    *("RetinaMask.head_depth = 1", "RetinaMask.mask_depth = 1", "RetinaMask.roi_size = 7"),
    *("Criterion.mask_rois = 6", "Criterion.mask_rois_from_detections = 2", "InputPipeline.mask_size = 28"),
    "DetectionFilter.score_threshold = 0.0",  # or a network that has learnt nothing finds nothing
    "train.jit_compile = False",
]


class Case:
    """A copy of a case's folder, and its lines."""

    def __init__(self, name, root, quick_program):
        self.name, self.quick_program = name, quick_program
        self.folder = lay_out(name, root)
        self.lines = (self.folder / "cmd.txt").read_text().splitlines()
        self.given = self.digests()

    def digests(self):
        """Return the digest of every file of the folder, but of those that stand in for a network."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and "run" not in path.parts]
        return {str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def run(self, line, *more, gin=()):
        """Run a line with more flags; return what it did."""
        words = shlex.split(line)
        words = words[words.index("python") + 2 :] if "python" in words else words
        program, flags = words[0].removeprefix("tpu_retinamask."), words[1:]
        added, settings = self._added(program, flags)
        return self.quick_program(program, *flags, *more, *added, gin=[*gin, *settings], cwd=self.folder)

    def _added(self, program, flags):
        """Return the flags and settings that save time."""
        if program == "train":
            return (self._stand_in("untrained"), []) if "--dry_run" in flags else ([], SMALLEST)
        if program == "predict" and self.name == "25_predict_inputs":
            return self._stand_in("finds_nothing"), []
        if program == "predict" or (program == "evaluate" and any(flag.startswith("--model_dir") for flag in flags)):
            return [], [f"{program}.jit_compile = False"]
        return [], []

    def _stand_in(self, name):
        for path in STAND_INS.glob(f"{name}.*"):
            (self.folder / path.name).write_bytes(path.read_bytes())
        return [f"--gin_file={name}.gin"]


@pytest.fixture(scope="session")
def field_root(tmp_path_factory):
    """The folder in which the copies lie beside one another, as cases name each other's."""
    return tmp_path_factory.mktemp("field")


@pytest.fixture(scope="session")
def field_run(field_root, quick_program):
    """The run that cases score and predict with: its case, once trained."""
    case = Case("_model", field_root, quick_program)
    (line,) = case.lines
    done = case.run(line)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture
def field_case(field_root, quick_program, request):
    """Lay out a case: field_case(name) -> Case."""

    def make(name):
        case = Case(name, field_root, quick_program)
        if any("../_model/run" in line for line in case.lines):
            request.getfixturevalue("field_run")
        return case

    return make
