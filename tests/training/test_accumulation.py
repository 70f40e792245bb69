"""A batch taken in parts: the update of the undivided one; on two replicas that of one, averages and statistics too."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.structures import Batch
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.devices.placement import compile_step
from tpu_retinamask.training.micro_batches import micro_batch, repeat
from tpu_retinamask.training.step import make_train_step
from tpu_retinamask.training.weight_average import WeightAverage
from tpu_retinamask.xla import audit

SCRIPT = pathlib.Path(__file__).with_name("accumulating_replicas.py")


# Two replicas, and statistics that move on them: fast in test_step_replicas, where the batch is undivided.
@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.slow) for name in ("parts", "statistics")])
def comparison(request):
    """What `accumulating_replicas.py` printed."""
    command = [sys.executable, str(SCRIPT), request.param]
    # Replicas on one CPU that never meet again must not hold up all other tests.
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, json.loads(done.stdout.strip().splitlines()[-1])


def test_metrics_and_state_are_the_same(comparison):
    which, found = comparison
    assert len(found["metrics"][0]) == len(found["metrics"][1]) == 2
    for expected, metrics in zip(*found["metrics"]):
        assert expected["gradient_norm"] > 0.5 and expected["num_positive"] > 20
        # The sums are divided otherwise: float32 rounding through 30 layers.
        assert metrics == pytest.approx(expected, rel=5e-5)
    # Relative to each tensor's largest element; the reasons are those of test_step_xla.
    worst = max(found["relative"], key=found["relative"].get)
    assert found["relative"][worst] < 3e-4, worst
    assert len([name for name in found["relative"] if name.startswith("average ")]) > 30
    assert which == "parts" or found["metrics"][0][0]["box_beta"] != found["metrics"][0][1]["box_beta"]


def test_replicas_stay_identical_to_the_bit(comparison):
    assert {name for name, value in comparison[1]["apart"].items() if value} == set()


def test_a_part_holds_the_same_images_however_many_replicas_share_them():
    batch = Batch(*[tf.range(8)] * 10)
    of_one = [micro_batch(batch, index, 2).image.numpy() for index in range(2)]
    halves = [Batch(*[tf.range(start, start + 4)] * 10) for start in (0, 4)]
    for index in range(2):
        of_two = np.concatenate([micro_batch(half, index, 2).image.numpy() for half in halves])
        assert sorted(of_two) == sorted(of_one[index])
    assert sorted(np.concatenate(of_one)) == list(range(8))


def test_a_batch_that_does_not_divide_is_refused(make_batch):
    with pytest.raises(UserError, match="3 images of a replica.*accumulate_steps = 2"):
        micro_batch(make_batch(1, 2, 3), 0, 2)


def test_repeat_is_a_loop_of_the_graph():
    function = tf.function(
        lambda x: repeat(5, lambda i, s: {"a": s["a"] * 2 + tf.cast(i, tf.float32)}, {"a": x})["a"], autograph=False
    )
    assert float(function(tf.constant(1.0))) == 58.0  # 1, 2, 5, 12, 27, 58
    assert any("While" in op.type for op in function.get_concrete_function(tf.constant(1.0)).graph.get_operations())


@pytest.fixture(scope="module")
def compiled(small_model, built_optimizer, make_batch):
    """The compiled step of all options together, its model and what it moved."""
    model = small_model(normalization="batch", frozen_stages=2, class_bias=-1.0)
    optimizer = built_optimizer(model, learning_rate=0.01, weight_decay=0.01)
    statistics, average = BoxStatistics(0.11), WeightAverage(model, 0.9)
    step = compile_step(
        make_train_step(
            model,
            Criterion(mask_rois=8, mask_rois_from_detections=8),
            optimizer,
            clip_norm=1.0,
            accumulate_steps=2,
            box_statistics=statistics,
            average=average,
        )
    )
    batches = [make_batch(4, 1), make_batch(0, 0, seed=1), make_batch(8, 8, seed=2)]
    return step, batches, statistics, average


@pytest.mark.ci
def test_all_options_together_hold_no_forbidden_op(compiled):
    step, batches, _, _ = compiled
    traced = step.get_concrete_function(batches[0])
    assert any("While" in op.type for op in traced.graph.get_operations())
    audit.check(traced)


@pytest.mark.slow
def test_one_trace_serves_full_and_empty_batches(compiled):
    step, batches, statistics, average = compiled
    metrics = [{name: float(value) for name, value in step(batch).items()} for batch in batches[:2]]
    assert all(np.isfinite(list(of_step.values())).all() for of_step in metrics)
    before = statistics.mean.numpy()
    step(batches[1])
    assert (statistics.mean.numpy() == before).all()  # no positives: nothing moves
    step(batches[2])
    assert (statistics.mean.numpy() != before).all()
    assert all(np.isfinite(variable.numpy()).all() for variable in average.variables.values())
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.ci
@pytest.mark.parametrize("mask_average", ["regions", pytest.param("images", marks=pytest.mark.slow)])
def test_without_detections_the_mask_loss_of_parts_is_that_of_the_whole(
    small_model, built_optimizer, make_batch, mask_average
):
    criterion = Criterion(mask_rois=8, mask_rois_from_detections=0, box_loss="smooth_l1", mask_average=mask_average)
    batch, found = make_batch(6, 1, 0, 3), []
    for parts in (1, 2):
        model = small_model(normalization="group")
        step = make_train_step(model, criterion, built_optimizer(model), accumulate_steps=parts)
        found.append({name: float(value) for name, value in tf.function(step, autograph=False)(batch).items()})
    assert found[0]["mask_rois"] == 10.0
    assert found[1] == pytest.approx(found[0], rel=5e-5)  # sums in another order


def test_no_parts_are_refused(small_model):
    with pytest.raises(UserError, match="accumulate_steps is 0"):
        make_train_step(small_model(), Criterion(), keras.optimizers.SGD(0.1), accumulate_steps=0)
