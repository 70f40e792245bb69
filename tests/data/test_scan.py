"""The scan before training: masks, boxes, what stops a run and what 'skip' keeps."""

import collections

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from reference.encoded_images import encode, png

from tpu_retinamask.data.annotations import instance_checks
from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.decode import decode_mask, label_step
from tpu_retinamask.data.images.mask_reader import MaskReader, read_mask

NOISE = np.random.default_rng(3).integers(0, 256, (21, 34, 3), dtype=np.uint8)


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
def test_non_zero_masks_read_the_same_in_the_graph_and_on_the_host(kind, write, scan):
    write("x.png", NOISE)
    write("m.png", NON_ZERO_MASKS[kind])
    instance = scan(f"x.png,{BOX},cow,m.png\n").images[0].instances[0]
    assert (instance.mask.value, instance.mask.decoded_value) == (None, None)
    np.testing.assert_array_equal(decode_mask(tf.io.read_file(instance.mask.path)).numpy() != 0, INSTANCE)
    np.testing.assert_array_equal(read_mask(instance, 21, 34), INSTANCE)


def test_palette_mask_is_read_by_colour_where_colour_and_index_agree(write, scan):
    write("x.png", NOISE)
    write("m.png", palette((0, 0, 0), (9, 0, 0)))
    instance = scan(f"x.png,{BOX},cow,m.png\n").images[0].instances[0]
    np.testing.assert_array_equal(read_mask(instance, 21, 34), LABELS != 0)
    np.testing.assert_array_equal(decode_mask(tf.io.read_file(instance.mask.path)).numpy() != 0, LABELS != 0)


@pytest.mark.parametrize("bit_depth", [2, 4, 8, 16])
def test_label_maps_of_every_depth_give_the_value_that_the_file_stores(bit_depth, write, scan):
    write("x.png", NOISE)
    if bit_depth < 8:
        write("m.png", png(bit_depth, 0, packed(LABELS, bit_depth), 34))
    else:
        write("m.png", LABELS.astype(np.uint16 if bit_depth == 16 else np.uint8))
    instance = scan(f"x.png,{BOX},cow,m.png#2\n").images[0].instances[0]
    assert instance.mask.value == 2
    assert instance.mask.decoded_value == 2 * label_step(bit_depth)
    pixels = decode_mask(tf.io.read_file(instance.mask.path)).numpy()
    np.testing.assert_array_equal(pixels == instance.mask.decoded_value, INSTANCE)
    np.testing.assert_array_equal(read_mask(instance, 21, 34), INSTANCE)


def test_label_map_of_one_bit_and_of_three_equal_channels(write, scan):
    write("x.png", NOISE)
    write("one.png", PIL.Image.fromarray(INSTANCE))
    write("three.png", np.repeat(LABELS[..., np.newaxis], 3, axis=-1))
    (record,) = scan(f"x.png,{BOX},cow,one.png#1\nx.png,{BOX},cow,three.png#2\n").images
    for instance in record.instances:
        pixels = decode_mask(tf.io.read_file(instance.mask.path)).numpy()
        np.testing.assert_array_equal(pixels == instance.mask.decoded_value, INSTANCE)
        np.testing.assert_array_equal(read_mask(instance, 21, 34), INSTANCE)


def test_labels_above_255_need_16_bits(write, scan):
    write("x.png", NOISE)
    write("m.png", INSTANCE.astype(np.uint16) * 300)
    (record,) = scan(f"x.png,{BOX},cow,m.png#300\n").images
    np.testing.assert_array_equal(read_mask(record.instances[0], 21, 34), INSTANCE)


def test_mask_reader_reads_several_files_and_labels_in_any_order(write, scan):
    write("x.png", NOISE)
    write("m.png", LABELS)
    write("n.png", INSTANCE.astype(np.uint8))
    text = f"x.png,{BOX},cow,m.png#2\nx.png,3,2,12,8,cow,m.png#1\nx.png,{BOX},cow,n.png\n"
    (record,) = scan(text).images
    reader = MaskReader()
    expected = {0: LABELS == 2, 1: LABELS == 1, 2: INSTANCE}
    for index in (0, 2, 1, 0, 1, 2):
        np.testing.assert_array_equal(reader.read(record.instances[index], 21, 34), expected[index])
    with pytest.raises(ValueError, match="line 1: mask .* has 34 x 21 pixels, expected the image's 33 x 21"):
        reader.read(record.instances[0], 21, 33)


