"""Several canvases: each picture on the one that it fills, each as often as any other, and every sample known."""

import collections
import itertools

import numpy as np
import pytest

from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance
from tpu_retinamask.data.augment.augmentation import Augmentation
from tpu_retinamask.data.image_arrays import image_arrays
from tpu_retinamask.data.stream.canvases import (
    Turns,
    filled,
    propose_canvases,
    scored_parts,
    training_batches,
    training_parts,
    turns,
)
from tpu_retinamask.data.subset import subset
from tpu_retinamask.errors import SettingError
from tpu_retinamask.structures import Batch

# Of the pictures of `scene`, 24 x 32, 20 x 16 and 12 x 40, each fills one of these.
CANVASES = ((48, 64), (60, 48), (32, 96))


def image(number, height, width, *classes):
    instances = tuple(AnnotatedInstance(1, (0.0, 0.0, 4.0, number + 1.0), class_id, None) for class_id in classes)
    return AnnotatedImage(f"{number}.png", f"{number}.png", number, height, width, 1, instances)


def arrays_of(batch):
    return Batch(*(np.asarray(field) for field in batch))


@pytest.mark.parametrize(
    "size,canvas",
    [
        ((10, 20), 0),  # fills 32 x 64
        ((30, 15), 1),
        ((7, 7), 2),
        ((10, 13), 2),  # 0.77 of the square, 0.65 of the wide one
        ((10, 15), 0),  # 0.67 of the square, 0.75 of the wide one
    ],
)
def test_a_picture_goes_to_the_canvas_that_it_fills(pipeline, size, canvas):
    several = pipeline(image_size=((32, 64), (64, 32), (48, 48)))
    assert several.canvas_of(np.array([size])).tolist() == [canvas]
    assert several.of_size(*size).canvases == (several.canvases[canvas],)


def test_of_canvases_that_are_filled_alike_the_picture_takes_the_one_on_which_it_is_largest(pipeline):
    assert pipeline(image_size=((32, 32), (64, 64), (48, 48))).canvas_of(np.array([[10, 10], [100, 100]])).tolist() == [
        1,
        1,
    ]
    # A side of 32 is as much as is wanted: the small canvas is full of it.
    assert pipeline(image_size=((64, 64), (32, 32)), min_side=32).canvas_of(np.array([[10, 10]])).tolist() == [1]


def test_batches_are_those_of_their_canvas_alone(records, pipeline, samples, assert_same_batch):
    several = pipeline(image_size=CANVASES, augmentation=Augmentation(horizontal_flip=0.5, scale_jitter=(0.5, 2.0)))
    parts = training_parts(several, records)
    assert [part.pipeline.canvases for part in parts] == [(canvas,) for canvas in CANVASES]
    assert [[one.name for one in part.images] for part in parts] == [["a.png"], ["b.png"], ["c.png"]]
    found = [arrays_of(batch) for batch in itertools.islice(training_batches(several, records, 2), 6)]
    assert [batch.image.shape[1:3] for batch in found] == [*CANVASES, *CANVASES]
    for canvas, record in zip(CANVASES, records):
        alone = iter(several.on(canvas).train_dataset([record], 2))
        for batch in found:
            if batch.image.shape[1:3] == canvas:
                assert_same_batch(batch, arrays_of(next(alone)))


def test_one_canvas_written_as_several_is_one(records, pipeline, assert_same_batch):
    one, listed = pipeline(image_size=(48, 64)), pipeline(image_size=((48, 64),))
    for a, b in zip(
        itertools.islice(training_batches(one, records, 2), 3), training_batches(listed, records, 2), strict=False
    ):
        assert_same_batch(arrays_of(a), arrays_of(b))


def test_each_picture_is_shown_as_often_as_any_other(pipeline):
    images = [image(i, 20, 40) for i in range(5)] + [image(5 + i, 40, 20) for i in range(3)]
    parts = training_parts(pipeline(image_size=((32, 64), (64, 32))), images)
    order = turns(parts, 4)
    # Wide ones at 1, 3, 5, 7 and 9 tenths of a round, tall ones at 1, 3 and 5 sixths.
    assert order.round.tolist() == [0, 1, 0, 0, 1, 0, 1, 0]
    shown = collections.Counter(order.part(step) for step in range(80))
    assert shown == {0: 50, 1: 30}  # batches of 4: 40 of each picture


def test_a_run_goes_on_where_it_stopped(pipeline):
    parts = training_parts(pipeline(image_size=((32, 64), (64, 32))), [image(0, 2, 4), image(1, 4, 2), image(2, 2, 4)])
    whole = turns(parts, 4)
    made = [0, 0]
    for step in range(20):
        rest = turns(parts, 4, 4 * step)
        assert rest.before() == made
        assert [rest.part(later) for later in range(7)] == [whole.part(step + later) for later in range(7)]
        made[whole.part(step)] += 1
    # 18 samples in batches of another size: four batches of four are whole, and the fifth is the next.
    assert turns(parts, 4, 18).before() == turns(parts, 4, 20).before()


