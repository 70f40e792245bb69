"""The file of the thresholds that are best for F1: written of an evaluation, read by `predict` and `export`."""

import json
from collections.abc import Mapping
from typing import Any

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.errors import UserError, listed, read_as
from tpu_retinamask.evaluation.report import Metrics
from tpu_retinamask.files import json_text, read_text

THRESHOLDS_FILE = "thresholds.json"
MADE_BY = "tpu_retinamask evaluate"
WITHOUT = 0.5  # least score where an evaluation found nothing at all


def least_scores(metrics: Metrics) -> list[float]:
    """Return the score of each class from which its detections count: its best, or that of all, or 0.5."""
    of_all = metrics.best.score if metrics.best else WITHOUT
    return [row.best.score if row.best else of_all for row in metrics.per_class]


def thresholds_json(metrics: Metrics) -> str:
    """Return the file: the best threshold of each class, null where it has none, and one for all."""
    kind = "masks" if "segm" in metrics.overall else "boxes"
    content = {
        "made_by": MADE_BY,
        "meaning": f"least score of an object, best for F1 of {kind} at IoU 0.5; null: that of `all`",
        "all": metrics.best.score if metrics.best else None,
        "classes": {
            name: row.best.score if row.best else None for name, row in zip(metrics.class_keys(), metrics.per_class)
        },
    }
    return json_text(content, indent=1) + "\n"


def is_thresholds(text: str) -> bool:
    """Tell whether a file's text is of `thresholds_json`, by whomever it was edited since."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, Mapping) and content.get("made_by") == MADE_BY


def read_thresholds(path: str, classes: ClassNames) -> tuple[float, ...]:
    """Return the least score of each class, by class id.

    Args:
      path: of a file as `thresholds_json` writes it.
      classes: of the model; the file must have all of them by name, and no others.

    Raises:
      FileNotFoundError: there is none.
      UserError: it is another file, names other classes, or has no number from 0 to 1 for one of them.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"--thresholds={path}: {_expected(f'no JSON: {error}')}") from error
    found = content.get("classes") if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not isinstance(found, Mapping):
        raise UserError(f"--thresholds={path}: {_expected('no object with `classes`')}")
    known = classes.ids
    faults = [f"{read_as(name)}: expected {classes.expected(name)}" for name in found if name not in known]
    faults += [f"{read_as(name)} is not among them" for name in known if name not in found]
    if faults:
        raise UserError(
            f"--thresholds={path} is of other classes than the model's {classes.num_classes}: evaluate this model with "
            f"--report, or correct the file:\n{listed(faults)}"
        )
    of_all = _score(path, "all", content.get("all"))
    scores = {name: _score(path, name, value) for name, value in found.items()}
    lacking = [name for name, score in scores.items() if score is None and of_all is None]
    if lacking:
        raise UserError(
            f"--thresholds={path} has null for {read_as(lacking[0])} and for `all`: nothing of it was found in the "
            "evaluation; write a number from 0 to 1"
        )
    fallback = WITHOUT if of_all is None else of_all  # of null, and of an id that no class has
    chosen = {name: fallback if score is None else score for name, score in scores.items()}
    return tuple(fallback if name is None else chosen[name] for name in classes.names)


def _score(path: str, name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(
            f"--thresholds={path}: {read_as(name)}: got {read_as(str(value))}, expected a number from 0 to 1, or null"
        )
    return float(value)


def _expected(got: str) -> str:
    return f"got {got}; expected the {THRESHOLDS_FILE} that evaluate --report writes"
