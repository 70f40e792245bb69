"""Every mistake of a user's ends with code 2 and one message that says what to do, without a traceback."""

import re

import pytest

# name: (program, flags, gin settings, words of the message). {shapes} is the data, {run} a trained directory.
TRAIN = ("--annotations={shapes}/train.csv", "--classes={shapes}/classes.csv", "--model_dir={empty}/run")
PREDICT = ("--model_dir={run}", "--output_dir={empty}/out")
MISTAKES = {
    "missing csv": ("train", ("--annotations={shapes}/trian.csv", *TRAIN[1:]), (), ["trian.csv"]),
    "missing classes": ("train", (TRAIN[0], "--classes={shapes}/clases.csv", TRAIN[2]), (), ["clases.csv"]),
    "unknown class": (
        "train",
        ("--annotations={empty}/bad.csv", *TRAIN[1:]),
        (),
        ["bad.csv, line 1", "'circle'", "disc"],
    ),
    "missing image": (
        "train",
        ("--annotations={empty}/lost.csv", *TRAIN[1:]),
        ("canvas",),
        ["line 1, gone.png", "no such file"],
    ),
    "unknown gin file": ("train", (*TRAIN, "--gin_file=model/smal.gin"), (), ["model/smal.gin", "recipe/small.gin"]),
    "unknown gin name": ("train", TRAIN, ("RetinMask.backbone = 'small'",), ["RetinMask"]),
    "misspelt parameter": ("train", TRAIN, ("RetinaMask.bakbone = 'small'",), ["RetinaMask", "bakbone"]),
    "misspelt parameter of the program": ("train", TRAIN, ("train.bach_size = 3",), ["train", "bach_size"]),
    "value out of range": ("train", TRAIN, ("canvas", "RetinaMask.backbone = 'resnet99'"), ["resnet99", "resnet50"]),
    "no canvas": ("train", TRAIN, ("canvas", "InputPipeline.image_size = (0, 128)"), ["image_size", "positive"]),
    "evaluate without a run": (
        "evaluate",
        ("--annotations={shapes}/val.csv", "--model_dir={empty}"),
        (),
        ["{empty}", "no training was started there"],
    ),
    "evaluate with nothing": ("evaluate", (), (), ["--annotations and --model_dir", "--predictions and --coco_json"]),
    "half of the files": ("evaluate", ("--predictions=p.json",), (), ["--predictions and --coco_json go together"]),
    "other classes": (
        "evaluate",
        ("--annotations={shapes}/val.csv", "--classes={empty}/classes.csv", PREDICT[0]),
        (),
        ["differs from the classes", "disc"],
    ),
    "predict without a run": (
        "predict",
        ("--images={shapes}/one.png", "--model_dir={empty}", PREDICT[1]),
        (),
        ["{empty}", "no training was started there"],
    ),
    "no such checkpoint": (
        "predict",
        ("--images={shapes}/one.png", *PREDICT, "--checkpoint=bset"),
        (),
        ["--checkpoint=bset", "best or the number of a step"],
    ),
    "glob without match": ("predict", ("--images={shapes}/*.tif", *PREDICT), (), ["*.tif", "no file matches"]),
    "not an image": ("predict", ("--images={shapes}/train.csv", *PREDICT), (), ["train.csv"]),
}
CANVAS = ["InputPipeline.image_size = (128, 128)", "RetinaMask.backbone = 'small'"]


@pytest.fixture(scope="module")
def places(trained, shapes, tmp_path_factory):
    """The folders that flags name, one of them with files that are wrong."""
    empty = tmp_path_factory.mktemp("empty")
    (empty / "bad.csv").write_text(f"{shapes}/one.png,1,1,9,9,circle\n")
    (empty / "lost.csv").write_text("gone.png,1,1,9,9,disc\n")
    (empty / "classes.csv").write_text("square,0\ndisc,1\n")
    return {"shapes": shapes, "run": trained[0], "empty": empty}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_and_ends_with_code_2(quick_program, places, mistake):
    name, flags, settings, words = MISTAKES[mistake]
    gin = [line for setting in settings for line in (CANVAS if setting == "canvas" else [setting])]
    done = quick_program(name, *(flag.format(**places) for flag in flags), gin=gin)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr and "In call to configurable" not in done.stderr
    message = done.stderr[done.stderr.index("error: ") :]
    assert message.count("error: ") == 1
    for word in words:
        assert word.format(**places) in message, message
    assert re.search(r"error: \S", message) and len(message) < 2500


WRONG_FLAGS = {
    "unknown": (
        ["train", "--anotations=a.csv"],
        ["Unknown command line flag 'anotations'", "Did you mean: annotations"],
    ),
    "missing": (["train", "--annotations=a.csv"], ["--model_dir", "must have a value"]),
    "no flag": (["train", *TRAIN, "train.csv"], ["train.csv", "every option is a flag"]),
}
FLAGS = {
    "train": [
        "annotations",
        "classes",
        "model_dir",
        "val_annotations",
        "dry_run",
        "debug",
        "gin_file",
        "gin_param",
        "tpu",
    ],
    "evaluate": ["annotations", "classes", "model_dir", "predictions", "coco_json", "gin_file", "gin_param"],
    "predict": ["images", "model_dir", "output_dir", "gin_file", "gin_param"],
    "benchmark": ["mode", "gin_file", "gin_param"],
    "prepare": ["annotations", "classes", "val_annotations", "data_dir", "verify", "gin_file", "gin_param"],
    "convert": ["instances", "images", "masks", "annotations", "classes", "output", "gin_file", "gin_param"],
}


@pytest.mark.parametrize("mistake", WRONG_FLAGS)
def test_a_wrong_flag_is_named(quick_program, mistake):
    command, words = WRONG_FLAGS[mistake]
    done = quick_program(*command)
    assert done.returncode == 1  # absl's own code
    text = done.stdout + done.stderr
    assert all(word in text for word in words), text
    assert "Traceback" not in text


@pytest.mark.parametrize("name", FLAGS)
def test_help_shows_what_the_program_does_and_its_flags(quick_program, name):
    text = quick_program(name, "--help").stdout
    assert f"python -m tpu_retinamask.{name} " in text  # the docstring's example
    for flag in FLAGS[name]:
        assert re.search(rf"^\s+--(\[no\])?{flag}:\s*\S", text, re.MULTILINE), flag


def test_names_reach_the_terminal_printable_and_short(quick_program, tmp_path):
    (tmp_path / "classes.csv").write_text("c\x1b[31mow\x07,0\n")
    (tmp_path / "t.csv").write_text(
        f"a\x1b[31m.png,1,1,5,5,c\x1b[31mow\x07,\n{'x' * 3_000_000}.png,1,1,5,5,c\x1b[31mow\x07,\n"
    )
    for flags in (
        (f"--annotations={tmp_path}/t.csv", f"--classes={tmp_path}/classes.csv"),
        (f"--annotations={tmp_path}/\x1b[31m.csv",),
        (f"--gin_file=\x07{'x' * 5000}",),
        ("--\x1b[31m",),
    ):
        done = quick_program("inspect_data", *flags)
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr
        assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)
        assert r"\x" in done.stderr and len(done.stderr) < 20_000
