"""A folder of pictures is one run's: an earlier one's go, anyone else's are kept, a killed one is known."""

import json
import os

import pytest

from tpu_retinamask.errors import UserError
from tpu_retinamask.evaluation.picture_folder import files_of, take_over


def _begin(folder, *names, **more):
    take_over(str(folder), "images.json", [{"picture": name} for name in names], flag="--output_dir", **more)


def _write(folder, *names):
    for name in names:
        (folder / name).write_text(name)


def test_what_an_earlier_run_left_goes_before_the_new_list_comes(tmp_path):
    _begin(tmp_path, "a.png", "b.png", last="predictions.json")
    _write(tmp_path, "a.png", "predictions.json", "mine.txt", "mine.png")  # and killed before b.png
    _begin(tmp_path, "b.png", "c.png", last="predictions.json")
    assert sorted(os.listdir(tmp_path)) == ["images.json", "mine.png", "mine.txt"]
    assert files_of(str(tmp_path / "images.json")) == ["b.png", "c.png"]


# Each a file that is there before a run that would write images.json, a.png and predictions.json.
MINE = {
    "a.png": "a picture",
    "predictions.json": "[]",
    "images.json": json.dumps([{"id": 1, "file_name": "a.png"}]),
}


@pytest.mark.parametrize("name", MINE)
def test_nothing_of_anyone_elses_is_replaced(name, tmp_path):
    (tmp_path / name).write_text(MINE[name])
    with pytest.raises(UserError, match=rf"no earlier run wrote: give another folder.*\n  {name}$"):
        _begin(tmp_path, "a.png", last="predictions.json")
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_text() == MINE[name]


def test_what_is_read_is_not_replaced_even_if_it_is_ours(tmp_path):
    _begin(tmp_path, "a.png")
    _write(tmp_path, "a.png")
    for names in (("a.png",), ("b.png",)):
        with pytest.raises(UserError, match=r"pictures that are read.*\n  a.png$"):
            _begin(tmp_path, *names, inputs=[str(tmp_path / "a.png")])
    assert (tmp_path / "a.png").read_text() == "a.png"


@pytest.mark.parametrize(
    "text",
    [
        '[{"picture": "../mine.png"}]',
        '[{"picture": "mine.txt"}]',
        '[{"picture": 3}]',
        "[[",
        '[{"files": ["labelme/../mine.png"]}]',
        '[{"files": ["a/b/mine.png"]}]',
        '[{"files": ["/mine.png"]}]',
        '[{"files": ["linked/mine.png"]}]',
        '[{"files": ["."]}]',
        '[{"files": ["..\\\\mine.png"]}]',
    ],
)
def test_a_list_names_pictures_beside_it_or_is_no_list_of_ours(text, tmp_path):
    (tmp_path / "out").mkdir()
    _write(tmp_path, "mine.png")
    (tmp_path / "out" / "linked").symlink_to(tmp_path)
    (tmp_path / "out" / "images.json").write_text(text)
    with pytest.raises(UserError, match="no earlier run wrote"):
        _begin(tmp_path / "out", "a.png")
    assert (tmp_path / "mine.png").exists()


def _begin_files(folder, *names, **more):
    take_over(str(folder), "images.json", [{"files": list(names)}], flag="--output_dir", **more)


def test_the_files_of_an_earlier_run_go_in_all_forms_and_nobody_elses(tmp_path):
    _begin_files(tmp_path, "a.png", "labelme/a.json", "predictions.csv", "geojson/a.geojson")
    for name in ("labelme", "geojson"):
        (tmp_path / name).mkdir()
    _write(tmp_path, "a.png", "labelme/a.json", "predictions.csv", "geojson/a.geojson", "labelme/mine.json")
    _begin_files(tmp_path, "b.png")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["images.json", "labelme", "labelme/mine.json"]


def test_a_file_of_another_form_that_no_run_wrote_is_refused_by_name(tmp_path):
    _write(tmp_path, "predictions.csv")
    with pytest.raises(UserError, match=r"no earlier run wrote.*\n  predictions.csv$"):
        _begin_files(tmp_path, "predictions.csv")
    assert (tmp_path / "predictions.csv").read_text() == "predictions.csv"


def test_what_a_person_changed_since_is_kept_though_a_list_names_it(tmp_path):
    _begin_files(tmp_path, "labelme/a.json", "labelme/b.json")
    (tmp_path / "labelme").mkdir()
    _write(tmp_path, "labelme/a.json", "labelme/b.json")
    with pytest.raises(UserError, match=r"changed after an earlier run wrote them.*\n  labelme/b.json$"):
        _begin_files(tmp_path, "c.png", as_written=lambda path: not path.endswith("b.json"))
    assert sorted(os.listdir(tmp_path / "labelme")) == ["a.json", "b.json"]
