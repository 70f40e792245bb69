"""What each line of each case has to say, and with which code it ends.

A line of the table stands for the line of cmd.txt at the same place: its exit code, then words that it says.
"""

import re
from typing import NamedTuple


class Line(NamedTuple):
    """What one line is expected to do; `words` are parts of what it says, `silent` are not."""

    code: int
    words: tuple[str, ...]
    silent: tuple[str, ...] = ()


def ok(*words: str, silent: tuple[str, ...] = ()) -> Line:
    """Return a line that does its work."""
    return Line(0, words, silent)


def refused(*words: str) -> Line:
    """Return a line that ends with one error."""
    return Line(2, ("error: ", *words))


def pasted(setting: str) -> str:
    """Return the flag that sets a setting, as advice writes it."""
    return f'--gin_param="{setting}"'


SKIP = pasted("source.on_bad_record='skip'")
APPLY = pasted("source.exif_orientation='apply'")
CROWDS = pasted("source.crowds='objects'")
CLIPPED = "clipped 3 boxes that stuck out of their image, by up to 1 pixels"
SUM = "expected 128 x 96 = 12288 (width x height)"
TWO, ONE = "wrote {0}: 2 images with {1} instances", "1 images with 2 instances"
OUTSIDE = "1 of 1 masks have most of their pixels outside of their box: they may be inverted, transposed"
NORMALISED = "all coordinates of the 4 boxes lie in 0..1: pixels are expected"
NO_COLUMNS = "expected a header row in the order image,x1,y1,x2,y2,class,mask"
LATER_KIND = "expected a COCO dataset, an object with 'images', 'annotations' and 'categories'"
HINT = "did you mean source.exif_orientation?"
FLAT = "1 polygons have fewer than three corners and enclose nothing"
BY_LAST_PART = "2 images are not where their file_name says, and were found in {} by its last part"
MATCHED = "are matched by the name of their image file"
MORE = pasted("evaluate.max_detections=150")