GRAY = np.where(INSTANCE, 255, 0).astype(np.uint8)
BLURRED = encode(PIL.Image.fromarray(GRAY), "JPEG", quality=60)
AMBIGUOUS = (
    "whose transparency and colours disagree about which pixels are the instance; save it as 8-bit grayscale PNG"
)
REFUSED_MASKS = {
    "size": (np.ones((34, 21), np.uint8), "m.png", "mask m.png has 21 x 34 pixels, its image 34 x 21 (width x height)"),
    "empty": (np.zeros((21, 34), np.uint8), "m.png", "mask m.png is empty: every pixel is zero"),
    "outside its box": (
        np.where(LABELS == 1, 255, 0).astype(np.uint8),
        "m.png",
        "mask m.png has no pixel inside the box 20,10,30,20",
    ),
    "label outside its box": (LABELS, "m.png#1", "mask m.png has no pixel inside the box 20,10,30,20"),
    "label absent": (LABELS, "m.png#3", "mask m.png has no pixel of value 3"),
    "label beyond the depth": (LABELS, "m.png#300", "mask m.png has no pixel of value 300"),
    "palette without the entry": (
        palette((0, 0, 0), (9, 0, 0)),
        "m.png#3",
        "mask m.png has no pixel of entry 3 of its palette",
    ),
    "colour absent": (colour(INSTANCE, (2, 0, 0)), "m.png#ff0000", "mask m.png has no pixel of the colour #ff0000"),
    "a label with leading zeros": (
        LABELS,
        "m.png#000002",
        "mask m.png has no pixel of the colour #000002 (a label of a gray map is written without leading zeros)",
    ),
    "JPEG by colour": (
        BLURRED,
        "m.png#ffffff",
        "mask m.png: a JPEG file does not keep colours exactly: save masks of colours as PNG",
    ),
    "colour label map": (
        colour(INSTANCE, (2, 0, 0)),
        "m.png#2",
        "mask m.png: a label map must have one channel; this file holds colours",
    ),
    "JPEG label map": (
        encode(PIL.Image.fromarray(np.full((21, 34), 200, np.uint8)), "JPEG"),
        "m.png#200",
        "mask m.png: a label map must be a PNG file, not JPEG",
    ),
    "JPEG with blurred edges": (
        BLURRED,
        "m.png",
        "mask m.png: JPEG mask with values between 1 and 127: compression has "
        "blurred its edges, and each would count as the instance; save masks as PNG",
    ),
    "white but transparent outside": (
        np.dstack([np.full((21, 34, 3), 255, np.uint8), GRAY]),
        "m.png",
        f"mask m.png: a mask of mode RGBA {AMBIGUOUS}",
    ),
    "palette whose entry 0 is white": (
        palette((255, 255, 255), (0, 0, 0), (0, 0, 0)),
        "m.png",
        "mask m.png: PNG mask of mode P whose colours and stored values disagree about which pixels are "
        "zero; save it as 8-bit grayscale PNG",
    ),
    "truncated": (
        encode(PIL.Image.fromarray(NOISE[..., 0]), "PNG")[:-300],
        "m.png",
        "mask m.png: a PNG file that cannot be decoded to its end: truncated or damaged",
    ),
    "missing": (None, "m.png", "mask m.png: no such file: m.png"),
}


@pytest.mark.parametrize("row, column", [(9, 25), (20, 25), (15, 19), (15, 30)])
def test_a_mask_beside_its_box_is_outside_and_one_at_the_edge_is_not(row, column, write, scan, problems_of):
    write("x.png", NOISE)
    mask = np.zeros((21, 34), np.uint8)
    mask[row, column] = 1
    write("m.png", mask)
    (problem,) = problems_of(f"x.png,{BOX},cow,m.png\n")
    assert problem.endswith("has no pixel inside the box 20,10,30,20")
    mask[min(max(row, 10), 19), min(max(column, 20), 29)] = 1
    write("m.png", mask)
    assert not scan(f"x.png,{BOX},cow,m.png\n").reasons


@pytest.mark.parametrize("kind", REFUSED_MASKS)
def test_masks_refused_by_name(kind, write, tmp_path, problems_of):
    content, name, reason = REFUSED_MASKS[kind]
    write("x.png", NOISE)
    if content is not None:
        write("m.png", content)
    (problem,) = problems_of(f"x.png,{BOX},cow,{name}\n")
    assert problem.replace(f"{tmp_path}/", "") == f"line 1, x.png: {reason}"


