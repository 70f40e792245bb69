"""The settings of a network: as one object, or one by one, and what they cannot be."""

import dataclasses
import random

import pytest

from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.model.settings import NetworkSettings

SMALL = NetworkSettings(
    backbone="small", normalization="group", fpn_channels=16, head_channels=16, head_depth=1, mask_depth=0
)


def test_single_settings_change_those_of_an_object():
    model = RetinaMask(2, SMALL, fpn_channels=32, pixel_mode="torch")
    assert model.settings == dataclasses.replace(SMALL, fpn_channels=32, pixel_mode="torch")
    assert model.fpn.smooth[0].filters == 32 and model.pixel_mode == "torch"
    assert RetinaMask(2, **dataclasses.asdict(SMALL)).settings == SMALL


def test_a_setting_that_there_is_not_is_told_with_the_nearest():
    with pytest.raises(SettingError, match="RetinaMask has no setting 'fpn_channel'; did you mean 'fpn_channels'"):
        RetinaMask(2, fpn_channel=32)
    with pytest.raises(SettingError, match="RetinaMask has no setting 'xyz': its settings are backbone, .*dtype"):
        RetinaMask(2, xyz=32)


@pytest.mark.parametrize(
    "name, value",
    [
        ("box_coder", "centre"),
        ("pixel_mode", "rgb"),
        ("dtype", "float8"),
        ("mask_upsample", "bilinear"),
        ("head_initializer", "he_norml"),
        ("fpn_channels", 0),
        ("head_depth", -1),
        ("anchor_sizes", (32, 64)),
        ("anchor_ratios", ()),
        ("anchor_scales", (1.0, 0.0)),
        ("backbone", 3),
    ],
)
def test_a_value_that_a_setting_cannot_have_is_refused_by_its_name(name, value):
    with pytest.raises(SettingError, match=f"^{name} "):
        NetworkSettings(**{name: value})


def test_settings_draw_no_random_numbers():
    # Initializers take their seeds from Python's generator: drawing here would start every network from other weights.
    random.seed(3)
    expected = random.random()
    random.seed(3)
    NetworkSettings(head_initializer="he_normal")
    assert random.random() == expected


def test_anchors_without_area_are_refused():
    with pytest.raises(SettingError, match="leaves no whole pixel of a side in a cell of 8 pixels"):
        NetworkSettings(anchor_ratios=(1.0, 300.0), anchor_rounding="cell")
    assert NetworkSettings(anchor_ratios=(1.0, 300.0)).anchor_grid().per_cell == 6
