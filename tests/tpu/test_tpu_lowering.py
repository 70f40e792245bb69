"""What the TPU's own kernels and compiler say; needs the TPU build of TensorFlow, jax and libtpu."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.tpu

PLANTED = """
import tensorflow as tf
from tpu_retinamask import config
from tpu_retinamask.programs import tpu_check
from tpu_retinamask.model.losses import Criterion

def cropped(self, logits, rois, batch, batch_size, num_regions):
    crops = tf.image.crop_and_resize(tf.cast(batch.image, tf.float32), [[0.0, 0.0, 1.0, 1.0]], [0], [7, 7])  # planted
    return tf.reduce_sum(logits) + tf.reduce_sum(crops)

Criterion.mask_loss = cropped
{before}
config.parse_gin(["recipe/small.gin"], ["InputPipeline.image_size = (64, 64)", "tpu_check.batch_per_core = 1"])
row, = tpu_check.tpu_check(["v5e"], "unused")
print(row["lowered"], row["reason"])
"""


@pytest.mark.parametrize("before", ["", "tpu_check.audit.check = lambda traced: None"], ids=["audit", "lowering"])
def test_a_planted_operation_is_refused_by_name_and_line(before, tmp_path):
    script = tmp_path / "planted.py"
    script.write_text(PLANTED.format(before=before))
    said = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert said.returncode == 0, said.stderr[-2000:]
    assert said.stdout.startswith("refused")
    line = 1 + PLANTED[: PLANTED.index("crops = ")].count("\n")
    assert "CropAndResize" in said.stdout and f"planted.py:{line}" in said.stdout
    if before:
        assert "No registered 'CropAndResize' OpKernel for XLA_TPU_JIT" in said.stdout


def test_the_compiler_says_what_does_not_fit(tmp_path):
    script = tmp_path / "large.py"
    script.write_text("""
import pathlib, sys
from tpu_retinamask import config
from tpu_retinamask.programs import tpu_check
import tensorflow as tf
from tpu_retinamask.xla import aot, lower, purify

def spread(x):  # 10 GB three times, which have to lie side by side
    products = tf.nn.relu(tf.matmul(x, x, transpose_b=True))
    return tf.nn.relu(tf.matmul(products, tf.sort(products, axis=0)))[:4, :4]

pure = purify.pure_function(tf.function(spread).get_concrete_function(tf.TensorSpec([50_000, 128])))
program = lower.lower_for_tpu(pure)
for chip in ("v5e", "v5p"):
    try:
        print(aot.compile_cached(program, chip, 1, pathlib.Path("cache"))["temporary_bytes"])
    except aot.OutOfMemoryError as error:
        print("out of memory:", " ".join(str(error).split())[:200])
""")
    said = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert said.returncode == 0, said.stderr[-2000:]
    v5e, v5p = said.stdout.strip().splitlines()[-2:]
    assert v5e.startswith("out of memory")
    assert int(v5p) > 16e9


def test_a_compile_is_kept_and_read_again(tmp_path, monkeypatch):
    import tensorflow as tf

    from tpu_retinamask.xla import aot, cost, lower, purify

    product = tf.function(lambda a, b: tf.matmul(a, b)).get_concrete_function(*[tf.TensorSpec([256, 256])] * 2)
    program = lower.lower_for_tpu(purify.pure_function(product))
    first = aot.compile_cached(program, "v5e:1x1", 1, tmp_path)  # a TPU of one chip
    assert first["argument_bytes"] == 2 * 256 * 256 * 4 and first["flops"] >= 2 * 256**3
    assert cost.estimate(aot.read_hlo(first))["cycles"] > 0
    monkeypatch.setattr(aot.sys, "executable", "/no/such/compiler")
    assert aot.compile_cached(program, "v5e:1x1", 1, tmp_path) == first
    with pytest.raises(FileNotFoundError):  # another chip was not asked
        aot.compile_cached(program, "v4", 1, tmp_path)


def test_what_is_no_answer_of_the_compiler_is_not_kept(tmp_path, monkeypatch):
    from tpu_retinamask.xla import aot

    (tmp_path / "jax.py").write_text("raise ImportError('no jax here')")  # as in an environment that lacks it
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(aot.CompileError, match="no jax here"):
        aot.compile_cached(b"program", "v5e", 4, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.json")) and not list((tmp_path / "cache").glob("*.mlir"))


def test_a_second_compile_is_read_from_the_cache(tmp_path):
    from tpu_retinamask.xla import aot

    kept = {"topology": "v5e:2x2", "refused": "because", "out_of_memory": False, "kind": "JaxRuntimeError"}
    key = aot.cache_key(b"program" + json.dumps([]).encode(), "v5e:2x2", 4)
    (tmp_path / f"{key}.json").write_text(json.dumps(kept))
    with pytest.raises(aot.CompileError, match="because"):
        aot.compile_cached(b"program", "v5e:2x2", 4, tmp_path)
