"""The seat of sources, and what one is."""

from typing import NamedTuple, Protocol

from tpu_retinamask.data.annotated_image import ListedImage
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.seats import Seat


class SourceContent(NamedTuple):
    """What a source lists; nothing has been opened yet."""

    classes: ClassNames
    images: list[ListedImage]


class Source(Protocol):
    """Reads annotations of one kind."""

    def recognise(self, path: str) -> bool:
        """Tell whether a file or folder is of this kind, by its name or its first bytes."""
        ...

    def read(self, path: str, classes: ClassNames | None) -> SourceContent:
        """Read a file or folder.

        Args:
          path: local, or any URL that tf.io.gfile opens.
          classes: the classes that it may name; None: those that it says itself.

        Raises:
          UserError: what is wrong, where, and what was expected; all of it at once.
          FileNotFoundError: it does not exist.
        """
        ...


SOURCES: Seat[Source] = Seat("source", "tpu_retinamask.sources")
