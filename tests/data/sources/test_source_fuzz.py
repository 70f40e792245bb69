"""Whatever is written into the files of a tool, a source reads it or says what is wrong: nothing else is ever raised.

SOURCE_FUZZ_EXAMPLES=100000 SOURCE_FUZZ_SECONDS=120 looks for longer, at other examples each time.
"""

import contextlib
import os
import pathlib
import re
import shutil
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.tool_writers import OUTLINES, PIXELS, written

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.sources.opening import read_source
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.errors import UserError

EXAMPLES = int(os.environ.get("SOURCE_FUZZ_EXAMPLES", "30"))
SECONDS = float(os.environ.get("SOURCE_FUZZ_SECONDS", "0"))
KINDS = [(name, False) for name in OUTLINES] + [(name, True) for name in PIXELS]

TOKEN = re.compile(rb'"[^"]*"|>[^<]+<|[-+\w.]+')
ODD = [
    b"", b"0", b"-1", b"1", b"3", b"99", b"1e5", b"1e308", b"-1e308", b"1e400", b"NaN", b"-Infinity", b"0.0000001",
    b"null", b"true", b"[]", b"{}", b"[[]]", b'""', b'"x"', b'"cat"', b'"\\u0000"', b'"\\ud800"', b'"../../a.png"',
    b'"a.png"', b'"\\\\"', b"9" * 400, b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b'"' + b"y" * 300 + b'"', b"\xff",
    b"\x00", b"&lt;", b"<a>", b"</object>", b"polygon", b"rectangle", b"mask", b"circle", b"\n", b"#", b",", b":",
    b"*a", b"&a", b"!!python", b"!!int ''", b"!!bool x", b"- - - ",
]  # fmt: skip


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}{' pixels' if kind[1] else ''}")
def case(request, tmp_path_factory):
    """(path for --annotations, source, the files that may be changed)."""
    name, pixels = request.param
    folder = tmp_path_factory.mktemp("fuzz")
    path, source = written(name, folder, pixels)
    whole = sorted(file for file in folder.rglob("*") if file.is_file())
    files = [file for file in whole if file.suffix != ".png" or "Segmentation" in str(file)]
    yield path, source, {file: file.read_bytes() for file in files}
    shutil.rmtree(folder)


class _TimeIsUp(KeyboardInterrupt):
    """Ends the search: hypothesis takes it for no fault of an example."""


@st.composite
def changed(draw, data):
    """Bytes with one to three changes: of a token, of a stretch, of a byte."""
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["token", "token", "token", "swap", "cut", "double", "byte"]))
        tokens = list(TOKEN.finditer(data))
        if kind in ("token", "swap") and tokens:
            at = draw(st.integers(0, len(tokens) - 1))
            other = tokens[draw(st.integers(0, len(tokens) - 1))][0] if kind == "swap" else draw(st.sampled_from(ODD))
            start, end = tokens[at].span()
            if tokens[at][0].startswith(b">"):
                start, end = start + 1, end - 1
            data = data[:start] + other + data[end:]
            continue
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        end = min(start + draw(st.integers(1, 60)), len(data))
        if kind == "cut":
            data = data[:start] + data[end:]
        elif kind == "double":
            data = data[:end] + data[start:end] + data[end:]
        else:
            data = data[:start] + bytes([draw(st.integers(0, 255))]) + data[start + 1 :]
    return data


def read_or_refuse(path, source, on_bad_record):
    """Read and scan a path; what a person is to be told is told."""
    for other in SOURCES.names():
        SOURCES.get(other).recognise(path)
    reading = SourceSettings(on_bad_record=on_bad_record, allow_empty=True)
    given_classes = ClassNames(("cat", "dog")) if on_bad_record == "skip" else None
    try:
        content = read_source(path, given_classes, source, ReadOptions(reading))
        for image in content.images:
            for instance in image.instances:
                assert all(isinstance(edge, float | int) for edge in instance.box)
                str(instance.mask)
        content.classes.to_csv().encode()
        scan_images(content.images, on_bad_record=on_bad_record, threads=1)
    except (UserError, FileNotFoundError) as error:
        str(error).encode()


def test_changed_files_are_read_or_refused(case):
    path, source, files = case
    end = time.monotonic() + SECONDS

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=SECONDS == 0,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data):
        if SECONDS and time.monotonic() > end:
            raise _TimeIsUp
        file = data.draw(st.sampled_from(sorted(files)))
        pathlib.Path(file).write_bytes(data.draw(changed(files[file])))
        try:
            read_or_refuse(path, source, data.draw(st.sampled_from(["stop", "skip"])))
        finally:
            pathlib.Path(file).write_bytes(files[file])

    with contextlib.suppress(_TimeIsUp):
        check()
