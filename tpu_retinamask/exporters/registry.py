"""The seat of exporters, and what one is given."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.seats import Seat


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What a form may be told beside the model.

    Attributes:
      batch_size: pictures a call, of forms whose shapes are all fixed.
      precision: "float32" or "float16", in which the weights are kept.
    """

    batch_size: int = 1
    precision: str = "float32"

    def check_float32(self, form: str) -> None:
        """Refuse another precision, for a form that has none.

        Raises:
          SettingError: names it.
        """
        if self.precision != "float32":
            raise SettingError(
                f"export.precision is {self.precision!r}, which tflite has; {form} is written in float32 alone"
            )


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
