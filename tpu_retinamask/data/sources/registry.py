"""The seat of sources, what one is given and what it gives."""

from typing import NamedTuple, Protocol

from tpu_retinamask.data.annotated_image import ListedImage
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.seats import Seat


class ReadOptions(NamedTuple):
    """What a source is told beside the path and the classes.

    Attributes:
      settings: of the reading; see there.
      image_folder: where the images lie; None: where the source says, seen from its own folder.
    """

    settings: SourceSettings = SourceSettings()
    image_folder: str | None = None


class SourceContent(NamedTuple):
    """What a source lists; nothing has been opened yet.

    Attributes:
      classes: those that were given, or those that the source says, in an order that it documents.
      images: in their order.
      notes: what was left out, merged or taken for granted, a line each, with counts.
    """

    classes: ClassNames
    images: list[ListedImage]
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """Reads annotations of one kind."""

    def recognise(self, path: str) -> bool:
        """Tell whether a file or folder is of this kind, by its name or its first bytes."""
        ...

    def read(self, path: str, classes: ClassNames | None, options: ReadOptions) -> SourceContent:
        """Read a file or folder.

        Args:
          path: local, or any URL that tf.io.gfile opens.
          classes: the classes that it may name; None: those that it says itself.
          options: how to read, and where images lie.

        Raises:
          UserError: what is wrong, where, and what was expected; all of it at once.
          FileNotFoundError: it does not exist.
        """
        ...


SOURCES: Seat[Source] = Seat("source", "tpu_retinamask.sources")
