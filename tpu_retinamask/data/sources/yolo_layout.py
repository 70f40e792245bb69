"""The files of a YOLO data set: the data.yaml, the splits it names, the label file of each picture.

Source: https://docs.ultralytics.com/datasets/detect/ and https://docs.ultralytics.com/datasets/segment/
"""

import os
import posixpath
import re
from typing import Any, NamedTuple

import numpy as np
import yaml

from tpu_retinamask.data.sources.checked import BadEntry, Entry, load_text, shown
from tpu_retinamask.data.sources.class_list import class_name
from tpu_retinamask.data.sources.first_bytes import first_text, names, split_of
from tpu_retinamask.data.sources.pictures import SUFFIXES
from tpu_retinamask.errors import UserError

YAML = (".yaml", ".yml")
MOST_YAML = 1 << 18  # characters: names of classes, no more
DEEPEST_YAML = 20  # brackets in brackets
SPLITS = ("train", "val", "valid", "test")


class YoloLayout(NamedTuple):
    """What a split of a data set is.

    Attributes:
      names: of the classes by index, as the data set lists them; None: it lists none.
      pictures: paths, in their order.
      label_files: of each picture, which need not be there.
    """

    names: list[str] | None
    pictures: list[str]
    label_files: list[str]


def is_yolo(path: str) -> bool:
    """Tell whether a path is a data.yaml, a folder with one or with images and labels, or a list of pictures."""
    base, _ = split_of(path)
    if base.lower().endswith(YAML):
        return any(f"{word}:" in first_text(base) for word in ("train", "val", "test", "names"))
    if base.lower().endswith(".txt"):
        lines = first_text(base).splitlines()[:5]
        return bool(lines) and all(line.strip().lower().endswith(SUFFIXES) and "," not in line for line in lines)
    return bool(_yaml_of(base)) or any(_has_both(folder) for folder in (base, posixpath.join(base, "train")))


def yolo_layout(path: str, image_folder: str | None = None) -> YoloLayout:
    """Find the pictures and label files of a split.

    Args:
      path: `data.yaml`, or a folder that holds it, then `#val` for another split than `train`; a folder with `images`
        and `labels`; a list of pictures.
      image_folder: where the pictures of folders lie instead; those that have a label file are taken.

    Raises:
      UserError: a data.yaml that is none, or does not have the split.
      FileNotFoundError: a file or folder that it names does not exist.
    """
    base, split = split_of(path)
    base = base.rstrip("/") if base != "/" else base
    if base.lower().endswith(YAML):
        return _of_yaml(base, split or "train", image_folder)
    if base.lower().endswith(".txt"):
        return _layout(None, _listed(base, posixpath.dirname(base)))
    found = _yaml_of(base)
    if found:
        return _of_yaml(found, split or "train", image_folder)
    folders = names(base)
    own = _class_file(base)
    if not {"images", "labels"} & set(folders) and "train" in folders:  # train/images, val/images
        base = posixpath.join(base, split or "train")
        split = ""
    place = posixpath.join(base, "images")
    inside = {*names(place), *names(posixpath.join(base, "labels"))}
    splits = [name for name in SPLITS if name in inside]
    if split or splits:
        place = posixpath.join(place, split or "train")
    return _layout(own or _class_file(base), _in_folder(place, image_folder))


def _has_both(folder: str) -> bool:
    return {"images", "labels"} <= set(names(folder))


