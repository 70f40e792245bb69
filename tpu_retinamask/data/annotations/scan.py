"""Open every image and mask once before training: a graph can neither name a line nor skip an instance."""

import collections
import concurrent.futures
import dataclasses
import itertools
import logging
import math
from collections.abc import Callable, Sequence

import numpy as np
import tqdm

from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance, ListedImage, ListedInstance
from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.data.images.bad_file import BadFile
from tpu_retinamask.data.images.image_files import ImageFile, MaskFile, check_image, load_mask
from tpu_retinamask.data.images.mask_reader import draw_mask, shared_mask_files
from tpu_retinamask.data.masks import FileMask
from tpu_retinamask.data.pixel_reading import PixelReading
from tpu_retinamask.errors import SettingError

log = logging.getLogger(__name__)

# Decimal boxes that touch the border overshoot it by rounding (12.34 + 627.66 > 640); more is a fault.
BORDER_TOLERANCE = 0.01  # pixels


@dataclasses.dataclass(frozen=True)
class ScanResult:
    """What a scan kept and what it left out.

    Attributes:
      images: the kept ones in file order.
      dropped_images: images that cannot be read.
      dropped_instances: bad instances of kept images.
      emptied_images: kept images that lost all their instances; they are trained as background.
      shared_masks: mask files that serve several instances of an image without `#` labels; each
        instance is taken as the part inside its own box, so overlapping boxes share pixels.
      reasons: count of each kind of problem.
    """

    images: list[AnnotatedImage]
    dropped_images: int
    dropped_instances: int
    emptied_images: int
    shared_masks: int
    reasons: collections.Counter

    def summary(self) -> str:
        """Tell in one line what was kept and dropped."""
        instances = sum(len(annotated.instances) for annotated in self.images)
        text = f"{len(self.images)} images with {instances} instances"
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


def scan_images(
    images: Sequence[ListedImage],
    *,
    on_bad_record: str = "stop",
    exif_orientation: str = "refuse",
    pixels: PixelReading = PixelReading(),  # noqa: B008  # frozen
    threads: int = 8,
    progress: bool = False,
) -> ScanResult:
    """Open every image and mask file once and keep what training can use.

    Finds: files missing, damaged, not images or of a kind that would be read wrong; masks of another
    size than their image; boxes that leave the image by more than `BORDER_TOLERANCE` (less is clipped);
    empty masks; labels absent from their label map; masks without a pixel inside their box.

    Args:
      images: what `annotations.read_annotations` gave.
      on_bad_record: 'stop' raises one error for all problems; 'skip' drops the bad instance and keeps
        its image, or drops an image that cannot be read, counts and logs them.
      exif_orientation: what to do with a rotated JPEG: 'refuse', 'ignore' (boxes are meant on the
        stored pixels) or 'apply' (boxes and masks are meant on the upright picture).
      pixels: how the pixels of the images are read.
      threads: files opened at a time.
      progress: show a progress bar.

    Raises:
      SettingError: an unknown value of an argument.
      AnnotationError: with 'stop', any problem; with 'skip', no image is left.
    """
    if on_bad_record not in ("stop", "skip"):
        raise SettingError(f"on_bad_record is {on_bad_record!r}, expected 'stop' or 'skip'")
    if exif_orientation not in ("refuse", "ignore", "apply"):
        raise SettingError(f"exif_orientation is {exif_orientation!r}, expected 'refuse', 'ignore' or 'apply'")
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = pool.map(_scan_image, range(len(images)), images, itertools.repeat((exif_orientation, pixels)))
        found = list(tqdm.tqdm(found, total=len(images), desc="scan", unit="image", disable=not progress))
    problems = [problem for _, image_problems in found for problem in image_problems]
    if problems and on_bad_record == "stop":
        raise AnnotationError(
            f"{len(problems)} bad records; correct them, or leave them out: "
            "--gin_param=\"source.on_bad_record='skip'\"",
            [problem.text for problem in problems],
        )
    if problems:
        log.warning(
            "%s", AnnotationError(f"left out {len(problems)} bad records", [problem.text for problem in problems])
        )
    kept = [annotated for annotated, _ in found if annotated is not None]
    if not kept:
        raise AnnotationError(
            "no image is left after leaving out the bad records", [problem.text for problem in problems]
        )
    result = ScanResult(
        images=kept,
        dropped_images=len(found) - len(kept),
        dropped_instances=sum(len(image_problems) for annotated, image_problems in found if annotated is not None),
        emptied_images=sum(
            1
            for annotated, image_problems in found
            if annotated is not None and image_problems and not annotated.instances
        ),
        shared_masks=sum(len(shared_mask_files(annotated)) for annotated in kept),
        reasons=collections.Counter(problem.kind for problem in problems),
    )
    log.info("scan: %s", result.summary())
    return result


