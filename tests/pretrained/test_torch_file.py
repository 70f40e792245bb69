"""PyTorch's files, built by hand in both formats: what is read, and that nothing a pickle holds is run."""

import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from tpu_retinamask.pretrained import torch_file
from tpu_retinamask.pretrained.h5_file import WeightsError
from tpu_retinamask.pretrained.torch_file import read_torch

_MAGIC = 0x1950A86A20F9469CFC6C
_CLASSES = {"f2": "HalfStorage", "f4": "FloatStorage", "f8": "DoubleStorage", "i8": "LongStorage", "u1": "ByteStorage"}


class _Named:
    """What a pickle writes as `module.name`, called with arguments or alone."""

    def __init__(self, module, name, *arguments):
        self.module, self.name, self.arguments = module, name, arguments


class _View:
    """A tensor: a storage, and how it is looked at; `count` is what the storage is declared to hold."""

    def __init__(self, storage, offset=0, shape=None, strides=None, count=None):
        self.storage, self.offset = storage, offset
        self.shape = storage.shape if shape is None else shape
        self.strides = (1,) if strides is None else strides
        self.count = len(storage) if count is None else count


def _pickled(state, keys, legacy=False):
    """Return the pickle of {name: value}, by hand: PyTorch's classes are not here to be pickled."""

    def write(value):
        if isinstance(value, _View):
            key = keys.setdefault(id(value.storage), (str(len(keys)), value.storage))[0]
            name = _CLASSES[value.storage.dtype.str[1:]]
            storage = b"(" + write("storage") + b"ctorch\n" + name.encode() + b"\n" + write(key) + write("cpu")
            storage += write(value.count) + (write(None) if legacy else b"") + b"tQ"
            rest = [write(part) for part in (value.offset, value.shape, value.strides, False)]
            parts = b"(" + storage + b"".join(rest) + write(_Named("collections", "OrderedDict")) + b"t"
            return b"ctorch._utils\n_rebuild_tensor_v2\n" + parts + b"R"
        if isinstance(value, _Named):
            called = b"(" + b"".join(map(write, value.arguments)) + b"tR"
            return f"c{value.module}\n{value.name}\n".encode() + called
        if isinstance(value, tuple):
            return b"(" + b"".join(map(write, value)) + b"t"
        return pickle.dumps(value, 2)[2:-1]  # without its head and its end

    items = b"".join(write(name) + write(value) for name, value in state.items())
    return b"\x80\x02" + write(_Named("collections", "OrderedDict")) + b"(" + items + b"u."


def _zip(path, state, compression=zipfile.ZIP_STORED, byteorder="little"):
    keys = {}
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/data.pkl", _pickled(state, keys))
        archive.writestr("model/byteorder", byteorder)
        for key, storage in keys.values():
            archive.writestr(f"model/data/{key}", storage.tobytes())


def _legacy(path, state, little=True):
    keys = {}
    state = _pickled(state, keys, legacy=True)
    body = b"".join(pickle.dumps(part, 2) for part in (_MAGIC, 1001, {"little_endian": little}))
    body += state + pickle.dumps([key for key, _ in keys.values()], 2)
    for _, storage in keys.values():
        body += struct.pack("<q", len(storage)) + storage.tobytes()
    path.write_bytes(body)


FORMATS = pytest.mark.parametrize("write", [_zip, _legacy])


def _storage(kind="f4", count=24):
    return np.arange(count).astype(kind)


@FORMATS
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i8", "u1"])
def test_numbers_of_each_kind_are_read(write, kind, tmp_path):
    storage = _storage(kind)
    write(tmp_path / "w.pth", {"a": _View(storage, 0, (4, 6), (6, 1)), "b": _View(_storage(kind, 5))})
    found = read_torch(str(tmp_path / "w.pth"))
    assert list(found) == ["a", "b"] and found["a"].dtype == storage.dtype
    np.testing.assert_array_equal(found["a"], storage.reshape(4, 6))
    np.testing.assert_array_equal(found["b"], np.arange(5))


@FORMATS
def test_views_of_one_storage_keep_their_offsets_and_strides(write, tmp_path):
    storage = _storage()
    state = {
        "turned": _View(storage, 0, (6, 4), (1, 6)),
        "every other": _View(storage, 3, (2, 3), (12, 2)),
        "one number": _View(storage, 23, (), ()),
        "none": _View(storage, 0, (0, 3), (3, 1)),
    }
    write(tmp_path / "w.pth", state)
    found = read_torch(str(tmp_path / "w.pth"))
    np.testing.assert_array_equal(found["turned"], storage.reshape(4, 6).T)
    np.testing.assert_array_equal(found["every other"], [[3, 5, 7], [15, 17, 19]])
    assert found["one number"].shape == () and found["one number"] == 23 and found["none"].shape == (0, 3)
    assert not found["turned"].flags.writeable