def _yaml_of(folder: str) -> str | None:
    found = [name for name in names(folder) if name.lower() in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")]
    return posixpath.join(folder, found[0]) if found else None


def _class_file(folder: str) -> list[str] | None:
    """Return the names of a classes.txt, as LabelImg and Label Studio write it."""
    for place in (folder, posixpath.join(folder, "labels")):
        for name in ("classes.txt", "obj.names"):
            if name in names(place):
                file = posixpath.join(place, name)
                lines = [line.strip() for line in load_text(file).splitlines() if line.strip()]
                return [class_name(line, f"{file}, line {number}") for number, line in enumerate(lines, 1)]
    return None


def _of_yaml(path: str, split: str, image_folder: str | None) -> YoloLayout:
    content = Entry(_load_yaml(path), path)
    wanted = content.values.get(split)
    if wanted is None and split in ("val", "valid"):
        wanted = content.values.get("valid" if split == "val" else "val")
    if wanted is None:
        there = [name for name in SPLITS if content.has(name)]
        raise UserError(f"{path}: {split}: got nothing, expected the folder of the pictures; it has {there}")
    root = posixpath.dirname(path)
    if content.has("path"):
        said = posixpath.join(root, content.text("path").replace("\\", "/"))
        root = said if names(said) else root  # written on another machine: the data lie beside the file
    pictures = []
    for part in wanted if isinstance(wanted, list) else [wanted]:
        pictures += _of_part(part, root, f"{path}: {split}", image_folder)
    return _layout(_names_of(content), pictures)


def _of_part(part: Any, root: str, place: str, image_folder: str | None) -> list[str]:
    if not isinstance(part, str) or not part.strip():
        raise BadEntry(f"{place}: got {shown(part)}, expected a folder or a list of pictures")
    part = part.strip().replace("\\", "/")
    # Roboflow writes ../train/images for a folder beside the file; Ultralytics reads it so as well.
    tried = [posixpath.join(root, part), posixpath.join(root, part.removeprefix("../"))]
    for candidate in tried:
        if candidate.lower().endswith(".txt"):
            if posixpath.basename(candidate) in names(posixpath.dirname(candidate) or "."):
                return _listed(candidate, root)
        elif names(candidate) or (image_folder is not None and _labels_in(candidate)):
            return _in_folder(candidate, image_folder)
    raise FileNotFoundError(f"{place}: no such folder or list of pictures: {tried[0]}")


def _names_of(content: Entry) -> list[str] | None:
    said = content.values.get("names")
    if said is None:
        return None
    if isinstance(said, dict):
        numbers = {key: value for key, value in said.items() if isinstance(key, int) and not isinstance(key, bool)}
        if sorted(numbers) != list(range(len(said))):
            raise BadEntry(f"{content.place}: names: got the numbers {shown(list(said))}, expected 0, 1, 2, ...")
        said = [numbers[number] for number in range(len(numbers))]
    if not isinstance(said, list) or not said:
        raise BadEntry(f"{content.place}: names: got {shown(said)}, expected the names of the classes")
    found = [class_name(name, f"{content.place}: names[{number}]") for number, name in enumerate(said)]
    count = content.whole("nc", len(found))
    if count != len(found):
        raise BadEntry(f"{content.place}: nc: got {count}, expected {len(found)}, which are named")
    return found


def _load_yaml(path: str) -> Any:
    text = load_text(path)
    if len(text) > MOST_YAML:
        raise UserError(f"{path}: {len(text):,} characters, expected a data.yaml of at most {MOST_YAML:,}")
    depths = np.cumsum([(sign in "[{") - (sign in "]}") for sign in re.sub(r"[^][{}]", "", text)])
    if depths.size and depths.max() > DEEPEST_YAML:  # the reader's time grows with the square of it
        raise UserError(f"{path}: nested too deep to be a data.yaml")
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise UserError(f"{path}: nested too deep to be a data.yaml") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # beside its own errors, tags make the reader raise almost anything
        raise UserError(f"{path}: not a YAML file: {error}") from error


class _Loader(yaml.SafeLoader):
    """Reads plain values; aliases are refused, for they multiply what they stand for."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise UserError("holds aliases (*name), which no data.yaml needs")
        return super().compose_node(parent, index)


def _labels_in(folder: str) -> list[str]:
    """Return the label files of the pictures of a folder, without their suffix, sorted."""
    listed = names(posixpath.dirname(_label_file(posixpath.join(folder, "x.jpg"))))
    return [name[:-4] for name in listed if name.endswith(".txt") and name != "classes.txt"]


def _in_folder(folder: str, image_folder: str | None = None) -> list[str]:
    """Return the pictures in a folder, or in `images` in it, sorted."""
    if image_folder is not None:
        by_stem = {os.path.splitext(name)[0]: name for name in names(image_folder) if name.lower().endswith(SUFFIXES)}
        place = folder if _labels_in(folder) else posixpath.join(folder, "images")
        return [posixpath.join(place, by_stem.get(stem, f"{stem}.jpg")) for stem in _labels_in(place)]
    found = []
    inside = names(folder)
    for name in inside:
        if name.lower().endswith(SUFFIXES):
            found.append(posixpath.join(folder, name))
    if not found and "images" in inside:
        return _in_folder(posixpath.join(folder, "images"))
    if not found:
        raise FileNotFoundError(f"{folder}: no pictures ({', '.join(SUFFIXES)}) in this folder")
    return found


def _listed(path: str, root: str) -> list[str]:
    lines = [line.strip().replace("\\", "/") for line in load_text(path).splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{path}: got an empty file, expected the path of a picture on each line")
    folder = posixpath.dirname(path)
    return [posixpath.join(folder if line.startswith("./") else root, line) for line in lines]


def _layout(own: list[str] | None, pictures: list[str]) -> YoloLayout:
    return YoloLayout(own, pictures, [_label_file(picture) for picture in pictures])


def _label_file(picture: str) -> str:
    """Return the path of the labels: the last folder `images` is `labels`; else they lie beside the picture."""
    stem = os.path.splitext(picture)[0]
    before, separator, behind = stem.rpartition("/images/")
    if not separator and stem.startswith("images/"):
        before, separator, behind = "", "/", stem.removeprefix("images/")
        return f"labels/{behind}.txt"
    return f"{before}/labels/{behind}.txt" if separator else f"{stem}.txt"
