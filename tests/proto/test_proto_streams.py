"""Streams, driven by hand: what is delivered when, what is asked for again, and what a failure ends."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from agentrun_proto import (
    CHAT,
    EVENTS,
    JSON_LINES,
    LINES,
    PIECES,
    RESUMED_EVENTS,
    AgentRunClientError,
    Config,
    ConnectError,
    DataEndpoint,
    DecodeError,
    Deliver,
    Head,
    Headers,
    IncompleteError,
    NotFoundError,
    RandomBytes,
    ReadAll,
    ReadSome,
    ReadTimeout,
    Retry,
    Send,
    ServerSentEvent,
    ServiceUnavailableError,
    Sleep,
    Timeout,
)
from agentrun_proto.codings import PIECE
from agentrun_proto.retry import LONGEST_PAUSE
from agentrun_proto.streams import DEFAULT_RETRY
from proto_strategies import ByHand, FakeClock

OK = Head(status=200)
EVENT_HEAD = Head(status=200, headers=Headers({"Content-Type": "text/event-stream; charset=utf-8"}))
NO_CONTENT = Head(status=204)
NAMED = Head(status=200, headers=Headers({"x-acs-request-id": "r-1"}))


def a_stream(method: str = "GET", clock: FakeClock | None = None, **config: Any) -> ByHand:
    """The flow, at its first Send."""
    settings = {"data_endpoint": "http://h", "retry": Retry.never(), **config}
    endpoint = DataEndpoint(Config(**settings))
    request = endpoint.stream_request(method, "s", headers={"X-Own": "a"})
    flow = ByHand(endpoint.stream(request, clock=clock or FakeClock()))
    assert isinstance(flow.command, Send)
    return flow


def entered(reading: Any, head: Head = OK, **options: Any) -> ByHand:
    """The flow, at its first ReadSome."""
    flow = a_stream(**options).answer(head)
    assert isinstance(flow.command, Deliver)
    assert flow.command.items == [head]
    return flow.answer(reading)


def brings(flow: ByHand, piece: bytes) -> list[Any]:
    """What a piece makes the flow deliver, before it asks for the next."""
    assert isinstance(flow.command, ReadSome)
    flow.answer(piece)
    if not isinstance(flow.command, Deliver):
        return []
    items = flow.command.items
    assert items, "nothing is delivered only if it is something"
    flow.answer(None)
    return items


@pytest.mark.parametrize(
    ("reading", "pieces", "items", "last"),
    [
        (PIECES, [b"a", b"bc"], [[b"a"], [b"bc"]], []),
        (LINES, [b"a", b"\nb\nc", b"d"], [[], ["a", "b"], []], ["cd"]),
        (JSON_LINES, [b"1\n{", b"}\n", b"[]"], [[1], [{}], []], [[]]),
        (EVENTS, [b"data: a\n\nda", b"ta: b\n\n"], [[ServerSentEvent(data=x)] for x in "ab"], []),
    ],
)  # fmt: skip
def test_items_are_delivered_as_soon_as_they_are_complete(
    reading: Any, pieces: list[bytes], items: list[Any], last: list[Any]
) -> None:
    flow = entered(reading)
    assert [brings(flow, piece) for piece in pieces] == items
    assert brings(flow, b"") == last
    assert flow.done


def test_nothing_is_read_before_the_way_is_chosen() -> None:
    flow = a_stream().answer(OK)
    assert isinstance(flow.command, Deliver)
    flow.close()


def test_a_request_for_a_stream_asks_for_no_coding() -> None:
    command = a_stream().command
    assert command.request.headers["accept-encoding"] == "identity"
    assert command.request.headers["x-own"] == "a"


@pytest.mark.parametrize("coding", ["compress", "GZIP, identity", "gzip, deflate"])
def test_a_coding_is_refused_with_the_head(coding: str) -> None:
    flow = a_stream()
    with pytest.raises(DecodeError, match="coding") as caught:
        flow.answer(Head(status=200, headers=Headers({"Content-Encoding": coding, "x-acs-request-id": "r"})))
    assert (caught.value.status_code, caught.value.request_id) == (200, "r")


def coded(coding: str) -> Head:
    return Head(
        status=200, headers=Headers({"Content-Encoding": coding, "Content-Type": "text/event-stream"})
    )


def test_a_coding_is_taken_off_as_it_comes() -> None:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)

    def flushed(text: bytes) -> bytes:
        return squeeze.compress(text) + squeeze.flush(zlib.Z_SYNC_FLUSH)

    flow = entered(LINES, coded("GZip"))
    assert brings(flow, flushed(b"one\ntwo")) == ["one"]
    assert brings(flow, flushed(b"\nthree\n")) == ["two", "three"]
    assert brings(flow, squeeze.flush()) == []
    assert brings(flow, b"") == []
    assert flow.done


def test_a_bomb_comes_in_pieces() -> None:
    flow = entered(PIECES, coded("deflate"))
    flow.answer(zlib.compress(bytes(8 << 20)))
    sizes = []
    while isinstance(flow.command, Deliver):
        sizes.append(len(flow.command.items[0]))
        flow.answer(None)
    assert sum(sizes) == 8 << 20
    assert max(sizes) <= PIECE


@pytest.mark.parametrize(
    ("content", "said"), [(b"no gzip at all", "damaged"), (gzip.compress(b"x\n", mtime=0)[:-1], "too early")]
)
def test_damage_amid_a_stream(content: bytes, said: str) -> None:
    flow = entered(PIECES, Head(status=200, headers=NAMED.headers.merged({"Content-Encoding": "gzip"})))
    with pytest.raises(DecodeError, match=said) as caught:
        flow.answer(content)
        while not flow.done:
            flow.answer(None if isinstance(flow.command, Deliver) else b"")
    error = caught.value
    assert (error.status_code, error.request_id, error.response_body) == (200, "r-1", None)
    assert error.__suppress_context__, "it says all that the decoder knows"


@pytest.mark.parametrize(
    ("status", "asked"), [(200, Deliver), (206, Deliver), (299, Deliver), (300, ReadAll), (304, ReadAll)]
)
def test_which_answers_are_streams(status: int, asked: type) -> None:
    flow = a_stream().answer(Head(status=status))
    assert isinstance(flow.command, asked)
    flow.close()


def test_identity_is_no_coding() -> None:
    entered(LINES, Head(status=200, headers=Headers({"Content-Encoding": "Identity"})))


def test_a_refusal_is_read_and_raised() -> None:
    flow = a_stream().answer(Head(status=404))
    assert isinstance(flow.command, ReadAll)
    with pytest.raises(NotFoundError, match="nope"):
        flow.answer(b'{"message":"nope"}')


def test_before_the_head_an_attempt_is_repeated() -> None:
    flow = a_stream(retry=Retry(attempts=3, backoff=1.0))
    for failed in (lambda: flow.fail(ConnectError("x")), lambda: flow.answer(Head(status=503)).answer(b"")):
        failed()
        assert isinstance(flow.command, RandomBytes)
        assert isinstance(flow.answer(b"\x80" + bytes(5)).command, Sleep)
        assert isinstance(flow.answer(None).command, Send)
    assert isinstance(flow.answer(OK).command, Deliver)


@pytest.mark.parametrize("reading", [PIECES, LINES, JSON_LINES, EVENTS, CHAT])
@pytest.mark.parametrize("error", [IncompleteError("x"), ReadTimeout("x")])
def test_after_the_head_nothing_is_repeated(reading: Any, error: Any) -> None:
    flow = entered(reading, retry=Retry(attempts=3))
    with pytest.raises(type(error)) as caught:
        flow.fail(error)
    assert caught.value is error


def test_items_come_before_the_error_in_the_same_piece() -> None:
    flow = entered(JSON_LINES)
    flow.answer(b"1\n2\nno\n3\n")
    assert flow.command.items == [1, 2]
    with pytest.raises(DecodeError, match="line 3"):
        flow.answer(None)


def test_done_ends_a_chat_without_another_read() -> None:
    flow = entered(CHAT, method="POST")
    assert brings(flow, b'data: {"i":1}\n\ndata: [DONE]\n\ndata: {"i":2}\n\n') == [{"i": 1}]
    assert flow.done


def test_an_error_within_a_chat() -> None:
    flow = entered(CHAT, method="POST")
    flow.answer(b'data: {"i":1}\n\ndata: {"error":{"message":"hot","code":"E"}}\n\n')
    assert flow.command.items == [{"i": 1}]
    with pytest.raises(AgentRunClientError, match="hot") as caught:
        flow.answer(None)
    assert caught.value.error_code == "E"


def test_a_chat_that_is_not_done() -> None:
    flow = entered(CHAT, method="POST")
    assert brings(flow, b'data: {"i":1}\n\n') == [{"i": 1}]
    with pytest.raises(IncompleteError, match="DONE"):
        flow.answer(b"")


@pytest.mark.parametrize(
    ("reading", "content", "status"),
    [
        (JSON_LINES, b"no\n", 200),
        (LINES, b"\xff\n", 200),
        (CHAT, b'data: {"error":"hot"}\n\n', 200),
        (CHAT, b"data: no\n\n", 200),
    ],
)
def test_an_error_within_a_stream_says_of_which_answer_it_is(
    reading: Any, content: bytes, status: int
) -> None:
    flow = entered(reading, NAMED, method="POST")
    with pytest.raises(AgentRunClientError) as caught:
        flow.answer(content)
    error = caught.value
    assert (error.status_code, error.request_id, dict(error.response_headers)) == (
        status,
        "r-1",
        dict(NAMED.headers),
    )


def test_what_an_error_says_of_its_answer_is_left_as_it_is() -> None:
    flow = entered(PIECES, NAMED)
    own = Headers({"x-own": "1"})
    error = ServiceUnavailableError("x", status_code=503, request_id="r-own", response_headers=own)
    with pytest.raises(ServiceUnavailableError):
        flow.fail(error)
    assert (error.status_code, error.request_id, dict(error.response_headers)) == (
        503,
        "r-own",
        {"x-own": "1"},
    )


def test_a_connection_that_breaks_leaves_the_id_and_no_status() -> None:
    flow = entered(PIECES, NAMED)
    with pytest.raises(IncompleteError) as caught:
        flow.fail(IncompleteError("cut"))
    assert (caught.value.status_code, caught.value.request_id) == (0, "r-1")


# --- taken up again


def test_nobody_waits_for_a_year_because_a_stream_says_so() -> None:
    flow = entered(RESUMED_EVENTS, EVENT_HEAD)
    brings(flow, b"retry: 31536000000\ndata: a\n\n")
    flow.answer(b"")
    assert isinstance(flow.command, Sleep)
    assert flow.command.seconds == LONGEST_PAUSE


def again(flow: ByHand, seconds: float) -> Send:
    """The request that comes after a pause of so many seconds."""
    assert isinstance(flow.command, Sleep)
    assert flow.command.seconds == seconds
    command = flow.answer(None).command
    assert isinstance(command, Send)
    assert command.request.headers["x-own"] == "a"
    return command


@pytest.mark.parametrize("broken", [False, True])
def test_a_stream_is_taken_up_after_its_last_event(broken: bool) -> None:
    flow = entered(RESUMED_EVENTS, EVENT_HEAD)
    assert brings(flow, b"retry: 20\nid: 7\ndata: a\n\nid: 8\ndata: half") == [
        ServerSentEvent(data="a", id="7", retry=20)
    ]
    if broken:
        flow.fail(IncompleteError("x"))
    else:
        flow.answer(b"")
    assert again(flow, 0.02).request.headers["last-event-id"] == "7"
    flow.answer(EVENT_HEAD)
    assert brings(flow, b"data: b\n\n") == [ServerSentEvent(data="b", id="7")]
    flow.fail(ReadTimeout("x"))
    assert again(flow, 0.02).request.headers["last-event-id"] == "7"
    assert flow.answer(NO_CONTENT).done


def test_without_an_id_and_without_a_time() -> None:
    flow = entered(RESUMED_EVENTS, EVENT_HEAD)
    flow.answer(b"")
    assert "last-event-id" not in again(flow, 3.0).request.headers


def test_204_at_once_is_the_end() -> None:
    assert entered(RESUMED_EVENTS, NO_CONTENT).done


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_only_get_is_taken_up(method: str) -> None:
    assert entered(RESUMED_EVENTS, EVENT_HEAD, method=method).answer(b"").done
    with pytest.raises(IncompleteError):
        entered(RESUMED_EVENTS, EVENT_HEAD, method=method).fail(IncompleteError("x"))


def test_an_attempt_to_take_it_up_is_repeated_like_any_other() -> None:
    flow = entered(RESUMED_EVENTS, EVENT_HEAD, retry=Retry(attempts=2, backoff=0.0))
    brings(flow, b"id: 1\ndata: a\n\n")
    flow.answer(b"")
    again(flow, DEFAULT_RETRY)
    flow.fail(ConnectError("x"))
    assert isinstance(flow.command, RandomBytes)
    assert flow.answer(bytes(6)).command.request.headers["last-event-id"] == "1"
    flow.answer(Head(status=503))
    with pytest.raises(ServiceUnavailableError) as caught:
        flow.answer(b"")
    assert len(caught.value.attempts) == 2


@pytest.mark.parametrize(("told", "sent"), [("é", "\xc3\xa9"), ("\ufffd", "\xef\xbf\xbd"), ("a\tb", "a\tb")])
def test_an_id_goes_out_as_utf8(told: str, sent: str) -> None:
    flow = entered(RESUMED_EVENTS, EVENT_HEAD)
    brings(flow, f"id: {told}\n\n".encode())
    flow.answer(b"")
    assert again(flow, DEFAULT_RETRY).request.headers["last-event-id"] == sent


@pytest.mark.parametrize("told", ["\x01", "a\x7f"])
def test_an_id_that_no_field_holds(told: str) -> None:
    flow = entered(RESUMED_EVENTS, EVENT_HEAD)
    brings(flow, f"id: {told}\n\n".encode())
    flow.answer(b"")
    with pytest.raises(DecodeError, match="no field holds") as caught:
        flow.answer(None)
    assert caught.value.response_body is None, "it was delivered, item by item"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("kind", ["", "application/json", "text/event-streams", "x/y; text/event-stream"])
def test_what_is_no_event_stream_is_not_taken_up(kind: str) -> None:
    flow = a_stream().answer(Head(status=200, headers=Headers({"Content-Type": kind})))
    with pytest.raises(DecodeError, match="no event stream") as caught:
        flow.answer(RESUMED_EVENTS)
    assert caught.value.response_body is None, "it has not been read"


@pytest.mark.parametrize("kind", ["text/event-stream", "Text/Event-Stream;charset=utf-8"])
def test_what_is_an_event_stream(kind: str) -> None:
    flow = entered(RESUMED_EVENTS, Head(status=200, headers=Headers({"Content-Type": kind})))
    assert isinstance(flow.command, ReadSome)


def test_an_event_that_is_too_large_is_the_end() -> None:
    flow = entered(RESUMED_EVENTS, EVENT_HEAD)
    with pytest.raises(DecodeError, match="larger"):
        while True:
            flow.answer(b"data: " + bytes(1_000_000) + b"\n")


def test_all_requests_share_one_total() -> None:
    clock = FakeClock()
    flow = entered(RESUMED_EVENTS, EVENT_HEAD, clock=clock, timeout=Timeout(total=10.0))
    end = clock.monotonic() + 10.0
    brings(flow, b"retry: 60000\n\n")
    clock.mono += 4.0
    flow.answer(b"")
    command = again(flow, 6.0)  # and not 60
    assert command.deadline == end
    flow.answer(EVENT_HEAD)
    clock.mono += 6.0
    late = ReadTimeout("x")
    with pytest.raises(ReadTimeout) as caught:
        flow.fail(late)
    assert caught.value is late


def test_no_total_is_no_limit() -> None:
    clock = FakeClock()
    flow = entered(RESUMED_EVENTS, EVENT_HEAD, clock=clock, timeout=30.0)
    clock.mono += 1e9
    flow.fail(ReadTimeout("x"))
    again(flow, DEFAULT_RETRY)


@pytest.mark.parametrize("at", range(4))
def test_it_can_be_left_anywhere(at: int) -> None:
    flow = a_stream()
    for value in (EVENT_HEAD, RESUMED_EVENTS, b"data: a\n\n")[:at]:
        flow.answer(value)
    flow.close()