EXPECTED: dict[str, list[Line]] = {
    "01_phone_exif": [
        refused("train.csv: 2 bad records", "line 1, photos/IMG_0007.jpg: its EXIF orientation is 6", APPLY),
        refused("exif_orientation is no setting", f"write {APPLY}"),
        refused(HINT),
        refused(HINT),
        ok("2 pictures lie on their side, as their EXIF orientation says", "boxes and masks are those of the upright"),
        refused("left out 2 bad records", "no image is left", "line 3, photos/IMG_0008.jpg: its EXIF orientation is 6"),
        ok("scan: 2 images with 3 instances; nothing dropped"),
        ok("image height: 128 to 128", "width: 96 to 96", "2 of 2 classes have objects"),
    ],
    "02_iscrowd_all": [
        refused("2 images, and no object is left", "left out 3 crowd regions", CROWDS, "source.allow_empty=True"),
        refused("train.csv: no such file"),
    ],
    "03_roboflow_category0": [
        ok("1 of 3 categories have no object: 'tableware-q3x'", pasted("source.unused_classes='leave_out'")),
        ok("1 of 3 classes have no object to train on: tableware-q3x"),
        refused("'mug' is the name of 2 categories", pasted("source.repeated_names='merge'")),
    ],
    "04_via_coco": [ok(TWO.format("train.csv", 3))] * 3,
    "05_no_bbox": [ok("2 annotations have no bbox: it is taken from their mask", ONE)],
    "06_rle_wrong_total": [
        refused("too_long_zeros.json", "annotations[0] (id 1): segmentation: run lengths sum to 52288 pixels", SUM),
        refused("too_long_ones.json", "annotations[0] (id 1): segmentation: run lengths sum to 42288 pixels", SUM),
        refused("too_short.json", "annotations[0] (id 1): segmentation: run lengths sum to 5700 pixels", SUM),
        refused("compressed_too_long.json", "annotations[0] (id 1): segmentation: run lengths sum to 42288", SUM),
        ok(OUTSIDE, "COCO's run down the columns"),
        ok("results results_row_major.json", OUTSIDE, "COCO's run down the columns"),
    ],
    "07_backslash_file_name": [
        ok(TWO.format("train.csv", 2)),
        ok("scan: 2 images with 2 instances; nothing dropped"),
        ok(BY_LAST_PART.format("images"), TWO.format("train.csv", 2)),
        ok("scan: 2 images with 2 instances; nothing dropped"),
    ],
    "08_same_name_two_folders": [
        ok(TWO.format("train.csv", 3)),
        ok("done: 4 steps in run"),
        ok("2 images, 3 ground truths, 0 crowd regions"),
    ],
    "09_image_twice_two_ids": [
        ok(
            "1 images name a file that another names too: it is one image",
            "left out 1 objects that repeat the class, box and mask of another of their image",
            TWO.format("train.csv", 3),
        ),
        ok("2 images, 3 objects, 0 of them without a mask"),
    ],
    "12_one_zero_width_box": [
        refused(
            "train.csv: 2 bad lines",
            SKIP,
            "line 2, column 4 (x2): read '51', expected a number greater than x1 = 51",
            "line 4, column 6 (class): read 'cup', expected a class of the class file: 'mug', 'plate'",
        ),
        ok("left out 2 bad lines", "column 4 (x2)", "column 6 (class)", "2 images with 3 instances; nothing dropped"),
    ],
    "13_box_past_the_border": [ok(CLIPPED, "2 images with 4 instances", silent=("bad record",))] * 2,
    "14_image_id_kinds": [
        ok(f"2 of 2 entries {MATCHED}"),
        refused("results[0]: image_id: got a list of 1, expected a whole number or a text", "results[1]: image_id"),
        ok("2 detections"),
        ok("the results have no masks: box AP alone is worked out"),
        ok("2 detections"),
        refused("results res_broken.json: not JSON", "line 1 column 334"),
    ],
    "15_normalised_boxes": [
        refused("train.csv", NORMALISED, "multiply x by the width"),
        refused("line 1: read 'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax'", NO_COLUMNS),
        refused("line 1: read 'image,xmin,xmax,ymin,ymax,class'", NO_COLUMNS),
        refused("train.csv", NORMALISED),
    ],
    "17_via_csv_polygons": [
        ok("read as via", "2 images with 4 instances; nothing dropped", silent=("have no mask",)),
        ok("1 images with 2 instances; nothing dropped", silent=("have no mask",)),
        ok("1 images with 1 instances; nothing dropped", silent=("have no mask",)),
        refused("line 1: read 'ImageId,EncodedPixels'", "along the columns or the rows", "or a label map"),
        refused(
            "via_region_data.json is of the kind 'via', not of COCO's", "`convert --annotations=via_region_data.json"
        ),
        refused("labelme.json is of the kind 'labelme', not of COCO's", "`convert --annotations=labelme.json "),
    ],
    "23_degenerate_polygons": [
        ok(FLAT, ONE, "1 instances have no mask"),
        refused("annotations[0] (id 1): segmentation: a polygon has 25 numbers, expected an even count", SKIP),
        ok(FLAT, ONE, "1 instances have no mask"),
        ok(ONE, "0 instances have no mask"),
        ok("1 masks cover no pixel, so that their boxes are trained alone", "1 instances have no mask"),
        refused("annotations[0], a.png: the polygon from 200,12 to 260,52 lies outside the image of 128 x 96", SKIP),
        refused("annotations[0] (id 1): segmentation: got '20,12,60,12,60,52', expected polygons", SKIP),
        ok(ONE, "1 instances have no mask"),
        ok(ONE, "1 instances have no mask"),
    ],
    "25_predict_inputs": [
        ok("0 objects in 4 images"),
        ok("0 objects in 4 images"),
        ok("0 objects in 1 images"),
        ok("0 objects in 2 images"),
        ok("0 objects in 1 images"),
        ok("0 objects in 4 images"),
        ok("0 objects in 1 images"),
        ok("2 files are no images and left out: Thumbs.db, notes.txt", "0 objects in 1 images"),
        refused("--images nothing/*.png: no file matches"),
        refused("--images=photos/missing.png: no such file or folder"),
        ok("0 objects in 1 images"),
    ],
    "26_resume_other_batch": [
        ok("step 4/4  epoch 4.0"),
        ok("resuming at step 4 of 6", "8 images have been shown so far, 4.0 epochs", "step 6/6  epoch 8.0"),
        ok("resuming at step 6 of 6", "which is the end"),
    ],
    "30_150_objects_one_class": [
        ok("at most 100 per image", "150 objects of one class, but only 100 detections count", MORE),
        ok("150 detections; at most 300 per image", silent=("recall cannot reach 1",)),
        refused("DetectionFilter.max_detections: not read", pasted("evaluate.max_detections=300")),
        ok("the results have no masks: box AP alone is worked out", MORE),
    ],
    "31_coco_field_kinds": [
        ok(TWO.format("out/size_text.csv", 2)),
        ok(TWO.format("out/iscrowd_null.csv", 2), silent=("crowd region",)),
        ok("2 annotations have no bbox: it is taken from their mask", TWO.format("out/bbox_empty.csv", 2)),
        refused("annotations[0] (id 1): category_id: got null", "expected one of the 1 ids, such as 1", SKIP),
        refused("images[0]: file_name: got nothing", "images[1]: file_name", "expected the name of an image file"),
        ok("1 of 2 categories have no object: 'post'", TWO.format("out/categories_text_ids.csv", 2)),
        refused("2 images, and no object is left in them", "the file has no 'annotations'"),
        ok(BY_LAST_PART.format("images"), TWO.format("out/file_name_url.csv", 2)),
        refused("annotations[2]: got null, expected an object", SKIP),
        refused("annotations[0] (id 1): image_id: got a list of 1", "expected one of the 2 ids, such as 1, 2"),
        ok(TWO.format("out/with_bom.csv", 2)),
        refused("list_not_dict.json: got a list", LATER_KIND),
    ],
    "39_file_name_climbs_out": [
        ok(TWO.format("train.csv", 2)),
        ok(BY_LAST_PART.format("photos"), TWO.format("train2.csv", 2)),
    ],
    "41_predict_then_score": [
        ok("objects in 2 images"),
        ok(MATCHED, "2 images, 3 ground truths"),
        ok(MATCHED, "2 images, 3 ground truths"),
    ],
    "42_rle_in_results": [
        ok("2 ground truths, 0 crowd regions, 1 detections"),
        refused("results res_repr.json", "results[0]: segmentation: ", "bytes as Python shows them", "counts.decode()"),
        refused("results[0]: segmentation: run lengths sum to 42288 pixels", SUM),
        refused("size [128, 96], the image [96, 128] (height, width); it looks like [width, height]"),
        refused("results[0]: segmentation: run lengths hold -5", "whole numbers from 0"),
        refused("ground truth gt_too_long.json", "annotations[0] (id 1)", "run lengths sum to 42288 pixels", SUM),
    ],
    "45_advice_typed_as_it_stands": [
        refused("1 bad records", SKIP, "line 2, images/gone.png: no such file"),
        refused("on_bad_record is no setting", f"write {SKIP}"),
        ok("left out 1 bad records", "images/gone.png", "1 images, 1 ground truths"),
        ok("left out 1 bad records", "images/gone.png", "1 images, 1 objects"),
        refused("train: on_bad_record is 'ignore', expected one of 'stop', 'skip' or None"),
    ],
    "48_impossible_settings": [
        refused("train: batch_size is 0, expected more than 0"),
        refused("train: steps is 0, expected more than 0"),
        refused("train: epochs is '3', expected a number"),
        refused("train: seed is None, expected a whole number"),
        refused("train: log_every is 0, expected more than 0"),
        refused("predict.batch_size is 0, expected 1 or more"),
    ],
}
# Cases that run no network: their lines take half a second each.
QUICK = (
    *("02_iscrowd_all", "04_via_coco", "05_no_bbox", "06_rle_wrong_total", "14_image_id_kinds"),
    *("15_normalised_boxes", "23_degenerate_polygons", "30_150_objects_one_class", "31_coco_field_kinds"),
    *("39_file_name_climbs_out", "42_rle_in_results"),
)


def advice_in(text: str) -> list[str]:
    """Return the settings that a text advises to give, as gin takes them."""
    return re.findall(r'--gin_param="(.+?)"(?![\w\]])', text)
