"""The pickle in a file of PyTorch's weights, taken apart without Python's unpickler: it builds tensors' outlines only.

Python's own calls whatever a pickle names, and even where no name is allowed it can be made to fill the memory or to
recurse without end. Here an operation is one of the few that `torch.save` writes for a dictionary of tensors, keys of
dictionaries are text, nothing is called, and the work is bounded by the number of operations.
"""

import pickletools
from typing import IO, Any, NamedTuple

import numpy as np

from tpu_retinamask.pretrained.faults import WeightsError

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
MOST_OPERATIONS = 1_000_000  # some 30,000 tensors
LONGEST_TEXT = 1000  # letters of a name
MOST_SIDES = 16
_MOST_BITS = 80  # of a number: PyTorch's own mark at the head of a file has 77
_ORDERED_DICT, _REBUILD = "collections.OrderedDict", "torch._utils._rebuild_tensor_v2"
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1")
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "UNICODE")
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PASSED_OVER = ("PROTO", "FRAME")
_MARK = object()


class Storage(NamedTuple):
    """A storage as it is declared: `count` numbers."""

    dtype: np.dtype
    key: str
    count: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Name(NamedTuple):
    """A class or function by its name, which is all that is ever known of it."""

    name: str


def load(file: IO[bytes], machine: "Machine | None" = None) -> Any:
    """Return what the pickle at the place of a file holds: text, whole numbers, lists, dictionaries and tensors.

    The file is left after its end.

    Args:
      file: of the pickle.
      machine: knows what else may be in it; None: tensors alone.

    Raises:
      WeightsError: an operation, a name or a value that no weights have.
      ValueError: the bytes are no pickle.
    """
    machine = machine or Machine()
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if count > MOST_OPERATIONS:
            raise WeightsError(f"a pickle of more than {MOST_OPERATIONS} operations, expected one of weights")
        if operation.name == "STOP":
            return machine.pop()
        machine.do(operation.name, argument)
    raise WeightsError("a pickle without an end")


class Machine:
    """The stack and the memo of a pickle."""

    def __init__(self) -> None:
        """Start with both empty."""
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """Take the value on top of the stack."""
        value = self._stack.pop()
        if value is _MARK:
            raise WeightsError("a pickle that ends a list which it has not begun")
        return value

    def push(self, value: Any) -> None:
        """Lay a value on the stack."""
        self._stack.append(value)

    def known(self, name: str) -> Any:
        """Return what stands for a name that weights have; it is never looked up."""
        return _known(name)

    def built(self, name: Any, arguments: Any) -> Any:
        """Return what a name called with these arguments would give."""
        return _built(name, arguments)

    def do(self, operation: str, argument: Any) -> None:
        """Do one operation of a pickle."""
        push = self.push
        if operation in _PASSED_OVER:
            return
        if operation in _CONSTANTS:
            push(_CONSTANTS[operation])
        elif operation in _NUMBERS:
            if argument.bit_length() > _MOST_BITS:
                raise WeightsError(f"a number of {argument.bit_length()} bits, expected {_MOST_BITS} at most")
            push(argument)
        elif operation in _TEXTS:
            push(_short(argument))
        elif operation in _EMPTY:
            push(_EMPTY[operation]())
        elif operation == "MARK":
            push(_MARK)
        elif operation in _TUPLES:
            push(tuple(reversed([self.pop() for _ in range(_TUPLES[operation])])))
        elif operation == "TUPLE":
            push(tuple(self._since_mark()))
        elif operation in ("APPEND", "APPENDS"):
            values = [self.pop()] if operation == "APPEND" else self._since_mark()
            self.top(list).extend(values)
        elif operation in ("SETITEM", "SETITEMS"):
            values = [self.pop(), self.pop()][::-1] if operation == "SETITEM" else self._since_mark()
            self._set(self.top(dict), values)
        elif operation in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = self.top(object)
        elif operation == "MEMOIZE":
            self._memo[len(self._memo)] = self.top(object)
        elif operation in ("BINGET", "LONG_BINGET", "GET"):
            push(self._memo[argument])
        elif operation == "GLOBAL":
            push(self.known(_short(argument).replace(" ", ".", 1)))
        elif operation == "STACK_GLOBAL":
            name, module = self.pop(), self.pop()
            if not (isinstance(name, str) and isinstance(module, str)):
                raise WeightsError("a name that is no text")
            push(self.known(f"{module}.{name}"))
        elif operation == "BINPERSID":
            push(_storage(self.pop()))
        elif operation == "REDUCE":
            arguments, name = self.pop(), self.pop()
            push(self.built(name, arguments))
        elif operation == "BUILD":
            self.pop()  # PyTorch keeps versions of layers in an attribute of its dictionaries
            self.top(dict)
        else:
            raise WeightsError(f"the operation {operation} in its pickle, which no weights need; nothing of it was run")

    def top(self, kind: type) -> Any:
        """Return the value on top of the stack, which must be of a kind."""
        value = self._stack[-1]
        if value is _MARK or not isinstance(value, kind):
            raise WeightsError(f"{described(value)} where a pickle of weights has a {kind.__name__}")
        return value

    def _since_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _set(self, target: dict, values: list[Any]) -> None:
        if len(values) % 2:
            raise WeightsError("a dictionary with a key that has no value")
        for key, value in zip(values[::2], values[1::2]):
            # Of other kinds the hash may take for ever, or the whole stack.
            if not isinstance(key, str):
                raise WeightsError(f"{described(key)} as a name, expected text")
            target[key] = value


