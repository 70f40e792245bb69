"""The step on PJRT: TensorFlow's numbers; four replicas, or two processes, as one device; no state is copied."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
from programs import killed_runs

pytestmark = pytest.mark.ci  # eight programs are compiled

pytest.importorskip("jax", reason="NO JAX: Python 3.10 has none that is supported, so nothing ran on PJRT here")

SCRIPT = pathlib.Path(__file__).with_name("pjrt_steps.py")
STEPS = 20
SETTINGS = [
    # With detections among the regions a rounding could swap two of nearly equal score; batch statistics of single
    # images divide by variances near zero. Everything else that a step can do is in it: accumulated parts, the average
    # of the weights, the self-adjusting box loss, momentum, the schedule.
    "RetinaMask.normalization = 'group'",
    "Criterion.mask_rois_from_detections = 0",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Start pjrt_steps.py; run(name, flag, ..., **environment) returns a function that waits for what it saved."""
    folder = tmp_path_factory.mktemp("pjrt_steps")
    killed_runs.write_annotations(folder)

    def start(name, *flags, **environment):
        output = folder / f"{name}.npz"
        command = [sys.executable, SCRIPT, output, f"--folder={folder}", f"--steps={STEPS}", "--batch=8", *flags]
        process = subprocess.Popen(
            [*map(str, command), *(f"--gin_param={line}" for line in SETTINGS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Optimised, unlike other tests: here the steps take longer than compiling them.
            env=os.environ | {"XLA_FLAGS": ""} | environment,
        )

        def wait():
            # Replicas that never meet must not hold up all other tests.
            said, errors = process.communicate(timeout=900)
            assert process.returncode == 0, errors[-3000:]
            return np.load(output), json.loads(said.strip().splitlines()[-1]) if said.strip() else None

        return wait

    return start


@pytest.fixture(scope="module")
def one(run):
    """What one device of PJRT did."""
    return run("one", "--runtime=pjrt")()


@pytest.fixture(scope="module")
def tensorflow(run):
    """What TensorFlow's compiled step did."""
    return run("tensorflow", "--runtime=tensorflow")()[0]


def assert_metrics_equal(some, one):
    """Compare the metrics of each step.

    In the first two steps only roundings differ: the order of sums, another release of the compiler. They grow with
    each step, as a ReLU at zero or a pool's second largest is taken for the other, and the norm of the gradients,
    whose terms nearly cancel, sees it first.
    """
    for name in [name for name in one.files if name.startswith("metric ")]:
        assert len(one[name]) == len(some[name]) == STEPS
        np.testing.assert_allclose(some[name][:2], one[name][:2], rtol=2e-5, err_msg=name)
        later = 0.1 if name == "metric gradient_norm" else 1e-2
        np.testing.assert_allclose(some[name], one[name], rtol=later, err_msg=name)


def test_the_losses_are_those_of_tensorflow_for_20_steps(one, tensorflow):
    names = {"metric loss", "metric mask_loss", "metric box_beta", "metric gradient_norm", "metric num_positive"}
    assert names <= set(tensorflow.files)
    assert_metrics_equal(one[0], tensorflow)
    loss = tensorflow["metric loss"]
    assert loss[-1] < 0.9 * loss[0]  # it learns: the steps are not all alike


def test_nothing_of_the_state_is_copied(one):
    memory, state = one[1]["memory"], one[1]["state"]
    assert memory["alias"] == state  # each variable's new value lies where the old one did
    assert memory["peak"] <= 1.1 * (state + memory["temporary"])


def assert_equal(some, one):
    """Compare all numbers of the state after two steps, by the norm of each tensor, and the metrics."""
    apart = {}
    for name in [name for name in one.files if name.startswith("early ")]:
        norm = np.linalg.norm(one[name].astype(np.float64))
        apart[name] = np.linalg.norm(some[name].astype(np.float64) - one[name]) / max(norm, 1e-4)
    assert len(apart) > 150
    # Rounding alone is a few 1e-6. A value within it of a ReLU's zero, or of the largest of a pool's window, passes its
    # gradient or another's: then the tensors of that layer, one channel of them, are further apart than all others.
    assert np.quantile(list(apart.values()), 0.9) < 1e-5
    assert max(apart.values()) < 1e-2, max(apart, key=apart.get)
    assert_metrics_equal(some, one)


def test_four_replicas_equal_one_device(run, one):
    four, said = run("four", "--runtime=pjrt", "--replicas=4")()
    assert_equal(four, one[0])
    assert said["apart"] == 0  # the four copies, to the bit


def test_two_processes_of_two_devices_equal_one_device(run, one):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        run(
            f"process{number}",
            "--runtime=pjrt",
            "--replicas=4",
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(number),
        )
        for number in range(2)
    ]
    (first, _), (second, _) = [wait() for wait in processes]
    assert_equal(first, one[0])
    assert all(np.array_equal(first[name], second[name]) for name in first.files)
