"""Whatever a service answers, an operation ends after a bounded number of requests in its value or a
documented error, no credential leaves its origin, no pause is too long, and a part of a file goes where it
belongs.

An input is a byte that draws the operation, and answers as records of three units: status, field lines,
content. After the last of them every request is answered with success.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentrun_proto import AgentRunClientError, Config, DataEndpoint, Head, Headers, Retry
from agentrun_proto.commands import Commit, OpenSink, Prepare, RandomBytes, ReadAll, ReadInto, Send, Sleep
from agentrun_proto.retry import LONGEST_PAUSE
from fuzz.inputs import RECORD, UNIT, joined, records
from hostile import ROWS
from proto_strategies import FakeClock, FakeSink

MARK = "hunter2"
ORIGIN = "https://h"
CONFIG = Config(
    data_endpoint=ORIGIN,
    access_key_id="id",
    access_key_secret=MARK,
    security_token=f"{MARK}-sts",
    headers={"X-Mine": f"{MARK}-header"},
    retry=Retry(attempts=4),
    timeout=1e6,
)
MOST = 4 + 5 + 8  # attempts, redirects, and attempts of a transfer that got on

FOUND: dict[str, bytes] = {
    "the place of a part with a leading zero, which RFC 9110, 14.4 allows": (
        b'\x02\x00\x00\x1fETag: "v2"\nContent-Length: 20\x1fxxxxx'
        b"\x1e\x00\x06\x1fContent-Range: bytes 05-19/20\x1f" + b"x" * 15
    ),
}


class _Sink(FakeSink):
    def __init__(self, held: int) -> None:
        super().__init__()
        self.size = held
        self.validator = '"v1"' if held else None
        self.spoilt = False

    def digest(self, name: str) -> bytes:
        return b""

    def spoil(self) -> None:
        self.spoilt = True


class _Service:
    """Answers a flow's commands, and looks at each."""

    def __init__(self, answers: list[tuple[Head, bytes]], held: int) -> None:
        self.answers = answers
        self.clock = FakeClock()
        self.sink = _Sink(held)
        self.content = b""
        self.requests = 0
        self.asked: str | None = None
        self.head = Head(status=200)

    def run(self, flow: Any) -> Any:
        try:
            command = flow.send(None)
            while True:
                command = flow.send(self.perform(command))
        except StopIteration as stop:
            return stop.value
        except AgentRunClientError as error:
            return _judge(error)

    def perform(self, command: Any) -> Any:
        if type(command) is Send:
            return self.send(command.request)
        if type(command) is ReadAll:
            return self.content
        if type(command) is Sleep:
            assert 0 <= command.seconds <= LONGEST_PAUSE
            self.clock.mono += command.seconds
            return None
        if type(command) is RandomBytes:
            return bytes(command.size)
        if type(command) is OpenSink:
            return self.sink
        if type(command) is Prepare:
            assert command.size in (0, self.sink.size), "the sink is cut in the middle"
            self.placed(command.size)
            self.sink.size, self.sink.validator = command.size, command.validator
            return None
        if type(command) is ReadInto:
            self.sink.size += len(self.content)
            return self.sink.size
        assert type(command) is Commit, command
        assert not self.sink.spoilt
        return None

    def placed(self, start: int) -> None:
        """What is appended was asked for, and the service says that it begins there."""
        if start and self.head.status == 206:
            assert self.asked == f"bytes={start}-"
            told = self.head.headers["content-range"]
            assert told.startswith("bytes ")
            assert int(told[6:].partition("-")[0]) == start

    def send(self, request: Any) -> Head:
        self.requests += 1
        assert self.requests <= MOST, "requests without end"
        assert request.target.isascii()
        assert request.target.isprintable()
        assert request.origin.scheme == "https", "from https to http"
        shown = str(request.fields()) + request.target
        assert MARK not in shown or str(request.origin) == ORIGIN, "a credential leaves its origin"
        if str(request.origin) != ORIGIN:
            assert not request.signature
        self.asked = request.headers.get("range")
        self.head, self.content = self.answers.pop(0) if self.answers else (Head(status=200), b"{}")
        return self.head


