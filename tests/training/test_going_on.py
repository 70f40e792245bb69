"""Where a training starts: its own checkpoint, another run's whole state, its weights alone; and what is said of it."""

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.pretrained.load import load_weights
from tpu_retinamask.tasks.start import Start, start_state
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.checkpoints.state import TrainState
from tpu_retinamask.training.weight_average import WeightAverage

TOTAL = 100


@pytest.fixture
def run(tmp_path, small_model, built_optimizer):
    """Build a run in a folder: run("a", step=40, averaging=True) -> (state, average)."""

    def build(name, *, step=0, averaging=False, statistics=False, num_classes=3, total_steps=TOTAL, **options):
        model = small_model(num_classes, normalization="batch")
        optimizer = built_optimizer(model, total_steps, **{"decay": "cosine", **options})
        optimizer.iterations.assign(step)
        model.variables[0].assign_add(tf.fill(model.variables[0].shape, float(step)))
        average = WeightAverage(model, 0.9) if averaging else None
        extra = {"average": average.variables} if averaging else {}
        extra |= {"box_statistics": BoxStatistics().variables} if statistics else {}
        return TrainState(str(tmp_path / name), model, optimizer, extra=extra), average

    build.folder = tmp_path
    return build


def _start(state, weights=None, average=None, *, skip_mismatched=False, keep_optimizer=False, total_steps=TOTAL):
    start = Start(weights=weights and str(weights), skip_mismatched=skip_mismatched, keep_optimizer=keep_optimizer)
    return start_state(state, total_steps, start, average)


def _first(state):
    return state.model.variables[0].numpy()


def _saved(run, name):
    state, _ = run(name)
    state.restore()
    return _first(state)


def test_a_resumed_run_says_its_rate_and_that_the_schedule_has_changed(run, said):
    old, _ = run("a", step=25)
    old.save()
    same, _ = run("a")
    assert _start(same) == 25 and "resuming at step 25 of 100 with a learning rate of 0.00428" in said()
    assert "the schedule is not the one" not in said()
    longer, _ = run("a", total_steps=400)
    assert _start(longer, run.folder / "elsewhere", total_steps=400) == 25
    # Cosine from 0.005 to a hundredth of it: after a quarter, and after a sixteenth.
    assert "its learning rate was 0.00428 and is now 0.00495" in said()
    assert f"--weights {run.folder / 'elsewhere'} is passed over" in said()


@pytest.mark.ci
def test_weights_of_the_recipe_stand_back_behind_all_others(run, said):
    for name, step in (("a", 50), ("b", 20)):
        run(name, step=step)[0].save()
    assert _saved(run, "a").flat[0] != _saved(run, "b").flat[0]
    recipe = str(run.folder / "a")
    fresh, _ = run("c")
    assert start_state(fresh, TOTAL, Start(otherwise=recipe), None) == 0
    np.testing.assert_array_equal(_first(fresh), _saved(run, "a"))
    given, _ = run("d")
    assert start_state(given, TOTAL, Start(weights=str(run.folder / "b"), otherwise=recipe), None) == 0
    np.testing.assert_array_equal(_first(given), _saved(run, "b"))
    said()
    assert start_state(run("b")[0], TOTAL, Start(otherwise=recipe), None) == 20  # its own checkpoint
    assert "passed over" not in said()


def test_a_run_at_its_end_says_how_to_go_on(run, said):
    run("a", step=TOTAL)[0].save()
    assert _start(run("a")[0]) == TOTAL
    assert "which is the end: raise train.epochs or train.steps to go on, or start another --model_dir" in said()


@pytest.mark.ci
def test_weights_alone_or_the_whole_state_of_another_run(run, said):
    old, _ = run("a", step=50)
    for variable in old.optimizer.variables[2:]:
        variable.assign(tf.fill(variable.shape, 0.5))
    old.save()
    fresh, _ = run("b")
    assert _start(fresh, run.folder / "a") == 0 == fresh.step
    assert "step, optimizer and schedule start anew: learning rate 0.005 at step 0 of 100" in said()
    assert not fresh.optimizer.variables[-1].numpy().any()
    whole, _ = run("c")
    assert _start(whole, run.folder / "a", keep_optimizer=True) == 50 == whole.step
    for new, saved in zip(whole.optimizer.variables, old.optimizer.variables):
        np.testing.assert_array_equal(new.numpy(), saved.numpy(), err_msg=new.path)
    for state in (fresh, whole):
        np.testing.assert_array_equal(_first(state), _first(old))


def test_the_optimizer_of_nothing_is_refused(run, tmp_path):
    state, _ = run("a")
    with pytest.raises(UserError, match="--weights names: give both"):
        _start(state, keep_optimizer=True)
    (tmp_path / "some.h5").write_bytes(b"")
    with pytest.raises(UserError, match="some.h5 holds no optimizer"):
        _start(state, tmp_path / "some.h5", keep_optimizer=True)


@pytest.mark.ci
def test_an_average_switched_on_later_starts_from_the_weights(run, said):
    old, _ = run("a", step=50)
    old.save()
    state, average = run("a", averaging=True, statistics=True)
    assert _start(state, average=average) == 50
    assert state.missing_parts == ("average", "box_statistics")
    assert "holds no average: it starts from the weights" in said()
    assert "holds no box statistics: they start anew" in said()
    for variable in state.model.trainable_variables:
        np.testing.assert_array_equal(average.variables[variable.path].numpy(), variable.numpy())
    state.save()  # from now on it is part of the checkpoint
    assert _start(run("a", averaging=True, statistics=True)[0]) == 50


@pytest.mark.ci
def test_fine_tuning_starts_from_the_average_and_names_the_layers_of_the_classes(run, said):
    old, average = run("a", step=50, averaging=True)
    for variable in average.variables.values():
        variable.assign_add(tf.fill(variable.shape, 0.25))
    old.save()
    fresh, _ = run("b", num_classes=5)
    assert _start(fresh, run.folder / "a", skip_mismatched=True) == 0
    assert "ckpt-50 (the average of its weights): " in said()
    for layer in ("pyramid_classification", "roi_mask"):
        assert f"starts anew, {layer}: the source has" in said()
    first = old.model.variables[0]
    np.testing.assert_array_equal(_first(fresh), average.variables[first.path].numpy())
    report = load_weights(fresh.model, str(run.folder / "a"), skip_mismatched=True)
    assert sorted(report.mismatched) == ["pyramid_classification", "roi_mask"] and not report.missing
