"""Reading a multipart/form-data body from a file, part by part, holding none of the files in memory.

Rules that hold here:
1. RFC 7578, written as browsers do (WHATWG HTML, "multipart form data"): names and file names are UTF-8 in
   quotes, with CR, LF and ``"`` as ``%0D``, ``%0A`` and ``%22`` and no other escape; a backslash is a
   backslash.
2. Strict: what is not well formed is refused (400), with the reason. Nothing is skipped or guessed.
3. A part with a file name goes to a blob as it is read; a part without one is a field, bounded in size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO
from typing import IO, TYPE_CHECKING

from .messages import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from .store import BlobWriter, Stored

_CHUNK = 1 << 20
_MAX_HEAD = 16 << 10
_MAX_FIELD = 1 << 20
_MAX_PARTS = 1000

# RFC 2046 5.1.1: the characters of a boundary; it is quoted where it is no token.
_BOUNDARY = re.compile(
    r"""multipart/form-data\s*;\s*boundary=("?)([0-9A-Za-z'()+_,./:=? -]{1,70}(?<! ))\1""", re.I
)
_DISPOSITION = re.compile(r'form-data; name="([^"]*)"(?:; filename="([^"]*)")?', re.I)
_ESCAPES = {"%0D": "\r", "%0A": "\n", "%22": '"'}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part: a field, whose ``value`` is text, or a file, whose content is ``stored``."""

    name: str
    file_name: str | None = None
    content_type: str | None = None
    value: str = ""
    stored: Stored | None = None


def boundary_of(content_type: str | None) -> bytes:
    """Return the boundary that a Content-Type names.

    Raises ``Refusal`` (400) where it is not multipart/form-data with a boundary.

    >>> boundary_of('multipart/form-data; boundary="a b"')
    b'a b'
    """
    match = _BOUNDARY.fullmatch(content_type or "")
    if match is None:
        raise Refusal(
            400, f"Content-Type must be multipart/form-data with a boundary, and is {content_type!r}."
        )
    return match[2].encode("ascii")


def read_parts(body: IO[bytes], boundary: bytes, new_file: Callable[[], BlobWriter]) -> list[Part]:
    """Read all parts of ``body``; ``new_file`` begins a blob for each part that has a file name.

    Raises ``Refusal`` (400; 413 where a field or a head is too long). On a refusal, the blobs that were
    begun are discarded.
    """
    reader = _Reader(body, boundary)
    parts: list[Part] = []
    writers: list[BlobWriter] = []
    try:
        reader.open()
        while reader.more():
            if len(parts) == _MAX_PARTS:
                raise Refusal(413, f"The form has more than {_MAX_PARTS} parts.")
            name, file_name, content_type = _parse_head(reader.head())
            if file_name is None:
                field = _Field(name)
                reader.content(field.write)
                parts.append(Part(name=name, content_type=content_type, value=field.text()))
                continue
            writer = new_file()
            writers.append(writer)
            reader.content(writer.write)
            stored = writer.finish()
            parts.append(Part(name=name, file_name=file_name, content_type=content_type, stored=stored))
    except BaseException:
        for writer in writers:
            writer.discard()
        raise
    return parts


class _Field:
    """The value of a part that is no file: UTF-8, and short."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._data = BytesIO()

    def write(self, data: bytes | memoryview) -> None:
        if self._data.tell() + len(data) > _MAX_FIELD:
            raise Refusal(413, f"Field {self._name!r} is longer than {_MAX_FIELD} bytes; send it as a file.")
        self._data.write(data)

    def text(self) -> str:
        try:
            return self._data.getvalue().decode("utf-8")
        except UnicodeDecodeError:
            raise Refusal(400, f"Field {self._name!r} is not UTF-8; send it as a file.") from None


class _Reader:
    """Finds the delimiters. The buffer holds at most two chunks."""

    def __init__(self, body: IO[bytes], boundary: bytes) -> None:
        self._body = body
        self._delimiter = b"\r\n--" + boundary
        # The first delimiter has no line end before it where the body begins with it.
        self._buffer = bytearray(b"\r\n")

    def _fill(self) -> None:
        data = self._body.read(_CHUNK)
        if not data:
            raise Refusal(400, "The form ends before its closing boundary.")
        self._buffer += data

    def _need(self, count: int) -> None:
        while len(self._buffer) < count:
            self._fill()

    def open(self) -> None:
        self._need(len(self._delimiter))
        if not self._buffer.startswith(self._delimiter):
            raise Refusal(400, "The form does not begin with the boundary that Content-Type names.")
        del self._buffer[: len(self._delimiter)]

    def more(self) -> bool:
        """Read what follows a delimiter: a line end where a part comes, two hyphens at the end."""
        self._need(2)
        mark = bytes(self._buffer[:2])
        del self._buffer[:2]
        if mark == b"\r\n":
            return True
        while len(self._buffer) <= 2 and (data := self._body.read(3)):
            self._buffer += data
        if mark == b"--" and bytes(self._buffer) in (b"", b"\r\n"):
            return False
        raise Refusal(
            400, "A boundary is followed by something that is neither a line end nor the end of the form."
        )

    def head(self) -> bytes:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0 and len(self._buffer) <= _MAX_HEAD:
            self._fill()
        if not 0 <= end <= _MAX_HEAD:
            raise Refusal(413, f"The head of a part is longer than {_MAX_HEAD} bytes.")
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        return head

    def content(self, write: Callable[[bytes | memoryview], None]) -> None:
        while (end := self._buffer.find(self._delimiter)) < 0:
            # The tail may be the first bytes of a delimiter.
            sure = max(0, len(self._buffer) - len(self._delimiter) + 1)
            self._pass_on(sure, write)
            self._fill()
        self._pass_on(end, write)
        del self._buffer[: len(self._delimiter)]

    def _pass_on(self, count: int, write: Callable[[bytes | memoryview], None]) -> None:
        with memoryview(self._buffer) as view, view[:count] as part:
            write(part)
        del self._buffer[:count]


def _parse_head(head: bytes) -> tuple[str, str | None, str | None]:
    """Return the name, the file name and the content type that a part's head gives."""
    try:
        lines = head.decode("utf-8").split("\r\n")
    except UnicodeDecodeError:
        raise Refusal(400, "The head of a part is not UTF-8.") from None
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if (
            not colon
            or not re.fullmatch(r"[A-Za-z0-9-]+", name)
            or name.lower() in fields
            or "\r" in line
            or "\n" in line
        ):
            raise Refusal(400, f"The head of a part has a line that is no field, or stands twice: {line!r}.")
        fields[name.lower()] = value.strip(" \t")
    match = _DISPOSITION.fullmatch(fields.get("content-disposition", ""))
    if match is None:
        raise Refusal(
            400,
            'A part needs Content-Disposition: form-data; name="..." (and filename="..."), with quotes '
            f"inside written as %22; it has {fields.get('content-disposition')!r}.",
        )
    return _unescape(match[1]), None if match[2] is None else _unescape(match[2]), fields.get("content-type")


def _unescape(text: str) -> str:
    return re.sub(r"%0D|%0A|%22", lambda match: _ESCAPES[match[0]], text)
