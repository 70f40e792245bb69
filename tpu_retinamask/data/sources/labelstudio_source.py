"""Label Studio's JSON and JSON-MIN exports.

Source: https://labelstud.io/guide/task_format, https://labelstud.io/guide/export (JSON, JSON_MIN),
https://labelstud.io/tags/rectanglelabels, polygonlabels, ellipselabels and brushlabels
"""

import math
import posixpath
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.masks import Mask, PolygonMask, WindowMask
from tpu_retinamask.data.sources.brush_runs import brush_pixels
from tpu_retinamask.data.sources.checked import BadEntry, Entry, as_number, load_json, shown
from tpu_retinamask.data.sources.class_list import class_name
from tpu_retinamask.data.sources.draft import Draft, Picture, Shape, folder_of
from tpu_retinamask.data.sources.first_bytes import is_json_list, json_names
from tpu_retinamask.data.sources.outlines import Box, ellipse, polygon_of, radius, rectangle, turned
from tpu_retinamask.data.sources.pictures import SUFFIXES
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions, SourceContent
from tpu_retinamask.errors import UserError

LABELS = ("rectanglelabels", "polygonlabels", "brushlabels", "ellipselabels", "labels")
MIN_NAMES = {"annotation_id", "annotator", "lead_time"}
UPLOADED = re.compile("[0-9a-f]{8}-(.+)")  # Label Studio puts this before the name of a file that it is given


class LabelStudioSource:
    """Reads an export in JSON or JSON-MIN; classes are sorted by name."""

    def recognise(self, path: str) -> bool:
        """Tell whether a file is a list of tasks."""
        top = json_names(path).get(1, set()) if is_json_list(path) else set()
        return {"data", "annotations"} <= top or {"data", "completions"} <= top or len(top & MIN_NAMES) > 1

    def read(self, path: str, classes: ClassNames | None, options: ReadOptions) -> SourceContent:
        """Read the tasks in their order, of each the newest annotation that was not skipped.

        Rectangles are boxes; polygons, ellipses, brushes and turned rectangles have a mask.
        """
        content = load_json(path)
        if not isinstance(content, list):
            raise UserError(
                f"{path}: got {shown(content)}, expected the list of tasks of an export in JSON or JSON-MIN"
            )
        draft = Draft(path, options)
        for number, task in enumerate(content, 1):
            draft.collect(_read_task, draft, task, f"{path}, task {number}", number)
        return draft.settle(classes)


def _read_task(draft: Draft, value: Any, place: str, number: int) -> None:
    task = Entry(value, place)
    short = not task.has("data")
    data = task if short else task.entry("data")
    name = _picture_name(data)
    results = list(_short_results(task)) if short else _results(draft, task)
    if results is None:
        draft.leave_out("tasks that nobody has finished")
        return
    folder = folder_of(draft.source)
    path = _find(draft, name, [folder, posixpath.join(folder, "images")], f"{place}: the picture")
    picture = Picture(path, name, number, place, _size(results, place))
    labelled = {
        result.get("id") for result in results if isinstance(result, dict) and result.get("type") == "labels"
    } - {None}
    draft.pictures.append(picture)

    def read(entry: Entry, at: int) -> Shape | None:
        return _shape(draft, entry, at, labelled)

    draft.shapes(picture, results, f"{place}, result", read)


def _picture_name(data: Entry) -> str:
    """Return what the task says of its picture: `image`, or the one text that is called like one."""
    if isinstance(data.values.get("image"), str):
        return data.text("image")
    found = [
        value for value in data.values.values() if isinstance(value, str) and _clean(value).lower().endswith(SUFFIXES)
    ]
    if len(found) != 1:
        raise BadEntry(f"{data.place}: got {len(found)} texts that name a picture, expected `image` or one such")
    return found[0]


def _clean(name: str) -> str:
    """Return the path of a picture: without a server, and out of `?d=` for a file that was not uploaded."""
    try:
        parts = urllib.parse.urlsplit(name)
        wanted = urllib.parse.parse_qs(parts.query).get("d")
    except ValueError:
        return name
    if wanted:
        return wanted[0]
    return urllib.parse.unquote(parts.path) if parts.scheme in ("http", "https") or "%" in name else name


