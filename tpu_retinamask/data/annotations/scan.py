"""Open every image and mask once before training: a graph can neither name a line nor skip an instance."""

import collections
import concurrent.futures
import dataclasses
import logging
import math
from collections.abc import Sequence

import numpy as np
import tqdm

from tpu_retinamask.data.annotations.csv_annotations import AnnotationError, ImageRecord, Instance
from tpu_retinamask.data.images.image_files import BadFile, ImageFile, MaskFile, check_image, load_mask
from tpu_retinamask.data.images.mask_reader import MaskReader, read_mask, shared_mask_files
from tpu_retinamask.data.prepared.record_format import StoredImage, StoredMask

__all__ = ["MaskReader", "ScanResult", "ScannedInstance", "ScannedRecord", "read_mask", "scan_records"]

logger = logging.getLogger(__name__)

# Decimal boxes that touch the border overshoot it by rounding (12.34 + 627.66 > 640); more is a fault.
BORDER_TOLERANCE = 0.01  # pixels


@dataclasses.dataclass(frozen=True)
class ScannedInstance:
    """An instance whose box lies inside its image and whose mask, if any, has pixels inside its box.

    Attributes:
      line: 1-based line in the annotation file.
      box: x1, y1, x2, y2 in pixels of the image, half-open, inside the image.
      class_id: id of the class.
      mask: resolved path of the mask file, its place in a prepared data set, or None.
      mask_value: the label as the annotation file writes it; None: every non-zero pixel.
      decoded_value: what `decode.decode_mask` reads for that label; None: every non-zero pixel.
    """

    line: int
    box: tuple[float, float, float, float]
    class_id: int
    mask: str | StoredMask | None
    mask_value: int | None
    decoded_value: int | None


@dataclasses.dataclass(frozen=True)
class ScannedRecord:
    """An image that can be read, and its usable instances.

    Attributes:
      image: resolved path, or the place in a prepared data set.
      name: the path as the annotation file writes it.
      image_id: position of the image in the annotation file, dropped images counted too.
      height: rows of the picture, upright if the orientation is applied.
      width: columns of it.
      orientation: EXIF orientation to apply to the stored pixels; 1: none.
      instances: the objects.
    """

    image: str | StoredImage
    name: str
    image_id: int
    height: int
    width: int
    orientation: int
    instances: tuple[ScannedInstance, ...]


@dataclasses.dataclass(frozen=True)
class ScanResult:
    """What a scan kept and what it left out.

    Attributes:
      records: the kept images in file order.
      dropped_images: images that cannot be read.
      dropped_instances: bad instances of kept images.
      emptied_images: kept images that lost all their instances; they are trained as background.
      shared_masks: mask files that serve several instances of an image without `#` labels; each
        instance is taken as the part inside its own box, so overlapping boxes share pixels.
      reasons: count of each kind of problem.
    """

    records: list[ScannedRecord]
    dropped_images: int
    dropped_instances: int
    emptied_images: int
    shared_masks: int
    reasons: collections.Counter

    def summary(self) -> str:
        """Tell in one line what was kept and dropped."""
        instances = sum(len(record.instances) for record in self.records)
        text = f"{len(self.records)} images with {instances} instances"
        if self.reasons:
            reasons = ", ".join(f"{kind}: {count}" for kind, count in self.reasons.most_common())
            text += f"; dropped {self.dropped_images} images and {self.dropped_instances} instances ({reasons})"
        else:
            text += "; nothing dropped"
        if self.emptied_images:
            text += f"; {self.emptied_images} images lost all their instances and count as background"
        if self.shared_masks:
            text += (
                f"; {self.shared_masks} mask files serve several instances without '#' labels, so each "
                "instance is what lies inside its own box"
            )
        return text


