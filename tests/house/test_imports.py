"""What may import what, parsed from the source; nothing is run."""

import ast
import collections
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tpu_retinamask"
# What a shim at the top, `python -m tpu_retinamask.train`, hands over to.
ENTRY_POINTS = {path.stem for path in (PACKAGE / "programs").glob("*.py")} - {"__init__"}

# Each room and what of our own it may import, itself aside. `keras_maskrcnn` is a door on the side: only programs look
# through it. Rooms inside a folder (data.images, training.loop) may see each other as long as there is no circle.
BELOW = {
    "ops": {"structures"},
    "structures": set(),
    "errors": set(),
    "file_kinds": {"errors"},
    "batch_errors": {"errors"},
    "files": {"errors", "file_kinds"},
    "holding": {"errors", "files"},
    "version": set(),
    "startup": set(),
    "signs_of_life": {"errors"},
    "own_sources": set(),
    "gin_files": {"errors", "file_kinds", "own_sources", "setting_names"},
    "earlier": {"files"},
    "plain_settings": {"errors", "files"},
    "seats": {"errors"},
    "setting_names": {"errors"},
    "setting_types": {"errors"},
    "private": {"errors"},
    "traced_for": set(),
    "model": {"ops", "structures", "traced_for", "errors", "seats", "setting_types", "private"},
    "data": {
        "ops",
        "structures",
        "batch_errors",
        "errors",
        "file_kinds",
        "files",
        "holding",
        "seats",
        "setting_types",
        "private",
    },
    "evaluation": {"data", "structures", "errors", "files"},
    "coco": {"data", "evaluation", "structures", "errors", "files", "holding"},
    "training": {
        "batch_errors",
        "signs_of_life",
        "model",
        "ops",
        "structures",
        "traced_for",
        "xla",
        "errors",
        "file_kinds",
        "files",
        "seats",
        "setting_types",
        "private",
    },
    "xla": {"structures", "traced_for", "errors", "files", "startup", "private"},
    "pretrained": {"model", "training", "errors", "file_kinds", "seats", "files", "private"},
    "keras_maskrcnn": {"model", "data", "ops", "structures", "errors", "files"},
    "recipe": {"model", "data", "training", "setting_types"},
    "tasks": {
        "planning",
        "reports",
        "batch_errors",
        "signs_of_life",
        "recipe",
        "ops",
        "model",
        "data",
        "evaluation",
        "coco",
        "training",
        "pretrained",
        "xla",
        "structures",
        "errors",
        "files",
    },
    "planning": {"data", "ops", "errors"},
    "prediction_formats": {"evaluation", "coco", "data", "errors", "files", "seats"},
    "serving": {"tasks", "prediction_formats", "evaluation", "data", "errors", "version"},
    "exporters": {"model", "data", "ops", "structures", "traced_for", "xla", "errors", "files", "seats", "version"},
    "reports": {
        "planning",
        "ops",
        "data",
        "evaluation",
        "coco",
        "structures",
        "errors",
        "files",
        "setting_types",
        "version",
    },
    "config": {
        "reports",
        "recipe",
        "earlier",
        "file_kinds",
        "gin_files",
        "setting_names",
        "model",
        "data",
        "training",
        "errors",
        "private",
        "files",
        "plain_settings",
    },
    "api": {"config", "recipe", "tasks", "training", "data", "holding"},
    "cli": {"programs", "signs_of_life", "startup", "errors", "version"},
}


def _sources():
    """List (part, path): part is the folder, or the module for those at the top."""
    found = [("ops", path) for path in sorted((ROOT / "ops").rglob("*.py"))]
    for path in sorted(PACKAGE.rglob("*.py")):
        found.append((path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path))
    return found


def _imports(path):
    """Yield the dotted name of every import of a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for name in node.names:
                yield f"{node.module}.{name.name}"


def _own_part(name):
    """Return the part of tpu_retinamask that an import reaches, or None."""
    parts = name.split(".")
    return parts[1] if parts[0] == "tpu_retinamask" and len(parts) > 1 else None


def _module(path):
    """Return the dotted name of a file below tpu_retinamask, such as data.images.decode."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {_module(path) for path in PACKAGE.rglob("*.py")}


def _room(dotted):
    """Return the folder that a module of ours lies in, or the module itself at the top; None for a mere name."""
    while dotted and dotted not in MODULES and f"{dotted}.__init__" not in MODULES:
        dotted = dotted.rpartition(".")[0]
    if f"{dotted}.__init__" in MODULES:
        return dotted
    return dotted.rpartition(".")[0] or dotted


