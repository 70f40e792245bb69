"""Open every image and mask once before training: a graph can neither name a line nor skip an instance."""

import collections
import concurrent.futures
import dataclasses
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import tqdm

from tpu_retinamask.data.annotated_image import AnnotatedImage, ListedImage
from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.data.annotations.instance_checks import Checked, MaskFiles, check_instance
from tpu_retinamask.data.images.bad_file import BadFile
from tpu_retinamask.data.images.image_files import check_image
from tpu_retinamask.data.images.mask_reader import shared_mask_files
from tpu_retinamask.data.pixel_reading import PixelReading
from tpu_retinamask.errors import SettingError, gin_param

log = logging.getLogger(__name__)

# Decimal boxes that touch the border overshoot it by rounding (12.34 + 627.66 > 640); more is told.
BORDER_TOLERANCE = 0.01  # pixels
THIN = 1.0  # pixels; a shorter side is a slip of the hand, or a fraction of the picture
MOST_NORMALISED = 1.001  # coordinates that were divided by the picture's sides end here, rounding included


class Problem(NamedTuple):
    """Why an image or an instance cannot be used."""

    kind: str  # in a word or two, to be counted by
    text: str  # where, what, and why


class ScannedImage(NamedTuple):
    """What a scan found in one image."""

    annotated: AnnotatedImage | None  # None: the image cannot be used
    rows: list[int]  # which of its listed instances are kept
    checked: list[Checked]  # what was found of these
    problems: list[Problem]
    digest: str = ""  # of the file


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
      clipped: boxes that stuck out of their image by more than `BORDER_TOLERANCE`, and were clipped to it.
      farthest: pixels by which the worst of them stuck out.
      thin: boxes with a side under `THIN`.
      without_pixels: polygons and run lengths that cover no pixel: these instances have a box and no mask.
      misplaced: masks with most of their pixels outside of their box.
      masks: masks that were looked at for this.
      digests: of the files of `images`; equal files have equal ones.
    """

    images: list[AnnotatedImage]
    dropped_images: int
    dropped_instances: int
    emptied_images: int
    shared_masks: int
    reasons: collections.Counter
    clipped: int = 0
    farthest: float = 0.0
    thin: int = 0
    without_pixels: int = 0
    misplaced: int = 0
    masks: int = 0
    digests: tuple[str, ...] = ()

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
        if self.clipped:
            text += f"; clipped {self.clipped} boxes that stuck out of their image, by up to {self.farthest:.4g} pixels"
        if self.thin:
            text += f"; {self.thin} boxes have a side under one pixel: look at them, coordinates are in pixels"
        if self.without_pixels:
            text += f"; {self.without_pixels} masks cover no pixel, so that their boxes are trained alone"
        return text


def scan_images(
    images: Sequence[ListedImage],
    *,
    on_bad_record: str = "stop",
    exif_orientation: str = "refuse",
    pixels: PixelReading = PixelReading(),  # noqa: B008  # frozen
    source: str = "",
    threads: int = 8,
    progress: bool = False,
    elsewhere: Callable[[Sequence[ListedImage]], Sequence[ScannedImage]] | None = None,
) -> ScanResult:
    """Open every image and mask file once and keep what training can use.

    Finds: files missing, damaged, not images or of a kind that would be read wrong; masks of another
    size than their image; images of another size than their source says; boxes that lie outside the image (what
    sticks out is clipped, counted and told); empty masks; labels absent from their label map; masks without a pixel
    inside their box. Warns where most masks lie outside their boxes for the most part.

    Args:
      images: what `annotations.read_annotations` gave.
      on_bad_record: 'stop' raises one error for all problems; 'skip' drops the bad instance and keeps
        its image, or drops an image that cannot be read, counts and logs them.
      exif_orientation: what to do with a rotated JPEG: 'refuse', 'ignore' (boxes are meant on the
        stored pixels) or 'apply' (boxes and masks are meant on the upright picture).
      pixels: how the pixels of the images are read.
      source: where the images are listed, in the words of an error.
      threads: files opened at a time.
      progress: show a progress bar.
      elsewhere: calls `scan_image` for each in other processes; None: threads of this one do.

    Raises:
      SettingError: an unknown value of an argument.
      AnnotationError: with 'stop', any problem; with 'skip', no image is left; boxes in fractions of their image.
    """
    if on_bad_record not in ("stop", "skip"):
        raise SettingError(f"on_bad_record is {on_bad_record!r}, expected 'stop' or 'skip'")
    if exif_orientation not in ("refuse", "ignore", "apply"):
        raise SettingError(f"exif_orientation is {exif_orientation!r}, expected 'refuse', 'ignore' or 'apply'")
    named = f"{source}: " if source else ""
    _refuse_fractions(images, named)
    if elsewhere is not None:
        return gather(elsewhere(images), on_bad_record, named)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = pool.map(
            lambda image_id, listed: scan_image(image_id, listed, exif_orientation, pixels), range(len(images)), images
        )
        found = list(tqdm.tqdm(found, total=len(images), desc="scan", unit="image", disable=not progress))
    return gather(found, on_bad_record, named)


def gather(found: Sequence[ScannedImage], on_bad_record: str, named: str = "") -> ScanResult:
    """Return what was kept of all images, or raise one error of all their problems; see `scan_images`.

    Args:
      found: what `scan_image` gave for each, in their order.
      on_bad_record: as of `scan_images`.
      named: what an error begins with.
    """
    problems = [problem for one in found for problem in one.problems]
    if problems and on_bad_record == "stop":
        raise AnnotationError(
            f"{named}{len(problems)} bad records; correct them, or leave them out, counted, by "
            + gin_param("source.on_bad_record", "skip"),
            [problem.text for problem in problems],
        )
    if problems:
        log.warning(
            "%s",
            AnnotationError(f"{named}left out {len(problems)} bad records", [problem.text for problem in problems]),
        )
    kept = [one.annotated for one in found if one.annotated is not None]
    if not kept:
        raise AnnotationError(
            f"{named}no image is left after leaving out the bad records", [problem.text for problem in problems]
        )
    checked = [one for image in found for one in image.checked]
    result = ScanResult(
        images=kept,
        dropped_images=len(found) - len(kept),
        dropped_instances=sum(len(one.problems) for one in found if one.annotated is not None),
        emptied_images=sum(
            1 for one in found if one.annotated is not None and one.problems and not one.annotated.instances
        ),
        shared_masks=sum(len(shared_mask_files(annotated)) for annotated in kept),
        reasons=collections.Counter(problem.kind for problem in problems),
        clipped=sum(one.beyond > BORDER_TOLERANCE for one in checked),
        farthest=max((one.beyond for one in checked), default=0.0),
        thin=sum(min(x2 - x1, y2 - y1) < THIN for x1, y1, x2, y2 in (one.instance.box for one in checked)),
        without_pixels=sum(one.without_pixels for one in checked),
        misplaced=sum(one.inside is not None and one.inside < 0.5 for one in checked),
        masks=sum(one.inside is not None for one in checked),
        digests=tuple(one.digest for one in found if one.annotated is not None),
    )
    log.info("scan: %s", result.summary())
    if 2 * result.misplaced > result.masks:
        log.warning(
            "%s. Look at them: `retinamask inspect_data` with the same flags and --output_dir=FOLDER draws them",
            misplaced_masks(result.misplaced, result.masks),
        )
    if 2 * result.clipped > len(checked):
        log.warning(
            "%d of %d boxes stick out of their image and were clipped: are the images another size than those "
            "that were annotated, or the boxes x, y, width, height where x1, y1, x2, y2 are expected, or the "
            "other way round?",
            result.clipped,
            len(checked),
        )
    return result


def scan_image(
    image_id: int,
    listed: ListedImage,
    exif_orientation: str,
    pixels: PixelReading = PixelReading(),  # noqa: B008  # frozen
) -> ScannedImage:
    """Open one image and its masks.

    Args:
      image_id: its position in its source.
      listed: as the source has it.
      exif_orientation: as of `scan_images`.
      pixels: as of `scan_images`.
    """
    try:
        image = check_image(listed.image, exif_orientation, pixels)
        if listed.size is not None and listed.size != (image.height, image.width):
            height, width = listed.size
            raise BadFile(
                "image size",
                f"its source says {width} x {height} pixels, the file has {image.width} x {image.height} (width x "
                "height): the annotations belong to another size of it, or to another picture",
            )
    except BadFile as error:
        where = listed.words[0].format(listed.line)
        return ScannedImage(None, [], [], [Problem(error.kind, f"{where}, {listed.name}: {error}")])
    kept: list[Checked] = []
    rows, problems = [], []
    files = MaskFiles(shared_mask_files(listed))
    for row, instance in enumerate(listed.instances):
        try:
            kept.append(check_instance(instance, image, files))
            rows.append(row)
        except BadFile as error:
            where = f"{listed.words[1].format(instance.line)}, {listed.name}"
            problems.append(Problem(error.kind, f"{where}: {error}"))
    scanned = AnnotatedImage(
        image.converted or listed.image,
        listed.name,
        image_id,
        image.height,
        image.width,
        image.orientation,
        tuple(one.instance for one in kept),
    )
    return ScannedImage(scanned, rows, kept, problems, image.digest)


def misplaced_masks(misplaced: int, masks: int) -> str:
    """Return the warning that most masks lie outside their boxes, and what it may come from."""
    return (
        f"{misplaced} of {masks} masks have most of their pixels outside of their box: they may be inverted, "
        "transposed (run lengths along the rows; COCO's run down the columns) or another picture's"
    )


def are_fractions(edges: Iterable[float]) -> bool:
    """Tell whether all edges of boxes look like ones that were divided by the sides of their pictures."""
    return all(1 - MOST_NORMALISED <= edge <= MOST_NORMALISED for edge in edges)


def in_fractions(boxes: int) -> str:
    """Return what is wrong with that many boxes of this kind, and what to do."""
    return (
        f"all coordinates of the {boxes} boxes lie in 0..1: pixels are expected; multiply x by the width of the image "
        "and y by its height"
    )


def _refuse_fractions(images: Sequence[ListedImage], named: str) -> None:
    boxes = [instance.box for listed in images for instance in listed.instances]
    if boxes and are_fractions(edge for box in boxes for edge in box):
        raise AnnotationError(named + in_fractions(len(boxes)), [])
