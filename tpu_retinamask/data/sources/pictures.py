"""Where the pictures of a source lie, and how large they are by their headers: nothing is decoded."""

import concurrent.futures
import io
import posixpath
import re
from collections.abc import Sequence
from typing import NamedTuple

import PIL.Image
import tensorflow as tf

from tpu_retinamask.data.images.image_files import EXIF_ORIENTATION
from tpu_retinamask.data.sources.checked import BadEntry, shown
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.files import list_folder, read_bytes, read_head

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")  # what training reads
HEADER = 1 << 16  # bytes that hold the header of most files
THREADS = 16
ROOT = re.compile(r"^[A-Za-z][\w.+-]*://|^([A-Za-z]:)?/+")  # what makes a path absolute


class PictureSize(NamedTuple):
    """Size of a picture as its file stores it.

    Attributes:
      width: columns.
      height: rows.
      on_its_side: its EXIF orientation swaps the two.
    """

    width: int
    height: int
    on_its_side: bool

    def annotated(self, settings: SourceSettings) -> tuple[int, int]:
        """Return (width, height) of the picture that boxes are meant on."""
        if self.on_its_side and settings.exif_orientation == "apply":
            return self.height, self.width
        return self.width, self.height

    def agrees(self, width: float, height: float) -> bool:
        """Tell whether a tool that showed the picture can have seen this size: stored, or upright."""
        stored = (self.width, self.height)
        return (width, height) == stored or (self.on_its_side and (height, width) == stored)


class PictureFinder:
    """Finds picture files with one listing a folder: a bucket would be asked once a picture."""

    def __init__(self, image_folder: str | None = None) -> None:
        """Take the folder in which all pictures lie, if it was said."""
        self.image_folder = image_folder
        self._listings: dict[str, frozenset[str]] = {}

    def find(self, name: str, folders: Sequence[str], place: str, hint: str = "") -> str:
        r"""Return the path of a picture.

        Args:
          name: as the source writes it; a backslash separates folders as '/' does.
          folders: where to look, in order, unless `image_folder` was said. In each, under the name with its folders,
            then under its last part.
          place: where the source says it, in the words of an error.
          hint: more of the error.

        Raises:
          BadEntry: no such file.
        """
        clean = plain_path(name, place)
        if self.image_folder is not None:
            folders, clean = (self.image_folder,), ROOT.sub("", clean)
        last = posixpath.basename(clean)
        tried = dict.fromkeys(posixpath.join(folder, part) for part in (clean, last) for folder in folders)
        found = next(filter(self.exists, tried), None)
        if found is None:
            where = "" if self.image_folder is not None else "; --images=FOLDER says where pictures lie"
            raise BadEntry(
                f"{place}: got {shown(name)}, expected a picture: {next(iter(tried))} is missing{hint}{where}"
            )
        return normal_path(found)

    def exists(self, path: str) -> bool:
        """Tell whether there is a file."""
        folder, name = posixpath.split(path)
        return bool(name) and name in self.names(folder)

    def names(self, folder: str) -> frozenset[str]:
        """Return the names in a folder; none: it is none."""
        if folder not in self._listings:
            try:
                found = frozenset(name.rstrip("/") for name in list_folder(folder or "."))
            except (tf.errors.OpError, UnicodeError):
                found = frozenset()
            self._listings[folder] = found
        return self._listings[folder]


def plain_path(name: str, place: str) -> str:
    """Return a path with '/' between its folders.

    Raises:
      BadEntry: no file can be called that.
    """
    clean = name.strip().replace("\\", "/")
    try:
        clean.encode()
    except UnicodeEncodeError:
        clean = ""
    if not clean or "\0" in clean:
        raise BadEntry(f"{place}: got {shown(name)}, expected the name of a file")
    return clean


def normal_path(path: str) -> str:
    """Return a path without "./" and "../" where it can be: one picture has one path. A URL keeps its scheme."""
    scheme, separator, rest = path.partition("://")
    return scheme + separator + posixpath.normpath(rest) if separator else posixpath.normpath(path)


def picture_sizes(paths: Sequence[str]) -> dict[str, PictureSize]:
    """Return the sizes of picture files, those whose header can be read."""
    once = list(dict.fromkeys(paths))
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        found = zip(once, pool.map(_size_of, once))
        return {path: size for path, size in found if size is not None}


def _size_of(path: str) -> PictureSize | None:
    try:
        try:
            return _header_size(read_head(path, HEADER))
        except Exception:  # the header goes on: EXIF with a large preview
            return _header_size(read_bytes(path))
    except Exception:  # whatever is wrong with the file is said when it is opened whole
        return None


def _header_size(data: bytes) -> PictureSize:
    with PIL.Image.open(io.BytesIO(data)) as picture:
        orientation = 1
        # Asked for its EXIF, Pillow decodes a PNG that has none.
        if picture.format != "PNG" or "exif" in picture.info:
            orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
        width, height = picture.size
        return PictureSize(width, height, orientation in (5, 6, 7, 8))
