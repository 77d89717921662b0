"""Content codings (RFC 9110, 8.4): taken off piece by piece, within bounds.

What the standard library has is here from the start: gzip and deflate. What else a process can take off, it
`offer`s, once, before it makes its endpoints: then it is asked for, too.

Rules of this file: what comes out comes in pieces, and a little of what comes in never makes more than a
bounded amount of it at a time; damage and excess are errors, and so is an end that comes too early.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

PIECE = 256 * 1024
"""The most bytes that come out at a time."""

MAX_RATIO = 1100
"""How many bytes one may become. Deflate makes at most 1032 of one, other codings could make millions."""

_FREE = 1024 * 1024  # bytes for which nobody asks what they were made of
_SLICE = 65536  # what goes in at a time: what follows the end of a member is copied
_MAX_MEMBERS = 100  # more than two have no honest use in an answer


class CodingError(ValueError):
    """Content cannot be freed of its coding; the message says why."""


class Inflater(Protocol):
    """Takes one coding off, of one member or frame."""

    @property
    def eof(self) -> bool:
        """Whether it has come to the end."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What came after the end."""
        ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """At most so many bytes of what was given; ``b""`` where that takes more of it.

        Raises:
            Exception: the data is damaged; of any class but a `MemoryError`.
        """
        ...


class _Zlib:
    """zlib's own, which hands back what it has not got to, and wants it again."""

    __slots__ = ("_inflater", "_rest")

    def __init__(self, window_bits: int) -> None:
        self._inflater = zlib.decompressobj(window_bits)
        self._rest = b""

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        found = self._inflater.decompress(self._rest + data if self._rest else data, max_length)
        self._rest = self._inflater.unconsumed_tail
        return found


_OPEN: dict[str, Callable[[], Inflater]] = {
    "gzip": lambda: _Zlib(31),
    "deflate": lambda: _Zlib(15),
}
_ALIASES = {"x-gzip": "gzip"}  # RFC 9110, 8.4.1.3
_IN_MEMBERS = {"gzip", "zstd"}  # RFC 1952, 2.2; RFC 8878, 3


def offer(name: str, make: Callable[[], Inflater]) -> None:
    """Has a coding asked for and taken off, in all endpoints that this process makes from now on.

    Args:
        name: as it is registered (IANA, HTTP content codings), in lower case.
        make: makes an inflater.
    """
    _OPEN[name] = make


def accept_encoding() -> str:
    """What can be taken off, as the value of ``Accept-Encoding``."""
    return ", ".join(_OPEN)


class ContentDecoder:
    """Takes a coding off content that comes in pieces.

    Args:
        coding: the value of ``Content-Encoding``.

    Raises:
        CodingError: a coding that was not asked for, or more than one.

    >>> decoder = ContentDecoder("gzip")
    >>> import gzip
    >>> b"".join(decoder.feed(gzip.compress(b"hello")))
    b'hello'
    >>> decoder.end()
    """

    __slots__ = ("_begun", "_inflater", "_made", "_members", "_name", "_start", "_taken")

    def __init__(self, coding: str) -> None:
        name = coding.strip().lower()
        self._name = _ALIASES.get(name, name)
        if self._name not in _OPEN:
            raise CodingError(f"the answer has a content coding that was not asked for: {name[:300]}")
        self._inflater = _OPEN[self._name]()
        self._members = 1
        self._begun = False
        self._start = b""
        self._taken = self._made = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes become, in pieces of at most `PIECE` bytes.

        Raises:
            CodingError: they are damaged, or become too much.
        """
        if not self._begun:
            self._start += data
            if len(self._start) < 2 and self._name == "deflate":
                return
            data = self._start
            self._begin(data)
        for offset in range(0, len(data), _SLICE):
            yield from self._inflate(data[offset : offset + _SLICE])

    def _begin(self, data: bytes) -> None:
        self._begun = True
        self._start = b""
        # RFC 9110, 8.4.1.2: a zlib stream; some servers send a bare deflate stream all the same.
        if self._name == "deflate" and not (data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0):
            self._inflater = _Zlib(-15)

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        self._taken += len(data)
        while True:
            if self._inflater.eof:
                if not data:
                    return
                self._next_member()
            piece = self._decompress(data)
            data = self._inflater.unused_data if self._inflater.eof else b""
            if piece:
                self._made += len(piece)
                if self._made > max(_FREE, self._taken * MAX_RATIO):
                    raise CodingError(f"the answer's {self._name} coding is a bomb: it grows beyond measure")
                yield piece
            elif not data:
                return

    def _decompress(self, data: bytes) -> bytes:
        try:
            return self._inflater.decompress(data, PIECE)
        except MemoryError:
            raise
        except Exception as error:
            complaint = self._damaged(str(error))
        raise complaint

    def _next_member(self) -> None:
        self._members += 1
        if self._name not in _IN_MEMBERS or self._members > _MAX_MEMBERS:
            raise self._damaged("bytes follow its end")
        self._inflater = _OPEN[self._name]()

    def end(self) -> None:
        """The content is over.

        Raises:
            CodingError: too early.
        """
        nothing = not self._taken and not self._start  # as in the answer to a HEAD
        if not self._inflater.eof and not nothing:
            raise self._damaged("it ends too early")

    def _damaged(self, why: str) -> CodingError:
        return CodingError(f"the answer's {self._name} coding is damaged: {why}")
