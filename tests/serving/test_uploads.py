"""Bodies, chunk by chunk: what is taken for the picture, and what is refused before it is kept."""

import asyncio

import pytest

from tpu_retinamask.serving.refusals import Refusal
from tpu_retinamask.serving.uploads import read_picture

FORM = (
    b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    b"\x89PNG\r\n--y\r\n\x00\r\n"
    b'--x\r\nContent-Disposition: form-data; name="second"; filename="b.png"\r\n\r\nother\r\n--x--\r\n'
)
MULTIPART = {"content-type": "multipart/form-data; boundary=x"}


def _read(body, headers=None, *, most=1000, chunk=7, take=lambda count: None):
    async def chunks():
        for start in range(0, len(body), chunk):
            yield body[start : start + chunk]

    return asyncio.run(read_picture(chunks(), headers or {}, most, take))


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_first_file_of_a_form_is_the_picture(chunk):
    assert _read(FORM, MULTIPART, chunk=chunk) == b"\x89PNG\r\n--y\r\n\x00"


@pytest.mark.parametrize("kind", ["image/png", "application/x-www-form-urlencoded", ""])
def test_any_other_body_is_the_picture(kind):
    assert _read(FORM, {"content-type": kind}) == FORM


@pytest.mark.parametrize(
    "body, headers, status, code, words",
    [
        (b"", {}, 400, "empty_body", "no byte"),
        (b"a" * 1001, {}, 413, "body_too_large", "more than 1000 bytes"),
        (b"a", {"content-length": "1001"}, 413, "body_too_large", "a body of 1001 bytes"),
        (b"a", {"content-length": "9" * 5000}, 413, "body_too_large", "a body of 99999999999999999999 bytes"),
        (b"a", {"content-encoding": "gzip"}, 415, "compressed_body", "compressed"),
        (FORM, {"content-type": "multipart/form-data"}, 400, "bad_form", "no boundary"),
        (FORM, {"content-type": f"multipart/form-data; boundary={'x' * 201}"}, 400, "bad_form", "no boundary"),
        (b"nothing of a form", MULTIPART, 400, "bad_form", "damaged"),
        (FORM[:-6], MULTIPART, 400, "bad_form", "before its last boundary"),
        (FORM[:60] + b"\r\n--x--\r\n", MULTIPART, 400, "bad_form", "none of its parts is a file"),
        (b"--x\r\nA: " + b"a" * 5000, {**MULTIPART, "most": "9"}, 400, "bad_form", "header of a part|damaged"),
        (FORM.replace(b"\x89PNG\r\n--y\r\n\x00", b""), MULTIPART, 400, "empty_body", "no byte"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(body, headers, status, code, words):
    with pytest.raises(Refusal, match=words) as refusal:
        _read(body, headers, most=9000 if "most" in headers else 1000, chunk=100)
    assert (refusal.value.status, refusal.value.code) == (status, code)
    assert set(refusal.value.content()["error"]) == {"code", "what", "expected"}


def test_no_more_is_read_than_is_allowed():
    taken = []
    with pytest.raises(Refusal):
        _read(b"a" * 5000, most=1000, chunk=300, take=taken.append)
    assert taken == [300, 300, 300]
