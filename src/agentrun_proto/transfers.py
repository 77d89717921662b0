"""Downloads: content that is saved whole or not at all, and goes on where it was interrupted.

Rules of this file: what is saved is what the service says it is, by its length and its checksums; the parts
of one file are of one version of it, by its validator (RFC 9110, 13.1.5 and 14).
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from functools import partial
from typing import BinaryIO

from .commands import Commit, Flow, OpenSink, Prepare, Progress, ReadInto, Sink
from .context import Context
from .decoding import http_date, is_json, nonsense, refusal
from .errors import DecodeError, IncompleteError, RangeNotSatisfiableError
from .flows import perform, read_content
from .messages import Head, Headers, Request

# RFC 9110, 14.4: of a part, and of what has no such part.
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,15})")

# More digits than a number of 64 bits has are no length and no checksum.
_NUMBER = re.compile(r"[0-9]{1,20}")

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")

MAX_CRC64 = 4 * 1024 * 1024
"""Bytes up to which a CRC-64 is checked: in Python that takes about a second for 8 MB."""


def check_sha256(value: str) -> str:
    """The checksum, in lower case.

    Raises:
        ValueError: it is no SHA-256 in hexadecimal digits.
    """
    if not _SHA256.fullmatch(value):
        raise ValueError("sha256 is a checksum of 64 hexadecimal digits")
    return value.lower()


def download(
    context: Context,
    path: str | BinaryIO,
    request: Request,
    *,
    resume: bool,
    sha256: str | None,
    progress: Progress | None,
) -> Flow[int]:
    """Saves the answer at a local path, whole or not at all, as it is stored; returns its size in bytes.

    An open file is written to from where it stands, and holds what had come when that fails.

    A refusal, JSON, and a part of a file that was asked for whole are errors; the old file then stays. Where
    the connection breaks, the rest is asked for, as long as each attempt brings something.
    """
    sink = yield from OpenSink(path, request.url if resume else None)
    try:
        saving = _Saving(sink, request, sha256, progress)
        fetch = partial(
            perform,
            context,
            request,
            saving.receive,
            deadline=context.deadline(),
            prepare=saving.next_request,
            gained=saving.gained,
        )
        try:
            yield from fetch()
        except RangeNotSatisfiableError:
            if not saving.asked:
                raise
            saving.validator = None  # what is here is of another version: from the start, then
            yield from fetch()
        saving.check()
        yield from Commit(sink)
        return sink.size
    finally:
        sink.discard()


class _Saving:
    """What is known of the content while it is being saved."""

    def __init__(self, sink: Sink, request: Request, sha256: str | None, progress: Progress | None) -> None:
        self._sink = sink
        self._progress = progress
        self._whole = "range" not in request.headers  # else the caller wants a part, and has it as it comes
        self._sha256 = sha256
        self._checksums: dict[str, bytes] = {}
        self.validator = sink.validator
        """Tells the version of what the sink holds."""
        self.asked = False
        """Whether the last attempt asked for the rest only."""
        self._before = 0  # what the sink held before it

    def next_request(self, request: Request) -> Request:
        """The request for what is missing."""
        self._before = self._sink.size
        self.asked = bool(self._whole and self.validator and self._sink.size)
        if not self.asked:
            return request
        return request.with_fields({"Range": f"bytes={self._sink.size}-", "If-Range": self.validator or ""})

    def gained(self) -> bool:
        """Whether the last attempt brought something that the next one can go on from."""
        return self._whole and self.validator is not None and self._sink.size > self._before

    def receive(self, head: Head) -> Flow[None]:
        """Takes what an answer brings."""
        if head.status == 416 and self.asked and self._is_complete(head):
            yield from read_content(head)
            size = self._sink.size
            yield from self._prepare(size)  # an earlier call's bytes have met no checksum in this one
            if self._progress is not None:
                self._progress(size, size)
            return
        if not 200 <= head.status < 300:
            raise refusal(head, (yield from read_content(head)))
        if is_json(head.headers.get("content-type", "")):
            content = yield from read_content(head)
            raise nonsense(head, content, "the service answered with JSON, which is no file")
        start, total = self._place(head)
        if not start:
            self.validator = _validator(head.headers)
            self._checksums = _checksums(head.headers, total) if self._whole else {}
        yield from self._prepare(start)
        size = yield from ReadInto(self._sink, total, self._progress)
        if total is not None and size < total:
            raise IncompleteError(f"the service sent {size} of {total} bytes")
        if total is not None and size > total:
            self._sink.spoil()
            raise nonsense(head, b"", f"the service sent more than the {total} bytes that it told of")

    def _prepare(self, size: int) -> Flow[None]:
        wanted = {*self._checksums, *(("sha256",) if self._sha256 else ())}
        yield from Prepare(self._sink, size, self.validator, tuple(sorted(wanted)))

    def _is_complete(self, head: Head) -> bool:
        match = _UNSATISFIED.fullmatch(head.headers.get("content-range", ""))
        return match is not None and int(match[1]) == self._sink.size

    def _place(self, head: Head) -> tuple[int, int | None]:
        """Where the content of this answer belongs, and how large the whole is."""
        headers = head.headers
        if head.status == (200 if self._whole else 206):
            length = headers.get("content-length", "")
            return 0, int(length) if _NUMBER.fullmatch(length) else None
        if head.status != 206 or not self.asked:
            raise nonsense(
                head, b"", f"the service answered with status {head.status}, not with the whole file"
            )
        match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if match is None or int(match[1]) != self._sink.size:
            raise nonsense(head, b"", "the service sent another part of the file than was asked for")
        tag = headers.get("etag")
        if tag is not None and (self.validator or "").startswith('"') and tag != self.validator:
            self._sink.spoil()  # else the next call would ask for the rest of it again
            raise nonsense(head, b"", "the service sent a part of another version of the file")
        return self._sink.size, None if match[3] == "*" else int(match[3])

    def check(self) -> None:
        """Compares the checksums.

        Raises:
            DecodeError: what arrived is not what the service, or the caller, says it is.
        """
        expected = dict(self._checksums)
        if self._sha256:
            expected["sha256"] = bytes.fromhex(self._sha256)
        for name, value in expected.items():
            if self._sink.digest(name) != value:
                self._sink.spoil()
                raise DecodeError(
                    f"what arrived is damaged, or another file: its {name} is not {value.hex()}"
                )


def _validator(headers: Headers) -> str | None:
    """What an ``If-Range`` may hold: a strong ETag, or a date that is strong (RFC 9110, 8.8.2.2)."""
    tag = headers.get("etag", "")
    if re.fullmatch(r'"[!#-~\x80-\xff]*"', tag):
        return tag
    modified = headers.get("last-modified", "")
    then, now = http_date(modified), http_date(headers.get("date", ""))
    return modified if then is not None and now is not None and now - then >= 1 else None


def _checksums(headers: Headers, total: int | None) -> dict[str, bytes]:
    """The checksums of the whole content that an answer with the whole content tells."""
    found: dict[str, bytes] = {}
    try:
        md5 = a2b_base64(headers.get("content-md5", ""))
    except ValueError:  # also for what is not ASCII
        md5 = b""
    if len(md5) == 16:
        found["md5"] = md5
    crc64 = headers.get("x-oss-hash-crc64ecma", "")
    if _NUMBER.fullmatch(crc64) and int(crc64) < 2**64 and total is not None and total <= MAX_CRC64:
        found["crc64ecma"] = int(crc64).to_bytes(8, "big")
    return found
