"""What a training is to TensorFlow under a TPUStrategy, traced without a TPU."""

import json
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.ci  # a described TPU needs a process of its own

SCRIPT = pathlib.Path(__file__).with_name("described_tpu_trace.py")


@pytest.fixture(scope="module")
def trace():
    """What `described_tpu_trace.py` printed of a loop of steps on 2 x 2 cores."""
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_variables_live_on_every_core(trace):
    assert trace["replicas"] == 4
    assert trace["variable_types"] == ["TPUDistributedVariable"]


@pytest.mark.parametrize("normalization", ["frozen", "batch"])
def test_no_variable_differs_between_cores(trace, normalization):
    # A checkpoint takes a variable from the first core. So what a core sees reaches no variable but by a sum over all
    # of them: gradients, moments of the box distances, and the statistics of the normalisation.
    assert trace["assigned_by_core"][normalization] == []
    assert trace["moving_statistics"] > 20
    assert (
        trace["assigned"]["batch"] > trace["assigned"]["frozen"] + trace["moving_statistics"]
    )  # gamma, beta, slots too


def test_each_gradient_is_summed_over_the_cores_once(trace):
    tensors = [shape for shape in trace["summed_shapes"] if shape]
    assert len(tensors) > 40
    moments = [3, 4]  # of the box distances, count and two sums a coordinate, for the self-adjusting loss
    assert tensors == sorted([*trace["trainable_shapes"], moments])
    # Of scalars: the eight losses and counts, and before them the numbers of positives and of regions.
    assert len(trace["summed_shapes"]) - len(tensors) == 10
    assert trace["groups"] == ["[[0 1 2 3]]"]


def test_the_step_of_a_core_must_compile_and_holds_the_sums(trace):
    assert trace["compiled_calls"] == 1
    assert trace["sums_inside"] == len(trace["summed_shapes"])
    assert trace["forbidden_inside"] == []


def test_the_loop_runs_on_the_host_around_the_cores(trace):
    assert {"While", "IteratorGetNext", "TPUReplicateMetadata", "TPUReplicatedInput"} <= set(trace["op_types"])
