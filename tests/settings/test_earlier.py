"""Runs from before a setting was there keep what they were trained with, and it is said."""

import dataclasses
import logging

import pytest

import tpu_retinamask
from tpu_retinamask import config
from tpu_retinamask.earlier import EARLIER

OLD = "RetinaMask.backbone = 'small'\nRetinaMask.normalization = 'group'\nInputPipeline.antialias = True\n"


@pytest.fixture
def old_run(tmp_path):
    """A model directory whose run knew three settings only."""
    (tmp_path / "config.gin").write_text("RetinaMask.backbone = 'small'\n")
    (tmp_path / "operative_config.gin").write_text(OLD)
    return str(tmp_path)


def test_each_is_a_setting_with_another_default_today():
    for name, value in EARLIER.items():
        settings, field = name.split(".")
        (found,) = [f for f in dataclasses.fields(config.SETTINGS[settings]) if f.name == field]
        assert type(found.default) is type(value) and found.default != value, name


@pytest.mark.parametrize("as_a_run_that_goes_on", [False, True])
def test_an_old_run_keeps_what_it_had(old_run, as_a_run_that_goes_on, caplog):
    caplog.set_level(logging.INFO)
    if as_a_run_that_goes_on:
        config.parse_gin(["recipe/small.gin"], ["Criterion.mask_average = 'regions'"], resumed=old_run)
    else:
        config.parse_gin([], ["Criterion.mask_average = 'regions'"], model_dir=old_run)
    recipe = config.recipe()
    assert (recipe.network.padding, recipe.network.mask_padding) == ("same", False)
    assert recipe.optimizer.rate_in_momentum and recipe.criterion.best_match_ties == "all"
    assert recipe.pipeline.antialias  # which it knew
    assert recipe.criterion.mask_average == "regions"  # what is asked for wins
    assert "started before there were the settings RetinaMask.padding, RetinaMask.mask_padding" in caplog.text
    assert "InputPipeline.antialias" not in caplog.text


def test_a_run_of_today_and_none_at_all_have_the_defaults(old_run, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    new = tmp_path / "new"
    new.mkdir()
    config.parse_gin([], [], resumed=str(new))
    recipe = config.recipe()
    assert recipe == tpu_retinamask.Recipe()
    for name, text in config.config_files().items():
        (new / name).write_text(text)
    config.parse_gin([], [], resumed=str(new))
    assert config.recipe() == recipe and config.with_earlier(recipe, str(new)) == recipe
    assert "started before" not in caplog.text


def test_a_recipe_made_in_python_keeps_it_too(old_run):
    given = tpu_retinamask.Recipe(network=tpu_retinamask.NetworkSettings(padding="same", normalization="batch"))
    kept = config.with_earlier(given, old_run)
    assert kept.network == dataclasses.replace(given.network, mask_padding=False)
    assert kept.criterion.mask_average == "images" and kept.pipeline == given.pipeline
