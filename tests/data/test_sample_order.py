"""The samples of a step, shared among replicas and hosts: always those of one host with one replica."""

import numpy as np
import pytest

from tpu_retinamask.data.augment.augmentation import Augmentation
from tpu_retinamask.data.stream.sample_order import sample_numbers
from tpu_retinamask.errors import UserError

CHANGES = Augmentation(horizontal_flip=0.5, rot90=0.5, scale_jitter=(0.5, 2.0))


def numbers(count, *options):
    return [int(number) for number in sample_numbers(*options).take(count)]


def test_shares_by_hand():
    assert numbers(9, 8, 0, 1, (0, 1)) == list(range(9))
    assert numbers(8, 8, 0, 4, (0, 2)) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert numbers(8, 8, 3, 4, (1, 2)) == [28, 29, 30, 31, 36, 37, 38, 39]


@pytest.mark.parametrize("replicas, hosts", [(1, 1), (2, 1), (4, 1), (2, 2), (4, 2), (4, 4), (12, 3)])
@pytest.mark.parametrize("start", [0, 5])
def test_hosts_together_show_every_sample_of_a_step_once_and_in_order(replicas, hosts, start):
    share = 24 // hosts
    taken = [numbers(3 * share, 24, start, replicas, (host, hosts)) for host in range(hosts)]
    for step in range(3):
        together = [number for host in taken for number in host[step * share : (step + 1) * share]]
        assert together == list(range((start + step) * 24, (start + step + 1) * 24))


@pytest.mark.parametrize("replicas, hosts, start", [(2, 1, 0), (2, 2, 0), (4, 2, 3)])
def test_the_batches_of_all_replicas_are_the_global_batch_to_the_bit(
    replicas, hosts, start, records, pipeline, samples, assert_same_batch
):
    built = pipeline(max_instances=2, augmentation=CHANGES, seed=4)
    whole = samples(built.train_dataset(records, 4), start + 2)[4 * start :]  # two steps of four samples
    per_host = replicas // hosts
    found = {}
    for host in range(hosts):
        dataset = built.train_dataset(records, 4, start, replicas=replicas, shard=(host, hosts))
        assert dataset.element_spec.image.shape[0] == 4 // replicas
        for index, batch in enumerate(dataset.take(2 * per_host)):
            found[index // per_host, host * per_host + index % per_host] = batch
    for step in range(2):
        fields = zip(*(found[step, replica] for replica in range(replicas)))
        joined = [np.concatenate(field) for field in fields]
        for image in range(4):
            assert_same_batch([field[image] for field in joined], whole[step * 4 + image])


@pytest.mark.parametrize(
    "batch_size, replicas, shard, message",
    [
        (6, 4, (0, 1), "batch_size is 6, which 4 replicas cannot share equally: choose a multiple of 4"),
        (0, 1, (0, 1), "batch_size is 0"),
        (8, 4, (0, 3), "4 replicas on 3 hosts: expected a positive multiple of the hosts"),
        (8, 0, (0, 1), "0 replicas on 1 hosts"),
        (8, 4, (2, 2), r"shard is \(2, 2\), expected \(number of this host from 0"),
        (8, 4, (0, 0), r"shard is \(0, 0\)"),
    ],
)
def test_what_cannot_be_shared_is_refused(batch_size, replicas, shard, message, records, pipeline):
    with pytest.raises(UserError, match=message):
        pipeline().train_dataset(records, batch_size, replicas=replicas, shard=shard)
