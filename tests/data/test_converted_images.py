"""WebP, TIFF and chosen values of 16 bits: one picture to the scan, the stream, records and all others."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import PIL.Image
import pytest

from tpu_retinamask.data.annotated_image import ListedImage
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.bad_file import BadFile
from tpu_retinamask.data.images.image_files import check_image, read_picture
from tpu_retinamask.data.images.mask_reader import picture_bytes
from tpu_retinamask.data.pixel_reading import ConvertedImage, PixelReading
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.data.stream.host_batches import HostBatches
from tpu_retinamask.errors import SettingError

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (20, 30, 3), dtype=np.uint8)
DEEP = RANDOM.integers(0, 4096, (20, 30)).astype(np.uint16)  # 12 bits
DEEP_COLOUR = np.round(DEEP / 4095 * 255).astype(np.uint8)
TWELVE = PixelReading((0, 4095))


def _pixels(path, exif="refuse", reading=PixelReading()):  # noqa: B008
    found = check_image(path, exif, reading)
    picture = PIL.Image.open(io.BytesIO(read_picture(found.converted or path)))
    return np.asarray(picture.convert("RGB")), found


def _gray(values):
    return np.repeat(values[..., None], 3, axis=-1)


KINDS = {
    "WebP": ("a.webp", COLOUR, {"lossless": True}, None, COLOUR),
    "TIFF": ("a.tiff", COLOUR, {}, None, COLOUR),
    "TIFF, LZW": ("a.tiff", COLOUR, {"compression": "tiff_lzw"}, None, COLOUR),
    "gray TIFF": ("a.tiff", COLOUR[..., 0], {}, None, _gray(COLOUR[..., 0])),
    "16 bits in a TIFF": ("a.tiff", DEEP * 16, {}, None, _gray((DEEP * 16 >> 8).astype(np.uint8))),
    "12 bits in a TIFF": ("a.tiff", DEEP, {}, (0, 4095), _gray(DEEP_COLOUR)),
    "12 bits in a PNG": ("a.png", DEEP, {}, (0, 4095), _gray(DEEP_COLOUR)),
    "numbers in a TIFF": ("a.tiff", DEEP.astype(np.float32) / 4095, {}, (0, 1), _gray(DEEP_COLOUR)),
    "8 bits know no range": ("a.png", COLOUR, {}, (0, 4095), COLOUR),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_that_were_meant(kind, write):
    name, values, options, value_range, expected = KINDS[kind]
    pixels, found = _pixels(write(name, values, **options), reading=PixelReading(value_range))
    np.testing.assert_array_equal(pixels, expected)
    assert (found.height, found.width) == (20, 30)


def test_values_beyond_the_range_are_clipped(write):
    values = np.array([[0, 100, 150, 200, 65535]], np.uint16)
    pixels, _ = _pixels(write("a.png", values), reading=PixelReading((100, 200)))
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.tiff", "a.webp", "a.png"])
def test_a_turned_picture_is_stored_and_upright_as_any_other(name, orientation, write):
    exif = PIL.Image.Exif()
    exif[274] = orientation
    path = write(name, COLOUR, exif=exif, **({"lossless": True} if name == "a.webp" else {}))
    stored, found = _pixels(path, "apply")
    np.testing.assert_array_equal(stored, COLOUR)  # which the graph then turns
    assert found.orientation == orientation
    assert (found.height, found.width) == ((30, 20) if orientation >= 5 else (20, 30))
    assert _pixels(path, "ignore")[1].orientation == 1
    if orientation > 1:
        with pytest.raises(BadFile, match="its EXIF orientation"):
            check_image(path, "refuse")


def _declaring(width, height):
    """A PNG of a few bytes whose header declares a size."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"x")) + chunk(b"IEND", b"")


def _several(image_format):
    file = io.BytesIO()
    PIL.Image.fromarray(COLOUR).save(
        file, image_format, save_all=True, append_images=[PIL.Image.fromarray(255 - COLOUR)]
    )
    return file.getvalue()


def _encoded(image_format, values=COLOUR, mode=None):
    file = io.BytesIO()
    picture = PIL.Image.fromarray(values)
    (picture.convert(mode) if mode else picture).save(file, image_format)
    return file.getvalue()


