"""Masks as windows: run lengths of the whole picture without an array of its size, to the bit those of pycocotools."""

import tracemalloc

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as rle_codec

from tpu_retinamask.coco.writing import coco_from_images
from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.images.bad_file import BadFile
from tpu_retinamask.data.images.mask_reader import MaskReader, shared_mask_files
from tpu_retinamask.data.images.window_runs import decode_window, encode_rle, encode_window
from tpu_retinamask.data.masks import FileMask
from tpu_retinamask.data.windows import EMPTY, Window, window_of
from tpu_retinamask.evaluation.results import detections_to_results, paste_masks
from tpu_retinamask.structures import Detections

HEIGHT, WIDTH = 37, 53


def by_pycocotools(mask):
    found = rle_codec.encode(np.asfortranarray(mask, np.uint8))
    return {"size": found["size"], "counts": found["counts"].decode()}


def placed(window, height=HEIGHT, width=WIDTH):
    whole = np.zeros((height, width), bool)
    whole[window.top : window.bottom, window.left : window.right] = window.pixels
    return whole


def windows():
    """Yield windows of the picture: scattered ones anywhere, and those at its corners, edges and sizes of 0 and 1."""
    random = np.random.default_rng(5)
    for _ in range(200):
        (top, bottom), (left, right) = (sorted(random.integers(0, side + 1, 2)) for side in (HEIGHT, WIDTH))
        yield Window(left, top, random.random((bottom - top, right - left)) < random.choice([0.02, 0.5, 0.97]))
    full = np.ones((HEIGHT, WIDTH), bool)
    yield Window(0, 0, full)
    yield Window(0, 0, ~full)
    yield Window(10, 0, full[:, 10:20])  # whole columns: one run
    yield Window(10, 0, full[:, 10:])  # to the last pixel of the picture
    yield Window(3, 5, full[5:, 3:])
    for top, left in ((0, 0), (HEIGHT - 1, WIDTH - 1), (HEIGHT - 1, 0), (17, 30)):
        yield Window(left, top, full[:1, :1])
    yield Window(WIDTH, 4, full[:5, :0])  # what a box to the right of the picture leaves


def test_run_lengths_of_a_window_are_pycocotools_of_the_picture_and_come_back():
    for window in windows():
        whole = placed(window)
        runs = encode_window(window, HEIGHT, WIDTH)
        assert runs == by_pycocotools(whole) == encode_rle(whole)
        smallest = window_of(whole)
        back = decode_window(runs)
        assert (back.left, back.top) == (smallest.left, smallest.top)
        np.testing.assert_array_equal(back.pixels, smallest.pixels)
        np.testing.assert_array_equal(placed(back), whole)
    assert decode_window({"size": [2, 3], "counts": [2, 0, 1, 3]}).pixels.tolist() == [[False, True], [True, True]]
    assert window_of(np.zeros((4, 5))) is EMPTY


def test_run_lengths_of_another_size_and_windows_beyond_the_picture_are_refused():
    with pytest.raises(BadFile, match="run lengths sum to 4 pixels, expected 3 x 2 = 6"):
        decode_window({"size": [2, 3], "counts": [2, 2]})
    for left, top in ((-1, 0), (0, -1), (WIDTH - 3, 0), (0, HEIGHT - 3)):
        with pytest.raises(ValueError, match=f"4 x 4 pixels at {left}, {top}, expected them inside"):
            encode_window(Window(left, top, np.ones((4, 4), bool)), HEIGHT, WIDTH)


def _detections(count, random):
    corner = random.uniform(-30, [WIDTH, HEIGHT], (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0, 60, (count, 2))], axis=1)
    boxes[:4] = [[0, 0, WIDTH, HEIGHT], [-9, -9, WIDTH + 9, HEIGHT + 9], [7, 9, 8, 10], [-40, -40, -20, -3]]
    return Detections(
        boxes=boxes[None].astype(np.float32),
        scores=np.full((1, count), 0.5, np.float32),
        classes=np.zeros((1, count), np.int32),
        masks=random.random((1, count, 28, 28)).astype(np.float32),
        cut=np.zeros(1, np.int32),
    )


def test_results_are_those_of_masks_pasted_at_full_size():
    found = _detections(200, np.random.default_rng(7))
    results = detections_to_results(found, [3], [0.7], [[HEIGHT, WIDTH]], [0])
    whole = paste_masks(found.masks[0], found.boxes[0].astype(np.float64) / 0.7, HEIGHT, WIDTH)
    assert whole.any(axis=(1, 2)).mean() > 0.4
    assert [result["segmentation"] for result in results] == [by_pycocotools(mask) for mask in whole]


def test_a_mask_of_a_large_picture_takes_the_memory_of_its_box():
    found = _detections(50, np.random.default_rng(0))
    tracemalloc.start()
    results = detections_to_results(found, [0], [1.0], [[20_000, 30_000]], [0])
    for result in results:
        decode_window(result["segmentation"])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(results) == 50 and most < 5e6  # bytes; a mask at full size has 600 million


def test_of_a_file_that_holds_several_each_has_what_lies_in_its_box(tmp_path):
    both = np.zeros((HEIGHT, WIDTH), np.uint8)
    both[2:6, 3:9] = both[20:30, 30:41] = 255
    PIL.Image.fromarray(both).save(tmp_path / "both.png")
    mask = FileMask(str(tmp_path / "both.png"), None)
    boxes = [(3.0, 2.0, 9.0, 6.0), (29.5, 20.0, 41.0, 30.0)]
    image = AnnotatedImage(
        "a.png", "a.png", 0, HEIGHT, WIDTH, 1, tuple(AnnotatedInstance(1, box, 0, mask) for box in boxes)
    )
    shared, reader = shared_mask_files(image), MaskReader()
    assert shared == {mask.path}
    first, second = (reader.window(one, HEIGHT, WIDTH, shared) for one in image.instances)
    assert (first.left, first.top, first.pixels.shape) == (3, 2, (4, 6)) and first.pixels.all()
    assert (second.left, second.top, second.pixels.shape) == (30, 20, (10, 11)) and second.pixels.all()
    assert reader.read(image.instances[0], HEIGHT, WIDTH).sum() == 24 + 110  # one that has the file to itself
    areas = [one["area"] for one in coco_from_images([image], ClassNames(("cat",)))["annotations"]]
    assert areas == [24, 110]
