"""Anchors, box coding and clipping equal those of keras-maskrcnn."""

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_set

from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.ops.boxes import CornerBoxCoder, clip_boxes

_INFO = golden_set.values("anchors")


@pytest.fixture(scope="module")
def arrays():
    return golden_set.Arrays("anchors")


def _grid(case):
    options = {key: case.get(key, _INFO["default"][key]) for key in ("sizes", "strides", "ratios", "scales")}
    return AnchorGrid(levels=case["levels"], **options)


@pytest.mark.parametrize("name", sorted(_INFO["cases"]))
def test_anchors(arrays, name):
    case = _INFO["cases"][name]
    grid = _grid(case)
    exact = np.concatenate(grid.anchors_float64(case["image_hw"]))
    assert grid.per_cell == case.get("num_anchors", 9)
    assert len(exact) == case["count"]
    # The original works in float64, from ratios and scales in float32: 1e-9 pixel leaves room for another order
    # of operations. A case without a configuration file passed its own float64 values, which the json records
    # in float32: half a unit in the last place of the longest half side.
    own = "sizes" in case and "ini_file" not in case
    atol = 2**-25 * max(grid.sizes) * max(grid.scales) * max(grid.ratios) if own else 1e-9
    arrays.compare(f"{name}_feature_hw", grid.level_shapes(case["image_hw"]))
    arrays.compare(f"{name}_first", exact[:18], atol=atol)
    arrays.compare(f"{name}_last", exact[-18:], atol=atol)
    arrays.compare(f"{name}_rows", exact[arrays[f"{name}_index"]], atol=atol)
    weights = np.arange(len(exact)) % 1009 + 1
    arrays.compare(f"{name}_sum", exact.sum(0), atol=atol * len(exact))
    arrays.compare(f"{name}_sum_abs", np.abs(exact).sum(0), atol=atol * len(exact))
    arrays.compare(f"{name}_sum_weighted", (exact * weights[:, None]).sum(0), atol=atol * weights.sum())
    # What the network uses is this, rounded once: half a unit in the last place of coordinates up to 4096.
    np.testing.assert_allclose(np.concatenate(grid.anchors(case["image_hw"])), exact, rtol=6e-8, atol=0)


def test_default_grid_is_the_original_s():
    default = AnchorGrid()
    for key in ("sizes", "strides", "ratios", "scales"):
        np.testing.assert_array_equal(np.float32(getattr(default, key)), np.float32(_INFO["default"][key]))


def test_encode(arrays):
    anchors, boxes = tf.constant(arrays["code_anchors"]), tf.constant(arrays["code_boxes"])
    arrays.compare("code_targets", CornerBoxCoder().encode(boxes, anchors), atol=1e-11, rtol=1e-12)  # float64
    mean, std = arrays["code_mean"], arrays["code_std"]
    arrays.compare("code_targets_mean_std", CornerBoxCoder(mean, std).encode(boxes, anchors), atol=1e-11, rtol=1e-12)


def test_decode_and_clip(arrays):
    anchors, deltas = tf.constant(arrays["decode_anchors"]), tf.constant(arrays["decode_deltas"])
    decoded = CornerBoxCoder().decode(deltas, anchors)
    arrays.compare("decoded", decoded, atol=1e-4)  # float32, coordinates of some hundred pixels
    coder = CornerBoxCoder(np.float32(arrays["code_mean"]), np.float32(arrays["code_std"]))
    arrays.compare("decoded_mean_std", coder.decode(deltas, anchors), atol=1e-4)
    # The original clips to the last pixel, [0, W - 1]; the margin is an option here.
    arrays.compare("decoded_clipped", clip_boxes(decoded, tf.constant(arrays["clip_image_hw"] - 1)), atol=1e-4)
