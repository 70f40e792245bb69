"""The settings of a training: checked when they are made, and what follows from them."""

import pytest

from tpu_retinamask.errors import SettingError
from tpu_retinamask.training.settings import TrainSettings


def test_steps_follow_from_epochs_images_and_the_batch():
    assert TrainSettings(epochs=24).total_steps(images=57, batch_size=8) == 171
    assert TrainSettings(epochs=0.01).total_steps(images=57, batch_size=8) == 1  # never none
    assert TrainSettings(steps=90, epochs=24).total_steps(images=57, batch_size=8) == 90
    # 180000 steps of 8 images are 45000 of 32.
    assert TrainSettings(steps=180_000, reference_batch=8).total_steps(images=57, batch_size=32) == 45_000


def test_the_batch_follows_from_the_replicas_where_it_is_given_for_one():
    assert TrainSettings(batch_size=8).batch_on(4) == 8
    assert TrainSettings(batch_size=8, images_per_replica=4).batch_on(8) == 32


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"batch_size": 0}, "batch_size is 0, expected more than 0"),
        ({"epochs": -1.0}, "epochs is -1.0, expected more than 0"),
        ({"accumulate_steps": 0}, "accumulate_steps is 0, expected more than 0"),
        ({"log_every": 0}, "log_every is 0"),
        ({"steps": -5}, "steps is -5, expected more than 0"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0, expected more than 0, or None"),
        ({"average_decay": 1.0}, "average_decay is 1.0, expected a number between 0 and 1"),
        ({"on_bad_record": "leave"}, "on_bad_record is 'leave', expected one of 'stop', 'skip' or None"),
        ({"batch_size": "8"}, "batch_size is '8', expected a whole number"),
        ({"transform": "flip"}, "transform is 'flip', expected a function or None"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_named(wrong, message):
    with pytest.raises(SettingError, match=message):
        TrainSettings(**wrong)