def _jpeg_declaring(width, height):
    data = bytearray(_encoded("JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


REFUSED = {
    "two billion pixels": (_declaring(50_000, 40_000), "declares 50000 x 40000 = 2000000000 pixels"),
    "two billion pixels of JPEG": (_jpeg_declaring(50_000, 40_000), '"source.max_pixels=2000000000"'),
    "pages": (_several("TIFF"), "--gin_param=\"source.pages='first'\""),
    "film": (_several("WEBP"), "a WEBP file of 2 pictures"),
    "12 bits": (
        _encoded("TIFF", DEEP),
        f'brightest value is {DEEP.max()} of 65535.*"source.value_range=\\(0, 4095\\)"',
    ),
    "float": (_encoded("TIFF", DEEP.astype(np.float32)), f"with values from {DEEP.min()} to {DEEP.max()}: say which"),
    "CMYK": (_encoded("TIFF", mode="CMYK"), "a TIFF file of mode CMYK"),
    "cut": (_encoded("TIFF")[:400], "a TIFF file that cannot be decoded"),
    "another format": (_encoded("PPM"), "a PPM file, which training cannot read"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_named(kind, write):
    data, words = REFUSED[kind]
    tracemalloc.start()
    with pytest.raises(BadFile, match=words):
        check_image(write("a.bin", data), "refuse")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # bytes; the picture declared would take six billion


def test_the_limit_and_the_page_can_be_set(write):
    small = write("a.png", COLOUR)
    with pytest.raises(BadFile, match="declares 30 x 20 = 600 pixels, and 599 are allowed"):
        check_image(small, "refuse", PixelReading(max_pixels=599))
    assert check_image(small, "refuse", PixelReading(max_pixels=600)).width == 30
    pixels, _ = _pixels(write("a.tiff", _several("TIFF")), reading=PixelReading(pages="first"))
    np.testing.assert_array_equal(pixels, COLOUR)


def test_settings_of_sources_say_how_pixels_are_read():
    assert SourceSettings().pixels == PixelReading()
    given = SourceSettings(value_range=[0, 4095], pages="first", max_pixels=9)
    assert given.pixels == PixelReading((0, 4095), "first", 9)
    for wrong, words in (
        ({"value_range": (9, 9)}, r"value_range is \(9, 9\), expected \(low, high\) with low < high"),
        ({"value_range": 4095}, "value_range is 4095, expected 2 values"),
        ({"max_pixels": 0}, "max_pixels is 0, expected 1 or more"),
        ({"pages": 2}, "pages is 2, expected one of 'refuse', 'first'"),
    ):
        with pytest.raises(SettingError, match=words):
            SourceSettings(**wrong)


@pytest.fixture
def both(write):
    """Images of all kinds, and the same ones as PNG of 8 bits: (converted, plain), each scanned."""
    contents = {
        "a.webp": (COLOUR, {"lossless": True}, COLOUR),
        "b.tiff": (255 - COLOUR, {}, 255 - COLOUR),
        "c.png": (COLOUR[::-1], {}, COLOUR[::-1]),
        "d.png": (DEEP, {}, _gray(DEEP_COLOUR)),
    }

    def scanned(paths, **options):
        listed = [ListedImage(image=path, name=str(n), line=n + 1, instances=()) for n, path in enumerate(paths)]
        return scan_images(listed, **options).images

    given = [write(name, values, **options) for name, (values, options, _) in contents.items()]
    plain = [write(f"plain/{number}.png", seen) for number, (_, _, seen) in enumerate(contents.values())]
    return scanned(given, pixels=TWELVE), scanned(plain)


@pytest.mark.ci
@pytest.mark.parametrize("cache", [False, "files", "decoded"])
def test_batches_are_those_of_the_same_pictures_as_png(both, pipeline, samples, assert_same_batch, cache):
    converted, plain = both
    assert [isinstance(image.image, ConvertedImage) for image in converted] == [True, True, False, True]
    built = pipeline(cache=cache)
    for one, two in zip(samples(built.train_dataset(converted, 2), 4), samples(built.train_dataset(plain, 2), 4)):
        assert_same_batch(one, two)
    for one, two in zip(samples(built.eval_dataset(converted, 3)), samples(built.eval_dataset(plain, 3))):
        assert_same_batch(one, two)
    # A run that goes on gets what it would have got.
    resumed = samples(built.train_dataset(converted, 2, 3), 1)
    for one, two in zip(resumed, samples(built.train_dataset(plain, 2), 4)[6:]):
        assert_same_batch(one, two)


def test_a_transform_and_records_see_the_same(both, pipeline, samples, assert_same_batch, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    from tpu_retinamask.data.prepared.reading import open_records
    from tpu_retinamask.data.prepared.writing import RecordsBuilder

    converted, plain = both
    built = pipeline()
    expected = samples(built.train_dataset(plain, 2), 4)
    held = iter(HostBatches(built, converted, lambda **sample: sample, 2))
    for number in range(2):
        batch = next(held)
        for row in range(2):
            for name in ("image", "content_size", "image_id"):
                wanted = getattr(expected[2 * number + row], name)
                np.testing.assert_array_equal(getattr(batch, name).numpy()[row], wanted)
    listed = [ListedImage(image=i.image.path if isinstance(i.image, ConvertedImage) else i.image, name=i.name, line=1,
                          instances=()) for i in converted]  # fmt: skip
    RecordsBuilder(
        str(tmp_path / "d"), ClassNames(("x",)), {"train": scan_images(listed, pixels=TWELVE)}, sources={}
    ).build()
    stored = open_records(str(tmp_path / "d")).split("train")
    assert picture_bytes(stored[0].image)[:4] == b"\x89PNG"
    for one, two in zip(samples(built.train_dataset(stored, 2), 4), expected):
        assert_same_batch(one, two)
