"""Our own checkpoints as the start of another run, with the same classes or others."""

import re
import tempfile

import numpy as np
import pytest
import tensorflow as tf
from reference.small_runs import scramble, small_run

from tpu_retinamask.pretrained import load
from tpu_retinamask.pretrained.faults import WeightsError
from tpu_retinamask.training.checkpoints.keys import variable_key, variable_of
from tpu_retinamask.training.checkpoints.state import TrainState


@pytest.mark.ci
def test_another_number_of_classes_starts_only_the_last_layers_anew(tmp_path):
    source, optimizer = small_run(num_classes=5, seed=1)
    optimizer.iterations.assign(40)
    TrainState(str(tmp_path), source, optimizer).save()
    model, fresh = small_run(num_classes=2, seed=2)
    before = {variable.path: variable.numpy() for variable in model.variables}
    with pytest.raises(WeightsError, match=r"pyramid_classification: the source has bias \[45\]"):
        load.load_weights(model, str(tmp_path))

    report = load.load_weights(model, str(tmp_path), skip_mismatched=True)
    assert sorted(report.mismatched) == ["pyramid_classification", "roi_mask"]
    assert not (report.missing or report.unused or report.ignored)
    assert report.source == str(tmp_path / "checkpoints" / "ckpt-40")
    saved = {variable.path: variable.numpy() for variable in source.variables}
    kept = [path for path in before if path.split("/")[-2] in report.mismatched]
    assert len(kept) == 4  # kernel and bias of two layers
    for variable in model.variables:
        expected = before if variable.path in kept else saved
        np.testing.assert_array_equal(variable.numpy(), expected[variable.path], err_msg=variable.path)
    assert int(fresh.iterations) == 0  # a fresh run: only the model's weights came over


def test_one_checkpoint_of_several_can_be_named(tmp_path):
    model, optimizer = small_run(num_classes=2, seed=3)
    state = TrainState(str(tmp_path), model, optimizer)
    first = [variable.numpy() for variable in model.variables]
    path = state.save()
    optimizer.iterations.assign(9)
    scramble(model, optimizer, seed=4)
    second = [variable.numpy() for variable in model.variables]
    state.save()
    for source, expected in ((path, first), (str(tmp_path), second), (str(tmp_path / "checkpoints"), second)):
        scramble(model, optimizer, seed=5)
        load.load_weights(model, source)
        for variable, value in zip(model.variables, expected):
            np.testing.assert_array_equal(variable.numpy(), value)


def test_checkpoint_of_something_else_is_refused(tmp_path):
    path = tf.train.Checkpoint(a=tf.Variable(1.0)).save(str(tmp_path / "other"))
    with pytest.raises(WeightsError, match=f"^{re.escape(path)} was not written by train"):
        load.load_weights(small_run(num_classes=2, seed=0)[0], path)


def test_every_path_is_found_again_in_its_key():
    for path in ("retinamask/backbone/conv1/kernel", "a.b/c", "a./S", "a.S/b", "..", "S/.S."):
        variables = {path: tf.Variable(1.0)}
        checkpoint = tf.train.Checkpoint(model=variables)
        assert variable_of(variable_key("model", path)) == ("model", path)
        if "/" in path[1:-1]:  # and TensorFlow itself names it so
            with tempfile.TemporaryDirectory() as folder:
                saved = checkpoint.write(f"{folder}/one")
                assert tf.train.load_checkpoint(saved).has_tensor(variable_key("model", path))
    assert variable_of("save_counter/.ATTRIBUTES/VARIABLE_VALUE") is None
