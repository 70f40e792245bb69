"""Parts of pictures: what is shown of an object, at which size, and that a mask stays on its object."""

import numpy as np
import pytest

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.windows import window_of
from tpu_retinamask.reports import crops


def test_a_view_shrinks_picture_box_and_mask_alike():
    pixels, mask = np.zeros((400, 800, 3), np.uint8), np.zeros((400, 800), bool)
    mask[100:200, 400:600] = True
    pixels[mask] = 200
    view = crops.whole(pixels, 100)  # drawn at two times 100
    assert view.size == (100, 200)
    small, window = view.picture(pixels), view.mask(window_of(mask))
    assert view.box((400, 100, 600, 200)) == [100, 25, 150, 50]
    assert (window.left, window.top, window.right, window.bottom) == (100, 25, 150, 50)
    np.testing.assert_array_equal(small[..., 0] > 100, np.pad(window.pixels, ((25, 50), (100, 50))))


@pytest.mark.parametrize("box", [(0, 0, 5, 5), (790, 390, 800, 400), (100, 100, 100.2, 300), (0, 0, 800, 400)])
def test_what_lies_around_an_object_lies_in_the_picture(box):
    pixels = np.zeros((400, 800, 3), np.uint8)
    view = crops.around(box, pixels, 64)
    assert 0 <= view.left <= box[0] and box[2] <= view.right <= 800
    assert 0 <= view.top <= box[1] and box[3] <= view.bottom <= 400
    assert max(view.size) <= 128
    assert view.picture(pixels).shape == (*view.size, 3)
    outside = np.zeros((400, 800), bool)
    outside[399, 0] = True
    assert view.mask(window_of(outside)) is None or view.bottom == 400


def test_sides_and_sizes():
    joined = crops.side_by_side(np.full((4, 5, 3), 9, np.uint8), np.full((6, 2, 3), 7, np.uint8))
    assert joined.shape == (6, 5 + 6 + 2, 3)
    assert joined[:4, :5].min() == 9 and joined[:, -2:].min() == 7 and joined[5, 0].max() == 0
    assert crops.shrunk(np.zeros((10, 40, 3), np.uint8), 20).shape == (5, 20, 3)
    assert crops.shrunk(np.zeros((1, 400, 3), np.uint8), 20).shape == (1, 20, 3)


def test_a_picture_that_is_gone_is_told_of(caplog, tmp_path):
    image = AnnotatedImage(str(tmp_path / "gone.png"), "gone.png", 0, 10, 10, 1, ())
    assert crops.pixels_by_id({0: image})(0) is None
    assert crops.pixels_by_id({})(0) is None
    assert "gone.png is left out of the report" in caplog.text
