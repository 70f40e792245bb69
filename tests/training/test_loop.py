"""The outer loop: how long its loops are, what it saves and evaluates, and when it stops."""

import itertools
import os
import signal
import types

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.batch_errors import BatchError
from tpu_retinamask.errors import NonFiniteLossError, UserError
from tpu_retinamask.training.checkpoints.files import SaveError
from tpu_retinamask.training.loop import outer_loop
from tpu_retinamask.training.loop.callbacks import Callbacks
from tpu_retinamask.training.loop.device_loop import LoopResult, StepLoop
from tpu_retinamask.training.loop.history import SCORE, History
from tpu_retinamask.training.loop.outer_loop import Processes, loop_length, run_training
from tpu_retinamask.training.loop.progress import Progress
from tpu_retinamask.training.loop.stop_request import StopRequest, TrainingInterrupted

METRICS = {
    "loss": 1.5,
    "class_loss": 0.25,
    "box_loss": 0.5,
    "mask_loss": 0.75,
    "gradient_norm": 3.0,
    "learning_rate": 0.002,
}


class _State:
    """Notes saves instead of writing; those of some steps fail, as often as they are tried."""

    def __init__(self, progress, fails=()):
        self.progress, self.saved, self.fails = progress, [], list(fails)

    def save_best(self, score):
        return None

    def save(self):
        if self.progress.step in self.fails:
            self.fails.remove(self.progress.step)
            raise SaveError(f"ckpt-{self.progress.step} could not be saved: No space left on device")
        self.saved.append(self.progress.step)
        return f"ckpt-{self.progress.step}"


def _train(folder, metrics_of=lambda batch: {}, total_steps=10, start_step=0, fails=(), settled=None, **options):
    """Return what was saved, the length of every loop, and the error; the steps that were settled go into `settled`."""
    settled = [] if settled is None else settled
    progress = Progress(
        str(folder), total_steps=total_steps, steps_per_epoch=8, batch_size=4, log_every=4, start_step=start_step
    )
    state, lengths = _State(progress, fails), []
    steps = StepLoop(lambda batch: METRICS | metrics_of(batch), range(start_step + 1, 100))

    class Loop:
        def __call__(self, count):
            lengths.append(count)
            return steps(count)

        def settle(self):
            settled.append(progress.step)

    error = None
    try:
        run_training(Loop(), state, progress, **{"checkpoint_every": 3, **options})
    except (NonFiniteLossError, TrainingInterrupted, UserError) as caught:  # SaveError too
        error = caught
    return state.saved, lengths, error


@pytest.mark.parametrize(
    "steps_per_loop, lengths",
    [(1, [1] * 10), (2, [1, 1, 1, 1, 2, 2, 1, 1]), (3, [1, 2, 3, 3, 1]), (100, [1, 2, 3, 3, 1])],
)
def test_it_saves_every_so_often_and_at_the_end(tmp_path, steps_per_loop, lengths):
    # The first step is one alone; a loop ends at multiples of its own length, of the saves, and at the last step.
    assert _train(tmp_path, steps_per_loop=steps_per_loop) == ([3, 6, 9, 10], lengths, None)


def test_a_resumed_run_falls_back_into_step(tmp_path):
    assert _train(tmp_path, start_step=4, steps_per_loop=100) == ([6, 9, 10], [1, 1, 3, 1], None)
    assert _train(tmp_path, start_step=10) == ([], [], None)


def test_it_evaluates_every_so_often_and_at_the_end(tmp_path):
    asked = []
    _, lengths, _ = _train(
        tmp_path, evaluate=lambda: asked.append(1) or {"val/a": len(asked) / 4}, evaluate_every=4, steps_per_loop=100
    )
    assert len(asked) == 3 and lengths == [1, 2, 1, 2, 2, 1, 1]  # ends at 3, 4, 6, 8, 9 and 10


