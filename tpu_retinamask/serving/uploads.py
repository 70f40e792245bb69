"""The body of a request, read as it comes and bounded while it does: a picture's bytes, as they are or in a form."""

from collections.abc import AsyncIterator, Callable, Mapping

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tpu_retinamask.serving.refusals import Refusal

_MOST_BOUNDARY = 200  # bytes; RFC 2046 allows 70


async def read_picture(
    chunks: AsyncIterator[bytes], headers: Mapping[str, str], most: int, take: Callable[[int], None]
) -> bytes:
    """Read the bytes of the picture that a request sends.

    Args:
      chunks: of the body.
      headers: by their names in small letters.
      most: bytes that the body may have.
      take: told of the bytes of each chunk before it is kept; may refuse them.

    Raises:
      Refusal: the body is too large, empty, compressed, or a form without a file.
    """
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise _too_large(f"a body of {declared[:20]} bytes", most)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "compressed_body", "the body is compressed", "the bytes of an image file as they are")
    kind, options = parse_options_header(headers.get("content-type", ""))
    body = _Form(options.get(b"boundary", b"")) if kind == b"multipart/form-data" else _Plain()
    read = 0
    async for chunk in chunks:
        read += len(chunk)
        if read > most:
            raise _too_large(f"a body of more than {most} bytes", most)
        take(len(chunk))
        body.write(chunk)
    picture = body.picture()
    if not picture:
        raise Refusal(400, "empty_body", "no byte of a picture was sent", "the bytes of an image file")
    return picture


class _Plain:
    """A body that is the picture, whatever kind it says it is of."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def write(self, chunk: bytes) -> None:
        self._kept += chunk

    def picture(self) -> bytes:
        return bytes(self._kept)


class _Form:
    """A form, of which the first file is the picture; nothing of it goes to the disk."""

    def __init__(self, boundary: bytes) -> None:
        if not 0 < len(boundary) <= _MOST_BOUNDARY:
            raise _bad_form("it names no boundary")
        self._kept, self._name, self._value = bytearray(), bytearray(), bytearray()
        self._wanted, self._found, self._whole = False, False, False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._add(self._name, data[start:end]),
                "on_header_value": lambda data, start, end: self._add(self._value, data[start:end]),
                "on_header_end": self._header,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._last,
            },
        )

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _bad_form("it is damaged") from error

    def picture(self) -> bytes:
        if not self._whole:
            raise _bad_form("it ends before its last boundary")
        if not self._found:
            raise _bad_form("none of its parts is a file")
        return bytes(self._kept)

    def _add(self, kept: bytearray, more: bytes) -> None:
        kept += more
        if len(kept) > 4096:
            raise _bad_form("a header of a part is longer than 4096 bytes")

    def _begin(self) -> None:
        self._wanted = False

    def _header(self) -> None:
        if bytes(self._name).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._wanted = b"filename" in options and not self._found
        self._name.clear()
        self._value.clear()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self._kept += data[start:end]

    def _end(self) -> None:
        self._found = self._found or self._wanted

    def _last(self) -> None:
        self._whole = True


def _too_large(what: str, most: int) -> Refusal:
    return Refusal(413, "body_too_large", what, f"at most {most} bytes")


def _bad_form(what: str) -> Refusal:
    return Refusal(
        400,
        "bad_form",
        f"the multipart form cannot be read: {what}",
        "multipart/form-data with one file: -F image=@FILE",
    )
