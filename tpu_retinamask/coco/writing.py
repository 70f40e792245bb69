"""Records as COCO ground truth, for pycocotools: every instance, never cut to M."""

import decimal
from collections.abc import Sequence

from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.images.mask_reader import MaskReader, shared_mask_files
from tpu_retinamask.data.images.window_runs import encode_window
from tpu_retinamask.data.windows import Window


def coco_from_images(images: Sequence[AnnotatedImage], classes: ClassNames) -> dict:
    """Build a COCO ground-truth dictionary.

    Images: `id` is the annotated's image_id (`Batch.image_id`), `file_name` its name in the annotation
    file. Categories: `id` is the class id; gaps are left out. Annotations: `id` from 1 (COCOeval takes
    0 for "no match"), `bbox` is x, y, width, height of the annotated box, `iscrowd` 0, `has_mask`.

    An instance with a mask has a run-length `segmentation` and the mask's area. One without has no
    `segmentation` and the area of its box: a segmentation shaped like the box would be scored as if it
    were the truth. `scores.evaluate_coco` makes it a region that mask scores ignore.

    A mask file that several instances of one image share without `#` labels holds all of them; each
    instance is then the part inside its own box, which is also what its training target shows.

    Args:
      images: what `scan.scan_images` kept.
      classes: names of the classes.

    Raises:
      ValueError: a mask that is not of its image's size.
      image_files.BadFile: a mask file that is gone.
    """
    entries, annotations = [], []
    for annotated in images:
        entries.append(
            {
                "id": annotated.image_id,
                "file_name": annotated.name,
                "width": annotated.width,
                "height": annotated.height,
            }
        )
        reader = MaskReader()
        shared = shared_mask_files(annotated)
        for instance in annotated.instances:
            mask = None if instance.mask is None else reader.window(instance, annotated.height, annotated.width, shared)
            annotations.append(_annotation(len(annotations) + 1, annotated, instance, mask))
    categories = [{"id": index, "name": name} for index, name in enumerate(classes.names) if name is not None]
    return {"info": {}, "licenses": [], "images": entries, "annotations": annotations, "categories": categories}


def _annotation(number: int, annotated: AnnotatedImage, instance: AnnotatedInstance, mask: Window | None) -> dict:
    x1, y1, x2, y2 = instance.box
    width, height = _difference(x2, x1), _difference(y2, y1)
    annotation = {
        "id": number,
        "image_id": annotated.image_id,
        "category_id": instance.class_id,
        "bbox": [x1, y1, width, height],
        "area": width * height,
        "iscrowd": 0,
        "has_mask": mask is not None,
    }
    if mask is not None:
        runs = encode_window(mask, annotated.height, annotated.width)
        annotation.update(area=int(mask.pixels.sum()), segmentation=runs)
    return annotation


def _difference(a: float, b: float) -> float:
    # As decimals, which is how both were written: 392.05 - 330.17 is 61.88, not 61.879999999999995.
    return float(decimal.Decimal(repr(float(a))) - decimal.Decimal(repr(float(b))))
