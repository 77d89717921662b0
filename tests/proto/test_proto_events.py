"""Push decoders: each case whole, byte by byte, and cut where Hypothesis likes, always with one outcome.

Rules of this file: what is right is said by the web platform's own vectors, or by the small references of
tests/stream_readers.py.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import FrozenInstanceError
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentrun_proto.decoding import parse_json
from agentrun_proto.errors import AgentRunClientError, DecodeError, IncompleteError, TransportError
from agentrun_proto.events import (
    MAX_EVENT,
    MAX_LINE,
    ChatDecoder,
    EventDecoder,
    JSONLinesDecoder,
    LineDecoder,
    ServerSentEvent,
)
from proto_strategies import FEWER, PROPERTY, any_text, load
from stream_readers import by_the_standard, split_lines

Outcome = tuple[list[Any], "tuple[type[AgentRunClientError], str, Any] | None"]

VECTORS = load("eventsource_vectors.json")


# --- feeding


def bytewise(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    """The body in pieces; a place that occurs twice gives an empty piece."""
    marks = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:stop] for start, stop in pairwise(marks)]


places = st.lists(st.integers(0, 1 << 16), max_size=6)


def outcome(decoder: Any, pieces: Iterable[bytes]) -> Outcome:
    """All that came out, and the error that ended it, if one did."""
    found: list[Any] = []
    try:
        for piece in pieces:
            found += decoder.feed(piece)
        found += decoder.end()
    except AgentRunClientError as error:
        return found, (type(error), str(error), error.response_body)
    return found, None


def events(body: bytes | str, **options: Any) -> list[ServerSentEvent]:
    decoder = EventDecoder(**options)
    return decoder.feed(body.encode() if isinstance(body, str) else body) + decoder.end()


def raised(decoder: Any, *pieces: bytes) -> AgentRunClientError:
    with pytest.raises(AgentRunClientError) as caught:
        for piece in pieces:
            assert decoder.feed(piece) == []
        assert decoder.end() == []
    return caught.value


awkward_stream = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"data",
                b"data:",
                b"data: ",
                b"event: ",
                b"id: ",
                b"id",
                b"retry: ",
                b":",
                b"a",
                b" ",
                b"7",
                b"\0",
            ]
        ),
        st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n"]),
        st.sampled_from(
            ["\ufeff", "\u2028", "\x85", "\x0b", "\x0c", "é", "中", "😀", "٣"]  # the last one: an Arabic 3
        ).map(str.encode),
        st.sampled_from([b"\xff", b"\xe4\xb8", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xef\xbb"]),
        st.sampled_from([b"data: x\n\n", b"id: 1\ndata:y\r\n\r\n", b"retry: 30\rdata\r\r"]),
    ),
    max_size=30,
).map(b"".join)


# --- server-sent events: the web platform's vectors


def told(decoder: EventDecoder, pieces: Iterable[bytes]) -> tuple[list[list[str]], int | None]:
    found = [event for piece in pieces for event in decoder.feed(piece)] + decoder.end()
    return [[event.type, event.data, event.id] for event in found], decoder.retry


def ways(body: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and every way to cut it in two."""
    yield [body]
    yield bytewise(body)
    for at in range(len(body) + 1):
        yield [body[:at], body[at:]]


def test_the_vectors_are_all_there():
    assert len(VECTORS) == 20
    assert sum(len(vector["events"]) for vector in VECTORS) == 25


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_vector_however_it_is_cut(vector):
    for pieces in ways(vector["body"].encode()):
        found, retry = told(EventDecoder(), pieces)
        assert found == vector["events"]
        if vector["retry"] != "unchecked":
            assert retry == vector["retry"]


@PROPERTY
@given(st.sampled_from(VECTORS), places)
def test_a_vector_in_many_pieces(vector, where):
    found, _ = told(EventDecoder(), cut(vector["body"].encode(), where))
    assert found == vector["events"]


# --- server-sent events: held against the standard


@PROPERTY
@given(awkward_stream, places)
@example(b"\xef\xbb\xbfdata: 1\n\n", [1, 2])
@example(b"data: \xe4\xb8\xad\r\n\r\n", [7, 8, 10])
@example(b"data: a\r\ndata: b\n\n", [8, 8])
def test_any_bytes_mean_what_the_standard_says(body, where):
    expected, last_id, retry = by_the_standard(body)
    for pieces in ([body], bytewise(body), cut(body, where)):
        decoder = EventDecoder()
        assert outcome(decoder, pieces) == (expected, None)
        assert (decoder.last_event_id, decoder.retry) == (last_id, retry)


