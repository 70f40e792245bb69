"""Masks that lie beside their boxes are told; colours and entries of a palette are masks, in batches too."""

import numpy as np
import PIL.Image

from tpu_retinamask.data.images.mask_reader import MaskReader, draw_mask, read_mask

NOISE = np.random.default_rng(3).integers(0, 256, (21, 34, 3), dtype=np.uint8)

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


# ---- masks and boxes that disagree


def test_most_masks_beside_their_boxes_are_told(write, scan, caplog):
    write("x.png", NOISE)
    write("m.png", (LABELS == 0).astype(np.uint8))  # inverted
    write("n.png", LABELS)
    assert scan(f"x.png,{BOX},cow,n.png#2\nx.png,3,2,12,8,cow,n.png#1\n").misplaced == 0
    assert "most of their pixels" not in caplog.text
    found = scan("x.png,2,2,13,9,cow,m.png\n")
    assert (found.misplaced, found.masks) == (1, 1)
    assert "1 of 1 masks have most of their pixels outside of their box: they may be inverted" in caplog.text


def test_one_file_for_several_objects_is_not_beside_their_boxes(write, scan):
    write("x.png", NOISE)
    write("m.png", LABELS)
    assert scan(f"x.png,{BOX},cow,m.png\nx.png,3,2,12,8,cow,m.png\n").masks == 0


# ---- colours and palettes


def test_colours_and_entries_of_a_palette_are_masks(write, scan):
    write("x.png", NOISE)
    write("c.png", colour(LABELS == 1, (0, 128, 0)) + colour(INSTANCE, (255, 0, 0)))
    write("p.png", palette((0, 0, 0), (9, 0, 0)))
    write("b.png", palette((255, 255, 255), (0, 0, 0), (0, 0, 0)))
    rows = [("3,2,12,8", "c.png#008000"), (BOX, "c.png#FF0000"), (BOX, "p.png#2"), ("3,2,12,8", "b.png#1")]
    text = "".join(f"x.png,{box},cow,{mask}\n" for box, mask in rows)
    (record,) = scan(text).images
    for instance, expected in zip(record.instances, (LABELS == 1, INSTANCE, INSTANCE, LABELS == 1), strict=True):
        np.testing.assert_array_equal(read_mask(instance, 21, 34), expected)
        np.testing.assert_array_equal(draw_mask(instance.mask, 21, 34), expected)
    reader = MaskReader()
    for index in (0, 2, 1, 3, 0):
        expected = (LABELS == 1, INSTANCE, INSTANCE, LABELS == 1)[index]
        np.testing.assert_array_equal(reader.read(record.instances[index], 21, 34), expected)


def test_batches_of_colours_are_those_of_labels(write, scan, pipeline, samples, assert_same_batch):
    write("x.png", NOISE)
    write("c.png", colour(LABELS == 1, (0, 128, 0)) + colour(INSTANCE, (255, 0, 0)))
    write("n.png", LABELS)
    by_label = scan(f"x.png,3,2,12,8,cow,n.png#1\nx.png,{BOX},cow,n.png#2\n").images
    by_colour = scan(f"x.png,3,2,12,8,cow,c.png#008000\nx.png,{BOX},cow,c.png#ff0000\n").images
    mixed = scan(f"x.png,3,2,12,8,cow,n.png#1\nx.png,{BOX},cow,c.png#ff0000\n").images
    made = pipeline(augmentation=None)
    expected = samples(made.train_dataset(by_label, 1), 1)
    assert expected[0].masks.any()
    for images in (by_colour, mixed):
        for a, b in zip(expected, samples(made.train_dataset(images, 1), 1), strict=True):
            assert_same_batch(a, b)