def test_a_clean_jpeg_mask_is_accepted(write, scan):
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 16:32] = 255  # whole blocks of 8 x 8 survive the compression exactly
    write("x.png", np.zeros((32, 32, 3), np.uint8))
    write("m.jpg", encode(PIL.Image.fromarray(mask), "JPEG", quality=95))
    (record,) = scan("x.png,16,8,32,16,cow,m.jpg\n").images
    np.testing.assert_array_equal(read_mask(record.instances[0], 32, 32), mask != 0)
    pixels = decode_mask(tf.io.read_file(record.instances[0].mask.path)).numpy()
    np.testing.assert_array_equal(pixels, mask.astype(np.uint16) * 257)


# ---- boxes


@pytest.mark.parametrize(
    "box, kept, beyond",
    [
        ("-1,0,5,5", (0.0, 0.0, 5.0, 5.0), 1),
        ("0,-0.5,5,5", (0.0, 0.0, 5.0, 5.0), 0.5),
        ("30,0,34.5,5", (30.0, 0.0, 34.0, 5.0), 0.5),
        ("0,15,5,22", (0.0, 15.0, 5.0, 21.0), 1),
        ("-3,2,300,400", (0.0, 2.0, 34.0, 21.0), 379),
    ],
)
def test_a_box_that_sticks_out_is_clipped_counted_and_told(box, kept, beyond, write, scan):
    write("x.png", NOISE)
    found = scan(f"x.png,{box},cow\nx.png,1,1,4,4,cow\n")
    assert found.images[0].instances[0].box == kept and not found.reasons
    assert (found.clipped, found.farthest) == (1, beyond)
    assert f"clipped 1 boxes that stuck out of their image, by up to {beyond:g} pixels" in found.summary()


@pytest.mark.parametrize("box, thin", [("1,1,1.0001,4", 1), ("0.1,0.2,0.5,0.6", 1), ("1,1,2,2", 0)])
def test_a_box_thinner_than_a_pixel_is_told(box, thin, write, scan):
    write("x.png", NOISE)
    found = scan(f"x.png,{box},cow\nx.png,1,1,4,4,cow\n")
    assert (found.thin, f"{thin} boxes have a side under one pixel" in found.summary()) == (thin, bool(thin))


@pytest.mark.parametrize("box", ["40,30,50,40", "-9,2,0,8", "3,21,9,30"])
def test_a_box_outside_the_image_is_refused(box, write, problems_of):
    write("x.png", NOISE)
    assert problems_of(f"x.png,{box},cow\n") == (
        f"line 1, x.png: the box {box} lies outside the image of 34 x 21 pixels (width x height)",
    )


@pytest.mark.parametrize(
    "box, kept",
    [
        ("0,0,34,21", (0.0, 0.0, 34.0, 21.0)),
        ("-0.004,0,34.009,21", (0.0, 0.0, 34.0, 21.0)),
        ("33,20,34,21", (33.0, 20.0, 34.0, 21.0)),
    ],
)
def test_a_box_may_reach_the_border_and_rounding_beyond_it_is_clipped(box, kept, write, scan):
    write("x.png", NOISE)
    assert scan(f"x.png,{box},cow\n").images[0].instances[0].box == kept


def test_a_sliver_beyond_the_border_has_no_area_left(write, problems_of):
    write("x.png", NOISE)
    assert problems_of("x.png,34,0,34.005,5,cow\n") == (
        "line 1, x.png: the box 34,0,34.005,5 lies outside the image of 34 x 21 pixels (width x height)",
    )


@pytest.mark.parametrize(
    "text",
    ["x.png,0.2,0.1,0.9,1,cow\n", "x.png,0,0,1,1,cow\n", "x.png,0,0,1,1,cow\nx.png,0.5,0.5,0.2,0.1,cow\n"],
)
def test_fractions_are_no_pixels(text, write, scan):
    write("x.png", NOISE)
    with pytest.raises(AnnotationError, match=r"all coordinates of the \d boxes lie in 0..1: pixels are expected"):
        scan(text)


