"""The golden numbers as tests read them: from the folder that GOLDEN_DIR names, or from the copy beside this file.

The copy holds some arrays thinned out: `key@1,4,1` are the elements [::1, ::4, ::1] of `key`. Comparing through
`Arrays.compare` hides the difference.
"""

import json
import os
from pathlib import Path

import numpy as np

COPY = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("GOLDEN_DIR") or COPY).resolve()
IS_COPY = FOLDER == COPY

# What the copy holds, and any other set at least.
FILES = (
    "anchors.json",
    "anchors.npz",
    "csv_generator/all_empty.npz",
    "csv_generator/all_empty_targets_plus1_iou.npz",
    "csv_generator/info.json",
    "csv_generator/info_plus1_iou.json",
    "csv_generator/mixed.npz",
    "csv_generator/same_custom_anchors.npz",
    "csv_generator/same_resized.npz",
    "csv_generator/same_transformed.npz",
    "csv_generator/same_unscaled.npz",
    "csv_generator/same_unscaled_targets_plus1_iou.npz",
    "evaluation/expected.json",
    "evaluation/inputs.npz",
    "layers/filter_detections.json",
    "layers/filter_detections.npz",
    "layers/roialign.npz",
    "layers/upsample.npz",
    "losses/focal.npz",
    "losses/focal_old_label_rule.json",
    "losses/losses.json",
    "losses/mask.npz",
    "losses/smooth_l1.npz",
    "model/forward_even.npz",
    "model/forward_even_conv1_same.npz",
    "model/forward_odd.npz",
    "model/h5_weights_layout.json",
    "model/info_krn010.json",
    "model/info_krn020.json",
    "model/train_step.json",
    "model/train_step.npz",
    "model/weights_manifest.json",
)


class Arrays:
    """The arrays of one .npz file, whole or thinned out."""

    def __init__(self, name: str):
        """Open `name`, a path inside the folder without its suffix."""
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
            self._arrays = {key: file[key] for key in file.files}
        self._steps = {key.split("@")[0]: key for key in self._arrays if "@" in key}

    def __contains__(self, key):
        return key in self._arrays or key in self._steps

    def __getitem__(self, key):
        return self._arrays[key]

    def keys(self):
        """Return the names of the arrays, whole or not."""
        return [key.split("@")[0] for key in self._arrays]

    def part(self, key, value):
        """Return (value, expected), both thinned out alike.

        Raises:
          KeyError: there is no such array.
        """
        value = np.asarray(value)
        if key not in self._steps:
            return value, self._arrays[key]
        stored = self._steps[key]
        steps = [int(step) for step in stored.split("@")[1].split(",")]
        assert value.ndim == len(steps), (key, value.shape, steps)
        return value[tuple(slice(None, None, step) for step in steps)], self._arrays[stored]

    def compare(self, key, value, *, atol=0.0, rtol=0.0):
        """Assert that `value` equals the array of that name, within atol + rtol * |expected|; both 0: exactly."""
        value, expected = self.part(key, value)
        if not np.any(atol) and rtol == 0:
            np.testing.assert_array_equal(value, expected, err_msg=key)
        else:
            assert_close(value, expected, atol=atol, rtol=rtol, name=key)


def assert_close(value, expected, *, atol=0.0, rtol=0.0, name=""):
    """Assert equality within atol + rtol * |expected|, and equal shapes."""
    value, expected = np.asarray(value), np.asarray(expected)
    assert value.shape == expected.shape, (name, value.shape, expected.shape)
    if np.ndim(atol):  # a tolerance each
        value, expected, atol = value / atol, expected / atol, 1.0
    np.testing.assert_allclose(value, expected, atol=atol, rtol=rtol, err_msg=name)


def values(name: str):
    """Return the content of `name`.json."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def present(names, pattern="{}.npz") -> list:
    """Return those names whose file is there; the list FILES says which must be."""
    return [name for name in names if (FOLDER / pattern.format(name)).exists()]


def cases(arrays: Arrays, names, suffix: str) -> list:
    """Return those names that the file has arrays of, `<name><suffix>`."""
    return [name for name in names if name + suffix in arrays]


def crop_to_boxes(masks, boxes, side):
    """Return masks [B, M, H, W] cropped to their boxes [B, M, 4] as the input pipeline does, [B, M, side, side]."""
    steps = (np.arange(side) + 0.5) / side
    crops = np.zeros((*masks.shape[:2], side, side), np.uint8)
    for b, m in np.ndindex(*masks.shape[:2]):
        x1, y1, x2, y2 = boxes[b, m]
        rows, columns = (y1 + steps * (y2 - y1)).astype(int), (x1 + steps * (x2 - x1)).astype(int)
        crops[b, m] = masks[b, m][np.ix_(rows, columns)]
    return crops


def make_weights(manifest: dict) -> dict:
    """Return {(layer, weight): float32 array} drawn as the manifest says."""
    import zlib

    weights = {}
    for entry in manifest["tensors"]:
        layer, weight, shape, kind = entry["layer"], entry["weight"], tuple(entry["shape"]), entry["kind"]
        seed = zlib.crc32((manifest["salt"] + layer + "/" + weight).encode()) & 0xFFFFFFFF
        assert seed == entry["seed"], f"{layer}/{weight}: the seed is not that of the formula"
        rng = np.random.RandomState(seed)
        if kind == "kernel":
            array = rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[:-1])), size=shape) * entry["scale"]
        elif kind == "prior_bias":
            array = np.full(shape, -np.log((1 - 0.01) / 0.01))
        else:
            draw = {
                "bias": (rng.normal, 0.0, 0.01),
                "bn_gamma": (rng.uniform, 0.5, 1.5),
                "bn_beta": (rng.normal, 0.0, 0.1),
                "bn_moving_mean": (rng.normal, 0.0, 0.1),
                "bn_moving_variance": (rng.uniform, 0.5, 1.5),
            }[kind]
            array = draw[0](draw[1], draw[2], size=shape)
        weights[layer, weight] = array = array.astype(np.float32)
        np.testing.assert_allclose(
            array.astype(np.float64).sum(), entry["float64_sum"], rtol=1e-9, atol=1e-9, err_msg=f"{layer}/{weight}"
        )
    return weights