def _find(draft: Draft, name: str, folders: list[str], place: str) -> str:
    path = _clean(name)
    uploaded = UPLOADED.fullmatch(posixpath.basename(path))
    try:
        return draft.finder.find(path.lstrip("/"), folders, place)
    except BadEntry:
        if uploaded:
            try:
                return draft.finder.find(uploaded[1], folders, place)
            except BadEntry:
                pass  # the name in full is the one to tell
        raise


def _results(draft: Draft, task: Entry) -> list | None:
    """Return the results of the newest annotation that was not skipped; None: there is none."""
    key = "annotations" if task.has("annotations") else "completions"
    if task.has("predictions") and task.items("predictions"):
        draft.leave_out("predictions of a model", len(task.items("predictions")))
    found = [entry for entry in task.entries(key, []) if entry.values.get("was_cancelled") is not True]
    if not found:
        return None
    if len(found) > 1:
        draft.leave_out("annotations of a task that has a newer one", len(found) - 1)
    newest = max(enumerate(found), key=lambda pair: (str(pair[1].values.get("updated_at") or ""), pair[0]))[1]
    return newest.items("result", [])


def _short_results(task: Entry) -> Iterator[dict]:
    """Yield the labels of JSON-MIN, whose lists stand under the names of the labelling configuration."""
    for value in task.values.values():
        for label in value if isinstance(value, list) else []:
            kind = next((kind for kind in LABELS if isinstance(label, dict) and kind in label), None)
            if kind is not None:
                yield {
                    "type": kind,
                    "value": label,
                    **{key: label.get(key) for key in ("original_width", "original_height")},
                }


def _size(results: list, place: str) -> tuple[float, float] | None:
    for result in results:
        if isinstance(result, dict) and result.get("original_width") is not None:
            entry = Entry(result, place)
            return entry.pixels("original_width"), entry.pixels("original_height")
    return None


def _shape(draft: Draft, entry: Entry, number: int, labelled: set) -> Shape | None:
    kind = entry.text("type", "")
    if kind not in LABELS:
        # With separate tags for outline and label, the entry of the label repeats the outline.
        if entry.values.get("id") not in labelled or kind not in ("rectangle", "polygon", "brush", "ellipse"):
            draft.leave_out(f"results of type {shown(kind)}")
        return None
    value = entry.entry("value")
    names = value.items(kind, [])
    if len(names) != 1:
        raise BadEntry(f"{value.place}.{kind}: got {len(names)} labels, expected one")
    name = class_name(names[0], f"{value.place}.{kind}")
    if entry.number("image_rotation", 0.0) % 360:
        raise BadEntry(
            f"{entry.place}: image_rotation: got {entry.number('image_rotation'):g}, expected 0: the stored picture"
        )
    width, height = entry.pixels("original_width"), entry.pixels("original_height")
    box, mask = _drawn(value, width, height)
    return Shape(number, entry.place, name, box, mask)


def _drawn(value: Entry, width: float, height: float) -> tuple[Box | None, Mask | None]:
    """Return the box or mask of percents of a picture of width x height."""
    if value.has("rle"):
        if width != int(width) or height != int(height) or min(width, height) <= 0:
            raise BadEntry(f"{value.place}: got a picture of {width:g} x {height:g}, expected whole pixels")
        return None, WindowMask.of(brush_pixels(value.items("rle"), int(width), int(height), f"{value.place}.rle"))
    if value.has("points"):
        corners = polygon_of(value.items("points"), f"{value.place}.points")
        return None, PolygonMask((tuple(c / 100 * (height if at % 2 else width) for at, c in enumerate(corners)),))
    x, y = value.pixels("x") / 100 * width, value.pixels("y") / 100 * height
    angle = math.radians((as_number(value.values.get("rotation") or 0) or 0.0) % 360)
    if value.has("radiusX"):
        rx, ry = value.pixels("radiusX") / 100 * width, value.pixels("radiusY") / 100 * height
        place = f"{value.place}: radiusX, radiusY"
        return None, PolygonMask((ellipse(x, y, radius(rx, place), radius(ry, place), angle),))
    box = x, y, x + value.pixels("width") / 100 * width, y + value.pixels("height") / 100 * height
    if not angle:
        return box, None
    return None, PolygonMask((turned(rectangle(box), (x, y), angle),))


SOURCES.register("labelstudio")(LabelStudioSource())
