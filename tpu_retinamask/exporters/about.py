"""What each exported form says of itself."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from tpu_retinamask.exporters.registry import TrainedModel
from tpu_retinamask.version import __version__


def describe(trained: TrainedModel) -> dict[str, Any]:
    """Return the classes, the canvas, the thresholds, the versions and the checkpoint's digests, as JSON holds them."""
    pipeline, settings = trained.pipeline, trained.model.settings
    return {
        "tpu_retinamask": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "classes": list(trained.classes.names),
        "image_size": list(pipeline.image_size),
        "min_side": pipeline.draw_min_side(None),
        "max_side": pipeline.max_side,
        "antialias": pipeline.antialias,
        "pixel_mode": settings.pixel_mode,
        "mask_size": 2 * settings.roi_size,
        "detection_filter": dataclasses.asdict(trained.detection_filter),
        "checkpoint": dict(trained.checkpoint),
    }
