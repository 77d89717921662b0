"""An answer of any head and content becomes the object that strict JSON says it is, or the documented error
of its status, within its bound.

An input is three groups: the status, the field lines, the content.
"""

from __future__ import annotations

import gzip
import json
import pickle
import zlib
from collections.abc import Iterator
from typing import Any

from agentrun_proto import AgentRunClientError, DecodeError, Head, Headers, decode
from agentrun_proto.decoding import Response, retry_after, take_off_coding
from agentrun_proto.errors import error_class
from fuzz.inputs import GROUP, groups, joined, only
from hostile import ROWS

LIMIT = 100_000

FOUND: dict[str, bytes] = {}


def _head(status: bytes, lines: bytes) -> Head | None:
    split = [line.partition(":") for line in lines.decode("latin-1").split("\n") if line]
    try:
        headers = Headers([(name, value) for name, _, value in split])
    except ValueError:
        return None  # the wire has let no such field through
    return Head(status=int.from_bytes(status[:2], "big") % 900 + 100, headers=headers)


def _by_the_standard_library(content: bytes) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(content.decode("utf-8-sig"), parse_constant=refuse)


def check(data: bytes) -> None:
    status, lines, content = groups(data, 3)
    head = _head(status, lines)
    if head is None:
        return
    wait = retry_after(head.headers)
    assert wait is None or 0 <= wait <= 366 * 86400
    try:
        content = take_off_coding(head, content, LIMIT)
    except DecodeError as error:
        _judge(error, head, DecodeError)
    else:
        assert len(content) <= LIMIT or head.headers.get("content-encoding", "identity") in ("", "identity")
    _look(head, content)


def _judge(error: AgentRunClientError, head: Head, kind: type[AgentRunClientError]) -> None:
    only(error, kind)
    assert error.status_code == head.status
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


def _look(head: Head, content: bytes) -> None:
    try:
        value = decode(head, content)
    except AgentRunClientError as error:
        success = 200 <= head.status < 300
        _judge(error, head, DecodeError if success else error_class(head.status))
    else:
        assert 200 <= head.status < 300
        assert value == (_by_the_standard_library(content) if content else {})
    response = Response(head=head, content=content)
    assert response.request_id is None or isinstance(response.request_id, str)
    for ask in (response.json, lambda: response.text):
        try:
            ask()
        except DecodeError as error:
            _judge(error, head, DecodeError)


def _input(status: int, lines: bytes, content: bytes) -> bytes:
    return joined(GROUP, [max(status - 100, 0).to_bytes(2, "big"), lines, content])


def corpus() -> Iterator[bytes]:
    for row in ROWS:
        if not row.big and not row.after:
            head, _, content = row.raw.partition(b"\r\n\r\n")
            first, *lines = head.split(b"\r\n")
            status = first[9:12]
            yield _input(int(status) if status.isdigit() else 200, b"\n".join(lines), content)
    for coding, content in (
        (b"gzip", gzip.compress(b'{"a": [1, 2.5, null, "x"]}' * 3, mtime=0)),
        (b"deflate", zlib.compress(b'{"a": "\xc3\xa9"}')),
        (b"deflate", zlib.compress(b"{}")[2:-4]),
    ):
        yield _input(200, b"Content-Encoding: " + coding, content)
    yield _input(503, b"Retry-After: 120\nDate: Sun, 06 Nov 1994 08:49:37 GMT", b"")
    yield _input(403, b"x-acs-request-id: r", b'{"code": "E", "message": "m", "requestId": "q"}')
    yield _input(200, b"Content-Type: application/json", b'{"a": 1e400, "b": -0, "\\ud800": "\\u0000"}')
