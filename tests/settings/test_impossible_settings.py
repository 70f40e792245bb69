"""Every setting that cannot be is refused by its name before a file is opened: those of the classes and of programs."""

import gin
import pytest

from tpu_retinamask import config
from tpu_retinamask.errors import SettingError, UserError
from tpu_retinamask.programs import benchmark, benchmark_input, convert, evaluate, predict, prepare, tpu_check
from tpu_retinamask.programs.command_line import parse
from tpu_retinamask.programs.own_settings import checked

POSITIVE, NOT_NEGATIVE = "expected more than 0", "expected 0 or more"
# Setting, as it is typed: words of the message.
IMPOSSIBLE = {
    "train.batch_size = 0": f"train: batch_size is 0, {POSITIVE}",
    "train.batch_size = 2.0": "train: batch_size is 2.0, expected a whole number",
    "train.steps = 0": f"train: steps is 0, {POSITIVE}",
    "train.epochs = '3'": "train: epochs is '3', expected a number",
    "train.epochs = 1e999": "train: epochs is inf, expected a number",
    "train.seed = None": "train: seed is None, expected a whole number",
    "train.seed = -1": "train: seed is -1, expected a number from 0 to 4.29497e+09",
    "train.log_every = 0": f"train: log_every is 0, {POSITIVE}",
    "train.keep_checkpoints = 0": f"train: keep_checkpoints is 0, {POSITIVE}",
    "train.checkpoint_every = 'never'": "train: checkpoint_every is 'never', expected a whole number",
    "train.accumulate_steps = 3": "train: accumulate_steps is 3, expected a divisor of the 8 images of a step",
    "train.jit_compile = 'yes'": "train: jit_compile is 'yes', expected True or False",
    "train.on_bad_record = 'ignore'": "train: on_bad_record is 'ignore', expected one of 'stop', 'skip' or None",
    "source.exif_orientation = 6": "source: exif_orientation is 6, expected one of 'refuse', 'ignore', 'apply'",
    "InputPipeline.image_size = 128": "InputPipeline: image_size is 128, expected 2 values, each a whole number",
    "InputPipeline.image_size = (0, 128)": "InputPipeline: image_size is (0, 128), expected positive numbers",
    "InputPipeline.num_parallel_calls = 0": "InputPipeline: num_parallel_calls is 0, expected 1 or more",
    "InputPipeline.prefetch = -7": "InputPipeline: prefetch is -7, expected -1 or more",
    "InputPipeline.cache = 'disk'": "InputPipeline: cache is 'disk', expected 'files'",
    "make_optimizer.learning_rate = 0": f"make_optimizer: learning_rate is 0, {POSITIVE}",
    "make_optimizer.learning_rate = '1e-3'": "make_optimizer: learning_rate is '1e-3', expected a number",
    "make_optimizer.momentum = 1.5": "make_optimizer: momentum is 1.5, expected a number from 0 to 1",
    "make_optimizer.weight_decay = -1": f"make_optimizer: weight_decay is -1, {NOT_NEGATIVE}",
    "make_optimizer.warmup_steps = -1": f"make_optimizer: warmup_steps is -1, {NOT_NEGATIVE}",
    "make_optimizer.decay_at = (2, 3)": "make_optimizer: decay_at is (2, 3), expected a number from 0 to 1",
    "Criterion.positive_iou = 5": "Criterion: positive_iou is 5, expected a number from 0 to 1",
    "Criterion.negative_iou = 0.9": "Criterion: negative_iou is 0.9, expected positive_iou = 0.5 or less",
    "Criterion.focal_gamma = -2": f"Criterion: focal_gamma is -2, {NOT_NEGATIVE}",
    "Criterion.mask_rois = 0": f"Criterion: mask_rois is 0, {POSITIVE}",
    "Criterion.box_weight = -1": f"Criterion: box_weight is -1, {NOT_NEGATIVE}",
    "DetectionFilter.score_threshold = 5": "DetectionFilter: score_threshold is 5, expected a number from 0 to 1",
    "DetectionFilter.nms_iou = -1": "DetectionFilter: nms_iou is -1, expected a number from 0 to 1",
    "DetectionFilter.max_detections = 0": "DetectionFilter: max_detections is 0, expected 1 or more",
    "RetinaMask.backbone = 'resnet99'": "RetinaMask: backbone 'resnet99' is not one of",
    "RetinaMask.normalization = 'layer'": "RetinaMask: normalization 'layer' is not one of",
    "RetinaMask.freeze = '['": "RetinaMask: freeze holds '[', expected regular expressions",
    "RetinaMask.roi_levels = 9": "RetinaMask: roi_levels is 9, expected 5 or less",
    "RetinaMask.fpn_channels = 0": "RetinaMask: fpn_channels is 0, expected 1 or more",
    "RetinaMask.frozen_stages = -1": f"RetinaMask: frozen_stages is -1, {NOT_NEGATIVE}",
}
OF_AUGMENTATION = {
    "horizontal_flip = 2": "Augmentation: horizontal_flip is 2, expected a number from 0 to 1",
    "brightness = -1": "Augmentation: brightness is -1, expected 0 or more",
    "fill = 'white'": "Augmentation: fill is 'white', expected 'nearest' or 'zero'",
}


