"""The average of the weights: by hand, put in place and taken out, saved and loaded for prediction."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.errors import UserError
from tpu_retinamask.tasks import inference
from tpu_retinamask.training.checkpoints.state import TrainState
from tpu_retinamask.training.weight_average import WeightAverage, load_average, moving_variables


class _Layers(keras.Model):
    """A convolution, a normalisation that moves and one that is frozen."""

    def __init__(self):
        super().__init__(name="layers")
        self.conv = keras.layers.Conv2D(2, 1, name="conv")
        self.norm = keras.layers.BatchNormalization(name="norm")
        self.frozen = keras.layers.BatchNormalization(trainable=False, name="frozen")
        self(tf.zeros([1, 2, 2, 2]))

    def call(self, x, training=False):
        return self.frozen(self.norm(self.conv(x), training=training), training=training)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_updates_by_hand(jit_compile):
    model = _Layers()
    average = WeightAverage(model, 0.25)
    kernel, bias = model.conv.kernel, "layers/conv/bias"

    @tf.function(jit_compile=jit_compile, autograph=False)
    def update(done):
        average.update(done)

    # d of the updates: 0 (weights taken whole), 2/11, 3/12 and then min(0.25, 4/13) = 0.25.
    expected = 0.0
    for done, value, decay in ((1, 8.0, 0.0), (2, 4.0, 2 / 11), (3, 1.0, 0.25), (4, 2.0, 0.25), (500, 3.0, 0.25)):
        kernel.assign(tf.fill(kernel.shape, value))
        update(tf.constant(done, tf.int64))
        expected = decay * expected + (1 - decay) * value
        np.testing.assert_allclose(average.variables["layers/conv/kernel"], np.full(kernel.shape, expected), rtol=1e-6)
    assert not average.variables[bias].numpy().any()  # as the bias, which stayed 0


def test_what_is_averaged():
    names = {variable.path.split("/", 1)[1] for variable in moving_variables(_Layers())}
    assert names == {"conv/kernel", "conv/bias", "norm/gamma", "norm/beta", "norm/moving_mean", "norm/moving_variance"}


def test_frozen_layers_are_not_averaged(small_model):
    model = small_model(normalization="batch", freeze=("backbone",))
    paths = [variable.path for variable in moving_variables(model)]
    assert paths and not any("/backbone/" in path for path in paths)


def test_in_place_and_back_to_the_bit(small_model):
    model = small_model(normalization="batch")
    average = WeightAverage(model, 0.5)
    for variable in average.variables.values():
        variable.assign(variable + 1.0)
    before = [variable.numpy() for variable in model.variables]
    with average.in_place():
        for variable in model.variables:
            np.testing.assert_array_equal(variable.numpy(), average.variables[variable.path].numpy())
    assert all(old.tobytes() == variable.numpy().tobytes() for old, variable in zip(before, model.variables))
    with pytest.raises(KeyError), average.in_place():
        raise KeyError  # an evaluation that fails must not leave the averages behind
    assert all(old.tobytes() == variable.numpy().tobytes() for old, variable in zip(before, model.variables))


@pytest.mark.parametrize("decay", [0.0, 1.0, 2.0])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(UserError, match="average_decay is .*between 0 and 1"):
        WeightAverage(_Layers(), decay)


def _saved(tmp_path, small_model, built_optimizer, averaging):
    """A model directory; returns the model and its average."""
    (tmp_path / "classes.csv").write_text("a,0\nb,1\nc,2\n")
    model = small_model(normalization="batch")
    optimizer = built_optimizer(model)
    average = WeightAverage(model, 0.5)
    for variable in average.variables.values():
        variable.assign(variable + 1.0)
    optimizer.iterations.assign(3)
    extra = {"average": average.variables} if averaging else None
    TrainState(str(tmp_path), model, optimizer, extra=extra).save()
    return model, average, optimizer


@pytest.mark.ci
def test_load_model_takes_the_average_unless_told_otherwise(tmp_path, small_model, built_optimizer):
    model, average, _ = _saved(tmp_path, small_model, built_optimizer, True)
    assert read_classes(str(tmp_path / "classes.csv")).num_classes == 3

    def build(num_classes):
        return small_model(num_classes, normalization="batch")

    averaged, _ = inference.load_model(str(tmp_path), build, (64, 64))
    last, _ = inference.load_model(str(tmp_path), build, (64, 64), averaged=False)
    for one, two, three in zip(model.variables, averaged.variables, last.variables):
        np.testing.assert_array_equal(two.numpy(), average.variables[one.path].numpy())
        np.testing.assert_array_equal(three.numpy(), one.numpy())


@pytest.mark.ci
def test_a_run_without_an_average_is_loaded_as_it_is(tmp_path, small_model, built_optimizer):
    model, _, _ = _saved(tmp_path, small_model, built_optimizer, False)
    other = small_model(normalization="batch")
    assert not load_average(other, str(tmp_path / "checkpoints" / "ckpt-3"))
    loaded, _ = inference.load_model(str(tmp_path), lambda n: small_model(n, normalization="batch"), (64, 64))
    assert all(np.array_equal(one.numpy(), two.numpy()) for one, two in zip(model.variables, loaded.variables))


def test_the_average_comes_back_to_the_bit(tmp_path, small_model, built_optimizer):
    _, average, optimizer = _saved(tmp_path, small_model, built_optimizer, True)
    again = small_model(normalization="batch")
    fresh = WeightAverage(again, 0.5)
    state = TrainState(str(tmp_path), again, built_optimizer(again), extra={"average": fresh.variables})
    assert state.restore() == int(optimizer.iterations)
    for path, variable in average.variables.items():
        assert fresh.variables[path].numpy().tobytes() == variable.numpy().tobytes()


def test_an_average_that_is_not_finite_is_refused_and_leaves_the_weights(tmp_path):
    model = _Layers()
    average = WeightAverage(model)
    before = model.conv.kernel.numpy()
    average.variables["layers/conv/kernel"].assign(tf.fill(model.conv.kernel.shape, np.inf))
    state = TrainState(str(tmp_path), model, extra={"average": average.variables})
    path = state.files.write(state.checkpoint, 5)
    with pytest.raises(UserError, match="layers/conv/kernel: 4 of 4 numbers"):
        load_average(model, path)
    np.testing.assert_array_equal(model.conv.kernel.numpy(), before)
