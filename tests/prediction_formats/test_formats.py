"""What predict writes of its findings, read back: by training's own sources where they read the form."""

import csv
import json

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as rle_codec

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.images.mask_reader import MaskReader
from tpu_retinamask.data.images.window_runs import encode_rle
from tpu_retinamask.data.sources.opening import read_source
from tpu_retinamask.data.sources.registry import ReadOptions
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.errors import SettingError, UserError
from tpu_retinamask.prediction_formats import coco_results, csv_rows, geojson, label_maps, labelme, overlays
from tpu_retinamask.prediction_formats.registry import FORMATS, Output, PredictedPicture, objects_of

HEIGHT, WIDTH = 120, 160
CLASSES = ClassNames(("mug", None, "spoon"))
assert {csv_rows, geojson, label_maps, labelme, overlays, coco_results}  # have taken their seats


def _disc(x, y, radius):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 < radius**2


RING = _disc(110, 60, 25) & ~_disc(110, 60, 9)
TWO_PARTS = _disc(30, 90, 12) | _disc(52, 90, 7)
# (score, category, mask or the box alone), the best first.
FOUND = [
    (0.95, 0, _disc(40, 40, 30)),
    (0.9, 2, RING),
    (0.8, 0, TWO_PARTS),
    (0.7, 2, _disc(60, 40, 20)),  # lies over the first
    (0.6, 0, (100.5, 2.25, 130.125, 17.0)),
    (0.55, 2, (10.0, 20.0, 10.0, 40.0)),  # no area
    (0.3, 0, _disc(20, 20, 4)),
]


def _result(score, category, drawn):
    result = {"image_id": 0, "category_id": category, "score": score, "segmentation": None}
    box = drawn
    if isinstance(drawn, np.ndarray):
        result["segmentation"] = encode_rle(drawn)
        (top, bottom), (left, right) = (np.flatnonzero(drawn.any(axis))[[0, -1]] for axis in (1, 0))
        box = left, top, right + 1, bottom + 1
    x1, y1, x2, y2 = map(float, box)
    return result | {"bbox": [x1, y1, x2 - x1, y2 - y1], "category_name": CLASSES.names[category]}


@pytest.fixture
def write(tmp_path):
    """Write two pictures, the second without an object, in a form; return (the output folder, the first's objects)."""
    for name in ("a.png", "b.png"):
        PIL.Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(tmp_path / name)

    def in_form(form, found=FOUND):
        output = Output(str(tmp_path / "out"), CLASSES, 0.5, ("a", "b"))
        writer = FORMATS.get(form)(output)
        results = [_result(*one) for one in found]
        objects, _ = objects_of(results, output, HEIGHT, WIDTH)

        def pixels():
            return np.full((HEIGHT, WIDTH, 3), 90, np.uint8)

        for number, (stem, of_picture, chosen) in enumerate((("a", results, objects), ("b", [], []))):
            name = str(tmp_path / f"{stem}.png")
            writer.add(PredictedPicture(number, name, stem, HEIGHT, WIDTH, pixels, of_picture, chosen))
        writer.finish()
        return tmp_path / "out", objects

    return in_form


def _read(path):
    """Return [(class, box, mask or None)] of each picture that training would read."""
    content = read_source(str(path), None, None, ReadOptions(SourceSettings(), None))
    return [
        [
            (
                content.classes.names[found.class_id],
                found.box,
                None if found.mask is None else MaskReader().read(found, HEIGHT, WIDTH),
            )
            for found in image.instances
        ]
        for image in content.images
    ]


def _iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_objects_are_those_of_the_threshold_that_have_an_area():
    output = Output("", CLASSES, 0.5)
    objects, flat = objects_of([_result(*one) for one in FOUND], output, HEIGHT, WIDTH)
    assert [(found.name, found.score) for found in objects] == [
        ("mug", 0.95), ("spoon", 0.9), ("mug", 0.8), ("spoon", 0.7), ("mug", 0.6)]  # fmt: skip
    assert flat == 1 and objects[-1].mask is None
    result = _result(0.5, 0, np.zeros((HEIGHT, WIDTH), bool) | _disc(5, 5, 2)) | {"bbox": [150.0005, 1, 9.9999, 2]}
    ((found,), _) = objects_of([result], output, HEIGHT, WIDTH)
    assert found.box == (150.0005, 1, 160.0, 3)  # never beyond the picture


def test_each_class_may_have_its_threshold():
    drawn = [(score, class_id, (10, 20, 30, 35)) for score, class_id in ((0.9, 0), (0.6, 0), (0.6, 2), (0.2, 2))]
    results = [_result(*one) for one in drawn]
    output = Output("", CLASSES, 0.3, class_thresholds=(0.8, 0.3, 0.5))
    objects, _ = objects_of(results, output, HEIGHT, WIDTH)
    assert [(found.class_id, found.score) for found in objects] == [(0, 0.9), (2, 0.6)]
    image = np.full((600, 600, 3), 90, np.uint8)
    alone = [overlays.overlay(image, [one], CLASSES.names, output.least)[:600] for one in results]
    assert [bool((picture != 90).any()) for picture in alone] == [True, False, True, False]
    nothing = overlays.overlay(image, results[1:2], CLASSES.names, output.least)
    assert nothing.shape[0] > 600 and (nothing[:600] == 90).all()  # a remark below


