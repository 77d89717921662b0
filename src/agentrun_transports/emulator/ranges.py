"""Sending stored bytes: validators, checksums, HEAD, and a part of them on request.

The rules are those of RFC 9110: 8.8 (ETag, Last-Modified), 13.1.5 (If-Range), 14 (Range). On demand, a range
is answered wrongly: see ``misread``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Literal

from .checksums import MD5_FIELD
from .messages import FileBody, Refusal, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .messages import Request

# How a server may get a range wrong: it sends everything, or a range that begins elsewhere.
Misreading = Literal["ignored", "shifted"]

# Eighteen digits hold any length that a file can have; a longer number is a range that cannot be read.
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.I)


def http_date(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as HTTP writes it.

    >>> http_date(0)
    'Thu, 01 Jan 1970 00:00:00 GMT'
    """
    return formatdate(seconds, usegmt=True)


def etag_of(sha256: str) -> str:
    """Return the strong entity tag of the content with this hash."""
    return f'"{sha256[:32]}"'


def send_content(
    request: Request,
    read: Callable[[int, int], bytes | FileBody],
    *,
    size: int,
    sha256: str,
    checksums: Mapping[str, str],
    modified: float,
    now: float,
    content_type: str,
) -> Response:
    """Answer with the ``size`` bytes that ``read(offset, length)`` gives, or with the range that is asked
    for.

    ``checksums`` are header fields; ``modified`` and ``now`` are in seconds since the epoch. Raises
    ``Refusal`` (416) for a range that begins beyond the end.
    """
    etag, last_modified = etag_of(sha256), http_date(modified)
    headers = (
        ("Content-Type", content_type),
        ("Accept-Ranges", "bytes"),
        ("ETag", etag),
        ("Last-Modified", last_modified),
        *checksums.items(),
    )
    validator = request.header("If-Range")
    # RFC 9110 8.8.2.2: a date tells two versions apart only when it is over before the answer is made.
    dated = validator == last_modified and int(now) > int(modified)
    wanted = request.header("Range") if request.method == "GET" else None
    if wanted is None or not (validator is None or validator == etag or dated):
        return Response(status=200, headers=headers, body=read(0, size))
    match = _RANGE.fullmatch(wanted)
    # RFC 9110 14.2: a server ignores a range that it cannot read, and may ignore several at once.
    if (
        match is None
        or not (match[1] or match[2])
        or (match[1] and match[2] and int(match[1]) > int(match[2]))
    ):
        return Response(status=200, headers=headers, body=read(0, size))
    first, last = match[1], match[2]
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        beyond = ("Content-Range", f"bytes */{size}")
        raise Refusal(416, f"The content has {size} bytes; {wanted!r} lies beyond them.", headers=(beyond,))
    # RFC 7231, appendix B: nobody agrees on what Content-MD5 means in a partial answer. CRC-64 is that of the
    # whole content, as the object store sends it.
    kept = tuple(field for field in headers if field[0] != MD5_FIELD)
    part = ("Content-Range", f"bytes {start}-{stop - 1}/{size}")
    return Response(status=206, headers=(*kept, part), body=read(start, stop - start))


def misread(request: Request, how: Misreading) -> Request:
    """Return ``request`` as a server understands it that gets its range wrong.

    ``ignored``: there is none. ``shifted``: it begins one byte earlier; at the start, one byte later.

    >>> from .messages import Request
    >>> request = Request(method="GET", target="/", headers=(("Range", "bytes=7-9"),))
    >>> misread(request, "shifted").header("Range")
    'bytes=6-9'
    """
    headers = request.headers
    if how == "ignored":
        headers = tuple((name, value) for name, value in headers if name.lower() != "range")
    else:
        headers = tuple(
            (name, _shifted(value) if name.lower() == "range" else value) for name, value in headers
        )
    return replace(request, headers=headers)


def _shifted(value: str) -> str:
    match = _RANGE.fullmatch(value)
    if match is None or not match[1]:
        # The last bytes, and one more.
        return value if match is None or not match[2] else f"bytes=-{int(match[2]) + 1}"
    start = int(match[1]) - 1 if int(match[1]) else 1
    return f"bytes={start}-{max(start, int(match[2])) if match[2] else ''}"