def described(value: object) -> str:
    """Return what an unexpected value is, never its content: that may be endless."""
    return f"a value of the kind {type(value).__name__.strip('_').lower()}"


def _short(text: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise WeightsError(f"a text of {len(text)} letters, expected a name of {LONGEST_TEXT} at most")
    return text


def _known(name: str) -> _Name:
    """Return a name that weights have; it is never looked up."""
    if name in (_ORDERED_DICT, _REBUILD) or (name.startswith("torch.") and name.removeprefix("torch.") in STORAGES):
        return _Name(name)
    raise WeightsError(
        f"the name {name}, expected tensors of {', '.join(STORAGES)} and dictionaries of them alone; nothing of it "
        "was run"
    )


def _built(name: object, arguments: object) -> Any:
    """Return what a name called with these arguments would give, of the two that weights call."""
    if not isinstance(name, _Name) or not isinstance(arguments, tuple):
        raise WeightsError(f"a call of {described(name)}; nothing of it was run")
    if name.name == _ORDERED_DICT and not arguments:
        return {}
    if name.name == _REBUILD and len(arguments) >= 4:
        return _tensor(*arguments[:4])
    raise WeightsError(f"a call of {name.name} with {len(arguments)} arguments; nothing of it was run")


def _tensor(storage: object, offset: object, shape: object, strides: object) -> Tensor:
    if not isinstance(storage, Storage) or not (isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise WeightsError("a tensor of something else, expected one of a storage")
    if len(shape) != len(strides) or len(shape) > MOST_SIDES:
        raise WeightsError(f"a tensor with {len(shape)} sides and {len(strides)} strides")
    if not all(type(number) is int and number >= 0 for number in (offset, *shape, *strides)):
        raise WeightsError("a tensor whose offset, shape or strides are no whole numbers from 0 on")
    assert isinstance(offset, int)
    return Tensor(storage, offset, shape, strides)


def _storage(reference: object) -> Storage:
    """Return the storage that ("storage", its class, its key, its device, its length) stands for."""
    if not isinstance(reference, tuple) or len(reference) not in (5, 6):
        raise WeightsError("a reference to something else, expected a storage")
    kind, number, key, _, count, *view = reference
    known = isinstance(number, _Name) and number.name.removeprefix("torch.") in STORAGES
    if kind != "storage" or not known or not isinstance(key, str) or any(one is not None for one in view):
        raise WeightsError("a reference to something else, expected a whole storage")
    if type(count) is not int or count < 0:
        raise WeightsError(f"storage {key!r} with a length that is no whole number from 0 on")
    assert isinstance(number, _Name)
    return Storage(np.dtype(STORAGES[number.name.removeprefix("torch.")]), key, count)
