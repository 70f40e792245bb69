"""How annotated images are read, by every program that reads them."""

import dataclasses
from typing import Any, Literal

from tpu_retinamask.setting_types import check_types


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """Settings of the reading of annotated images; gin knows them as `source`.

    Attributes:
      on_bad_record: "stop" at entries and files that cannot be used, naming them, or "skip" them, counted.
      exif_orientation: of photographs that say that they lie on their side: "refuse" them, "ignore" it (boxes are meant
        on the stored pixels) or "apply" it (boxes, masks and detections are meant on the upright picture).
      crowds: regions marked as crowds: "leave_out", or take them as "objects".
      repeated_names: two classes of one name: "refuse" them, or "merge" them into one.
      unused_classes: classes that a source names and no object has: "keep" them, or "leave_out".
      allow_empty: go on where a source has no object at all.

    Raises:
      SettingError: a value of another type; names it.
    """

    on_bad_record: Literal["stop", "skip"] = "stop"
    exif_orientation: Literal["refuse", "ignore", "apply"] = "refuse"
    crowds: Literal["leave_out", "objects"] = "leave_out"
    repeated_names: Literal["refuse", "merge"] = "refuse"
    unused_classes: Literal["keep", "leave_out"] = "keep"
    allow_empty: bool = False

    def __post_init__(self) -> None:
        check_types(self)

    def overridden(self, **values: Any) -> "SourceSettings":
        """Return these settings with what a program says itself in place of them; None: nothing said."""
        return dataclasses.replace(self, **{name: value for name, value in values.items() if value is not None})
