"""Every gin file parses with the real configuration, and all that it sets exists."""

import inspect
import pathlib
import re
import subprocess
import sys

import gin
import pytest

from tpu_retinamask import config, gin_files
from tpu_retinamask.errors import UserError
from tpu_retinamask.programs import (
    benchmark,
    benchmark_input,
    convert,
    evaluate,
    export,
    predict,
    prepare,
    serve,
    tpu_check,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = sorted(str(path.relative_to(ROOT / "gin")) for path in (ROOT / "gin").rglob("*.gin"))
PROGRAMS = {
    "evaluate": evaluate.evaluate,
    "predict": predict.predict,
    "export": export.export,
    "benchmark": benchmark.benchmark,
    "benchmark_input": benchmark_input.benchmark_input,
    "prepare": prepare.prepare,
    "convert": convert.convert,
    "serve": serve.serve,
    "tpu_check": tpu_check.tpu_check,
}


@pytest.fixture(autouse=True)
def no_settings():
    """Leave gin as it was found."""
    gin.clear_config()
    yield
    gin.clear_config()


def test_the_programs_are_those_that_settings_of_others_are_skipped_for():
    assert set(config.PROGRAMS) == set(PROGRAMS)


@pytest.mark.parametrize("name", FILES)
def test_a_gin_file_parses_and_sets_what_exists(name):
    # All programs are imported here: a setting of any of them that does not exist is refused.
    config.parse_gin([name], [])
    settings = [line.split(" = ")[0] for line in gin.config_str().splitlines() if " = " in line and line[0] != "#"]
    assert settings
    for setting in settings:
        target, parameter = setting.rsplit(".", 1)
        target = target.rsplit("/", 1)[-1]  # without its scope
        accepted = inspect.signature(PROGRAMS.get(target) or config.SETTINGS[target]).parameters
        assert parameter in accepted, setting


@pytest.mark.parametrize("name", FILES)
def test_a_gin_file_makes_a_recipe_for_whichever_program_asks(name):
    config.parse_gin([name], [])
    recipe = config.recipe()
    assert recipe.train.batch_on(8) >= 1
    # train and benchmark give the batch that the rate is scaled to; benchmark once did not.
    assert recipe.optimizer.build(1000, batch_size=2).learning_rate is not None


@pytest.mark.parametrize("name", FILES)
def test_a_gin_file_tells_what_it_is_for(name):
    assert (ROOT / "gin" / name).read_text().startswith("# ")


def test_settings_that_do_not_exist_are_refused():
    for setting, words in (
        ("RetinaMask.bakbone = 'small'", "bakbone"),
        ("RetinMask.backbone = 'small'", "RetinMask"),
        ("train.bach_size = 2", "bach_size"),
        ("train.steps 2", "parse"),
    ):
        with pytest.raises(UserError, match=words):
            config.parse_gin([], [setting])


def test_later_files_and_settings_win(tmp_path):
    # A text that looks like a setting, and a function of the user's that is called as one of our classes.
    (tmp_path / "own.gin").write_text("import mine\nhelp.x = '''\ntrain.nothing = 3\n'''\nmine.train.foo = 5\n")
    (tmp_path / "mine.gin").write_text("include 'recipe/small.gin'\nRetinaMask.fpn_channels = 8\n")
    config.parse_gin([str(tmp_path / "mine.gin")], [])
    assert gin.query_parameter("RetinaMask.fpn_channels") == 8
    assert gin.query_parameter("RetinaMask.backbone") == "small"
    config.parse_gin([str(tmp_path / "mine.gin"), "recipe/small.gin"], [])
    assert gin.query_parameter("RetinaMask.fpn_channels") == 64
    config.parse_gin([str(tmp_path / "mine.gin")], ["RetinaMask.fpn_channels = 4"])
    assert gin.query_parameter("RetinaMask.fpn_channels") == 4


def test_a_file_is_found_by_its_bare_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = str(ROOT / "gin" / "recipe" / "small.gin")
    assert config.find_gin_file("recipe/small.gin") == config.find_gin_file("recipe/small") == expected
    with pytest.raises(UserError, match=r"model/smal.gin: no such file.*recipe/small.gin"):
        config.find_gin_file("model/smal.gin")


@pytest.mark.ci
def test_a_folder_of_the_users_does_not_hide_an_included_file(tmp_path):
    # `python -m` puts the working directory on sys.path, where gin would take the folder for a package.
    (tmp_path / "model").mkdir()
    code = (
        "from tpu_retinamask import config; import gin; config.parse_gin(['run/nuclei_demo.gin'], [])\n"
        "print(gin.query_parameter('RetinaMask.backbone'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "small\n", done.stderr[-1000:]


def test_what_a_run_wrote_down_is_read_back_and_can_be_overruled(tmp_path):
    config.parse_gin(["recipe/small.gin"], ["RetinaMask.fpn_channels = 16", "Criterion.mask_rois = 7"])
    assert config.Criterion().mask_rois == 7
    config.recipe()  # what is in force is what has been asked for
    for name, text in config.config_files().items():
        (tmp_path / name).write_text(text)
    config.parse_gin([], ["RetinaMask.fpn_channels = 24"], model_dir=str(tmp_path))
    assert gin.query_parameter("RetinaMask.fpn_channels") == 24
    assert gin.query_parameter("RetinaMask.normalization") == "batch"
    assert config.Criterion().mask_rois == 7
    assert gin.query_parameter("Criterion.focal_gamma") == 2.0  # a default of that day stays, whatever ours become


def test_configured_classes_are_the_classes_themselves():
    from tpu_retinamask.model.losses import Criterion
    from tpu_retinamask.model.retinamask import RetinaMask

    config.parse_gin(["recipe/small.gin"], ["Criterion.mask_rois = 7"])
    criterion = config.Criterion()
    assert isinstance(criterion, Criterion) and criterion != Criterion()
    assert Criterion().mask_rois == 100  # the class of the library is not configured behind a caller's back
    assert isinstance(config.RetinaMask(3), RetinaMask)


def test_a_value_out_of_range_is_a_mistake_of_the_users():
    config.parse_gin([], ["RetinaMask.backbone = 'resnet99'"])
    with pytest.raises(UserError, match="RetinaMask: backbone 'resnet99' is not one of"):
        config.RetinaMask(3)


def test_settings_read_from_the_sources_are_those_of_the_classes():
    known = config.known_settings()
    assert gin_files.settings_by_source() == {owner: known[owner] for owner in config.SETTINGS}


@pytest.mark.parametrize(
    "files, params, words",
    [
        (["run/nuclei_demo.gin", "recipe/small.gin"], ["a/tpu_retinamask.RetinaMask.backbone = 'small'"], None),
        ([], ["train.epoch = 3"], "did you mean train.epochs?"),
        ([], ["RetinaMask.batch_size = 3"], "did you mean train.batch_size"),
        (["mine.gin"], [], "'backbnoe'; did you mean RetinaMask.backbone?"),  # in the file that it includes
        ([], ["MyOwn.thing = 1", "macro = 2", "evaluate.anything = 1"], None),  # known to gin alone
        (["own.gin"], [], None),
        ([], ["  train.stepz = 5"], "did you mean train.steps?"),
        (["run/nuclei.gin"], [], "no such file"),
        (["n" * 300], [], "no such file"),
    ],
)
def test_slips_are_found_without_tensorflow(tmp_path, monkeypatch, files, params, words):
    monkeypatch.chdir(tmp_path)
    # A text that looks like a setting, and a function of the user's that is called as one of our classes.
    (tmp_path / "own.gin").write_text("import mine\nhelp.x = '''\ntrain.nothing = 3\n'''\nmine.train.foo = 5\n")
    (tmp_path / "mine.gin").write_text("include 'other.gin'\n# train.wrong = 1\n")
    (tmp_path / "other.gin").write_text("include 'mine.gin'\nRetinaMask.backbnoe = 'small'\n")
    if words is None:
        gin_files.refuse_unknown_settings(files, params)
    else:
        with pytest.raises(UserError, match=re.escape(words)):
            gin_files.refuse_unknown_settings(files, params)


@pytest.mark.parametrize(
    "text, words",
    [
        ("include 'slip.gin'\n", "files that include one another"),
        ("include '.'\n", "gin configuration: "),
        ("train.steps = (5\n", "slip.gin: "),
        ("train.seed = 1\ntrain.steps = inf\n", "slip.gin: no value; text stands in quotes"),
        ("# \xe9\n", "slip.gin: expected text in UTF-8"),
        ("include 'included.gin'\n", "configuration: included.gin: Couldn't parse statement"),
        (f"train.checkpoint_minutes = {'9' * 400}\n", "checkpoint_minutes"),
    ],
)
def test_a_slip_in_a_file_is_an_error_of_ours(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slip.gin").write_text(text, encoding="latin-1")
    (tmp_path / "included.gin").write_text("bla(\n")
    with pytest.raises(UserError, match=re.escape(words)):
        config.parse_gin(["slip.gin"], [])
        config.recipe()


def test_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "mine.gin").write_bytes(b"\xef\xbb\xbftrain.steps = 3\n")
    config.parse_gin([str(tmp_path / "mine.gin")], [])
    assert config.recipe().train.steps == 3
