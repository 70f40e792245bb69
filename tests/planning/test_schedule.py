"""Steps, averages and evaluations from minutes and the seconds of a step, worked by hand."""

import pytest

from tpu_retinamask.errors import UserError
from tpu_retinamask.planning.schedule import Speed, plan_schedule


def schedule(minutes, step=1.0, first=20.0, spent=40.0, images=100, validation=0):
    speed = Speed(step, first, spent)
    return plan_schedule(minutes, speed, images=images, validation=validation, batch_size=4)


def test_the_steps_fill_the_minutes():
    # 20 minutes less a twentieth, less 40 s that have gone and 20 s of compiling: 1080 s of steps.
    settings = schedule(20).settings
    assert settings["train.steps"] == 1080
    assert settings["train.average_decay"] == pytest.approx(1 - 16 / 1080, abs=1e-4)
    assert "train.evaluate_every" not in settings
    assert schedule(20, step=0.5).settings["train.steps"] == 2160


def test_scoring_takes_its_share_of_the_time():
    # 40 images cost 40 / 4 * 0.5 s a time, and compiling detection half of a step's: 1070 s, of which 4 times 5.
    settings = schedule(20, validation=40).settings
    assert settings["train.steps"] == 1050
    assert settings["train.evaluate_every"] == 263  # the fourth is the last step
    # 2000 images cost 250 s: one time alone keeps to 15 % of the time, or the least there is.
    settings = schedule(20, validation=2000).settings
    assert settings["train.steps"] == settings["train.evaluate_every"] == 820


def test_more_time_than_is_of_use_is_not_used():
    plan = schedule(600, images=8)
    assert plan.settings["train.steps"] == 500  # 200 epochs of 8 images would be 400: the least is 500
    assert "would allow more" in plan.lines[0].reason
    assert schedule(600, images=80).settings["train.steps"] == 4000


def test_short_averages_look_back_on_ten_steps():
    assert schedule(3).settings["train.average_decay"] == 0.9  # of 111 steps
    assert schedule(60_000, images=10**7).settings["train.average_decay"] == 0.9998


def test_too_short_a_time_is_refused_with_one_that_suffices():
    with pytest.raises(
        UserError, match=r"--minutes=1: a step takes 1.0 s here and starting 60 s, so 0 steps"
    ) as caught:
        schedule(1)
    assert "give --minutes=2 or more" in str(caught.value)
    assert schedule(2).settings["train.steps"] == 54


def test_few_epochs_are_told():
    assert any("more minutes would teach more" in one for one in schedule(20, images=1000).unsure)
    assert not any("more minutes" in one for one in schedule(20, images=100).unsure)
