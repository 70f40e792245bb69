"""Training samples as the network sees them, changed as training changes them, with their boxes and masks."""

import numpy as np

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.evaluation.pictures import draw_detections
from tpu_retinamask.evaluation.results import paste_window
from tpu_retinamask.structures import Batch


def drawn_sample(batch: Batch, row: int, names: ClassNames) -> np.ndarray:
    """Return a sample of a batch of arrays with its objects drawn over it, uint8 [h, w, 3]; see `draw_detections`."""
    height, width = batch.content_size[row]
    objects = batch.classes[row] >= 0
    boxes, masks = batch.boxes[row][objects], batch.masks[row][objects]
    return draw_detections(
        batch.image[row][:height, :width],
        boxes,
        [paste_window(mask, box, height, width) for mask, box in zip(masks.astype("float32"), boxes.astype("float64"))],
        batch.classes[row][objects],
        None,
        [names.name_of(i) for i in range(names.num_classes)],
    )
