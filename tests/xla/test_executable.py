"""Programs on PJRT: donated memory, programs kept on disk and known again, 64-bit integers, want of memory told."""

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.xla import lower, purify

jax = pytest.importorskip(
    "jax", reason="NO JAX: Python 3.10 has none that is supported, so no program ran on PJRT here"
)

from tpu_retinamask.xla import stablehlo
from tpu_retinamask.xla.executable import DeviceMemoryError, Devices, Executable, _memory_told


@pytest.fixture(scope="module")
def devices():
    """The CPU."""
    return Devices(jax.devices("cpu")[:1])


def counted(step=1.0):
    """Return a pure function that adds to a variable, and its program; each trace has names of its own."""
    variable = tf.Variable(np.arange(6, dtype=np.float32))

    def count(ids):
        variable.assign_add(tf.fill([6], step))
        return tf.reduce_sum(variable), ids + 1

    traced = tf.function(count, autograph=False).get_concrete_function(tf.TensorSpec([2], tf.int64))
    pure = purify.pure_function(traced)
    return pure, lower.lower_on_host(pure)


def test_the_state_is_donated_and_counts_on(devices):
    pure, program = counted()
    executable = Executable(program, devices, aliases=pure.aliases)
    assert executable.memory["alias"] == 24
    ids, state = devices.share(np.array([2**40, -1])), devices.copy(np.arange(6, dtype=np.float32))
    first = state
    for round_number in range(1, 4):
        (total,), (moved,), (state,) = executable([ids, state])
        assert float(total) == 15 + 6 * round_number
        assert moved.dtype == np.int64 and np.asarray(moved).tolist() == [2**40 + 1, 0]
    assert first.is_deleted() and not ids.is_deleted()
    np.testing.assert_array_equal(state, np.arange(6) + 3)


def test_what_is_copied_to_a_device_is_not_the_callers_memory(devices):
    value = np.zeros(1 << 16, np.float32)
    copied = devices.copy(value)
    value += 1
    assert not np.asarray(copied).any()


def test_a_program_is_kept_and_known_again_whatever_its_functions_are_called(devices, tmp_path):
    pure, program = counted()
    assert not Executable(program, devices, aliases=pure.aliases, cache_dir=tmp_path).from_disk
    tf.function(lambda x: x + 1).get_concrete_function(tf.TensorSpec([]))  # TensorFlow counts what it traces
    pure, again = counted()
    assert again != program
    kept = Executable(again, devices, aliases=pure.aliases, cache_dir=tmp_path)
    assert kept.from_disk
    arguments = devices.share(np.array([0, 0])), devices.copy(np.arange(6, dtype=np.float32))
    assert float(kept(arguments)[0][0]) == 21
    # What computes something else, or shares no memory, is another.
    pure, other = counted(2.0)
    assert not Executable(other, devices, aliases=pure.aliases, cache_dir=tmp_path).from_disk
    assert not Executable(again, devices, cache_dir=tmp_path).from_disk
    assert len(list(tmp_path.iterdir())) == 3


def test_half_a_file_is_compiled_anew(devices, tmp_path):
    _, program = counted()
    Executable(program, devices, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert not Executable(program, devices, cache_dir=tmp_path).from_disk
    assert Executable(program, devices, cache_dir=tmp_path).from_disk


def test_a_folder_that_cannot_be_written_costs_the_file_alone(devices, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    pure, program = counted()
    executable = Executable(program, devices, cache_dir=tmp_path / "file" / "folder")
    assert "was not kept" in caplog.text
    found = executable([devices.share(np.array([0, 0])), devices.copy(np.zeros(6, np.float32))])
    assert float(found[0][0]) == 6


def test_names_alone_make_no_difference():
    (_, one), (_, two) = counted(), counted()
    assert stablehlo.digest(stablehlo.parse(one)) == stablehlo.digest(stablehlo.parse(two))
    assert stablehlo.digest(stablehlo.parse(one)) != stablehlo.digest(stablehlo.parse(one, [(1, 2)]))


def test_want_of_memory_says_what_to_lower():
    with pytest.raises(DeviceMemoryError, match="allocating 5 GiB.*lower train.batch_size"), _memory_told():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while allocating 5 GiB\nmore")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), _memory_told():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
