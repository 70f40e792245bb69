"""One picture fitted into the canvas alone: the very pixels of the evaluation pipeline."""

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf


@pytest.mark.parametrize("options", [{}, {"min_side": 30, "max_side": 36}, {"min_side": (20, 40), "eval_min_side": 25}])
def test_a_fitted_picture_is_that_of_evaluation(options, records, pipeline, samples):
    built = pipeline(**options)
    for image, sample in zip(records, samples(built.eval_dataset(records, 1)), strict=True):
        fitted = built.fit(tf.constant(np.asarray(PIL.Image.open(image.image).convert("RGB"))))
        np.testing.assert_array_equal(fitted.image, sample.image)
        np.testing.assert_array_equal(fitted.content_size, sample.content_size)
        assert fitted.scale.numpy() == sample.image_scale
        assert fitted.scale.numpy() == np.float32(built.scales_of([image])[image.height, image.width])
    assert fitted.image.shape == (*built.image_size, 3) and fitted.image.dtype == tf.uint8
