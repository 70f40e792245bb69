"""The tools are configured, and what they cannot see: complete annotations, short lists of parameters."""

import ast
import configparser
import pathlib
import re
import sys

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it on 3.10

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = sorted(path for folder in ("ops", "tpu_retinamask") for path in (ROOT / folder).rglob("*.py"))
MOST_PARAMETERS = 12


def test_the_tools_are_configured_and_run_by_one_command():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tools["ruff"]["line-length"] == 120 and {"E", "F", "I", "B", "UP", "D"} <= set(
        tools["ruff"]["lint"]["select"]
    )
    assert "E402" not in str(tools["ruff"]["lint"].get("per-file-ignores", {}).get("tpu_retinamask/**", ""))
    assert tools["pyright"]["typeCheckingMode"] == "basic"
    lint = re.search(r"^lint:.*?(?=^\S)", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)[0]
    assert all(words in lint for words in ("ruff check", "ruff format --check", "pyright"))
    assert "make lint" in (ROOT / ".ci" / "run").read_text()
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["tool:pytest"]["filterwarnings"].split()[0] == "error"
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert "make lint" in hooks


def _functions(tree):
    """Yield (name, function, whether it is public) of a module, methods and nested functions too."""

    def walk(node, prefix, public):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                # A constructor and a call are as public as their class.
                shown = public and (not child.name.startswith("_") or child.name in ("__init__", "__call__"))
                yield prefix + child.name, child, shown
                yield from walk(child, f"{prefix}{child.name}.", False)
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.", public and not child.name.startswith("_"))
            else:
                yield from walk(child, prefix, public)

    yield from walk(tree, "", True)


def _parameters(function):
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return [argument for argument in every if argument.arg not in ("self", "cls")]


def _unannotated(tree):
    for name, function, public in _functions(tree):
        if public:
            yield from (f"{name}: {argument.arg}" for argument in _parameters(function) if argument.annotation is None)
            if function.returns is None:
                yield f"{name}: what it returns"


def _too_many(tree):
    return [name for name, function, _ in _functions(tree) if len(_parameters(function)) > MOST_PARAMETERS]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_are_annotated(path):
    assert list(_unannotated(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_has_more_than_twelve_parameters(path):
    assert _too_many(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_these_tests_are_able_to_bite():
    guilty = ast.parse(
        "class Model:\n"
        "    def __init__(self, a: int, b) -> None: ...\n"
        "    def call(self, x: int): ...\n"
        "    def _hidden(self, y): ...\n"
        f"def wide({', '.join(f'p{i}: int' for i in range(13))}) -> None: ...\n"
    )
    assert list(_unannotated(guilty)) == ["Model.__init__: b", "Model.call: what it returns"]
    assert _too_many(guilty) == ["wide"]
