"""The scan before training: what each file kind reads as, what is refused by name, what 'skip' keeps."""

import collections
import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf

from tpu_retinamask.data import scan as scan_module
from tpu_retinamask.data.annotations import AnnotationError, ClassNames, read_annotations, read_classes
from tpu_retinamask.data.decode import apply_orientation, decode_image, decode_mask, label_step
from tpu_retinamask.data.scan import MaskReader, read_mask, scan_records

CLASSES = ClassNames(("cow",))
RNG = np.random.default_rng(3)
NOISE = RNG.integers(0, 256, (21, 34, 3), dtype=np.uint8)
PICTURE = PIL.Image.fromarray(NOISE)


def encode(picture, image_format, **options):
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def png(bit_depth, colour_type, rows, width):
    """Write a PNG of a kind that Pillow cannot write."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", width, len(rows), bit_depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def orientation_tag(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif


def without_adobe_marker(data):
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2:start + 4], "big"):]


def scan(write, text, **options):
    return scan_records(read_annotations(write("t.csv", text), CLASSES), **options)


def problems_of(write, text, **options):
    with pytest.raises(AnnotationError) as error:
        scan(write, text, **options)
    return error.value.problems


# ---- image kinds that are read, each equal to Pillow's RGB to the last bit

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
        PICTURE.convert("P"), "GIF", save_all=True, append_images=[PICTURE.rotate(180).convert("P")]),
    "BMP": encode(PICTURE, "BMP"),
    "BMP gray": encode(PICTURE.convert("L"), "BMP"),
}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")  # Pillow's, on convert
@pytest.mark.parametrize("kind", READ_LIKE_PILLOW)
def test_image_kinds_are_read_as_pillow_reads_them(kind, write):
    data = READ_LIKE_PILLOW[kind]
    expected = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data).numpy(), expected)
    record, = scan(write, write("x.img", data) + ",,,,,\n").records
    assert (record.height, record.width, record.orientation) == (*expected.shape[:2], 1)


def test_16_bit_gray_image_keeps_its_high_byte(write):
    values = RNG.integers(0, 65536, (9, 7)).astype(np.uint16)
    write("x.png", values)
    image = decode_image(tf.io.read_file(write("x.png", values))).numpy()
    np.testing.assert_array_equal(image, np.repeat((values >> 8)[..., np.newaxis], 3, axis=-1))
    assert len(scan(write, "x.png,,,,,\n").records) == 1


REFUSED_IMAGES = {
    "empty file": (b"", "the file is empty"),
    "text": (b"hello world", "not an image: it starts with b'hello wo'"),
    "truncated JPEG": (encode(PICTURE, "JPEG")[:-200],
                       "a JPEG file that cannot be decoded to its end: truncated or damaged"),
    "truncated PNG": (encode(PICTURE, "PNG")[:-200],
                      "a PNG file that cannot be decoded to its end: truncated or damaged"),
    "TIFF": (encode(PICTURE, "TIFF"),
             "a TIFF file, which training cannot read; convert it to PNG or JPEG"),
    "WebP": (encode(PICTURE, "WEBP"),
             "a WEBP file, which training cannot read; convert it to PNG or JPEG"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(40),
             "a HEIC file (HEIC, AVIF or video); convert it to JPEG or PNG"),
    "palette BMP": (encode(PICTURE.convert("P"), "BMP"),
                    "a BMP file of mode P (palette, 1-bit or compressed), which would be read wrong; save "
                    "it as PNG"),
    "1-bit BMP": (encode(PICTURE.convert("1"), "BMP"),
                  "a BMP file of mode 1 (palette, 1-bit or compressed), which would be read wrong; save it "
                  "as PNG"),
    "CMYK JPEG without Adobe's marker": (
        without_adobe_marker(encode(PICTURE.convert("CMYK"), "JPEG")),
        "a JPEG file of mode CMYK that TensorFlow and Pillow read differently; convert it to RGB and save it "
        "as PNG or JPEG"),
    "12 bits in 16": (encode(PIL.Image.fromarray(np.full((4, 4), 4095, np.uint16)), "PNG"),
                      "16-bit PNG whose brightest value is 4095 of 65535: it would be read as almost black; "
                      "stretch it to the full range or save it with 8 bits"),
    "EXIF-rotated JPEG": (
        encode(PICTURE, "JPEG", exif=orientation_tag(6)),
        "its EXIF orientation is 6, so boxes and masks may be meant on the stored or on the upright picture; "
        "say which with exif_orientation = 'ignore' (stored) or 'apply' (upright)"),
}


@pytest.mark.parametrize("kind", REFUSED_IMAGES)
def test_image_kinds_refused_by_name(kind, write):
    data, reason = REFUSED_IMAGES[kind]
    write("x.img", data)
    assert problems_of(write, "\nx.img,1,2,3,4,cow\n") == (f"line 2, x.img: {reason}",)


def test_missing_image_is_named_with_the_resolved_path(write, tmp_path):
    assert problems_of(write, "no.png,,,,,\nsub\\a.png,,,,,\n") == (
        f"line 1, no.png: no such file: {tmp_path}/no.png",
        f"line 2, sub\\a.png: no such file: {tmp_path}/sub\\a.png (the path holds '\\'; write '/' between "
        "folders)")


# ---- EXIF orientation

@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, write):
    data = encode(PICTURE, "JPEG", exif=orientation_tag(orientation))
    stored = PIL.Image.open(io.BytesIO(data))
    write("x.jpg", data)
    upright = np.asarray(PIL.ImageOps.exif_transpose(stored))
    turned = apply_orientation(decode_image(data), tf.constant(orientation)).numpy()
    np.testing.assert_array_equal(turned, upright)
    record, = scan(write, "x.jpg,,,,,\n", exif_orientation="apply").records
    assert (record.height, record.width, record.orientation) == (*upright.shape[:2], orientation)
    record, = scan(write, "x.jpg,,,,,\n", exif_orientation="ignore").records
    assert (record.height, record.width, record.orientation) == (21, 34, 1)


def test_orientation_outside_1_to_8_means_none(write):
    write("x.jpg", encode(PICTURE, "JPEG", exif=orientation_tag(0)))
    assert scan(write, "x.jpg,,,,,\n").records[0].orientation == 1


# ---- masks

LABELS = np.zeros((21, 34), np.uint8)
LABELS[2:8, 3:12] = 1
LABELS[10:20, 20:30] = 2
INSTANCE = LABELS == 2
BOX = "20,10,30,20"


def colour(mask, value):
    return np.where(mask[..., np.newaxis], np.uint8(value), np.uint8(0))


def palette(first, second, third=(0, 0, 9)):
    picture = PIL.Image.fromarray(LABELS).convert("P")
    picture.putpalette([*first, *second, *third] + [0] * 759)
    return picture


def packed(values, bit_depth):
    per_byte = 8 // bit_depth
    padded = np.pad(values, [(0, 0), (0, -values.shape[1] % per_byte)])
    groups = padded.reshape(len(values), -1, per_byte)
    shifts = np.arange(per_byte)[::-1] * bit_depth
    return [bytes(row) for row in (groups << shifts).sum(axis=-1).astype(np.uint8)]


RGBA_MASK = np.dstack([colour(INSTANCE, (9, 0, 7)), np.where(INSTANCE, 255, 0).astype(np.uint8)])
NON_ZERO_MASKS = {
    "gray 255": np.where(INSTANCE, 255, 0).astype(np.uint8),
    "gray 1": INSTANCE.astype(np.uint8),
    "1-bit": PIL.Image.fromarray(INSTANCE),
    "16-bit, below the high byte": INSTANCE.astype(np.uint16) * 7,
    "RGB, blue alone": colour(INSTANCE, (0, 0, 1)),
    "RGBA, opaque": np.dstack([colour(INSTANCE, (255, 0, 0)), np.full((21, 34), 255, np.uint8)]),
    "RGBA, transparent outside": RGBA_MASK,
}


@pytest.mark.parametrize("kind", NON_ZERO_MASKS)
def test_non_zero_masks_read_the_same_in_the_graph_and_on_the_host(kind, write):
    write("x.png", NOISE)
    write("m.png", NON_ZERO_MASKS[kind])
    instance = scan(write, f"x.png,{BOX},cow,m.png\n").records[0].instances[0]
    assert (instance.mask_value, instance.decoded_value) == (None, None)
    np.testing.assert_array_equal(decode_mask(tf.io.read_file(instance.mask)).numpy() != 0, INSTANCE)
    np.testing.assert_array_equal(read_mask(instance, 21, 34), INSTANCE)


def test_palette_mask_is_read_by_colour_where_colour_and_index_agree(write):
    write("x.png", NOISE)
    write("m.png", palette((0, 0, 0), (9, 0, 0)))
    instance = scan(write, f"x.png,{BOX},cow,m.png\n").records[0].instances[0]
    np.testing.assert_array_equal(read_mask(instance, 21, 34), LABELS != 0)
    np.testing.assert_array_equal(decode_mask(tf.io.read_file(instance.mask)).numpy() != 0, LABELS != 0)


@pytest.mark.parametrize("bit_depth", [2, 4, 8, 16])
def test_label_maps_of_every_depth_give_the_value_that_the_file_stores(bit_depth, write):
    write("x.png", NOISE)
    if bit_depth < 8:
        write("m.png", png(bit_depth, 0, packed(LABELS, bit_depth), 34))
    else:
        write("m.png", LABELS.astype(np.uint16 if bit_depth == 16 else np.uint8))
    instance = scan(write, f"x.png,{BOX},cow,m.png#2\n").records[0].instances[0]
    assert instance.mask_value == 2
    assert instance.decoded_value == 2 * label_step(bit_depth)
    pixels = decode_mask(tf.io.read_file(instance.mask)).numpy()
    np.testing.assert_array_equal(pixels == instance.decoded_value, INSTANCE)
    np.testing.assert_array_equal(read_mask(instance, 21, 34), INSTANCE)


def test_label_map_of_one_bit_and_of_three_equal_channels(write):
    write("x.png", NOISE)
    write("one.png", PIL.Image.fromarray(INSTANCE))
    write("three.png", np.repeat(LABELS[..., np.newaxis], 3, axis=-1))
    record, = scan(write, f"x.png,{BOX},cow,one.png#1\nx.png,{BOX},cow,three.png#2\n").records
    for instance in record.instances:
        pixels = decode_mask(tf.io.read_file(instance.mask)).numpy()
        np.testing.assert_array_equal(pixels == instance.decoded_value, INSTANCE)
        np.testing.assert_array_equal(read_mask(instance, 21, 34), INSTANCE)


def test_labels_above_255_need_16_bits(write):
    write("x.png", NOISE)
    write("m.png", INSTANCE.astype(np.uint16) * 300)
    record, = scan(write, f"x.png,{BOX},cow,m.png#300\n").records
    np.testing.assert_array_equal(read_mask(record.instances[0], 21, 34), INSTANCE)


def test_mask_reader_reads_several_files_and_labels_in_any_order(write):
    write("x.png", NOISE)
    write("m.png", LABELS)
    write("n.png", INSTANCE.astype(np.uint8))
    text = f"x.png,{BOX},cow,m.png#2\nx.png,3,2,12,8,cow,m.png#1\nx.png,{BOX},cow,n.png\n"
    record, = scan(write, text).records
    reader = MaskReader()
    expected = {0: LABELS == 2, 1: LABELS == 1, 2: INSTANCE}
    for index in (0, 2, 1, 0, 1, 2):
        np.testing.assert_array_equal(reader.read(record.instances[index], 21, 34), expected[index])
    with pytest.raises(ValueError, match="line 1: mask .* has 34 x 21 pixels, expected the image's 33 x 21"):
        reader.read(record.instances[0], 21, 33)


GRAY = np.where(INSTANCE, 255, 0).astype(np.uint8)
BLURRED = encode(PIL.Image.fromarray(GRAY), "JPEG", quality=60)
AMBIGUOUS = "whose transparency and colours disagree about which pixels are the instance; save it as 8-bit " \
            "grayscale PNG"
REFUSED_MASKS = {
    "size": (np.ones((34, 21), np.uint8), "m.png",
             "mask m.png has 21 x 34 pixels, its image 34 x 21 (width x height)"),
    "empty": (np.zeros((21, 34), np.uint8), "m.png", "mask m.png is empty: every pixel is zero"),
    "outside its box": (np.where(LABELS == 1, 255, 0).astype(np.uint8), "m.png",
                        "mask m.png has no pixel inside the box 20,10,30,20"),
    "label outside its box": (LABELS, "m.png#1", "mask m.png has no pixel inside the box 20,10,30,20"),
    "label absent": (LABELS, "m.png#3", "mask m.png has no pixel of value 3"),
    "label beyond the depth": (LABELS, "m.png#300", "mask m.png has no pixel of value 300"),
    "palette label map": (palette((0, 0, 0), (9, 0, 0)), "m.png#2",
                          "mask m.png: a palette PNG cannot be a label map, because its values are replaced "
                          "by colours"),
    "colour label map": (colour(INSTANCE, (2, 0, 0)), "m.png#2",
                         "mask m.png: a label map must have one channel; this file holds colours"),
    "JPEG label map": (encode(PIL.Image.fromarray(np.full((21, 34), 200, np.uint8)), "JPEG"), "m.png#200",
                       "mask m.png: a label map must be a PNG file, not JPEG"),
    "JPEG with blurred edges": (BLURRED, "m.png",
                                "mask m.png: JPEG mask with values between 1 and 127: compression has "
                                "blurred its edges, and each would count as the instance; save masks as PNG"),
    "white but transparent outside": (
        np.dstack([np.full((21, 34, 3), 255, np.uint8), GRAY]), "m.png",
        f"mask m.png: a mask of mode RGBA {AMBIGUOUS}"),
    "palette whose entry 0 is white": (
        palette((255, 255, 255), (0, 0, 0), (0, 0, 0)), "m.png",
        "mask m.png: PNG mask of mode P whose colours and stored values disagree about which pixels are "
        "zero; save it as 8-bit grayscale PNG"),
    "truncated": (encode(PIL.Image.fromarray(NOISE[..., 0]), "PNG")[:-300], "m.png",
                  "mask m.png: a PNG file that cannot be decoded to its end: truncated or damaged"),
    "missing": (None, "m.png", "mask m.png: no such file: m.png"),
}


@pytest.mark.parametrize("kind", REFUSED_MASKS)
def test_masks_refused_by_name(kind, write, tmp_path):
    content, name, reason = REFUSED_MASKS[kind]
    write("x.png", NOISE)
    if content is not None:
        write("m.png", content)
    problem, = problems_of(write, f"x.png,{BOX},cow,{name}\n")
    assert problem.replace(f"{tmp_path}/", "") == f"line 1, x.png: {reason}"


def test_a_clean_jpeg_mask_is_accepted(write):
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 16:32] = 255  # whole blocks of 8 x 8 survive the compression exactly
    write("x.png", np.zeros((32, 32, 3), np.uint8))
    write("m.jpg", encode(PIL.Image.fromarray(mask), "JPEG", quality=95))
    record, = scan(write, "x.png,16,8,32,16,cow,m.jpg\n").records
    np.testing.assert_array_equal(read_mask(record.instances[0], 32, 32), mask != 0)
    pixels = decode_mask(tf.io.read_file(record.instances[0].mask)).numpy()
    np.testing.assert_array_equal(pixels, mask.astype(np.uint16) * 257)


# ---- boxes

@pytest.mark.parametrize("box", ["-1,0,5,5", "0,-0.5,5,5", "30,0,34.5,5", "0,15,5,22", "40,30,50,40"])
def test_a_box_that_leaves_the_image_is_refused(box, write):
    write("x.png", NOISE)
    assert problems_of(write, f"x.png,{box},cow\n") == (
        f"line 1, x.png: the box {box} leaves the image of 34 x 21 pixels (width x height)",)


@pytest.mark.parametrize("box, kept", [
    ("0,0,34,21", (0.0, 0.0, 34.0, 21.0)),
    ("-0.004,0,34.009,21", (0.0, 0.0, 34.0, 21.0)),
    ("33,20,34,21", (33.0, 20.0, 34.0, 21.0))])
def test_a_box_may_reach_the_border_and_rounding_beyond_it_is_clipped(box, kept, write):
    write("x.png", NOISE)
    assert scan(write, f"x.png,{box},cow\n").records[0].instances[0].box == kept


def test_a_sliver_beyond_the_border_has_no_area_left(write):
    write("x.png", NOISE)
    assert problems_of(write, "x.png,34,0,34.005,5,cow\n") == (
        "line 1, x.png: the box 34,0,34.005,5 has no area inside the image",)


# ---- stop and skip

MIXED = (
    "x.png,1,2,3,4,cow\n"
    "gone.png,1,2,3,4,cow\n"
    "x.png,1,2,300,4,cow\n"
    "y.png,1,2,3,400,cow\n"
    f"x.png,{BOX},cow,m.png#9\n"
    "z.png,,,,,,\n")


def test_stop_lists_every_problem_in_image_order(write):
    for name in ("x.png", "y.png", "z.png"):
        write(name, NOISE)
    write("m.png", LABELS)
    problems = problems_of(write, MIXED)
    assert [problem.split(":")[0] for problem in problems] == [
        "line 3, x.png", "line 5, x.png", "line 2, gone.png", "line 4, y.png"]


def test_skip_drops_instances_keeps_their_images_and_counts(write, caplog):
    for name in ("x.png", "y.png", "z.png"):
        write(name, NOISE)
    write("m.png", LABELS)
    result = scan(write, MIXED, on_bad_record="skip")
    assert [(record.name, record.image_id, len(record.instances)) for record in result.records] == [
        ("x.png", 0, 1), ("y.png", 2, 0), ("z.png", 3, 0)]
    assert result.records[0].instances[0].line == 1
    assert (result.dropped_images, result.dropped_instances, result.emptied_images) == (1, 3, 1)
    assert result.reasons == collections.Counter(
        {"box outside the image": 2, "missing": 1, "label absent": 1})
    assert result.summary() == (
        "3 images with 1 instances; dropped 1 images and 3 instances (box outside the image: 2, label "
        "absent: 1, missing: 1); 1 images lost all their instances and count as background")
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert all(f"line {line}, " in logged for line in (2, 3, 4, 5))


def test_skip_stops_where_no_image_is_left(write):
    with pytest.raises(AnnotationError, match="no image is left after leaving out the bad records"):
        scan(write, "gone.png,1,2,3,4,cow\n", on_bad_record="skip")


def test_more_than_twenty_problems_are_counted_not_listed(write):
    with pytest.raises(AnnotationError) as error:
        scan(write, "".join(f"{n}.png,,,,,\n" for n in range(25)))
    assert str(error.value).split("\n")[0].startswith("25 bad records; correct them, or set on_bad_record")
    assert str(error.value).split("\n")[-1] == "  and 5 more"


def test_a_mask_file_shared_without_labels_is_counted(write):
    write("x.png", NOISE)
    write("m.png", LABELS)
    result = scan(write, f"x.png,{BOX},cow,m.png\nx.png,3,2,12,8,cow,m.png\n")
    assert result.shared_masks == 1
    assert result.summary().endswith("1 mask files serve several instances without '#' labels, so each "
                                     "instance is what lies inside its own box")
    assert scan(write, f"x.png,{BOX},cow,m.png#2\nx.png,3,2,12,8,cow,m.png#1\n").shared_masks == 0


def test_a_label_map_is_decoded_once_for_all_its_instances(write, monkeypatch):
    write("x.png", NOISE)
    path = write("m.png", LABELS)
    opened = []
    original = scan_module.load_mask
    monkeypatch.setattr(scan_module, "load_mask", lambda name: opened.append(name) or original(name))
    scan(write, f"x.png,{BOX},cow,m.png#2\nx.png,3,2,12,8,cow,m.png#1\n")
    assert opened == [path]


@pytest.mark.parametrize("option", ["on_bad_record", "exif_orientation"])
def test_unknown_policies_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} is 'perhaps', expected '"):
        scan_records([], **{option: "perhaps"})


def test_real_records_are_all_usable(shared_data):
    for folder, file, counts in (("nuclei", "val.csv", (35, 1217)), ("coco", "val.csv", (66, 552))):
        classes = read_classes(str(shared_data / folder / "classes.csv"))
        result = scan_records(read_annotations(str(shared_data / folder / file), classes))
        assert (len(result.records), sum(len(record.instances) for record in result.records)) == counts
        assert not result.reasons