@FORMATS
@pytest.mark.parametrize("module, name", [("posix", "system"), ("os", "system"), ("builtins", "eval"), ("mine", "run")])
def test_foreign_names_are_refused_and_not_run(write, module, name, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(run=ran.append))
    monkeypatch.setattr(os, "system", ran.append)
    mark = tmp_path / "ran"
    command = f"open({str(mark)!r}, 'w')" if name == "eval" else f"touch {mark}"
    write(tmp_path / "w.pth", {"a": _View(_storage()), "b": _Named(module, name, command)})
    with pytest.raises(WeightsError, match=rf"w.pth.* found the name {module}.{name}, expected .*save the weights"):
        read_torch(str(tmp_path / "w.pth"))
    assert not ran and not mark.exists()


@pytest.mark.parametrize("name", ["BFloat16Storage", "load", "nn.Module"])
def test_other_names_of_pytorch_are_refused(name, tmp_path):
    _zip(tmp_path / "w.pth", {"a": _Named("torch", name)})
    with pytest.raises(WeightsError, match=f"found the name torch.{name}"):
        read_torch(str(tmp_path / "w.pth"))


@FORMATS
@pytest.mark.parametrize(
    "view, words",
    [
        (dict(offset=20, shape=(5,)), "'a', whose 5 numbers reach to number 24 of a storage of 24"),
        (dict(shape=(4, 7), strides=(6, 1)), "28 numbers"),
        (dict(shape=(2,), strides=(24,)), "reach to number 24"),
        (dict(shape=(10**12,), strides=(0,)), "1000000000000 numbers"),
        (dict(offset=-1, shape=(2,)), "no whole numbers from 0 on"),
        (dict(shape=(2,), strides=(-1,)), "no whole numbers from 0 on"),
        (dict(shape=(2, 2), strides=(1,)), "2 sides and 1 strides"),
    ],
)
def test_views_beyond_their_storage_are_refused(write, view, words, tmp_path):
    write(tmp_path / "w.pth", {"a": _View(_storage(), **view)})
    with pytest.raises(WeightsError, match=words):
        read_torch(str(tmp_path / "w.pth"))


@FORMATS
@pytest.mark.parametrize("count", [25, 23, 10**15, -1])
def test_storages_of_another_size_than_declared_are_refused(write, count, tmp_path):
    write(tmp_path / "w.pth", {"a": _View(_storage(), shape=(2,), count=count)})
    with pytest.raises(WeightsError, match="storage '0' "):
        read_torch(str(tmp_path / "w.pth"))


@FORMATS
def test_a_file_cut_anywhere_is_refused(write, tmp_path):
    write(tmp_path / "w.pth", {"a": _View(_storage(count=6)), "b": _View(_storage("i8", 3))})
    whole = (tmp_path / "w.pth").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"cut.pth as weights of PyTorch: found .*expected.*take the file anew"):
            read_torch(str(tmp_path / "cut.pth"))
    if write is _legacy:
        (tmp_path / "long.pth").write_bytes(whole + b"more")
        with pytest.raises(WeightsError, match="4 bytes after the last storage"):
            read_torch(str(tmp_path / "long.pth"))


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    with pytest.raises(FileNotFoundError, match="no such weights"):
        read_torch(str(path))
    for body, words in (
        (b"<html>not found</html>", "of another kind"),
        (pickle.dumps({"a": 1}, 2), "a pickle of something else"),
        (b"\x80\x02" + b"cos\nsystem\n.", "the name os.system"),
    ):
        path.write_bytes(body)
        with pytest.raises(WeightsError, match=words):
            read_torch(str(path))
    _zip(path, {"a": 3})
    with pytest.raises(WeightsError, match="a value of the kind int by the name 'a', expected a tensor"):
        read_torch(str(path))
    _zip(path, {3: _View(_storage())})
    with pytest.raises(WeightsError, match="kind int as a name"):
        read_torch(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(WeightsError, match="a zip with 0 entries data.pkl"):
        read_torch(str(path))
    _zip(path, {"a": _View(_storage())}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="compressed entry"):
        read_torch(str(path))
    _zip(path, {"a": _View(_storage())}, byteorder="big")
    with pytest.raises(WeightsError, match="lowest first"):
        read_torch(str(path))
    _legacy(path, {"a": _View(_storage())}, little=False)
    with pytest.raises(WeightsError, match="lowest first"):
        read_torch(str(path))


def test_a_pickle_changes_none_of_our_classes(tmp_path):
    # BUILD sets attributes of whatever lies below it.
    for name in ("torch._utils\n_rebuild_tensor_v2", "torch\nFloatStorage", "collections\nOrderedDict"):
        for state in ({"changed": 1}, (None, {"changed": 1})):
            body = b"\x80\x02c" + name.encode() + b"\n" + pickle.dumps(state, 2)[2:-1] + b"b."
            with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
                archive.writestr("model/data.pkl", body)
            with pytest.raises(WeightsError, match="found "):
                read_torch(str(tmp_path / "w.pth"))
    for ours in (torch_file._Rebuild, torch_file._Number, torch_file._Names, torch_file._Storage):
        assert not hasattr(ours, "changed")
