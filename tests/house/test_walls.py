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
# Modules whose names have no underscore, and which their projects call private all the same.
PRIVATE_MODULES = ("tensorflow.python", "tensorflow.__internal__", "keras.src", "jaxlib")
ASKING = {"getattr", "setattr", "hasattr", "delattr"}


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


DOCUMENTED = {"os._exit"}  # public in spite of its name


def _of_self(attribute):
    return isinstance(attribute.value, ast.Name) and attribute.value.id in ("self", "cls")


OURS = set().union(*(_defined(ast.parse(path.read_text(encoding="utf-8"))) for path in BEHIND)) | NAMEDTUPLES


def _our_modules(tree):
    """Return the names by which a module knows others of ours."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tpu_retinamask"
        for alias in node.names
    }


def _in_private_module(name):
    return any(name == module or name.startswith(module + ".") for module in PRIVATE_MODULES)


def _foreign_private(tree, ours):
    """Yield what a module uses of others' private names: attributes, and imports of or from private modules.

    A name that a class of ours has too is allowed on `self` and `cls`, on a module of ours, and where this very module
    defines it; on anything else it may be another's.
    """
    here, modules = _defined(tree), _our_modules(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if _is_private(node.attr) and ast.unparse(node) not in DOCUMENTED:
                of_ours = isinstance(node.value, ast.Name) and node.value.id in modules
                known = ours if _of_self(node) or of_ours else here | NAMEDTUPLES
                if node.attr not in known or (isinstance(node.ctx, ast.Store) and not _of_self(node)):
                    yield f"line {node.lineno}: .{node.attr}"
            elif node.attr == "__internal__" or ast.unparse(node) in PRIVATE_MODULES:
                yield f"line {node.lineno}: .{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ASKING:
            name = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else ""
            if isinstance(name, str) and _is_private(name) and name not in NAMEDTUPLES:
                yield f"line {node.lineno}: {node.func.id} {name}"
        elif isinstance(node, ast.ImportFrom | ast.Import):
            for alias in node.names:
                name = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
                parts = name.split(".")
                if parts[0] != "tpu_retinamask" and (any(map(_is_private, parts)) or _in_private_module(name)):
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
        "import keras.src.layers\n"
        "from tensorflow import __internal__\n"
        "def f(optimizer, graph):\n"
        "    optimizer._distribution_strategy.scope()\n"
        "    graph._mine = 1\n"
        "    graph._of_another_class_of_ours()\n"
        "    tf.keras.x, keras.src.y\n"
        "    getattr(graph, '_functions')\n"
        "    return tf.__internal__.x, graph._asdict()\n"
    )
    found = list(_foreign_private(guilty, {"_mine", "_of_another_class_of_ours", *NAMEDTUPLES}))
    assert sorted(text.split(": ")[1] for text in found) == sorted(
        [
            "import tensorflow.python.framework.ops",
            "import jax._src.core",
            "import keras.src.layers",
            "import tensorflow.__internal__",
            "._distribution_strategy",
            "._mine",
            "._of_another_class_of_ours",
            ".src",
            "getattr _functions",
            ".__internal__",
        ]
    )


def test_the_test_lets_our_own_names_be():
    innocent = ast.parse(
        "from tpu_retinamask.model import losses\n"
        "class Of:\n"
        "    def __init__(self): self._mine = 1\n"
        "    def same(self, other: 'Of'): return self._mine == other._mine\n"
        "    def inherited(self): return self._elsewhere\n"
        "losses._elsewhere(getattr(losses, 'shown'), hasattr(losses, '_asdict'), Of()._replace(a=1))\n"
    )
    assert list(_foreign_private(innocent, {"_mine", "_elsewhere", *NAMEDTUPLES})) == []


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