# What an event stream can carry: no CR in data, no line end in the others, no NUL in an id.
_lines = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=8)
any_event = st.builds(
    ServerSentEvent,
    type=_lines.map(lambda text: text or "message"),
    data=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=12)
    | st.lists(_lines, max_size=4).map("\n".join),
    id=_lines.map(lambda text: text.replace("\0", "")),
    retry=st.none() | st.integers(0, 10**9),
)


def encoded(sent: Iterable[ServerSentEvent], end: str, *, comments: bool) -> bytes:
    """An encoder of its own: id lines only where the id changes, a comment here and there."""
    text, last_id = "", ""
    for event in sent:
        lines = [f"data: {line}" for line in event.data.split("\n")]
        if event.type != "message":
            lines.append(f"event: {event.type}")
        if event.id != last_id:
            lines.insert(0, f"id: {event.id}" if event.id else "id")
            last_id = event.id
        if event.retry is not None:
            lines.append(f"retry: {event.retry}")
        if comments:
            lines.insert(1, ": data: not this")
        text += end.join(lines) + end * 2
    return text.encode()


@PROPERTY
@given(st.lists(any_event, max_size=5), st.sampled_from(["\n", "\r", "\r\n"]), st.booleans(), places)
def test_events_come_back_as_they_were_sent(sent, end, comments, where):
    body = encoded(sent, end, comments=comments)
    assert outcome(EventDecoder(), cut(body, where)) == (sent, None)
    assert outcome(EventDecoder(), bytewise(body)) == (sent, None)


@pytest.mark.parametrize(
    ("body", "complete"),
    [
        (b"data: a\n\n", 9),
        (b"data: a\r\r", 9),
        (b"data: a\r\n\r\n", 10),  # the second CR ends it; the LF that follows is swallowed
        (b"data: a\n\r\n", 9),
        (b"data: a\r\n\n", 10),
        (b"data: a\r\r\n", 9),
    ],
)
def test_an_event_waits_for_no_byte_more_than_it_needs(body, complete):
    decoder = EventDecoder()
    arrived = [at for at, byte in enumerate(bytewise(body), 1) if decoder.feed(byte)]
    assert arrived == [complete]
    assert [event.data for event in decoder.feed(b"data: b\n\n")] == ["b"]  # and no empty line was made up


# --- server-sent events: what published clients get wrong


@pytest.mark.hostile("published-sse-lines")
@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_only_cr_and_lf_end_a_line(character):
    data = f"a{character}data: b{character}{character}c"
    for pieces in ways(f"data: {data}\n\n".encode()):
        assert outcome(EventDecoder(), pieces) == ([ServerSentEvent(data=data)], None)


@pytest.mark.hostile("published-sse-bom")
def test_a_byte_order_mark_is_taken_off_at_the_very_start_alone():
    for pieces in ways("\ufeffdata: a\n\ndata: \ufeffb\n\n\ufeffdata: c\n\n".encode()):
        found, error = outcome(EventDecoder(), pieces)
        assert ([event.data for event in found], error) == (["a", "\ufeffb"], None)


@pytest.mark.parametrize("start", [b"\xef", b"\xef\xbb"])
def test_half_a_byte_order_mark_is_none(start):
    assert EventDecoder().feed(start) == []
    assert events(start + b"data: a\n\ndata: b\n\n") == [ServerSentEvent(data="b")]


@pytest.mark.hostile("published-sse-retry")
@pytest.mark.parametrize(
    "value", ["-5", "+5", "5.0", "5e3", "0x5", "5_000", " 5", "5 ", "٣", "५", "", "five", "1000x", "\x005"]
)
def test_a_retry_that_is_not_all_ascii_digits_is_ignored(value):
    decoder = EventDecoder()
    assert decoder.feed(f"retry: 20\n\nretry: {value}\ndata: a\n\n".encode()) == [ServerSentEvent(data="a")]
    assert decoder.retry == 20


@pytest.mark.parametrize(
    ("value", "retry"),
    [
        ("0", 0),
        ("007", 7),
        ("0" * 5000, 0),
        ("0" * 5000 + "12", 12),
        ("31622400000", 31622400000),
        ("31622400001", 31622400000),
        ("9" * 21, 31622400000),
        ("9" * 5000, 31622400000),
        ("1" + "0" * 30, 31622400000),
    ],
)
def test_a_retry_of_any_size(value, retry):
    decoder = EventDecoder()
    assert decoder.feed(f"retry:{value}\ndata: a\n\n".encode()) == [ServerSentEvent(data="a", retry=retry)]
    assert decoder.retry == retry


