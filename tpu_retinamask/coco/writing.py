"""Records as COCO ground truth, for pycocotools: every instance, never cut to M."""

import copy
import decimal
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.scan import ScannedInstance, ScannedRecord
from tpu_retinamask.data.images.mask_reader import MaskReader, inside_box, shared_mask_files


def coco_from_records(records: Sequence[ScannedRecord], classes: ClassNames) -> dict:
    """Build a COCO ground-truth dictionary.

    Images: `id` is the record's image_id (`Batch.image_id`), `file_name` its name in the annotation
    file. Categories: `id` is the class id; gaps are left out. Annotations: `id` from 1 (COCOeval takes
    0 for "no match"), `bbox` is x, y, width, height of the annotated box, `iscrowd` 0, `has_mask`.

    An instance with a mask has a run-length `segmentation` and the mask's area. One without has no
    `segmentation` and the area of its box: a segmentation shaped like the box would be scored as if it
    were the truth. `segm_ground_truth` turns these into regions that mask scores ignore.

    A mask file that several instances of one image share without `#` labels holds all of them; each
    instance is then the part inside its own box, which is also what its training target shows.

    Args:
      records: what `scan.scan_records` kept.
      classes: names of the classes.

    Raises:
      ValueError: a mask that is not of its image's size.
      image_files.BadFile: a mask file that is gone.
    """
    images, annotations = [], []
    for record in records:
        images.append({"id": record.image_id, "file_name": record.name, "width": record.width, "height": record.height})
        reader = MaskReader()
        shared = shared_mask_files(record)
        for instance in record.instances:
            mask = None
            if instance.mask is not None:
                mask = reader.read(instance, record.height, record.width)
                if instance.mask_value is None and instance.mask in shared:
                    mask = mask & inside_box(instance.box, mask.shape)
            annotations.append(_annotation(len(annotations) + 1, record, instance, mask))
    categories = [{"id": index, "name": name} for index, name in enumerate(classes.names) if name is not None]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def segm_ground_truth(dataset: dict) -> dict:
    """Copy a ground truth for mask scores: instances without a mask become crowd regions.

    Such a region has the shape of its box. COCOeval counts it neither as found nor as missed, nor a
    detection on it as false.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in dataset["images"]}
    dataset = dict(dataset, annotations=copy.deepcopy(dataset["annotations"]))
    for annotation in dataset["annotations"]:
        if not annotation["has_mask"]:
            x, y, width, height = annotation["bbox"]
            region = inside_box((x, y, x + width, y + height), sizes[annotation["image_id"]])
            annotation.update(segmentation=_run_lengths(region), iscrowd=1)
    return dataset


def _annotation(number: int, record: ScannedRecord, instance: ScannedInstance, mask) -> dict:
    x1, y1, x2, y2 = instance.box
    width, height = _difference(x2, x1), _difference(y2, y1)
    annotation = {
        "id": number,
        "image_id": record.image_id,
        "category_id": instance.class_id,
        "bbox": [x1, y1, width, height],
        "area": width * height,
        "iscrowd": 0,
        "has_mask": mask is not None,
    }
    if mask is not None:
        annotation.update(area=int(mask.sum()), segmentation=_run_lengths(mask))
    return annotation


def _difference(a: float, b: float) -> float:
    # As decimals, which is how both were written: 392.05 - 330.17 is 61.88, not 61.879999999999995.
    return float(decimal.Decimal(repr(float(a))) - decimal.Decimal(repr(float(b))))


def _run_lengths(mask: np.ndarray) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}
