"""Flows, driven by hand: which commands, in which order, within which limits; what holds after a failure."""

from __future__ import annotations

import ast
import gzip
import inspect
import math
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
    OpenSource,
    ReadAll,
    ReadInto,
    ReadTimeout,
    RedirectError,
    Retry,
    Rewind,
    Send,
    Sleep,
    Timeout,
    commands,
    flows,
)
from agentrun_proto.decoding import MAX_BODY
from proto_strategies import ByHand, FakeClock, FakeSink, FakeSource

OK = Head(status=200)
NOT_FOUND = Head(status=404)
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


def endpoint(**config: Any) -> DataEndpoint:
    return DataEndpoint(
        Config(
            data_endpoint="http://h",
            access_key_id="i",
            access_key_secret="s",
            **{"retry": Retry.never(), **config},
        )
    )


def a_call(clock: FakeClock | None = None, **config: Any) -> ByHand:
    at = endpoint(**config)
    return ByHand(at.call(at.request("POST", "x", data={"a": 1}), clock=clock or FakeClock()))


def an_upload(clock: FakeClock | None = None, config: Config | None = None, **changes: Any) -> ByHand:
    arguments = {"filename": "f", "boundary": "b", "fields": {"path": "/t"}, **changes}
    at = endpoint().overlaid(config)
    return ByHand(at.upload("files", "/local", clock=clock or FakeClock(), **arguments))


# --- call and exchange


def test_a_call_is_sent_read_and_decoded():
    step = a_call()
    send = step.command
    assert type(send) is Send
    assert (send.request.method, send.request.target) == ("POST", "/2025-09-10/agents/x")
    assert {name for name, _ in send.request.signature} >= {"Agentrun-Authorization", "x-acs-date"}
    read = step.answer(OK).command
    assert type(read) is ReadAll
    assert read.limit == MAX_BODY
    assert step.answer(b'{"id": 1}').result == {"id": 1}
    assert step.done


def test_an_exchange_returns_the_whole_answer_whatever_its_status():
    at = endpoint()
    for status, content in ((200, b"[1]"), (404, b"gone"), (302, b"")):
        step = ByHand(at.exchange(at.request("GET", "x"), clock=FakeClock()))
        head = Head(status=status, headers=Headers({"x": "y"}))
        assert type(step.command) is Send
        assert type(step.answer(head).command) is ReadAll
        response = step.answer(content).result
        assert (response.head, response.content) == (head, content)


def test_a_refusal_that_a_hook_met_is_no_answer_to_the_exchange():
    """A hook may ask elsewhere for what authorises; what is refused to it there is not what was asked for."""

    def refused(*_: Any) -> Any:
        raise NotFoundError("the hook's own", status_code=404)

    at = DataEndpoint(
        Config(data_endpoint="http://h", access_key_id="i", access_key_secret="s"), auth=refused
    )
    with pytest.raises(NotFoundError, match="the hook's own"):
        ByHand(at.exchange(at.request("GET", "x"), clock=FakeClock()))


@pytest.mark.parametrize(
    ("head", "content", "error"),
    [
        (NOT_FOUND, b'{"code": "SandboxNotFound"}', NotFoundError),
        (Head(status=502), b"<html>", BadGatewayError),
        (OK, b"<html>", DecodeError),
        (OK, b"[]", DecodeError),
        (Head(status=200, headers=Headers({"Content-Encoding": "br"})), b"x", DecodeError),
        (Head(status=200, headers=Headers({"Content-Encoding": "gzip"})), b"x", DecodeError),
        # a refusal stays one, even where its coding is damaged
        (
            Head(status=404, headers=Headers({"Content-Encoding": "gzip", "x-request-id": "r"})),
            b"x",
            NotFoundError,
        ),
        (Head(status=404, headers=Headers({"Content-Encoding": "br"})), b"x", NotFoundError),
        (Head(status=299, headers=Headers({"Content-Encoding": "br"})), b"x", DecodeError),
        (Head(status=300, headers=Headers({"Content-Encoding": "br"})), b"x", RedirectError),
    ],
)
def test_a_call_ends_in_the_error_of_its_answer(head, content, error):
    step = a_call().answer(head)
    with pytest.raises(error) as caught:
        step.answer(content)
    assert caught.value.status_code == head.status
    coded = "content-encoding" in head.headers
    assert not (coded and caught.value.response_body), "what cannot be read is not made up"
    assert caught.value.request_id == head.headers.get("x-request-id")


def test_a_status_that_a_driver_raises_leaves_an_exchange_without_an_answer():
    at = endpoint()
    failure = NotFoundError("x", status_code=404)
    with pytest.raises(NotFoundError) as caught:
        ByHand(at.exchange(at.request("GET", "x"), clock=FakeClock())).fail(failure)
    assert caught.value is failure


