"""What is planned for ten data sets, the settings that follow from each, and what a rule says at its borders."""

import dataclasses
import functools
import pathlib

import gin
import numpy as np
import pytest
from planning.made_up_sets import BARE_CPU, CPU, DATA_SETS, GPU, TPU, made_up

from tpu_retinamask import config
from tpu_retinamask.planning.rules import canvas_rule, plan_network
from tpu_retinamask.planning.schedule import Speed, plan_schedule

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "planning.md"
CELLS = made_up(140, (256, 256), side=16, counts=(5, 130), turnable=True)


@functools.cache
def planned(name):
    found, machine, minutes, step = DATA_SETS[name]
    network = plan_network(found, machine)
    schedule = plan_schedule(
        minutes,
        Speed(step, 30.0, 60.0),
        images=found.images,
        validation=found.validation,
        batch_size=network.settings["train.batch_size"],
    )
    return network + schedule


@pytest.fixture
def own_gin():
    yield
    gin.clear_config()


@pytest.mark.ci
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if number % 3 else ()) for number, name in enumerate(DATA_SETS)]
)
def test_every_plan_is_a_recipe(name, own_gin):
    plan = planned(name)
    assert len(plan.settings) == len(plan.lines), "a setting is given twice"
    config.parse_gin([], [], planned=plan.to_gin(20, ("About it.",)))
    recipe = config.recipe()
    parts = {part: getattr(recipe, field) for field, part in config.PARTS.items()}
    parts["Augmentation"] = recipe.pipeline.augmentation
    for setting, value in plan.settings.items():
        owner, field = setting.split(".")
        if value != "@Augmentation()":
            assert getattr(parts[owner], field) == value, setting


def test_the_table_of_the_documentation_is_what_is_planned():
    text = DOCUMENT.read_text()
    for name in DATA_SETS:
        assert table_row(name) in text, table_row(name)


def table_row(name):
    """Return a row of docs/planning.md."""
    (found, machine, minutes, _), settings = DATA_SETS[name], planned(name).settings
    height, width = settings["InputPipeline.image_size"]
    cells = (
        name,
        f"{found.images}, {found.sizes[0, 1]} x {found.sizes[0, 0]}",
        f"{machine.device.upper()} {minutes}",
        f"{width} x {height}",
        f"{settings['RetinaMask.backbone'].replace('efficientnet_lite0', 'Lite0')}",
        f"{settings['RetinaMask.anchor_sizes'][0]:.0f} x {len(settings['RetinaMask.anchor_scales'])}; "
        f"{', '.join(map(str, settings['RetinaMask.anchor_ratios']))}",
        f"{settings['Criterion.positive_iou']}",
        f"{settings['InputPipeline.max_instances']}, {settings['Criterion.mask_rois']}",
        "turns" if "Augmentation.rot90" in settings else "mirrors" if settings["Augmentation.horizontal_flip"] else "-",
        f"{settings['train.batch_size']}",
        f"{settings['train.steps']}",
    )
    return f"| {' | '.join(cells)} |"


def test_cells_get_the_settings_that_the_demo_was_tuned_to():
    settings = plan_network(CELLS, BARE_CPU).settings
    assert settings["InputPipeline.image_size"] == (512, 512)  # twice the picture
    assert settings["RetinaMask.backbone"] == "small" and settings["RetinaMask.normalization"] == "group"
    assert settings["InputPipeline.max_instances"] == 130
    assert settings["DetectionFilter.max_detections"] == 200
    assert settings["Augmentation.rot90"] == 0.75


def test_weights_that_are_installed_bring_what_they_were_trained_with():
    settings = plan_network(CELLS, CPU).settings
    assert settings["RetinaMask.backbone"] == "efficientnet_lite0" and settings["train.weights"] == "imagenet"
    assert settings["RetinaMask.pixel_mode"] == "tf" and settings["RetinaMask.backbone_options"] == {
        "trained_side": 224
    }


def test_pictures_without_colours_are_not_those_of_imagenet():
    grey = dataclasses.replace(CELLS, colours=0.49)
    settings = plan_network(grey, CPU).settings
    assert settings["RetinaMask.backbone"] == "small" and "train.weights" not in settings
    assert "train.jit_compile" not in settings and "make_optimizer.backbone_rate" not in settings
    assert "pip install" not in " ".join(plan_network(grey, BARE_CPU).unsure)  # they would not be taken
    for colours in (0.5, None):
        seen = dataclasses.replace(CELLS, colours=colours)
        assert plan_network(seen, CPU).settings["RetinaMask.backbone"] == "efficientnet_lite0"


