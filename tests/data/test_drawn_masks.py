"""Masks that no file holds: each kind to the pixels that it means, what is none named, and batches equal to files'."""

import dataclasses

import numpy as np
import pytest
from pycocotools import mask as rle_codec

from tpu_retinamask.coco.scores import evaluate_coco
from tpu_retinamask.coco.writing import coco_from_images
from tpu_retinamask.data.annotated_image import ListedImage, ListedInstance
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.augment.augmentation import Augmentation
from tpu_retinamask.data.images.image_files import BadFile
from tpu_retinamask.data.images.mask_reader import draw_mask
from tpu_retinamask.data.images.run_lengths import run_length_pixels
from tpu_retinamask.data.images.window_runs import encode_rle
from tpu_retinamask.data.masks import ArrayMask, FileMask, PolygonMask, RunLengthMask
from tpu_retinamask.data.prepared.reading import open_records
from tpu_retinamask.data.prepared.writing import RecordsBuilder

HEIGHT, WIDTH = 9, 13
L_SHAPE = (2, 1, 8, 1, 8, 4, 5, 4, 5, 8, 2, 8)
CLASSES = ClassNames(("cat", "dog"))


def pixels():
    found = np.zeros((HEIGHT, WIDTH), bool)
    found[1:4, 2:8], found[4:8, 2:5] = True, True
    return found


def counts_of(mask):
    """Count runs down the columns, by hand."""
    counts, value = [0], False
    for pixel in mask.T.reshape(-1):
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return tuple(counts)


