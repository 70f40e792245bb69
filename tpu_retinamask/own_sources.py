"""The project's own modules as syntax trees: what they say can be told without importing them, and TensorFlow."""

import ast
import importlib.resources


def parsed(module: str) -> ast.Module:
    """Return the syntax tree of a module of ours.

    Args:
      module: its dotted name, such as "tpu_retinamask.programs.train".
    """
    package, *folders, name = module.split(".")
    file = importlib.resources.files(package).joinpath("/".join([*folders, f"{name}.py"]))
    return ast.parse(file.read_text(encoding="utf-8"))