def test_labelme_is_read_and_trained_on_again(write):
    folder, _ = write("labelme")
    first, second = _read(folder / "labelme")
    assert second == []
    assert [name for name, _, _ in first] == ["mug", "spoon", "mug", "spoon", "mug"]
    for (_, box, mask), (_, _, expected) in zip(first[:4], FOUND):
        # Polygons of few corners: within a pixel of the outline.
        assert _iou(mask, expected) > (0.999 if expected is RING else 0.97)
        rows, columns = np.flatnonzero(expected.any(1)), np.flatnonzero(expected.any(0))
        around = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(box, around, atol=1)
    assert first[4][1:] == ((100.5, 2.25, 130.125, 17.0), None)
    content = json.loads((folder / "labelme" / "a.json").read_text())
    kinds = [(shape["shape_type"], len(shape["points"])) for shape in content["shapes"]]
    assert [kind for kind, _ in kinds] == ["polygon", "mask", "polygon", "polygon", "polygon", "rectangle"]
    assert all(corners <= 25 for _, corners in kinds)
    assert content["imagePath"] == "../../a.png" and content["shapes"][0]["description"] == "score 0.950"
    assert [shape["group_id"] for shape in content["shapes"]] == [None, None, 3, 3, None, None]


def test_what_was_corrected_in_labelme_is_never_replaced(write):
    folder, _ = write("labelme")
    path = folder / "labelme" / "a.json"
    before = path.read_bytes()
    write("labelme")  # as it was written: again
    assert path.read_bytes() == before
    content = json.loads(before)
    content["shapes"][0]["points"][0][0] += 1.5
    path.write_text(json.dumps(content))
    corrected = path.read_bytes()
    with pytest.raises(UserError, match=r"changed after predict wrote them(.|\n)*a\.json"):
        write("labelme")
    assert path.read_bytes() == corrected
    path.write_text("{}")
    with pytest.raises(UserError, match="or are not its own"):
        write("labelme")


def test_csv_is_read_by_training_to_the_bit(write):
    folder, objects = write("csv")
    first, second = _read(folder / "predictions.csv")
    assert second == [] and len(first) == 5
    for (name, box, mask), found, (_, _, drawn) in zip(first, objects, FOUND):
        assert (name, box) == (found.name, found.box)
        if found.mask is None:
            assert mask is None
        else:
            np.testing.assert_array_equal(mask, drawn)


def test_a_label_map_numbers_objects_and_shows_the_better_where_two_lie_over_each_other(write):
    folder, _ = write("label_map")
    labels = np.asarray(PIL.Image.open(folder / "label_maps" / "a.png"))
    assert labels.dtype == np.uint8 and not np.asarray(PIL.Image.open(folder / "label_maps" / "b.png")).any()
    taken = np.zeros((HEIGHT, WIDTH), bool)
    for number, (_, _, drawn) in enumerate(FOUND[:4], 1):
        np.testing.assert_array_equal(labels == number, drawn & ~taken)
        taken |= drawn
    with open(folder / "label_maps" / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label_map"], row["class"], row["score"]) for row in rows[:2]] == [
        ("a.png", "mug", "0.9500"), ("a.png", "spoon", "0.9000")]  # fmt: skip
    assert [int(row["pixels"]) for row in rows] == [(labels == number).sum() for number in range(1, 6)]
    many = [(0.9, 0, _disc(x, y, 2)) for x in range(4, 156, 5) for y in range(4, 116, 8)]
    folder, objects = write("label_map", many)
    labels = np.asarray(PIL.Image.open(folder / "label_maps" / "a.png"))
    assert len(objects) > 255 and set(np.unique(labels)) == set(range(len(objects) + 1))


def test_polygons_of_geojson_are_the_masks_to_the_bit(write):
    folder, objects = write("geojson")
    features = json.loads((folder / "geojson" / "a.geojson").read_text())["features"]
    assert json.loads((folder / "geojson" / "b.geojson").read_text())["features"] == []
    kinds = [feature["geometry"]["type"] for feature in features]
    assert kinds == ["Polygon", "Polygon", "MultiPolygon", "Polygon", "Polygon"]
    for feature, found, (_, _, drawn) in zip(features, objects, FOUND):
        assert feature["properties"] == {"class": found.name, "score": found.score, "has_mask": found.mask is not None}
        parts = feature["geometry"]["coordinates"]
        parts = [parts] if feature["geometry"]["type"] == "Polygon" else parts
        assert all(ring[0] == ring[-1] for part in parts for ring in part)
        if found.mask is not None:
            seen = np.zeros((HEIGHT, WIDTH), bool)
            for outline, *holes in parts:
                seen |= _filled(outline)
                for hole in holes:
                    seen &= ~_filled(hole)
            np.testing.assert_array_equal(seen, drawn)
    assert len(features[1]["geometry"]["coordinates"]) == 2  # the ring has a hole


def _filled(ring):
    (runs,) = rle_codec.frPyObjects([np.ravel(ring).astype(float).tolist()], HEIGHT, WIDTH)
    return rle_codec.decode(runs).astype(bool)


def test_results_of_all_scores_and_pictures_are_written(write):
    folder, _ = write("coco")
    results = json.loads((folder / "predictions.json").read_text())
    assert [result["score"] for result in results] == [score for score, _, _ in FOUND]
    write("pictures")
    assert PIL.Image.open(folder / "a.png").size[0] == 4 * WIDTH
    with pytest.raises(SettingError, match="prediction format 'labelmee' is not one of .* did you mean 'labelme'"):
        write("labelmee")