@pytest.mark.parametrize(
    "step, boundaries, expected",
    [(0, (500, None), 100), (450, (500, None), 50), (499, (500, 7), 1), (490, (500, 7), 7), (980, (500, 0), 20)],
)
def test_no_loop_crosses_a_boundary(step, boundaries, expected):
    assert loop_length(step, total_steps=1000, steps_per_loop=100, boundaries=boundaries) == expected


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
@pytest.mark.parametrize("steps_per_loop", [1, 3])
def test_a_spoilt_step_is_never_saved(tmp_path, name, steps_per_loop):
    # Step 5 is within a loop, 6 would be saved: with a gradient that is not finite the weights are spoilt.
    for bad in (5, 6):
        saved, _, error = _train(
            tmp_path, lambda batch, bad=bad: {name: float("nan")} if batch == bad else {}, steps_per_loop=steps_per_loop
        )
        assert saved == [3]
        assert str(error).startswith(f"step {bad}: {name} = nan")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_loop_and_stops(tmp_path, number):
    before = signal.getsignal(number)

    def at_step_five(batch):
        if batch == 5:
            os.kill(os.getpid(), number)
        return {}

    with StopRequest().listening() as stop:
        saved, _, error = _train(tmp_path, at_step_five, stop=stop, checkpoint_every=100, steps_per_loop=4)
    assert signal.getsignal(number) is before
    assert saved == [8] and isinstance(error, TrainingInterrupted)  # loops of 1, 3 and 4 steps
    assert error.signal_number == number
    assert "stopped at step 8 of 10" in str(error) and "same command" in str(error)


def test_a_signal_during_an_evaluation_stops_after_it_and_loses_nothing(tmp_path):
    with StopRequest().listening() as stop:
        saved, lengths, error = _train(
            tmp_path,
            stop=stop,
            checkpoint_every=100,
            evaluate=lambda: os.kill(os.getpid(), signal.SIGTERM) or {},
            evaluate_every=4,
        )
    assert saved == [4] and len(lengths) == 4 and "stopped at step 4 of 10" in str(error)


