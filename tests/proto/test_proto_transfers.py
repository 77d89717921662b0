"""The flow of a download, driven by hand: what each attempt asks for, and which answers it believes.

Rules of this file: a sink in memory stands for the file, a list of answers for the service; what a socket
adds is shown in the transports' tests.
"""

from __future__ import annotations

import hashlib
import math
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentrun_proto import (
    AgentRunClientError,
    BadGatewayError,
    BodyError,
    Commit,
    Config,
    ConnectError,
    DataEndpoint,
    DecodeError,
    FileError,
    Head,
    Headers,
    IncompleteError,
    NotFoundError,
    OpenSink,
    Prepare,
    RandomBytes,
    RangeNotSatisfiableError,
    ReadAll,
    ReadInto,
    ReadTimeout,
    RedirectError,
    Retry,
    Send,
    Sleep,
    Timeout,
    commands,
)
from agentrun_proto.transfers import MAX_CRC64, check_sha256
from proto_strategies import ByHand, FakeClock, FakeSink

CONTENT = b"0123456789" * 10
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = b64encode(hashlib.md5(CONTENT).digest()).decode()
CRC64 = "11051210869376104954"  # of b"123456789": the catalogue's check value of CRC-64/XZ
TAG = '"v1"'
LATER = {
    "Last-Modified": "Fri, 06 Mar 2026 11:00:00 GMT",
    "Date": "Fri, 06 Mar 2026 11:00:01 GMT",
}

NOT_FOUND = Head(status=404)
FILE_HEAD = Head(status=200, headers=Headers({"Content-Type": "application/octet-stream"}))
JSON_HEAD = Head(status=200, headers=Headers({"Content-Type": "application/json"}))
# What a driver throws in, and what a cancellation or a bug of a driver would.
FAILURES = [
    ConnectError("x"),
    ReadTimeout("x"),
    IncompleteError("x"),
    BodyError("x"),
    FileError("x"),
    KeyboardInterrupt(),
    RuntimeError("x"),
]


class MemorySink(FakeSink):
    """A file in memory."""

    def __init__(self, content: bytes = b"", validator: str | None = None) -> None:
        super().__init__()
        self.content = content
        self.validator = validator
        self.prepared: list[tuple[int, str | None, tuple[str, ...]]] = []
        self.digests: tuple[str, ...] = ()
        self.spoilt = False

    @property
    def size(self) -> int:
        return len(self.content)

    def prepare(self, command: Prepare) -> None:
        self.prepared.append((command.size, command.validator, command.digests))
        self.content = self.content[: command.size]
        self.validator, self.digests = command.validator, command.digests

    def digest(self, name: str) -> bytes:
        assert name in self.digests, "a checksum that nobody prepared for"
        if name == "crc64ecma":
            return int(CRC64).to_bytes(8, "big") if self.content == b"123456789" else bytes(8)
        return hashlib.new(name, self.content).digest()

    def spoil(self) -> None:
        self.spoilt = True


@dataclass
class Answer:
    """What the service says: a head, and what of the content arrives before it breaks off."""

    status: int
    headers: dict[str, str] = field(default_factory=dict[str, str])
    content: bytes = b""
    breaks: bool = False

    @property
    def head(self) -> Head:
        return Head(status=self.status, headers=Headers(self.headers))


def whole(content: bytes = CONTENT, cut: int | None = None, **headers: str) -> Answer:
    """All of it, or its beginning."""
    fields = {"Content-Length": str(len(content)), **{k.replace("_", "-"): v for k, v in headers.items()}}
    return Answer(200, fields, content[:cut], cut is not None)


