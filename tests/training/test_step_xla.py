"""One XLA program: it computes what the uncompiled step computes, is traced once, and survives empty images."""

import math
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.devices.placement import compile_step
from tpu_retinamask.training.step import compute_losses, make_train_step, metric_names

EVERY_METRIC = {*metric_names(Criterion()), "gradient_norm", "learning_rate", "box_beta"}


def _run(model, optimizer, step, batches):
    """Metrics of each step, and all numbers of model and optimizer after each step."""
    metrics, states = [], []
    for batch in batches:
        metrics.append({name: float(value) for name, value in step(batch).items()})
        # A second optimizer of the process is called sgd_1: its name is left out.
        slots = {f"slot {v.path.split('/', 1)[1]}": v.numpy() for v in optimizer.variables}
        states.append({v.path: v.numpy() for v in model.variables} | slots)
    return metrics, states


@pytest.fixture(scope="module", params=["batch", pytest.param("frozen", marks=pytest.mark.slow)])
def runs(request, small_model, built_optimizer, make_batch):
    """The same four steps, compiled by XLA and not: full, sparse, empty, half empty images."""
    batches = [make_batch(8, 8), make_batch(1, 3, seed=1), make_batch(0, 0, seed=2), make_batch(0, 8, seed=3)]
    result = types.SimpleNamespace()
    for name, jit_compile in (("compiled", True), ("plain", False)):
        model = small_model(normalization=request.param, class_bias=-1.0)
        optimizer = built_optimizer(model, learning_rate=0.01, weight_decay=1e-3)
        criterion = Criterion(mask_rois=20, mask_rois_from_detections=20)
        step = make_train_step(model, criterion, optimizer, clip_norm=1.0, box_statistics=BoxStatistics())
        step = compile_step(step, jit_compile=jit_compile)
        metrics, states = _run(model, optimizer, step, batches)
        setattr(result, name, types.SimpleNamespace(step=step, metrics=metrics, states=states))
    return result


def test_losses_equal_the_uncompiled_step(runs):
    for compiled, plain in zip(runs.compiled.metrics, runs.plain.metrics):
        assert set(compiled) == set(plain) == EVERY_METRIC
        for name in EVERY_METRIC:
            # XLA sums in another order: float32 sums of up to 10^5 terms, through some 30 layers, differ by
            # about 1e-6 (seen: 2e-6 in the gradient norm).
            assert compiled[name] == pytest.approx(plain[name], rel=2e-5), name
    assert runs.compiled.metrics[0]["mask_rois"] > 16  # detections joined the 16 boxes: suppression took part


def test_weights_and_slots_equal_the_uncompiled_step_after_two_steps(runs):
    compiled, plain = runs.compiled.states[1], runs.plain.states[1]
    assert compiled.keys() == plain.keys()
    assert sum("momentum" in name for name in plain) > 40
    for name, expected in plain.items():
        # Rounding of a gradient is relative to the terms that were summed, which cancel in part: the largest difference
        # seen is 9.3e-4 of the largest element, in momenta of the stem that are near 1e-5, below all the network's
        # layers, on a processor with AVX-512 (3e-5 without). A term that is missing or twice there shows as 1e-1.
        largest = np.abs(expected).max()
        np.testing.assert_allclose(compiled[name], expected, rtol=0, atol=3e-3 * largest, err_msg=name)
    moved = [name for name in plain if not np.array_equal(plain[name], runs.plain.states[0][name])]
    assert len(moved) > 80


def test_one_trace_serves_full_sparse_and_empty_images(runs):
    assert runs.compiled.step.experimental_get_tracing_count() == 1


def test_every_number_stays_finite(runs):
    for metrics, state in zip(runs.compiled.metrics, runs.compiled.states):
        assert all(math.isfinite(value) for value in metrics.values()), metrics
        assert all(np.isfinite(value).all() for value in state.values())


def test_an_empty_batch_has_no_box_and_no_mask_loss(runs):
    empty = runs.compiled.metrics[2]
    assert (empty["box_loss"], empty["mask_loss"], empty["num_positive"], empty["mask_rois"]) == (0.0, 0.0, 0.0, 0.0)
    assert empty["class_loss"] == empty["loss"] > 0.0
    assert empty["gradient_norm"] > 0.0  # the class head still learns that there is nothing


def test_frozen_statistics_stay_and_others_move(runs, request):
    first, last = runs.compiled.states[0], runs.compiled.states[3]
    moved = {name: not np.array_equal(first[name], last[name]) for name in first if "moving_" in name}
    assert len(moved) == 22
    frozen = request.node.callspec.params["runs"] == "frozen"
    assert set(moved.values()) == {not frozen}


def _losses(model, criterion, batch):
    total, metrics, _ = compute_losses(model, criterion, batch)
    return float(total), {name: float(value) for name, value in metrics.items()}


# A fixed beta: the step would move that of the self-adjusting loss, and `compute_losses` alone does not.
TRUTH_ONLY = Criterion(mask_rois=8, mask_rois_from_detections=0, box_loss="smooth_l1")