KINDS = {
    "polygon": PolygonMask((L_SHAPE,)),
    "two polygons": PolygonMask(((2, 1, 8, 1, 8, 4, 2, 4), (2, 4, 5, 4, 5, 8, 2, 8))),
    "a polygon and a line, which encloses nothing": PolygonMask((L_SHAPE, (0, 0, 12, 8))),
    "counts": RunLengthMask((HEIGHT, WIDTH), counts_of(pixels())),
    "text": RunLengthMask((HEIGHT, WIDTH), encode_rle(pixels())["counts"]),
    "bool array": ArrayMask(pixels()),
    "array of numbers": ArrayMask(pixels() * np.float32(0.5)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_its_pixels(kind):
    found = draw_mask(KINDS[kind], HEIGHT, WIDTH)
    assert found.dtype == bool and KINDS[kind].files() == ()
    np.testing.assert_array_equal(found, pixels())


def test_run_lengths_and_polygons_are_read_as_pycocotools_reads_them():
    rng = np.random.default_rng(2)
    for height, width, share in ((1, 1, 1.0), (1, 700, 0.5), (300, 2, 0.01), (90, 70, 0.5), (400, 300, 0.0005)):
        for _ in range(8):
            mask = np.asfortranarray(rng.random((height, width)) < share, np.uint8)
            text = rle_codec.encode(mask)["counts"].decode()
            np.testing.assert_array_equal(run_length_pixels(text, height, width), mask)
    for _ in range(20):
        polygons = [rng.uniform(-3, 40, 2 * rng.integers(3, 9)).tolist() for _ in range(rng.integers(1, 3))]
        expected = rle_codec.decode(rle_codec.merge(rle_codec.frPyObjects(polygons, 30, 37)))
        np.testing.assert_array_equal(draw_mask(PolygonMask(tuple(map(tuple, polygons))), 30, 37), expected)


@pytest.mark.parametrize(
    "mask, message",
    [
        (RunLengthMask((HEIGHT, WIDTH), (2, 3)), "run lengths sum to 5 pixels, expected 13 x 9 = 117"),
        (RunLengthMask((HEIGHT, WIDTH), (-2, 119)), "must be whole numbers from 0"),
        (RunLengthMask((HEIGHT, WIDTH), (1.5, 115.5)), "got run lengths (1.5, 115.5), expected whole numbers from 0"),
        (RunLengthMask((HEIGHT, WIDTH), "what?"), "are not COCO's compressed text"),
        (RunLengthMask((HEIGHT, WIDTH), ""), "are an empty text, expected COCO's compressed text"),
        (RunLengthMask((HEIGHT, WIDTH), "b'0'"), "it is bytes as Python shows them: write counts.decode()"),
        (RunLengthMask((HEIGHT, WIDTH), (2**62, 2**62, 2**62, 2**62)), "sum to 18446744073709551616 pixels"),
        (RunLengthMask((HEIGHT, WIDTH), "`"), "are not COCO's compressed text"),
        (RunLengthMask((HEIGHT, WIDTH), "o" * 30 + "0"), "hold a count beyond"),
        (ArrayMask(np.ones((HEIGHT, WIDTH, 3))), "(9, 13, 3), expected [height, width]"),
        (PolygonMask(((1, 2, 3, 4, 5, 6, 7),)), "polygon 1 has 7 numbers"),
        (PolygonMask((L_SHAPE, (1, 1, 5, 1, 1e7, 5))), "polygon 2 has the coordinate 1e+07, far outside"),
        (PolygonMask(((1, 1, 5, 1, float("nan"), 5),)), "polygon 1 has the coordinate nan"),
    ],
    ids=str,
)
def test_what_is_no_mask_is_named(mask, message):
    with pytest.raises(BadFile) as error:
        draw_mask(mask, HEIGHT, WIDTH)
    assert message in str(error.value)


BOX = (2.0, 1.0, 8.0, 8.0)
FAULTS = {
    "empty array": (ArrayMask(np.zeros((HEIGHT, WIDTH))), BOX, "is empty: every pixel is zero"),
    "outside": (PolygonMask((L_SHAPE,)), (9.0, 1.0, 12.0, 8.0), "has no pixel inside the box 9,1,12,8"),
    "size": (RunLengthMask((WIDTH, HEIGHT), (117,)), BOX, "has 9 x 13 pixels, its image 13 x 9"),
    "counts": (RunLengthMask((HEIGHT, WIDTH), (1,)), BOX, "run lengths sum to 1 pixels"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_scan_says_what_is_wrong_and_where_and_leaves_it_out_when_told(fault, write):
    mask, box, message = FAULTS[fault]
    picture = write("x.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    good = ListedInstance(1, BOX, 0, PolygonMask((L_SHAPE,)))
    listed = [ListedImage(picture, "x.png", 1, (good, ListedInstance(7, box, 0, mask)))]
    with pytest.raises(ValueError, match="1 bad records") as error:
        scan_images(listed)
    (problem,) = error.value.problems
    assert problem.startswith("line 7, x.png: ") and message in problem
    kept = scan_images(listed, on_bad_record="skip")
    assert [instance.line for instance in kept.images[0].instances] == [1] and kept.dropped_instances == 1


@pytest.mark.parametrize(
    "mask",
    [PolygonMask(((1, 1, 2, 2),)), PolygonMask(((3, 4, 9, 4, 3, 4),)), RunLengthMask((HEIGHT, WIDTH), (117,))],
    ids=str,
)
def test_what_covers_no_pixel_leaves_the_box_counted(mask, write):
    picture = write("x.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    found = scan_images([ListedImage(picture, "x.png", 1, (ListedInstance(7, BOX, 0, mask),))])
    assert found.images[0].instances[0].mask is None and found.images[0].instances[0].box == BOX
    assert found.without_pixels == 1 and "1 masks cover no pixel" in found.summary()


def test_a_polygon_beside_its_picture_is_refused(write):
    picture = write("x.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    mask = PolygonMask(((40, 1, 60, 1, 60, 8),))
    with pytest.raises(ValueError, match="polygon from 40,1 to 60,8 lies outside the image of 13 x 9 pixels"):
        scan_images([ListedImage(picture, "x.png", 1, (ListedInstance(7, BOX, 0, mask),))])


@pytest.fixture
def scene(write):
    """A function from a kind of masks to three listed pictures with five objects, one of them without a mask."""
    rng = np.random.default_rng(3)
    rows = [
        ("a.png", 24, 32, [(0, (3, 2, 14, 9), (3, 2, 14, 3, 12, 9, 4, 8)), (1, (6, 10, 12, 20), None)]),
        ("b.png", 20, 16, [(1, (2, 1, 9, 7), (2, 1, 9, 1, 9, 7)),
                           (0, (4.5, 8.25, 16, 20), (4.5, 9, 10, 8.25, 16, 20, 6, 18))]),
        ("c.png", 12, 40, []),
        ("d.png", 16, 16, [(1, (0, 0, 16, 16), (0, 0, 16, 0, 16, 16))]),
    ]  # fmt: skip
    paths = {name: write(name, rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for name, h, w, _ in rows}

    def mask_of(kind, polygon, height, width, number):
        drawn = draw_mask(PolygonMask((polygon,)), height, width)
        assert drawn.any() and not drawn.all()
        if kind == "mixed":
            kind = ("polygon", "file", "array", "run lengths")[number % 4]
        return {
            "polygon": lambda: PolygonMask((polygon,)),
            "array": lambda: ArrayMask(drawn),
            "run lengths": lambda: RunLengthMask((height, width), encode_rle(drawn)["counts"]),
            "file": lambda: FileMask(write(f"m{number}.png", drawn.astype(np.uint8) * 255)),
        }[kind]()

    def listed(kind):
        images, number = [], 0
        for line, (name, height, width, found) in enumerate(rows, 1):
            instances = []
            for class_id, box, polygon in found:
                mask = None if polygon is None else mask_of(kind, polygon, height, width, number)
                instances.append(ListedInstance(line, tuple(map(float, box)), class_id, mask))
                number += 1
            images.append(ListedImage(paths[name], name, line, tuple(instances)))
        return scan_images(images).images

    return listed


CHANGES = {
    "none": None,
    "mirrors and crops": Augmentation(vertical_flip=0.5, rot90=0.5, scale_jitter=(0.5, 2.5), brightness=0.2),
    "moved": Augmentation(rotation=20.0, shear=5.0, zoom=(0.8, 1.2)),
}


@pytest.mark.ci
@pytest.mark.parametrize(
    "kind, changes", [("polygon", "none"), ("mixed", "none"), ("mixed", "mirrors and crops"), ("mixed", "moved")]
)
def test_batches_are_those_of_the_same_masks_in_files(kind, changes, scene, pipeline, samples, assert_same_batch):
    made = pipeline(augmentation=CHANGES[changes])
    expected = samples(made.train_dataset(scene("file"), 2), 4)
    for cache in (False, "decoded"):
        found = samples(dataclasses.replace(made, cache=cache).train_dataset(scene(kind), 2), 4)
        for a, b in zip(expected, found, strict=True):
            assert_same_batch(a, b)


@pytest.mark.parametrize("kind", ["polygon", "mixed"])
def test_they_are_prepared_and_scored_like_files(kind, scene, tmp_path):
    truth = coco_from_images(scene("file"), CLASSES)
    assert coco_from_images(scene(kind), CLASSES) == truth
    perfect = [
        {key: entry[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.9}
        for entry in truth["annotations"]
        if entry["has_mask"]
    ]
    assert evaluate_coco(truth, perfect).overall["segm"]["AP"] == pytest.approx(1)
    shards = []
    for name in ("file", kind):
        scanned = scene(name)
        folder = tmp_path / name
        RecordsBuilder(str(folder), CLASSES, {"train": _Scanned(scanned)}, sources={}).build()
        assert len(open_records(str(folder)).split("train")) == 4
        shards.append((folder / "retinamask-train.tfrecord-00000-of-00001").read_bytes())
    assert shards[0] == shards[1]


class _Scanned:
    """As much of a ScanResult as is prepared."""

    def __init__(self, images):
        self.images = images

    def summary(self):
        return ""