def test_one_box_in_pixels_is_enough(write, scan):
    write("x.png", NOISE)
    found = scan("x.png,0.2,0.1,0.9,1,cow\nx.png,3,4,9,9.5,cow\n")
    assert [instance.box for instance in found.images[0].instances] == [(0.2, 0.1, 0.9, 1.0), (3.0, 4.0, 9.0, 9.5)]


# ---- stop and skip

MIXED = (
    "x.png,1,2,3,4,cow\n"
    "gone.png,1,2,3,4,cow\n"
    "x.png,100,2,300,4,cow\n"
    "y.png,1,200,3,400,cow\n"
    f"x.png,{BOX},cow,m.png#9\n"
    "z.png,,,,,,\n"
)


def test_stop_lists_every_problem_in_image_order(write, problems_of):
    for name in ("x.png", "y.png", "z.png"):
        write(name, NOISE)
    write("m.png", LABELS)
    problems = problems_of(MIXED)
    assert [problem.split(":")[0] for problem in problems] == [
        "line 3, x.png",
        "line 5, x.png",
        "line 2, gone.png",
        "line 4, y.png",
    ]


def test_skip_drops_instances_keeps_their_images_and_counts(write, caplog, scan):
    for name in ("x.png", "y.png", "z.png"):
        write(name, NOISE)
    write("m.png", LABELS)
    result = scan(MIXED, on_bad_record="skip")
    assert [(record.name, record.image_id, len(record.instances)) for record in result.images] == [
        ("x.png", 0, 1),
        ("y.png", 2, 0),
        ("z.png", 3, 0),
    ]
    assert result.images[0].instances[0].line == 1
    assert (result.dropped_images, result.dropped_instances, result.emptied_images) == (1, 3, 1)
    assert result.reasons == collections.Counter({"box outside the image": 2, "missing": 1, "label absent": 1})
    assert result.summary() == (
        "3 images with 1 instances; dropped 1 images and 3 instances (box outside the image: 2, label "
        "absent: 1, missing: 1); 1 images lost all their instances and count as background"
    )
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert all(f"line {line}, " in logged for line in (2, 3, 4, 5))


def test_skip_stops_where_no_image_is_left(scan):
    with pytest.raises(AnnotationError, match="no image is left after leaving out the bad records"):
        scan("gone.png,1,2,3,4,cow\n", on_bad_record="skip")


def test_more_than_twenty_problems_are_counted_not_listed(scan):
    with pytest.raises(AnnotationError) as error:
        scan("".join(f"{n}.png,,,,,\n" for n in range(25)))
    assert (
        str(error.value)
        .split("\n")[0]
        .startswith("25 bad records; correct them, or leave them out, counted, by --gin_param=")
    )
    assert str(error.value).split("\n")[-1] == "  and 5 more"


def test_a_mask_file_shared_without_labels_is_counted(write, scan):
    write("x.png", NOISE)
    write("m.png", LABELS)
    result = scan(f"x.png,{BOX},cow,m.png\nx.png,3,2,12,8,cow,m.png\n")
    assert result.shared_masks == 1
    assert result.summary().endswith(
        "1 mask files serve several instances without '#' labels, so each instance is what lies inside its own box"
    )
    assert scan(f"x.png,{BOX},cow,m.png#2\nx.png,3,2,12,8,cow,m.png#1\n").shared_masks == 0


def test_a_label_map_is_decoded_once_for_all_its_instances(write, monkeypatch, scan):
    write("x.png", NOISE)
    path = write("m.png", LABELS)
    opened = []
    original = instance_checks.load_mask
    monkeypatch.setattr(instance_checks, "load_mask", lambda name: opened.append(name) or original(name))
    scan(f"x.png,{BOX},cow,m.png#2\nx.png,3,2,12,8,cow,m.png#1\n")
    assert opened == [path]


@pytest.mark.parametrize("option", ["on_bad_record", "exif_orientation"])
def test_unknown_policies_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} is 'perhaps', expected '"):
        scan_images([], **{option: "perhaps"})


def test_real_records_are_all_usable(shared_data):
    for folder, file, counts in (("nuclei", "val.csv", (35, 1217)), ("coco", "val.csv", (66, 552))):
        classes = read_classes(str(shared_data / folder / "classes.csv"))
        result = scan_images(read_annotations(str(shared_data / folder / file), classes))
        assert (len(result.images), sum(len(record.instances) for record in result.images)) == counts
        assert not result.reasons
