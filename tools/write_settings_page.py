"""Write docs/settings.md: every setting with its default and its meaning, from the docstrings of the code.

python tools/write_settings_page.py        a test fails where the page is not what this writes
"""

import dataclasses
import importlib
import inspect
import pathlib
import re

from tpu_retinamask import config

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "settings.md"
ABOUT = {
    "RetinaMask": "The network",
    "Criterion": "Targets and losses",
    "DetectionFilter": "From outputs to detections",
    "InputPipeline": "From pictures to batches",
    "source": "How annotations and pictures are read",
    "Augmentation": "What training changes in each picture",
    "make_optimizer": "Optimizer and schedule",
    "train": "The course of a training",
    "report": "How much a report shows",
}
HEAD = """# Settings

All that gin sets, by the names that `--gin_param="train.epochs = 12"` and gin files take. Model and recipe files change
some of these defaults: `MODEL_DIR/operative_config.gin` says what was in force. Types and ranges are checked before
anything is read; a name that there is not is answered with the nearest that there is.

This page is written by `tools/write_settings_page.py` from the code.
"""


def described(docstring: str, section: str) -> dict[str, str]:
    """Return the texts of a docstring's section by the names that it explains, each on one line."""
    lines = inspect.cleandoc(docstring).splitlines()
    if f"{section}:" not in lines:
        return {}
    found, name = {}, ""
    for line in lines[lines.index(f"{section}:") + 1 :]:
        if not line.startswith("  "):
            break
        if match := re.match(r"  (\w+): (.*)", line):
            name = match[1]
            found[name] = match[2]
        elif name:
            found[name] += " " + line.strip()
    return found


def _first_line(docstring: str) -> str:
    return inspect.cleandoc(docstring).splitlines()[0]


def _row(owner: str, name: str, default: object, text: str) -> str:
    value = repr(default).replace("|", "\\|")
    return f"| `{owner}.{name}` | `{value}` | {text[:1].upper()}{text[1:]} |".replace("  ", " ")


def _table(title: str, intro: str, rows: list[str]) -> str:
    return "\n".join([f"## {title}", "", intro, "", "| setting | default | meaning |", "|---|---|---|", *rows, ""])


def page() -> str:
    """Return the whole page."""
    tables = []
    for owner, settings in config.SETTINGS.items():
        texts = described(settings.__doc__ or "", "Attributes")
        fields = [field for field in dataclasses.fields(settings) if field.init]
        rows = [_row(owner, field.name, field.default, texts[field.name]) for field in fields]
        tables.append(_table(f"{ABOUT[owner]}: `{owner}`", _first_line(settings.__doc__ or ""), rows))
    for program in config.PROGRAMS:
        function = getattr(importlib.import_module(f"tpu_retinamask.programs.{program}"), program)
        texts = described(function.__doc__ or "", "Args")
        parameters = inspect.signature(function).parameters.values()
        given = [one for one in parameters if one.default is not one.empty and not callable(one.default)]
        rows = [_row(program, one.name, one.default, texts[one.name]) for one in given]
        tables.append(_table(f"The program `{program}`", _first_line(function.__doc__ or ""), rows))
    return "\n".join([HEAD, *tables])


if __name__ == "__main__":
    PAGE.write_text(page())
