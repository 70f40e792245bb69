"""Trained on directly, as three tools write it, one set gives the same weights to the bit."""

import numpy as np
import pytest
import tensorflow as tf
from programs.conftest import TINY
from reference.tool_writers import written


@pytest.mark.slow  # fast, and of all formats: the batches, in test_formats_agree
def test_three_formats_train_the_same_network_to_the_bit(quick_program, tmp_path):
    found = {}
    for name in ("via2 json", "cvat", "labelstudio"):
        (tmp_path / name).mkdir()
        path, kind = written(name, tmp_path / name)
        run = tmp_path / name / "run"
        done = quick_program(
            "train",
            f"--annotations={path}",
            f"--model_dir={run}",
            gin=[*TINY, "train.steps = 3", "train.batch_size = 2"],
        )
        assert done.returncode == 0 and f"read as {kind}" in done.stderr, done.stderr[-3000:]
        reader = tf.train.load_checkpoint(str(run / "checkpoints" / "ckpt-3"))
        found[name] = {
            key: reader.get_tensor(key)
            for key in reader.get_variable_to_shape_map()
            if key.endswith("VARIABLE_VALUE") and "save_counter" not in key
        }
    first = found.pop("cvat")
    assert len(first) > 100
    for name, other in found.items():
        assert [key for key in first if not np.array_equal(first[key], other[key])] == [], name
