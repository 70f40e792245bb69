"""A folder of pictures is one run's: an earlier one's go, anyone else's are kept, a killed one is known."""

import json
import os

import pytest

from tpu_retinamask.errors import UserError
from tpu_retinamask.evaluation.picture_folder import pictures_of, take_over


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
    assert pictures_of(str(tmp_path / "images.json")) == ["b.png", "c.png"]


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
    "text", ['[{"picture": "../mine.png"}]', '[{"picture": "mine.txt"}]', '[{"picture": 3}]', "[["]
)
def test_a_list_names_pictures_beside_it_or_is_no_list_of_ours(text, tmp_path):
    (tmp_path / "out").mkdir()
    _write(tmp_path, "mine.png")
    (tmp_path / "out" / "images.json").write_text(text)
    with pytest.raises(UserError, match="no earlier run wrote"):
        _begin(tmp_path / "out", "a.png")
    assert (tmp_path / "mine.png").exists()
