"""What a run remembers of its losses and scores: the best, early stopping, collapse, and a restart in between."""

import json

import pytest

from tpu_retinamask.training.checkpoints.files import SaveError
from tpu_retinamask.training.loop.history import SCORE, History


def _scores(folder, scores, first=1, **options):
    """Return the history after evaluations at steps 10, 20, ... and the step at which it said stop."""
    history, stopped = History(str(folder), (first - 1) * 10, **options), None
    for number, score in enumerate(scores, first):
        history.evaluated(number * 10, {SCORE: score, "val/bbox/AP": 1.0})
        if history.stop_reason and stopped is None:
            stopped = number * 10
    return history, stopped


@pytest.mark.parametrize(
    "stop_after, scores, expected",
    [
        (2, [0.1, 0.3, 0.2, 0.3, 0.4], 40),  # an equal score is not a better one
        (2, [0.1, 0.3, 0.2, 0.31, 0.3, 0.2], 60),
        (1, [0.1, 0.1], 20),
        (3, [0.1, 0.2, 0.3, 0.4], None),
        (1, [float("nan"), float("nan"), 0.0], None),  # validation images without objects have no score
        (None, [0.3] + [0.1] * 20, None),
    ],
)
def test_early_stopping_by_hand(tmp_path, stop_after, scores, expected):
    history, stopped = _scores(tmp_path, scores, stop_after=stop_after)
    assert stopped == expected
    if stopped:
        assert f"mask AP has not risen above {max(scores[: stopped // 10]):.4f}" in history.stop_reason


def test_a_restart_goes_on_counting_and_forgets_what_is_to_come_again(tmp_path):
    _scores(tmp_path, [0.5, 0.4, 0.3, 0.2], stop_after=9)
    history, stopped = _scores(tmp_path, [0.3, 0.2], first=3, stop_after=3)  # it went on from step 20
    assert [entry["step"] for entry in history.entries] == [10, 20, 30, 40]
    assert stopped == 40
    assert history.scored(40) and not history.scored(50)
    assert History(str(tmp_path), 40, stop_after=3).stop_reason  # the same command once more has nothing to do
    assert not History(str(tmp_path), 40, stop_after=4).stop_reason  # more patience lets it go on
    assert json.loads((tmp_path / "history.json").read_text())[0] == {"step": 10, SCORE: 0.5}


def test_no_mask_found_k_times_in_a_row_is_told_once(tmp_path, said):
    history, stopped = _scores(tmp_path, [0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0], collapse_after=3)
    assert stopped is None and not history.stop_reason
    assert said().count("mask AP is 0, in each of the last 3 evaluations") == 1 and "--debug" in said()


def test_collapse_stops_where_asked(tmp_path):
    assert _scores(tmp_path, [0.0] * 4, collapse_after=3, stop_collapsed=True)[1] == 30


@pytest.mark.parametrize(
    "losses, score, flat",
    [
        ([2.0, 2.0, 1.99, 2.0], None, True),
        ([2.0, 1.9, 1.8, 1.7], None, False),  # it falls
        ([2.0, 1.0, 1.0, 1.0], None, False),  # it fell
        ([2.0, 2.0, 2.0], None, False),  # three more than the first are asked for
        ([1.0, 1.0, 1.0, 1.0], 0.4, False),  # it has converged
        ([1.0, 1.0, 1.0, 1.0], 0.0, True),
    ],
)
def test_a_flat_loss_by_hand(tmp_path, said, losses, score, flat):
    history = History(str(tmp_path), collapse_after=3)
    for number, loss in enumerate(losses, 1):
        if score is not None:
            history.evaluated(number * 5, {SCORE: score})
        history.count([loss - 0.5, loss + 0.5])  # their mean counts
        history.end_interval(number * 5)
    assert history.entries[-1]["loss"] == pytest.approx(losses[-1])
    assert ("the loss does not fall" in said() or "mask AP is 0" in said()) == flat


class _Saves:
    """Notes the scores it is given, or fails."""

    def __init__(self, error=None):
        self.error, self.scores = error, []

    def save_best(self, score):
        if self.error:
            raise self.error
        self.scores.append(score)


def test_every_score_is_offered_to_the_best_checkpoint_and_a_failed_save_is_survived(tmp_path, said):
    history, saves = History(str(tmp_path)), _Saves()
    for step, score in enumerate([0.1, float("nan"), 0.3], 1):
        history.evaluated(step, {SCORE: score}, saves)
    assert saves.scores == [0.1, 0.3]
    history.evaluated(4, {SCORE: 0.4}, _Saves(SaveError("best/ckpt-4 could not be saved: full")))
    assert "best/ckpt-4 could not be saved: full; the training goes on" in said()


def test_a_kill_inside_the_save_of_the_best_leaves_the_evaluation_to_be_made_again(tmp_path):
    class Killed(BaseException):
        pass

    with pytest.raises(Killed):
        History(str(tmp_path)).evaluated(10, {SCORE: 0.4}, _Saves(Killed()))
    assert not History(str(tmp_path), 10).scored(10)


def test_an_evaluation_without_masks_is_told_once(tmp_path, said):
    history, saves = History(str(tmp_path), stop_after=1), _Saves()
    for step in (1, 2, 3):
        history.evaluated(step, {SCORE: float("nan")}, saves)
    assert said().count("the evaluation gives no mask AP") == 1 and "train.stop_after has nothing to go by" in said()
    assert not saves.scores and history.scored(3)


def test_a_history_that_cannot_be_read_or_written_is_told(tmp_path, said):
    (tmp_path / "history.json").write_text("[{")
    assert History(str(tmp_path)).entries == []
    assert "history.json cannot be read and starts anew" in said()
    (tmp_path / "history.json").unlink()
    (tmp_path / "history.json").mkdir()
    (tmp_path / "history.json" / "x").write_text("")
    history = History(str(tmp_path / "elsewhere"))
    history.path = str(tmp_path / "history.json")
    history.evaluated(1, {SCORE: 0.5})
    assert "history.json could not be written" in said()
