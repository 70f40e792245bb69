"""A name that is no setting is refused with what was meant, as a flag that works when it is pasted."""

import re

import gin
import pytest

from tpu_retinamask import config
from tpu_retinamask.errors import UserError
from tpu_retinamask.programs import evaluate, predict  # noqa: F401  # gin knows them from now on


@pytest.fixture(autouse=True)
def no_settings():
    """Leave gin as it was found."""
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.mark.parametrize(
    "typed, proposed",
    [
        ("on_bad_record='skip'", "--gin_param=\"source.on_bad_record='skip'\""),
        ("on_bad_record = 'skip'", "--gin_param=\"source.on_bad_record='skip'\""),
        ("exif_orientation='apply'", ": write --gin_param=\"source.exif_orientation='apply'\""),
        ("exif_orientaton='apply'", "--gin_param=\"source.exif_orientation='apply'\""),
        ("image_size=(128, 128)", '--gin_param="InputPipeline.image_size=(128, 128)"'),
        ("batch_size=4", '--gin_param="predict.batch_size=4"'),
        ("draw_above=0.2", ': write --gin_param="predict.draw_above=0.2"'),
    ],
)
def test_a_bare_name_is_refused_with_the_flag_that_is_meant(typed, proposed):
    with pytest.raises(UserError, match="sets nothing") as error:
        config.parse_gin([], [typed])
    assert proposed in str(error.value)
    # What is proposed works.
    flags = re.findall(r'--gin_param="([^"]*)"', str(error.value))
    assert flags[0] == typed and len(flags) > 1
    for flag in flags[1:]:
        config.parse_gin([], [flag])
        assert flag.split("=")[0].strip() in gin.config_str()


@pytest.mark.parametrize(
    "typed, slip",
    [
        ("train.steps = 10**3", "Expected newline."),
        ("train.steps = (4", "Expected ',' or ')'"),
        ("train.on_bad_record = skip", "no value; text stands in quotes"),
        ("train.steps", "Couldn't parse statement"),
    ],
)
def test_a_slip_of_gins_grammar_is_told_with_the_setting_that_has_it(typed, slip):
    with pytest.raises(UserError) as error:
        config.parse_gin([], ["train.batch_size = 2", typed, "train.seed = 1"])
    assert str(error.value).startswith(f'--gin_param="{typed}": {slip}') and "(line" not in str(error.value)


def test_a_setting_of_several_owners_is_listed_with_all_of_them():
    with pytest.raises(UserError) as error:
        config.parse_gin([], ["batch_size=4"])
    found = [line.strip() for line in str(error.value).splitlines() if line.startswith("  ")]
    wanted = [f'--gin_param="{owner}.batch_size=4"' for owner in ("train", "evaluate", "predict")]
    assert [one for one in found if one in wanted] == wanted
    assert not any("source" in one or "RetinaMask" in one for one in found)


def test_a_macro_that_is_used_is_one(tmp_path):
    (tmp_path / "mine.gin").write_text("include 'recipe/small.gin'\ntrain.steps = %steps\n")
    config.parse_gin([str(tmp_path / "mine.gin")], ["steps = 7"])
    assert config.TrainSettings().steps == 7
    config.parse_gin([], ["many = 9", "train.steps = %many"])
    assert config.TrainSettings().steps == 9


def test_a_macro_that_only_the_setting_of_another_program_uses_is_one(tmp_path):
    (tmp_path / "mine.gin").write_text("tpu_check.replicas = %cores\n")
    (tmp_path / "outer.gin").write_text(f"include '{tmp_path}/mine.gin'\n")
    config.parse_gin([str(tmp_path / "outer.gin")], ["cores = 2"])


@pytest.mark.parametrize(
    "typed, proposed",
    [
        ("InputPipeline.exif_orientation='apply'", "did you mean source.exif_orientation?"),
        ("train.exif_orientation='apply'", "did you mean source.exif_orientation?"),
        ("predict.exif_orientation='apply'", "did you mean source.exif_orientation?"),
        ("evaluate.draw_above=0.3", "did you mean predict.draw_above?"),
        ("train.bach_size=3", "did you mean train.batch_size?"),
        ("sorce.on_bad_record='skip'", "did you mean source?"),
        ("Nothing.x=1", "there are RetinaMask, Criterion"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_right_one(typed, proposed):
    with pytest.raises(UserError) as error:
        config.parse_gin([], [typed])
    assert str(error.value).endswith(proposed) or proposed in str(error.value)
    assert typed.split("=")[0].split(".")[0] in str(error.value)


def test_former_names_go_on_to_work():
    config.parse_gin([], ["train.on_bad_record = 'skip'", "source.exif_orientation = 'apply'"])
    assert config.reading().on_bad_record == "skip" and config.reading().exif_orientation == "apply"
    assert config.reading(on_bad_record="stop").on_bad_record == "stop"  # the program's own wins
    config.parse_gin([], ["source.on_bad_record = 'skip'"])
    assert config.reading().on_bad_record == "skip"