def test_uint8_and_float_pixels_give_the_same_losses(small_model, make_batch):
    model, batch = small_model(normalization="batch"), make_batch(3, 2)
    as_bytes = _losses(model, TRUTH_ONLY, batch)
    as_floats = _losses(model, TRUTH_ONLY, batch._replace(image=tf.cast(batch.image, tf.float32)))
    assert as_bytes == as_floats  # the cast comes first: the very same numbers
    darker = _losses(model, TRUTH_ONLY, batch._replace(image=batch.image // 2))
    assert darker[0] != as_bytes[0]


def test_the_total_is_the_weighted_sum(small_model, make_batch):
    weights = dict(class_weight=2.0, box_weight=0.5, mask_weight=3.0)
    criterion = Criterion(mask_rois=8, mask_rois_from_detections=0, **weights)
    total, metrics = _losses(small_model(), criterion, make_batch(3, 2))
    expected = 2.0 * metrics["class_loss"] + 0.5 * metrics["box_loss"] + 3.0 * metrics["mask_loss"]
    assert total == pytest.approx(expected, rel=1e-6)  # float32: three products and two sums
    assert total == metrics["loss"]


def test_instances_that_found_no_row_are_counted(small_model, make_batch):
    batch = make_batch(8, 8)._replace(dropped=tf.constant([0, 31]))
    _, metrics = _losses(small_model(), TRUTH_ONLY, batch)
    assert metrics["boxes_dropped"] == 31.0
    _, fewer = _losses(small_model(), Criterion(mask_rois=5, mask_rois_from_detections=0), batch)
    assert (fewer["mask_rois"], fewer["mask_rois_overflow"]) == (10.0, 6.0)
    assert (metrics["mask_rois"], metrics["mask_rois_overflow"]) == (16.0, 0.0)


def _gradients(model, criterion, batch):
    with tf.GradientTape() as tape:
        total, _, _ = compute_losses(model, criterion, batch)
    return [np.array(g) for g in tape.gradient(total, [v.value for v in model.trainable_variables])]


def _weights(model):
    return [v.numpy() for v in model.trainable_variables]


@pytest.mark.parametrize("share", [0.25, 4.0, None])
def test_clipping_is_by_the_global_norm(small_model, make_batch, share):
    batch, model = make_batch(3, 2), small_model()
    gradients = _gradients(model, TRUTH_ONLY, batch)
    norm = math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in gradients))
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build(model.trainable_variables)
    clip_norm = None if share is None else share * norm
    before = _weights(model)
    metrics = make_train_step(model, TRUTH_ONLY, optimizer, clip_norm=clip_norm)(batch)
    # The norm that is reported is the one before clipping. Its float32 sum of 10^5 squares: 1e-6 seen.
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-5)
    scale = 0.25 if share == 0.25 else 1.0
    for old, new, gradient in zip(before, _weights(model), gradients):
        # At rate 1 the change is the gradient; old - new is rounded at the size of the weights (about 1).
        np.testing.assert_allclose(old - new, scale * gradient, rtol=1e-4, atol=1e-6 * max(1.0, norm))


@pytest.mark.parametrize("option", [{"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipvalue": 1.0}])
def test_an_optimizer_that_clips_is_refused(small_model, option):
    model = small_model()
    with pytest.raises(ValueError, match="clip_norm here instead"):
        make_train_step(model, TRUTH_ONLY, keras.optimizers.SGD(0.1, **option))


@pytest.mark.parametrize(
    "layer",
    [
        "stem/kernel",
        pytest.param("res4a_branch2b/kernel", marks=pytest.mark.slow),
        pytest.param("C4_reduced/kernel", marks=pytest.mark.slow),
        pytest.param("P3/kernel", marks=pytest.mark.slow),
        pytest.param("pyramid_classification/kernel", marks=pytest.mark.slow),
        "pyramid_regression_0/kernel",
        pytest.param("roi_mask_0/kernel", marks=pytest.mark.slow),
        pytest.param("roi_mask/kernel", marks=pytest.mark.slow),
    ],
)
def test_gradients_agree_with_the_slope_of_the_loss(small_model, make_batch, layer):
    model, batch = small_model(normalization="batch", class_bias=-1.0), make_batch(5, 4)
    ((index, variable),) = [(i, v) for i, v in enumerate(model.trainable_variables) if v.path.endswith("/" + layer)]
    gradient = _gradients(model, TRUTH_ONLY, batch)[index]
    norm = np.linalg.norm(gradient)
    direction = gradient / norm
    start = variable.numpy()
    # Along the gradient the slope is the gradient's norm. The step changes the loss by about 3e-4 of itself:
    # hundreds of times float32's rounding, and small enough that few relus change sides.
    step = 1e-3 / norm
    ends = []
    for sign in (1.0, -1.0):
        variable.assign(start + sign * step * direction)
        ends.append(_losses(model, TRUTH_ONLY, batch)[0])
    slope = (ends[0] - ends[1]) / (2 * step)
    assert slope == pytest.approx(norm, rel=0.02)
