"""PyTorch's files, built by hand in both formats: PyTorch is not here to write them."""

import pickle
import struct
import zipfile

MAGIC = 0x1950A86A20F9469CFC6C
CLASSES = {"f2": "HalfStorage", "f4": "FloatStorage", "f8": "DoubleStorage", "i8": "LongStorage", "u1": "ByteStorage"}


class Named:
    """What a pickle writes as `module.name`, called with arguments or alone."""

    def __init__(self, module, name, *arguments):
        self.module, self.name, self.arguments = module, name, arguments


class View:
    """A tensor: a storage, and how it is looked at; `count` is what the storage is declared to hold."""

    def __init__(self, storage, offset=0, shape=None, strides=None, count=None):
        self.storage, self.offset = storage, offset
        self.shape = storage.shape if shape is None else shape
        self.strides = (1,) if strides is None else strides
        self.count = len(storage) if count is None else count


def pickled(state, keys, legacy=False):
    """Return the pickle of {name: value}, by hand: PyTorch's classes are not here to be pickled."""

    def write(value):
        if isinstance(value, View):
            key = keys.setdefault(id(value.storage), (str(len(keys)), value.storage))[0]
            name = CLASSES[value.storage.dtype.str[1:]]
            storage = b"(" + write("storage") + b"ctorch\n" + name.encode() + b"\n" + write(key) + write("cpu")
            storage += write(value.count) + (write(None) if legacy else b"") + b"tQ"
            rest = [write(part) for part in (value.offset, value.shape, value.strides, False)]
            parts = b"(" + storage + b"".join(rest) + write(Named("collections", "OrderedDict")) + b"t"
            return b"ctorch._utils\n_rebuild_tensor_v2\n" + parts + b"R"
        if isinstance(value, Named):
            called = b"(" + b"".join(map(write, value.arguments)) + b"tR"
            return f"c{value.module}\n{value.name}\n".encode() + called
        if isinstance(value, tuple):
            return b"(" + b"".join(map(write, value)) + b"t"
        return pickle.dumps(value, 2)[2:-1]  # without its head and its end

    items = b"".join(write(name) + write(value) for name, value in state.items())
    return b"\x80\x02" + write(Named("collections", "OrderedDict")) + b"(" + items + b"u."


def write_zip(path, state, compression=zipfile.ZIP_STORED, byteorder="little"):
    keys = {}
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/data.pkl", pickled(state, keys))
        archive.writestr("model/byteorder", byteorder)
        for key, storage in keys.values():
            archive.writestr(f"model/data/{key}", storage.tobytes())


def write_legacy(path, state, little=True):
    keys = {}
    state = pickled(state, keys, legacy=True)
    body = b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": little}))
    body += state + pickle.dumps([key for key, _ in keys.values()], 2)
    for _, storage in keys.values():
        body += struct.pack("<q", len(storage)) + storage.tobytes()
    path.write_bytes(body)