def test_a_slow_training_is_saved_by_the_clock(tmp_path, monkeypatch):
    # Each look at the clock finds it 100 s on: one look a step, and one after each save.
    clock = itertools.count(step=100)
    monkeypatch.setattr(outer_loop, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    saved, lengths, _ = _train(tmp_path, checkpoint_every=0, checkpoint_minutes=5.0)
    assert saved == [3, 6, 9, 10] and lengths == [1] * 10
    assert _train(tmp_path, checkpoint_every=0, checkpoint_minutes=None)[0] == [10]
    assert _train(tmp_path, checkpoint_every=2, checkpoint_minutes=5.0)[0] == [2, 4, 6, 8, 10]


def test_a_sigterm_in_the_last_step_lets_the_run_end(tmp_path):
    stop = StopRequest()
    stop.received = True
    assert _train(tmp_path, stop=stop, total_steps=1) == ([1], [1], None)


def test_devices_that_go_away_are_told(tmp_path):
    def gone(batch):
        if batch == 5:
            raise tf.errors.UnavailableError(None, None, "Socket closed")
        return {}

    saved, _, error = _train(tmp_path, gone)
    assert saved == [3] and isinstance(error, UserError)
    assert str(error).startswith("after step 4 the devices, or the data service, no longer answered (Socket closed)")


def test_variables_are_settled_before_each_save_and_score(tmp_path):
    settled, scored = [], []

    def evaluate():
        scored.append(settled[-1])
        return {}

    saved, _, _ = _train(tmp_path, settled=settled, evaluate=evaluate, evaluate_every=5)
    assert saved == [3, 5, 6, 9, 10] and scored == [5, 10]  # what is scored is saved first
    assert settled == [3, 5, 5, 6, 9, 10, 10]


def test_a_process_that_does_not_write_makes_the_same_loops(tmp_path):
    settled, scored = [], []
    options = {"evaluate": lambda: scored.append(1) or {}, "evaluate_every": 5}
    _, lengths, _ = _train(tmp_path / "one", **options)
    assert scored == [1, 1]
    saved, same, _ = _train(tmp_path / "two", settled=settled, processes=Processes(writes=False), **options)
    assert same == lengths and (saved, settled, scored) == ([], [], [1, 1])


def test_the_stop_of_another_process_stops_this_one(tmp_path):
    asked = []

    def any_says(flag):
        asked.append(flag)
        return len(asked) == 6  # before the third loop, and after it: the second answer of its step

    saved, lengths, error = _train(tmp_path, processes=Processes(any_says=any_says), checkpoint_every=100)
    assert not any(asked) and lengths == [1, 1, 1]
    assert saved == [3] and isinstance(error, TrainingInterrupted)


def test_a_batch_that_cannot_be_made_is_told_with_its_step(tmp_path):
    names = tf.constant([__file__] * 3 + [str(tmp_path / "gone.png")])
    batches = tf.data.Dataset.from_tensor_slices(names).map(lambda name: tf.strings.length(tf.io.read_file(name)))
    loop = StepLoop(lambda batch: {name: tf.constant(value) for name, value in METRICS.items()}, batches)
    progress = Progress(str(tmp_path), total_steps=4, steps_per_epoch=8, batch_size=4, log_every=4, start_step=0)
    with pytest.raises(UserError, match="after step 3 a batch could not be made: .*gone.png; No such file") as error:
        run_training(loop, _State(progress), progress, checkpoint_every=100)
    assert "prepare --verify" in str(error.value)


@pytest.mark.parametrize("as_dataset", [True, False])
def test_an_input_error_is_told_by_where_it_came_from(counting_step, as_dataset):
    # Not one of files: nothing in TensorFlow's words but the operations it passed says that it is of the input.
    numbers = tf.data.Dataset.range(1, 9).map(
        lambda n: tf.debugging.check_numerics(1.0 / tf.cast(4 - n, tf.float32), "x")
    )
    loop = StepLoop(counting_step, numbers if as_dataset else iter(numbers))
    loop(3)
    with pytest.raises(BatchError, match="^a batch could not be made: .*Inf") as error:
        loop(1)
    assert isinstance(error.value.__cause__, tf.errors.OpError)


def test_an_input_error_of_several_replicas_tells_the_first_of_them(counting_step):
    # As two mirrored replicas told it in TensorFlow 2.21; its last line says nothing.
    told = (
        "Graph execution error:\n\nDetected at node ReadFile defined at (most recent call last):\n"
        "<stack traces unavailable>\n2 root error(s) found.\n"
        "  (0) NOT_FOUND:  /data/gone.png; No such file or directory\n\t [[{{node ReadFile}}]]\n\t [[RemoteCall]]\n"
        "  (1) NOT_FOUND:  /data/gone.png; No such file or directory\n\t [[{{node ReadFile}}]]\n\t [[RemoteCall]]\n"
        "0 successful operations.\n0 derived errors ignored. [Op:__inference__steps_199]"
    )

    def batches():
        raise tf.errors.NotFoundError(None, None, told)
        yield

    with pytest.raises(BatchError, match="^a batch could not be made: /data/gone.png; No such file or directory$"):
        StepLoop(counting_step, batches())(1)


def test_an_error_of_a_step_in_the_graph_is_not_taken_for_the_inputs():
    numbers = tf.data.Dataset.range(1, 9).map(lambda number: tf.cast(number, tf.float32))
    loop = StepLoop(lambda number: {"x": tf.debugging.check_numerics(1.0 / (3.0 - number), "ours")}, numbers)
    loop(2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="ours"):
        loop(1)


def test_an_error_of_the_step_itself_is_not_taken_for_the_inputs(tmp_path):
    def fails(batch):
        raise tf.errors.InvalidArgumentError(None, None, "a fault of ours")

    with pytest.raises(tf.errors.InvalidArgumentError, match="a fault of ours"):
        _train(tmp_path, fails)


def test_a_failed_save_is_survived_and_tried_again(tmp_path, said):
    assert _train(tmp_path, fails=[3, 6])[::2] == ([9, 10], None)
    assert "ckpt-6 could not be saved: No space left on device. THE TRAINING GOES ON, SAVED UP TO STEP 0 ONLY" in said()


def test_the_last_save_is_tried_twice_and_must_succeed(tmp_path):
    assert _train(tmp_path, fails=[10])[::2] == ([3, 6, 9, 10], None)
    saved, _, error = _train(tmp_path, fails=[10, 10])
    assert saved == [3, 6, 9] and isinstance(error, SaveError)


def test_a_failed_save_at_a_sigterm_is_an_error(tmp_path):
    stop = StopRequest()
    stop.received = True
    saved, _, error = _train(tmp_path, stop=stop, fails=[1])
    assert saved == [] and isinstance(error, SaveError)


def _scored(folder, scores, start_step=0, **options):
    """Train 10 steps with an evaluation every 2; return saved steps, evaluated steps and the error."""
    history, asked, scores = History(str(folder), start_step, **options), [], iter(scores)
    evaluate = lambda: asked.append(1) or {SCORE: next(scores)}  # noqa: E731
    saved, lengths, error = _train(folder, start_step=start_step, history=history, evaluate=evaluate, evaluate_every=2)
    return saved, [entry["step"] for entry in history.entries if SCORE in entry], error


def test_a_score_that_no_longer_rises_ends_the_training_saved(tmp_path):
    # Best at step 2; steps 4, 6 and 8 are not better; each is saved before it is scored.
    scores = [0.5, 0.4, 0.3, 0.2]
    assert _scored(tmp_path, scores, stop_after=3) == ([2, 3, 4, 6, 8], [2, 4, 6, 8], None)
    assert _scored(tmp_path, [], start_step=8, stop_after=3) == ([], [2, 4, 6, 8], None)  # the same command again


def test_an_evaluation_that_a_kill_prevented_is_made_up(tmp_path):
    _scored(tmp_path, [0.1, 0.2, 0.3, 0.4, 0.5])
    (tmp_path / "history.json").write_text('[{"step": 2, "val/segm/AP": 0.1}, {"step": 4, "val/segm/AP": 0.2}]')
    # Saved at step 6, killed before its evaluation was noted: on going on it comes first.
    assert _scored(tmp_path, [0.3, 0.4, 0.5], start_step=6)[1] == [2, 4, 6, 8, 10]
    (tmp_path / "history.json").unlink()
    assert _scored(tmp_path, [0.5], start_step=10) == ([], [10], None)


@pytest.fixture
def counting_step():
    """A step with a state: step(number) adds to a variable and returns its sum and the number."""
    total = tf.Variable(0.0)

    @tf.function(autograph=False)
    def step(number):
        total.assign_add(number)
        return {"sum": total.read_value(), "number": number}

    return step


@pytest.mark.parametrize("as_dataset", [True, False])
def test_a_loop_of_the_graph_takes_the_batches_in_order_and_is_traced_once(counting_step, as_dataset):
    numbers = tf.data.Dataset.range(1, 100).map(lambda number: tf.cast(number, tf.float32))
    loop = StepLoop(counting_step, numbers if as_dataset else list(numbers))
    found = [loop(count) for count in (1, 3, 2)]
    assert loop.in_graph == as_dataset
    for result, expected in zip(found, ([1], [2, 3, 4], [5, 6])):
        assert isinstance(result, LoopResult) and result.waited >= 0.0
        np.testing.assert_array_equal(result.metrics["number"], expected)
        # 1 + 2 + ... + n: each step sees what the one before has left.
        np.testing.assert_array_equal(result.metrics["sum"], [n * (n + 1) / 2 for n in expected])
    if as_dataset:
        assert loop.traces() == 1
        assert "While" in {op.type for op in loop.trace().graph.get_operations()}
        assert loop.traces() == 1  # the very graph that ran
    else:
        with pytest.raises(TypeError, match="come from Python"):
            loop.trace()


def test_a_step_begins_when_its_wait_has_been_timed(counting_step):
    # One core does one thing at a time: with the clock read after the step, all of the step would count as waiting.
    numbers = tf.data.Dataset.range(1, 100).map(lambda number: tf.cast(number, tf.float32))
    library = StepLoop(counting_step, numbers).trace().graph.as_graph_def().library
    body = next(function for function in library.function if "Timestamp" in {node.op for node in function.node_def})
    nodes = {node.name: node for node in body.node_def}
    step = next(node for node in nodes.values() if node.op.endswith("PartitionedCall"))
    before = [nodes[name[1:]] for name in step.input if name.startswith("^")]
    clock = next(node for node in before if node.op == "Timestamp")  # read once the batch is there
    assert any(nodes[name[1:].split(":")[0]].op == "IteratorGetNext" for name in clock.input if name.startswith("^"))


def test_callbacks_are_told_in_the_order_in_which_things_happen(tmp_path):
    told = []

    class Told(Callbacks):
        def steps(self, last, metrics):
            told.append(f"{len(metrics['loss'])} steps to {last}")

        def evaluated(self, step, scores):
            told.append(f"{scores} at {step}")

        def saved(self, step, path):
            told.append(path)

    _train(
        tmp_path, callbacks=Told(), total_steps=6, steps_per_loop=2, fails=[3],
        evaluate=lambda: {"score": 1.0}, evaluate_every=6,
    )  # fmt: skip
    loops = ["1 steps to 1", "1 steps to 2", "1 steps to 3", "1 steps to 4", "2 steps to 6"]
    assert told == [*loops, "ckpt-6", "{'score': 1.0} at 6"]
