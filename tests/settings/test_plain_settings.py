"""A model directory is data: its settings come back as they were, and nothing that is planted in it is run."""

import json
import sys

import gin
import pytest

from tpu_retinamask import config
from tpu_retinamask.errors import UserError

SET = [
    "RetinaMask.backbone = 'small'",
    "RetinaMask.backbone_options = {'widths': (16, 16, 16, 16, 16), 'blocks': (1, 1, 1, 1)}",
    "InputPipeline.augmentation = @Augmentation()",
    "Augmentation.horizontal_flip = 0.5",
    "train.steps = 7",
]


@pytest.fixture(autouse=True)
def _no_settings_of_others():
    yield
    gin.clear_config()


@pytest.fixture
def run(tmp_path):
    """A directory as train leaves it: (folder, recipe)."""
    config.parse_gin([], SET)
    recipe = config.recipe()
    for name, text in config.config_files().items():
        (tmp_path / name).write_text(text)
    return tmp_path, recipe


def _read(folder, **options):
    config.parse_gin([], options.pop("params", []), model_dir=str(folder), **options)
    return config.recipe()


def test_the_settings_in_force_come_back(run):
    folder, recipe = run
    (folder / "config.gin").write_text("train.steps = 8\n")  # for people: it is not read
    (folder / "operative_config.gin").write_text("")
    assert json.loads((folder / "settings.json").read_text())["left_out"] == []
    found = _read(folder, params=["train.steps = 9"])
    assert found.train.steps == 9 and recipe.pipeline.augmentation is not None
    assert found.pipeline == recipe.pipeline and found.network.backbone_options == recipe.network.backbone_options


def test_settings_made_in_python_come_back(run, tmp_path):
    _, recipe = run
    (tmp_path / "other").mkdir()
    for name, text in config.recipe_files(recipe).items():
        (tmp_path / "other" / name).write_text(text)
    assert _read(tmp_path / "other") == recipe


PLANTED = {
    "import planted\n": "import planted",
    "from planted import ran\n": "from planted import ran",
    "from __gin__ import dynamic_registration\nimport planted\n": "from __gin__ import dynamic_registration",
    "include 'more.gin'\n": "include 'more.gin'",
    "train.steps = @os.system()\n": "@os.system",
    "train.steps = 7\ntrain.epochs = @a/predict()\n": "@a/predict",
    "import planted\ntrain.steps = (\n": "import planted",  # a slip further down
}


@pytest.mark.parametrize("text", PLANTED)
@pytest.mark.parametrize("file", ["config.gin", "operative_config.gin"])
def test_what_is_planted_is_not_run(file, text, run, monkeypatch, caplog):
    folder, recipe = run
    (folder / "planted.py").write_text("ran = 1\n")
    (folder / "more.gin").write_text("import planted\n")
    monkeypatch.syspath_prepend(str(folder))
    (folder / file).write_text(text)
    assert _read(folder) == recipe
    assert f"{file} has {PLANTED[text]}" in caplog.text and "not run" in caplog.text
    (folder / "settings.json").unlink()  # as of a run from before it was written
    with pytest.raises(UserError, match="which is code that would be run. If you trust it, add --allow_gin_imports"):
        _read(folder)
    assert "planted" not in sys.modules


def test_an_import_is_run_where_it_is_allowed(run, monkeypatch):
    folder, recipe = run
    (folder / "planted.py").write_text("ran = 1\n")
    monkeypatch.syspath_prepend(str(folder))
    (folder / "config.gin").write_text("import planted\n" + (folder / "config.gin").read_text())
    try:
        assert _read(folder, allow_imports=True) == recipe and "planted" in sys.modules
    finally:
        sys.modules.pop("planted", None)


def _forged(folder, change):
    content = json.loads((folder / "settings.json").read_text())
    content.pop("sha256")  # a forger would make it fit
    change(content["settings"])
    (folder / "settings.json").write_text(json.dumps(content))


@pytest.mark.parametrize("text", ["@predict()", "%macro", "'\nimport planted\n'", "x'\nimport planted\n#"])
def test_text_stays_text(text, run):
    folder, _ = run
    _forged(folder, lambda settings: settings["RetinaMask"].update(freeze=[text]))
    assert _read(folder).network.freeze == (text,)


FORGED = {
    "an owner": lambda settings: settings.update(predict={"output_dir": "/"}),
    "a field": lambda settings: settings["train"].update({"steps = 1\nimport planted\ntrain.steps": 1}),
    "an object": lambda settings: settings["train"].update(steps={"settings": "predict", "fields": {}}),
    "a dictionary": lambda settings: settings["train"].update(steps={"a": 1}),
    "a key": lambda settings: settings["train"].update(steps={"pairs": [[{"pairs": []}, 1]]}),
    "a number": lambda settings: settings["train"].update(clip_norm=float("inf")),
    "nesting": lambda settings: settings["InputPipeline"]["augmentation"]["fields"].update(
        hue={"settings": "Augmentation", "fields": {}}
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_anything_but_fields_and_plain_values_is_refused(name, run):
    folder, _ = run
    _forged(folder, FORGED[name])
    with pytest.raises(UserError, match="settings.json: "):
        _read(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2, "settings": {}}', "[" * 100_000, '{"format": 1}'])
def test_what_is_no_settings_file_is_refused(text, run):
    folder, _ = run
    (folder / "settings.json").write_text(text)
    with pytest.raises(UserError, match="settings.json: expected"):
        _read(folder)


def test_settings_that_were_changed_since_are_refused_and_those_without_a_digest_are_read(run):
    """The digest came later: what a run of an earlier version wrote has none."""
    folder, _ = run
    path = folder / "settings.json"
    content = json.loads(path.read_text())
    content["settings"]["train"]["batch_size"] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"settings.json does not hold what train wrote: .*--gin_param"):
        _read(folder)
    content.pop("sha256")
    path.write_text(json.dumps(content))
    assert _read(folder).train.batch_size == content["settings"]["train"]["batch_size"]
