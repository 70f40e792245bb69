"""Where gin files lie, and which settings there are, read from the sources: no TensorFlow is imported for it."""

import ast
import contextlib
import re
from pathlib import Path

from tpu_retinamask.errors import UserError
from tpu_retinamask.file_kinds import refuse_no_file
from tpu_retinamask.own_sources import parsed
from tpu_retinamask.setting_names import advice

# `scope/OWNER.NAME = ...` at the start of a line, by the name of our module or without one.
_BINDING = re.compile(r"^[ \t]*(?:[\w.]+/)*(?:tpu_retinamask\.)?(\w+)\.(\w+)\s*=", re.MULTILINE)
_LONG_TEXT = re.compile(r"(\'\'\'|\"\"\").*?\1", re.DOTALL)
_INCLUDE = re.compile(r"""^include\s+['"](.+?)['"]""", re.MULTILINE)


def gin_folder() -> Path:
    """Return the folder of the project's gin files, in a checkout as in an installed wheel."""
    here = Path(__file__).resolve().parent
    installed = here / "configs"
    return installed if installed.is_dir() else here.parent / "gin"


def find_gin_file(name: str) -> str:
    """Return the path of a gin file given by path or by its name in the project's gin folder.

    Raises:
      UserError: there is none; lists the project's own.
    """
    for candidate in (Path(name), gin_folder() / name, gin_folder() / f"{name}.gin"):
        with contextlib.suppress(OSError):  # a name longer than names can be
            if candidate.is_file():
                return str(candidate.resolve())
            if not candidate.is_dir():
                refuse_no_file(candidate)
    known = sorted(str(path.relative_to(gin_folder())) for path in gin_folder().rglob("*.gin"))
    raise UserError(f"--gin_file {name}: no such file, here or in the project's gin folder, which holds {known}")


def settings_by_source() -> dict[str, list[str]]:
    """Return owner -> names of its settings: the fields of the classes that `config.SETTINGS` names."""
    config = parsed("tpu_retinamask.config")
    places = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in config.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    table = next(
        node.value
        for node in config.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "SETTINGS"
    )
    assert isinstance(table, ast.Dict)
    found = {}
    for key, value in zip(table.keys, table.values):
        assert isinstance(key, ast.Constant) and isinstance(value, ast.Name)
        module, kind = places[value.id]
        defined = next(node for node in parsed(module).body if isinstance(node, ast.ClassDef) and node.name == kind)
        found[key.value] = [
            node.target.id
            for node in defined.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        ]
    return found


def refuse_unknown_settings(files: list[str], params: list[str]) -> None:
    """Refuse files that are not there, and misspelt settings of ours; whatever else may be wrong is left to gin.

    Args:
      files: as `--gin_file` gives them; those that they include are looked at too.
      params: as `--gin_param` gives them.

    Raises:
      UserError: names the setting, and what it may be meant as.
    """
    texts, left, known = list(params), [find_gin_file(name) for name in files], settings_by_source()
    seen = set()
    while left:
        path = left.pop()
        if path not in seen:
            seen.add(path)
            texts.append(Path(path).read_text(encoding="utf-8", errors="replace"))
            included = [folder / name for name in _INCLUDE.findall(texts[-1]) for folder in (Path(), gin_folder())]
            left += [str(candidate) for candidate in included if candidate.is_file()]
    for owner, name in (match for text in texts for match in _BINDING.findall(_LONG_TEXT.sub("", text))):
        if owner in known and name not in known[owner]:
            words = f"Configurable '{owner}' doesn't have a parameter named '{name}'"
            raise UserError(f"gin configuration: {words}{advice(words, known)}")