@pytest.mark.hostile("published-sse-unfinished")
@pytest.mark.parametrize("rest", ["", "\n", "\r", "\r\n", "\nevent: late", "\nid: 9\nevent: late\n"])
def test_an_unfinished_event_is_dropped(rest):
    body = f"id: 1\ndata: a\n\ndata: {{}}{rest}".encode()
    for pieces in (bytewise(body), [body]):
        decoder = EventDecoder()
        assert outcome(decoder, pieces) == ([ServerSentEvent(data="a", id="1")], None)
        assert decoder.last_event_id == "1"
        # ... and nothing of it is left for the next stream.
        assert decoder.feed(b"data: b\n\n") == [ServerSentEvent(data="b", id="1")]


# --- server-sent events: ids, types, reconnection


def test_the_last_event_id_holds_until_another_comes():
    found = events("id: 1\ndata: a\n\ndata: b\n\nid: 2\n\ndata: c\n\nid: x\0\ndata: d\n\nid\ndata: e\n\n")
    assert [(event.data, event.id) for event in found] == [
        ("a", "1"),
        ("b", "1"),
        ("c", "2"),
        ("d", "2"),
        ("e", ""),
    ]


def test_an_event_without_data_is_none_but_its_id_counts():
    decoder = EventDecoder()
    assert decoder.feed(b"event: ping\nid: 5\nretry: 9\n\n") == []
    assert (decoder.last_event_id, decoder.retry) == ("5", 9)
    assert decoder.feed(b"data: a\n\n") == [
        ServerSentEvent(data="a", id="5")
    ]  # no type, no retry carried over


def test_an_id_counts_once_its_event_is_whole():
    decoder = EventDecoder()
    decoder.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")
    assert decoder.last_event_id == "1"
    decoder.feed(b"\n")
    assert decoder.last_event_id == "2"


def test_one_decoder_reads_the_stream_before_and_after_a_reconnection():
    decoder = EventDecoder()
    decoder.last_event_id = "0"  # where an earlier program stopped
    assert decoder.feed(b"retry: 50\ndata: a\n\nid: 1\ndata: b\n\nid: 2\ndata: cut") == [
        ServerSentEvent(data="a", id="0", retry=50),
        ServerSentEvent(data="b", id="1"),
    ]
    assert decoder.end() == []
    assert (decoder.last_event_id, decoder.retry) == ("1", 50)
    assert decoder.feed(b"\xef\xbb\xbfdata: c\n\n") == [ServerSentEvent(data="c", id="1")]
    assert decoder.feed(b"data: d\r\r") == [ServerSentEvent(data="d", id="1")]
    assert decoder.end() == []
    assert decoder.feed(b"\ndata: e\n\n") == [ServerSentEvent(data="e", id="1")]


def test_bytes_that_are_no_utf8_become_replacement_characters():
    assert events(b"id: \xff\nevent: \xe4\xb8\ndata: \xed\xa0\x80\ndata: \xf0\x9f\n\n") == [
        ServerSentEvent(type="\ufffd", data="\ufffd\ufffd\ufffd\n\ufffd", id="\ufffd")
    ]


# --- the event as a value


def test_an_event_is_a_plain_value():
    event = events("id: 1\nevent: t\nretry: 5\ndata: {}\n\n")[0]
    same = ServerSentEvent(type="t", data="{}", id="1", retry=5)
    assert event == same
    assert hash(event) == hash(same)
    assert repr(event) == "ServerSentEvent(type='t', data='{}', id='1', retry=5)"
    assert pickle.loads(pickle.dumps(event)) == event
    assert ServerSentEvent() == ServerSentEvent(type="message", data="", id="", retry=None)
    with pytest.raises(FrozenInstanceError):
        event.data = "x"
    assert not hasattr(event, "__dict__")


NO_JSON = {
    "empty": "",
    "blank": " ",
    "text": "oops",
    "NaN": "NaN",
    "nested NaN": '{"a": [NaN]}',
    "infinity": "-Infinity",
    "too large for a float": "[1e999]",
    "an integer of 5,000 digits": "9" * 5000,
    "nested 100,000 deep": "[" * 100_000,
    "two values": "1 2",
    "cut": '{"a": ',
    "single quotes": "{'a': 1}",
    "trailing comma": "[1,]",
    "a line separator outside a string": "[1,\u20282]",
}


