"""What is attacked: files as the programs write or take them, laid out in a folder, and how each is read.

A subject's `read` returns what the file told, and refuses by `UserError` what it does not take. Where a digest or a
checksum guards the files (`guarded`), every damage has to be refused, or to lie outside of what is read; a text without
one that is still a file of its kind says something else, and `read` then looks whether that is possible at all.
"""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import PIL.Image
from attack import weight_files
from reference.tool_writers import OUTLINES, PIXELS, written
from reference.torch_writers import write_legacy, write_zip

SCENE = (("a.png", 20, 10), ("b.png", 8, 8))  # name, width, height


class Subject(NamedTuple):
    """Files of one kind."""

    lay: Callable[[pathlib.Path], str]  # writes them into a folder; what it returns is handed to `read`
    read: Callable[[pathlib.Path, str], object]
    attacked: tuple[str, ...]  # patterns of the files that are damaged
    guarded: bool = False
    sign: Callable[[pathlib.Path], None] | None = None  # makes the digests fit, as a forger would
    named: str = ""  # a pattern, by which an error may say what is wrong in place of the file
    weight: int = 1  # of its share of the time: what takes long to lay out and to read gets more


# ---- Annotations and what belongs to them


def _write_scene(folder):
    """Write two pictures, three objects in CSV."""
    for name, width, height in SCENE:
        PIL.Image.fromarray(np.full((height, width, 3), width, np.uint8)).save(folder / name)
    mask = np.zeros((10, 20), np.uint8)
    mask[2:8, 3:9] = 255
    PIL.Image.fromarray(mask).save(folder / "m.png")
    (folder / "train.csv").write_text("a.png,3,2,9,8,cat,m.png\na.png,1,1,5.5,5,dog,\nb.png,,,,,,\n")
    (folder / "classes.csv").write_text("cat,0\ndog,1\n")
    return "train.csv"


def _told(content, settings, path):
    """Return what a source tells, after a look at whether it can be so."""
    from tpu_retinamask.data.sources.opening import scan_content

    scanned = scan_content(content, settings, path, threads=1).images
    for image in scanned:
        for instance in image.instances:
            x1, y1, x2, y2 = instance.box
            assert 0 <= x1 < x2 <= image.width and 0 <= y1 < y2 <= image.height, instance
            assert 0 <= instance.class_id < content.classes.num_classes, instance
    return content.classes.names, [
        (
            image.name.rpartition("/")[2],
            image.height,
            image.width,
            [(i.box, i.class_id, i.mask) for i in image.instances],
        )
        for image in scanned
    ]


def _read_source(folder, path, source, classes=None):
    from tpu_retinamask.data.sources.opening import read_source
    from tpu_retinamask.data.sources.registry import ReadOptions
    from tpu_retinamask.data.sources.settings import SourceSettings

    settings, path = SourceSettings(allow_empty=True), str(folder / path)
    return _told(read_source(path, classes, source, ReadOptions(settings)), settings, path)


def _read_csv(folder, path):
    from tpu_retinamask.data.annotations.class_names import read_classes

    return _read_source(folder, path, "csv", read_classes(str(folder / "classes.csv")))


def _source(name, pixels):
    def lay(folder):
        path, _ = written(name, folder, pixels)
        return str(pathlib.Path(path).relative_to(folder))

    source = (PIXELS if pixels else OUTLINES)[name][1]
    return Subject(lay, lambda folder, path: _read_source(folder, path, source), ("*.json", "*.xml", "*.csv", "*.txt"))


def _lay_coco(folder):
    from tpu_retinamask.coco.conversion import write_coco
    from tpu_retinamask.data.annotations.class_names import read_classes
    from tpu_retinamask.data.annotations.csv_annotations import read_annotations
    from tpu_retinamask.data.annotations.scan import scan_images

    _write_scene(folder)
    names = read_classes(str(folder / "classes.csv"))
    scanned = scan_images(read_annotations(str(folder / "train.csv"), names), threads=1)
    write_coco(scanned.images, names, output=str(folder / "instances.json"), image_folder=str(folder))
    return "instances.json"


def _read_pictures(folder, path):
    from tpu_retinamask.data.images.decode import decode_image
    from tpu_retinamask.data.images.mask_reader import picture_bytes

    told = _read_csv(folder, path)
    return told, decode_image(picture_bytes(str(folder / "a.png"))).numpy().tobytes()


# ---- Results, and the lists of a run's files