def part(
    start: int,
    content: bytes = CONTENT,
    *,
    stop: int | None = None,
    total: str | None = None,
    cut: int | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """The rest of it, from a place on."""
    end = len(content) if stop is None else stop
    told = f"bytes {start}-{end - 1}/{len(content) if total is None else total}"
    fields = {"Content-Length": str(end - start), "Content-Range": told, **(headers or {})}
    return Answer(206, fields, content[start : end if cut is None else start + cut], cut is not None)


@dataclass
class Played:
    """How a download went."""

    sink: MemorySink
    requests: list[Any] = field(default_factory=list[Any])
    sleeps: list[float] = field(default_factory=list[float])
    read: int = 0
    """Answers that were read, and not saved."""
    committed: bytes | None = None
    result: int | None = None
    error: BaseException | None = None

    @property
    def asked(self) -> list[tuple[str | None, str | None]]:
        """Range and If-Range of each request."""
        return [(r.headers.get("range"), r.headers.get("if-range")) for r in self.requests]


def endpoint(**config: Any) -> DataEndpoint:
    return DataEndpoint(
        Config(
            data_endpoint="http://h",
            access_key_id="i",
            access_key_secret="s",
            **{"retry": Retry.never(), **config},
        )
    )


def a_download(
    clock: FakeClock | None = None,
    config: Config | None = None,
    headers: Any = None,
    at: DataEndpoint | None = None,
    **options: Any,
) -> ByHand:
    at = (at or endpoint()).overlaid(config)
    request = at.file_request("files", headers=headers)
    return ByHand(at.download(request, "/local", clock=clock or FakeClock(), **options))


def play(
    *answers: Answer | Exception, sink: MemorySink | None = None, attempts: int = 2, **options: Any
) -> Played:
    """A download from a service that answers so."""
    found = Played(sink or MemorySink())
    left = list(answers)
    answer = Answer(0)
    step = a_download(config=Config(retry=Retry(attempts=attempts, backoff=8.0)), **options)
    try:
        while not step.done:
            command = step.command
            if isinstance(command, OpenSink):
                step.answer(found.sink)
            elif isinstance(command, Send):
                found.requests.append(command.request)
                following = left.pop(0)
                if isinstance(following, Exception):
                    step.fail(following)
                else:
                    answer = following
                    step.answer(answer.head)
            elif isinstance(command, ReadAll):
                found.read += 1
                step.answer(answer.content)
            elif isinstance(command, Prepare):
                found.sink.prepare(command)
                step.answer(None)
            elif isinstance(command, ReadInto):
                found.sink.content += answer.content
                if answer.breaks:
                    step.fail(IncompleteError("cut"))
                else:
                    step.answer(found.sink.size)
            elif isinstance(command, Commit):
                found.committed = found.sink.content
                step.answer(None)
            elif isinstance(command, Sleep):
                found.sleeps.append(command.seconds)
                step.answer(None)
            else:
                assert isinstance(command, RandomBytes)
                step.answer(b"\x80" + bytes(command.size - 1))
        found.result = step.result
    except AgentRunClientError as error:
        found.error = error
    assert found.sink.discarded == 1
    assert not left, "an answer that nobody asked for"
    return found


def ends_in(kind: type[BaseException], match: str, *answers: Any, **options: Any) -> Played:
    played = play(*answers, **options)
    assert type(played.error) is kind, played.error
    assert match in str(played.error)
    assert played.committed is None
    assert not played.error.response_body, "no part of a file is kept in an error"
    return played


# --- going on within a call


def test_a_download_that_breaks_goes_on_where_it_was_for_as_long_as_it_gains():
    """More failures than a request has attempts, and no pause: each of them brought something."""
    answers = [whole(cut=10, ETag=TAG), *(part(at, cut=10) for at in range(10, 90, 10)), part(90)]
    played = play(*answers, attempts=2)
    assert played.error is None
    assert played.committed == CONTENT
    assert played.result == len(CONTENT)
    assert played.asked == [(None, None), *((f"bytes={at}-", TAG) for at in range(10, 100, 10))]
    assert played.sleeps == []


def test_going_on_costs_nothing_of_the_quota():
    at = endpoint()
    at.standing.quota.left = 0
    assert play(whole(cut=10, ETag=TAG), part(10), at=at).committed == CONTENT


def test_attempts_that_bring_nothing_count_in_a_row():
    played = play(
        whole(cut=10, ETag=TAG),
        ConnectError("a"),
        part(10, cut=5),
        part(15, cut=0),
        part(15),
        attempts=2,
    )
    assert played.committed == CONTENT
    assert played.sleeps == [4.0, 4.0]  # half of a back-off of 8 s, which begins anew
    played = ends_in(IncompleteError, "cut", whole(cut=10, ETag=TAG), part(10, cut=0), part(10, cut=0))
    assert len(played.error.attempts) == 3


def test_no_retry_is_no_retry_even_where_it_would_gain():
    ends_in(IncompleteError, "cut", whole(cut=10, ETag=TAG), attempts=1)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ETag": 'W/"v1"'},
        {"ETag": "v1"},
        {"ETag": '"v 1"'},
        {"ETag": '"v1", "v2"'},
        {"ETag": ""},
        {"Last-Modified": LATER["Last-Modified"]},
        {"Last-Modified": LATER["Last-Modified"], "Date": LATER["Last-Modified"]},
        {"Last-Modified": LATER["Date"], "Date": LATER["Last-Modified"]},
        {"Last-Modified": "yesterday", "Date": LATER["Date"]},
        {"ETag": 'W/"v1"', "Last-Modified": "yesterday", "Date": LATER["Date"]},
    ],
)
def test_without_a_strong_validator_it_starts_over_and_that_is_an_attempt(headers):
    """RFC 9110, 13.1.5: nothing else tells two versions apart."""
    fields = {name.replace("-", "_"): value for name, value in headers.items()}
    played = play(whole(cut=40, **fields), whole(**fields), attempts=2)
    assert played.committed == CONTENT
    assert played.asked == [(None, None), (None, None)]
    assert played.sleeps == [4.0]
    ends_in(IncompleteError, "cut", whole(cut=40, **fields), whole(cut=50, **fields), attempts=2)


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"ETag": TAG}, TAG),
        ({"ETag": '""'}, '""'),
        ({"ETag": '"\xe9"'}, '"\xe9"'),
        (LATER, LATER["Last-Modified"]),
        ({"ETag": 'W/"v1"', **LATER}, LATER["Last-Modified"]),
        ({"ETag": TAG, **LATER}, TAG),
    ],
)
def test_a_strong_validator_is_sent_along(headers, validator):
    played = play(Answer(200, {"Content-Length": "100", **headers}, CONTENT[:7], True), part(7))
    assert played.asked[1] == ("bytes=7-", validator)
    assert played.committed == CONTENT
    assert [prepared[:2] for prepared in played.sink.prepared] == [(0, validator), (7, validator)]


