"""Label maps of a conversion: where each goes, inside one folder and in place of nothing of anyone else's."""

import io
import itertools
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import PIL.Image
import PIL.PngImagePlugin

from tpu_retinamask.data.annotations.csv_rows import AnnotationError
from tpu_retinamask.files import holds_nothing, read_head, write_atomically
from tpu_retinamask.holding import clear_leftovers

LABELS = 255  # instances of one label map, which has 8 bits
MARK = "retinamask convert"  # key of the text in a label map that says for which output it was written
HEAD_BYTES = 1 << 13  # of a PNG, in which its texts lie


def layer_masks(masks: Sequence[np.ndarray | None]) -> tuple[list, list[np.ndarray]]:
    """Draw masks into as few label maps as the first that has room gives: objects of COCO overlap.

    Args:
      masks: bool [h, w] an instance; None: no mask.

    Returns:
      ((map, label) of each instance, or None; the label maps, uint8 [h, w]).
    """
    places, layers, used = [], [], []
    for mask in masks:
        if mask is None:
            places.append(None)
            continue
        free = (i for i, layer in enumerate(layers) if used[i] < LABELS and not layer[mask].any())
        number = next(free, len(layers))
        if number == len(layers):
            layers.append(np.zeros(mask.shape, np.uint8))
            used.append(0)
        used[number] += 1
        layers[number][mask] = used[number]
        places.append((number, used[number]))
    return places, layers


class LabelMapFolder:
    """The folder that the label maps of one conversion go to."""

    def __init__(self, folder: str, output: str, names: Sequence[str], images: Iterable[str]) -> None:
        """Give each image a label map of its own.

        Args:
          folder: where the label maps go.
          output: the CSV that names them; only what an earlier conversion wrote for it is replaced.
          names: of the images, as their source writes them; a name that climbs out of its folder (`../`, an absolute
            path, a URL) keeps what is left of it inside.
          images: paths that no label map may take.

        Raises:
          AnnotationError: label maps would replace images or what this conversion did not write, or would lie outside
            the folder, behind a link.
        """
        self.folder, self._mark = folder, relative(output, posixpath.join(folder, "x"))
        self._images = {place_of(path) for path in images}
        self._root = place_of(folder)
        self.paths: list[str] = []
        taken: set[str] = set()
        for name in names:
            self.paths.append(posixpath.join(folder, _free_name(inside(name), taken)))
        replaced = [path for path in self.paths if place_of(path) in self._images]
        if replaced:
            raise AnnotationError(
                f"{len(replaced)} label maps would replace images: write them into a folder of their own (--masks)",
                [f"{path} is an image" for path in replaced],
            )
        refused = list(filter(None, map(self._reason_against, self.paths)))
        if refused:
            raise AnnotationError(
                f"{len(refused)} label maps cannot be written: give a folder of their own (--masks)", refused
            )
        for place in {posixpath.dirname(path) for path in self.paths}:
            clear_leftovers(place)
        # By the first label map of each image, whatever further ones are called.
        self._taken = self._images | {place_of(path).casefold() for path in self.paths}

    def further(self, path: str) -> Iterator[str]:
        """Yield paths for the label maps of one image: the first is its own, further ones belong to no other image."""
        yield path
        stem, extension = os.path.splitext(path)
        for number in itertools.count(1):
            candidate = f"{stem}_{number}{extension}"
            if place_of(candidate) not in self._images and place_of(candidate).casefold() not in self._taken:
                yield candidate

    def write(self, path: str, labels: np.ndarray) -> None:
        """Write a label map.

        Raises:
          AnnotationError: it would replace what this conversion did not write.
        """
        if reason := self._reason_against(path):
            raise AnnotationError("a label map cannot be written: give a folder of its own (--masks)", [reason])
        texts = PIL.PngImagePlugin.PngInfo()
        texts.add_itxt(MARK, self._mark)
        buffer = io.BytesIO()
        PIL.Image.fromarray(labels).save(buffer, "PNG", pnginfo=texts)
        write_atomically(path, buffer.getvalue())

    def wrote(self, path: str) -> bool:
        """Tell whether a file is a label map that was written for this output before."""
        return mark_of(path) == self._mark

    def _reason_against(self, path: str) -> str | None:
        place = place_of(path)
        if "://" not in path and os.path.commonpath([place, self._root]) != self._root:
            return f"{path} is a link to {place}, outside of {self.folder}"
        if not holds_nothing(path) and not self.wrote(path):
            return f"{path} is there already, and not from an earlier conversion to this output"
        return None


def mark_of(path: str) -> str | None:
    """Return for which output a label map was written; None: it is no label map of a conversion."""
    try:
        return PIL.Image.open(io.BytesIO(read_head(path, HEAD_BYTES))).info.get(MARK)
    except (OSError, SyntaxError, ValueError):
        return None


def inside(name: str) -> str:
    """Return a name without what leads out of a folder: a scheme, a drive, a root, `..` at its start."""
    name = re.sub("^[A-Za-z]:", "", name.partition("://")[2] or name).replace("\\", "/")
    parts = [part for part in posixpath.normpath(name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "image"


def place_of(path: str) -> str:
    """Return where a path really lies, links followed; a URL stands for itself."""
    return path if "://" in path else os.path.realpath(path)


def relative(path: str, output: str) -> str:
    """Return the path as a file writes it: relative to the file's folder, unless one of both is a URL."""
    if "://" in path or "://" in output:
        folder = posixpath.dirname(output) + "/"
        return path.removeprefix(folder) if "://" in output else path
    return os.path.relpath(path, os.path.dirname(output) or ".").replace(os.sep, "/")


def _free_name(name: str, taken: set[str]) -> str:
    """Return the name of an image's label map, unlike all before; `taken` gets it."""
    stem, _ = os.path.splitext(name)
    candidates = itertools.chain(
        [f"{stem}.png", f"{name}.png"], (f"{name}.{number}.png" for number in itertools.count(2))
    )
    free = next(candidate for candidate in candidates if candidate.casefold() not in taken)
    taken.add(free.casefold())
    return free
