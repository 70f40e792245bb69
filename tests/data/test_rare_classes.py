"""Images of rare classes are shown more often, as LVIS' formula says, and a run still knows each sample."""

import collections
import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance
from tpu_retinamask.data.image_arrays import image_arrays
from tpu_retinamask.data.stream.sample_order import repeat_factors, sample_order
from tpu_retinamask.errors import SettingError


def image(number, *classes):
    instances = tuple(AnnotatedInstance(1, (0.0, 0.0, 4.0, 4.0), class_id, None) for class_id in classes)
    return AnnotatedImage(f"{number}.png", f"{number}.png", number, 8, 8, 1, instances)


# Class 0 in 8 of 10 images, class 1 in 2, class 2 in 1; one image is empty.
IMAGES = [image(i, 0, 0) for i in range(6)] + [image(6, 0, 1), image(7, 1, 0), image(8, 2), image(9)]


def shown(order, seed, epochs, start=0):
    @tf.function
    def of(numbers):
        return tf.map_fn(lambda n: order.position(n, seed)[0], numbers)

    return of(tf.range(start, start + epochs * order.length, dtype=tf.int64)).numpy().reshape(epochs, order.length)


def test_factors_by_hand():
    factors = repeat_factors(image_arrays(IMAGES), 0.4)
    assert factors[:6].tolist() == [1.0] * 6
    np.testing.assert_allclose(factors[6:], [2**0.5, 2**0.5, 2.0, 1.0], rtol=1e-15)


def test_an_epoch_shows_each_image_as_often_as_its_factor_rounded_down_or_up_and_on_the_mean_exactly():
    factors = repeat_factors(image_arrays(IMAGES), 0.4)
    order = sample_order(10, factors)
    assert order.length == 12  # of 7 + 2 * 1.414 + 2 = 11.83
    stretched = factors * 12 / factors.sum()
    epochs = shown(order, seed=3, epochs=400)
    counts = np.stack([np.bincount(epoch, minlength=10) for epoch in epochs])
    assert np.all(counts >= np.floor(stretched)) and np.all(counts <= np.ceil(stretched))
    # The deviation of the mean of 400 draws between two whole numbers is at most 0.5 / 20.
    np.testing.assert_allclose(counts.mean(axis=0), stretched, atol=4 * 0.5 / 20)
    assert (
        len({tuple(epoch) for epoch in epochs.tolist()}) > 300
    )  # of 400, in orders of their own; tf's index_shuffle of 12 repeats some


def test_without_rare_classes_the_order_is_the_one_without_the_setting():
    plain, same = sample_order(10), sample_order(10, np.ones(10))
    assert same.length == 10
    for epoch in shown(same, seed=1, epochs=50):
        assert sorted(epoch) == list(range(10))
    assert collections.Counter(shown(plain, 1, 1)[0].tolist()) == collections.Counter(range(10))


def test_factors_never_leave_an_image_out():
    rng = np.random.default_rng(0)
    factors = 1 + rng.exponential(1.0, 200)
    order = sample_order(200, factors)
    for epoch in shown(order, seed=7, epochs=5):
        assert set(epoch) == set(range(200))


def test_a_resumed_run_gets_the_batches_that_it_would_have_got(records, pipeline, samples, assert_same_batch):
    built = dataclasses.replace(pipeline(max_instances=2, seed=4), repeat_rare=1.0)
    assert built.order_of(records).length > len(records)
    whole = samples(built.train_dataset(records, 4), 5)
    resumed = samples(built.train_dataset(records, 4, 3), 2)
    for got, expected in zip(resumed, whole[12:], strict=True):
        assert_same_batch(got, expected)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.5])
def test_a_share_that_is_none_is_refused(value, pipeline):
    with pytest.raises(SettingError, match=f"repeat_rare is {value}, expected a share of the images above 0, up to 1"):
        dataclasses.replace(pipeline(), repeat_rare=value)
