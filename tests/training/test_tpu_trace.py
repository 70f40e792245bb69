"""What a training is to TensorFlow under a TPUStrategy, traced without a TPU."""

import json
import pathlib
import subprocess
import sys

import pytest

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


def test_no_variable_differs_between_cores(trace):
    # A checkpoint takes such a variable from the first core, or sums it: either way something would be lost.
    assert trace["aggregated_on_read"] == []


def test_each_gradient_is_summed_over_the_cores_once(trace):
    tensors = [shape for shape in trace["summed_shapes"] if shape]
    assert len(tensors) > 40
    moments = [3, 4]  # of the box distances, count and two sums a coordinate, for the self-adjusting loss
    assert tensors == sorted([*trace["trainable_shapes"], moments])
    # Of scalars: the eight losses and counts, and the number of positives before them.
    assert len(trace["summed_shapes"]) - len(tensors) == 9
    assert trace["groups"] == ["[[0 1 2 3]]"]


def test_the_step_of_a_core_must_compile_and_holds_the_sums(trace):
    assert trace["compiled_calls"] == 1
    assert trace["sums_inside"] == len(trace["summed_shapes"])
    assert trace["forbidden_inside"] == []


def test_the_loop_runs_on_the_host_around_the_cores(trace):
    assert {"While", "IteratorGetNext", "TPUReplicateMetadata", "TPUReplicatedInput"} <= set(trace["op_types"])
