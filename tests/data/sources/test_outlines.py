"""Circles, ellipses and turned boxes as polygons; masks with holes, in windows, by index and in parts."""

import numpy as np
import PIL.Image
import pytest

from tpu_retinamask.data.images.image_files import BadFile
from tpu_retinamask.data.images.mask_reader import draw_mask, is_drawn
from tpu_retinamask.data.masks import ArrayMask, ColourMask, JoinedMask, PolygonMask, RunLengthMask, WindowMask
from tpu_retinamask.data.sources.outlines import ellipse, extent, joined, rectangle, turned


@pytest.mark.parametrize("rx, ry", [(0.01, 0.01), (0.5, 3), (10, 10), (300, 40), (2000, 1999), (40_000, 3)])
@pytest.mark.parametrize("radians", [0.0, 0.7])
def test_an_ellipse_is_nowhere_a_twentieth_of_a_pixel_off(rx, ry, radians):
    corners = np.reshape(ellipse(50, 40, rx, ry, radians), [-1, 2])
    back = np.reshape(turned(tuple(corners.reshape(-1)), (50, 40), -radians), [-1, 2]) - (50, 40)
    np.testing.assert_allclose((back[:, 0] / rx) ** 2 + (back[:, 1] / ry) ** 2, 1, atol=1e-6)
    # The arc is furthest from a chord in the middle of its angles.
    angles = np.arctan2(back[:, 1] / ry, back[:, 0] / rx)
    middle = angles + np.pi / len(angles)
    on_arc = np.stack([rx * np.cos(middle), ry * np.sin(middle)], axis=-1)
    on_chord = (back + np.roll(back, -1, axis=0)) / 2
    assert np.hypot(*(on_arc - on_chord).T).max() < 0.05
    assert len(corners) % 4 == 0 and len(corners) <= 4096


def test_an_unturned_ellipse_reaches_as_far_as_its_radii_exactly():
    assert extent(PolygonMask((ellipse(50, 40, 30.5, 7),))) == (19.5, 33, 80.5, 47)


def test_turning_is_from_x_to_y():
    np.testing.assert_allclose(
        turned(rectangle((0, 0, 4, 2)), (0, 0), np.pi / 2), (0, 0, 0, 4, -2, 4, -2, 0), atol=1e-12
    )


def test_windows_hold_the_pixels_and_nothing_around_them():
    rng = np.random.default_rng(4)
    whole = np.zeros((30, 40), bool)
    whole[4:21, 7:30] = rng.random((17, 23)) < 0.5
    whole[4, 7] = whole[20, 29] = True
    mask = WindowMask.of(whole)
    assert (mask.left, mask.top, mask.width, mask.height) == (7, 4, 23, 17) and is_drawn(mask) and mask.files() == ()
    np.testing.assert_array_equal(draw_mask(mask, 30, 40), whole)
    np.testing.assert_array_equal(draw_mask(WindowMask.of(whole[4:, 7:] * 3, 7, 4), 30, 40), whole)
    assert mask == WindowMask.of(whole[2:], 0, 2) and hash(mask) == hash(WindowMask.of(whole))
    assert extent(mask) == (7, 4, 30, 21)
    with pytest.raises(BadFile, match="of 23 x 17 pixels at 7, 4 leaves the picture of 29 x 30"):
        draw_mask(mask, 30, 29)
    empty = WindowMask.of(np.zeros((3, 3)))
    assert extent(empty) is None and not draw_mask(empty, 5, 5).any()


def test_holes_are_cut_out_of_their_own_polygons():
    square, inner = (1, 1, 9, 1, 9, 9, 1, 9), (3, 3, 6, 3, 6, 6, 3, 6)
    mask = PolygonMask((square,), (inner,))
    truth = np.zeros((10, 12), bool)
    truth[1:9, 1:9], truth[3:6, 3:6] = True, False
    np.testing.assert_array_equal(draw_mask(mask, 10, 12), truth)
    # Another part of the object may lie in the hole.
    whole = joined([mask, PolygonMask(((4, 4, 5, 4, 5, 5, 4, 5),))])
    truth[4, 4] = True
    assert isinstance(whole, JoinedMask) and extent(whole) == (1, 1, 9, 9)
    np.testing.assert_array_equal(draw_mask(whole, 10, 12), truth)
    assert joined([PolygonMask((square,)), PolygonMask((inner,))]) == PolygonMask((square, inner))


def test_parts_of_every_kind_are_joined(tmp_path):
    values = np.zeros((6, 8), np.uint8)
    values[0, 0], values[0, 1] = 3, 4
    picture = PIL.Image.frombytes("P", (8, 6), values.tobytes())
    picture.putpalette([9] * 768)  # whose colours tell nothing
    picture.save(tmp_path / "v.png")
    one = ColourMask(str(tmp_path / "v.png"), index=3)
    array = np.zeros((6, 8), bool)
    array[5, 7] = True
    mask = JoinedMask((one, ArrayMask(array), WindowMask.of(np.ones((1, 1)), 4, 2), RunLengthMask((6, 8), (1, 1, 46))))
    assert np.argwhere(draw_mask(mask, 6, 8)).tolist() == [[0, 0], [1, 0], [2, 4], [5, 7]]
    assert mask.files() == one.files() == (str(tmp_path / "v.png"),)
    with pytest.raises(BadFile, match="is not of the picture's size, 9 x 6"):
        draw_mask(mask, 6, 9)
    with pytest.raises(BadFile, match="no such file"):
        draw_mask(ColourMask(str(tmp_path / "gone.png"), index=3), 6, 8)
    PIL.Image.new("RGB", (8, 6)).save(tmp_path / "rgb.png")
    with pytest.raises(BadFile, match="is an entry of a palette, and the file has none"):
        draw_mask(ColourMask(str(tmp_path / "rgb.png"), index=3), 6, 8)
