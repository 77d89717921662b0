"""Headers, Request and Head: checked where they are made."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun_proto import Body, Config, DataEndpoint, Head, Headers, Origin, Request, encode_body
from proto_strategies import PROPERTY, FakeSource, header_values

names = st.text("abXY-_09!#$%&'*+.^`|~", min_size=1, max_size=6)
lines = st.lists(st.tuples(names, header_values), max_size=6)
ORIGIN = Origin("https", "h", 8443)


# --- HOSTILE, Requests: "CR, LF or NUL in ... header name or value"


@pytest.mark.hostile("requests-injection")
@pytest.mark.parametrize(
    "value", ["a\r\nEvil: 1", "a\n", "\r", "\0", "a\0b", "\x01", "a\x1fb", "\x7f", "a\x0bb", "a\x0cb"]
)
def test_row_a_value_with_a_control_character_is_refused(value):
    with pytest.raises(ValueError, match="control character"):
        Headers({"x": value})


@pytest.mark.hostile("requests-injection")
@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a:", ":a", "a\r", "a\n", "a\0", "é", "a(b)", 'a"', "a/b", "a\tb", " a", "a "]
)
def test_row_a_name_that_is_no_token_is_refused(name):
    with pytest.raises(ValueError, match="not a header name"):
        Headers({name: "x"})


@pytest.mark.parametrize("value", ["中", "😀", "\u2028", "\ud800"])
def test_a_value_beyond_latin_1_is_refused(value):
    with pytest.raises(ValueError, match="percent-encode"):
        Headers({"x": value})


def test_a_refused_credential_is_not_shown():
    with pytest.raises(ValueError, match="Authorization") as caught:
        Headers({"Authorization": "hunter2\n"})
    assert "hunter2" not in str(caught.value)


# --- HOSTILE, Requests: "`Content-Type` given in another case; a header that is not text"


@pytest.mark.hostile("requests-headers", "published-content-type")
@pytest.mark.parametrize("name", ["content-type", "Content-Type", "CONTENT-TYPE", "cOnTeNt-TyPe"])
def test_row_a_content_type_in_any_case_goes_out_once(name):
    endpoint = DataEndpoint(Config(account_id="1", headers={"Content-type": "a/b"}))
    request = endpoint.request("POST", "x", data={"a": 1}, headers={name: "text/plain"})
    assert [value for key, value in request.fields() if key.lower() == "content-type"] == ["text/plain"]
    assert request.content_type == "text/plain"


@pytest.mark.hostile("requests-headers")
@pytest.mark.parametrize("headers", [{"x": 1}, {"x": b"1"}, {"x": None}, {b"x": "1"}, {1: "1"}, {"x": ["1"]}])
def test_row_a_header_that_is_no_text_is_a_type_error(headers):
    with pytest.raises(TypeError, match="header"):
        Headers(headers)
    with pytest.raises(TypeError, match="header"):
        DataEndpoint(Config(account_id="1")).request("GET", "x", headers=headers)


# --- Headers as a mapping


def test_names_are_compared_without_case_and_order_is_kept():
    headers = Headers([("B", "1"), ("a", "2"), ("b", "3")])
    assert headers.fields == (("B", "1"), ("a", "2"), ("b", "3"))
    assert list(headers) == ["b", "a"]
    assert dict(headers) == {"b": "1, 3", "a": "2"}
    assert headers["B"] == headers.get("b") == "1, 3"
    assert headers.get_all("B") == ["1", "3"]
    assert headers.get("none") is None
    assert headers.get("none", "x") == "x"
    assert "A" in headers
    assert "c" not in headers
    assert 1 not in headers
    assert len(headers) == 2
    with pytest.raises(KeyError):
        headers["none"]
    assert headers.keys() == {"a", "b"}
    assert Headers(headers) == headers
    assert headers != Headers({"a": "2"})
    assert headers != 3


def test_values_are_stripped_as_every_recipient_would():
    assert Headers({"a": " \t x y\t "}).fields == (("a", "x y"),)
    assert Headers({"a": ""}).fields == (("a", ""),)
    assert Headers({"a": "\xa0x\x85"}).fields == (("a", "\xa0x\x85"),), (
        "only space and tab are white space here"
    )


@PROPERTY
@given(lines)
def test_law_equal_headers_hash_alike_and_survive_a_pickle(fields):
    headers, again = Headers(fields), Headers(list(fields))
    assert headers == again
    assert hash(headers) == hash(again)
    assert pickle.loads(pickle.dumps(headers)).fields == headers.fields
    assert {name: headers[name.upper()] for name in headers} == dict(headers)


@PROPERTY
@given(lines, lines)
def test_law_merged_takes_the_others_lines_of_names_both_have(one, other):
    merged = Headers(one).merged(Headers(other))
    theirs = {name.lower() for name, _ in other}
    assert list(merged.fields) == [line for line in one if line[0].lower() not in theirs] + other
    assert Headers(one).merged(dict(other)) == Headers(one).merged(Headers(dict(other)))
    assert Headers(one).merged({}) == Headers(one).merged(None) == Headers(one)


@PROPERTY
@given(lines, names)
def test_law_a_block_from_the_wire_reads_as_its_lines(fields, asked):
    block = "".join(f"{name}: {value}\r\n" for name, value in fields)
    whole = Headers(fields)
    for asked_name in (asked, *[name.upper() for name, _ in fields]):
        assert Headers.from_block(block).get(asked_name) == whole.get(asked_name)
        assert (asked_name in Headers.from_block(block)) == (asked_name in whole)
    assert Headers.from_block(block) == whole
    assert Headers.from_block(block).fields == whole.fields
    assert Headers.from_block(block).get_all(asked) == whole.get_all(asked)


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        ("", ()),
        ("a:b\r\n", (("a", "b"),)),
        ("a:\r\nb:\r\n", (("a", ""), ("b", ""))),
        ("a: \t \r\nb: x \t\r\n", (("a", ""), ("b", "x"))),
        ("a: b: c\r\n", (("a", "b: c"),)),
        ("a: x:\r\nxb: 1\r\n", (("a", "x:"), ("xb", "1"))),
    ],
)
def test_blocks(block, fields):
    headers = Headers.from_block(block)
    assert headers.get("zz") is None
    assert headers.get("b") == dict(fields).get("b")
    assert headers.fields == fields


def test_what_a_repr_and_a_pickle_show():
    secretive = [
        "Authorization", "Agentrun-Authorization", "agentrun-access-token", "Cookie", "set-cookie",
        "x-acs-security-token", "x-fc-security-token", "x-fc-access-key-secret", "Proxy-Authorization",
    ]  # fmt: skip
    headers = Headers([*((name, "hunter2") for name in secretive), ("x-a", "seen")])
    for shown in (repr(headers), str(headers), repr(pickle.dumps(headers))):
        assert "hunter2" not in shown
        assert "seen" in shown
    assert pickle.loads(pickle.dumps(headers)).fields == (("x-a", "seen"),)


def test_a_copy_loses_nothing():
    """A pickle leaves this process and drops credentials; a copy stays and must not change what is sent."""
    headers = Headers({"Authorization": "x", "a": "b"})
    assert copy.copy(headers) == headers
    assert copy.deepcopy(headers) == headers
    assert copy.deepcopy(Config(headers=headers)).headers == headers


# --- Request


def lines_of(**fields):
    return Request(**{"method": "GET", "origin": ORIGIN, "target": "/", **fields}).fields()


def test_the_field_lines_of_a_request():
    body = encode_body({"a": 1})
    assert lines_of() == [("Host", "h:8443")]
    assert lines_of(method="DELETE") == [("Host", "h:8443")]
    for method in ("POST", "PUT", "PATCH"):
        assert lines_of(method=method) == [("Host", "h:8443"), ("Content-Length", "0")]
        assert lines_of(method=method, body=encode_body("")) == [
            ("Host", "h:8443"),
            ("Content-Type", "application/json"),
            ("Content-Length", "0"),
        ]
    assert lines_of(method="DELETE", body=body, headers=Headers({"x-a": "1"}), signature=(("s", "t"),)) == [
        ("Host", "h:8443"),
        ("x-a", "1"),
        ("Content-Type", "application/json"),
        ("Content-Length", "7"),
        ("s", "t"),
    ]
    assert lines_of(method="POST", body=body, headers=Headers({"content-type": "a/b"})) == [
        ("Host", "h:8443"),
        ("content-type", "a/b"),
        ("Content-Length", "7"),
    ]


def test_a_body_of_unknown_length_is_chunked_whatever_the_method():
    body = Body(segments=(FakeSource(None),), length=None, content_type="a/b")
    for method in ("POST", "PUT", "PATCH", "DELETE", "GET"):
        assert lines_of(method=method, body=body, signature=(("s", "t"),)) == [
            ("Host", "h:8443"),
            ("Content-Type", "a/b"),
            ("Transfer-Encoding", "chunked"),
            ("s", "t"),
        ]
        request = Request(method=method, origin=ORIGIN, target="/", body=body)
        assert not request.declares_length


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_a_body_of_one_byte_has_a_length(method):
    assert Request(
        method=method, origin=ORIGIN, target="/", body=Body(segments=(b"a",), length=1)
    ).declares_length


def test_the_wish_to_be_asked_is_a_field_of_its_own():
    body = Body(segments=(b"a",), length=1)
    assert lines_of(method="POST", body=body, expect_continue=True, signature=(("s", "t"),)) == [
        ("Host", "h:8443"),
        ("Content-Length", "1"),
        ("Expect", "100-continue"),
        ("s", "t"),
    ]
    assert Request(method="GET", origin=ORIGIN, target="/").expect_continue is False


def test_a_requests_url_and_repr():
    request = Request(
        method="GET",
        origin=Origin("http", "h", 80),
        target="/a?b=1",
        headers=Headers({"Authorization": "hunter2"}),
        body=Body(segments=(b"hunter2",), length=7),
        signature=(("Agentrun-Authorization", "hunter2"),),
    )
    assert request.url == "http://h/a?b=1"
    assert "hunter2" not in repr(request)
    assert request.content_type is None


@pytest.mark.parametrize(
    "method", ["", "GET ", "GE T", "GET\r\n", "GET\0", "GÉT", "a:b", "GET /x HTTP/1.1\r\nEvil: 1\r\n"]
)
def test_a_method_is_a_token(method):
    with pytest.raises(ValueError, match="not a method"):
        Request(method=method, origin=ORIGIN, target="/")
    with pytest.raises(ValueError, match="not a method"):
        DataEndpoint(Config(account_id="1")).request(method, "x")


def test_a_method_is_sent_as_given():
    assert Request(method="get", origin=ORIGIN, target="/").method == "get"


@pytest.mark.parametrize("target", ["/a\r\nEvil: 1", "/a b", "/a\0", "/é", "", "a", "/a\n"])
def test_a_target_is_checked_where_it_is_made(target):
    """Whoever embeds the core makes Requests of their own: nothing injected may pass."""
    with pytest.raises(ValueError, match="target"):
        Request(method="GET", origin=ORIGIN, target=target)


def test_values_are_frozen():
    for value, name in (
        (Head(status=200), "status"),
        (Request(method="GET", origin=ORIGIN, target="/"), "target"),
    ):
        with pytest.raises(AttributeError):
            setattr(value, name, "x")
    assert Head(status=200) == Head(status=200, headers=Headers())


# --- whether it may be sent twice


@pytest.mark.parametrize(
    ("method", "idempotent"),
    [("GET", True), ("HEAD", True), ("PUT", True), ("DELETE", True), ("OPTIONS", True), ("TRACE", True),
     ("POST", False), ("PATCH", False), ("CONNECT", False), ("get", False), ("PURGE", False)],
)  # fmt: skip
def test_which_requests_are_idempotent(method, idempotent):
    """RFC 9110, 9.2.2; methods are case-sensitive (9.1)."""
    request = Request(method=method, origin=ORIGIN, target="/")
    assert request.idempotent is idempotent
    assert replace(request, repeatable=True).idempotent
    for name in ("Idempotency-Key", "idempotency-key", "IDEMPOTENCY-KEY"):
        assert request.with_fields({name: "k"}).idempotent
        assert Request(method=method, origin=ORIGIN, target="/", headers=Headers({name: "k"})).idempotent
    assert request.with_fields({"x-idempotency-key": "k", "x": "Idempotency-Key: k"}).idempotent is idempotent


def test_the_callers_word_goes_into_the_request_and_nowhere_else():
    endpoint = DataEndpoint(Config(account_id="1"))
    plain, word = (endpoint.request("POST", "x", idempotent=told) for told in (False, True))
    assert (plain.idempotent, word.idempotent) == (False, True)
    assert plain.fields() == word.fields()
    form = endpoint.form_request("x", fields=None, files=[], boundary="b", idempotent=True)
    assert form.idempotent
    assert not endpoint.form_request("x", fields=None, files=[], boundary="b").idempotent
    config_key = DataEndpoint(Config(account_id="1", headers={"Idempotency-Key": "k"}))
    assert config_key.request("POST", "x").idempotent


@pytest.mark.parametrize(
    ("kinds", "replayable"),
    [
        ("", True),
        ("b", True),
        ("r", True),
        ("o", False),
        ("brb", True),
        ("bob", False),
        ("ro", False),
        ("or", False),
    ],
)
def test_a_body_is_replayable_where_all_of_it_is(kinds, replayable):
    made = {"b": b"1", "r": FakeSource(1), "o": FakeSource(1, replayable=False)}
    body = Body(segments=tuple(made[kind] for kind in kinds), length=len(kinds))
    assert body.replayable is replayable
    assert body.sources == [made[kind] for kind in kinds if kind != "b"]
    assert body.data == (b"1" * len(kinds) if set(kinds) <= {"b"} else None)


def test_further_fields_go_over_those_of_the_request_and_change_nothing_else():
    request = Request(
        method="POST",
        origin=ORIGIN,
        target="/a?b=",
        headers=Headers([("X-A", "1"), ("x-b", "2"), ("x-a", "3")]),
        body=encode_body("text"),
        signature=(("Agentrun-Authorization", "signed"),),
        repeatable=True,
    )
    more = request.with_fields({"x-A": "4", "traceparent": "5"})
    assert more.headers.fields == (("x-b", "2"), ("x-A", "4"), ("traceparent", "5"))
    assert replace(more, headers=request.headers) == request
    assert request.headers.get_all("x-a") == ["1", "3"]
    assert request.with_fields({}) == request
    with pytest.raises(ValueError, match="control character"):
        request.with_fields({"x": "a\r\nb"})


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_pickled_request_keeps_all_but_its_credentials(repeatable):
    request = Request(
        method="POST",
        origin=ORIGIN,
        target="/a?b=",
        headers=Headers({"Authorization": "hunter2", "Idempotency-Key": "k"}),
        body=encode_body({"a": 1}),
        signature=(("Agentrun-Authorization", "hunter2"),),
        repeatable=repeatable,
    )
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(request, protocol)
        assert b"hunter2" not in data
        again = pickle.loads(data)
        assert again == replace(request, headers=Headers({"Idempotency-Key": "k"}), signature=())
        assert again.repeatable is repeatable
