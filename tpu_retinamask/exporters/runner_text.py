"""The text of a `run.py`: one file that imports nothing of ours."""

import ast
import importlib.resources

_FITTING = "tpu_retinamask.exporters.runners.fitting"


def runner_text(name: str) -> bytes:
    """Return the program that runs a form: `runners/fitting.py`, then `runners/NAME.py` without its import of that."""
    folder = importlib.resources.files("tpu_retinamask.exporters.runners")
    fitting, own = (folder.joinpath(f"{part}.py").read_text(encoding="utf-8") for part in ("fitting", name))
    says = ast.get_docstring(ast.parse(own))
    kept = [line for line in own.splitlines() if not line.startswith(f"from {_FITTING} ")]
    body = "\n".join(kept).split('"""', 2)[2]
    return f'"""{says}"""\n{fitting.split(chr(34) * 3, 2)[2]}\n\n{body.strip()}\n'.encode()
