"""Pictures without annotations: as the run read its own, and upright where it had nothing to say."""

import tracemalloc

import numpy as np
import PIL.Image
import pytest

from tpu_retinamask.data.images.bad_file import BadFile
from tpu_retinamask.data.images.image_files import check_image
from tpu_retinamask.data.pixel_reading import PixelReading
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.tasks import detector
from tpu_retinamask.tasks.inference import orientation_of_new_pictures


@pytest.mark.parametrize("run, expected", [("refuse", "apply"), ("apply", "apply"), ("ignore", "ignore")])
def test_a_picture_is_turned_as_the_run_did_and_upright_where_it_refused(run, expected):
    assert orientation_of_new_pictures(SourceSettings(exif_orientation=run)) == expected


def test_the_python_door_sees_the_pixels_that_a_graph_is_given(tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (20, 30)).astype(np.uint16)
    exif = PIL.Image.Exif()
    exif[274] = 6
    PIL.Image.fromarray(deep).save(tmp_path / "a.tiff", exif=exif)
    expected = np.repeat(np.round(deep / 4095 * 255).astype(np.uint8)[..., None], 3, axis=-1)
    reading = PixelReading((0, 4095))
    turned = detector._pixels(str(tmp_path / "a.tiff"), "apply", reading)
    np.testing.assert_array_equal(turned, np.rot90(expected, -1))  # clockwise by a quarter
    np.testing.assert_array_equal(detector._pixels(str(tmp_path / "a.tiff"), "ignore", reading), expected)


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "large.png"
    PIL.Image.new("1", (13_000, 13_000)).save(path)
    assert path.stat().st_size < 1e5
    tracemalloc.start()
    with pytest.raises(BadFile, match=r"= 169000000 pixels, and 100000000 are allowed(.|\n)*max_pixels=169"):
        check_image(str(path), "apply", PixelReading(max_pixels=100_000_000))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1e7  # bytes; its pixels are 507 million