def test_a_file_that_changed_meanwhile_is_taken_from_the_start():
    new = b"another" * 20
    played = play(
        whole(cut=50, ETag=TAG),
        whole(new, cut=60, ETag='"v2"'),
        part(60, new, headers={"ETag": '"v2"'}),
    )
    assert played.committed == new
    assert played.asked == [(None, None), ("bytes=50-", TAG), ("bytes=60-", '"v2"')]


def test_where_nothing_arrived_the_whole_is_asked_for():
    played = play(whole(cut=0, ETag=TAG), whole(ETag=TAG))
    assert played.committed == CONTENT
    assert played.asked == [(None, None), (None, None)]


def test_a_service_that_ignores_ranges_is_asked_no_more_often_than_it_gains():
    """It sends all of it each time; further than the last time is a gain, less far is none."""
    played = play(whole(cut=50, ETag=TAG), whole(cut=60, ETag=TAG), whole(ETag=TAG), attempts=2)
    assert played.committed == CONTENT
    ends_in(
        IncompleteError,
        "cut",
        whole(cut=50, ETag=TAG),
        whole(cut=40, ETag=TAG),
        whole(cut=40, ETag=TAG),
        attempts=2,
    )


def test_a_short_part_is_gone_on_from():
    played = play(whole(cut=10, ETag=TAG), part(10, stop=50), part(50, stop=51), part(51))
    assert played.committed == CONTENT
    assert [asked[0] for asked in played.asked] == [None, "bytes=10-", "bytes=50-", "bytes=51-"]


def test_a_part_of_unknown_whole_ends_where_the_service_ends():
    assert play(whole(cut=10, ETag=TAG), part(10, total="*")).committed == CONTENT


@pytest.mark.parametrize(
    "told",
    [
        "bytes 9-99/100",
        "bytes 11-99/100",
        "bytes 0-99/100",
        "bytes */100",
        "bytes 10-",
        "bytes  10-99/100",
        "BYTES=10-99/100",
        "items 10-99/100",
        "bytes -10-99/100",
        "bytes 10-99/100, 0-9/100",
        "bytes \xb910-99/100",
        pytest.param("bytes " + "1" * 5000 + "-2/3", id="digits"),
        "",
    ],
)
def test_another_part_than_was_asked_for_is_nonsense(told):
    answer = part(10, headers={"Content-Range": told})
    ends_in(DecodeError, "another part", whole(cut=10, ETag=TAG), answer)


