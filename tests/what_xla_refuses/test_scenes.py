"""What makes a batch unlike others: one program, traced once, serves every scene."""

import pathlib
import re

import pytest
from what_xla_refuses.support import (
    MUCH_FOUND,
    ODD_CANVAS,
    SCENES,
    as_floats,
    assert_same_step,
    finite,
    largest_gradient,
    scene,
    set_class_bias,
)

# -- the whole step, in every scene ----------------------------------------------------------------


@pytest.mark.parametrize("name", SCENES)
def test_the_compiled_step_is_the_plain_step_in_every_scene(runs, name):
    """All rows: losses and every gradient of the compiled step are finite and those of the plain step."""
    assert_same_step(runs.scenes[name].compiled, runs.scenes[name].plain)


def test_one_program_serves_every_scene(runs):
    """All rows: with boxes or without, nothing changes a shape, so nothing is traced again."""
    assert runs.traces == 1


@pytest.mark.parametrize("name", ["no boxes", "no boxes and no scores"])
def test_no_boxes_in_the_batch(runs, name):
    """All rows: boxes and masks have nothing to learn, exactly; classes learn that there is nothing."""
    metrics, gradients = runs.scenes[name].compiled
    for metric in ("box_loss", "mask_loss", "num_positive", "mask_rois"):
        assert metrics[metric] == 0.0, metric
    assert largest_gradient(gradients, "roi_mask") == largest_gradient(gradients, "pyramid_regression") == 0.0
    assert metrics["class_loss"] > 0.0 and largest_gradient(gradients, "pyramid_classification") > 0.0


def test_every_image_of_the_batch_empty(runs):
    """All rows: images that only fill up a batch leave no trace in the weights."""
    metrics, gradients = runs.scenes["every image empty"].compiled
    assert metrics["loss"] == metrics["gradient_norm"] == 0.0
    assert largest_gradient(gradients, "") == 0.0


def test_boxes_without_masks_train_no_mask(runs):
    """All rows: a box whose mask is not known is trained as a box."""
    metrics, gradients = runs.scenes["boxes without masks"].compiled
    assert metrics["mask_loss"] == metrics["mask_rois"] == largest_gradient(gradients, "roi_mask") == 0.0
    with_masks = runs.scenes["objects"].compiled[0]
    assert metrics["box_loss"] == with_masks["box_loss"] > 0.0


def test_one_pixel_boxes_train(runs):
    """All rows: the smallest boxes are matched, their masks cropped, and no logarithm or ratio runs away."""
    metrics, gradients = runs.scenes["one-pixel boxes"].compiled
    assert metrics["num_positive"] >= 9 and metrics["mask_rois"] >= 9
    assert metrics["box_loss"] > 0.0 and metrics["mask_loss"] > 0.0
    assert largest_gradient(gradients, "pyramid_regression") > 0
    assert largest_gradient(gradients, "roi_mask") > 0


@pytest.mark.slow  # in the forward pass: test_golden_forward
def test_odd_pyramid_sizes(step):
    """Row "ResizeNearestNeighborGrad", ours, in the whole step: levels of 13x17, 7x9, 4x5, 2x3 and 1x2 cells.

    The compiled step gets floats and the plain one bytes, so that it also answers "uint8 vs float32".
    """
    batch = scene(4, canvas=ODD_CANVAS, rows=4)
    set_class_bias(step.model, MUCH_FOUND)
    features = step.model(batch.image).features
    assert [tuple(level.shape[1:3]) for level in features] == [(13, 17), (7, 9), (4, 5), (2, 3), (1, 2)]
    result = step.compiled(as_floats(batch))
    assert_same_step(result, step.plain(batch))
    for part in ("backbone", "C5_reduced", "P3/", "P7/", "roi_mask"):
        assert largest_gradient(finite(result)[1], part) > 0, part


# -- the table -------------------------------------------------------------------------------------


def test_the_table_names_every_test():
    """Each test stands in the table of docs/what_xla_refuses.md, and each name there is a test here."""
    here = pathlib.Path(__file__).parent
    table = here.parents[1] / "docs" / "what_xla_refuses.md"
    named = set(re.findall(r"`(test_\w+)`", table.read_text(encoding="utf-8")))
    tests = {
        name
        for path in here.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
    }
    assert named == tests - {"test_the_table_names_every_test"}
