"""Masks that look wrong beside their boxes, worked by hand."""

import numpy as np
import pytest

from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance
from tpu_retinamask.data.annotations.mask_doubts import mask_doubts
from tpu_retinamask.data.masks import ArrayMask


def _image(box, *filled):
    """Return a picture with one object, whose mask has these rectangles: (x1, y1, x2, y2)."""
    pixels = np.zeros((100, 100), np.uint8)
    for x1, y1, x2, y2 in filled:
        pixels[y1:y2, x1:x2] = 1
    mask = ArrayMask(pixels) if filled else None
    return AnnotatedImage("a.png", "a.png", 0, 100, 100, 1, (AnnotatedInstance(1, box, 0, mask),))


@pytest.mark.parametrize(
    "box, filled, why, degree",
    [
        ((10, 10, 50, 50), [(10, 10, 50, 50)], None, 0),
        ((10.4, 10, 50, 49.6), [(10, 10, 50, 50)], None, 0),  # a box drawn by hand
        ((0, 0, 3, 3), [(1, 1, 2, 3)], None, 0),  # of few pixels
        ((10, 10, 50, 50), [(10, 10, 50, 20)], "other rectangles (IoU 0.25)", 0.75),
        ((10, 10, 50, 50), [(10, 10, 50, 50), (50, 10, 90, 50)], "50% of the mask lie outside", 0.5),
        ((0, 0, 100, 100), [(0, 0, 100, 5), (0, 95, 100, 100)], "fills 10% of its box", 0.9),
        ((60, 60, 90, 90), [(0, 0, 30, 30)], "100% of the mask lie outside", 1.0),
    ],
)
def test_what_is_odd_is_told(box, filled, why, degree):
    doubts, looked_at = mask_doubts([_image(box, *filled)])
    assert looked_at == 1 and len(doubts) == (why is not None)
    if why:
        assert why in doubts[0].why and doubts[0].degree == pytest.approx(degree)


def test_the_oddest_come_first_and_boxes_alone_are_passed_over():
    images = [
        _image((0, 0, 50, 50)),
        _image((10, 10, 50, 50), (10, 10, 50, 20)),
        _image((60, 60, 90, 90), (0, 0, 9, 9)),
    ]
    doubts, looked_at = mask_doubts(images)
    assert looked_at == 2 and [doubt.image for doubt in doubts] == [images[2], images[1]]
    assert mask_doubts([]) == ([], 0)
