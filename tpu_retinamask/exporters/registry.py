"""The seat of exporters, and what one is given."""

from collections.abc import Callable
from typing import NamedTuple

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.seats import Seat


class TrainedModel(NamedTuple):
    """A trained model with all that its use takes."""

    model: RetinaMask  # weights restored, the average where the run kept one
    detection_filter: DetectionFilter  # thresholds and suppression
    pipeline: InputPipeline  # its canvas, and how a picture is fitted into it
    classes: ClassNames


# An exporter writes a trained model to a path: a file, or a folder that it creates.
EXPORTERS: Seat[Callable[[TrainedModel, str], None]] = Seat("export format", "tpu_retinamask.exporters")