def test_a_part_of_another_version_is_nonsense_and_leaves_nothing_to_go_on_from():
    wrong = part(10, headers={"ETag": '"v2"'})
    played = ends_in(DecodeError, "another version", whole(cut=10, ETag=TAG), wrong)
    assert played.sink.spoilt
    right = part(10, headers={"ETag": TAG})
    assert play(whole(cut=10, ETag=TAG), right).committed == CONTENT


def test_a_date_says_nothing_about_the_tag_of_a_part():
    first = Answer(200, {"Content-Length": "100", **LATER}, CONTENT[:10], True)
    assert play(first, part(10, headers={"ETag": '"any"'})).committed == CONTENT


def test_more_than_the_whole_is_nonsense():
    answer = part(10, total="50")
    played = ends_in(DecodeError, "more than", whole(cut=10, ETag=TAG), answer)
    assert played.sink.spoilt


@pytest.mark.parametrize("status", [201, 203, 204, 206, 226, 299])
def test_an_answer_that_is_not_the_whole_file_is_nonsense(status):
    ends_in(DecodeError, f"status {status}", Answer(status, {"Content-Range": "bytes 0-99/100"}, CONTENT))


def test_a_part_comes_with_the_status_of_one():
    other = Answer(203, {"Content-Range": "bytes 10-99/100"}, CONTENT[10:])
    ends_in(DecodeError, "status 203", whole(cut=10, ETag=TAG), other)


def test_300_is_a_refusal():
    played = ends_in(RedirectError, "300", Answer(300))
    assert played.read == 1


def test_a_length_that_is_none_is_not_known():
    answer = whole()
    answer.headers["Content-Length"] = "99, 100"
    assert play(answer).committed == CONTENT


def test_a_refusal_between_two_parts_is_tried_again_and_loses_nothing():
    played = play(whole(cut=10, ETag=TAG), Answer(503), part(10))
    assert played.committed == CONTENT
    assert played.asked[2] == ("bytes=10-", TAG)
    ends_in(NotFoundError, "404", whole(cut=10, ETag=TAG), Answer(404))


# --- 416


def test_what_is_complete_already_is_complete():
    """The last byte had arrived, and the end of the chunks had not."""
    chunked = Answer(200, {"ETag": TAG, "Content-MD5": MD5}, CONTENT, True)
    played = play(chunked, Answer(416, {"Content-Range": "bytes */100"}, b"<html>"), sha256=SHA256)
    assert played.committed == CONTENT
    assert played.read == 1, "an answer that is not read to its end costs its connection"


def test_only_416_says_that_it_is_complete():
    answer = Answer(206, {"Content-Range": "bytes */50"}, CONTENT[50:])
    ends_in(DecodeError, "another part", whole(cut=50, ETag=TAG), answer)


def test_what_an_earlier_call_completed_meets_the_checksum_and_is_told():
    told: list[tuple[int, int | None]] = []
    complete = Answer(416, {"Content-Range": "bytes */100"})

    def progress(done: int, total: int | None) -> None:
        told.append((done, total))

    options = {"resume": True, "progress": progress}
    played = play(complete, sink=MemorySink(CONTENT, TAG), sha256=SHA256, **options)
    assert played.error is None
    assert played.committed == CONTENT
    assert told == [(100, 100)]
    other = MemorySink(CONTENT[::-1], TAG)
    played = ends_in(DecodeError, "sha256", complete, sink=other, sha256=SHA256, **options)
    assert played.sink.spoilt


@pytest.mark.parametrize(
    "told", ["bytes */99", "bytes */101", "bytes */*", "bytes 0-99/100", "", "bytes */", "bytes */100, */9"]
)
def test_a_range_that_lies_beyond_the_file_is_of_another_version(told):
    new = b"shorter"
    played = play(
        Answer(416, {"Content-Range": told}),
        whole(new, ETag='"v2"'),
        sink=MemorySink(CONTENT, TAG),
        resume=True,
    )
    assert played.committed == new
    assert played.asked == [("bytes=100-", TAG), (None, None)]


