"""The seat of exporters, and what one is given."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.seats import Seat

PRECISIONS = ("float32", "float16", "int8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What a form may be told beside the model.

    Attributes:
      batch_size: pictures a call, of forms whose shapes are all fixed.
      precision: one of PRECISIONS, of the weights and, in int8, of what the convolutions compute.
      calibration: pictures whose activations set the ranges of int8.
    """

    batch_size: int = 1
    precision: str = "float32"
    calibration: Sequence[AnnotatedImage] = ()


class TrainedModel(NamedTuple):
    """A trained model with all that its use takes."""

    model: RetinaMask  # weights restored, the average where the run kept one
    detection_filter: DetectionFilter  # thresholds and suppression
    pipeline: InputPipeline  # its canvas, and how a picture is fitted into it
    classes: ClassNames
    checkpoint: Mapping[str, Any] = {}  # {"step": its step, "sha256": {name of each file: its digest}}
    settings: ExportSettings = ExportSettings()


# An exporter writes a trained model to a path: a file, or a folder that it creates.
EXPORTERS: Seat[Callable[[TrainedModel, str], None]] = Seat("export format", "tpu_retinamask.exporters")
