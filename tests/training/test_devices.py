"""Strategies, shares of a batch, and files that a TPU's hosts cannot open."""

import types

import pytest
import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.training.devices import placement


class _Pod:
    """Two hosts of four replicas each, as far as the input is concerned."""

    num_replicas_in_sync = 8

    def distribute_datasets_from_function(self, of_host):
        return [of_host(types.SimpleNamespace(input_pipeline_id=index, num_input_pipelines=2)) for index in range(2)]


def test_each_host_of_a_pod_makes_its_own_share():
    asked = []

    def make_dataset(*args, **kwargs):
        asked.append((args, kwargs))

    placement.distribute_batches(_Pod(), make_dataset, 64, 5)
    assert asked == [((64, 5), {"replicas": 8, "shard": (0, 2)}), ((64, 5), {"replicas": 8, "shard": (1, 2)})]


def test_one_device_gets_the_whole_batch():
    strategy = placement.make_strategy()
    assert placement.distribute_batches(strategy, lambda *args: args, 6, 5) == (6, 5)
    assert not placement.is_tpu(strategy)


def test_a_batch_that_does_not_divide_is_refused_by_its_number():
    assert placement.replica_batch_size(_Pod(), 64) == 8
    with pytest.raises(UserError, match="train.batch_size is 36, which 8 replicas cannot share.* a multiple of 8"):
        placement.distribute_batches(_Pod(), None, 36, 0)


def test_files_of_this_machine_are_refused_where_a_tpu_is_reached_over_the_network(monkeypatch):
    paths = [("--model_dir", "gs://bucket/run"), ("image", "photos/a.jpg"), ("image", "photos/b.jpg")]
    placement.refuse_local_paths(paths)  # no TPU at all
    for job, refused in (("localhost", False), ("worker", True)):
        found = [types.SimpleNamespace(name=f"/job:{job}/replica:0/task:0/device:TPU:0")]
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind, found=found: found)
        placement.refuse_local_paths(paths[:1])
        if refused:
            with pytest.raises(UserError, match="^image photos/a.jpg is a file of this machine.*job:worker.*gs://"):
                placement.refuse_local_paths(paths)
        else:
            placement.refuse_local_paths(paths)


@pytest.mark.parametrize(
    "tpu, replicas, words",
    [
        (None, 0, "--replicas=0: expected 1 or more"),
        ("local", 2, "leave --replicas out"),
        ("fake:4", 1, "expected cores along x and y, such as fake:2x2"),
        ("fake:0x2", 1, "fake:2x2"),
    ],
)
def test_choices_that_make_no_sense_are_refused(tpu, replicas, words):
    with pytest.raises(UserError, match=words):
        placement.make_strategy(tpu, replicas)
