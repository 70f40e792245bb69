"""The contract of a Python transform: what it is given, what it may return, what is refused and how it is said."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.data.augment.transform import TransformError, apply_transform

HEIGHT, WIDTH = 20, 30


class Compose:
    """A stand-in for albumentations.Compose: chained geometry, boxes out of sight left out, masks all kept.

    Like the library's BboxParams(format='pascal_voc', label_fields=['labels'], min_visibility=...), it clips boxes
    to the image and leaves out those of which no more than a share is left, with their labels; masks it warps one
    by one and never leaves out.
    """

    def __init__(self, window, min_visibility=0.0):
        self.window, self.min_visibility = window, min_visibility

    def __call__(self, *, image, masks, bboxes, labels):
        x1, y1, x2, y2 = self.window
        low, high = np.maximum(bboxes[:, :2], [x1, y1]), np.minimum(bboxes[:, 2:], [x2, y2])
        left = np.prod(np.maximum(high - low, 0), axis=1) / np.prod(bboxes[:, 2:] - bboxes[:, :2], axis=1)
        kept = left > self.min_visibility
        self.kept = np.flatnonzero(kept)
        boxes = np.concatenate([low - [x1, y1], high - [x1, y1]], axis=1)[kept]
        return {
            "image": image[y1:y2, x1:x2],
            "masks": [mask[y1:y2, x1:x2] for mask in masks],
            "bboxes": boxes,
            "labels": labels[kept],
        }


def scene(rng, count):
    """Return image, masks, labels, boxes of `count` ellipses that may overlap; two classes."""
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    low = rng.integers(0, [WIDTH - 6, HEIGHT - 6], (count, 2))
    high = np.minimum(low + rng.integers(3, 10, (count, 2)), [WIDTH, HEIGHT])
    boxes = np.concatenate([low, high], axis=1).astype(np.float64)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    centre, radius = (low + high) / 2, (high - low) / 2
    masks = np.array(
        [((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1 for (cx, cy), (rx, ry) in zip(centre, radius)], np.uint8
    ).reshape(count, HEIGHT, WIDTH)
    return image, masks, rng.integers(0, 2, count), boxes


@pytest.fixture
def sample():
    """Four instances."""
    return scene(np.random.default_rng(11), 4)


def changed(**changes):
    """Return a transform that gives back what it got, but for some keys: values, or functions of what it got."""

    def transform(**given):
        return {**given, **{key: value(given[key]) if callable(value) else value for key, value in changes.items()}}

    return transform


def test_what_a_transform_is_given(sample):
    seen = {}

    def note(**given):
        seen.update(given)
        return given

    apply_transform(note, *sample)
    assert set(seen) == {"image", "masks", "labels", "bboxes"}
    assert seen["image"].dtype == np.uint8 and seen["image"].shape == (HEIGHT, WIDTH, 3)
    assert isinstance(seen["masks"], list) and len(seen["masks"]) == 4
    assert all(mask.dtype == np.uint8 and mask.shape == (HEIGHT, WIDTH, 1) for mask in seen["masks"])
    assert seen["labels"].dtype == np.float64 and seen["labels"].shape == (4,)
    assert seen["bboxes"].dtype == np.float64 and seen["bboxes"].shape == (4, 4)


def test_an_image_without_instances_has_the_same_form(sample):
    given = {}
    result = apply_transform(
        lambda **arguments: given.update(arguments) or arguments,
        sample[0],
        np.zeros((0, HEIGHT, WIDTH), np.uint8),
        [],
        np.zeros((0, 4)),
    )
    assert given["masks"] == [] and given["labels"].shape == (0,) and given["bboxes"].shape == (0, 4)
    assert result.bboxes.shape == (0, 4) and result.masks.shape == (0, HEIGHT, WIDTH) and result.dropped == 0


def test_the_form_of_the_notes_comes_back_unchanged(sample):
    """Labels a list of float64 scalars, boxes a list of 4-tuples."""
    result = apply_transform(
        changed(
            labels=lambda labels: [np.float64(label) for label in labels],
            bboxes=lambda boxes: [tuple(box) for box in boxes],
        ),
        *sample,
    )
    for value, expected in zip((result.image, result.masks, result.labels, result.bboxes), sample):
        np.testing.assert_array_equal(value, expected)
    assert result.has_mask.all() and result.dropped == 0
    assert result.labels.dtype == np.float64 and result.bboxes.dtype == np.float64


def test_a_transform_cannot_harm_what_it_is_given(sample):
    def spoil(image, masks, labels, bboxes):
        for array in (image, *masks, labels, bboxes):
            array[:] = 0
        return {"image": image, "masks": [], "labels": [], "bboxes": []}

    before = [np.array(part) for part in sample]
    assert apply_transform(spoil, *sample).dropped == 4
    for part, expected in zip(sample, before):
        np.testing.assert_array_equal(part, expected)


def test_masks_may_be_stacked_flat_or_of_other_values(sample):
    for form in (
        lambda masks: np.stack(masks),
        lambda masks: tuple(mask[..., 0] for mask in masks),
        lambda masks: [mask * 255 for mask in masks],
    ):
        np.testing.assert_array_equal(apply_transform(changed(masks=form), *sample).masks, sample[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": lambda image: image.astype(np.float32)}, r"image is an array \[20, 30, 3\] of float32; expected"),
        ({"image": lambda image: image[..., 0]}, r"image is an array \[20, 30\] of uint8; expected a uint8 array"),
        ({"image": None}, "image is NoneType None; expected"),
        ({"masks": None}, r"masks is NoneType None; expected a list of uint8 arrays \[20, 30, 1\]"),
        ({"masks": lambda masks: [masks[0].astype(bool), *masks[1:]]}, r"masks\[0\] is an array \[20, 30, 1\] of bool"),
        (
            {"masks": lambda masks: [*masks[:2], masks[2][1:], masks[3]]},
            r"masks\[2\] is an array \[19, 30, 1\] of uint8",
        ),
        ({"masks": lambda masks: masks[:3]}, r"masks is 3 masks for 4 bboxes \(4 were given\); expected a mask for"),
        ({"masks": []}, "masks is 0 masks for 4 bboxes"),
        ({"labels": lambda labels: labels[:3]}, "labels is 3 labels for 4 bboxes"),
        ({"labels": ["cat"] * 4}, r"labels is list \['cat', 'cat', 'cat', 'cat'\]; expected a class id for every box"),
        ({"labels": [0.5, 0, 0, 0]}, r"labels is \[0.5, 0.0, 0.0, 0.0\]; expected whole numbers from 0"),
        ({"labels": [-1, 0, 0, 0]}, r"labels is \[-1.0, 0.0, 0.0, 0.0\]; expected whole numbers from 0"),
        ({"bboxes": lambda boxes: boxes[:, :3]}, r"bboxes is an array \[4, 3\] of float64; expected n times x1, y1"),
        ({"bboxes": 3}, "bboxes is int 3; expected"),
        ({"bboxes": lambda boxes: boxes * np.nan}, "bboxes is .* expected n times x1, y1, x2, y2, finite"),
        ({"bboxes": lambda boxes: boxes - [0, 0, 0, -25]}, r"bboxes\[0\] is .*outside the returned image of 30 x 20"),
    ],
)
def test_what_is_refused_is_named(sample, changes, message):
    with pytest.raises(TransformError, match=f"^transform of images/7.png: {message}"):
        apply_transform(changed(**changes), *sample, name="images/7.png")


@pytest.mark.parametrize(
    ("result", "got"),
    [({"image": 1, "mask": 2}, r"the keys \['image', 'mask'\]"), (None, "NoneType None"), ((1, 2), r"tuple \(1, 2\)")],
)
def test_another_result_is_refused(sample, result, got):
    with pytest.raises(TransformError, match=rf"the result is {got}; expected a dict with the keys \['image', 'masks'"):
        apply_transform(lambda **_: result, *sample)


def test_inside_a_graph_it_is_refused_by_name(sample):
    image, masks, labels, boxes = sample

    def call(picture):
        return apply_transform(changed(), picture, masks, labels, boxes).image

    message = "cannot run inside tf.data or tf.function: use host_batches.HostBatches"
    with pytest.raises(TransformError, match=message):
        tf.function(call, autograph=False)(tf.constant(image))
    with pytest.raises(Exception, match=message):  # autograph wraps the error in one of its own
        tf.data.Dataset.from_tensors(image).map(call)


def test_rounding_beyond_the_border_is_clipped(sample):
    whole = np.tile([0.0, 0.0, WIDTH, HEIGHT], (4, 1))
    result = apply_transform(changed(bboxes=whole + [-1e-4, -1e-4, 1e-4, 1e-4]), *sample)
    np.testing.assert_array_equal(result.bboxes, whole)


def test_boxes_that_became_empty_are_dropped_and_counted(sample):
    image, masks, labels, boxes = sample
    flat = boxes.copy()
    flat[1, 2] = flat[1, 0]
    gone = masks.copy()
    gone[3] = 0
    result = apply_transform(changed(bboxes=flat, masks=[mask[..., None] for mask in gone]), *sample)
    np.testing.assert_array_equal(result.bboxes, boxes[[0, 2]])
    np.testing.assert_array_equal(result.masks, masks[[0, 2]])
    np.testing.assert_array_equal(result.labels, labels[[0, 2]])
    assert result.dropped == 2


def test_an_instance_that_never_had_a_mask_is_kept_without(sample):
    image, masks, labels, boxes = sample
    masks[1] = 0
    result = apply_transform(changed(), image, masks, labels, boxes, has_mask=[True, False, True, True])
    np.testing.assert_array_equal(result.has_mask, [True, False, True, True])
    np.testing.assert_array_equal(result.bboxes, boxes)


@pytest.mark.parametrize("min_visibility", [0.0, 0.3, 0.7])
def test_masks_are_matched_to_the_boxes_that_a_library_has_left(min_visibility):
    """Random crops of crowded scenes: the right masks are known here, the rule is not told."""
    rng = np.random.default_rng(int(10 * min_visibility))
    lost = 0
    for count in itertools.islice(itertools.cycle(range(1, 25)), 120):
        image, masks, labels, boxes = scene(rng, count)
        x1, y1 = rng.integers(0, WIDTH - 8), rng.integers(0, HEIGHT - 8)
        window = (x1, y1, rng.integers(x1 + 8, WIDTH + 1), rng.integers(y1 + 8, HEIGHT + 1))
        transform = Compose(window, min_visibility)
        result = apply_transform(transform, image, masks, labels, boxes)
        crops = masks[transform.kept, y1 : window[3], x1 : window[2]]
        seen = crops.any(axis=(1, 2))
        np.testing.assert_array_equal(result.masks, crops[seen])
        np.testing.assert_array_equal(result.labels, labels[transform.kept][seen])
        assert result.dropped == count - seen.sum() == count - len(result.bboxes)
        lost += count - len(transform.kept)
    assert lost > 300


def test_boxes_that_no_mask_can_belong_to_are_refused(sample):
    image, masks, labels, boxes = sample
    with pytest.raises(TransformError, match="masks is 4 masks for 1 bboxes"):
        apply_transform(changed(bboxes=boxes[:1], labels=[7.0]), image, masks, labels, boxes)