@pytest.mark.parametrize(
    ("side", "long_side", "device", "expected"),
    [
        (5.0, 1000, CPU, 512),  # 20 pixels of 5 would want 4000: the CPU's most
        (5.0, 1000, GPU, 1024),
        (100.0, 1000, CPU, 320),  # 20 pixels of 100 would do with 200: the least
        (50.0, 1000, CPU, 448),  # 20 pixels of 50: 400, up to the next 64
        (5.0, 200, CPU, 448),  # twice the picture, 400, up to the next 64
        (5.0, 100, CPU, 320),
    ],
)
def test_the_canvas_shows_small_objects_at_twenty_pixels(side, long_side, device, expected):
    found = made_up(30, (long_side, long_side), side=side)
    boxes = np.tile([0.0, 0.0, side, side], (len(found.boxes), 1))
    found = dataclasses.replace(found, boxes=boxes)
    assert canvas_rule(found, device).settings["InputPipeline.image_size"] == (expected, expected)


def test_a_canvas_has_the_shape_of_pictures_that_are_alike():
    wide = made_up(30, (720, 1280), side=300)
    assert canvas_rule(wide, CPU).settings["InputPipeline.image_size"] == (192, 320)
    tall = made_up(30, (1280, 720), side=300)
    assert canvas_rule(tall, CPU).settings["InputPipeline.image_size"] == (320, 192)
    # Pictures that may be turned, few ones, and those of both orientations get a square.
    for square in (
        made_up(30, (720, 1280), side=300, turnable=True),
        made_up(19, (720, 1280), side=300),
        made_up(30, (720, 1280), side=300, other_shapes=0.4),
    ):
        assert canvas_rule(square, CPU).settings["InputPipeline.image_size"] == (320, 320)


def test_a_backbone_that_is_given_gets_what_suits_it():
    small = plan_network(CELLS, CPU, backbone="small").settings
    assert small["RetinaMask.normalization"] == "group" and small["RetinaMask.head_channels"] == 64
    assert not {"RetinaMask.backbone_options", "train.weights", "train.jit_compile"} & small.keys()
    other = plan_network(CELLS, CPU, backbone="resnet50")
    assert not [name for name in other.settings if "backbone" in name or "head" in name or name == "train.weights"]
    assert "RetinaMask.anchor_sizes" in other.settings
    assert any("the backbone 'resnet50'" in sentence for sentence in other.unsure)


def test_anchors_fit_a_canvas_that_is_given():
    settings = plan_network(CELLS, CPU, (256, 256)).settings
    assert "InputPipeline.image_size" not in settings
    wider = plan_network(CELLS, CPU).settings["RetinaMask.anchor_sizes"]
    assert settings["RetinaMask.anchor_sizes"][0] < wider[0]


def test_no_mirror_for_characters():
    plates = made_up(30, (200, 600), side=60, classes=list("01"))
    assert plan_network(plates, CPU).settings["Augmentation.horizontal_flip"] == 0.0
    assert plan_network(CELLS, CPU).settings["Augmentation.horizontal_flip"] == 0.5


def test_the_step_is_compiled_where_that_is_quicker():
    assert plan_network(CELLS, CPU).settings["train.jit_compile"] is False  # depthwise convolutions are not
    assert "train.jit_compile" not in plan_network(CELLS, BARE_CPU).settings
    assert "train.jit_compile" not in plan_network(CELLS, GPU).settings
    assert plan_network(CELLS, TPU).settings["train.batch_size"] == 64


def test_pictures_that_fill_the_memory_are_not_kept():
    little = dataclasses.replace(CPU, memory=10_000_000)
    assert plan_network(CELLS, little).settings["InputPipeline.cache"] is False
    assert plan_network(CELLS, CPU).settings["InputPipeline.cache"] == "decoded"


def test_what_no_rule_can_know_is_told():
    stars = " ".join(planned("a thousand stars").unsure)
    assert "300 of them are trained at a time" in stars and "predict.tile" in stars
    assert "pip install" in " ".join(planned("digits on plates").unsure)
    assert "boxes alone are learnt" in " ".join(planned("faults without masks").unsure)
