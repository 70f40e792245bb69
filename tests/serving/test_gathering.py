"""Jobs become batches; whoever waits is answered, refused or let go, and the thread outlives all of it."""

import threading

import pytest

from tpu_retinamask.serving.gathering import Closed, Gatherer


class Work:
    """Doubles numbers, once it is let go; a text is an error of its own, None one of all."""

    def __init__(self):
        self.batches, self.let_go = [], threading.Event()

    def __call__(self, items):
        self.batches.append(list(items))
        assert self.let_go.wait(10)
        if None in items:
            raise RuntimeError("a fault")
        return [ValueError(item) if isinstance(item, str) else 2 * item for item in items]


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def gatherer(work):
    made = Gatherer(work, batch_size=3, wait_seconds=0.0)
    yield made
    work.let_go.set()
    made.close()


def _begun(work, count=1):
    deadline = threading.Event()
    for _ in range(1000):
        if len(work.batches) >= count:
            return
        deadline.wait(0.01)
    raise AssertionError(work.batches)


def test_what_came_while_it_worked_goes_together(work, gatherer):
    jobs = [gatherer.submit(0)]
    _begun(work)
    jobs += [gatherer.submit(number) for number in range(1, 6)]
    assert gatherer.waiting == 5
    work.let_go.set()
    assert [job.future.result(10) for job in jobs] == [0, 2, 4, 6, 8, 10]
    assert work.batches == [[0], [1, 2, 3], [4, 5]]


def test_the_first_waits_for_others(work):
    work.let_go.set()
    patient = Gatherer(work, batch_size=2, wait_seconds=30.0)
    first = patient.submit(1)
    second = patient.submit(2)  # full: nobody waits for the rest of the 30 s
    assert (first.future.result(10), second.future.result(10)) == (2, 4)
    assert work.batches == [[1, 2]]
    patient.close()


def test_a_bad_one_does_not_take_the_others_along(work, gatherer):
    work.let_go.set()
    for items, wanted in (((1, "bad"), [2, ValueError]), ((None, 3), [RuntimeError, None]), ((4,), [8])):
        jobs = [gatherer.submit(item) for item in items]
        for job, value in zip(jobs, wanted):
            if isinstance(value, type):
                assert isinstance(job.future.exception(10), value)
            elif value is not None:
                assert job.future.result(10) == value
    assert gatherer.alive


def test_what_is_withdrawn_is_never_worked_on_and_not_kept(work, gatherer):
    first = gatherer.submit(0)
    _begun(work)
    second, third = gatherer.submit(1), gatherer.submit(2)
    assert gatherer.withdraw(second) and gatherer.waiting == 1 and second.future.cancelled()
    assert not gatherer.withdraw(second) and not gatherer.withdraw(first)
    third.future.cancel()  # as a caller may who was cancelled himself
    fourth = gatherer.submit(3)
    work.let_go.set()
    assert fourth.future.result(10) == 6 and first.future.result(10) == 0
    assert work.batches == [[0], [3]]


def test_closed_it_takes_nothing_and_lets_go_of_what_waits(work, gatherer):
    running = gatherer.submit(0)
    _begun(work)
    waiting = gatherer.submit(1)
    work.let_go.set()
    gatherer.close()
    assert waiting.future.cancelled() or waiting.future.result(10) == 2
    assert running.future.result(10) == 0 and not gatherer.alive
    with pytest.raises(Closed):
        gatherer.submit(2)