@pytest.mark.parametrize("text", NO_JSON.values(), ids=NO_JSON.keys())
def test_an_event_that_is_no_json(text):
    with pytest.raises(DecodeError) as caught:
        ServerSentEvent(data=text).json()
    assert caught.value.response_body == text
    assert caught.value.message.startswith("the data of an event is no JSON (")
    assert len(caught.value.message) < 700
    with pytest.raises(ValueError):
        parse_json(text.encode())


def test_a_message_says_where_the_json_is_broken():
    with pytest.raises(DecodeError) as caught:
        ServerSentEvent(data='{"a":\n oops}').json()
    assert (
        str(caught.value)
        == "the data of an event is no JSON (Expecting value at offset 7): '{\"a\":\\n oops}'"
    )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)


@PROPERTY
@given(st.one_of(json_values.map(json.dumps), st.text('{}[]",:0123.e-+NaInfty \ufeff\n', max_size=10)))
@example("\ufeff{}")
@example("\ufeff\ufeff{}")
def test_the_json_of_an_event_is_the_json_of_an_answer(text):
    def result(parse):
        try:
            return parse(), True
        except (ValueError, DecodeError):
            return None, False

    assert result(ServerSentEvent(data=text).json) == result(lambda: parse_json(text.encode()))


# --- lines


awkward_lines = st.lists(
    st.sampled_from(
        [
            "a",
            " ",
            "\n",
            "\r\n",
            "\r",
            "\n\n",
            "\ufeff",
            "\u2028",
            "\u2029",
            "\x85",
            "\x0b",
            "\x0c",
            "\0",
            "é",
            "😀",
        ]
    ),
    max_size=20,
).map(lambda parts: "".join(parts).encode())


@PROPERTY
@given(awkward_lines, places)
@example(b"\xef\xbb\xbfa\r\nb", [1, 2, 5])
@example(b"a\r\r\nb\r", [2, 3])
def test_lines_end_at_lf_or_crlf_and_nowhere_else(body, where):
    for pieces in ([body], bytewise(body), cut(body, where)):
        assert outcome(LineDecoder(), pieces) == (split_lines(body), None)


@PROPERTY
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=8)), places
)
def test_lines_come_back_as_they_were_sent(sent, where):
    sent = [line.removeprefix("\ufeff") for line in sent]
    for end in ("\n", "\r\n"):
        body = "".join(line + end for line in sent).encode()
        assert outcome(LineDecoder(), cut(body, where)) == (sent, None)


def test_a_line_waits_for_its_lf_alone():
    decoder = LineDecoder()
    assert [decoder.feed(byte) for byte in bytewise(b"a\r\nb\n")] == [[], [], ["a"], [], ["b"]]


@pytest.mark.parametrize(
    ("body", "before", "number"),
    [
        (b"\xff", [], 1),
        (b"a\n\xc0\xaf\nb\n", ["a"], 2),
        (b"a\n\nb\xed\xa0\x80\nc\n", ["a", ""], 3),
        (b"a\nb\n\xe4\xb8", ["a", "b"], 3),
        (b"\xef\xbb", [], 1),
        (b"a\n\xe4\xb8\n\xad\n", ["a"], 2),
    ],
)
def test_a_line_that_is_no_utf8(body, before, number):
    for pieces in ways(body):
        found, error = outcome(LineDecoder(), pieces)
        assert found == before
        assert error is not None
        assert error[0] is DecodeError
        assert error[1].startswith(f"line {number} of the answer is no UTF-8: ")
        assert "\\x" in error[2]


def test_a_line_decoder_starts_afresh_after_the_end():
    decoder = LineDecoder()
    assert (decoder.feed(b"a\nb"), decoder.end(), decoder.end()) == (["a"], ["b"], [])
    assert decoder.feed(b"\xef\xbb\xbfc\n") == ["c"]
    assert str(raised(decoder, b"\xff\n")).startswith("line 2 of")


# --- NDJSON


@PROPERTY
@given(
    st.lists(json_values, max_size=5),
    st.sampled_from(["\n", "\r\n", "\n\n", "\r\n \t\r\n"]),
    st.booleans(),
    places,
)
def test_values_come_back_as_they_were_sent(sent, end, ascii_only, where):
    body = end.join(json.dumps(value, ensure_ascii=ascii_only) for value in sent).encode()
    for pieces in ([body], [body + end.encode()], bytewise(body), cut(body, where)):
        assert outcome(JSONLinesDecoder(), pieces) == (sent, None)


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b"", []),
        (b"\n\r\n \n\t\n", []),
        (b"1\n2", [1, 2]),
        (b'\xef\xbb\xbf{"a": 1}\n', [{"a": 1}]),
        ('"a\u2028b"\n"\x7f\x85"'.encode(), ["a\u2028b", "\x7f\x85"]),
        (b' {"a": 1} \r\nnull\r\n', [{"a": 1}, None]),
    ],
)
def test_ndjson(body, values):
    for pieces in ways(body):
        assert outcome(JSONLinesDecoder(), pieces) == (values, None)