def test_a_416_that_nothing_asked_for_is_a_refusal():
    ends_in(RangeNotSatisfiableError, "416", Answer(416, {"Content-Range": "bytes */0"}))
    ends_in(
        RangeNotSatisfiableError, "416", Answer(416), Answer(416), sink=MemorySink(b"x", TAG), resume=True
    )


# --- over calls


def test_what_an_earlier_call_left_is_gone_on_from():
    played = play(part(40), sink=MemorySink(CONTENT[:40], TAG), resume=True, sha256=SHA256)
    assert played.committed == CONTENT
    assert played.asked == [("bytes=40-", TAG)]
    assert played.sink.prepared == [(40, TAG, ("sha256",))]


def test_what_nothing_tells_the_version_of_is_not():
    played = play(whole(), sink=MemorySink(CONTENT[:40], None), resume=True)
    assert played.asked == [(None, None)]
    assert played.committed == CONTENT


def test_the_source_of_a_sink_is_the_whole_url_and_only_where_it_is_to_stay():
    at = endpoint()
    request = at.file_request("files", query={"path": "/a b"})
    for resume, source in ((True, "http://h/2025-09-10/agents/files?path=%2Fa+b"), (False, None)):
        step = ByHand(at.download(request, "/local", clock=FakeClock(), resume=resume))
        assert step.command.path == "/local"
        assert step.command.source == source
        step.close()


# --- a part that the caller asked for


def test_a_part_that_the_caller_asks_for_is_saved_as_it_comes():
    answer = part(10, stop=20)
    played = play(answer, headers={"Range": "bytes=10-19"})
    assert played.committed == CONTENT[10:20]
    assert played.asked == [("bytes=10-19", None)]


def test_a_part_that_the_caller_asks_for_is_asked_for_again_from_its_start():
    answer = part(10, stop=20, headers={"ETag": TAG})
    broken = part(10, stop=20, cut=4, headers={"ETag": TAG})
    played = play(broken, answer, headers={"Range": "bytes=10-19"})
    assert played.committed == CONTENT[10:20]
    assert played.asked == [("bytes=10-19", None)] * 2


def test_a_part_that_the_caller_asks_for_gains_nothing_by_what_arrived():
    cuts = [part(10, stop=40, cut=cut, headers={"ETag": TAG}) for cut in (4, 8)]
    ends_in(IncompleteError, "cut", *cuts, headers={"Range": "bytes=10-39"}, attempts=2)


def test_the_whole_is_no_part():
    ends_in(DecodeError, "status 200", whole(), headers={"Range": "bytes=10-19"})


def test_checksums_of_the_whole_are_not_those_of_a_part():
    answer = part(10, stop=20, headers={"Content-MD5": MD5})
    assert play(answer, headers={"Range": "bytes=10-19"}).committed == CONTENT[10:20]
    part_sha = hashlib.sha256(CONTENT[10:20]).hexdigest()
    played = play(part(10, stop=20), headers={"Range": "bytes=10-19"}, sha256=part_sha)
    assert played.committed == CONTENT[10:20]


# --- checksums


@pytest.mark.parametrize(
    ("headers", "digests"),
    [
        ({}, ()),
        ({"Content_MD5": MD5}, ("md5",)),
        ({"Content_MD5": "AAAA"}, ()),  # of three bytes: no MD5
        ({"Content_MD5": "?"}, ()),
        ({"Content_MD5": "\xe9"}, ()),
        ({"x_oss_hash_crc64ecma": ""}, ()),
        ({"x_oss_hash_crc64ecma": "-1"}, ()),
        ({"x_oss_hash_crc64ecma": "\xb2"}, ()),
        ({"x_oss_hash_crc64ecma": str(2**64)}, ()),
        pytest.param({"x_oss_hash_crc64ecma": "9" * 5000}, (), id="digits"),
    ],
)
def test_checksums_that_are_none_are_not_checked(headers, digests):
    played = play(whole(**headers))
    assert played.error is None
    assert played.sink.prepared == [(0, None, digests)]


def test_a_checksum_is_kept_in_lower_case():
    assert check_sha256("aB" * 32) == "ab" * 32


