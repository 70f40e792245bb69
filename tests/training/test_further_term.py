"""A fourth loss term from outside the package: in the sum, the metrics, the line of progress and the finite check."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.errors import NonFiniteLossError, SettingError, UserError
from tpu_retinamask.model.loss_terms import LOSS_TERMS
from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.devices.placement import compile_step
from tpu_retinamask.training.loop.progress import Progress
from tpu_retinamask.training.step import compute_losses, make_train_step, metric_names

FOUR = ("class", "box", "mask", "toy_size")
OPTIONS = dict(mask_rois=8, mask_rois_from_detections=0)


@LOSS_TERMS.register("toy_size")
def size_loss(given):
    """Mean square of all deltas, over the images of the global batch."""
    squares = tf.add_n([tf.reduce_sum(tf.square(deltas)) for deltas in given.outputs.box_deltas])
    return squares / float(given.batch_size)


@LOSS_TERMS.register("toy_per_image")
def per_image(given):
    """What is no scalar."""
    return tf.reduce_sum(given.outputs.class_logits[0], axis=(1, 2))


def test_it_is_weighed_into_the_sum(small_model, make_batch):
    model, batch = small_model(), make_batch(3, 2)
    three = compute_losses(model, Criterion(**OPTIONS), batch)
    four = compute_losses(model, Criterion(**OPTIONS, terms=FOUR, term_weights={"toy_size": 0.5}), batch)
    deltas = model(batch.image, batch.content_size, training=True).box_deltas
    expected = sum(float(np.sum(np.square(np.asarray(level, np.float64)))) for level in deltas) / 2
    assert expected > 0
    assert float(four.metrics["toy_size_loss"]) == pytest.approx(expected, rel=1e-5)  # float32 sum of 10^4 squares
    assert float(four.total) == pytest.approx(float(three.total) + 0.5 * expected, rel=1e-5)
    assert tuple(four.metrics) == metric_names(Criterion(terms=FOUR)) and "toy_size_loss" not in three.metrics
    for name in ("class_loss", "box_loss", "mask_loss"):
        assert float(four.metrics[name]) == float(three.metrics[name])


@pytest.mark.slow  # parts: test_accumulation
def test_it_trains_in_parts_as_in_one(small_model, built_optimizer, make_batch):
    def run(parts):
        model = small_model()
        optimizer = built_optimizer(model, learning_rate=0.01)
        criterion = Criterion(**OPTIONS, box_loss="smooth_l1", terms=FOUR, term_weights={"toy_size": 0.1})
        step = make_train_step(model, criterion, optimizer, clip_norm=1.0, accumulate_steps=parts)
        step = compile_step(step, jit_compile=False)  # test_extending compiles a further term, test_accumulation parts
        metrics = [{name: float(value) for name, value in step(make_batch(3, 2)).items()} for _ in range(2)]
        return metrics, [variable.numpy() for variable in model.trainable_variables]

    (whole, one), (parts, two) = run(1), run(2)
    assert whole[1]["toy_size_loss"] < whole[0]["toy_size_loss"]  # its gradient reaches the weights
    for first, second in zip(whole, parts):
        assert second == pytest.approx(first, rel=2e-5)  # as in test_step_xla
    for first, second in zip(one, two):
        np.testing.assert_allclose(first, second, rtol=0, atol=3e-4 * np.abs(first).max())


def test_the_line_and_the_finite_check_know_it(tmp_path, caplog):
    metrics = dict.fromkeys(metric_names(Criterion(terms=FOUR)), 0.25) | {"gradient_norm": 1.0, "learning_rate": 0.1}
    options = dict(total_steps=9, steps_per_epoch=1, batch_size=1, log_every=1, start_step=0)
    progress = Progress(str(tmp_path), **options)
    logger = logging.getLogger("tpu_retinamask")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, "tpu_retinamask"):
            progress.update(metrics)
    finally:
        logger.removeHandler(caplog.handler)
    assert "(class 0.2500  box 0.2500  mask 0.2500  toy_size 0.2500)" in caplog.text
    with pytest.raises(NonFiniteLossError, match="step 2: toy_size_loss = nan. "):
        progress.update(metrics | {"toy_size_loss": float("nan")})


def test_a_part_that_no_term_trains_must_be_frozen(small_model, built_optimizer, make_batch):
    def step(**options):
        model = small_model(**options)
        criterion = Criterion(**OPTIONS, terms=("class", "box"))
        return make_train_step(model, criterion, built_optimizer(model), box_statistics=BoxStatistics())

    with pytest.raises(
        UserError, match=r"(?s)depends on 6 of the \d+ variables.*\n  retinamask/roi_mask.*RetinaMask.freeze"
    ):
        step()(make_batch(3, 2))
    assert "mask_loss" not in step(freeze=("roi_mask",))(make_batch(3, 2))


def test_what_is_no_scalar_is_refused(small_model, make_batch):
    with pytest.raises(
        UserError, match=r"loss term 'toy_per_image' returns float32 of shape \(2,\), expected a float32"
    ):
        compute_losses(small_model(), Criterion(**OPTIONS, terms=("class", "toy_per_image")), make_batch(3, 2))


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(terms=("class", "toy_sise")), r"loss term 'toy_sise' is not one of .*did you mean 'toy_size'"),
        (dict(terms=()), "one name or more"),
        (dict(terms=("class", "class")), "each once"),
        (dict(term_weights={"toy_size": 1.0}), "'toy_size', which is not among terms"),
        (dict(term_weights={"box": 2.0}), "'box', whose weight is the setting box_weight"),
        (dict(terms=FOUR, term_weights={"toy_size": "1"}), "'toy_size' the weight '1', expected a number"),
    ],
)
def test_settings_of_terms_that_cannot_be_are_refused(options, words):
    with pytest.raises(SettingError, match=words):
        Criterion(**options)
