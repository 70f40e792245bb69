"""A setting of another type is refused by its name, as people write values in a configuration."""

import dataclasses
from collections.abc import Callable

import pytest

from tpu_retinamask.errors import SettingError, UserError
from tpu_retinamask.setting_types import check_types


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    count: int = 1
    rate: float = 0.5
    rounds: int | None = None
    wide: bool = False
    name: str = "small"
    size: tuple[int, int] = (4, 6)
    sides: int | tuple[int, ...] | None = None
    change: Callable | None = None
    options: dict | None = None
    inner: "Inner | None" = None

    def __post_init__(self):
        check_types(self)


@dataclasses.dataclass(frozen=True)
class Inner:
    x: int = 0


def test_what_people_write_is_taken():
    Settings()
    Settings(rate=1, rounds=3, size=[8, 8], sides=(1, 2, 3), change=len, options={"a": 1}, inner=Inner())
    Settings(sides=7)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"count": 1.5}, "count is 1.5, expected a whole number"),
        ({"count": True}, "count is True, expected a whole number"),
        ({"count": "4"}, "count is '4', expected a whole number"),
        ({"rate": "fast"}, "rate is 'fast', expected a number"),
        ({"rounds": 2.0}, "rounds is 2.0, expected a whole number or None"),
        ({"wide": 1}, "wide is 1, expected True or False"),
        ({"name": None}, "name is None, expected text in quotes"),
        ({"size": 8}, r"size is 8, expected 2 values, each a whole number"),
        ({"size": (8, 8, 8)}, r"size is \(8, 8, 8\), expected 2 values"),
        ({"sides": ("a",)}, "expected a whole number or several values, each a whole number or None"),
        ({"change": "flip"}, "change is 'flip', expected a function or None"),
        ({"inner": {"x": 1}}, "inner is {'x': 1}, expected Inner or None"),
    ],
    ids=str,
)
def test_another_type_is_named_with_what_was_expected(wrong, message):
    with pytest.raises(SettingError, match=message):
        Settings(**wrong)
    assert issubclass(SettingError, UserError)