def test_turns_by_hand():
    order = Turns(np.array([0, 1, 0]), 5)
    assert [order.part(step) for step in range(4)] == [0, 0, 1, 0]
    assert order.before() == [3, 2]


def test_each_side_has_its_canvas_and_each_picture_each_side(pipeline):
    images = [image(i, 30, 40) for i in range(3)] + [image(3, 40, 30)]
    several = pipeline(image_size=((36, 48), (60, 80), (48, 36), (80, 60)), min_side=(30, 60), eval_min_side=36)
    parts = training_parts(several, images)
    assert [(part.pipeline.canvases[0], part.pipeline.min_side, len(part.images)) for part in parts] == [
        ((36, 48), 30, 3),
        ((48, 36), 30, 1),
        ((60, 80), 60, 3),
        ((80, 60), 60, 1),
    ]
    assert collections.Counter(turns(parts, 1).round.tolist()) == {0: 3, 1: 1, 2: 3, 3: 1}
    assert [(part.pipeline.canvases[0], len(part.images)) for part in scored_parts(several, images)] == [
        ((36, 48), 3),
        ((48, 36), 1),
    ]


def test_every_picture_is_scored_once_on_its_canvas(records, pipeline, samples, assert_same_batch):
    several = pipeline(image_size=CANVASES)
    found = [
        one for part in scored_parts(several, records) for one in samples(part.pipeline.eval_dataset(part.images, 2))
    ]
    assert [int(one.image_id) for one in found] == [0, -1, 1, -1, 2, -1]
    for canvas, one, record in zip(CANVASES, found[::2], records):
        (expected,) = samples(pipeline(image_size=canvas).eval_dataset([record], 1))
        assert_same_batch(one, expected)


def test_rare_classes_are_counted_among_all_images(pipeline):
    images = [image(i, 20, 40, 0) for i in range(7)] + [image(7, 40, 20, 0, 1)]
    several = pipeline(image_size=((32, 64), (64, 32)), repeat_rare=0.5)
    wide, tall = training_parts(several, images)
    assert several.order_of(images).length == 9 == wide.pipeline.order_of(wide.images).length + 2
    # The class is in one image of eight: sqrt(0.5 * 8) = 2 times; of the images of its canvas it would be in each.
    assert tall.pipeline.order_of(tall.images).length == 2


def test_some_images_are_those_of_the_whole(records):
    some = subset(records, np.array([2, 1, 0]))
    assert [one.name for one in some] == ["c.png", "b.png", "a.png"] and len(some) == 3
    assert some[1:] == [records[1], records[0]]
    for found, expected in zip(image_arrays(some), image_arrays(records[::-1])):
        np.testing.assert_array_equal(found, expected)


def test_the_share_that_is_filled_by_hand(pipeline):
    sizes = np.array([[20, 40], [40, 20], [20, 20], [20, 20]])
    assert filled(pipeline(image_size=(64, 64)), sizes) == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)
    assert filled(pipeline(image_size=((32, 64), (64, 32))), sizes) == pytest.approx((1 + 1 + 0.5 + 0.5) / 4)
    # A side of 32 on 64 x 64: of a square a quarter.
    assert filled(pipeline(image_size=(64, 64), min_side=32), sizes) == pytest.approx((0.5 + 0.5 + 0.25 + 0.25) / 4)


def test_canvases_are_proposed_that_pictures_fill(pipeline):
    sizes = np.array([[300, 400]] * 5 + [[400, 300]] * 3 + [[290, 400]])
    square = pipeline(image_size=(128, 128))
    # 93 x 128 is as much on a multiple of 32 as 96 x 128 is.
    assert propose_canvases(square, sizes, 4) == ((96, 128), (128, 96))
    assert propose_canvases(square, sizes, 1) == ((128, 128),)
    # A picture stays as large as on the canvas it had.
    several = pipeline(image_size=propose_canvases(square, sizes, 2))
    assert several.scales_of([image(0, 300, 400)]) == square.scales_of([image(0, 300, 400)])
    # A tall canvas and the widest one are the fewest pixels: 64 x 128 costs the one picture of its shape 32 rows there.
    assert propose_canvases(square, np.array([[150, 300]] + [[300, 400]] * 5 + [[400, 300]] * 5), 2) == (
        (96, 128),
        (128, 96),
    )
    sides = pipeline(image_size=(128, 128), min_side=(32, 64))
    assert propose_canvases(sides, np.array([[10, 20]]), 2) == ((32, 64), (64, 128))


@pytest.mark.parametrize(
    "wrong,words",
    [
        ((), "image_size is .*expected .height, width., or several, each once"),
        (((32, 64), (32, 64)), "each once"),
        (((32, 64), (0, 64)), "image_size is .*positive numbers"),
        (((32, 64), 64), "image_size is"),
        ((32, 64, 32), "image_size is"),
    ],
)
def test_what_is_no_canvas_is_refused(pipeline, wrong, words):
    with pytest.raises(SettingError, match=words):
        pipeline(image_size=wrong)