@pytest.fixture(autouse=True)
def no_settings():
    """Leave gin as it was found."""
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.mark.parametrize("setting", IMPOSSIBLE)
def test_a_setting_of_a_class_is_refused(setting):
    config.parse_gin([], [setting])
    with pytest.raises(SettingError) as error:
        config.recipe()
    assert IMPOSSIBLE[setting] in str(error.value)


@pytest.mark.parametrize("setting", OF_AUGMENTATION)
@pytest.mark.parametrize("used", [True, False])
def test_a_change_that_cannot_be_is_refused_whether_it_is_used_or_not(setting, used):
    config.parse_gin(
        [], [f"InputPipeline.augmentation = {'@Augmentation()' if used else None}", f"Augmentation.{setting}"]
    )
    with pytest.raises(SettingError) as error:
        config.recipe()
    assert OF_AUGMENTATION[setting] in str(error.value)


def test_changes_that_nothing_uses_are_refused_with_the_flag_that_does():
    with pytest.raises(UserError, match=r'add --gin_param="InputPipeline.augmentation=@Augmentation\(\)"'):
        config.parse_gin([], ["Augmentation.vertical_flip = 0.5"])
    config.parse_gin([], ["Augmentation.vertical_flip = 0.5", "InputPipeline.augmentation=@Augmentation()"])
    assert config.recipe().pipeline.augmentation.vertical_flip == 0.5


def _run(program, *arguments):
    flags, modes = parse(program.__name__.rpartition(".")[2], arguments)
    program.run(flags, *modes)


# The files of these flags do not exist: whatever is refused first was asked first.
NOWHERE = ("--annotations=/nowhere/a.csv", "--classes=/nowhere/c.csv")
RUNS = {
    "evaluate": (evaluate, (NOWHERE[0], "--model_dir={run}")),
    "predict": (predict, ("--images=/nowhere/*.png", "--model_dir={run}", "--output_dir=/nowhere/out")),
    "prepare": (prepare, (*NOWHERE, "--data_dir=/nowhere/d")),
    "convert": (convert, ("csv", *NOWHERE, "--output=/nowhere/o.json")),
    "benchmark": (benchmark, ("--mode=jit",)),
    "benchmark_input": (benchmark_input, NOWHERE),
    "tpu_check": (tpu_check, ("--topology=v5e", "--lowering=host")),
}
OF_PROGRAMS = {
    "evaluate.batch_size = 0": "expected 1 or more",
    "evaluate.jit_compile = 'no'": "expected True or False",
    "evaluate.on_bad_record = 'ignore'": "expected one of 'stop', 'skip'",
    "predict.batch_size = 0": "expected 1 or more",
    "predict.batch_size = '4'": "expected a whole number",
    "predict.draw_above = 50": "expected a number from 0 to 1",
    "prepare.images_per_shard = 0": "expected 1 or more",
    "prepare.threads = -1": "expected 1 or more",
    "convert.threads = 0": "expected 1 or more",
    "benchmark.image_size = (0, 64)": "expected 1 or more",
    "benchmark.steps = 0": "expected 1 or more",
    "benchmark_input.batches = 0": "expected 1 or more",
    "tpu_check.replicas = 0": "expected 1 or more",
}


@pytest.mark.parametrize("setting", OF_PROGRAMS)
def test_a_setting_of_a_program_is_refused_before_anything_is_opened(setting, tmp_path):
    (tmp_path / "config.gin").write_text("RetinaMask.backbone = 'small'\n")
    name, value = setting.split(" = ")
    program, flags = RUNS[name.split(".")[0]]
    with pytest.raises(SettingError) as error:
        _run(program, *(flag.format(run=tmp_path) for flag in flags), f"--gin_param={setting}")
    assert f"{name} is {value}, {OF_PROGRAMS[setting]}" in str(error.value)


@pytest.mark.parametrize("program", ["evaluate", "predict", "prepare", "benchmark_input"])
def test_a_setting_of_a_class_is_refused_before_anything_is_opened(program, tmp_path):
    (tmp_path / "config.gin").write_text("RetinaMask.backbone = 'small'\n")
    module, flags = RUNS[program]
    with pytest.raises(SettingError, match="crowds is 3, expected one of 'leave_out', 'objects'"):
        _run(module, *(flag.format(run=tmp_path) for flag in flags), "--gin_param=source.crowds = 3")


def test_what_is_checked_is_what_the_function_gets():
    @checked(count=(1, 3))
    def named_like_a_program(place, *, count: int = 2, share: float | None = None):
        return place, count, share

    assert named_like_a_program("here") == ("here", 2, None)
    assert named_like_a_program("here", count=3, share=0) == ("here", 3, 0)
    for wrong, message in (
        ({"count": 4}, "named_like_a_program.count is 4, expected a number from 1 to 3"),
        ({"share": "x"}, "named_like_a_program.share is 'x', expected a number or None"),
    ):
        with pytest.raises(SettingError, match=message):
            named_like_a_program("here", **wrong)
