"""Pascal VOC: an XML file for each picture, and segmentations whose palette indices number its objects.

Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf ("Annotation", "Segmentation") and
https://github.com/HumanSignal/labelImg, which writes the same elements.
"""

import posixpath
from typing import NamedTuple
from xml.etree.ElementTree import Element

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.masks import ColourMask
from tpu_retinamask.data.sources.checked import BadEntry, Entry, load_text, load_xml
from tpu_retinamask.data.sources.class_list import class_name
from tpu_retinamask.data.sources.draft import Draft, Picture, Shape, stem_of
from tpu_retinamask.data.sources.first_bytes import names, split_of, xml_root
from tpu_retinamask.data.sources.outlines import Box
from tpu_retinamask.data.sources.pictures import SUFFIXES
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions, SourceContent
from tpu_retinamask.errors import UserError

LOOKED_AT = 5  # files of a folder, to know it by
MOST_OBJECTS = 254  # that a segmentation can number: 255 is the border of an object


class _Layout(NamedTuple):
    """Where the parts of a data set lie.

    Attributes:
      root: the folder that holds Annotations; the folder of the files themselves where there is none.
      files: the XML files, by name.
    """

    root: str
    files: list[str]


class VocSource:
    """Reads a folder with `Annotations/`, or a folder of XML files; classes are sorted by name.

    `FOLDER#train` reads the pictures that `ImageSets/Main/train.txt` lists, or `ImageSets/Segmentation/train.txt`, and
    `FOLDER#Segmentation/train` the second of these.
    """

    def recognise(self, path: str) -> bool:
        """Tell whether one of the first XML files in a folder has VOC's element."""
        files = _layout(_split_of(path)[0]).files[:LOOKED_AT]
        return any(xml_root(file) == "annotation" for file in files)

    def read(self, path: str, classes: ClassNames | None, options: ReadOptions) -> SourceContent:
        """Read the files in the order of their names, or of the image set.

        VOC counts pixels from 1 and a box has its last ones: x1 = xmin - 1, x2 = xmax. Where any xmin or ymin of the
        folder is 0 the boxes are taken for edges counted from 0, as other tools write them: x1 = xmin, x2 = xmax.
        """
        folder, chosen = _split_of(path)
        layout = _layout(folder)
        files = _chosen(layout, chosen) if chosen else layout.files
        draft = Draft(path, options)
        found: list[tuple[Shape, Box]] = []
        difficult: list[str] = []
        for number, file in enumerate(files, 1):
            root = draft.load(load_xml, file)
            if root is not None:
                draft.collect(_read_file, draft, root, file, number, layout, found, difficult)
        _place(draft, found)
        if difficult:
            draft.notes.append(f"{len(difficult)} objects are marked as difficult, and are objects like others")
        return draft.settle(classes)


def _split_of(path: str) -> tuple[str, str]:
    folder, chosen = split_of(path)
    return folder.rstrip("/") or "/", chosen


def _layout(folder: str) -> _Layout:
    inside = "Annotations" in names(folder)
    place = posixpath.join(folder, "Annotations") if inside else folder
    files = [posixpath.join(place, name) for name in names(place) if name.lower().endswith(".xml")]
    return _Layout(folder, files)


def _chosen(layout: _Layout, chosen: str) -> list[str]:
    """Return the files of an image set, in its order."""
    sets = posixpath.join(layout.root, "ImageSets")
    tried = [chosen] if "/" in chosen else [f"Main/{chosen}", f"Segmentation/{chosen}", chosen]
    lists = [posixpath.join(sets, f"{name}.txt") for name in tried]
    by_stem = {stem_of(file): file for file in layout.files}
    for path in lists:
        if posixpath.basename(path) in names(posixpath.dirname(path)):
            stems = [line.split()[0] for line in load_text(path).splitlines() if line.strip()]
            missing = [stem for stem in stems if stem not in by_stem]
            if missing:
                raise UserError(f"{path}: {len(missing)} of its pictures have no XML file, such as {missing[0]!r}")
            return [by_stem[stem] for stem in dict.fromkeys(stems)]
    raise FileNotFoundError(f"{layout.root}: no image set {chosen!r}; looked for {', '.join(lists)}")


