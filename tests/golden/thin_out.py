"""Make the copy of this folder from a full set: python tests/golden/thin_out.py <folder of the full set>."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from golden_set import COPY, FILES

# file -> {array: steps}; () leaves the array out, as it does those whose name starts so in _LEFT_OUT. The rest is
# copied whole.
_LEVELS = {"P3": (), "P4": (1, 3, 3, 8), "P5": (1, 2, 2, 8), "P6": (1, 1, 1, 32), "P7": (1, 1, 1, 16)}
_HEADS = {
    "regression": (1, 29, 1),
    "classification": (1, 19, 1),
    "decoded_clipped_boxes": (1, 29, 1),
    "masks_top20": (1, 6, 2, 2, 1),
    "rois_top8_slice": (1, 3, 2, 2, 2),
    "anchors_in_graph": (11, 1),
}
_THINNED = {
    "anchors": {
        f"{case}_rows": (3, 1)
        for case in (
            "default_876x1876",
            "default_96x128",
            "default_101x67",
            "default_333x500",
            "custom_ini_96x128",
            "custom_ini_333x500",
            "custom_p345_120x155",
        )
    },
    "csv_generator/all_empty": {"image_batch": ()},
    "csv_generator/mixed": {"image_batch": (1, 11, 11, 1), "anno0": (1, 9, 1)},
    "csv_generator/same_custom_anchors": {"anno0": (1, 9, 1)},
    "csv_generator/same_resized": {"image_batch": (1, 11, 11, 1), "anno0": (1, 9, 1)},
    "csv_generator/same_transformed": {"image_batch": (1, 11, 11, 1), "anno0": (1, 9, 1)},
    "csv_generator/same_unscaled": {"image_batch": (1, 3, 3, 1)},
    "csv_generator/same_unscaled_targets_plus1_iou": {"anno0": (1, 3, 1)},
    "model/forward_even": {"x": (), **_HEADS, **_LEVELS},
    "model/forward_even_conv1_same": _HEADS,
    "model/forward_odd": {
        **_HEADS,
        "regression": (1, 49, 1),
        "classification": (1, 39, 1),
        "decoded_clipped_boxes": (1, 49, 1),
        "P3_slice": (1, 2, 2, 1),
        "C2_slice": (1, 4, 4, 1),
        "C3_slice": (1, 2, 2, 1),
    },
}
_LEFT_OUT = {
    "layers/roialign": ("a_",),
    "losses/mask": ("normal_", "iou_07", "rows_but_all_padding"),
    "model/forward_even": ("conv1_relu_", "C2_", "C3_", "C4_", "C5_"),
    "model/forward_even_conv1_same": ("C2_", "C3_", "C4_", "C5_channel_mean", "P3_", "P4_", "P5_channel_mean"),
}


def _thin_out(source: Path, target: Path, steps: dict, left_out):
    out = {}
    with np.load(source) as arrays:
        for key in arrays.files:
            if key.startswith(left_out):
                continue
            if steps.get(key) is None:
                out[key] = arrays[key]
            elif steps[key]:
                name = f"{key}@{','.join(map(str, steps[key]))}"
                out[name] = arrays[key][tuple(slice(None, None, step) for step in steps[key])]
    np.savez_compressed(target, **out)


def main(full: Path):
    """Write the copy."""
    for name in FILES:
        target = COPY / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".json"):
            text = json.dumps(json.loads((full / name).read_text()), separators=(",", ":"))
            target.write_text(text + "\n")
        else:
            file = name[: -len(".npz")]
            _thin_out(full / name, target, _THINNED.get(file, {}), _LEFT_OUT.get(file, ()))
    shutil.copytree(full / "csv_generator/dataset", COPY / "csv_generator/dataset", dirs_exist_ok=True)
    total = sum(path.stat().st_size for path in COPY.rglob("*") if path.is_file() and path.suffix != ".pyc")
    print(f"{total / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
