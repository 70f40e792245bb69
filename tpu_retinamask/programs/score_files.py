"""What evaluate writes: metrics.json and, of a model, predictions.json beside it; both of one run, or neither.

So are the report and the thresholds that --report asks for.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator

import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.evaluation.class_thresholds import THRESHOLDS_FILE, is_thresholds, thresholds_json
from tpu_retinamask.evaluation.picture_folder import files_of
from tpu_retinamask.evaluation.report import Metrics, metrics_json
from tpu_retinamask.evaluation.results import RESULTS_FILE
from tpu_retinamask.files import WriteError, holds_nothing, json_text, read_head, read_text, write_together
from tpu_retinamask.holding import held_file
from tpu_retinamask.reports.page import MARK, REPORT_FILE

log = logging.getLogger(__name__)


class ScoreFiles:
    """Where the scores of a run go."""

    def __init__(self, metrics: str, predictions: str) -> None:
        """Note the paths."""
        self.metrics, self.predictions = metrics, predictions
        folder = os.path.dirname(metrics)
        self.report, self.thresholds = os.path.join(folder, REPORT_FILE), os.path.join(folder, THRESHOLDS_FILE)

    def write(self, metrics: Metrics, results: list[dict] | None = None, report: str | None = None) -> None:
        """Write the metrics, and the results where there are some; with a report the thresholds as well.

        Raises:
          WriteError: they cannot be written.
        """
        contents = []
        if report is not None:
            contents += [(self.report, report), (self.thresholds, thresholds_json(metrics))]
        contents.append((self.metrics, metrics_json(metrics)))
        if results is not None:
            contents.append((self.predictions, json_text(results)))
        write_together(contents)
        log.info("wrote %s", self.metrics)
        if report is not None:
            log.info("wrote %s; open it in a browser", self.report)


@contextlib.contextmanager
def held(metrics: str, *, model_dir: str | None = None, report: bool = False) -> Iterator[ScoreFiles]:
    """Hold the files of an evaluation, before anything is worked out for them.

    A folder that cannot be written is told by the write itself: what was scored is printed before.

    Args:
      metrics: path of the metrics; those of an earlier evaluation are replaced.
      model_dir: of the model that is scored, whose results are written too; None: results that are there are scored.
      report: a report and thresholds are written, too.

    Raises:
      HeldError: another evaluation writes them.
      UserError: what is there is not of an evaluation.
    """
    predictions = os.path.join(os.path.dirname(metrics), RESULTS_FILE)
    files = ScoreFiles(metrics, predictions)
    with contextlib.ExitStack() as holding:
        paths = [metrics, *([predictions] if model_dir else []), *([files.report, files.thresholds] if report else [])]
        for path in paths:
            with contextlib.suppress(WriteError):
                holding.enter_context(held_file(path, "evaluate", "--metrics"))
        ours = _ours(metrics)
        if model_dir:
            _refuse_other_results(predictions, ours or _same(os.path.dirname(metrics), model_dir))
        if report:
            refuse_other_report(files.report, "--metrics=FOLDER/metrics.json")
            _refuse_other_thresholds(files.thresholds)
        yield files


def _ours(path: str) -> bool:
    """Tell whether metrics of an earlier evaluation are there.

    Raises:
      UserError: something else is.
    """
    if not tf.io.gfile.exists(path) or holds_nothing(path):
        return False
    try:
        found = json.loads(read_text(path))
    except (UserError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or "ground_truths" not in found:
        raise UserError(
            f"{path} is there already, and holds no metrics: it is kept; say where they go by another --metrics"
        )
    return True


def _refuse_other_results(path: str, ours: bool) -> None:
    folder = os.path.dirname(path) or "."
    if files_of(os.path.join(folder, "images.json")) is not None:
        raise UserError(
            f"{folder} holds what predict wrote: it is kept; say where the results go by --metrics=FOLDER/metrics.json"
        )
    if not ours and not holds_nothing(path):
        raise UserError(
            f"{path} is there already, and no evaluation's metrics beside it: it is kept; say where the results go by "
            "--metrics=FOLDER/metrics.json"
        )


def refuse_other_report(path: str, flag: str) -> None:
    """Refuse to replace a file that is no report of ours.

    Args:
      path: of the report that is to be written.
      flag: by which it would go elsewhere.

    Raises:
      UserError: there is one.
    """
    if not holds_nothing(path) and read_head(path, len(MARK)) != MARK:
        raise UserError(f"{path} is there already, and is no report of ours: it is kept; say another place by {flag}")


def _refuse_other_thresholds(path: str) -> None:
    if not holds_nothing(path) and not is_thresholds(read_text(path)):
        raise UserError(
            f"{path} is there already, and no evaluation wrote it: it is kept; say another place by "
            "--metrics=FOLDER/metrics.json"
        )


def _same(folder: str, other: str) -> bool:
    return os.path.realpath(folder) == os.path.realpath(other)
