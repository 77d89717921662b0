"""What callers send that is no value: open files and iterators, as sources that are read while they are sent.

Rules of this file: what the caller opened, the caller closes; a length that can be known is known; what
cannot be read twice says so.
"""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from agentrun_proto import FilePart, Source

if TYPE_CHECKING:
    from mimetypes import MimeTypes

_VALUES = (dict, list, tuple, str, bytes, bytearray, memoryview, type(None))
_OCTETS = "application/octet-stream"


@cache
def _types() -> MimeTypes:
    """Python's own table: what a machine has installed must not matter. Made when it is first needed."""
    from mimetypes import MimeTypes

    return MimeTypes(filenames=())


def as_data(data: object) -> object:
    """What a caller gives as `data`: a value as it is, anything else as a source.

    Raises:
        TypeError: nothing that can be sent, such as a file that is open as text.
    """
    if isinstance(data, _VALUES):
        return cast("object", data)
    return as_source(data)


def as_source(content: object) -> Source:
    """An open binary file, an iterable or an async iterable of bytes, as a source.

    Raises:
        TypeError: it is none of these.

    >>> source = as_source(iter([b"ab", b"", b"cd"]))
    >>> source.read(3), source.read(3), source.read(3), source.length
    (b'abc', b'd', b'', None)
    """
    kind = type(content).__name__
    if isinstance(content, (bytes, bytearray, memoryview)):
        return OpenFile(io.BytesIO(cast("bytes | bytearray | memoryview[int]", content)))
    if isinstance(content, io.TextIOBase):
        raise TypeError("a file to be sent is open in binary mode: open(path, 'rb')")
    if hasattr(content, "read"):
        return OpenFile(content)
    if isinstance(content, AsyncIterable):
        return AsyncPieces(cast("AsyncIterable[bytes]", content))
    if isinstance(content, Iterable) and not isinstance(content, (str, Mapping, AbstractSet)):
        return Pieces(cast("Iterable[bytes]", content))
    raise TypeError(
        f"what is sent is a dict, list, str, bytes, an open binary file or an iterable of bytes, not {kind}"
    )


def as_target(target: Any) -> str | BinaryIO:
    """What a caller gives to save content in: a path, or an open binary file.

    Raises:
        TypeError: it is neither.
    """
    given: Any = target.__fspath__() if hasattr(target, "__fspath__") else target
    if isinstance(given, str):
        return given
    if isinstance(given, io.TextIOBase):
        raise TypeError("a file to save content in is open in binary mode: open(path, 'wb')")
    if not hasattr(given, "write"):
        kind = type(given).__name__
        raise TypeError(f"content is saved at a path or in an open binary file, not {kind}")
    file: BinaryIO = given
    return file


def name_of(file: object) -> str | None:
    """The name of an open file, if it has one."""
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else None


def file_part(name: str, content: object) -> FilePart:
    """A part of a form.

    Args:
        name: the field's.
        content: the path of a local file; bytes, an open binary file or an iterable of bytes; or one of these
            with its file name and, if need be, its content type: ``(filename, content[, content_type])``.

    Raises:
        TypeError: it is none of these.
    """
    filename: str | None = None
    content_type: str | None = None
    if isinstance(content, tuple):
        parts = cast("Sequence[Any]", content)
        if not 2 <= len(parts) <= 3 or not all(isinstance(told, str) for told in (parts[0], *parts[2:])):
            raise TypeError(
                "a file with its name is (filename, content) or (filename, content, content_type)"
            )
        filename, content, *rest = parts
        content_type = rest[0] if rest else None
    if isinstance(content, (str, os.PathLike)):
        path = os.fsdecode(cast("str | os.PathLike[str]", content))
        source: Source | str = path
        filename = filename or os.path.basename(path)
    else:
        source = as_source(content)
        told = getattr(content, "name", None)
        filename = filename or (os.path.basename(told) if isinstance(told, str) else name)
    guessed, coding = _types().guess_type(f"./{filename}")  # a path: "data:a/b,c" would be a URL with a type
    return FilePart(
        name=name,
        filename=filename,
        source=source,
        content_type=content_type or (_OCTETS if coding else guessed or _OCTETS),
    )


class OpenFile:
    """An open binary file, from where it stands; the caller closes it."""

    __slots__ = ("_file", "_start", "length", "replayable")

    def __init__(self, file: Any) -> None:
        self._file = file
        self._start = 0
        self.length: int | None = None
        try:
            self.replayable = bool(file.seekable())
            if self.replayable:
                self._start = file.tell()
                file.seek(0, os.SEEK_END)
                self.length = max(file.tell() - self._start, 0)
                file.seek(self._start)
        except (AttributeError, OSError):
            self.replayable, self.length = False, None

    def read(self, size: int, /) -> bytes:
        """At most `size` further bytes; ``b""`` at the end."""
        return _checked(self._file.read(size))

    def rewind(self) -> None:
        """Goes back to where it stood."""
        self._file.seek(self._start)

    def close(self) -> None:
        """Leaves it to the caller."""


class Pieces:
    """An iterable of bytes; one that is not its own iterator can be iterated over again."""

    __slots__ = ("_iterable", "_iterator", "_rest", "replayable")

    length = None

    def __init__(self, iterable: Iterable[bytes]) -> None:
        self._iterable = iterable
        self._iterator: Iterator[bytes] = iter(iterable)
        self._rest = b""
        self.replayable = self._iterator is not iterable

    def read(self, size: int, /) -> bytes:
        """At most `size` further bytes; small pieces are put together."""
        pieces, count = [self._rest], len(self._rest)
        while count < size:
            piece = next(self._iterator, None)
            if piece is None:
                break
            pieces.append(_checked(piece))
            count += len(piece)
        joined = b"".join(pieces)
        self._rest = joined[size:]
        return joined[:size]

    def rewind(self) -> None:
        """Iterates anew."""
        self._iterator, self._rest = iter(self._iterable), b""

    def close(self) -> None:
        """Leaves it to the caller."""


class AsyncPieces:
    """An async iterable of bytes. It is sent piece by piece: the next may be long in coming."""

    __slots__ = ("_iterator", "_rest")

    length = None
    replayable = False

    def __init__(self, iterable: AsyncIterable[bytes]) -> None:
        self._iterator: AsyncIterator[bytes] = aiter(iterable)
        self._rest = b""

    async def read(self, size: int, /) -> bytes:
        """At most `size` further bytes; ``b""`` at the end."""
        while not self._rest:
            piece = await anext(self._iterator, None)
            if piece is None:
                return b""
            self._rest = _checked(piece)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def rewind(self) -> None:
        """Cannot be."""
        raise OSError(None, "an async iterator cannot be read again")

    def close(self) -> None:
        """Leaves it to the caller."""


def _checked(piece: object) -> bytes:
    if not isinstance(piece, (bytes, bytearray, memoryview)):
        raise TypeError(f"what is sent consists of bytes, not of {type(piece).__name__}")
    return bytes(cast("bytes | bytearray | memoryview[int]", piece))
