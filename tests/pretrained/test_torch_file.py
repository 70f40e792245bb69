"""PyTorch's files, built by hand in both formats: what is read, and that nothing a pickle holds is run."""

import copy
import os
import pickle
import re
import sys
import types
import zipfile

import numpy as np
import pytest
from reference.torch_writers import Named, View, write_legacy, write_zip

from tpu_retinamask.pretrained.faults import WeightsError
from tpu_retinamask.pretrained.torch_file import read_torch

FORMATS = pytest.mark.parametrize("write", [write_zip, write_legacy])


def _storage(kind="f4", count=24):
    return np.arange(count).astype(kind)


@FORMATS
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i8", "u1"])
def test_numbers_of_each_kind_are_read(write, kind, tmp_path):
    storage = _storage(kind)
    write(tmp_path / "w.pth", {"a": View(storage, 0, (4, 6), (6, 1)), "b": View(_storage(kind, 5))})
    found = read_torch(str(tmp_path / "w.pth"))
    assert list(found) == ["a", "b"] and found["a"].dtype == storage.dtype
    np.testing.assert_array_equal(found["a"], storage.reshape(4, 6))
    np.testing.assert_array_equal(found["b"], np.arange(5))


@FORMATS
def test_views_of_one_storage_keep_their_offsets_and_strides(write, tmp_path):
    storage = _storage()
    state = {
        "turned": View(storage, 0, (6, 4), (1, 6)),
        "every other": View(storage, 3, (2, 3), (12, 2)),
        "one number": View(storage, 23, (), ()),
        "none": View(storage, 0, (0, 3), (3, 1)),
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
    write(tmp_path / "w.pth", {"a": View(_storage()), "b": Named(module, name, command)})
    with pytest.raises(WeightsError, match=rf"w.pth.* found the name {module}.{name}, expected .*save the weights"):
        read_torch(str(tmp_path / "w.pth"))
    assert not ran and not mark.exists()


@pytest.mark.parametrize("name", ["BFloat16Storage", "load", "nn.Module"])
def test_other_names_of_pytorch_are_refused(name, tmp_path):
    write_zip(tmp_path / "w.pth", {"a": Named("torch", name)})
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
    write(tmp_path / "w.pth", {"a": View(_storage(), **view)})
    with pytest.raises(WeightsError, match=words):
        read_torch(str(tmp_path / "w.pth"))


@FORMATS
@pytest.mark.parametrize("count", [25, 23, 10**15, -1])
def test_storages_of_another_size_than_declared_are_refused(write, count, tmp_path):
    write(tmp_path / "w.pth", {"a": View(_storage(), shape=(2,), count=count)})
    with pytest.raises(WeightsError, match="storage '0' "):
        read_torch(str(tmp_path / "w.pth"))


@FORMATS
def test_a_file_cut_anywhere_is_refused(write, tmp_path):
    write(tmp_path / "w.pth", {"a": View(_storage(count=6)), "b": View(_storage("i8", 3))})
    whole = (tmp_path / "w.pth").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"cut.pth as weights of PyTorch: found .*expected.*take the file anew"):
            read_torch(str(tmp_path / "cut.pth"))
    if write is write_legacy:
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
    write_zip(path, {"a": 3})
    with pytest.raises(WeightsError, match="a value of the kind int by the name 'a', expected a tensor"):
        read_torch(str(path))
    write_zip(path, {3: View(_storage())})
    with pytest.raises(WeightsError, match="kind int as a name"):
        read_torch(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(WeightsError, match="a zip with 0 entries data.pkl"):
        read_torch(str(path))
    write_zip(path, {"a": View(_storage())}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="compressed entry"):
        read_torch(str(path))
    write_zip(path, {"a": View(_storage())}, byteorder="big")
    with pytest.raises(WeightsError, match="lowest first"):
        read_torch(str(path))
    write_legacy(path, {"a": View(_storage())}, little=False)
    with pytest.raises(WeightsError, match="lowest first"):
        read_torch(str(path))


_DICT = b"ccollections\nOrderedDict\n"
_VIEW = b"ctorch._utils\n_rebuild_tensor_v2\n((" + pickle.dumps("storage", 2)[2:-1] + b"ctorch\nFloatStorage\n"
_VIEW += pickle.dumps("0", 2)[2:-1] + pickle.dumps("cpu", 2)[2:-1] + b"K\x04tQK\x00%s%stR"
_MANY = 400_000


@pytest.mark.parametrize(
    "body, words",
    [
        # Attributes of what lies below; Python's own would set them.
        (b"ctorch._utils\n_rebuild_tensor_v2\n}b.", "where a pickle of weights has a dict"),
        (b"ctorch\nFloatStorage\n}b.", "where a pickle of weights has a dict"),
        # A hash that takes the whole stack, or 2**60 steps.
        (b"}K\x01" + b"\x85" * _MANY + b"K\x01s.", "a value of the kind tuple as a name"),
        (b"}K\x01" + b"2\x86" * 60 + b"K\x01s.", "the operation DUP"),
        # A memo of 64 GB in Python's.
        (_DICT + b")Rr\xff\xff\xff\xff.", "a dictionary of tensors by name"),
        # Copies of copies.
        (_DICT + b"]\x85R.", "a call of collections.OrderedDict with 1 arguments"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "with 0 arguments"),
        # Numbers whose product takes for ever, and sides without number.
        (b"}\x8b\x00\x10\x00\x00" + b"\x7f" * 4096 + b"K\x01s.", "the operation LONG4"),
        (b"}\x8a\xff" + b"\x7f" * 255 + b"K\x01s.", "a number of 2039 bits"),
        (b"}X\x01\x00\x00\x00a" + _VIEW % ((b"(" + b"K\x01" * 99 + b"t",) * 2) + b"s.", "99 sides"),
        (b"X\xff\xff\x00\x00" + b"a" * 65535 + b".", "a text of 65535 letters"),
        (b"c" + b"a" * 5000 + b"\nb\n.", "a text of 5002 letters"),
        (b"N0" * 600_000 + b".", "the operation POP"),
        (b"Nq\x00" * 600_000 + b".", "more than 1000000 operations"),
        (b"\x96\x01\x00\x00\x00\x00\x00\x00\x00a.", "the operation BYTEARRAY8"),
        (b"(K\x01icollections\nOrderedDict\n.", "the operation INST"),
        (b"t.", "cut, damaged or of another kind"),  # a tuple that was never begun
        (b"(.", "which it has not begun"),
        (b"h\x05.", "cut, damaged or of another kind"),
    ],
)
def test_a_pickle_takes_neither_time_nor_memory_nor_the_process(body, words, tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02" + body)
    with pytest.raises(WeightsError, match=re.escape(words)) as told:
        read_torch(str(tmp_path / "w.pth"))
    assert len(str(told.value)) < 3000


def test_a_zip_that_lacks_a_byte_is_refused(tmp_path):
    write_zip(tmp_path / "w.pth", {"a": View(_storage(), 0, (4, 6), (6, 1))})
    whole = (tmp_path / "w.pth").read_bytes()
    for place in range(len(whole)):
        (tmp_path / "w.pth").write_bytes(whole[:place] + whole[place + 1 :])
        with pytest.raises(WeightsError, match="found "):
            read_torch(str(tmp_path / "w.pth"))


def test_entries_that_share_their_bytes_are_refused(tmp_path):
    """Of a small zip whose directory names one entry many times, each time with all of its bytes."""
    keys = [str(number) for number in range(50)]
    storages = {f"t{key}": View(_storage(count=1000)) for key in keys}
    write_zip(tmp_path / "w.pth", storages)
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        body = archive.read("model/data.pkl")
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("model/data.pkl", body)
        archive.writestr("model/data/0", _storage(count=1000).tobytes())
        first = archive.getinfo("model/data/0")
        for key in keys[1:]:
            again = copy.copy(first)
            again.filename = f"model/data/{key}"
            archive.filelist.append(again)
    # Their local headers would name them otherwise, which zipfile finds out; a forger would lay header into header.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            zipfile.ZipFile, "read", lambda archive, name: _storage(count=1000).tobytes() if "/data/" in name else body
        )
        with pytest.raises(WeightsError, match="lie one in the other"):
            read_torch(str(tmp_path / "w.pth"))
