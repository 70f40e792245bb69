"""Image files of every kind: read like Pillow to the last bit, or refused by name; EXIF orientation."""

import io

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf
from reference.encoded_images import encode, png

from tpu_retinamask.data.images.decode import apply_orientation, decode_image

RNG = np.random.default_rng(3)
NOISE = RNG.integers(0, 256, (21, 34, 3), dtype=np.uint8)
PICTURE = PIL.Image.fromarray(NOISE)


def orientation_tag(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif


def without_adobe_marker(data):
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


GRAY_ALPHA = PIL.Image.merge("LA", [PICTURE.convert("L"), PICTURE.getchannel(0)])
RGB_ALPHA = PIL.Image.merge("RGBA", [*PICTURE.split(), PICTURE.getchannel(0)])
READ_LIKE_PILLOW = {
    "PNG RGB": encode(PICTURE, "PNG"),
    "PNG gray": encode(PICTURE.convert("L"), "PNG"),
    "PNG gray + alpha": encode(GRAY_ALPHA, "PNG"),
    "PNG RGBA": encode(RGB_ALPHA, "PNG"),
    "PNG palette": encode(PICTURE.convert("P"), "PNG"),
    "PNG palette with transparency": encode(PICTURE.convert("P"), "PNG", transparency=bytes(range(256))),
    "PNG 1-bit": encode(PICTURE.convert("1"), "PNG"),
    "PNG 2-bit": png(2, 0, [bytes([0b00011011, 0b11100100])] * 3, 8),
    "PNG 16-bit RGB": png(16, 2, [RNG.bytes(36) for _ in range(4)], 6),
    "JPEG": encode(PICTURE, "JPEG", quality=95),
    "JPEG, colours halved": encode(PICTURE, "JPEG", subsampling=2),
    "JPEG progressive": encode(PICTURE, "JPEG", progressive=True),
    "JPEG gray": encode(PICTURE.convert("L"), "JPEG"),
    "JPEG CMYK": encode(PICTURE.convert("CMYK"), "JPEG", quality=95),
    "GIF": encode(PICTURE, "GIF"),
    "GIF animated: first frame": encode(
        PICTURE.convert("P"), "GIF", save_all=True, append_images=[PICTURE.rotate(180).convert("P")]
    ),
    "BMP": encode(PICTURE, "BMP"),
    "BMP gray": encode(PICTURE.convert("L"), "BMP"),
}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")  # Pillow's, on convert
@pytest.mark.parametrize("kind", READ_LIKE_PILLOW)
def test_image_kinds_are_read_as_pillow_reads_them(kind, write, scan):
    data = READ_LIKE_PILLOW[kind]
    expected = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data).numpy(), expected)
    (record,) = scan(write("x.img", data) + ",,,,,\n").images
    assert (record.height, record.width, record.orientation) == (*expected.shape[:2], 1)


def test_16_bit_gray_image_keeps_its_high_byte(write, scan):
    values = RNG.integers(0, 65536, (9, 7)).astype(np.uint16)
    write("x.png", values)
    image = decode_image(tf.io.read_file(write("x.png", values))).numpy()
    np.testing.assert_array_equal(image, np.repeat((values >> 8)[..., np.newaxis], 3, axis=-1))
    assert len(scan("x.png,,,,,\n").images) == 1


REFUSED_IMAGES = {
    "empty file": (b"", "the file is empty"),
    "text": (b"hello world", "not an image: it starts with b'hello wo'"),
    "truncated JPEG": (
        encode(PICTURE, "JPEG")[:-200],
        "a JPEG file that cannot be decoded to its end: truncated or damaged",
    ),
    "truncated PNG": (
        encode(PICTURE, "PNG")[:-200],
        "a PNG file that cannot be decoded to its end: truncated or damaged",
    ),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(40), "a HEIC file (HEIC, AVIF or video); convert it to JPEG or PNG"),
    "palette BMP": (
        encode(PICTURE.convert("P"), "BMP"),
        "a BMP file of mode P (palette, 1-bit or compressed), which would be read wrong; save it as PNG",
    ),
    "1-bit BMP": (
        encode(PICTURE.convert("1"), "BMP"),
        "a BMP file of mode 1 (palette, 1-bit or compressed), which would be read wrong; save it as PNG",
    ),
    "CMYK JPEG without Adobe's marker": (
        without_adobe_marker(encode(PICTURE.convert("CMYK"), "JPEG")),
        "a JPEG file of mode CMYK that TensorFlow and Pillow read differently; convert it to RGB and save it "
        "as PNG or JPEG",
    ),
    "12 bits in 16": (
        encode(PIL.Image.fromarray(np.full((4, 4), 4095, np.uint16)), "PNG"),
        "16-bit PNG whose brightest value is 4095 of 65535: it would be read as almost black; "
        'say which values are black and white: --gin_param="source.value_range=(0, 4095)"',
    ),
    "EXIF-rotated JPEG": (
        encode(PICTURE, "JPEG", exif=orientation_tag(6)),
        "its EXIF orientation is 6, so boxes and masks may be meant on the stored or on the upright picture. "
        "Say which: --gin_param=\"source.exif_orientation='apply'\" where they are drawn on the upright picture, as "
        "most tools show it, or --gin_param=\"source.exif_orientation='ignore'\" where on the stored pixels",
    ),
}


@pytest.mark.parametrize("kind", REFUSED_IMAGES)
def test_image_kinds_refused_by_name(kind, write, problems_of):
    data, reason = REFUSED_IMAGES[kind]
    write("x.img", data)
    assert problems_of("\nx.img,1,2,3,4,cow\n") == (f"line 2, x.img: {reason}",)


def test_missing_image_is_named_with_the_resolved_path(tmp_path, problems_of):
    assert problems_of("no.png,,,,,\nsub\\a.png,,,,,\n") == (
        f"line 1, no.png: no such file: {tmp_path}/no.png",
        f"line 2, sub\\a.png: no such file: {tmp_path}/sub/a.png",
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, write, scan):
    data = encode(PICTURE, "JPEG", exif=orientation_tag(orientation))
    stored = PIL.Image.open(io.BytesIO(data))
    write("x.jpg", data)
    upright = np.asarray(PIL.ImageOps.exif_transpose(stored))
    turned = apply_orientation(decode_image(data), tf.constant(orientation)).numpy()
    np.testing.assert_array_equal(turned, upright)
    (record,) = scan("x.jpg,,,,,\n", exif_orientation="apply").images
    assert (record.height, record.width, record.orientation) == (*upright.shape[:2], orientation)
    (record,) = scan("x.jpg,,,,,\n", exif_orientation="ignore").images
    assert (record.height, record.width, record.orientation) == (21, 34, 1)


def test_orientation_outside_1_to_8_means_none(write, scan):
    write("x.jpg", encode(PICTURE, "JPEG", exif=orientation_tag(0)))
    assert scan("x.jpg,,,,,\n").images[0].orientation == 1
