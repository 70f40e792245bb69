"""Records as COCO ground truth: values by hand, perfect detections score 1, real annotations agree."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tpu_retinamask.coco.scores import evaluate_coco
from tpu_retinamask.coco.writing import coco_from_images
from tpu_retinamask.data.annotations.class_names import ClassNames, read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.mask_reader import read_mask
from tpu_retinamask.data.images.window_runs import encode_rle

CLASSES = ClassNames(("cat", "dog", None, "bird"))


def evaluate(truth, detections, iou_type):
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(detections), iou_type)
    evaluation.params.maxDets = [1, 10, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return precision[precision > -1].mean()


def mask_ap(truth, detections):
    return evaluate_coco(truth, detections, iou_types="segm").overall["segm"]["AP"]


def perfect(truth, iou_type):
    found = []
    for annotation in truth["annotations"]:
        detection = {name: annotation[name] for name in ("image_id", "category_id")} | {"score": 0.9}
        if iou_type == "bbox":
            found.append(detection | {"bbox": annotation["bbox"]})
        elif annotation["has_mask"]:
            found.append(detection | {"segmentation": annotation["segmentation"]})
    return found


def test_every_entry_by_hand(records):
    truth = coco_from_images(records, CLASSES)
    assert truth["images"] == [
        {"id": 0, "file_name": "a.png", "width": 32, "height": 24},
        {"id": 1, "file_name": "b.png", "width": 16, "height": 20},
        {"id": 2, "file_name": "c.png", "width": 40, "height": 12},
    ]
    assert truth["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 3, "name": "bird"}]
    table = [
        (a["id"], a["image_id"], a["category_id"], a["bbox"], a["area"], a["has_mask"], a["iscrowd"])
        for a in truth["annotations"]
    ]
    assert table == [
        (1, 0, 0, [3, 2, 11, 7], 76, True, 0),  # 11 x 7 less 1
        (2, 0, 1, [6, 10, 6, 10], 57, True, 0),  # 6 x 10 less 4, and 1 outside its box
        (3, 0, 0, [20, 5, 11, 18], 190, True, 0),  # 11 x 18 less 8
        (4, 1, 1, [2, 1, 7, 6], 40, True, 0),  # 7 x 6 less 2
        (5, 1, 0, [4, 8, 12, 12], 138, True, 0),  # 12 x 12 less 6
        (6, 1, 0, [0, 0, 5, 5], 25, False, 0),
    ]  # no mask: the box
    assert "segmentation" not in truth["annotations"][5]
    assert json.loads(json.dumps(truth)) == truth


def test_segmentations_decode_to_the_masks(records):
    annotations = iter(coco_from_images(records, CLASSES)["annotations"])
    for record in records:
        for instance, annotation in zip(record.instances, annotations):
            if instance.mask is not None:
                np.testing.assert_array_equal(
                    coco_mask.decode(annotation["segmentation"]), read_mask(instance, record.height, record.width)
                )


def test_perfect_detections_score_one_and_a_wrong_class_does_not(records):
    truth = coco_from_images(records, CLASSES)
    assert evaluate(truth, perfect(truth, "bbox"), "bbox") == 1
    assert mask_ap(truth, perfect(truth, "segm")) == pytest.approx(1)
    wrong = [detection | {"category_id": 1 - detection["category_id"]} for detection in perfect(truth, "segm")]
    assert mask_ap(truth, wrong) == 0


def test_an_instance_without_a_mask_counts_for_boxes_and_is_ignored_for_masks(records):
    truth = coco_from_images(records, CLASSES)
    assert truth["annotations"][5]["iscrowd"] == 0  # the box scores still want it
    region = np.zeros((20, 16), np.uint8, order="F")
    region[:5, :5] = 1  # its box
    # Found or not, a detection on that region changes no mask score; off it, it is a false one.
    on = {"image_id": 1, "category_id": 0, "score": 0.95, "segmentation": encode_rle(region)}
    elsewhere = np.zeros((20, 16), np.uint8, order="F")
    elsewhere[12:20, 0:3] = 1
    off = on | {"segmentation": encode_rle(elsewhere)}
    assert mask_ap(truth, [*perfect(truth, "segm"), on]) == pytest.approx(1)
    assert mask_ap(truth, [*perfect(truth, "segm"), off]) < 1
    without = [detection for detection in perfect(truth, "bbox") if detection["bbox"] != [0, 0, 5, 5]]
    assert evaluate(truth, without, "bbox") < 1


def test_a_mask_file_shared_without_labels_is_divided_by_the_boxes(write, scan):
    both = np.zeros((20, 30), np.uint8)
    both[2:8, 3:9] = 255
    both[10:16, 20:28] = 255
    write("x.png", np.zeros((20, 30, 3), np.uint8))
    write("m.png", both)
    text = "x.png,3,2,9,8,cow,m.png\nx.png,20,10,28,16,cow,m.png\n"
    truth = coco_from_images(scan(text).images, ClassNames(("cow",)))
    assert [annotation["area"] for annotation in truth["annotations"]] == [36, 48]
    # A file of its own is taken whole, whatever its box.
    truth = coco_from_images(scan("x.png,3,2,9,8,cow,m.png\n").images, ClassNames(("cow",)))
    assert truth["annotations"][0]["area"] == 84


def test_a_mask_that_changed_size_after_the_scan_is_named(records, write):
    write("b1.png", np.ones((4, 4), np.uint8))
    with pytest.raises(ValueError, match="line 4: mask .*b1.png has 4 x 4 pixels, expected the image's 16 x"):
        coco_from_images(records, CLASSES)


def test_no_image_of_a_real_set_is_cut_to_m(shared_data):
    folder = shared_data / "nuclei"
    rows = read_annotations(str(folder / "train.csv"), read_classes(str(folder / "classes.csv")))
    most = max(rows, key=lambda row: len(row.instances))
    truth = coco_from_images(scan_images([most]).images, ClassNames(("nucleus",)))
    assert len(truth["annotations"]) == 131


def test_real_annotations_agree_with_the_official_file(shared_data):
    folder = shared_data / "coco"
    rows = read_annotations(str(folder / "val.csv"), read_classes(str(folder / "classes.csv")))[:12]
    truth = coco_from_images(scan_images(rows).images, read_classes(str(folder / "classes.csv")))
    official = json.loads((folder / "instances_val.json").read_text())
    names = {category["id"]: category["name"] for category in official["categories"]}
    ids = {image["file_name"]: image["id"] for image in official["images"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in official["images"]}
    ours = {category["id"]: category["name"] for category in truth["categories"]}
    for image in truth["images"]:
        official_id = ids[image["file_name"].split("/")[-1]]
        assert (image["height"], image["width"]) == sizes[official_id]
        mine = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        theirs = [a for a in official["annotations"] if a["image_id"] == official_id and not a["iscrowd"]]
        assert len(mine) == len(theirs)
        for annotation, other in zip(mine, theirs):
            assert ours[annotation["category_id"]] == names[other["category_id"]]
            rle = coco_mask.merge(coco_mask.frPyObjects(other["segmentation"], *sizes[official_id]))
            iou = coco_mask.iou([annotation["segmentation"]], [rle], [0])[0, 0]
            assert iou > 0.999, (image["file_name"], annotation["id"], iou)
