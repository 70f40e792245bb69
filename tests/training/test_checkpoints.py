"""What is saved comes back to the bit; what does not fit is refused by name."""

import os

import numpy as np
import pytest

from tpu_retinamask.errors import NonFiniteLossError, UserError
from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.checkpoints.state import TrainState
from tpu_retinamask.training.step import make_train_step

TRUTH_ONLY = Criterion(mask_rois=8, mask_rois_from_detections=0)


def _scramble(variables, seed=0):
    random = np.random.default_rng(seed)
    for variable in variables:
        if variable.dtype == "float32":
            variable.assign(random.standard_normal(variable.shape).astype(np.float32))


def _numbers(model, optimizer):
    return [v.numpy() for v in model.variables + optimizer.variables]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_round_trip_to_the_bit(tmp_path, small_model, built_optimizer, name):
    model = small_model(normalization="batch")
    optimizer = built_optimizer(model, name=name)
    _scramble(model.variables + optimizer.variables)
    optimizer.iterations.assign(1234)
    saved = TrainState(str(tmp_path), model, optimizer).save()
    assert os.path.basename(saved) == "ckpt-1234"

    other = small_model(normalization="batch")
    fresh = built_optimizer(other, name=name)
    state = TrainState(str(tmp_path), other, fresh)
    assert state.step == 0
    assert any(not np.array_equal(a, b) for a, b in zip(_numbers(model, optimizer), _numbers(other, fresh)))
    assert state.restore() == 1234
    assert state.step == 1234
    assert len(model.variables) == len(other.variables) > 50
    for variable, old, new in zip(
        model.variables + optimizer.variables, _numbers(model, optimizer), _numbers(other, fresh)
    ):
        assert old.tobytes() == new.tobytes(), variable.path


def test_a_restored_run_goes_on_as_if_never_stopped(tmp_path, small_model, built_optimizer, make_batch):
    batches = [make_batch(4, 2, seed=seed) for seed in range(3)]

    def start():
        model = small_model(normalization="batch")
        optimizer = built_optimizer(model, name="adamw", learning_rate=1e-3, weight_decay=1e-2)
        step = make_train_step(model, TRUTH_ONLY, optimizer, clip_norm=1.0, box_statistics=BoxStatistics())
        return model, optimizer, step

    model, optimizer, step = start()
    for batch in batches[:2]:
        step(batch)
    TrainState(str(tmp_path), model, optimizer).save()
    step(batches[2])

    again, restored, step = start()
    assert TrainState(str(tmp_path), again, restored).restore() == 2
    step(batches[2])
    for variable, one, two in zip(model.variables, _numbers(model, optimizer), _numbers(again, restored)):
        # Not to the bit: threads of a convolution's gradient add in an order of their own. Rounding of a
        # gradient near 0 may turn up to a whole Adam step of 1e-3 only where the gradient itself is rounding.
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=2e-5, err_msg=variable.path)


def test_an_empty_directory_restores_nothing(tmp_path, small_model):
    model = small_model()
    before = [v.numpy() for v in model.variables]
    assert TrainState(str(tmp_path), model).restore() is None
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables))


def test_the_model_alone_is_restored_without_an_optimizer(tmp_path, small_model, built_optimizer):
    model = small_model()
    optimizer = built_optimizer(model)
    _scramble(model.variables)
    optimizer.iterations.assign(7)
    TrainState(str(tmp_path), model, optimizer).save()
    other = small_model()
    assert TrainState(str(tmp_path), other).restore() == 7
    for old, new in zip(model.variables, other.variables):
        assert old.numpy().tobytes() == new.numpy().tobytes(), old.path


@pytest.mark.parametrize(
    "change", [{"num_classes": 4}, pytest.param({"fpn_channels": 24}, marks=pytest.mark.slow), {"head_depth": 2}]
)
def test_another_architecture_is_refused_and_told_what_to_do(tmp_path, small_model, built_optimizer, change):
    model = small_model()
    TrainState(str(tmp_path), model, built_optimizer(model)).save()
    other = small_model(**change)
    with pytest.raises(ValueError, match="does not fit the model that the configuration describes") as caught:
        TrainState(str(tmp_path), other, built_optimizer(other)).restore()
    message = str(caught.value)
    assert "ckpt-0" in message and "--model_dir" in message


def test_another_class_count_names_the_variable(tmp_path, small_model):
    model = small_model()
    state = TrainState(str(tmp_path), model)
    state.files.write(state.checkpoint, 5)
    with pytest.raises(ValueError, match="pyramid_classification") as caught:
        TrainState(str(tmp_path), small_model(num_classes=5)).restore()
    assert "ckpt-5" in str(caught.value)


