"""COCO files as sets: crowds, categories without objects or of one name, images twice, and where these lie."""

import numpy as np
import pytest
from reference.small_coco import DISC, HEIGHT, PLAIN, WIDTH, boxes, entry, opened, read

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.data.masks import PolygonMask, RunLengthMask
from tpu_retinamask.data.sources.opening import open_images
from tpu_retinamask.data.sources.registry import SOURCES
from tpu_retinamask.errors import UserError

# ---- crowds, categories without objects, names twice, images twice, nothing left


def test_crowds_are_left_out_or_taken_and_a_set_of_nothing_is_refused(coco):
    path = coco([entry(1, iscrowd=1), entry(2, 2, box=(70, 20, 40, 50), iscrowd=1)])
    with pytest.raises(UserError) as error:
        opened(path)
    assert "no object is left" in str(error.value) and '--gin_param="source.allow_empty=True"' in str(error.value)
    assert "left out 2 crowd regions (2 images hold nothing else" in str(error.value)
    assert "--gin_param=\"source.crowds='objects'\"" in str(error.value)
    assert boxes(read(path, crowds="objects")) == PLAIN
    assert [len(image.instances) for image in opened(path, allow_empty=True)[1]] == [0, 0]


def test_a_file_without_annotations_is_refused_and_says_so(coco):
    with pytest.raises(UserError, match="no object is left[^$]*the file has no 'annotations'"):
        opened(coco(annotations=...))


ROBOFLOW = [{"id": 0, "name": "tableware-q3x"}, {"id": 1, "name": "mug"}, {"id": 2, "name": "plate"}]


def test_categories_without_objects_are_named_and_can_be_left_out(coco):
    path = coco([entry(1, category=1), entry(2, category=2)], categories=ROBOFLOW)
    content = read(path)
    assert content.classes.names == ("tableware-q3x", "mug", "plate")
    (note,) = content.notes
    assert "1 of 3 categories have no object: 'tableware-q3x'" in note
    assert "--gin_param=\"source.unused_classes='leave_out'\"" in note
    content = read(path, unused_classes="leave_out")
    assert content.classes.names == ("mug", "plate")
    assert [i.class_id for i in content.images[0].instances] == [0, 1]


def test_names_twice_are_refused_merged_or_gone_with_the_unused(coco):
    twice = [{"id": 0, "name": "mug"}, {"id": 1, "name": "mug "}, {"id": 5, "name": "plate"}]
    path = coco([entry(1, category=1), entry(2, category=5)], categories=twice)
    with pytest.raises(UserError) as error:
        read(path)
    assert "'mug' is the name of 2 categories" in str(error.value)
    assert "source.repeated_names='merge'" in str(error.value) and "source.unused_classes=" in str(error.value)
    for settings in ({"repeated_names": "merge"}, {"unused_classes": "leave_out"}):
        content = read(path, **settings)
        assert content.classes.names == ("mug", "plate")
        assert [i.class_id for i in content.images[0].instances] == [0, 1]
        # What was merged is an output, but not one without objects.
        assert not any("each is an output all the same" in note for note in content.notes)


def test_classes_that_are_given_number_the_categories_and_others_are_named(coco):
    path = coco([entry(1, category=1), entry(2, category=2)], categories=ROBOFLOW)
    content = read(path, ClassNames(("plate", "mug")))
    assert [i.class_id for i in content.images[0].instances] == [1, 0] and content.notes == ()
    with pytest.raises(AnnotationError, match=r"1 objects are of the category 'plate' \(id 2\).*such as 'plates'"):
        read(path, ClassNames(("plates", "mug")))
    assert len(boxes(read(path, ClassNames(("plates", "mug")), on_bad_record="skip"))) == 1


def test_a_file_under_two_ids_is_one_image_and_repeats_are_dropped(coco):
    images = [{"id": n, "file_name": name} for n, name in ((7, "a.png"), (9, "b.png"), (12, "./a.png"))]
    content = read(coco([entry(1, 7), entry(2, 9), entry(3, 12), entry(4, 12, box=(70, 20, 40, 50))], images=images))
    assert [len(image.instances) for image in content.images] == [2, 1]
    assert "1 images name a file that another names too" in content.notes[0]
    assert content.notes[1].startswith("left out 1 objects that repeat the class, box and mask")
    images[0] |= {"height": 96, "width": 128}
    images[2] |= {"height": 48, "width": 64}
    with pytest.raises(AnnotationError, match=r"images\[2\]: height and width: got \[48, 64\], expected \[96, 128\]"):
        read(coco([entry(1, 7)], images=images))


# ---- where the images lie


def test_images_that_are_not_where_they_are_said_are_found_by_their_last_part_if_it_is_one(coco, write):
    names = ["..\\..\\studio\\upload\\4\\a.png", "https://example.org/img/b.png"]
    path = coco(images=[{"id": n, "file_name": name} for n, name in enumerate(names, 1)])
    content = read(path)
    assert [image.image.split("/")[-2:] for image in content.images] == [["images", "a.png"], ["images", "b.png"]]
    assert "2 images are not where their file_name says, and were found in" in content.notes[0]
    path = coco(images=[{"id": 1, "file_name": "x/a.png"}, {"id": 2, "file_name": "y/a.png"}])
    with pytest.raises(AnnotationError) as error:  # a.png may be either
        opened(path)
    assert [problem.split(":")[0] for problem in error.value.problems] == ["images[0], x/a.png", "images[1], y/a.png"]
    write("images/x/a.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    content = read(coco(images=[{"id": 1, "file_name": "x/a.png"}, {"id": 2, "file_name": "b.png"}]))
    assert content.images[0].image.endswith("images/x/a.png") and content.notes == ()


def test_without_a_folder_images_lie_beside_the_file(coco):
    path = coco(images=[{"id": n, "file_name": f"images/{x}.png"} for n, x in ((1, "a"), (2, "b"))])
    _, images = open_images(path, None, None)
    assert [image.image for image in images] == [path.replace("instances.json", f"images/{x}.png") for x in "ab"]


def test_a_picture_of_another_size_than_the_file_says_is_refused(coco, write):
    write("images/b.png", np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(AnnotationError) as error:
        opened(coco())
    (problem,) = error.value.problems
    assert problem.startswith(
        "images[1], b.png: its source says 128 x 96 pixels, the file has 64 x 48 (width x height)"
    )


@pytest.mark.parametrize(
    "text, is_coco",
    [
        ('{"info": {"x": 1}, "licenses": [], "images": [', True),
        ('\n {"categories" : [', True),
        ('{"annotations":[{', True),
        ('{"version": "5.2.1", "shapes": [], "images": []', False),
        ('{"a.png30211": {"filename": "a.png", "regions": []}}', False),
        ('{"info": {}, "categories": {"label": {}}, "items": []', False),
        ("image,x1,y1,x2,y2,class\n", False),
        ("[]", False),
        ("", False),
    ],
)
def test_the_kind_is_told_by_the_first_bytes(text, is_coco, write):
    assert SOURCES.get("coco").recognise(write("x.json", text)) is is_coco
    assert not SOURCES.get("coco").recognise(write("x.json", text) + "gone")


def test_masks_keep_their_kind(coco):
    rle = {"size": [HEIGHT, WIDTH], "counts": [2000, 8, 12288 - 2008]}
    content = read(coco([entry(1), dict(entry(2, box=(20, 80, 2, 10)), segmentation=rle)]))
    kinds = [instance.mask for instance in content.images[0].instances]
    assert kinds == [PolygonMask((tuple(DISC),)), RunLengthMask((HEIGHT, WIDTH), (2000, 8, 10280))]
