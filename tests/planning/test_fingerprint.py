"""What is seen of pictures made for it: colours, up and down, sides and counts."""

import numpy as np
import PIL.Image
import pytest

from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.planning.fingerprint import fingerprint, has_no_upright_side, look_at

CLASSES = ClassNames(("cat", None, "dog"))


def annotated(path, number, boxes, size=(40, 60)):
    instances = tuple(AnnotatedInstance(1, tuple(map(float, box)), 0, None) for box in boxes)
    return AnnotatedImage(str(path), path.name, number, *size, 1, instances)


@pytest.fixture
def pictures(tmp_path):
    """Write pictures: pictures(count, colour=..., upper=..., lower=...)."""

    def write(count, *, colour=(1, 1, 1), upper=100, lower=100):
        paths = []
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 30, (40, 60, 1))
            pixels = pixels + np.where(np.arange(40) < 20, upper, lower)[:, None, None]
            path = tmp_path / f"{number}.png"
            PIL.Image.fromarray((pixels * np.array(colour)).clip(0, 255).astype(np.uint8)).save(path)
            paths.append(path)
        return paths

    return write


def test_counts_and_sides(pictures):
    paths = pictures(2)
    images = [annotated(paths[0], 0, [(0, 0, 6, 6), (10, 10, 40, 22)]), annotated(paths[1], 1, [])]
    found = fingerprint(images, CLASSES, images[:1])
    assert (found.images, found.validation, found.counts.tolist()) == (2, 1, [2, 0])
    np.testing.assert_allclose(found.sides, [6 / 60, np.sqrt(30 * 12) / 60])
    assert found.class_names == ("cat", "unused_1", "dog") and found.mask_share == 0.0 and found.long_side == 60
    assert "2 pictures of about 60 x 40 pixels" in str(found) and "2 objects of 3 classes, 0% with masks" in str(found)


def test_colours_are_seen(pictures):
    def share(**given):
        return look_at([annotated(path, 0, []) for path in pictures(3, **given)]).colours

    assert share(colour=(1, 0.5, 0.8)) == 1.0
    assert share() == 0.0
    assert look_at([]).colours is None


def test_a_sky_above_tells_up_from_down(pictures):
    boxes = [(x, y, x + 4, y + 4) for x in (5, 30, 50) for y in (4, 18, 32)]
    for given, expected in (({}, True), ({"upper": 200}, False), ({"lower": 200}, False)):
        images = [annotated(path, number, boxes) for number, path in enumerate(pictures(20, **given))]
        assert fingerprint(images, CLASSES).turnable is expected


def test_a_photograph_that_lies_on_its_side_is_looked_at_upright(tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = 200  # of the stored pixels the left half: the upper one when turned clockwise, as 6 says
    exif = PIL.Image.Exif()
    exif[274] = 6
    PIL.Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    (instance,) = annotated(tmp_path / "a.jpg", 0, [(0, 0, 9, 9)]).instances
    turned = AnnotatedImage(str(tmp_path / "a.jpg"), "a.jpg", 0, 60, 40, 6, (instance,))
    stored = AnnotatedImage(str(tmp_path / "a.jpg"), "a.jpg", 0, 40, 60, 1, (instance,))
    assert look_at([turned]).lightness[0] > 190 and abs(look_at([stored]).lightness[0]) < 5


def test_large_pictures_are_looked_at_less(pictures, monkeypatch):
    images = [annotated(path, number, []) for number, path in enumerate(pictures(20))]
    assert len(look_at(images).lightness) == 20
    monkeypatch.setattr("tpu_retinamask.planning.fingerprint.MOST_PIXELS", 12 * 40 * 60)
    assert len(look_at(images).lightness) == 12
    monkeypatch.setattr("tpu_retinamask.planning.fingerprint.MOST_PIXELS", 1)
    assert len(look_at(images).lightness) == 8


def test_places_and_shapes_tell_up_from_down():
    random, light, picture = np.random.default_rng(0), np.zeros(30), np.repeat(np.arange(30), 10)
    sizes = np.full((300, 2), 100)
    corner = random.uniform(0, 90, (300, 2))

    def turnable(corner, extent, light=light):
        boxes = np.concatenate([corner, corner + extent], axis=1)
        return has_no_upright_side(light, boxes, sizes, picture)

    assert turnable(corner, [10, 10])
    assert not turnable(corner, [10, 16])  # all stand
    assert not turnable(corner * [1, 0.5], [10, 10])  # all hang from above
    assert turnable(corner * [0.5, 1], [10, 10])  # left and right may differ
    # A mean of zero that so few do not tell from one of 10: two errors are 22.
    assert not turnable(corner, [10, 10], np.tile([60.0, -60.0], 15))
    assert turnable(corner, [10, 10], np.tile([20.0, -20.0], 15))  # 7
    assert not turnable(corner, [10, 10], np.zeros(0))  # no pixels were seen


def test_pictures_that_cannot_be_opened_are_passed_over(tmp_path, pictures):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    looks = look_at([annotated(broken, 0, []), annotated(pictures(1)[0], 1, [])])
    assert looks.colours == 0.0 and len(looks.lightness) == 1
