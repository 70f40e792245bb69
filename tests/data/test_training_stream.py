"""The endless training stream: the same when resumed, each epoch whole, changes that keep to the object."""

import numpy as np
import pytest

from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.augment.augmentation import Augmentation
from tpu_retinamask.data.images.mask_reader import read_mask

EVERYTHING = Augmentation(
    horizontal_flip=0.5, vertical_flip=0.5, rot90=0.5, scale_jitter=(0.5, 2.5), brightness=0.2, contrast=0.3
)


def test_a_resumed_stream_is_the_stream_to_the_bit(records, pipeline, samples, assert_same_batch):
    built = pipeline(max_instances=2, augmentation=EVERYTHING, seed=11)
    whole = samples(built.train_dataset(records, 4), 9)
    for start in (0, 1, 5):
        resumed = samples(built.train_dataset(records, 4, start_step=start), 9 - start)
        for a, b in zip(whole[4 * start :], resumed, strict=True):
            assert_same_batch(a, b)


def test_the_stream_does_not_depend_on_parallelism_batch_size_or_cache(records, pipeline, samples, assert_same_batch):
    expected = samples(pipeline(augmentation=EVERYTHING, num_parallel_calls=1).train_dataset(records, 3), 4)
    for options, batch_size in (({"num_parallel_calls": 8}, 3), ({"cache": True}, 3), ({}, 6)):
        built = pipeline(augmentation=EVERYTHING, **options)
        found = samples(built.train_dataset(records, batch_size), 12 // batch_size)
        for a, b in zip(expected, found, strict=True):
            assert_same_batch(a, b)


def test_each_epoch_visits_every_image_once_in_an_order_of_its_own(records, pipeline, samples):
    many = records * 7  # 21 rows; the id tells the picture, so rows are told apart by count
    ids = [int(sample.image_id) for sample in samples(pipeline().train_dataset(records, 3), 40)]
    epochs = [tuple(ids[start : start + 3]) for start in range(0, 120, 3)]
    assert all(sorted(epoch) == [0, 1, 2] for epoch in epochs)
    assert len(set(epochs)) == 6  # all orders of three images turn up
    ids = [int(sample.image_id) for sample in samples(pipeline().train_dataset(many, 21), 2)]
    assert [ids[:21].count(number) for number in range(3)] == [7, 7, 7] and ids[:21] != ids[21:]


def test_another_seed_gives_another_stream(records, pipeline, samples):
    streams = [
        [int(sample.image_id) for sample in samples(pipeline(seed=seed).train_dataset(records, 3), 8)]
        for seed in (0, 1)
    ]
    assert streams[0] != streams[1]


def test_one_image_fills_a_larger_batch(records, pipeline, samples, assert_same_batch):
    found = samples(pipeline().train_dataset(records[:1], 3), 2)
    assert [int(sample.image_id) for sample in found] == [0] * 6
    rows = {sample.boxes.tobytes() for sample in found}
    assert len(rows) > 1  # the order of the instances is random as well

    def in_order(sample):
        order = np.lexsort(sample.boxes.T)
        return sample._replace(
            **{name: getattr(sample, name)[order] for name in ("boxes", "classes", "masks", "has_mask")}
        )

    assert_same_batch(in_order(found[0]), in_order(found[5]))


def test_more_than_m_instances_are_chosen_at_random_and_counted(records, pipeline, samples):
    built = pipeline(max_instances=2)
    full = samples(pipeline().eval_dataset(records[:1], 1))[0]
    kept = set()
    for sample in samples(built.train_dataset(records[:1], 1), 40):
        assert sample.dropped == 1
        rows = [int(np.flatnonzero((full.boxes == box).all(axis=-1))[0]) for box in sample.boxes]
        np.testing.assert_array_equal(sample.masks, full.masks[rows])
        np.testing.assert_array_equal(sample.classes, full.classes[rows])
        kept.add(tuple(rows))
    assert kept == {(0, 1), (0, 2), (1, 2), (1, 0), (2, 0), (2, 1)}  # in any order
    first = samples(built.eval_dataset(records[:1], 1))[0]
    np.testing.assert_array_equal(first.boxes, full.boxes[:2])
    assert first.dropped == 1


@pytest.mark.parametrize("turns, mirrors", [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_augmented_boxes_frame_the_augmented_masks(turns, mirrors, write, pipeline, samples):
    """Paint each object in its own colour: after any change its box must frame exactly its colour."""
    labels = np.zeros((20, 30), np.uint8)
    labels[2:8, 3:13] = 1
    labels[2:4, 3:6] = 0
    labels[10:18, 15:27] = 2
    labels[16:18, 22:27] = 0
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    write("x.png", colours[labels])
    write("m.png", labels)
    text = "x.png,3,2,13,8,cat,m.png#1\nx.png,15,10,27,18,dog,m.png#2\n"
    records = scan_images(read_annotations(write("t.csv", text), read_classes(write("c.csv", "cat,0\ndog,1\n")))).images
    augmentation = Augmentation(horizontal_flip=mirrors, vertical_flip=mirrors / 2, rot90=turns)
    built = pipeline(image_size=(40, 60), mask_size=24, augmentation=augmentation)
    seen = set()
    for sample in samples(built.train_dataset(records, 1), 24):
        height, width = sample.content_size
        seen.add((int(height), int(width), sample.boxes.tobytes()))
        assert not sample.image[height:].any() and not sample.image[:, width:].any()
        if sample.image_scale != 2:
            continue  # an odd turn on this canvas is scaled by 4/3, whose edges blur
        for channel in range(2):
            row = int(np.flatnonzero(sample.classes == channel)[0])
            x1, y1, x2, y2 = sample.boxes[row].astype(int)
            painted = sample.image[..., channel] > 127
            rows, columns = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
            assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == (x1, y1, x2, y2)
            centres = (np.arange(24) + 0.5) / 24
            rows, columns = (y1 + (y2 - y1) * centres).astype(int), (x1 + (x2 - x1) * centres).astype(int)
            inside = painted[np.ix_(rows, columns)]
            np.testing.assert_array_equal(sample.masks[row], inside)
    assert len(seen) >= 2 if turns or mirrors / 2 % 1 else len(seen) == 1


def test_odd_turns_keep_to_a_canvas_that_is_not_square(records, pipeline, samples):
    built = pipeline(image_size=(40, 90), augmentation=Augmentation(horizontal_flip=0.0, rot90=1.0))
    turned = [
        sample
        for sample in samples(built.train_dataset(records[:1], 1), 20)
        if sample.content_size[0] > sample.content_size[1]
    ]
    assert turned
    for sample in turned:  # 24 x 32 turned is 32 x 24 and fits 40 rows
        np.testing.assert_array_equal(sample.content_size, [40, 30])
        assert (sample.boxes[:, 3] <= 40).all() and (sample.boxes[:, 2] <= 30).all()


def test_jittered_crops_keep_boxes_and_masks_on_their_object(write, pipeline, samples):
    """A lone object: after any crop its pixels fill exactly its clipped box, and so does its mask."""
    labels = np.zeros((32, 32), np.uint8)
    labels[8:24, 8:28] = 5
    write("x.png", np.repeat((labels > 0)[..., np.newaxis] * np.uint8(200), 3, axis=-1))
    write("m.png", labels)
    records = scan_images(
        read_annotations(write("t.csv", "x.png,8,8,28,24,cat,m.png#5\n"), read_classes(write("c.csv", "cat,0\n")))
    ).images
    built = pipeline(augmentation=Augmentation(horizontal_flip=0.5, scale_jitter=(0.5, 3.0)), max_instances=1)
    cropped = 0
    for sample in samples(built.train_dataset(records, 8), 8):
        painted = sample.image[..., 0] > 100
        assert sample.dropped == 0  # what a crop leaves out is not there to be counted
        if sample.classes[0] == -1:
            assert painted.sum() < 0.11 * 20 * 16 * sample.image_scale**2  # less than a tenth is seen
            continue
        np.testing.assert_array_equal(sample.masks[0], 1)
        x1, y1, x2, y2 = sample.boxes[0]
        expected = np.zeros((64, 64), bool)
        centres = np.arange(64) + 0.5
        expected[np.ix_((centres > y1) & (centres < y2), (centres > x1) & (centres < x2))] = True
        assert np.mean(expected != painted) < 0.035  # the bilinear edge, at most a pixel around
        cropped += int((sample.content_size == 64).all() and sample.image_scale > 2.1)
    assert cropped > 10


def test_crop_masks_are_resampled_and_not_only_cut(records, pipeline, samples):
    """The right half of a mask, seen alone, fills all R columns of its crop."""
    built = pipeline(augmentation=Augmentation(horizontal_flip=0.0, scale_jitter=(2.0, 2.0)), mask_size=8)
    record = records[0]
    checked = 0
    for sample in samples(built.train_dataset([record], 1), 30):
        for row in np.flatnonzero(sample.classes >= 0):
            x1, y1, x2, y2 = sample.boxes[row]
            # Find the instance by its uncut edges: scale 4, whole-pixel offsets cancel in the sizes.
            for instance, mask in ((i, read_mask(i, 24, 32)) for i in record.instances):
                full = np.array(instance.box) * 4
                if x1 == 0 and 0 < x2 < 63 and y1 > 0 and y2 < 64 and y2 - y1 == full[3] - full[1]:
                    left = instance.box[2] - (x2 - x1) / 4
                    centres = (np.arange(8) + 0.5) / 8
                    columns = (left + (instance.box[2] - left) * centres).astype(int)
                    rows = (instance.box[1] + (instance.box[3] - instance.box[1]) * centres).astype(int)
                    np.testing.assert_array_equal(sample.masks[row], mask[np.ix_(rows, columns)])
                    checked += x2 - x1 < full[2] - full[0]
    assert checked


def test_brightness_touches_the_content_alone(records, pipeline, samples):
    plain = samples(pipeline().train_dataset(records, 3), 1)
    bright = samples(
        pipeline(augmentation=Augmentation(horizontal_flip=0.0, brightness=0.5)).train_dataset(records, 3), 1
    )
    for a, b in zip(plain, bright):
        height, width = a.content_size
        assert not b.image[height:].any() and not b.image[:, width:].any()
        free = (a.image > 0) & (b.image > 0) & (b.image < 255) & (a.image < 255)
        shift = b.image[free].astype(int) - a.image[free]
        assert np.ptp(shift) <= 1 and abs(shift).max() > 0
