"""Pictures in batches of fixed sizes: each its own answer, on its own canvas, whatever it came with."""

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.structures import Detections
from tpu_retinamask.tasks.picture_batches import PictureBatches

CANVASES = ((32, 64), (64, 32))


class StandIn:
    """Finds the whole content of each canvas, with its brightness as the score; nothing in what fills a batch up."""

    def __init__(self):
        self.shapes = []

    def make(self):
        def detector(batch):
            self.shapes.append(tuple(batch.image.shape))
            size = tf.cast(batch.content_size, tf.float32)
            boxes = tf.stack([0 * size[:, 0], 0 * size[:, 0], size[:, 1], size[:, 0]], 1)[:, None]
            scores = tf.cast(batch.image[:, 0, 0, :1], tf.float32) / 255
            classes = tf.where(batch.content_size[:, :1] > 0, 0, -1)
            masks = tf.ones([len(scores), 1, 2, 2])
            return Detections(boxes, scores, classes, masks, tf.zeros([len(scores)], tf.int32))

        return detector


@pytest.fixture(scope="module")
def stand_in():
    return StandIn()


@pytest.fixture(scope="module")
def batches(stand_in):
    pipeline = InputPipeline(image_size=CANVASES, augmentation=None)
    return PictureBatches(stand_in.make, pipeline, ClassNames(("cell",)), (1, 3))


def test_each_picture_gets_its_own_answer_from_its_own_canvas(batches, stand_in):
    stand_in.shapes.clear()
    sizes = [(16, 32), (40, 20), (16, 30), (8, 16)]
    pictures = [np.full((*size, 3), 50 * (1 + number), np.uint8) for number, size in enumerate(sizes)]
    found = batches([batches.fit(picture) for picture in pictures])
    assert [one.size for one in found] == sizes
    np.testing.assert_allclose([one.scores[0] for one in found], np.array([50, 100, 150, 200]) / 255, rtol=1e-6)
    for one, (height, width) in zip(found, sizes):  # in pixels of the picture, whatever its scale
        np.testing.assert_allclose(one.boxes, [[0, 0, width, height]], atol=0.5)
        assert one.names == ("cell",) and one.mask_probabilities.shape == (1, 2, 2)
    assert sorted(stand_in.shapes) == [(1, 64, 32, 3), (3, 32, 64, 3)]  # alone, and three together


def test_two_fill_up_the_program_of_three(batches, stand_in):
    stand_in.shapes.clear()
    picture = batches.fit(np.full((16, 32, 3), 255, np.uint8))
    assert [len(one.scores) for one in batches([picture, picture])] == [1, 1] and batches.most == 3
    assert stand_in.shapes == [(3, 32, 64, 3)] and batches([]) == []


def test_every_program_is_run_before_a_picture_comes(batches, stand_in):
    stand_in.shapes.clear()
    batches.compile()
    assert sorted(stand_in.shapes) == [(1, 32, 64, 3), (1, 64, 32, 3), (3, 32, 64, 3), (3, 64, 32, 3)]