def scan_records(
    records: Sequence[ImageRecord],
    *,
    on_bad_record: str = "stop",
    exif_orientation: str = "refuse",
    threads: int = 8,
    progress: bool = False,
) -> ScanResult:
    """Open every image and mask file once and keep what training can use.

    Finds: files missing, damaged, not images or of a kind that would be read wrong; masks of another
    size than their image; boxes that leave the image by more than `BORDER_TOLERANCE` (less is clipped);
    empty masks; labels absent from their label map; masks without a pixel inside their box.

    Args:
      records: what `annotations.read_annotations` gave.
      on_bad_record: 'stop' raises one error for all problems; 'skip' drops the bad instance and keeps
        its image, or drops an image that cannot be read, counts and logs them.
      exif_orientation: what to do with a rotated JPEG: 'refuse', 'ignore' (boxes are meant on the
        stored pixels) or 'apply' (boxes and masks are meant on the upright picture).
      threads: files opened at a time.
      progress: show a progress bar.

    Raises:
      ValueError: an unknown value of an argument.
      AnnotationError: with 'stop', any problem; with 'skip', no image is left.
    """
    if on_bad_record not in ("stop", "skip"):
        raise ValueError(f"on_bad_record is {on_bad_record!r}, expected 'stop' or 'skip'")
    if exif_orientation not in ("refuse", "ignore", "apply"):
        raise ValueError(f"exif_orientation is {exif_orientation!r}, expected 'refuse', 'ignore' or 'apply'")
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda job: _scan_image(*job, exif_orientation), enumerate(records))
        found = list(tqdm.tqdm(found, total=len(records), desc="scan", unit="image", disable=not progress))
    problems = [problem for _, image_problems in found for problem in image_problems]
    if problems and on_bad_record == "stop":
        raise AnnotationError(
            f"{len(problems)} bad records; correct them, or set on_bad_record = 'skip' to leave them out",
            [problem.text for problem in problems],
        )
    if problems:
        logger.warning(
            "%s", AnnotationError(f"left out {len(problems)} bad records", [problem.text for problem in problems])
        )
    kept = [record for record, _ in found if record is not None]
    if not kept:
        raise AnnotationError(
            "no image is left after leaving out the bad records", [problem.text for problem in problems]
        )
    result = ScanResult(
        records=kept,
        dropped_images=len(found) - len(kept),
        dropped_instances=sum(len(image_problems) for record, image_problems in found if record is not None),
        emptied_images=sum(
            1 for record, image_problems in found if record is not None and image_problems and not record.instances
        ),
        shared_masks=sum(len(shared_mask_files(record)) for record in kept),
        reasons=collections.Counter(problem.kind for problem in problems),
    )
    logger.info("scan: %s", result.summary())
    return result


@dataclasses.dataclass(frozen=True)
class _Problem:
    kind: str
    text: str


def _scan_image(image_id: int, record: ImageRecord, exif_orientation: str):
    try:
        image = check_image(record.image, exif_orientation)
    except BadFile as error:
        return None, [_Problem(error.kind, f"line {record.line}, {record.name}: {error}")]
    kept, problems = [], []
    masks: dict[str, MaskFile | BadFile] = {}  # a label map is decoded once for all its instances
    for instance in record.instances:
        try:
            kept.append(_scan_instance(instance, image, masks))
        except BadFile as error:
            problems.append(_Problem(error.kind, f"line {instance.line}, {record.name}: {error}"))
    scanned = ScannedRecord(
        record.image, record.name, image_id, image.height, image.width, image.orientation, tuple(kept)
    )
    return scanned, problems


def _scan_instance(instance: Instance, image: ImageFile, masks: dict) -> ScannedInstance:
    x1, y1, x2, y2 = instance.box
    tolerance = BORDER_TOLERANCE
    if min(x1, y1) < -tolerance or x2 > image.width + tolerance or y2 > image.height + tolerance:
        raise BadFile(
            "box outside the image",
            (
                f"the box {x1:g},{y1:g},{x2:g},{y2:g} leaves the image of {image.width} x {image.height} pixels "
                "(width x height)"
            ),
        )
    box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(image.width)), min(y2, float(image.height)))
    if box[2] <= box[0] or box[3] <= box[1]:
        raise BadFile("box outside the image", f"the box {x1:g},{y1:g},{x2:g},{y2:g} has no area inside the image")
    decoded_value = None
    if instance.mask is not None:
        decoded_value = _check_mask(instance, box, image, _load_once(instance.mask, masks))
    return ScannedInstance(instance.line, box, instance.class_id, instance.mask, instance.mask_value, decoded_value)


def _load_once(path: str, masks: dict) -> MaskFile:
    if path not in masks:
        try:
            masks[path] = load_mask(path)
        except BadFile as error:
            masks[path] = error
    if isinstance(masks[path], BadFile):
        raise BadFile("mask: " + masks[path].kind, f"mask {path}: {masks[path]}")
    return masks[path]


def _check_mask(instance: Instance, box, image: ImageFile, mask: MaskFile) -> int | None:
    where = f"mask {instance.mask}"
    height, width = mask.values.shape
    if (height, width) != (image.height, image.width):
        raise BadFile(
            "mask size",
            (f"{where} has {width} x {height} pixels, its image {image.width} x {image.height} (width x height)"),
        )
    value = None
    if instance.mask_value is not None:
        if mask.label_step is None:
            raise BadFile("not a label map", f"{where}: {mask.no_labels_because}")
        value = instance.mask_value * mask.label_step
        if value > 65535:
            raise BadFile("label absent", f"{where} has no pixel of value {instance.mask_value}")
    window = mask.values[math.floor(box[1]) : math.ceil(box[3]), math.floor(box[0]) : math.ceil(box[2])]
    if np.any(window != 0 if value is None else window == value):
        return value
    if value is not None and not np.any(mask.values == value):
        raise BadFile("label absent", f"{where} has no pixel of value {instance.mask_value}")
    if value is None and not np.any(mask.values):
        raise BadFile("empty mask", f"{where} is empty: every pixel is zero")
    raise BadFile(
        "mask outside its box",
        (f"{where} has no pixel inside the box {','.join(f'{edge:g}' for edge in instance.box)}"),
    )