def test_a_checksum_that_is_right():
    content = b"123456789"
    md5 = b64encode(hashlib.md5(content).digest()).decode()
    played = play(
        whole(content, Content_MD5=md5, x_oss_hash_crc64ecma=CRC64),
        sha256=hashlib.sha256(content).hexdigest().upper(),
    )
    assert played.committed == content
    assert played.sink.prepared == [(0, None, ("crc64ecma", "md5", "sha256"))]


@pytest.mark.parametrize(
    ("headers", "sha256", "name"),
    [
        ({"Content_MD5": b64encode(bytes(16)).decode()}, None, "md5"),
        ({"x_oss_hash_crc64ecma": "1"}, None, "crc64ecma"),
        ({}, "0" * 64, "sha256"),
        ({"Content_MD5": MD5}, "0" * 64, "sha256"),
    ],
)
def test_a_checksum_that_is_wrong_leaves_nothing_to_go_on_from(headers, sha256, name):
    played = ends_in(DecodeError, name, whole(ETag=TAG, **headers), sha256=sha256, resume=True)
    assert played.sink.spoilt


def test_a_crc64_is_slow_and_checked_for_small_content_of_known_length_alone():
    for length, checked in ((MAX_CRC64, True), (MAX_CRC64 + 1, False), (None, False)):
        fields = {"x-oss-hash-crc64ecma": CRC64}
        if length is not None:
            fields["Content-Length"] = str(length)
        step = a_download().answer(MemorySink()).answer(Head(status=200, headers=Headers(fields)))
        assert step.command.digests == (("crc64ecma",) if checked else ())
        step.close()


def test_the_checksums_are_those_of_the_version_that_is_saved():
    """Told with the first answer; a part does not repeat them, and another version has its own."""
    wrong = b64encode(bytes(16)).decode()
    assert play(whole(cut=10, ETag=TAG, Content_MD5=MD5), part(10)).committed == CONTENT
    ends_in(DecodeError, "md5", whole(cut=10, ETag=TAG, Content_MD5=wrong), part(10))
    assert play(whole(cut=10, ETag='"v0"', Content_MD5=wrong), whole(Content_MD5=MD5)).committed == CONTENT
    assert play(whole(cut=10, ETag='"v0"', Content_MD5=wrong), whole()).committed == CONTENT


