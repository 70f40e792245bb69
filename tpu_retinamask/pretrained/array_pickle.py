"""Pickled dictionaries of NumPy arrays, detectron2's weights (`.pkl`), taken apart as PyTorch's files are."""

import math
import os
from typing import Any, NamedTuple

import numpy as np

from tpu_retinamask.file_kinds import refuse_no_file
from tpu_retinamask.pretrained.faults import WeightsError, told_of
from tpu_retinamask.pretrained.torch_pickle import MOST_SIDES, Machine, described, load

_REMEDY = "take the file anew from where it was published"
_NUMBERS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"}
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_NAMES = (*_RECONSTRUCT, "numpy.ndarray", "numpy.dtype")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")


class _Name(NamedTuple):
    name: str


class _Outline:
    """An array whose state is yet to come."""

    value: np.ndarray | None = None


class _Numbers:
    """A kind of numbers whose order of bytes is yet to come."""

    def __init__(self, kind: str) -> None:
        self.dtype = np.dtype(kind).newbyteorder("<")


class _ArrayMachine(Machine):
    """Knows arrays where PyTorch's knows tensors."""

    def do(self, operation: str, argument: Any) -> None:
        if operation in _BYTES:
            self.push(argument)
        elif operation == "BUILD":
            state = self.pop()
            self._build(self.top(object), state)
        else:
            super().do(operation, argument)

    def known(self, name: str) -> Any:
        return _Name(name) if name in _NAMES else super().known(name)

    def built(self, name: Any, arguments: Any) -> Any:
        if not isinstance(name, _Name):
            return super().built(name, arguments)
        if name.name in _RECONSTRUCT and arguments == (_Name("numpy.ndarray"), (0,), b"b"):
            return _Outline()
        if name.name == "numpy.dtype" and isinstance(arguments, tuple) and arguments[:1] and arguments[0] in _NUMBERS:
            return _Numbers(arguments[0])
        raise WeightsError(f"a call of {name.name} with other arguments than an array of numbers has; nothing was run")

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, _Numbers):
            if not isinstance(state, tuple) or state[1:2] not in (("<",), ("|",)):
                raise WeightsError("numbers in another order of bytes, expected the lowest first")
        elif isinstance(target, _Outline):
            target.value = _array(state)
        elif not isinstance(target, dict):
            raise WeightsError(f"a state of {described(target)}; nothing of it was run")


def _array(state: Any) -> np.ndarray:
    if not isinstance(state, tuple) or len(state) != 5:
        raise WeightsError("an array without version, shape, kind, order and numbers")
    _, shape, numbers, fortran, data = state
    sides = (
        isinstance(shape, tuple) and len(shape) <= MOST_SIDES and all(type(side) is int and side >= 0 for side in shape)
    )
    if not sides or not isinstance(numbers, _Numbers) or not isinstance(data, bytes):
        raise WeightsError("an array whose shape, kind or numbers are of other kinds")
    if math.prod(shape) * numbers.dtype.itemsize != len(data):
        raise WeightsError(
            f"an array {list(shape)} of {len(data)} bytes, expected {numbers.dtype} numbers of its shape"
        )
    return np.frombuffer(data, numbers.dtype).reshape(shape, order="F" if fortran else "C")


def read_array_pickle(path: str) -> dict[str, np.ndarray]:
    """Return the arrays {name: array} of a pickle, those of its entry `model` where it has one.

    Raises:
      FileNotFoundError: no such file.
      WeightsError: not such a file, damaged, or holding something else than arrays.
    """
    refuse_no_file(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such weights")
    with told_of(path, "pickled weights of detectron2", _REMEDY), open(path, "rb") as file:
        state = load(file, _ArrayMachine())
        state = state.get("model", state) if isinstance(state, dict) else state
        if not isinstance(state, dict) or not state:
            raise WeightsError(f"{described(state)}, expected a dictionary of arrays by name")
        arrays = {name: value.value for name, value in state.items() if isinstance(value, _Outline)}
        wrong = [name for name in state if arrays.get(name) is None]
        if wrong:
            raise WeightsError(f"{described(state[wrong[0]])} by the name {wrong[0]!r}, expected an array of numbers")
        return {name: value for name, value in arrays.items() if value is not None}
