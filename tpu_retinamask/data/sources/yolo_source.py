"""YOLO's label files: a line an object, its class by number, then a box or a polygon in shares of the picture.

Source: https://docs.ultralytics.com/datasets/detect/ and https://docs.ultralytics.com/datasets/segment/
"""

from collections.abc import Sequence

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.masks import PolygonMask
from tpu_retinamask.data.sources.checked import BadEntry, as_number, as_whole, load_text, shown
from tpu_retinamask.data.sources.draft import Draft, Picture, Shape
from tpu_retinamask.data.sources.pictures import normal_path, picture_sizes, plain_path
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions, SourceContent
from tpu_retinamask.data.sources.yolo_layout import YoloLayout, is_yolo, yolo_layout
from tpu_retinamask.errors import UserError

BEYOND = 1e-3  # that a share may be outside 0..1 by rounding
MOST_NUMBERS = 200_000  # of a line: more corners are no outline of an object


class YoloSource:
    """Reads `data.yaml` (`data.yaml#val`), a folder with `images` and `labels`, or a list of pictures.

    Classes are those of `names`, in their order.
    """

    def recognise(self, path: str) -> bool:
        """Tell whether the path is one of these; see `yolo_layout.is_yolo`."""
        return is_yolo(path)

    def read(self, path: str, classes: ClassNames | None, options: ReadOptions) -> SourceContent:
        """Read the label file of each picture, in the order of the pictures.

        A line of 5 numbers is a box; one of 7 or more is a polygon, whose extent is the box. A picture without a label
        file, or with an empty one, has no objects.
        """
        layout = yolo_layout(path, options.image_folder)
        known = layout.names or (
            list(map(classes.name_of, range(classes.num_classes))) if classes is not None else None
        )
        if known is None:
            raise UserError(f"{path}: nothing names the classes, which label files number: give data.yaml or --classes")
        draft = Draft(path, options)
        pictures = _pictures(draft, layout, options.image_folder)
        sizes = picture_sizes([picture.path for picture, _ in pictures])
        unlabelled = 0
        for picture, file in pictures:
            if not draft.finder.exists(file):
                unlabelled += 1
                draft.pictures.append(picture)
                continue
            size = sizes.get(picture.path)
            if size is None:
                draft.faults.said.append(f"{picture.path}: got a file whose size cannot be read, expected a picture")
                continue
            draft.pictures.append(picture)
            text = draft.load(load_text, file)
            if text is not None:
                _read_labels(draft, picture, text, file, known, size.annotated(options.settings))
        if unlabelled:
            draft.notes.append(f"{unlabelled} pictures have no label file and are trained as background")
        return draft.settle(classes, layout.names)


def _pictures(draft: Draft, layout: YoloLayout, image_folder: str | None) -> list[tuple[Picture, str]]:
    found = []
    for number, (path, file) in enumerate(zip(layout.pictures, layout.label_files), 1):
        clean = draft.collect(plain_path, path, f"picture {number}")
        if clean is None:
            continue
        if image_folder is not None or not draft.finder.exists(clean):
            clean = draft.collect(draft.finder.find, clean, ["."], f"picture {number}")
        if clean is not None:
            found.append((Picture(normal_path(clean), path, number, path), file))
    return found


def _read_labels(
    draft: Draft, picture: Picture, text: str, file: str, known: Sequence[str], size: tuple[int, int]
) -> None:
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(text.splitlines(), 1):
        # Split with a bound: a line of a whole file is not to be a million texts.
        fields = tuple(line.split(maxsplit=MOST_NUMBERS))
        if not fields:
            continue
        if fields in seen:
            draft.leave_out("lines that repeat one of their file")
            continue
        seen.add(fields)
        shape = draft.collect(_shape, fields, f"{file}, line {number}", number, known, size)
        if shape is not None:
            picture.shapes.append(shape)


def _shape(fields: Sequence[str], place: str, number: int, known: Sequence[str], size: tuple[int, int]) -> Shape:
    if len(fields) > MOST_NUMBERS:
        raise BadEntry(f"{place}: got more than {MOST_NUMBERS:,} numbers, expected an object a line")
    index = as_whole(fields[0])
    if index is None or not 0 <= index < len(known):
        raise BadEntry(f"{place}: got the class {shown(fields[0])}, expected a number from 0 to {len(known) - 1}")
    if len(fields) != 5 and (len(fields) < 7 or len(fields) % 2 == 0):
        raise BadEntry(
            f"{place}: got {len(fields)} numbers, expected 5 (class, x, y, width, height) or a class and 3 or more "
            "corners x, y"
        )
    shares = []
    for value in fields[1:]:
        share = as_number(value)
        if share is None or not -BEYOND <= share <= 1 + BEYOND:
            raise BadEntry(f"{place}: got {shown(value)}, expected a share of the picture's size from 0 to 1")
        shares.append(share)
    width, height = size
    if len(shares) == 4:
        x, y, w, h = shares
        edges = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
        # Rounded shares overshoot the border; what overshoots it by more is told when the picture is opened.
        edges = tuple(_snapped(edge, limit) for edge, limit in zip(edges, (width, height, width, height)))
        return Shape(number, place, known[index], (edges[0], edges[1], edges[2], edges[3]))
    corners = tuple(share * (height if at % 2 else width) for at, share in enumerate(shares))
    return Shape(number, place, known[index], None, PolygonMask((corners,)))


def _snapped(edge: float, limit: int) -> float:
    if -BEYOND * limit <= edge < 0:
        return 0.0
    return float(limit) if limit < edge <= (1 + BEYOND) * limit else edge


SOURCES.register("yolo")(YoloSource())