def _read_file(
    draft: Draft, root: Element, file: str, number: int, layout: _Layout, found: list, difficult: list
) -> None:
    if root.tag != "annotation":
        raise BadEntry(f"{file}: got the element <{root.tag}>, expected <annotation> of Pascal VOC")
    name = (root.findtext("filename") or "").strip()
    path = _picture_of(draft, layout, file, name)
    size = _texts(root.find("size"), f"{file}: size")
    stated = (size.pixels("width", 0.0), size.pixels("height", 0.0)) if size is not None else (0.0, 0.0)
    # Some tools write 0 where they did not open the picture.
    picture = Picture(path, name or posixpath.basename(path), number, file, stated if all(stated) else None)
    draft.pictures.append(picture)
    objects = root.findall("object")
    indices = _indices_file(draft, layout, file) if len(objects) <= MOST_OBJECTS else None
    for at, element in enumerate(objects, 1):
        place = f"{file}, object {at}"
        pair = draft.collect(_object, element, place, at, indices)
        if pair is not None:
            picture.shapes.append(pair[0])
            found.append(pair)
        if element.findtext("difficult", "").strip() == "1":
            difficult.append(place)


def _picture_of(draft: Draft, layout: _Layout, file: str, name: str) -> str:
    """Find the picture by the name in the file, or by the file's own name: tools copy files and leave the text."""
    folders = [posixpath.join(layout.root, folder) for folder in ("JPEGImages", "images", "")]
    folders = [folder.rstrip("/") for folder in folders] + [posixpath.dirname(file)]
    try:
        return draft.finder.find(name, folders, f"{file}: filename")
    except BadEntry:
        stem = stem_of(file)
        for folder in [draft.options.image_folder] if draft.options.image_folder is not None else folders:
            inside = draft.finder.names(folder)
            for suffix in SUFFIXES:
                for candidate in (stem + suffix, stem + suffix.upper()):
                    if candidate in inside:
                        return posixpath.join(folder, candidate)
        raise


def _indices_file(draft: Draft, layout: _Layout, file: str) -> str | None:
    path = posixpath.join(layout.root, "SegmentationObject", f"{stem_of(file)}.png")
    return path if draft.finder.exists(path) else None


def _object(element: Element, place: str, number: int, indices: str | None) -> tuple[Shape, Box]:
    name = class_name(element.findtext("name"), f"{place}: name")
    box = _texts(element.find("bndbox"), f"{place}: bndbox")
    if box is None:
        raise BadEntry(f"{place}: bndbox: got nothing, expected xmin, ymin, xmax and ymax")
    edges = box.pixels("xmin"), box.pixels("ymin"), box.pixels("xmax"), box.pixels("ymax")
    mask = None if indices is None else ColourMask(indices, index=number)
    return Shape(number, place, name, edges, mask), edges


def _texts(element: Element | None, place: str) -> Entry | None:
    return None if element is None else Entry({child.tag: child.text for child in element}, place)


def _place(draft: Draft, pairs: list[tuple[Shape, Box]]) -> None:
    """Make boxes half-open, counted from 0; say how they were taken."""
    if not pairs:
        return
    from_zero = any(min(edges[:2]) < 1 for _, edges in pairs)
    for shape, (x1, y1, x2, y2) in pairs:
        shape.box = (x1, y1, x2, y2) if from_zero else (x1 - 1, y1 - 1, x2, y2)
    draft.notes.append(
        "boxes begin at 0, so they were taken for edges: x1 = xmin, x2 = xmax"
        if from_zero
        else "boxes were taken for pixels counted from 1, as Pascal VOC counts them: x1 = xmin - 1, x2 = xmax"
    )


SOURCES.register("voc")(VocSource())
