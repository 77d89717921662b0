"""The bytes of an answer, read by ours and by three readers that are not: h11, httptools and http.client.

Rules of this file: each reader is given the whole of what a peer says to one request; what it makes of it is
a `Reading`, a `Refusal`, or None where it needs more. In `DIFFERENCES` stands every way in which another is
known to read what ours reads otherwise, and the section that decides.
"""

from __future__ import annotations

import http.client
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import h11
import httptools

from agentrun_proto import AgentRunClientError, Head
from agentrun_transports._wire import BUFFER_SIZE, Wire
from transports_support import Reading, read_wire


@dataclass(frozen=True)
class Refusal:
    """What was received is no answer; one refusal is as good as another."""

    why: str = field(compare=False)


Outcome = Reading | Refusal | None


class LongRoad(Wire):
    """The wire without its short road."""

    __slots__ = ()

    def _read_plain_head(self) -> Head | None:
        return None


def _reading(status: int, fields: Iterable[tuple[str, str]], content: bytes, reusable: bool) -> Reading:
    return Reading(status, tuple(fields), content, reusable, Head(status=status))


def by_wire(
    pieces: Iterable[bytes], method: str, ended: bool, wire: Wire | None = None, room: int | None = None
) -> Outcome:
    """Ours, given the pieces in which it arrives; `room` as for `read_wire`."""
    try:
        return read_wire(iter(pieces), method, ended=ended, wire=wire, room=room)
    except AgentRunClientError as error:
        return Refusal(str(error))


def by_h11(data: bytes, method: str, ended: bool) -> Outcome:
    """h11 alone."""
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=BUFFER_SIZE)
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    parser.send(h11.EndOfMessage())
    if data:
        parser.receive_data(data)
    if ended:
        parser.receive_data(b"")
    head, content = None, b""
    while True:
        try:
            found = parser.next_event()
        except h11.RemoteProtocolError as error:
            return Refusal(str(error))
        if isinstance(found, h11.Response):
            head = found
        elif isinstance(found, h11.Data):
            content += found.data
        elif isinstance(found, h11.EndOfMessage):
            assert head is not None
            fields = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in head.headers.raw_items()]
            clean = parser.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
            return _reading(head.status_code, fields, content, clean and parser.trailing_data[0] == b"")
        elif isinstance(found, h11.ConnectionClosed):
            return Refusal("closed")
        elif not isinstance(found, h11.InformationalResponse):
            return None


class _Taken:
    """What httptools calls, for each message in turn."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.messages = 0
        self.fields: list[tuple[str, str]] = []
        self.content = b""
        self.in_body = self.complete = self.keep_alive = False
        self.status = 0

    def on_message_begin(self) -> None:
        self.messages += not self.complete
        if self.complete:
            self.keep_alive = False  # a second answer

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_body and not self.complete:
            self.fields.append((name.decode("latin-1"), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        if not self.complete:
            self.status = self.parser.get_status_code()
            self.in_body = self.status >= 200
            if not self.in_body:
                self.fields.clear()

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.content += body

    def on_message_complete(self) -> None:
        if self.in_body and not self.complete:
            self.complete = True
            self.keep_alive = self.parser.should_keep_alive()


def by_httptools(data: bytes, method: str, ended: bool) -> Outcome:
    """llhttp, which httptools wraps; it is not told the method, so that HEAD is not for it."""
    if method == "HEAD":
        return None
    taken = _Taken()
    try:
        taken.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        return Refusal("upgrade")
    except httptools.HttpParserError as error:
        if not taken.complete:
            return Refusal(repr(error))
        taken.keep_alive = False
    if not taken.complete:
        names = {name.lower() for name, _ in taken.fields}
        if not (taken.in_body and ended) or names & {"content-length", "transfer-encoding"}:
            return None
    return _reading(taken.status, taken.fields, taken.content, taken.keep_alive)


class _Said(io.BytesIO):
    """What http.client takes for a socket and for its file; it stays readable once that is closed."""

    def makefile(self, mode: str) -> _Said:
        return self

    def close(self) -> None:
        pass


def by_http_client(data: bytes, method: str, ended: bool) -> Outcome:
    """http.client, which has no way to wait for more."""
    said = _Said(data)
    response: Any = http.client.HTTPResponse(said, method=method)  # type: ignore[arg-type]
    try:
        response.begin()
        closes = response.will_close
        content = response.read()
    except (http.client.HTTPException, OSError, ValueError, OverflowError) as error:
        return Refusal(repr(error))
    fields = [(name, value) for name, value in response.getheaders()]
    return _reading(response.status, fields, content, not closes and said.tell() == len(data))


OTHERS: dict[str, Callable[[bytes, str, bool], Outcome]] = {
    "h11": by_h11,
    "httptools": by_httptools,
    "http.client": by_http_client,
}


# --- where they differ from ours


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a peer says to a request of a method, and whether it then closes; and what two made of it."""

    sent: bytes
    method: str
    ended: bool
    ours: Outcome
    other: str
    theirs: Outcome

    def aspects(self) -> frozenset[str]:
        """In what the two differ.

        h11 is the reference: there, every difference counts. The two others are held against ours where both
        accept; there, it is no difference if ours is the one that gives a connection up.
        """
        ours, theirs = self.ours, self.theirs
        if isinstance(ours, Reading) and isinstance(theirs, Reading):
            names = [
                name
                for name in ("status", "fields", "content")
                if getattr(ours, name) != getattr(theirs, name)
            ]
            if ours.reusable > theirs.reusable or (self.other == "h11" and ours.reusable < theirs.reusable):
                names.append("reusable")
            return frozenset(names)
        if self.other != "h11" or ours == theirs:
            return frozenset()
        return frozenset({f"{_kind(ours)}, not {_kind(theirs)}"})

    def says(self, text: str) -> bool:
        """Whether ours refused it in these words."""
        return isinstance(self.ours, Refusal) and text in self.ours.why

    def field(self, name: str) -> str | None:
        """The value of a field of the answer, as ours has it."""
        assert isinstance(self.ours, Reading)
        values = [value for key, value in self.ours.fields if key.lower() == name]
        return ", ".join(values) if values else None


