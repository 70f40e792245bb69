"""How much a report shows; gin knows it as `report`."""

import dataclasses

from tpu_retinamask.setting_types import check_between, check_types, named


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """How much `evaluate --report` and `inspect_data --report` show.

    Attributes:
      pictures: pictures with truth and detections side by side, the worst first; samples as the network sees them.
      crops: objects of each kind of mistake, and masks that look wrong.
      side: longer side of a picture in pixels; of a crop a quarter of it.

    Raises:
      SettingError: a value of another type or out of its range.
    """

    pictures: int = 24
    crops: int = 24
    side: int = 640

    def __post_init__(self) -> None:
        check_types(self)
        check_between(named(self, "pictures", "crops"), 0, 1000)
        check_between(named(self, "side"), 64, 4096)