@dataclasses.dataclass(frozen=True)
class _Problem:
    kind: str
    text: str


def _scan_image(
    image_id: int, listed: ListedImage, reading: tuple[str, PixelReading]
) -> tuple[AnnotatedImage | None, list[_Problem]]:
    try:
        image = check_image(listed.image, *reading)
    except BadFile as error:
        return None, [_Problem(error.kind, f"line {listed.line}, {listed.name}: {error}")]
    kept, problems = [], []
    masks: dict[str, MaskFile | BadFile] = {}  # a label map is decoded once for all its instances
    for instance in listed.instances:
        try:
            kept.append(_scan_instance(instance, image, masks))
        except BadFile as error:
            problems.append(_Problem(error.kind, f"line {instance.line}, {listed.name}: {error}"))
    scanned = AnnotatedImage(
        image.converted or listed.image,
        listed.name,
        image_id,
        image.height,
        image.width,
        image.orientation,
        tuple(kept),
    )
    return scanned, problems


def _scan_instance(
    instance: ListedInstance, image: ImageFile, files: dict[str, MaskFile | BadFile]
) -> AnnotatedInstance:
    x1, y1, x2, y2 = instance.box
    tolerance = BORDER_TOLERANCE
    if not all(map(math.isfinite, instance.box)):
        raise BadFile("box outside the image", f"the box {x1:g},{y1:g},{x2:g},{y2:g} is not finite")
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
    mask = instance.mask
    if isinstance(mask, FileMask):
        mask = _check_file(mask, instance, box, image, _load_once(mask.path, files))
    elif mask is not None:
        drawn = draw_mask(mask, image.height, image.width)
        _check_pixels(f"mask {mask}", drawn, lambda part: part, instance, box, image)
    return AnnotatedInstance(instance.line, box, instance.class_id, mask)


def _load_once(path: str, files: dict[str, MaskFile | BadFile]) -> MaskFile:
    if path not in files:
        try:
            files[path] = load_mask(path)
        except BadFile as error:
            files[path] = error
    found = files[path]
    if isinstance(found, BadFile):
        raise BadFile("mask: " + found.kind, f"mask {path}: {found}")
    return found


def _check_file(mask: FileMask, instance: ListedInstance, box: tuple, image: ImageFile, file: MaskFile) -> FileMask:
    """Return the mask with the value that its label is decoded as."""
    where = f"mask {mask.path}"
    if mask.value is None:
        _check_pixels(where, file.values, lambda part: part != 0, instance, box, image)
        return mask
    _check_size(where, file.values, image)
    if file.label_step is None:
        raise BadFile("not a label map", f"{where}: {file.no_labels_because}")
    value = mask.value * file.label_step
    absent = BadFile("label absent", f"{where} has no pixel of value {mask.value}")
    if value > 65535:
        raise absent
    _check_pixels(where, file.values, lambda part: part == value, instance, box, image, absent)
    return dataclasses.replace(mask, decoded_value=value)


def _check_size(where: str, values: np.ndarray, image: ImageFile) -> None:
    height, width = values.shape
    if (height, width) != (image.height, image.width):
        raise BadFile(
            "mask size",
            (f"{where} has {width} x {height} pixels, its image {image.width} x {image.height} (width x height)"),
        )


def _check_pixels(
    where: str,
    values: np.ndarray,
    belongs: Callable[[np.ndarray], np.ndarray],
    instance: ListedInstance,
    box: tuple,
    image: ImageFile,
    absent: BadFile | None = None,
) -> None:
    """Refuse a mask of another size than its image, one without a pixel, and one without a pixel in its box."""
    _check_size(where, values, image)
    # The box first: of a label map that holds a hundred objects, the whole is compared only where something is wrong.
    if np.any(belongs(values[math.floor(box[1]) : math.ceil(box[3]), math.floor(box[0]) : math.ceil(box[2])])):
        return
    if not np.any(belongs(values)):
        raise absent or BadFile("empty mask", f"{where} is empty: every pixel is zero")
    raise BadFile(
        "mask outside its box",
        (f"{where} has no pixel inside the box {','.join(f'{edge:g}' for edge in instance.box)}"),
    )
