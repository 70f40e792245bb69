"""How annotated images are read, by every program that reads them."""

import dataclasses
from typing import Any, Literal

from tpu_retinamask.data.pixel_reading import PixelReading
from tpu_retinamask.errors import SettingError
from tpu_retinamask.setting_types import check_least, check_types, named


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """Settings of the reading of annotated images; gin knows them as `source`.

    Attributes:
      on_bad_record: "stop" at entries and files that cannot be used, naming them, or "skip" them, counted.
      exif_orientation: of photographs that say that they lie on their side: "refuse" them, "ignore" it (boxes are meant
        on the stored pixels) or "apply" it (boxes, masks and detections are meant on the upright picture).
      value_range: (low, high): the stored values of pictures of more than 8 bits a channel that become black and white;
        None: all that the bits can hold.
      pages: of a TIFF or WebP file of several pictures: "refuse" it, or take the "first".
      max_pixels: of a picture; one whose header declares more is refused before it is decoded.
      crowds: regions marked as crowds: "leave_out", or take them as "objects".
      repeated_names: two classes of one name: "refuse" them, or "merge" them into one.
      unused_classes: classes that a source names and no object has: "keep" them, or "leave_out".
      allow_empty: go on where a source has no object at all.

    Raises:
      SettingError: a value of another type, or out of its range; names it.
    """

    on_bad_record: Literal["stop", "skip"] = "stop"
    exif_orientation: Literal["refuse", "ignore", "apply"] = "refuse"
    value_range: tuple[float, float] | None = None
    pages: Literal["refuse", "first"] = "refuse"
    max_pixels: int = PixelReading().max_pixels
    crowds: Literal["leave_out", "objects"] = "leave_out"
    repeated_names: Literal["refuse", "merge"] = "refuse"
    unused_classes: Literal["keep", "leave_out"] = "keep"
    allow_empty: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_least(named(self, "max_pixels"), 1)
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise SettingError(f"value_range is {self.value_range}, expected (low, high) with low < high")

    @property
    def pixels(self) -> PixelReading:
        """Return how the pixels of image files are read."""
        value_range = None if self.value_range is None else (self.value_range[0], self.value_range[1])
        return PixelReading(value_range, self.pages, self.max_pixels)

    def overridden(self, **values: Any) -> "SourceSettings":
        """Return these settings with what a program says itself in place of them; None: nothing said."""
        return dataclasses.replace(self, **{name: value for name, value in values.items() if value is not None})
