"""Ground truth handed in as predictions must score 1: coordinates, masks and ids fit together."""

import csv
import json
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_codec

from tpu_retinamask.coco.scores import evaluate_coco
from tpu_retinamask.data.images.window_runs import encode_rle
from tpu_retinamask.evaluation.results import detections_to_results, result_entry
from tpu_retinamask.structures import Detections


def read_csv(folder, name):
    """Yield image path, box [4], class name, mask [h, w] bool of every instance."""
    label_maps = {}
    with open(folder / name, newline="") as file:
        for image, x1, y1, x2, y2, class_name, mask in csv.reader(file):
            if not mask:
                continue  # an image without objects
            path, _, value = mask.partition("#")
            if path not in label_maps:
                label_maps[path] = np.asarray(Image.open(folder / path))
            pixels = label_maps[path] == int(value) if value else label_maps[path] > 0
            yield image, [float(v) for v in (x1, y1, x2, y2)], class_name, pixels


def test_coco_val_against_the_official_annotations(shared_data):
    folder = shared_data / "coco"
    official = json.loads((folder / "instances_val.json").read_text())
    image_ids = {image["file_name"]: image["id"] for image in official["images"]}
    category_ids = {category["name"]: category["id"] for category in official["categories"]}
    results = [
        result_entry(image_ids[image.rsplit("/", 1)[-1]], category_ids[class_name], box, 1.0, encode_rle(mask))
        for image, box, class_name, mask in read_csv(folder, "val.csv")
    ]
    metrics = evaluate_coco(folder / "instances_val.json", results)
    segm, bbox = metrics.overall["segm"], metrics.overall["bbox"]
    print(f"perfect predictions on COCO: segm AP {segm['AP']:.4f}, bbox AP {bbox['AP']:.4f}")
    assert (metrics.images, metrics.ground_truths, metrics.crowds, metrics.detections) == (66, 552, 8, 552)
    assert segm["AP"] >= 0.9995 and segm["ARmax"] >= 0.9995
    assert bbox["AP"] == pytest.approx(0.965, abs=0.005)  # official boxes are decimals, ours whole pixels
    assert bbox["AP75"] == pytest.approx(1)


def test_nuclei_with_more_than_100_objects_an_image(shared_data):
    folder = shared_data / "nuclei"
    rows = defaultdict(list)
    for image, box, _, mask in read_csv(folder, "train.csv"):
        rows[image].append((box, mask))
    truth = {"images": [], "categories": [{"id": 1, "name": "nucleus"}], "annotations": []}
    crowded = [instances for instances in rows.values() if len(instances) > 80]
    for image_id, instances in enumerate(crowded):
        height, width = instances[0][1].shape
        truth["images"].append({"id": image_id, "height": height, "width": width})
        truth["annotations"] += [result_entry(image_id, 1, box, 1.0, encode_rle(mask)) for box, mask in instances]
    most = max(len(instances) for instances in crowded)
    assert most > 100
    full = evaluate_coco(truth, truth["annotations"], max_detections=most).overall
    limited = evaluate_coco(truth, truth["annotations"]).overall
    print(
        f"perfect predictions on nuclei, up to {most} an image: segm AP {full['segm']['AP']:.4f}, with 100 "
        f"detections {limited['segm']['AP']:.4f}"
    )
    assert [full["segm"]["AP"], full["bbox"]["AP"], full["segm"]["ARmax"]] == pytest.approx([1, 1, 1])
    assert limited["segm"]["ARmax"] < 1


def synthetic_truth():
    """Two images of polygons with decimal corners, and the pixels those polygons cover."""
    rng = np.random.default_rng(5)
    truth = {
        "images": [{"id": 11, "height": 90, "width": 120}, {"id": 12, "height": 80, "width": 70}],
        "categories": [{"id": 3, "name": "left"}, {"id": 8, "name": "right"}],
        "annotations": [],
    }
    masks = []
    for image in truth["images"]:
        for i in range(6):
            angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
            centre = rng.uniform(25, 45, 2)
            corners = centre + rng.uniform(8, 20, (12, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
            polygon = [round(v, 2) for v in corners.ravel().tolist()]
            low, high = corners.min(0), corners.max(0)
            truth["annotations"].append({
                "id": len(masks), "image_id": image["id"], "category_id": (3, 8)[i % 2], "iscrowd": 0,
                "bbox": [*low, *(high - low)], "segmentation": [polygon],
            })  # fmt: skip
            rles = rle_codec.frPyObjects([polygon], image["height"], image["width"])
            masks.append(rle_codec.decode(rles)[:, :, 0].astype(bool))
    return truth, masks


def mask_box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_synthetic_polygons():
    truth, masks = synthetic_truth()
    results = [
        result_entry(a["image_id"], a["category_id"], mask_box(mask), 1.0, encode_rle(mask))
        for a, mask in zip(truth["annotations"], masks)
    ]
    metrics = evaluate_coco(truth, results)
    assert [metrics.overall["segm"][name] for name in ("AP", "ARmax")] == pytest.approx([1, 1])
    assert 0.7 < metrics.overall["bbox"]["AP"] < 0.99
    assert metrics.overall["bbox"]["AP50"] == pytest.approx(1)


def test_synthetic_batch_through_scales_and_padding():
    # The masks are sampled at 28 x 28 from their boxes and pasted back: near perfect, not perfect. A slip of
    # half a pixel, of the scale or of x and y costs far more than the bound here.
    truth, masks = synthetic_truth()
    scales = {11: 1.5, 12: 0.8}
    kept = 8
    batch = Detections(
        boxes=np.full((3, kept, 4), -1, np.float32), scores=np.full((3, kept), -1, np.float32),
        classes=np.full((3, kept), -1, np.int32), masks=np.zeros((3, kept, 28, 28), np.float32),
        cut=np.zeros(3, np.int32),
    )  # fmt: skip
    for n, (annotation, mask) in enumerate(zip(truth["annotations"], masks)):
        b, k = divmod(n, 6)
        x1, y1, x2, y2 = mask_box(mask)
        crop = Image.fromarray(mask.astype(np.float32)[y1:y2, x1:x2])
        batch.masks[b, k] = np.asarray(crop.resize((28, 28), Image.Resampling.BILINEAR))
        batch.boxes[b, k] = np.array([x1, y1, x2, y2]) * scales[annotation["image_id"]]
        batch.scores[b, k] = 0.9 - k / 100
        batch.classes[b, k] = (3, 8).index(annotation["category_id"])
    batch.classes[2, 0] = 0  # in the padding image
    results = detections_to_results(batch, [11, 12, -1], [1.5, 0.8, 1], [[90, 120], [80, 70], [0, 0]], [3, 8])
    metrics = evaluate_coco(truth, results)
    assert metrics.detections == 12
    assert metrics.overall["segm"]["AP"] > 0.95
    ious = [
        rle_codec.iou([r["segmentation"]], [rle_codec.encode(np.asfortranarray(m, np.uint8))], [0])[0, 0]
        for r, m in zip(results, masks)
    ]
    assert min(ious) > 0.93