@pytest.mark.parametrize(
    "line", [text for text in NO_JSON.values() if text.strip()], ids=lambda text: text[:12]
)
def test_a_line_that_is_no_json(line):
    body = f'{{"a": 1}}\n\n{line}\n{{"a": 2}}\n'.encode()
    found, error = outcome(JSONLinesDecoder(), [body])
    assert found == [{"a": 1}]
    assert error is not None
    kind, message, shown = error
    assert (kind, shown) == (DecodeError, line)
    assert message.startswith("line 3 of the answer is no JSON (")
    assert repr(line[:300]) in message
    assert len(message) < 700
    assert outcome(JSONLinesDecoder(), cut(body, [3, 9, 10, 11, 12])) == (found, error)


@pytest.mark.parametrize("character", ["\xa0", "\u2028", "\x0c", "\x0b", "\x85", "\x1c"])
def test_a_line_of_white_space_that_is_none_to_json_is_not_skipped(character):
    assert isinstance(raised(JSONLinesDecoder(), character.encode() + b"\n"), DecodeError)


def test_the_last_line_is_read_at_the_end_and_a_cut_one_is_an_error():
    decoder = JSONLinesDecoder()
    assert (decoder.feed(b'1\n{"a"'), decoder.feed(b": 2}"), decoder.end()) == ([1], [], [{"a": 2}])
    assert decoder.feed(b"3\n") == [3]
    assert raised(decoder, b'{"a"').message.startswith("line 2 of the answer is no JSON (")


def test_ndjson_that_is_no_utf8_after_values_that_are_fine():
    found, error = outcome(JSONLinesDecoder(), [b"1\n\n2\n\xff\n3\n"])
    assert found == [1, 2]
    assert error is not None
    assert error[1].startswith("line 4 of the answer is no UTF-8")


# --- chat completions

CHUNK = '{"choices": [{"delta": {"content": "é中😀"}}]}'
DONE = "data: [DONE]\n\n"


def chat(*datas: str) -> bytes:
    return "".join(f"data: {data}\n\n" for data in datas).encode()


@pytest.mark.parametrize(
    "done",
    [
        "data: [DONE]\n\n",
        "data:[DONE]\r\n\r\n",
        "data: [DONE] \r\r",
        "event: end\ndata: [DONE]\n\n",
        "data: [DONE]\n",
        "data: [DONE]\r",
        "data: [DONE]",
    ],
)
def test_a_chat_ends_at_done(done):
    body = chat(CHUNK) + b": keep-alive\n\n" + chat('{"choices": []}', '{"error": null}') + done.encode()
    expected = [json.loads(CHUNK), {"choices": []}, {"error": None}]
    for pieces in ways(body):
        decoder = ChatDecoder()
        assert outcome(decoder, pieces) == (expected, None)
        assert decoder.done


@pytest.mark.parametrize(
    "after", [b"data: oops\n\n", b'data: {"error": "x"}\n\n', b"x" * 500, b"data: [DONE]\n\n", b"\xff\0"]
)
def test_what_comes_after_done_is_ignored(after):
    decoder = ChatDecoder(limit=100)
    assert decoder.feed(chat("{}") + DONE.encode() + after) == [{}]
    assert decoder.done
    assert (decoder.feed(after), decoder.feed(DONE.encode()), decoder.end(), decoder.error) == (
        [],
        [],
        [],
        None,
    )


@pytest.mark.parametrize(
    "cut_short",
    [
        b"",
        b"data: {}",
        b"data: {}\n",
        b"data: [DO",
        b": [DONE]\n\n",
        b"[DONE]\n\n",
        b"data: [DONE]\ndata: 1\n",
        b"event: [DONE]\n\n",
        b"data: oops",
    ],
)
def test_a_chat_that_is_cut_never_looks_complete(cut_short):
    body = chat(CHUNK) + cut_short
    for pieces in ways(body):
        decoder = ChatDecoder()
        found, error = outcome(decoder, pieces)
        assert found == [json.loads(CHUNK)]
        assert error is not None
        assert error[0] is IncompleteError
        assert not decoder.done
    assert isinstance(raised(ChatDecoder()), TransportError)


