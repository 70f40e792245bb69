"""Rates worked by hand, and weight decay that leaves biases and normalisation alone."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.optimizers import DECAYS, OPTIMIZERS, StepDecay, WarmUp, make_optimizer
from tpu_retinamask.training.step import make_train_step


def _rates(optimizer, steps):
    rates = []
    for step in steps:
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    return rates


def test_warm_up_rises_from_a_third_in_a_straight_line():
    optimizer = make_optimizer(1000, learning_rate=0.3, warmup_steps=10, decay="constant")
    # 1/3 + 2/3 * update / 10 of 0.3: 0.12 at update 1, which is step 0, 0.02 more each update, all of it at the tenth.
    assert _rates(optimizer, [0, 1, 4, 9, 10, 999]) == pytest.approx([0.12, 0.14, 0.2, 0.3, 0.3, 0.3], rel=1e-6)


def test_no_warm_up_starts_at_the_rate():
    optimizer = make_optimizer(1000, learning_rate=0.3, warmup_steps=0, decay="constant")
    assert _rates(optimizer, [0, 1]) == pytest.approx([0.3, 0.3], rel=1e-6)


def test_warm_up_takes_at_most_a_tenth_of_the_training():
    optimizer = make_optimizer(40, learning_rate=0.3, warmup_steps=500, decay="constant")
    assert _rates(optimizer, [1, 3, 4]) == pytest.approx([0.2, 0.3, 0.3], rel=1e-6)


def test_steps_divide_by_ten_at_two_thirds_and_eight_ninths():
    # The paper's 1.5x schedule: 180k and 240k of 270k.
    optimizer = make_optimizer(270_000, learning_rate=0.005, warmup_steps=500)
    assert _rates(optimizer, [500, 179_998, 179_999, 239_998, 239_999, 269_999]) == pytest.approx(
        [0.005, 0.005, 0.0005, 0.0005, 0.00005, 0.00005], rel=1e-5
    )


def test_steps_fall_where_they_are_told():
    optimizer = make_optimizer(100, learning_rate=1.0, warmup_steps=0, decay_at=(0.5,))
    assert _rates(optimizer, [48, 49, 99]) == pytest.approx([1.0, 0.1, 0.1], rel=1e-6)  # update 50 is step 49


def test_cosine_ends_at_its_final_share():
    optimizer = make_optimizer(100, learning_rate=2.0, warmup_steps=0, decay="cosine", final_factor=0.1)
    # 2 * (0.9 * (1 + cos(pi * share)) / 2 + 0.1)
    expected = [2.0 * (0.45 * (1 + math.cos(math.pi * share)) + 0.1) for share in (0, 0.25, 0.5, 1.0)]
    assert expected[2] == pytest.approx(1.1)
    assert _rates(optimizer, [0, 25, 50, 100]) == pytest.approx(expected, rel=1e-5)
    assert _rates(optimizer, [150]) == pytest.approx([0.2], rel=1e-5)  # stays there


def test_schedules_come_back_from_their_configuration():
    schedule = StepDecay(3.0, [5, 7], factor=0.5)
    again = StepDecay(**schedule.get_config())
    assert [float(again(step)) for step in (3, 4, 6)] == [3.0, 1.5, 0.75]
    warm = WarmUp(**WarmUp(schedule, 4, start_factor=0.5).get_config())
    assert [float(warm(step)) for step in (1, 2, 3, 4)] == [2.25, 2.625, 3.0, 1.5]


class _Layers(keras.Model):
    """A convolution and normalisation: a kernel, a bias, gamma and beta."""

    def __init__(self):
        super().__init__()
        self.conv = keras.layers.Conv2D(2, 1, bias_initializer="ones")
        self.norm = keras.layers.BatchNormalization(beta_initializer="ones")
        self(tf.zeros([1, 2, 2, 2]))

    def call(self, x):
        return self.norm(self.conv(x))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decoupled_decay_shrinks_kernels_alone(name, jit_compile):
    model = _Layers()
    optimizer = make_optimizer(
        10,
        name=name,
        learning_rate=0.1,
        weight_decay=0.5,
        warmup_steps=0,
        decay="constant",
        decoupled=None if name == "adamw" else True,
    )
    optimizer.build(model.trainable_variables)
    before = {v.path: v.numpy() for v in model.trainable_variables}

    @tf.function(jit_compile=jit_compile, autograph=False)
    def update():
        optimizer.apply([tf.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables)

    update()
    assert {path.rsplit("/", 1)[1] for path in before} == {"kernel", "bias", "gamma", "beta"}
    for variable in model.trainable_variables:
        # No gradient: only decay moves, by rate * decay of the weight. One product and one difference in float32.
        factor = 1.0 - 0.1 * 0.5 if variable.path.endswith("kernel") else 1.0
        np.testing.assert_allclose(variable.numpy(), factor * before[variable.path], rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    "rate_in_momentum, expected",
    [
        # velocity g = 1, 2; then the rate falls to 0.01: velocity 0.9 v + g = 1.9, 1.8, of which the weight loses 0.01
        (False, [[0.9, -2.2], [0.881, -2.218]]),
        # velocity -0.1 g = -0.1, -0.2; then 0.9 v - 0.01 g = -0.1, -0.18
        (True, [[0.9, -2.2], [0.8, -2.38]]),
    ],
)
def test_sgd_with_momentum_by_hand(rate_in_momentum, expected, jit_compile):
    weight = keras.Variable([1.0, -2.0])
    optimizer = make_optimizer(
        100,
        learning_rate=0.1,
        momentum=0.9,
        rate_in_momentum=rate_in_momentum,
        weight_decay=0.0,
        warmup_steps=0,
        decay_at=(0.02,),
    )
    optimizer.build([weight])

    @tf.function(jit_compile=jit_compile, autograph=False)
    def update(gradient):
        optimizer.apply([gradient], [weight])

    update(tf.constant([1.0, 2.0]))
    np.testing.assert_allclose(weight.numpy(), expected[0], rtol=1e-6)
    update(tf.constant([1.0, 0.0]))
    np.testing.assert_allclose(weight.numpy(), expected[1], rtol=1e-6)
    assert int(optimizer.iterations) == 2


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_biases_have_a_rate_of_their_own(name, decoupled):
    models = [_Layers(), _Layers()]
    models[1].set_weights(models[0].get_weights())
    for model, bias_rate in zip(models, (1.0, 2.0)):
        optimizer = make_optimizer(
            10, name=name, learning_rate=0.1, warmup_steps=0, decay="constant", decoupled=decoupled, bias_rate=bias_rate
        )
        optimizer.build(model.trainable_variables)
        model.start = [v.numpy() for v in model.trainable_variables]
        for _ in range(3):
            optimizer.apply([0.5 + tf.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables)
    for once, twice, start in zip(*(model.trainable_variables for model in models), models[0].start):
        factor = 2.0 if once.path.endswith(("bias", "beta")) else 1.0
        # Differences of weights near 1, each rounded.
        np.testing.assert_allclose(twice.numpy() - start, factor * (once.numpy() - start), atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_backbone_has_a_rate_of_its_own(name):
    starts, moved = [], []
    for backbone_rate in (1.0, 0.25):
        inner, head = keras.layers.Dense(3, name="kernel_in"), keras.layers.Dense(2, name="head")
        model = keras.Sequential([keras.Sequential([inner], name="backbone"), head])
        model.build((None, 4))
        optimizer = make_optimizer(
            10, name=name, learning_rate=0.1, warmup_steps=0, decay="constant", weight_decay=0.0,
            backbone_rate=backbone_rate,
        )  # fmt: skip
        optimizer.build(model.trainable_variables)
        starts.append([v.numpy() for v in model.trainable_variables])
        optimizer.apply([0.5 + tf.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables)
        moved.append([v.numpy() - start for v, start in zip(model.trainable_variables, starts[-1])])
        paths = [v.path for v in model.trainable_variables]
    assert sum("backbone/" in path for path in paths) == 2 and len(paths) == 4
    for path, whole, slower in zip(paths, *moved):
        np.testing.assert_allclose(slower, whole * (0.25 if "backbone/" in path else 1.0), atol=1e-6)


@pytest.mark.parametrize(
    "option, word",
    [({"name": "lion"}, "'lion' is not one of .*adamw"), ({"decay": "linear"}, "'linear' is not one of .*cosine")],
)
def test_unknown_names_are_refused(option, word):
    with pytest.raises(ValueError, match=word):
        make_optimizer(10, **option)
    assert "cosine" in DECAYS


def test_the_optimizer_leaves_clipping_to_the_step():
    for name in OPTIMIZERS:
        optimizer = make_optimizer(10, name=name)
        assert (optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue) == (None, None, None)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_coupled_decay_goes_through_the_momentum(jit_compile):
    model = _Layers()
    optimizer = make_optimizer(100, learning_rate=0.1, momentum=0.9, weight_decay=0.5, warmup_steps=0, decay="constant")
    optimizer.build(model.trainable_variables)
    variables = model.trainable_variables
    random = np.random.default_rng(0)
    expected = {v.path: [v.numpy().astype(np.float64), 0.0] for v in variables}

    @tf.function(jit_compile=jit_compile, autograph=False)
    def update(gradients):
        optimizer.apply(gradients, variables)

    for _ in range(3):
        gradients = [random.normal(size=v.shape).astype(np.float32) for v in variables]
        update([tf.constant(g) for g in gradients])
        for variable, gradient in zip(variables, gradients):
            weight, velocity = expected[variable.path]
            decay = 0.5 if variable.path.endswith("kernel") else 0.0  # biases and normalisation do not decay
            velocity = 0.9 * velocity - 0.1 * (gradient + decay * weight)
            expected[variable.path] = [weight + velocity, velocity]
    for variable in variables:
        np.testing.assert_allclose(variable.numpy(), expected[variable.path][0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate_in_momentum", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_update_is_a_sum_of_three(name, rate_in_momentum):
    # Short of memory, TensorFlow adds three in the order in which they are ready, and replicas drift apart.
    model = _Layers()
    optimizer = make_optimizer(10, name=name, weight_decay=0.5, rate_in_momentum=rate_in_momentum, decoupled=False)
    optimizer.build(model.trainable_variables)
    update = tf.function(lambda gradients: optimizer.apply(gradients, model.trainable_variables), autograph=False)
    graph = update.get_concrete_function([tf.zeros(v.shape) for v in model.trainable_variables]).graph
    kinds = ("Add", "AddV2", "AddN", "AccumulateNV2")
    sums = [op for op in graph.get_operations() if op.type in kinds]
    assert sums  # the decay, at least
    assert all(len(op.inputs) == 2 for op in sums)
    assert [op.name for op in sums if {operand.op.type for operand in op.inputs} & set(kinds)] == []


def test_coupled_decay_of_adam_is_scaled_away():
    # The gradient and the decay are divided by their own size: Adam's first step is the rate, whatever the decay.
    model = _Layers()
    optimizer = make_optimizer(10, name="adam", learning_rate=0.1, weight_decay=0.5, warmup_steps=0, decay="constant")
    optimizer.build(model.trainable_variables)
    # Far from 0, beside which Adam's epsilon is nothing, and from 0.1, where the difference below would cancel.
    before = np.array([0.5, -0.6, 0.8, -1.0], np.float32).reshape(model.conv.kernel.shape)
    model.conv.kernel.assign(before)
    optimizer.apply([tf.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables)
    np.testing.assert_allclose(model.conv.kernel.numpy(), before - 0.1 * np.sign(before), rtol=1e-4)
    assert (model.conv.bias.numpy() == 1.0).all()


def test_rate_and_warm_up_follow_the_batch():
    # Twice the images a step: twice the rate, half the warm-up; the drops are at shares of the training already.
    given = make_optimizer(3000, batch_size=16, reference_batch=8, learning_rate=0.005, warmup_steps=100)
    same = make_optimizer(3000, learning_rate=0.01, warmup_steps=50)
    steps = [0, 10, 50, 1999, 2000, 2666, 2667, 2999]
    assert _rates(given, steps) == _rates(same, steps)
    assert _rates(given, [50, 2000, 2667]) == pytest.approx([0.01, 0.001, 0.0001], rel=1e-5)
    as_given = make_optimizer(3000, batch_size=16, learning_rate=0.005, warmup_steps=100)
    assert _rates(as_given, [100]) == pytest.approx([0.005], rel=1e-6)
    with pytest.raises(ValueError, match="batch_size, which is not given"):
        make_optimizer(10, reference_batch=8)


def test_the_default_is_the_recipe_of_the_paper():
    optimizer = make_optimizer(270_000, batch_size=8)
    assert isinstance(optimizer, keras.optimizers.SGD) and optimizer.momentum == 0.9
    assert optimizer.coupled_decay == 1e-4 and optimizer.weight_decay is None
    assert _rates(optimizer, [500]) == pytest.approx([0.005], rel=1e-6)


def test_a_frozen_variable_gets_no_slot_and_no_decay(small_model, built_optimizer, make_batch):
    model = small_model(frozen_stages=3)
    optimizer = built_optimizer(model, learning_rate=0.1, weight_decay=0.5)
    assert not any("res2" in v.path or "stem" in v.path for v in optimizer.variables)
    before = {v.path: v.numpy() for v in model.variables}
    criterion = Criterion(mask_rois=8, mask_rois_from_detections=0)
    step = make_train_step(model, criterion, optimizer, clip_norm=1.0, box_statistics=BoxStatistics())
    step(make_batch(2))
    moved = {v.path for v in model.variables if not np.array_equal(v.numpy(), before[v.path])}
    assert moved and not any(f"/{part}" in path for path in moved for part in ("stem", "res2", "res3", "bn_"))


def test_a_network_frozen_whole_is_refused(small_model):
    model = small_model(freeze="")
    with pytest.raises(UserError, match="every layer is frozen"):
        make_train_step(model, Criterion(), keras.optimizers.SGD(0.1))


def test_a_setting_that_there_is_not_is_told_with_the_nearest():
    with pytest.raises(UserError, match="make_optimizer has no setting 'learning_rte'; did you mean 'learning_rate'"):
        make_optimizer(10, learning_rte=0.1)
