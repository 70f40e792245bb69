"""What of a data set is no error and may still be wrong: told before a training, a line each."""

import collections
import itertools
import posixpath
from collections.abc import Mapping, Sequence

import numpy as np

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.scan import ScanResult
from tpu_retinamask.data.images.thumbnails import thumbnail

FEW_OBJECTS = 10  # of a class, below which little is learnt of it
MOST_NAMED = 3  # examples in one line
MOST_COMPARED = 200  # pairs of one name whose pictures are looked at: some seconds at most
NEAR = 4.0  # mean difference of thumbnails, of 255, up to which two pictures are near

Named = tuple[str, AnnotatedImage]  # with its split


def doubts(splits: Mapping[str, ScanResult], classes: ClassNames | None = None) -> list[str]:
    """Return what to look at: pictures that are there twice, classes without objects, objects without masks.

    Args:
      splits: what scans kept, by the name of the split.
      classes: told where the first split has few objects of one; None: not looked at.
    """
    by_content: dict[str, list[Named]] = {}
    by_name: dict[str, list[Named]] = {}
    for split, scanned in splits.items():
        for image, digest in zip(scanned.images, scanned.digests, strict=True):
            by_content.setdefault(digest, []).append((split, image))
            by_name.setdefault(posixpath.basename(image.name), []).append((split, image))
    told = _same_content(list(by_content.values()))
    told += _near_ones(list(by_name.values()), {id(image) for group in by_content.values() for _, image in group[1:]})
    if classes is not None and splits:
        told += _few_objects(next(iter(splits.values())).images, classes)
    for split, scanned in splits.items():
        instances = [instance for image in scanned.images for instance in image.instances]
        without = sum(instance.mask is None for instance in instances)
        if without:
            told.append(f"{split}: {without} of {len(instances)} objects have no mask: their boxes are trained alone")
    return told


def _same_content(groups: Sequence[list[Named]]) -> list[str]:
    told = []
    across = [group for group in groups if len({split for split, _ in group}) > 1]
    if across:
        both = " and in ".join(dict.fromkeys(split for split, _ in across[0]))
        told.append(
            f"{len(across)} pictures are in {both}, byte for byte: what is scored there was trained on "
            f"({_examples(across)})"
        )
    again: dict[str, list[list[Named]]] = {}
    for group in groups:
        for split in dict.fromkeys(split for split, _ in group):
            own = [one for one in group if one[0] == split]
            if len(own) > 1:
                again.setdefault(split, []).append(own)
    for split, own in again.items():
        told.append(
            f"{split}: {len(own)} pictures are there more than once, under other names with the same bytes "
            f"({_examples(own)})"
        )
    return told


def _near_ones(groups: Sequence[list[Named]], copies: set[int]) -> list[str]:
    """Tell of pictures of one name in several folders that show the same."""
    near = []
    compared = 0
    for group in groups:
        own = [one for one in group if id(one[1]) not in copies]
        for first, second in itertools.pairwise(own):
            if compared == MOST_COMPARED:
                break
            compared += 1
            if _look_alike(first[1], second[1]):
                near.append([first, second])
    if not near:
        return []
    said = f"{len(near)} pairs of pictures of one name in two folders look alike: are they copies?"
    return [f"{said} ({_examples(near)})"]


def _look_alike(first: AnnotatedImage, second: AnnotatedImage) -> bool:
    pictures = [thumbnail(image) for image in (first, second)]
    if any(picture is None for picture in pictures):
        return False
    pictures = [picture.mean(axis=-1) for picture in pictures if picture is not None]
    return float(np.abs(pictures[0] - pictures[1]).mean()) < NEAR and float(pictures[0].std()) > NEAR


def _few_objects(images: Sequence[AnnotatedImage], classes: ClassNames) -> list[str]:
    counts = collections.Counter(instance.class_id for image in images for instance in image.instances)
    named = [class_id for class_id, name in enumerate(classes.names) if name is not None]
    none = [classes.name_of(class_id) for class_id in named if not counts[class_id]]
    few = [f"{classes.name_of(key)} ({counts[key]})" for key in named if 0 < counts[key] < FEW_OBJECTS]
    told = []
    if none:
        told.append(f"{len(none)} of {len(named)} classes have no object to train on: {_some(none)}")
    if few:
        told.append(f"{len(few)} of {len(named)} classes have fewer than {FEW_OBJECTS} objects: {_some(few)}")
    return told


def _examples(groups: Sequence[list[Named]]) -> str:
    return _some([" = ".join(image.name for _, image in group[:2]) for group in groups])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")