REPORTED = [
    ('{"error": {"message": "too long", "type": "invalid", "code": "ctx"}}', "", "too long", "ctx"),
    ('{"error": {"message": "m", "type": "server_error", "code": null}}', "", "m", "server_error"),
    ('{"error": {"message": "m", "code": 429}}', "", "m", "429"),
    ('{"error": {"message": "m", "code": "", "type": {"a": 1}}}', "", "m", None),
    ('{"error": "overloaded"}', "", "overloaded", None),
    ('{"choices": [], "error": {"message": "m"}}', "", "m", None),
    ('{"error": {"code": "E"}}', "", "the service reports an error and gives no reason", "E"),
    ('{"error": {"message": ["m"]}}', "", "the service reports an error and gives no reason", None),
    ('{"error": true}', "", "the service reports an error and gives no reason", None),
    ('{"error": [1]}', "", "the service reports an error and gives no reason", None),
    ('{"code": "InvalidParameter", "message": "m"}', "event: error\n", "m", "InvalidParameter"),
    ('{"error": {"message": "m", "code": "c"}}', "event: error\n", "m", "c"),
    ("{}", "event: error\n", "the service reports an error and gives no reason", None),
]


@pytest.mark.parametrize(("data", "head", "message", "code"), REPORTED)
def test_an_error_within_a_chat_is_raised(data, head, message, code):
    body = chat(CHUNK) + f"{head}data: {data}\n\n".encode() + chat(CHUNK) + DONE.encode()
    for pieces in ([body], bytewise(body), cut(body, [60, 70, 80])):
        decoder = ChatDecoder()
        found, error = outcome(decoder, pieces)
        assert found == [json.loads(CHUNK)]
        assert error is not None
        assert decoder.error is not None
        assert type(decoder.error) is AgentRunClientError
        assert (decoder.error.message, decoder.error.error_code) == (message, code)
        assert decoder.error.response_body == json.loads(data)
        assert not decoder.done


@pytest.mark.parametrize("empty", ["null", "false", '""', "{}", "[]"])
def test_an_empty_error_is_none(empty):
    chunk = f'{{"error": {empty}, "choices": [1]}}'
    assert ChatDecoder().feed(chat(chunk)) == [json.loads(chunk)]


@pytest.mark.parametrize("data", ["[1]", '"[DONE]"', "1", "null", "true"])
def test_a_chunk_that_is_no_object(data):
    found, error = outcome(decoder := ChatDecoder(), [chat(CHUNK, data) + DONE.encode()])
    assert found == [json.loads(CHUNK)]
    assert error is not None
    assert isinstance(decoder.error, DecodeError)
    assert decoder.error.value == json.loads(data)
    assert repr(data) in error[1]


@pytest.mark.parametrize("data", ["oops", "[DONE", "DONE", '{"a": NaN}', "[DONE][DONE]", ""])
def test_a_chunk_that_is_no_json(data):
    error = raised(ChatDecoder(), chat(data))
    assert isinstance(error, DecodeError)
    assert error.response_body == data


@PROPERTY
@given(
    st.lists(
        st.sampled_from([*(row[0] for row in REPORTED), CHUNK, "{}", "oops", "[1]", "[DONE]"]), max_size=6
    ),
    places,
)
def test_a_chat_means_the_same_however_it_is_cut(datas, where):
    body = chat(*datas)
    whole = outcome(ChatDecoder(), [body])
    assert whole == outcome(ChatDecoder(), bytewise(body)) == outcome(ChatDecoder(), cut(body, where))


# --- errors: what comes first, and what stays

FAILING = [
    (
        EventDecoder,
        b"data: 1\n\ndata: 12345678901\n\ndata: 2\n\n",
        b"data: 1\n\n",
        [ServerSentEvent(data="1")],
    ),
    (LineDecoder, b"1\n12345678901234567\n2\n", b"1\n", ["1"]),
    (LineDecoder, b"1\n\xff\n2\n", b"1\n", ["1"]),
    (JSONLinesDecoder, b"1\noops\n2\n", b"1\n", [1]),
    (JSONLinesDecoder, b"1\n\xff\n2\n", b"1\n", [1]),
    (ChatDecoder, b'data: {}\n\ndata: "x"\n\ndata: {}\n\ndata: [DONE]\n\n', b"data: {}\n\n", [{}]),
    (ChatDecoder, b'data: {}\n\ndata: {"a": 12345}\n\ndata: {}\n\n', b"data: {}\n\n", [{}]),
]


