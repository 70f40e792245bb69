"""What may import what, parsed from the source; nothing is run."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tpu_retinamask"
ENTRY_POINTS = {path.stem for path in PACKAGE.glob("*.py")
                if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")}

# Each folder and what of our own it may import, itself aside. `compat` is a door on the side: it reads files and
# builds models, and only entry points look through it.
BELOW = {
    "ops": {"structures"},
    "structures": set(),
    "errors": set(),
    "files": set(),
    "version": set(),
    "no_tpu": set(),
    "model": {"ops", "structures", "errors"},
    "data": {"ops", "structures", "errors"},
    "evaluation": {"structures", "errors", "files"},
    "training": {"model", "ops", "structures", "errors", "files"},
    "xla": {"structures", "errors", "no_tpu"},
    "compat": {"model", "data", "ops", "training", "structures", "errors"},
    "config": {"model", "data", "training", "errors", "files", "no_tpu"},
    "preflight": {"training", "xla"},
    "inference": {"model", "data", "evaluation", "training", "structures", "errors", "files"},
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


def test_the_parser_sees_what_is_there():
    assert ENTRY_POINTS >= {"train", "evaluate", "predict", "benchmark"}
    found = {part: {_own_part(name) for name in _imports(path)} for part, path in _sources() if part == "train"}
    assert {"training", "inference", "data", "evaluation"} <= found["train"]
    assert {part for part, _ in _sources()} >= {"ops", "model", "data", "evaluation", "training", "structures"}


@pytest.mark.parametrize("part, path", _sources(), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_imports_go_one_way(part, path):
    if part in ENTRY_POINTS:
        reached = {_own_part(name) for name in _imports(path)} - {None}
        assert not (reached & ENTRY_POINTS - {part}), "an entry point is not a library"
        return
    if part == "__init__":
        assert {_own_part(name) for name in _imports(path)} <= {"version", None}
        return
    for name in _imports(path):
        reached = _own_part(name)
        assert reached is None or reached == part or reached in BELOW[part], f"{part} must not import {name}"
        assert name.split(".")[0] not in ("ops", "model", "data", "training", "tests"), name


@pytest.mark.parametrize("path", sorted((ROOT / "ops").glob("*.py")), ids=lambda path: path.name)
def test_ops_are_tensorflow_and_numpy_alone(path):
    allowed = {"tensorflow", "numpy", *sys.stdlib_module_names}
    foreign = {name for name in _imports(path)
               if name.split(".")[0] not in allowed and _own_part(name) not in ("ops", "structures")}
    assert foreign == set()


@pytest.mark.parametrize("part, path", _sources(), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_flags_and_gin_stay_in_the_programs(part, path):
    reached = {name.split(".")[0] for name in _imports(path)} & {"absl", "gin"}
    assert not reached or part in ENTRY_POINTS | {"config"}, reached


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
BANNED = ("tf.where", "tf.compat.v1.where", "tf.raw_ops.Where", "tf.map_fn", "tf.vectorized_map", "tf.scan",
          "tf.py_function", "tf.numpy_function", "tf.boolean_mask", "tf.print", "tf.image.crop_and_resize")


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
