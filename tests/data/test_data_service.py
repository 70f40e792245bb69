"""A tf.data service on this machine: the batches of a run without it; what is missing is named."""

import socket
import threading

import pytest
import tensorflow as tf

from tpu_retinamask.data.augment.augmentation import Augmentation
from tpu_retinamask.data.stream import service
from tpu_retinamask.errors import UserError
from tpu_retinamask.programs.data_service import start_dispatcher, start_worker

CHANGES = Augmentation(horizontal_flip=0.5, rot90=0.5, scale_jitter=(0.5, 2.0))


def free_ports(count):
    """Return ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def serve():
    """Start a dispatcher and some of its workers; return its address."""
    running = []

    def start(workers, started=None):
        port, *ports = free_ports(1 + workers)
        start.add = lambda number: running.append(
            start_worker(ports[number], f"localhost:{port}", f"localhost:{ports[number]}")
        )
        addresses = [f"localhost:{number}" for number in ports]
        running.append(start_dispatcher(port, addresses))
        for number in range(workers)[:started]:
            start.add(number)
        return f"grpc://localhost:{port}"

    yield start
    for server in running[::-1]:
        server._stop()  # the object's end would wait for the jobs to end


@pytest.mark.ci
@pytest.mark.parametrize(
    "workers", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]
)
def test_the_batches_are_those_of_one_process_in_the_same_order(
    workers, serve, records, pipeline, samples, assert_same_batch
):
    built = pipeline(max_instances=2, augmentation=CHANGES)
    expected = samples(built.train_dataset(records, 2, 1), 7)
    served = built.train_dataset(records, 2, 1, data_service=serve(workers))
    assert served.element_spec == built.train_dataset(records, 2).element_spec
    for a, b in zip(expected, samples(served, 7), strict=True):
        assert_same_batch(a, b)


@pytest.mark.ci
def test_hosts_and_replicas_are_served_their_own_shares(serve, records, pipeline, samples, assert_same_batch):
    built, address = pipeline(), serve(2)
    for host in (0, 1):
        options = {"replicas": 4, "shard": (host, 2)}
        expected = samples(built.train_dataset(records, 8, **options), 4)
        for a, b in zip(
            expected, samples(built.train_dataset(records, 8, data_service=address, **options), 4), strict=True
        ):
            assert_same_batch(a, b)


def test_a_worker_that_does_not_answer_is_counted(serve):
    with pytest.raises(UserError, match="1 of its 2 workers do not answer: start every worker"):
        service.count_workers(serve(2, started=1), seconds=5.0)
    with pytest.raises(UserError, match="no worker of the dispatcher answered within 1 s"):
        service.count_workers(serve(1, started=0), seconds=1.0)
    serve.add(0)  # so that the question, still waiting, ends before its server does
    for thread in threading.enumerate():
        if thread.name == service.QUESTION:
            thread.join(60.0)
            assert not thread.is_alive()


def test_samples_that_are_not_due_end_the_run():
    due = tf.data.Dataset.from_tensors((tf.constant([4, 5]), (tf.constant([0, 1]), tf.constant(7))))
    with pytest.raises(tf.errors.InvalidArgumentError, match="gave the samples.*were due"):
        next(iter(due.map(service._compare)))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: service.count_workers(f"grpc://localhost:{free_ports(1)[0]}"), "no dispatcher answers there"),
        (lambda: service.count_workers("localhost:5050"), "is not an address such as grpc://10.0.0.2:5050"),
        (lambda: service.count_workers("grpc://localhost"), "is not an address such as"),
        (lambda: start_dispatcher(0, []), "--workers is empty"),
        (lambda: start_dispatcher(0, ["a:1", "a:1"]), "an address stands twice"),
        (lambda: start_dispatcher(0, ["grpc://a:1"]), "is not host:port"),
        (lambda: start_worker(0, f"localhost:{free_ports(1)[0]}", "a:1", seconds=0), "Start the dispatcher first"),
        (lambda: start_worker(0, "localhost:1", "a"), "--address='a' is not host:port"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
