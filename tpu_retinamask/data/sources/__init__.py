"""Where annotated images come from: kinds of sources by name, and the one place that opens them.

Those of the project take their seats here.
"""

from tpu_retinamask.data.sources import (  # noqa: F401
    coco_source,
    csv_source,
    cvat_source,
    labelme_source,
    labelstudio_source,
    supervisely_source,
    via_source,
    voc_source,
    yolo_source,
)