def _kind(outcome: Outcome) -> str:
    return {Reading: "accepted", Refusal: "refused", type(None): "more is needed"}[type(outcome)]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One way in which another reads otherwise than ours.

    Args:
        other: who.
        section: what decides.
        why: what it says, and who is right.
        aspects: in what the two may differ.
        met: whether a case is one of these.
    """

    other: str
    section: str
    why: str
    aspects: frozenset[str]
    met: Callable[[Case], bool]


def explained(case: Case) -> Iterator[int]:
    """The rows that a case meets."""
    for number, row in enumerate(DIFFERENCES):
        if row.other == case.other and row.aspects & case.aspects() and row.met(case):
            yield number


def compare(
    data: bytes, method: str, ended: bool, others: Iterable[str] = tuple(OTHERS)
) -> tuple[Outcome, set[int]]:
    """Fails unless all make the same of it, but for what has a row.

    Returns:
        What ours makes of it, and the rows that were met.
    """
    ours = by_wire([data], method, ended)
    assert by_wire([data], method, ended, LongRoad()) == ours, "the two roads differ"
    met: set[int] = set()
    for name in others:
        theirs = OTHERS[name](data, method, ended)
        case = Case(sent=data, method=method, ended=ended, ours=ours, other=name, theirs=theirs)
        rows = set(explained(case))
        left = case.aspects().difference(*(DIFFERENCES[row].aspects for row in rows))
        assert not left, f"{name} differs in {sorted(left)}, and no row of DIFFERENCES says why: {case}"
        met |= rows
    return ours, met


_ANOTHER_VERSION = re.compile(rb"^HTTP/(?!1\.1 )", re.MULTILINE)
_INTERIM_LENGTH = re.compile(
    rb"^HTTP/\S+ 1\d\d[^\n]*\n(?:[^\r\n]+\r?\n)*?content-length", re.IGNORECASE | re.MULTILINE
)
_UNDECIDED = "refused, not more is needed"

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        other="h11",
        section="RFC 9112, 4",
        why="an answer begins with HTTP/; ours does not wait for the end of what does not",
        aspects=frozenset({_UNDECIDED}),
        met=lambda case: case.says("does not speak HTTP"),
    ),
    Difference(
        other="h11",
        section="RFC 9110, 15.2",
        why="interim answers may come in any number; ours reads 16",
        aspects=frozenset({_UNDECIDED, "refused, not accepted"}),
        met=lambda case: case.says("interim answers"),
    ),
    Difference(
        other="h11",
        section="RFC 9112, 6.3, item 3",
        why="a length beside a coding may be an attempt at smuggling; h11 keeps the connection",
        aspects=frozenset({"reusable"}),
        met=lambda case: (
            {name.lower() for name, _ in case.ours.fields} >= {"transfer-encoding", "content-length"}
            and not _ANOTHER_VERSION.search(case.sent)
        ),
    ),
    Difference(
        other="h11",
        section="RFC 9112, 6.3, item 8",
        why="the content ends with the connection; h11 has it both ways until it is asked to close",
        aspects=frozenset({"reusable"}),
        met=lambda case: (
            case.ended and not case.field("content-length") and not case.field("transfer-encoding")
        ),
    ),
    Difference(
        other="h11",
        section="RFC 9112, 9.3",
        why="a version later than 1.1 would let the connection persist; ours trusts 1.1 alone",
        aspects=frozenset({"reusable"}),
        met=lambda case: _ANOTHER_VERSION.search(case.sent) is not None,
    ),
    Difference(
        other="h11",
        section="RFC 9112, 6.2",
        why="a length of any size must be expected; ours holds no more than its caller wants, and says so",
        aspects=frozenset({_UNDECIDED}),
        met=lambda case: case.says("larger than"),
    ),
    Difference(
        other="httptools",
        section="RFC 9112, 7",
        why="the names of codings have no case; h11, and so ours, has them in lower case",
        aspects=frozenset({"fields"}),
        met=lambda case: _same_fields(case) and "CHUNKED" in _theirs(case, "transfer-encoding"),
    ),
    Difference(
        other="httptools",
        section="RFC 9112, 6.3, item 1",
        why="an interim answer has no content, whatever its fields say; llhttp reads what follows as content",
        aspects=frozenset({"fields", "content"}),
        met=lambda case: _INTERIM_LENGTH.search(case.sent) is not None,
    ),
    Difference(
        other="httptools",
        section="RFC 9112, C.2.2",
        why="Proxy-Connection is no field of HTTP; llhttp takes it for Connection",
        aspects=frozenset({"reusable"}),
        met=lambda case: "close" in (case.field("proxy-connection") or "").lower(),
    ),
    Difference(
        other="http.client",
        section="RFC 9112, 7",
        why="the names of codings have no case; h11, and so ours, has them in lower case",
        aspects=frozenset({"fields"}),
        met=lambda case: _same_fields(case) and "CHUNKED" in _theirs(case, "transfer-encoding"),
    ),
    Difference(
        other="http.client",
        section="RFC 9112, 5",
        why="white space around a value is no part of it; http.client keeps what is behind",
        aspects=frozenset({"fields"}),
        met=lambda case: _same_fields(case) and _any_value(case, lambda value: value != value.rstrip(" \t")),
    ),
    Difference(
        other="http.client",
        section="RFC 9112, 5.2",
        why="a line that is folded is joined by a space; http.client keeps the line break",
        aspects=frozenset({"fields"}),
        met=lambda case: _same_fields(case) and _any_value(case, lambda value: "\n" in value),
    ),
    Difference(
        other="http.client",
        section="RFC 9110, 8.6",
        why="a length that is said twice counts once; http.client goes by the first line, or does without",
        aspects=frozenset({"fields", "content", "reusable"}),
        met=lambda case: _same_fields(case) and "," in _theirs(case, "content-length"),
    ),
    Difference(
        other="http.client",
        section="RFC 9112, 5.1",
        why="white space around a coding is no part of it; http.client does not know such a coding",
        aspects=frozenset({"content", "reusable"}),
        met=lambda case: (
            case.field("transfer-encoding") == "chunked"
            and _theirs(case, "transfer-encoding").lower() != "chunked"
        ),
    ),
    Difference(
        other="http.client",
        section="RFC 9112, 6.3, item 1",
        why="204 and 304 have no content, whatever their fields say; http.client reads chunks all the same",
        aspects=frozenset({"content"}),
        met=lambda case: isinstance(case.ours, Reading) and case.ours.status in (204, 304),
    ),
    Difference(
        other="http.client",
        section="RFC 9110, 7.6.1",
        why="an option is a whole member of the list; http.client finds close within other words",
        aspects=frozenset({"reusable"}),
        met=lambda case: "close" in (case.field("connection") or "").lower(),
    ),
    Difference(
        other="http.client",
        section="RFC 9110, 15.2",
        why="any answer of 1xx is an interim one; http.client passes over 100 alone",
        aspects=frozenset({"status", "fields", "content", "reusable"}),
        met=lambda case: isinstance(case.theirs, Reading) and 100 < case.theirs.status < 200,
    ),
)


def _theirs(case: Case, name: str) -> str:
    assert isinstance(case.theirs, Reading)
    return ", ".join([value for key, value in case.theirs.fields if key.lower() == name])


def _any_value(case: Case, test: Callable[[str], bool]) -> bool:
    assert isinstance(case.theirs, Reading)
    return any(test(value) for _, value in case.theirs.fields)


def _same_fields(case: Case) -> bool:
    """Whether the fields are the same but for the habits that have rows of their own."""
    assert isinstance(case.ours, Reading)
    assert isinstance(case.theirs, Reading)
    return _normal(case.ours.fields) == _normal(case.theirs.fields)


def _normal(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    found = []
    for name, value in fields:
        value = re.sub(r"\r?\n[ \t]*", " ", value).strip(" \t")
        if name.lower() == "transfer-encoding":
            value = value.lower()
        if name.lower() == "content-length":
            name, value = "Content-Length", value.partition(",")[0].strip(" \t")
            if (name, value) in found:
                continue
        found.append((name, value))
    return found
