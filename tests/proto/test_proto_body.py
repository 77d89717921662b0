"""Bodies: HOSTILE's row on them, and that a source is never read by the core."""

from __future__ import annotations

import enum
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun_proto import Body, Config, DataEndpoint, encode_body
from proto_strategies import PROPERTY, FakeSource, any_text


class Word(str, enum.Enum):
    ONE = "one"


class Plain(enum.Enum):
    ONE = "one"


def deep(levels: int, kind: type = list) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value] if kind is list else {"a": value}
    return value


def circle() -> Any:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


# --- HOSTILE, Requests: "body: dict, list, str, bytes, `{"x": float("nan")}`, an object that is no JSON"


@pytest.mark.hostile("requests-bodies", "published-repr")
@pytest.mark.parametrize(
    ("data", "content", "content_type"),
    [
        ({"a": 1, "b": None}, b'{"a":1,"b":null}', "application/json"),
        ({}, b"{}", "application/json"),
        ([1, "x"], b'[1,"x"]', "application/json"),
        ((1, 2), b"[1,2]", "application/json"),
        ([], b"[]", "application/json"),
        ({"é": "中😀\u2028"}, '{"é":"中😀\u2028"}'.encode(), "application/json"),
        ({"a": '"\\\n\0'}, b'{"a":"\\"\\\\\\n\\u0000"}', "application/json"),
        ({"a": Word.ONE}, b'{"a":"one"}', "application/json"),
        ({1: True, None: 2}, b'{"1":true,"null":2}', "application/json"),
        ('{"a": 1}', b'{"a": 1}', "application/json"),
        ("é", "é".encode(), "application/json"),
        ("", b"", "application/json"),
        (Word.ONE, b"one", "application/json"),
        (b"\xff\0", b"\xff\0", "application/octet-stream"),
        (b"", b"", "application/octet-stream"),
        (bytearray(b"ab"), b"ab", "application/octet-stream"),
        (memoryview(b"abcd")[::2], b"ac", "application/octet-stream"),
        (None, b"", None),
    ],
)
def test_row_bodies(data, content, content_type):
    body = encode_body(data)
    assert (body.data, body.length, body.content_type) == (content, len(content), content_type)


@pytest.mark.hostile("requests-bodies")
@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"x": math.nan}, "cannot be sent as JSON"),
        ({"x": [math.inf]}, "cannot be sent as JSON"),
        ({"x": -math.inf}, "cannot be sent as JSON"),
        ({math.nan: 1}, "cannot be sent as JSON"),
        ({"x": "\ud800"}, "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        ("\ud800", "surrogate"),
    ],
    ids=ascii,
)
def test_row_bodies_that_have_no_json_are_value_errors(data, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        encode_body(data)
    assert type(caught.value) is ValueError
    assert caught.value.__suppress_context__, "what json says is in the message"


@pytest.mark.parametrize("make", [lambda: deep(100_000), lambda: deep(100_000, dict), circle])
def test_row_bodies_without_an_end_are_value_errors(make):
    with pytest.raises(ValueError, match=r"too deeply|ircular") as caught:
        encode_body(make())
    assert caught.value.__suppress_context__, "nobody is shown a thousand frames of json"


@pytest.mark.hostile("requests-bodies")
@pytest.mark.parametrize(
    "data",
    [
        {"x": object()}, {"x": {1, 2}}, {"x": b"y"}, [1j], {(1, 2): 3}, {b"a": 1}, {"x": Plain.ONE},
        Plain.ONE, 3, 1.5, True, object(), {1}, iter([]),
    ],
    ids=lambda data: type(data).__name__,
)  # fmt: skip
def test_row_bodies_of_other_types_are_type_errors(data):
    with pytest.raises(TypeError, match=r"(body|JSON)") as caught:
        encode_body(data)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_misuse_shows_before_anything_is_sent():
    endpoint = DataEndpoint(Config(account_id="1"))
    with pytest.raises(ValueError, match="JSON"):
        endpoint.request("POST", "x", data={"x": math.nan})
    with pytest.raises(TypeError, match="body"):
        endpoint.request("POST", "x", data=3)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)


@PROPERTY
@given(st.dictionaries(any_text, json_values, max_size=4) | st.lists(json_values, max_size=4))
def test_law_json_reads_back_and_its_length_is_real(value):
    body = encode_body(value)
    assert json.loads(body.data) == value
    assert body.length == len(body.data)


def test_what_the_caller_holds_is_not_what_is_sent():
    buffer, nested = bytearray(b"ab"), {"a": [1]}
    bodies = encode_body(buffer), encode_body(nested)
    buffer[0] = 0
    nested["a"].append(2)
    assert [body.data for body in bodies] == [b"ab", b'{"a":[1]}']


def test_a_body_with_a_source_has_no_data_and_is_not_read():
    source = FakeSource(9)
    body = Body(segments=(b"ab", source, b"c"), length=12, content_type="a/b")
    assert body.data is None
    assert Body(segments=(b"ab", b"", b"c"), length=3).data == b"abc"
    assert Body().data == b""
    assert source.closed == 0


@pytest.mark.parametrize("length", [None, 0, 9])
def test_a_source_is_a_body_of_its_length(length):
    source = FakeSource(length)
    body = encode_body(source)
    assert (body.segments, body.length, body.content_type) == ((source,), length, "application/octet-stream")
    assert (body.data, body.sources, body.replayable) == (None, [source], source.replayable)


def test_a_source_decides_whether_the_body_can_be_sent_again():
    once, often = FakeSource(1, replayable=False), FakeSource(1)
    assert Body(segments=(b"a", often, b"b")).replayable
    assert not Body(segments=(b"a", often, once)).replayable
    assert Body().replayable


@pytest.mark.parametrize("missing", ["length", "read", "rewind", "close", "replayable"])
def test_half_a_source_is_none(missing):
    members = {"length": 1, "read": None, "rewind": None, "close": None, "replayable": True}
    del members[missing]
    with pytest.raises(TypeError, match="a body is"):
        encode_body(type("Half", (), members)())


@pytest.mark.hostile("published-repr")
def test_a_list_is_never_pythons_repr():
    assert encode_body([True, None]).data == b"[true,null]"
