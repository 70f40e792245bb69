"""Where annotated images come from: kinds of sources by name, and the one place that opens them.

Those of the project take their seats here.
"""

from tpu_retinamask.data.sources import coco_source, csv_source  # noqa: F401