def test_codings_are_taken_off_in_calls_and_exchanges():
    head = Head(status=200, headers=Headers({"Content-Encoding": "gzip"}))
    assert a_call().answer(head).answer(gzip.compress(b'{"a": 1}')).result == {"a": 1}
    at = endpoint()
    step = ByHand(at.exchange(at.request("GET", "x"), clock=FakeClock())).answer(head)
    assert step.answer(gzip.compress(b"abc")).result.content == b"abc"
    coded_refusal = a_call().answer(Head(status=404, headers=head.headers))
    with pytest.raises(NotFoundError, match="told"):
        coded_refusal.answer(gzip.compress(b'{"message": "told"}'))


@pytest.mark.parametrize("failure", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("answers", [[], [OK]], ids=["send", "read"])
def test_a_failure_at_any_step_of_a_call_comes_out_unchanged(answers, failure):
    step = a_call()
    for answer in answers:
        step.answer(answer)
    with pytest.raises(type(failure)) as caught:
        step.fail(failure)
    assert caught.value is failure


# --- time


@pytest.mark.parametrize(
    ("timeout", "deadline", "limits"),
    [
        (None, 1600.0, Timeout(total=600)),
        (5, 1005.0, Timeout(total=5)),
        (0.25, 1000.25, Timeout(total=0.25)),
        (math.inf, math.inf, Timeout(total=math.inf)),
        (Timeout(read=3), 1600.0, Timeout(total=600, read=3)),
        (Timeout(total=2, connect=1), 1002.0, Timeout(total=2, connect=1)),
    ],
)
def test_the_deadline_of_a_call_is_exact_and_by_the_monotonic_clock(timeout, deadline, limits):
    for wall in (0.0, 4e9):
        send = a_call(FakeClock(wall=wall, monotonic=1000.0), timeout=timeout).command
        assert (send.deadline, send.timeout) == (deadline, limits)


@pytest.mark.parametrize(
    ("timeout", "deadline", "read"),
    [
        (None, math.inf, 600),
        (5, math.inf, 5),
        (Timeout(read=3), math.inf, 3),
        (Timeout(total=9), 1009.0, None),
    ],
)
def test_an_upload_is_bounded_by_each_silence_and_by_a_total_only_where_one_is_set(timeout, deadline, read):
    config = Config(timeout=timeout)
    send = an_upload(config=config).answer(FakeSource()).command
    assert type(send) is Send
    assert (send.deadline, send.timeout.read) == (deadline, read)


@pytest.mark.hostile("published-reused-date")
def test_a_request_is_signed_when_it_is_sent_not_when_it_is_made():
    clock = FakeClock()
    at = endpoint()
    flow = at.call(at.request("GET", "x"), clock=clock)
    clock.wall += 60
    clock.mono += 60
    send = ByHand(flow).command
    assert dict(send.request.signature)["x-acs-date"] == "2026-03-06T12:01:00Z"
    assert send.deadline == 1660.0
    upload = an_upload(clock)
    clock.wall += 60
    assert dict(upload.answer(FakeSource()).command.request.signature)["x-acs-date"] == "2026-03-06T12:02:00Z"


# --- upload


def test_an_upload_opens_sends_reads_and_closes():
    source = FakeSource(7)
    step = an_upload()
    assert type(step.command) is OpenSource
    assert step.command.path == "/local"
    send = step.answer(source).command
    assert type(send) is Send
    request = send.request
    assert request.method == "POST"
    assert request.content_type == "multipart/form-data; boundary=b"
    assert source in request.body.segments
    assert not request.expect_continue, "only where the caller wants it"
    assert b'name="path"\r\n\r\n/t\r\n' in request.body.segments[0]
    assert b'name="file"; filename="f"' in request.body.segments[0]
    assert request.body.length == sum(len(s) for s in request.body.segments if isinstance(s, bytes)) + 7
    assert source.closed == 0
    assert type(step.answer(OK).command) is ReadAll
    assert source.closed == 0
    assert step.answer(b"{}").result == {}
    assert source.closed == 1


@pytest.mark.parametrize("failure", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("answers", [[], [OK]], ids=["send", "read"])
def test_the_source_is_closed_after_a_failure_at_any_step(answers, failure):
    source = FakeSource()
    step = an_upload().answer(source)
    for answer in answers:
        step.answer(answer)
    with pytest.raises(type(failure)) as caught:
        step.fail(failure)
    assert caught.value is failure
    assert source.closed == 1


@pytest.mark.parametrize("answers", [[], [OK]], ids=["send", "read"])
def test_the_source_is_closed_when_the_flow_is_given_up(answers):
    source = FakeSource()
    step = an_upload().answer(source)
    for answer in answers:
        step.answer(answer)
    step.close()
    assert source.closed == 1


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"cut'])
def test_the_source_is_closed_after_nonsense_and_refusals(content):
    for head in (OK, NOT_FOUND, Head(status=413)):
        source = FakeSource()
        step = an_upload().answer(source).answer(head)
        with pytest.raises(AgentRunClientError):
            step.answer(content)
        assert source.closed == 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"filename": "\0"}, ValueError),
        ({"boundary": "a b"}, ValueError),
        ({"fields": {"a": []}}, TypeError),
        ({"query": {"a": b"x"}}, TypeError),
        ({"headers": {"x-acs-date": "mine"}}, ValueError),
        ({"headers": {"Content-Type": "a/b"}}, ValueError),
    ],
)
def test_misuse_that_shows_after_the_source_is_open_closes_it(changes, error):
    source = FakeSource()
    step = an_upload(**changes)
    with pytest.raises(error):
        step.answer(source)
    assert source.closed == 1