def test_only_the_newest_are_kept(tmp_path, small_model, built_optimizer):
    model = small_model()
    optimizer = built_optimizer(model)
    state = TrainState(str(tmp_path), model, optimizer, keep=2)
    for step in (10, 20, 30, 40):
        optimizer.iterations.assign(step)
        state.save()
    kept = sorted(name for name in os.listdir(tmp_path / "checkpoints") if name.endswith(".index"))
    assert kept == ["ckpt-30.index", "ckpt-40.index"]
    optimizer.iterations.assign(0)
    assert state.restore() == 40


def test_a_save_cut_short_leaves_the_one_before(tmp_path, small_model, built_optimizer):
    model = small_model()
    optimizer = built_optimizer(model)
    _scramble(model.variables)
    optimizer.iterations.assign(10)
    TrainState(str(tmp_path), model, optimizer).save()
    # What a kill leaves behind: data under a temporary name, no index, the pointer not yet replaced.
    (tmp_path / "checkpoints" / "ckpt-20.data-00000-of-00001.tempstate123").write_bytes(b"half")
    (tmp_path / "checkpoints" / "ckpt-20.data-00000-of-00001").write_bytes(b"half")
    other = small_model()
    assert TrainState(str(tmp_path), other, built_optimizer(other)).restore() == 10
    assert other.variables[0].numpy().tobytes() == model.variables[0].numpy().tobytes()


def test_the_best_is_kept_whatever_comes_after(tmp_path, small_model, built_optimizer):
    model = small_model()
    optimizer = built_optimizer(model)

    def state():  # anew for each score, as by restarts: the best score is read from the disk
        return TrainState(str(tmp_path), model, optimizer)

    for step, score, better in ((10, 0.2, True), (20, 0.4, True), (30, 0.4, False), (40, 0.1, False)):
        optimizer.iterations.assign(step)
        assert (state().save_best(score) is not None) == better
    assert sorted(name.split(".")[0] for name in os.listdir(tmp_path / "best")) == ["checkpoint"] + ["ckpt-20"] * 3
    one = state()
    assert one.restore("best") == 20 and one.restored.values["score"] == 0.4
    assert one.restore() is None  # the newest are kept elsewhere


def test_a_weight_that_is_not_finite_is_never_saved(tmp_path, small_model, built_optimizer):
    # A huge step may leave infinite weights behind a loss that was finite still.
    model = small_model()
    optimizer = built_optimizer(model)
    state = TrainState(str(tmp_path), model, optimizer)
    state.save()
    optimizer.iterations.assign(5)
    model.variables[3].assign(np.full(model.variables[3].shape, np.inf))
    for save in (state.save, lambda: state.save_best(0.5)):
        with pytest.raises(NonFiniteLossError, match=f"step 5: {model.variables[3].path} is not finite"):
            save()
    assert state.files.newest().step == 0 and not (tmp_path / "best").exists()


def test_a_cut_newest_checkpoint_falls_back(tmp_path, small_model, built_optimizer, said):
    model = small_model()
    optimizer = built_optimizer(model)
    state = TrainState(str(tmp_path), model, optimizer)
    for step in (10, 20):
        optimizer.iterations.assign(step)
        _scramble(model.variables, seed=step)
        path = state.save()
    with open(f"{path}.data-00000-of-00001", "r+b") as file:
        file.truncate(1000)
    assert TrainState(str(tmp_path), model, optimizer).restore() == 10
    assert "ckpt-20 is damaged and passed over: ckpt-20.data-00000-of-00001 has 1000 bytes" in said()
    assert state.nbytes == pytest.approx(os.path.getsize(f"{path[:-2]}10.data-00000-of-00001"), rel=0.2)


def test_weights_that_are_not_finite_are_refused_though_their_manifest_fits(tmp_path, small_model):
    """No save of ours writes them; with them every picture would be said to hold nothing."""
    model = small_model()
    state = TrainState(str(tmp_path), model)
    name = model.variables[3].path
    model.variables[3].assign(np.full(model.variables[3].shape, np.nan, np.float32))
    state.files.write(state.checkpoint, 5)
    with pytest.raises(
        UserError, match=rf"ckpt-5 holds weights that are NaN or infinite.*\n  {name}: (\d+) of \1 numbers"
    ):
        TrainState(str(tmp_path), model).restore()