def test_the_parser_sees_what_is_there():
    assert {"train", "evaluate", "predict", "benchmark"} <= ENTRY_POINTS
    found = {_own_part(name) for name in _imports(PACKAGE / "programs" / "train.py")}
    assert {"training", "files"} <= found
    assert {part for part, _ in _sources()} >= {"ops", "model", "data", "evaluation", "training", "structures"}
    assert _room("data.images.decode.decode_image") == "data.images" and _room("structures.Batch") == "structures"


@pytest.mark.parametrize("part, path", _sources(), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_imports_go_one_way(part, path):
    if part == "programs":
        return
    if path.parent == PACKAGE and path.stem in ENTRY_POINTS | {"__main__"}:  # the shims at the top
        assert {_own_part(name) for name in _imports(path)} <= {"cli", None}
        return
    if part == "__init__":
        return  # what it offers lazily is listed, not imported
    for name in _imports(path):
        reached = _own_part(name)
        assert reached is None or reached == part or reached in BELOW[part], f"{part} must not import {name}"
        assert name.split(".")[0] not in ("ops", "model", "data", "training", "tests"), name


def test_rooms_have_no_circle():
    below = collections.defaultdict(set)
    for part, path in _sources():
        if part == "ops":
            continue
        here = _room(_module(path))
        for name in _imports(path):
            if _own_part(name) not in (None, "ops"):
                below[here].add(_room(name.removeprefix("tpu_retinamask.")))
    assert len(below) > 20
    circles, done = [], set()

    def walk(room, road):
        if room in road:
            circles.append(" -> ".join([*road[road.index(room) :], room]))
        elif room not in done:
            for other in sorted(below[room] - {room}):
                walk(other, [*road, room])
            done.add(room)

    for room in list(below):
        walk(room, [])
    assert circles == []


@pytest.mark.parametrize("path", sorted((ROOT / "ops").glob("*.py")), ids=lambda path: path.name)
def test_ops_are_tensorflow_and_numpy_alone(path):
    allowed = {"tensorflow", "numpy", *sys.stdlib_module_names}
    foreign = {
        name
        for name in _imports(path)
        if name.split(".")[0] not in allowed and _own_part(name) not in ("ops", "structures")
    }
    assert foreign == set()


@pytest.mark.parametrize("part, path", _sources(), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_flags_and_gin_stay_in_the_programs(part, path):
    reached = {name.split(".")[0] for name in _imports(path)} & {"absl", "gin"}
    assert not reached or part in ("programs", "config", "cli", "api", "private"), reached


def _attributes(path):
    """Yield every dotted name used in a file, such as tf.io.read_file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            names = [node.attr]
            while isinstance(node.value, ast.Attribute):
                node = node.value
                names.append(node.attr)
            if isinstance(node.value, ast.Name):
                yield ".".join([node.value.id, *reversed(names)])


# np.where is NumPy's and runs on the host: it is fine outside the step.
BANNED = (
    "tf.where",
    "tf.compat.v1.where",
    "tf.raw_ops.Where",
    "tf.map_fn",
    "tf.vectorized_map",
    "tf.scan",
    "tf.py_function",
    "tf.numpy_function",
    "tf.boolean_mask",
    "tf.print",
    "tf.image.crop_and_resize",
)


@pytest.mark.parametrize("path", [path for _, path in _sources()], ids=lambda path: str(path.relative_to(ROOT)))
def test_banned_calls_appear_nowhere(path):
    used = set(_attributes(path))
    assert not used & set(BANNED)
    imported = {name.split(".", 1)[1] for name in _imports(path) if name.startswith("tensorflow.")}
    assert not imported & {name.split(".", 1)[1] for name in BANNED}
    assert not {name for name in used if name.endswith((".py_function", ".numpy_function", ".map_fn"))}


def test_the_ban_is_able_to_bite(tmp_path):
    guilty = tmp_path / "guilty.py"
    guilty.write_text("import tensorflow as tf\ny = 1 + tf.where(x)[0]\nz = tf.compat.v1.where(x)\n")
    assert set(_attributes(guilty)) & set(BANNED) == {"tf.where", "tf.compat.v1.where"}


def test_nothing_beside_the_programs_is_named_like_a_module_of_pythons():
    # Run by its path, a program puts its own folder first on sys.path. (ops/ holds no program: `select` is safe there.)
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()} - {"__init__"}
    assert names & set(sys.stdlib_module_names) == set()
    assert not [path for path in (ROOT / "ops").glob("*.py") if "__main__" in path.read_text(encoding="utf-8")]