def _judge(error: AgentRunClientError) -> None:
    assert error.retry_after is None or 0 <= error.retry_after <= 366 * 86400
    assert MARK not in f"{error} {error!r} {vars(error)}"


def _answer(record: bytes) -> tuple[Head, bytes] | None:
    status, lines, content = (record.split(UNIT, 2) + [b""] * 3)[:3]
    split = [line.partition(":") for line in lines.decode("latin-1").split("\n") if line]
    try:
        headers = Headers([(name, value) for name, _, value in split])
    except ValueError:
        return None
    return Head(status=200 + int.from_bytes(status[:2], "big") % 400, headers=headers), content


def check(data: bytes) -> None:
    if not data:
        return
    answers = [answer for record in records(data[1:]) if (answer := _answer(record)) is not None]
    endpoint = DataEndpoint(CONFIG)
    service = _Service(answers, held=10 * bool(data[0] & 8))
    clock = service.clock
    operation = data[0] % 3
    if operation == 0:
        value = service.run(endpoint.call(endpoint.request("GET", "a/b", query={"c": 1}), clock=clock))
        assert value is None or type(value) is dict
    elif operation == 1:
        service.run(endpoint.exchange(endpoint.request("POST", "a", data={"x": 1}), clock=clock))
    else:
        flow = endpoint.download(endpoint.file_request("f"), "target", clock=clock, resume=True)
        size = service.run(flow)
        assert size is None or size == service.sink.size
        assert service.sink.discarded == 1


def _input(operation: int, *answers: tuple[int, str, bytes]) -> bytes:
    told = [
        joined(UNIT, [(status - 200).to_bytes(2, "big"), lines, content])
        for status, lines, content in answers
    ]
    return bytes([operation]) + joined(RECORD, told)


LOCATIONS = (
    "https://h/x", "https://evil/x", "//evil/x", "http://h/x", "/x y", "../../..", "file:///x", "https://h:444/",
    "https://user@h/", "\\\\evil", "https:evil", "?", "https://h@evil/",
)  # fmt: skip
DATE = "Date: Fri, 06 Mar 2026 14:00:00 GMT"


def corpus() -> Iterator[bytes]:
    for number, location in enumerate(LOCATIONS):
        told = (301 + number % 3 if number % 2 else 307 + number % 2, f"Location: {location}", b"")
        yield _input(number % 3, told, told, (302, "Location: https://h/back", b""))
    for content in (
        "bytes 10-19/20",
        "bytes 10-19/*",
        "bytes 0-9/20",
        "bytes 10-9999999999999999/3",
        "bytes */10",
    ):
        status = 416 if "*/" in content else 206
        yield _input(10, (status, f'Content-Range: {content}\nETag: "v1"', b"x" * 10), (200, "", b"y"))
    whole = 'ETag: "v2"\nContent-Length: 20\nContent-MD5: AAAAAAAAAAAAAAAAAAAAAA=='
    yield _input(2, (200, whole, b"x" * 5), (206, 'Content-Range: bytes 5-19/20\nETag: "v2"', b"x" * 15))
    yield _input(10, (412, "", b""), (206, 'Content-Range: bytes 10-19/20\nETag: "other"', b"x" * 10))
    for wait in ("1", "86400", "-1", "9" * 300, "1e9", "Fri, 06 Mar 2026 14:00:30 GMT", "soon"):
        yield _input(0, (503, f"Retry-After: {wait}\n{DATE}", b""), (429, f"Retry-After: {wait}", b""))
    yield _input(0, (401, DATE, b""), (403, DATE, b'{"code": "ERR_TOKEN_EXPIRED"}'))
    yield _input(1, (500, "", b"<html>"), (200, "Content-Encoding: gzip", b"{}"))
    for row in ROWS:
        if row.quote.startswith(("Retry-After", "401 or 500")) and not row.big:
            head, _, content = row.raw.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            yield _input(0, (int(first[9:12]), "\n".join(lines), content))