def test_a_file_that_cannot_be_opened_ends_an_upload_before_anything_is_sent():
    failure = FileError("missing", may_be_processed=False)
    with pytest.raises(FileError) as caught:
        an_upload().fail(failure)
    assert caught.value is failure
    an_upload().close()


# --- content of no use


@pytest.mark.parametrize("status", [200, 404])
def test_content_of_no_use_is_told_with_what_the_head_tells(status):
    """Too large to be held, say: a refusal stays one, and success is a DecodeError with status and id."""
    head = Head(status=status, headers=Headers({"x-request-id": "r"}))
    step = a_call().answer(head)
    with pytest.raises(DecodeError if status == 200 else NotFoundError) as raised:
        step.fail(DecodeError("too large"))
    assert (raised.value.status_code, raised.value.request_id) == (status, "r")


# --- again


class ReadAgain(FakeSource):
    replayable = True


def test_an_upload_that_is_repeated_reads_its_source_again_and_closes_it_once():
    source = ReadAgain(7)
    step = an_upload(config=Config(retry=Retry()), idempotent=True).answer(source)
    body = step.command.request.body
    for failure in (IncompleteError("x"), ConnectError("x")):
        rewind = step.fail(failure).answer(bytes(6)).command
        assert type(rewind) is Rewind
        assert rewind.body is body
        assert step.answer(None).command.request.body is body
        assert source.closed == 0
    assert step.answer(OK).answer(b"{}").result == {}
    assert source.closed == 1


def test_an_upload_is_no_more_repeated_than_any_post():
    source = ReadAgain(7)
    step = an_upload(config=Config(retry=Retry())).answer(source)
    assert type(step.fail(ConnectError("x")).answer(bytes(6)).command) is Rewind
    step.answer(None)
    with pytest.raises(IncompleteError):
        step.fail(IncompleteError("x"))
    assert source.closed == 1


@pytest.mark.parametrize("at", ["chance", "pause", "rewind"])
def test_a_source_is_closed_when_the_flow_is_given_up_between_two_attempts(at):
    source = ReadAgain(7)
    step = an_upload(config=Config(retry=Retry()), idempotent=True).answer(source).fail(ConnectError("x"))
    if at != "chance":
        step.answer(b"\x80" + bytes(5))
        assert type(step.command) is Sleep
    if at == "rewind":
        step.answer(None)
        assert type(step.command) is Rewind
    step.close()
    assert source.closed == 1


def test_a_call_that_succeeds_in_the_end_returns_the_last_answer_alone():
    step = a_call(retry=Retry(), timeout=30).answer(Head(status=503)).answer(b'{"old": 1}')
    step.answer(bytes(6)).answer(OK)
    assert step.answer(b'{"new": 2}').result == {"new": 2}


# --- what holds for all flows


def test_a_finally_yields_nothing():
    checked = 0
    for node in ast.walk(ast.parse(inspect.getsource(flows))):
        if isinstance(node, ast.Try):
            for statement in node.finalbody:
                checked += 1
                assert not [
                    n for n in ast.walk(statement) if isinstance(n, (ast.Yield, ast.YieldFrom, ast.Await))
                ]
    assert checked >= 2


def test_flows_yield_nothing_but_commands():
    runs = [
        (a_call(), [OK, b"{}"]),
        (an_upload(), [FakeSource(), OK, b"{}"]),
    ]
    for step, answers in runs:
        for answer in answers:
            assert isinstance(step.command, commands.Command)
            step.answer(answer)
        assert step.done


def test_every_command_is_typed_by_yield_from():
    for command in (ReadAll(1), OpenSource("x"), OpenSink("x"), Commit(FakeSink()), ReadInto(FakeSink())):
        asked = iter(command)
        assert next(asked) is command
        with pytest.raises(StopIteration) as stop:
            asked.send("answer")
        assert stop.value.value == "answer"


def test_a_flow_does_nothing_before_it_is_started():
    class NoClock:
        def now(self) -> float:
            raise AssertionError("asked for the time")

        monotonic = now

    at = endpoint()
    request = at.request("GET", "x")
    for flow in (
        at.call(request, clock=NoClock()),
        at.exchange(request, clock=NoClock()),
        at.download(request, "/x", clock=NoClock()),
        at.upload("x", "/x", filename="f", boundary="b", clock=NoClock()),
    ):
        flow.close()
