"""RetinaMask instance segmentation as one static-shape XLA program.

    import tpu_retinamask

    tpu_retinamask.train("train.csv", "classes.csv", model_dir="runs/mine",
                         recipe=tpu_retinamask.read_recipe("recipe/small.gin"))
    detector = tpu_retinamask.load("runs/mine")
    for found in detector(["photo.jpg"]):
        print(found.names, found.scores, found.boxes, found.masks.shape)

What stands in `__all__` is loaded when it is first used: importing the package imports no TensorFlow.
"""

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tpu_retinamask.version import __version__

if TYPE_CHECKING:
    from tpu_retinamask.api import load, read_recipe, train
    from tpu_retinamask.data.augment.augmentation import Augmentation
    from tpu_retinamask.data.stream.pipeline import InputPipeline
    from tpu_retinamask.errors import UserError
    from tpu_retinamask.model.losses import Criterion
    from tpu_retinamask.model.postprocess import DetectionFilter
    from tpu_retinamask.model.retinamask import RetinaMask
    from tpu_retinamask.model.settings import NetworkSettings
    from tpu_retinamask.recipe import Recipe
    from tpu_retinamask.tasks.detector import Detector, ImageDetections
    from tpu_retinamask.training.optimizers import OptimizerSettings
    from tpu_retinamask.training.settings import TrainSettings

if find_spec("tensorflow") is None:
    raise ImportError(
        "tpu_retinamask needs a TensorFlow, and none is installed. Choose the one for your machine: "
        "`pip install 'tpu-retinamask[cpu]'`, `[gpu]` or `[tpu]`."
    )

_PLACES = {
    "Augmentation": "data.augment.augmentation",
    "Criterion": "model.losses",
    "DetectionFilter": "model.postprocess",
    "Detector": "tasks.detector",
    "ImageDetections": "tasks.detector",
    "InputPipeline": "data.stream.pipeline",
    "NetworkSettings": "model.settings",
    "OptimizerSettings": "training.optimizers",
    "Recipe": "recipe",
    "RetinaMask": "model.retinamask",
    "TrainSettings": "training.settings",
    "UserError": "errors",
    "load": "api",
    "read_recipe": "api",
    "train": "api",
}

__all__ = [
    "Augmentation",
    "Criterion",
    "DetectionFilter",
    "Detector",
    "ImageDetections",
    "InputPipeline",
    "NetworkSettings",
    "OptimizerSettings",
    "Recipe",
    "RetinaMask",
    "TrainSettings",
    "UserError",
    "__version__",
    "load",
    "read_recipe",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load what `__all__` lists."""
    if name not in _PLACES:
        raise AttributeError(f"module 'tpu_retinamask' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(importlib.import_module(f"tpu_retinamask.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    """List what the package offers."""
    return sorted(__all__)