@pytest.mark.parametrize(("kind", "body", "good", "values"), FAILING)
def test_what_precedes_an_error_is_given_out_and_a_failed_decoder_stays_failed(kind, body, good, values):
    decoder = kind(limit=16)
    assert decoder.error is None
    assert decoder.feed(body) == values
    assert isinstance(decoder.error, DecodeError)
    for call in (lambda: decoder.feed(good), decoder.end, lambda: decoder.feed(b""), decoder.end):
        with pytest.raises(DecodeError) as caught:
            call()
        assert caught.value is decoder.error
        assert len(caught.traceback) <= 4  # a traceback does not grow from call to call


@pytest.mark.parametrize(("kind", "body", "good", "values"), FAILING)
def test_an_error_that_nothing_precedes_is_raised_at_once(kind, body, good, values):
    decoder = kind(limit=16)
    assert decoder.feed(good) == values
    with pytest.raises(DecodeError) as caught:
        decoder.feed(body[len(good) :])
    assert caught.value is decoder.error


def test_an_id_given_out_before_an_error_is_known():
    decoder = EventDecoder(limit=16)
    assert decoder.feed(b"id: 1\nretry: 7\ndata: a\n\nid: 2\ndata: " + b"x" * 20) == [
        ServerSentEvent(data="a", id="1", retry=7)
    ]
    assert isinstance(decoder.error, DecodeError)
    assert (decoder.last_event_id, decoder.retry) == ("1", 7)


# --- bounds


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        (b"data: 1234\n\n", True),
        (b"data: 12345\n\n", False),
        (b"data:12345\n\n", True),
        (b": 12345678\n", True),
        (b": 123456789\n", False),
        (b"event: 123\n", True),
        (b"event: 1234\n", False),
        (b"1234567890\r\n", True),
        (b"1234567890", True),
        (b"12345678901", False),
        (b"\xef\xbb\xbf1234567890\n", True),
        (b"\xef\xbb\xbf12345678901", False),
        (b"data\ndata\n\n", True),
        (b"data:\ndata:\n\n", True),
        (b"data:\ndata:1\n\n", False),
        (b"data:\ndata:\n:\n\n", False),
        (b"data:\ndata:", True),
        (b"data:\ndata:1", False),
        (b"data:12\nid\n\n", True),
        (b"data:123\nid:\n\n", False),
        (b"data: 1234\n\ndata: 1234\n\n" * 9, True),
        (b": 12345678\n" * 99 + b"data:12345\n\n", True),  # comments are not held, and do not add up
        ("data:é中\n\n".encode(), True),  # bytes, not characters
        ("data:é中1\n\n".encode(), False),
    ],
)
def test_the_bound_of_an_event_is_exact_and_the_same_however_it_is_cut(body, fits):
    whole = outcome(EventDecoder(limit=10), [body])
    assert (whole[1] is None) is fits
    if whole[1] is not None:
        assert whole[1][:2] == (DecodeError, "an event of the stream is larger than 10 bytes")
    else:
        assert whole == (events(body), None)
    for pieces in ways(body):
        assert outcome(EventDecoder(limit=10), pieces) == whole


@PROPERTY
@given(awkward_stream, st.integers(3, 20), places)
def test_a_bound_cuts_off_nothing_before_it_and_gives_out_nothing_after(body, limit, where):
    whole = outcome(EventDecoder(limit=limit), [body])
    assert whole[0] == events(body)[: len(whole[0])]
    assert whole == outcome(EventDecoder(limit=limit), bytewise(body))
    assert whole == outcome(EventDecoder(limit=limit), cut(body, where))


@pytest.mark.parametrize("kind", [LineDecoder, JSONLinesDecoder])
@pytest.mark.parametrize(
    ("body", "fits"),
    [
        (b"12345678\n", True),
        (b"123456789\n", False),
        (b"12345678", True),
        (b"123456789", False),
        (b"1234567\r\n", True),
        (b"12345678\r\n", False),  # a CR may be one of the line: it counts
        (b"12345678\n" * 9, True),
        (b"\xef\xbb\xbf12345678\n", True),
        (b"\xef\xbb\xbf123456789\n", False),
        ('"é中"1\n'.encode(), None),
    ],
)
def test_the_bound_of_a_line_is_exact_and_the_same_however_it_is_cut(kind, body, fits):
    whole = outcome(kind(limit=8), [body])
    if fits is not None:
        assert (whole[1] is None) is fits
    if fits is False:
        assert whole[1] is not None
        assert whole[1][:2] == (DecodeError, "line 1 of the answer is longer than 8 bytes")
    for pieces in ways(body):
        assert outcome(kind(limit=8), pieces) == whole


