"""Names that other libraries keep private are used in the wall modules alone, and asked for when these are imported."""

import ast
import pathlib

import pytest

from tpu_retinamask.private.checking import MissingNameError, require, require_attribute

ROOT = pathlib.Path(__file__).resolve().parents[2]
WALLS = ROOT / "tpu_retinamask" / "private"
SOURCES = [path for folder in ("ops", "tpu_retinamask") for path in sorted((ROOT / folder).rglob("*.py"))]
BEHIND = [path for path in SOURCES if path.parent != WALLS]
# Of Python itself, underscored lest they meet a field's name.
NAMEDTUPLES = {"_replace", "_asdict", "_fields", "_make"}


def _is_private(name):
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def _defined(tree):
    """Return the underscored names that a module gives to something itself."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _of_self(node):
            found.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in found if _is_private(name)}


def _of_self(attribute):
    return isinstance(attribute.value, ast.Name) and attribute.value.id in ("self", "cls")


OURS = set().union(*(_defined(ast.parse(path.read_text(encoding="utf-8"))) for path in BEHIND)) | NAMEDTUPLES


def _foreign_private(tree, ours):
    """Yield what a module uses of others' private names: attributes, and imports of or from private modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (_is_private(node.attr) or node.attr == "__internal__"):
            if node.attr not in ours or (isinstance(node.ctx, ast.Store) and not _of_self(node)):
                yield f"line {node.lineno}: .{node.attr}"
        elif isinstance(node, ast.ImportFrom | ast.Import):
            for alias in node.names:
                name = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
                parts = name.split(".")
                if parts[0] != "tpu_retinamask" and (
                    any(map(_is_private, parts)) or parts[:2] == ["tensorflow", "python"]
                ):
                    yield f"line {node.lineno}: import {name}"


@pytest.mark.parametrize("path", BEHIND, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_of_others_stay_behind_the_walls(path):
    assert list(_foreign_private(ast.parse(path.read_text(encoding="utf-8")), OURS)) == []


def test_the_walls_hold_what_the_test_looks_for():
    found = {
        path.stem: list(_foreign_private(ast.parse(path.read_text(encoding="utf-8")), OURS))
        for path in WALLS.glob("*.py")
    }
    assert all(found[name] for name in ("tensorflow_names", "keras_names", "gin_names", "jax_names"))


def test_the_test_is_able_to_bite():
    guilty = ast.parse(
        "import tensorflow as tf\n"
        "from tensorflow.python.framework import ops\n"
        "from jax._src import core\n"
        "def f(optimizer, graph):\n"
        "    optimizer._distribution_strategy.scope()\n"
        "    graph._mine = 1\n"
        "    return tf.__internal__.x, graph._asdict()\n"
    )
    found = list(_foreign_private(guilty, {"_mine", *NAMEDTUPLES}))
    assert [text.split(": ")[1] for text in sorted(found)] == [
        "import tensorflow.python.framework.ops",
        "import jax._src.core",
        "._distribution_strategy",
        "._mine",
        ".__internal__",
    ]


def test_a_name_that_is_gone_is_told_with_the_versions_that_have_it():
    class Library:
        def __init__(self):
            self._there = 1

    known = {"library": "NumPy", "distributions": ("nothing", "numpy"), "works": "1.0 to 1.9"}
    require(Library(), "_there", **known)
    require_attribute(Library, "_there", **known)
    for ask in (require, require_attribute):
        with pytest.raises(
            MissingNameError, match=r"NumPy \d\S* has no Library\._gone.* works with NumPy 1\.0 to 1\.9"
        ):
            ask(Library, "_gone", **known)