def _lay_results(folder):
    _lay_coco(folder)
    content = json.loads((folder / "instances.json").read_text())
    found = [
        {key: one[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5 + number / 10}
        for number, one in enumerate(content["annotations"])
    ]
    (folder / "predictions.json").write_text(json.dumps(found))
    return ""


def _read_results(folder, _):
    from tpu_retinamask.coco.scores import evaluate_coco

    scores = evaluate_coco(folder / "instances.json", folder / "predictions.json", iou_types=None)
    return repr(scores)


OURS = ("a.png", "labelme/a.json", "predictions.csv")
MINE = ("mine.png", "labelme/mine.json", "mine.csv", "predictions.txt")


def _lay_list(folder):
    from tpu_retinamask.files import write_json_atomically

    (folder / "labelme").mkdir()
    for name in (*OURS, *MINE):
        (folder / name).write_text(name)
    entry = {"id": 0, "file_name": "x/a.png", "height": 4, "width": 4, "picture": "a.png", "files": list(OURS)}
    write_json_atomically(folder / "images.json", [entry])
    return ""


def _read_list(folder, _):
    from tpu_retinamask.evaluation.picture_folder import take_over

    try:
        take_over(str(folder), "images.json", [{"files": ["b.png"]}], flag="--output_dir", last="predictions.json")
    finally:
        lost = [name for name in MINE if not (folder / name).exists() or (folder / name).read_text() != name]
        assert not lost, f"lost files of the user's: {lost}"
    return sorted(name for name in OURS if (folder / name).exists())


# ---- A model directory


def _lay_settings(folder):
    from tpu_retinamask import config

    config.parse_gin(["recipe/small.gin"], ["train.batch_size = 4"])
    (folder / "settings.json").write_text(config.recipe_files(config.recipe())["settings.json"])
    return ""


def _read_settings(folder, _):
    from tpu_retinamask import config

    config.parse_gin([], [], model_dir=str(folder))
    return repr(config.recipe())


def _sign_settings(folder):
    """Leave out the digest, as a run of an earlier version did."""
    content = json.loads((folder / "settings.json").read_text())
    content.pop("sha256")
    (folder / "settings.json").write_text(json.dumps(content))


def _read_classes(folder, _):
    from tpu_retinamask.data.annotations.class_names import read_classes

    names = read_classes(str(folder / "classes.csv")).names
    assert names and all(name is None or name.strip() for name in names), names
    return names


@functools.cache
def _layer():
    import keras

    return keras.Sequential([keras.layers.Input([3]), keras.layers.Dense(2, name="dense")], name="model")


def _model(numbers):
    """Return a model of one layer, and its average."""
    import tensorflow as tf

    model = _layer()
    for variable in model.variables:
        variable.assign(np.full(variable.shape, numbers, np.float32))
    return model, {variable.path: tf.Variable(variable.value * 2) for variable in model.variables}


def _lay_checkpoints(folder):
    from tpu_retinamask.training.checkpoints.state import TrainState

    for step in (10, 20):
        model, average = _model(step)
        state = TrainState(str(folder), model, extra={"average": average})
        state.files.write(state.checkpoint, step, {"note": step / 2})
    return ""


def _read_checkpoints(folder, _):
    """As evaluate and --weights do: the newest that is intact, its weights, their average, and both by name."""
    from tpu_retinamask.errors import UserError
    from tpu_retinamask.pretrained.own_checkpoint import read_checkpoint
    from tpu_retinamask.training.checkpoints.state import TrainState
    from tpu_retinamask.training.weight_average import load_average

    model, _ = _model(0)
    state = TrainState(str(folder), model)
    step = state.restore()
    found = [variable.numpy().tolist() for variable in model.variables]
    assert load_average(model, state.restored.path)
    found += [variable.numpy().tolist() for variable in model.variables]
    layers, _ = read_checkpoint(state.restored.path)
    assert np.isfinite(np.concatenate([np.ravel(numbers) for numbers in found])).all(), found
    if step == 10:  # the one before, as it was written
        assert state.restored.values == {"note": 5.0} and found[0] == [[10.0, 10.0]] * 3 and found[3] == [20.0, 20.0]
        raise UserError(f"{folder}: the one before was taken")
    return (
        step,
        state.restored.values,
        found,
        sorted(layers),
        [layers["dense"][name].tolist() for name in ("kernel", "bias")],
    )


def _sign_checkpoints(folder):
    from tpu_retinamask.training.checkpoints.manifest import write_manifest

    for step in (10, 20):
        files = {}
        for name in (f"ckpt-{step}.index", f"ckpt-{step}.data-00000-of-00001"):
            content = (folder / "checkpoints" / name).read_bytes()
            files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        write_manifest(str(folder / "checkpoints" / f"ckpt-{step}"), step, {"note": step / 2}, files)


def _lay_history(folder):
    from tpu_retinamask.files import write_json_atomically

    entries = [{"step": step, "loss": 3.0 / step, "val/segm/AP": step / 100} for step in (5, 10, 15)]
    write_json_atomically(folder / "history.json", entries)
    return ""


def _read_history(folder, _):
    from tpu_retinamask.errors import UserError
    from tpu_retinamask.training.loop.history import History

    entries = History(str(folder), 20).entries
    if not entries:
        raise UserError(f"{folder}: it is said that the history cannot be read, and that it starts anew")
    return entries


# ---- Prepared data sets


def _lay_records(folder):
    from tpu_retinamask.data.annotations.class_names import read_classes
    from tpu_retinamask.data.annotations.csv_annotations import read_annotations
    from tpu_retinamask.data.annotations.scan import scan_images
    from tpu_retinamask.data.prepared.writing import RecordsBuilder

    scene = folder.with_name(folder.name + "_scene")
    scene.mkdir()
    _write_scene(scene)
    classes = read_classes(str(scene / "classes.csv"))
    scanned = scan_images(read_annotations(str(scene / "train.csv"), classes), threads=1)
    RecordsBuilder(str(folder), classes, {"train": scanned}, sources={}, images_per_shard=1).build()
    return ""


def _sign_records(folder):
    names = [line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(sums))


def _verify_records(folder, _):
    from tpu_retinamask.data.prepared.reading import verify_records

    return verify_records(str(folder))


def _read_records(folder, _):
    """As training does: the operations of its pipeline, which compare each record's own checksum."""
    import tensorflow as tf

    from tpu_retinamask.batch_errors import batch_error
    from tpu_retinamask.data.images.decode import decode_image
    from tpu_retinamask.data.prepared.reading import open_records
    from tpu_retinamask.data.record_format import parse_example
    from tpu_retinamask.data.stream import image_tensors

    opened, told = open_records(str(folder)), []
    for image in opened.split("train"):
        place = image.image
        try:  # what the graph of the pipeline does with a record, without the seconds that a graph takes
            record = image_tensors._read_record(
                tf.constant(place.shard), tf.constant(place.offset, tf.int64), tf.constant(place.length, tf.int64)
            )
            example = parse_example(record, tf.constant(opened.classes.num_classes, tf.int64))
            fields = [np.asarray(field) for field in example]
            pixels = decode_image(example.image).numpy()
        except tf.errors.OpError as error:
            raise batch_error(error) from error
        assert all(np.isfinite(field).all() for field in fields if field.dtype.kind == "f")
        told.append((image.name, pixels.tobytes(), [field.tolist() for field in fields]))
    assert len(told) == 2, len(told)
    return opened.classes.names, told


SUBJECTS: dict[str, Subject] = {
    "csv": Subject(_write_scene, _read_csv, ("train.csv", "classes.csv")),
    "pictures": Subject(_write_scene, _read_pictures, ("*.png",), guarded=True),
    "coco": Subject(_lay_coco, lambda folder, path: _read_source(folder, path, "coco"), ("instances.json",)),
    "results": Subject(_lay_results, _read_results, ("instances.json", "predictions.json")),
    "list of pictures": Subject(_lay_list, _read_list, ("images.json",)),
    "settings.json": Subject(
        _lay_settings, _read_settings, ("settings.json",), guarded=True, sign=_sign_settings, named=r"^\w+: "
    ),
    "classes.csv": Subject(_write_scene, _read_classes, ("classes.csv",)),
    "history.json": Subject(_lay_history, _read_history, ("history.json",)),
    "checkpoints": Subject(
        _lay_checkpoints, _read_checkpoints, ("checkpoint", "ckpt-20.*"), guarded=True, sign=_sign_checkpoints, weight=3
    ),
    "records, verified": Subject(_lay_records, _verify_records, ("*",), guarded=True, weight=3),
    "records, read": Subject(
        _lay_records, _read_records, ("*",), guarded=True, sign=_sign_records, named="--verify", weight=6
    ),
    "weights h5": Subject(weight_files.lay_h5, weight_files.read_h5, ("weights.h5",)),
    "weights pth": Subject(*weight_files.torch(write_zip), ("weights.pth",)),
    "weights pth, legacy": Subject(*weight_files.torch(write_legacy), ("weights.pth",)),
    "weights pkl": Subject(weight_files.lay_pkl, weight_files.read_pkl, ("weights.pkl",)),
    **{f"source {name}": _source(name, False) for name in OUTLINES},
    **{f"source {name}, pixels": _source(name, True) for name in PIXELS},
}