def test_the_line_that_is_too_long_is_named():
    assert str(raised(LineDecoder(limit=3), b"1234")) == "line 1 of the answer is longer than 3 bytes"
    decoder = LineDecoder(limit=3)
    assert decoder.feed(b"a\nb\n1234") == ["a", "b"]
    assert str(decoder.error) == "line 3 of the answer is longer than 3 bytes"


@pytest.mark.parametrize("kind", [EventDecoder, LineDecoder, JSONLinesDecoder, ChatDecoder])
@pytest.mark.parametrize("endless", [b"x", b"\xff", b"data: " + b"x" * 1017 + b"\r"])  # no line end to NDJSON
def test_an_answer_without_end_is_refused_once_the_default_bound_is_reached(kind, endless):
    assert MAX_EVENT == MAX_LINE == 8 * 1024 * 1024
    piece = endless * (65536 // len(endless))
    decoder, fed = kind(), 0
    with pytest.raises(DecodeError, match=r"(larger|longer) than 8388608 bytes"):
        while fed < 3 * MAX_EVENT:
            assert decoder.feed(piece) == []
            fed += len(piece)
    assert MAX_EVENT - len(piece) <= fed <= MAX_EVENT + len(piece)


# --- what is fed, and what it costs


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_may_be_fed(kind):
    assert EventDecoder().feed(kind(b"data: a\n\n")) == [ServerSentEvent(data="a")]
    assert LineDecoder().feed(kind(b"a\n")) == ["a"]
    assert JSONLinesDecoder().feed(kind(b"1\n")) == [1]
    assert ChatDecoder().feed(kind(b"data: {}\n\n")) == [{}]


@pytest.mark.parametrize(
    "decoder", [EventDecoder(), LineDecoder(), JSONLinesDecoder(), ChatDecoder()], ids=type
)
@pytest.mark.parametrize("wrong", ["data: a\n\n", 5, None, [1]])
def test_what_is_no_buffer_is_a_type_error(decoder, wrong):
    with pytest.raises(TypeError):
        decoder.feed(wrong)
    assert decoder.error is None


def test_a_buffer_may_be_used_again_at_once():
    buffer = bytearray(8)
    events_, lines = EventDecoder(), LineDecoder()
    found: list[Any] = []
    for piece in (b"data: ab", b"cdefgh\n\n", b"\n\n\n\n\n\n\n\n"):
        buffer[:] = piece
        found += events_.feed(memoryview(buffer)) + lines.feed(memoryview(buffer))
        buffer[:] = b"XXXXXXXX"
    assert found[:3] == [ServerSentEvent(data="abcdefgh"), "data: abcdefgh", ""]


class CountingTail(bytearray):
    """Counts the bytes that are copied into it and out of it, and refuses to be searched."""

    copied = 0

    def __iadd__(self, more):
        self.copied += len(more)
        return super().__iadd__(more)

    def __bytes__(self):
        self.copied += len(self)
        return bytes(memoryview(self))

    def __getitem__(self, key):
        raise AssertionError("the tail is gone through")

    find = index = split = partition = rfind = __contains__ = __getitem__


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("kind", [EventDecoder, LineDecoder])
def test_a_long_line_is_copied_a_fixed_number_of_times_however_small_the_pieces(kind, size):
    decoder = kind()
    tail = decoder._lines.tail = CountingTail()
    body = b"data: " + b"x" * 40_000 + b"\n\n"
    found = [item for at in range(0, len(body), size) for item in decoder.feed(body[at : at + size])]
    assert [getattr(item, "data", item) for item in found if item] in (["x" * 40_000], [body[:-2].decode()])
    assert decoder._lines.tail is tail
    assert len(body) // 2 < tail.copied <= 2 * len(body) + 10


def test_an_event_of_many_lines_is_joined_once():
    class Parts(list):
        passes = 0

        def __iter__(self):
            self.passes += 1
            return super().__iter__()

    decoder = EventDecoder()
    parts = decoder._data = Parts()
    for _ in range(1000):
        assert decoder.feed(b"data: x\n") == []
    assert decoder._data is parts
    assert (len(parts), parts.passes) == (1000, 0)
    assert [event.data for event in decoder.feed(b"\n")] == ["\n".join("x" * 1000)]
    assert parts.passes == 1


@FEWER
@given(st.lists(st.sampled_from([b"data: a\n\n", b"", b"\n", b"id: 3\n\n"]), max_size=5))
def test_an_empty_piece_changes_nothing(pieces):
    assert outcome(EventDecoder(), [b"", *pieces, b""]) == outcome(EventDecoder(), [b"".join(pieces)])
    assert outcome(LineDecoder(), [b"", *pieces, b""]) == outcome(LineDecoder(), [b"".join(pieces)])
