"""Files of weights that were cut, forged or made of something else: one error each, and no other file is read."""

import os
import pathlib

import h5py
import numpy as np
import pytest

from tpu_retinamask.errors import UserError
from tpu_retinamask.pretrained.faults import WeightsError
from tpu_retinamask.pretrained.h5_file import read_h5

KERNEL = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def written(tmp_path):
    """Write a file with a good layer `conv` and what a function adds to it; return its path."""

    def write(add=lambda file: None):
        path = tmp_path / "weights.h5"
        with h5py.File(path, "w") as file:
            file["conv/conv/kernel:0"] = KERNEL
            add(file)
        return str(path)

    return write


def test_good_files_are_read_compressed_ones_too(written):
    def add(file):
        file["half/half/kernel:0"] = KERNEL.astype(np.float16)
        file.create_dataset("zipped/zipped/kernel:0", data=np.tile(KERNEL, (64, 1)), compression="gzip", chunks=(50, 4))
        file["none/none/kernel:0"] = np.zeros([0, 3], np.float32)

    found = read_h5(written(add))
    np.testing.assert_array_equal(found["conv"]["kernel"], KERNEL)
    np.testing.assert_array_equal(found["zipped"]["kernel"], np.tile(KERNEL, (64, 1)))
    assert found["half"]["kernel"].dtype == np.float16 and found["none"]["kernel"].shape == (0, 3)


def test_a_download_cut_at_any_length_is_an_error(written):
    path = written()
    whole = pathlib.Path(path).read_bytes()
    for length in (*range(0, 1200, 97), *range(1200, len(whole), 499), len(whole) - 1):
        with open(path, "wb") as file:
            file.write(whole[:length])
        with pytest.raises(
            WeightsError, match=r"weights.h5 (is not an HDF5 file|cannot be read as HDF5: .*cut or damaged)"
        ):
            read_h5(path)


def test_flipped_bytes_are_an_error_or_change_numbers_alone(written):
    path, rng = written(), np.random.default_rng(0)
    whole = pathlib.Path(path).read_bytes()
    for place in rng.integers(0, len(whole), 150).tolist():
        with open(path, "wb") as file:
            file.write(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            read_h5(path)
        except WeightsError as error:
            assert len(str(error).splitlines()) == 1


def _external(path, offset=0):
    def add(file):
        file.create_dataset("x/x/kernel:0", (2, 4), np.float32, external=[(path, offset, 32)])

    return add


def _virtual(path):
    def add(file):
        layout = h5py.VirtualLayout((2, 4), np.float32)
        layout[:] = h5py.VirtualSource(path, "conv/conv/kernel:0", (2, 4))
        file.create_virtual_dataset("x/x/kernel:0", layout)

    return add


def _chunks_missing(file):
    dataset = file.create_dataset("x/x/kernel:0", (100, 4), np.float32, chunks=(10, 4))
    dataset[:10] = 1


def _late(file):
    file.create_dataset("x/x/kernel:0", (2, 4), np.float32)  # declared, and never written


def _deep(file):
    group = file["conv"]
    for _ in range(60):
        group = group.create_group("deeper")
    group["kernel:0"] = KERNEL


def _alias(file):
    file["x/x/kernel:0"] = file["conv/conv/kernel:0"]  # a thousand of them would be a thousand times its size


def _loop(file):
    file["conv/conv/again"] = file["conv"]


ODD = {
    "text": (lambda file: file.create_dataset("x/x/kernel:0", data=np.array([b"ab"])), "holds |S2, expected numbers"),
    "objects": (lambda file: file.create_dataset("x/k", data="text", dtype=h5py.string_dtype()), "expected numbers"),
    "complex": (lambda file: file.create_dataset("x/x/kernel:0", data=KERNEL.astype(complex)), "expected numbers"),
    "records": (
        lambda file: file.create_dataset("x/x/kernel:0", data=np.zeros(3, [("a", "f4"), ("b", "i4")])),
        "expected numbers",
    ),
    "references": (
        lambda file: file.create_dataset("x/k", data=np.array([file.ref], object), dtype=h5py.ref_dtype),
        "expected numbers",
    ),
    "nothing": (lambda file: file.create_dataset("x/x/kernel:0", data=h5py.Empty("f4")), "expected numbers"),
    "a terabyte": (
        lambda file: file.create_dataset("zz/zz/kernel:0", (1 << 38,), np.float32),
        "declares 1,099,511,627,776 bytes of numbers and holds 0",
    ),
    "a terabyte in chunks": (
        lambda file: file.create_dataset(
            "zz/zz/kernel:0", (1 << 38,), np.float32, chunks=(1 << 20,), compression="gzip"
        ),
        "declares 1,099,511,627,776 bytes",
    ),
    "zeros that explode": (
        lambda file: file.create_dataset("zz/k", data=np.zeros(1 << 25, np.float32), compression="gzip"),
        "declares 134,217,728 bytes",
    ),
    "never written": (_late, "declares 32 bytes of numbers and holds 0"),
    "chunks that are missing": (_chunks_missing, "declares 1,600 bytes of numbers and holds 160"),
    "a soft link": (lambda file: file.__setitem__("x", h5py.SoftLink("/conv")), "'x' is a link"),
    "a soft link to nothing": (lambda file: file["conv"].__setitem__("x", h5py.SoftLink("/none")), "'x' is a link"),
    "a link to another file": (
        lambda file: file.__setitem__("model_weights", h5py.ExternalLink("other.h5", "/")),
        "'model_weights' is a link",
    ),
    "a group in itself": (_loop, "lies in two places, or in itself"),
    "one array in two places": (_alias, "lies in two places"),
    "groups in groups": (_deep, "over 32 groups lie one in the other"),
    "an array of that name": (lambda file: file.__setitem__("model_weights", KERNEL), "no group of layers"),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_weights_never_are_is_one_error(odd, written):
    add, words = ODD[odd]
    with pytest.raises(WeightsError) as error:
        read_h5(written(add))
    assert words in str(error.value) and len(str(error.value).splitlines()) == 1


def test_numbers_of_other_files_are_never_read(written, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["conv/conv/kernel:0"] = KERNEL
    for add in (_external(str(tmp_path / "secret")), _virtual(str(tmp_path / "other.h5")), _virtual(".")):
        with pytest.raises(WeightsError, match="has its numbers in another file"):
            read_h5(written(add))


def test_folders_pipes_and_devices_are_named_and_nothing_waits_for_them(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    for path, kind in ((tmp_path, "a folder"), (tmp_path / "pipe.h5", "a pipe"), ("/dev/zero", "a device")):
        with pytest.raises(UserError, match=f"is {kind}, expected a file"):
            read_h5(str(path))
