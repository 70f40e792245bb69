"""The seat of data sources: recognised or named, opened in one place, and checked there."""

import dataclasses
import json
import logging
import pathlib

import numpy as np
import pytest

from tpu_retinamask.data.annotated_image import AnnotatedImage, ListedImage, ListedInstance
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.masks import PolygonMask
from tpu_retinamask.data.record_format import StoredImage
from tpu_retinamask.data.sources.opening import open_images, open_sources
from tpu_retinamask.data.sources.registry import SOURCES, SourceContent
from tpu_retinamask.data.stream.image_tensors import image_tensors
from tpu_retinamask.errors import SettingError, UserError


class ToySource:
    """A JSON list of [picture, [[class, box, polygon], ...]]."""

    def recognise(self, path):
        return path.endswith(".toy")

    def read(self, path, classes, options=None):
        classes = classes or ClassNames(("cat", "dog"))
        images = []
        for line, (name, instances) in enumerate(json.loads(pathlib.Path(path).read_text()), 1):
            listed = tuple(
                ListedInstance(line, tuple(box), classes.ids[class_name], PolygonMask((tuple(polygon),)))
                for class_name, box, polygon in instances
            )
            images.append(ListedImage(str(pathlib.Path(path).parent / name), name, line, listed))
        return SourceContent(classes, images)


@pytest.fixture
def toy(monkeypatch):
    """The seat with a toy source in it."""
    monkeypatch.setattr(SOURCES, "_things", dict(SOURCES._things))
    SOURCES.register("toy")(ToySource())


@pytest.fixture
def scene(write):
    """Two pictures, two objects, listed in a.toy."""
    for name in ("a.png", "b.png"):
        write(name, np.full((24, 32, 3), 9, np.uint8))
    rows = [
        ["a.png", [["cat", [3, 2, 14, 9], [3, 2, 14, 3, 12, 9]], ["dog", [1, 1, 9, 9], [1, 1, 9, 1, 9, 9]]]],
        ["b.png", []],
    ]
    return write("a.toy", json.dumps(rows))


def test_the_kind_is_said_and_an_unknown_one_names_those_there_are(toy, tmp_path, scene, caplog):
    caplog.set_level(logging.INFO, "tpu_retinamask")
    open_sources(scene, None, None, None)
    assert "a.toy: 2 images, read as toy" in caplog.messages
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder is a folder of no kind that is known .*toy"):
        open_sources(str(tmp_path / "folder"), None, None, None)
    with pytest.raises(SettingError, match=r"source 'to' is not one of .*'toy'"):
        open_sources(scene, None, None, None, source_format="to")
    with pytest.raises(FileNotFoundError, match="gone: no such file"):
        open_sources(str(tmp_path / "gone"), None, None, None)


def test_a_format_that_is_given_is_taken(toy, scene):
    other = pathlib.Path(scene).with_suffix(".labels")
    other.write_text(pathlib.Path(scene).read_text())
    sources = open_sources(str(other), None, str(other), None, source_format="toy")
    assert len(sources.train) == len(sources.validation) == 2


# ---- which classes


def test_a_class_file_numbers_the_classes_of_a_source(toy, write, scene):
    classes, images = open_images(scene, write("classes.csv", "dog,0\ncat,1\n"), None, "train")
    assert classes.names == ("dog", "cat") and images[0].instances[0].class_id == 1
    classes, images = open_images(scene, None, None, "train", known_classes=ClassNames(("bird", "cat", "dog")))
    assert classes.names == ("bird", "cat", "dog") and images[0].instances[0].class_id == 1
    classes, images = open_images(scene, None, None, "train")
    assert classes.names == ("cat", "dog") and images[0].instances[0].class_id == 0


def test_a_class_that_no_name_belongs_to_is_refused(toy, scene, monkeypatch):
    own = ClassNames(("cat", "dog", "cow"))
    instance = ListedInstance(5, (0, 0, 1, 1), 3, None)
    listed = [ListedImage("x.png", "x.png", 5, (instance,))]
    monkeypatch.setattr(ToySource, "read", lambda self, path, classes, options: SourceContent(own, listed))
    with pytest.raises(UserError, match=r"1 classes outside 0..2\n  line 5, x.png: class 3"):
        open_images(scene, None, None, "train")


def test_a_box_that_is_no_number_is_named(toy, scene):
    path = pathlib.Path(scene)
    path.write_text(path.read_text().replace("14, 9]", "NaN, 9]", 1))
    with pytest.raises(UserError, match=r"1 bad records[^$]*line 1, a.png: the box 3,2,nan,9 is not finite"):
        open_sources(scene, None, None, None)


def test_images_partly_in_a_prepared_set_are_refused():
    stored = AnnotatedImage(StoredImage("shard", 0, 1), "a", 0, 9, 9, 1, ())
    with pytest.raises(SettingError, match="prepare them together"):
        image_tensors([stored, dataclasses.replace(stored, image="b.png")], False)
