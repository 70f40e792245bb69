"""COCO results of all scores, which `evaluate --predictions` and pycocotools read."""

import os

from tpu_retinamask.evaluation.results import RESULTS_FILE, write_results
from tpu_retinamask.prediction_formats.registry import FORMATS, Output, PredictedPicture


@FORMATS.register("coco")
class CocoResults:
    """`predictions.json`: a list of results with run lengths of the whole picture."""

    def __init__(self, output: Output) -> None:
        """Take where to."""
        self.path = os.path.join(output.folder, RESULTS_FILE)
        self.results: list[dict] = []

    def add(self, picture: PredictedPicture) -> None:
        """Keep the results of a picture."""
        self.results.extend(picture.results)

    def finish(self) -> None:
        """Write the file."""
        write_results(self.path, self.results)
