"""Checksums of stored content, as header fields: which are kept is said by the upload that brings it.

Rules that hold here:
1. A checksum is worked out once, while the content is written, and stored with it: a download costs nothing.
2. MD5 is kept unless the upload says otherwise. CRC-64 is kept on request alone: in Python, it takes a second
   for every ten megabytes.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import md5
from typing import TYPE_CHECKING

from .messages import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .messages import Request

# What an upload says about them: a list of names, or "none".
CHECKSUM_FIELD = "x-emulator-checksum"
MD5_FIELD, CRC64_FIELD = "Content-MD5", "x-oss-hash-crc64ecma"
NAMES = ("md5", "crc64")
DEFAULT = ("md5",)

# ECMA-182's polynomial, its bits reversed, as the object store takes it (CRC-64/XZ).
_POLYNOMIAL = 0xC96C5795D7870F42
_ONES = 0xFFFFFFFFFFFFFFFF


def wanted(request: Request) -> tuple[str, ...]:
    """Return the names of the checksums that an upload wants to be kept. Raises ``Refusal`` (400)."""
    text = request.header(CHECKSUM_FIELD)
    if text is None:
        return DEFAULT
    if text == "none":
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not set(names) <= set(NAMES):
        raise Refusal(400, f"{CHECKSUM_FIELD} is a list of {', '.join(NAMES)}, or none, and is {text!r}.")
    return names


@cache
def _table() -> tuple[int, ...]:
    table: list[int] = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


def crc64(data: bytes | memoryview, value: int = 0) -> int:
    """Return the CRC-64 of what has the CRC-64 ``value``, followed by ``data``.

    >>> hex(crc64(b"123456789")), crc64(b"6789", crc64(b"12345")) == crc64(b"123456789")
    ('0x995dc9bbdf1939fa', True)
    """
    table = _table()
    value ^= _ONES
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ _ONES


class Checksums:
    """The checksums of content on its way in.

    >>> checksums = Checksums(["md5", "crc64"])
    >>> checksums.update(b"123456789")
    >>> checksums.fields()
    {'Content-MD5': 'JfnnlDI7RTiF9RgfG2JNCw==', 'x-oss-hash-crc64ecma': '11051210869376104954'}
    """

    def __init__(self, names: Iterable[str] = DEFAULT) -> None:
        self._names = frozenset(names)
        # RFC 1864: it tells damage, not malice.
        self._md5 = md5(usedforsecurity=False)
        self._crc64 = 0

    def update(self, data: bytes | memoryview) -> None:
        """Add bytes."""
        if "md5" in self._names:
            self._md5.update(data)
        if "crc64" in self._names:
            self._crc64 = crc64(data, self._crc64)

    def fields(self) -> dict[str, str]:
        """Return the header fields that say what the checksums are."""
        fields: dict[str, str] = {}
        if "md5" in self._names:
            fields[MD5_FIELD] = b64encode(self._md5.digest()).decode("ascii")
        if "crc64" in self._names:
            fields[CRC64_FIELD] = str(self._crc64)
        return fields


def falsified(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return ``headers`` with checksums that are well formed, and of other content.

    >>> falsified([(CRC64_FIELD, "1"), ("ETag", "x")])
    (('x-oss-hash-crc64ecma', '2'), ('ETag', 'x'))
    """
    return tuple((name, _false(name, value)) for name, value in headers)


def _false(name: str, value: str) -> str:
    if name == MD5_FIELD:
        return ("B" if value.startswith("A") else "A") + value[1:]
    return str((int(value) + 1) & _ONES) if name == CRC64_FIELD else value