@pytest.mark.parametrize("sha256", ["", "x" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n", "\u0660" * 64])
def test_what_is_no_checksum_is_misuse_before_anything_is_done(sha256):
    at = endpoint()
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        at.download(at.file_request("files"), "/x", clock=FakeClock(), sha256=sha256)


# --- the steps


def test_a_download_opens_sends_prepares_reads_commits():
    sink = MemorySink()
    step = a_download()
    assert type(step.command) is OpenSink
    assert (step.command.path, step.command.source) == ("/local", None)
    send = step.answer(sink).command
    assert type(send) is Send
    assert send.request.method == "GET"
    assert send.request.headers["accept"] == "*/*"
    assert send.request.headers["accept-encoding"] == "identity"
    prepare = step.answer(FILE_HEAD).command
    assert type(prepare) is Prepare
    assert (prepare.sink, prepare.size, prepare.validator, prepare.digests) == (sink, 0, None, ())
    read = step.answer(None).command
    assert type(read) is ReadInto
    assert (read.sink, read.total, read.progress) == (sink, None, None)
    sink.content = b"12345"
    commit = step.answer(5).command
    assert type(commit) is Commit
    assert commit.sink is sink
    assert sink.discarded == 0
    assert step.answer(None).result == 5


def test_how_large_it_will_be_is_told_where_it_is_known():
    heads = [whole().head, part(40).head, part(40, total="*").head]
    for head, total in zip(heads, (100, 100, None), strict=True):
        sink = MemorySink(b"" if head.status == 200 else CONTENT[:40], TAG)
        step = a_download(progress=print).answer(sink).answer(head)
        read = step.answer(None).command
        assert (read.total, read.progress) == (total, print)
        step.close()


STEPS: dict[str, list[Any]] = {
    "send": [],
    "prepare": [FILE_HEAD],
    "read": [FILE_HEAD, None],
    "commit": [FILE_HEAD, None, 5],
    "refusal": [NOT_FOUND],
    "json": [JSON_HEAD],
}


@pytest.mark.hostile("files-broken-off")
@pytest.mark.parametrize("failure", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", STEPS)
def test_the_sink_is_discarded_after_a_failure_at_any_step(where, failure):
    sink = MemorySink()
    step = a_download().answer(sink)
    for answer in STEPS[where]:
        step.answer(answer)
    with pytest.raises(type(failure)) as caught:
        step.fail(failure)
    assert caught.value is failure
    assert sink.discarded == 1


@pytest.mark.hostile("files-broken-off")
@pytest.mark.parametrize("where", STEPS)
def test_the_sink_is_discarded_when_the_flow_is_given_up(where):
    sink = MemorySink()
    step = a_download().answer(sink)
    for answer in STEPS[where]:
        step.answer(answer)
    step.close()
    assert sink.discarded == 1


@pytest.mark.hostile("files-broken-off")
@pytest.mark.parametrize(
    ("head", "content", "error"),
    [
        (NOT_FOUND, b'{"code": "E"}', NotFoundError),
        (Head(status=304), b"", AgentRunClientError),
        (Head(status=502, headers=Headers({"Content-Type": "text/html"})), b"<html>", BadGatewayError),
        (JSON_HEAD, b'{"code": "ERR_FORBIDDEN", "requestId": "r"}', DecodeError),
        (
            Head(status=200, headers=Headers({"Content-Type": "Application/JSON; charset=utf-8"})),
            b"{}",
            DecodeError,
        ),
        (Head(status=200, headers=Headers({"Content-Type": "application/json ;x"})), b"{}", DecodeError),
    ],
)
def test_a_refused_download_commits_nothing(head, content, error):
    sink = MemorySink()
    step = a_download().answer(sink).answer(head)
    assert type(step.command) is ReadAll
    with pytest.raises(error) as caught:
        step.answer(content)
    assert sink.discarded == 1
    assert caught.value.status_code == head.status
    if head is JSON_HEAD:
        assert (caught.value.error_code, caught.value.request_id) == ("ERR_FORBIDDEN", "r")


@pytest.mark.parametrize(
    "content_type",
    ["application/jsonl", "application/json-seq", "application/json5", "text/plain", "video/x-matroska", ""],
)
def test_a_file_of_another_type_is_saved(content_type):
    head = Head(status=200, headers=Headers({"Content-Type": content_type}))
    step = a_download().answer(MemorySink()).answer(head).answer(None)
    assert type(step.command) is ReadInto
    step.close()


def test_a_sink_that_cannot_be_opened_ends_a_download_before_anything_is_sent():
    with pytest.raises(FileError):
        a_download().fail(FileError("a directory", may_be_processed=False))
    a_download().close()


def test_flows_yield_nothing_but_commands():
    step = a_download()
    for answer in (MemorySink(), FILE_HEAD, None, 0, None):
        assert isinstance(step.command, commands.Command)
        step.answer(answer)
    assert step.done


@pytest.mark.parametrize(
    ("timeout", "deadline", "read"),
    [
        (None, math.inf, 600),
        (5, math.inf, 5),
        (Timeout(read=3), math.inf, 3),
        (Timeout(total=9), 1009.0, None),
    ],
)
def test_a_download_is_bounded_by_each_silence_and_by_a_total_only_where_one_is_set(timeout, deadline, read):
    step = a_download(config=Config(timeout=timeout)).answer(MemorySink())
    assert type(step.command) is Send
    assert (step.command.deadline, step.command.timeout.read) == (deadline, read)
    step.close()


def test_a_total_holds_for_all_attempts_together():
    clock = FakeClock()
    config = Config(timeout=Timeout(total=9), retry=Retry())
    step = a_download(clock, config).answer(MemorySink()).answer(whole(ETag=TAG).head).answer(None)
    clock.mono += 4
    send = step.fail(ConnectError("x")).answer(bytes(6)).command
    assert type(send) is Send
    assert send.deadline == 1009.0
    step.close()


def test_a_total_holds_where_it_begins_anew():
    """As in the test above, where what is here turns out to be of another version."""
    clock = FakeClock()
    step = a_download(clock, Config(timeout=Timeout(total=9)), resume=True).answer(MemorySink(b"x", TAG))
    clock.mono += 4
    send = step.answer(Head(status=416)).answer(b"").command
    assert type(send) is Send
    assert send.request.headers.get("range") is None
    assert send.deadline == 1009.0
    step.close()
