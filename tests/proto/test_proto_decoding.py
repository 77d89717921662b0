"""From head and body to a dict, or to the right error: HOSTILE's rows on answers that concern the core."""

from __future__ import annotations

import gzip
import json
import pickle
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentrun_proto as core
from agentrun_proto import (
    AgentRunClientError,
    ClientError,
    DecodeError,
    Head,
    Headers,
    RedirectError,
    Response,
    ServerError,
    StatusError,
    decode,
)
from agentrun_proto.decoding import (
    MAX_BODY,
    REQUEST_ID_FIELDS,
    find_request_id,
    http_date,
    nonsense,
    parse_json,
    refusal,
    retry_after,
    take_off_coding,
)
from proto_strategies import PROPERTY, any_text

OK = Head(status=200)


def head(status: int = 200, **fields: str) -> Head:
    return Head(
        status=status, headers=Headers({name.replace("_", "-"): value for name, value in fields.items()})
    )


def error_of(answer: Head, content: bytes) -> AgentRunClientError:
    with pytest.raises(AgentRunClientError) as caught:
        decode(answer, content)
    return caught.value


# --- statuses

STATUSES = {
    300: "RedirectError",
    301: "RedirectError",
    302: "RedirectError",
    304: "RedirectError",
    307: "RedirectError",
    308: "RedirectError",
    400: "BadRequestError",
    401: "AuthenticationError",
    402: "ClientError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    409: "ConflictError",
    410: "ClientError",
    412: "PreconditionFailedError",
    413: "PayloadTooLargeError",
    416: "RangeNotSatisfiableError",
    418: "ClientError",
    422: "UnprocessableError",
    429: "TooManyRequestsError",
    499: "ClientError",
    500: "InternalServerError",
    501: "ServerError",
    502: "BadGatewayError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
    599: "ServerError",
    100: "StatusError",
    199: "StatusError",
    600: "StatusError",
    999: "StatusError",
}
NOT_PROCESSED = {401, 408, 429, 503}


@pytest.mark.hostile("published-refusals")
@pytest.mark.parametrize(("status", "name"), STATUSES.items())
def test_the_class_follows_from_the_status(status, name):
    for content in (b"", b'{"status": "ok"}', b"<html>", b"[1]", b"\xff"):
        error = error_of(Head(status=status), content)
        assert type(error).__name__ == name
        assert error.status_code == status
        assert error.may_be_processed is (status not in NOT_PROCESSED)
        assert str(error).endswith(f"(HTTP {status})")
        assert type(Response(head=Head(status=status), content=content).status) is int
        with pytest.raises(type(error)):
            Response(head=Head(status=status), content=content).raise_for_status()
    family = {3: RedirectError, 4: ClientError, 5: ServerError}.get(status // 100, StatusError)
    assert issubclass(getattr(core, name), family)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
def test_success(status):
    assert decode(Head(status=status), b'{"a": [1, "x", null]}') == {"a": [1, "x", None]}
    assert decode(Head(status=status), b"") == {}
    response = Response(head=Head(status=status), content=b"x")
    assert response.raise_for_status() is response


def test_nothing_is_unwrapped_by_guesswork():
    envelope = {"code": "SUCCESS", "requestId": "r", "data": {"id": 1}}
    assert decode(OK, json.dumps(envelope).encode()) == envelope
    assert decode(OK, b'{"code": "ERR_FORBIDDEN", "message": "no"}') == {
        "code": "ERR_FORBIDDEN",
        "message": "no",
    }


# --- refusals


def test_an_envelope_is_told_whole():
    content = b'{"code": "SandboxNotFound", "requestId": "r-1", "message": "no such sandbox"}'
    error = error_of(head(404, x_request_id="other", retry_after="3"), content)
    assert (error.message, error.error_code, error.request_id) == (
        "no such sandbox",
        "SandboxNotFound",
        "r-1",
    )
    assert (error.status_code, error.retry_after) == (404, 3.0)
    assert error.response_body == json.loads(content)
    assert error.response_headers["X-Request-Id"] == "other"
    assert str(error) == "no such sandbox (HTTP 404, code SandboxNotFound, request id r-1)"


@pytest.mark.hostile("answers-bare-refusals")
@pytest.mark.parametrize(
    ("content", "message", "code", "body"),
    [
        (b"", "the service refused the request and gave no reason", None, ""),
        (b"  \r\n ", "the service refused the request and gave no reason", None, "  \r\n "),
        (b"{}", "the service refused the request and gave no reason", None, {}),
        (b"[]", "the service refused the request and gave no reason", None, []),
        (b"null", "the service refused the request and gave no reason", None, None),
        (b'{"message": ""}', "the service refused the request and gave no reason", None, {"message": ""}),
        (b'{"message": 3, "code": 4}', "the service refused the request and gave no reason", None,
         {"message": 3, "code": 4}),
        (b'{"message": "m"}', "m", None, {"message": "m"}),
        (b'{"code": "E"}', "the service refused the request and gave no reason", "E", {"code": "E"}),
        (b"<h1>502\n Bad\tGateway</h1>", "<h1>502 Bad Gateway</h1>", None, "<h1>502\n Bad\tGateway</h1>"),
        (b'"text"', "text", None, "text"),
        (b"\xff\xfeoops", "\\xff\\xfeoops", None, "\\xff\\xfeoops"),
        (b'{"message": NaN}', '{"message": NaN}', None, '{"message": NaN}'),
        (b'{"message": "cut', '{"message": "cut', None, '{"message": "cut'),
        ("é".encode("latin-1"), "\\xe9", None, "\\xe9"),
    ],
)  # fmt: skip
def test_row_refusals_without_an_envelope(content, message, code, body):
    error = error_of(head(500, x_acs_request_id="r"), content)
    assert (error.message, error.error_code, error.response_body) == (message, code, body)
    assert (error.request_id, error.status_code) == ("r", 500)


@pytest.mark.hostile("answers-bare-refusals", "published-html")
def test_row_a_gateways_html_502_keeps_body_status_and_request_id():
    html = b"<html><head><title>502 Bad Gateway</title></head>" + b"<p>x</p>" * 1000 + b"</html>"
    error = error_of(head(502, content_type="text/html", x_fc_request_id="r"), html)
    assert type(error) is core.BadGatewayError
    assert error.response_body == html.decode()
    assert "502 Bad Gateway" in error.message
    assert len(error.message) <= 300
    assert error.request_id == "r"


@pytest.mark.hostile("answers-bare-refusals")
def test_row_a_redirect_is_an_error_that_tells_where_to():
    error = error_of(head(302, location="https://elsewhere/x"), b"")
    assert isinstance(error, RedirectError)
    assert error.location == "https://elsewhere/x"
    without = error_of(Head(status=304), b"")
    assert isinstance(without, RedirectError)
    assert without.location is None


@pytest.mark.hostile("answers-json")
def test_row_a_refusal_with_hostile_json_is_still_that_refusal():
    for content in (b"[" * 100_000, b"9" * 5000, b'{"a": ' * 50_000, b"\xc0\xaf", b"Infinity"):
        assert type(error_of(Head(status=404), content)) is core.NotFoundError


# --- the request id


def test_the_request_id_is_found_in_the_documented_order():
    order = ("x-acs-request-id", "x-agentrun-request-id", "x-request-id", "x-fc-request-id")
    assert order == REQUEST_ID_FIELDS
    fields = {name: name for name in order}
    for name in order:
        assert find_request_id(Headers(fields), None) == name
        assert find_request_id(Headers(fields), {"requestId": "body"}) == "body"
        assert find_request_id(Headers(fields), {"requestId": ""}) == name
        assert find_request_id(Headers(fields), {"requestId": 3}) == name
        assert find_request_id(Headers(fields), ["requestId"]) == name
        del fields[name]
    assert find_request_id(Headers(), {}) is None
    assert find_request_id(Headers({"x-acs-request-id": "", "x-request-id": "r"}), None) == "r"
    assert Response(head=head(x_request_id="r"), content=b"x").request_id == "r"
    assert Response(head=head(x_request_id="r"), content=b'{"requestId": "b"}').request_id == "b"


# --- HOSTILE, Answers: success with nonsense


@pytest.mark.hostile("answers-no-dict")
@pytest.mark.parametrize(
    ("content", "kind", "value"),
    [
        (b"[1, 2]", "array", [1, 2]),
        (b'"x"', "string", "x"),
        (b"3", "number", 3),
        (b"1.5", "number", 1.5),
        (b"true", "boolean", True),
        (b"null", "null", None),
        (b"[]", "array", []),
    ],
)
def test_row_another_value_at_the_top_is_an_error_that_has_it(content, kind, value):
    error = error_of(head(200, x_request_id="r"), content)
    assert isinstance(error, DecodeError)
    assert (error.value, error.response_body) == (value, value)
    assert f"JSON {kind}" in error.message
    assert (error.status_code, error.request_id) == (200, "r")
    assert Response(head=OK, content=content).json() == value


NONSENSE = {
    "HTML 200": b"<html>ok</html>",
    "whitespace": b" \r\n",
    "cut short": b'{"a": 1',
    "cut in a string": b'{"a": "b',
    "a complete start, then more": b'{"a": 1}{"b": 2}',
    "trailing comma": b'{"a": 1,}',
    "single quotes": b"{'a': 1}",
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": Infinity}',
    "-Infinity": b'{"a": [-Infinity]}',
    "a number beyond float": b'{"a": 1e400}',
    "nesting of 100,000": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nesting of 100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "an integer of 5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "invalid UTF-8": b'{"a": "\xff"}',
    "overlong UTF-8": b'{"a": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"a": "\xed\xa0\x80"}',
    "cut UTF-8": b'{"a": "\xe4\xb8"}',
    "UTF-16": '{"a": "é"}'.encode("utf-16"),
    "UTF-16-LE": '{"a": "é"}'.encode("utf-16-le"),
    "UTF-32": '{"a": 1}'.encode("utf-32"),
    "Latin-1": '{"a": "é"}'.encode("latin-1"),
    "a control character in a string": b'{"a": "\n"}',
    "NUL after it": b'{"a": 1}\0',
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "only a byte order mark": b"\xef\xbb\xbf",
}


@pytest.mark.hostile("answers-charset", "answers-utf-8", "answers-json")
@pytest.mark.parametrize("row", NONSENSE)
def test_row_success_with_nonsense_is_a_decode_error(row):
    for fields in (
        {},
        {"content_type": "application/json; charset=latin-1"},
        {"content_type": "x; charset=rot13"},
    ):
        error = error_of(head(200, **fields), NONSENSE[row])
        assert type(error) is DecodeError, "no RecursionError, no bare ValueError, no LookupError"
        assert error.status_code == 200
        assert error.value is None
    with pytest.raises(DecodeError):
        Response(head=OK, content=NONSENSE[row]).json()


@pytest.mark.hostile("answers-charset")
@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b' \t\r\n{"a": 1}\n', {"a": 1}),
        ('{"é": "中😀"}'.encode(), {"é": "中😀"}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        (b'{"a": "\\u2028\xc2\x85"}', {"a": "\u2028\x85"}),
        (b'{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        (b'{"a": 1e308, "b": -0.0}', {"a": 1e308, "b": -0.0}),
    ],
)
def test_row_json_that_is_right(content, value):
    assert decode(OK, content) == value
    assert decode(head(content_type="text/plain; charset=unknown"), content) == value


@pytest.mark.hostile("answers-json")
def test_row_duplicate_keys_are_no_third_thing():
    assert decode(OK, b'{"a": 1, "a": 2}') == {"a": 2}, "the last one, as most parsers have it"


@PROPERTY
@given(
    st.binary(max_size=30) | st.text('{}[]":,0123456789eE+-.truefalsnNaIity \\u', max_size=20).map(str.encode)
)
def test_law_every_answer_is_a_dict_or_a_documented_error(content):
    for status in (200, 404, 302):
        try:
            result: Any = decode(Head(status=status), content)
        except AgentRunClientError as error:
            told = error.status_code
        else:
            told = status
            assert status == 200
            assert result == (json.loads(content.decode("utf-8-sig")) if content else {})
        assert told == status


@PROPERTY
@given(st.dictionaries(any_text, st.integers() | any_text | st.lists(st.none() | st.booleans()), max_size=4))
def test_law_json_that_python_writes_is_read_back(value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert decode(OK, text.encode()) == value
        assert parse_json(bytearray(text.encode())) == value


def test_text_of_a_response():
    assert Response(head=OK, content="é".encode()).text == "é"
    with pytest.raises(DecodeError, match="UTF-8"):
        _ = Response(head=OK, content=b"\xff").text
    response = Response(head=head(201, a="b"), content=b"")
    assert (response.status, response.headers["a"]) == (201, "b")


def test_nonsense_tells_what_the_answer_tells():
    content = b'{"code": "ERR", "message": "m", "requestId": "b"}'
    error = nonsense(head(200, x_request_id="r"), content, "no file")
    assert (type(error), error.error_code, error.request_id) == (DecodeError, "ERR", "b")
    assert (error.message, error.status_code) == ("no file", 200)


# --- content coding


def gz(data: bytes, level: int = 9) -> bytes:
    return gzip.compress(data, level, mtime=0)  # without the time, so that tests have the same names always


def raw_deflate(data: bytes, level: int = -1) -> bytes:
    squeeze = zlib.compressobj(level, zlib.DEFLATED, -15)
    return squeeze.compress(data) + squeeze.flush()


PLAIN = b'{"a": "' + b"x" * 500 + b'"}'


@pytest.mark.parametrize(
    ("coding", "content"),
    [
        ("gzip", gz(PLAIN)),
        ("GZip", gz(PLAIN)),
        ("x-gzip", gz(PLAIN, 0)),
        ("gzip", gz(PLAIN[:100]) + gz(PLAIN[100:])),  # two members: the whole value
        ("gzip", gz(b"") + gz(PLAIN)),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", zlib.compress(PLAIN, 0)),
        ("deflate", zlib.compress(PLAIN, 9)),
        ("deflate", raw_deflate(PLAIN)),
        ("deflate", raw_deflate(PLAIN, 0)),
        ("identity", PLAIN),
        ("", PLAIN),
    ],
)
def test_codings_are_taken_off(coding, content):
    assert take_off_coding(head(content_encoding=coding), content) == PLAIN
    assert take_off_coding(head(content_encoding=coding), content, limit=len(PLAIN)) == PLAIN


def test_without_a_coding_the_content_is_what_came():
    assert take_off_coding(OK, b"x") == b"x"
    assert take_off_coding(head(content_encoding="gzip"), b"") == b"", "an empty answer to a HEAD, or a 204"


def changed(data: bytes, index: int) -> bytes:
    broken = bytearray(data)
    broken[index] ^= 0xFF
    return bytes(broken)


GZ = gz(PLAIN)
DAMAGED = {
    "gzip cut amid": ("gzip", GZ[: len(GZ) // 2]),
    "gzip without its trailer": ("gzip", GZ[:-8]),
    "gzip without the last byte": ("gzip", GZ[:-1]),
    "one byte": ("gzip", GZ[:1]),
    "bad CRC": ("gzip", changed(GZ, -8)),
    "bad length": ("gzip", changed(GZ, -1)),
    "bad magic": ("gzip", changed(GZ, 0)),
    "no gzip": ("gzip", PLAIN),
    "zlib as gzip": ("gzip", zlib.compress(PLAIN)),
    "bytes after it": ("gzip", GZ + b"x"),
    "second member cut": ("gzip", GZ + GZ[:-3]),
    "a hundred and one members": ("gzip", gz(b"") * 101),
    "deflate cut": ("deflate", zlib.compress(PLAIN)[:-1]),
    "deflate with a bad Adler-32": ("deflate", changed(zlib.compress(PLAIN), -1)),
    "deflate followed by bytes": ("deflate", zlib.compress(PLAIN) + b"x"),
    "no deflate": ("deflate", b"\x07junk"),
    "one byte of deflate": ("deflate", b"\x78"),
}


@pytest.mark.hostile("answers-codings")
@pytest.mark.parametrize("row", DAMAGED)
def test_row_damaged_codings(row):
    coding, content = DAMAGED[row]
    with pytest.raises(DecodeError, match="damaged") as caught:
        take_off_coding(head(200, content_encoding=coding, x_request_id="r"), content)
    assert (caught.value.status_code, caught.value.request_id) == (200, "r")


@PROPERTY
@given(st.integers(0, len(GZ) - 1))
def test_law_a_cut_gzip_is_never_a_value(length):
    if length:
        with pytest.raises(DecodeError):
            take_off_coding(head(content_encoding="gzip"), GZ[:length])


@pytest.mark.hostile("answers-codings")
@pytest.mark.parametrize(
    "coding",
    [
        "compress",
        "dcb",
        "gzip, gzip",
        "gzip, deflate",
        "unknown",
        "gzip;q=1",
        ", ".join(["gzip"] * 60),
        "x" * 9000,
    ],
)
def test_row_codings_that_were_not_asked_for(coding):
    with pytest.raises(DecodeError, match="not asked for") as caught:
        take_off_coding(head(content_encoding=coding), GZ)
    assert len(caught.value.message) < 500


@pytest.mark.hostile("answers-codings")
def test_row_sixty_field_lines_of_codings():
    many = Head(status=200, headers=Headers([("Content-Encoding", "gzip")] * 60))
    with pytest.raises(DecodeError, match="not asked for"):
        take_off_coding(many, GZ)


def bomb(size: int) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(squeeze.compress(bytes(1 << 20)) for _ in range(size >> 20)), squeeze.flush()])


@pytest.mark.hostile("answers-codings")
@pytest.mark.parametrize("coding", ["gzip", "deflate", "members"])
def test_row_a_bomb_is_capped(coding):
    limit = 10_000
    content = {
        "gzip": bomb(1 << 22),
        "deflate": zlib.compress(bytes(1 << 22)),
        "members": gz(bytes(limit - 1)) + gz(b"ab"),
    }[coding]
    name = "deflate" if coding == "deflate" else "gzip"
    with pytest.raises(DecodeError, match=f"larger than {limit} bytes"):
        take_off_coding(head(content_encoding=name), content, limit=limit)


@pytest.mark.hostile("answers-codings")
def test_row_a_bomb_does_not_fill_the_memory():
    import tracemalloc

    content = bomb(64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="larger"):
            take_off_coding(head(content_encoding="gzip"), content, limit=1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    assert MAX_BODY == 64 << 20


@pytest.mark.parametrize("extra", [0, 1])
def test_the_cap_is_exact(extra):
    content = bytes(1000 + extra)
    for coding, packed in (("gzip", gz(content)), ("deflate", zlib.compress(content))):
        if extra:
            with pytest.raises(DecodeError, match="larger than 1000 bytes"):
                take_off_coding(head(content_encoding=coding), packed, limit=1000)
        else:
            assert take_off_coding(head(content_encoding=coding), packed, limit=1000) == content


@pytest.mark.hostile("answers-codings")
@PROPERTY
@given(st.lists(st.binary(max_size=50), max_size=4), st.integers(0, 150))
def test_law_members_are_joined_up_to_the_limit(parts, limit):
    whole = b"".join(parts)
    packed = b"".join(gz(part) for part in parts)
    try:
        result = take_off_coding(head(content_encoding="gzip"), packed, limit=limit)
    except DecodeError:
        assert len(whole) > limit
    else:
        assert result == whole
        assert len(whole) <= limit


# --- Retry-After and dates

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.hostile("answers-retry-after")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("007", 7.0),
        ("86400", 86400.0),
        ("999999999999999", 366 * 86400.0),
        ("9" * 16, None),
        ("9" * 5000, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e3", None),
        ("-1e400", None),
        ("1_0", None),
        ("0x10", None),
        ("\xb2", None),
        ("1, 2", None),
        ("soon", None),
        ("NaN", None),
        ("Sun, 06 Nov 1994 08:49:40 GMT", 3.0),
        ("Sun, 06 Nov 1994 08:49:30 GMT", 0.0),
        ("Sun, 06 Nov 9999 08:49:40 GMT", 366 * 86400.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None),
        ("Sun Nov  6 08:49:37 1994", None),
        ("Sun, 06 Nov 1994 08:49:40 CET", None),
        ("Sun, 32 Nov 1994 08:49:40 GMT", None),
    ],
)
def test_row_retry_after(value, seconds):
    fields = {"Date": DATE} if value is None else {"Date": DATE, "Retry-After": value}
    assert retry_after(Headers(fields)) == seconds
    assert error_of(Head(status=429, headers=Headers(fields)), b"").retry_after == seconds


@pytest.mark.hostile("answers-retry-after")
@pytest.mark.parametrize("date", ["", "junk", "Sun, 06 Nov 1994 25:49:37 GMT"])
def test_row_a_retry_date_is_worth_nothing_without_the_answers_own_date(date):
    assert retry_after(Headers({"Retry-After": DATE, "Date": date})) is None
    assert retry_after(Headers({"Retry-After": DATE})) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (DATE, 784111777.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Wed, 31 Dec 1969 23:59:59 GMT", -1.0),
        ("Tue, 29 Feb 2028 00:00:00 GMT", 1835395200.0),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228799.0),  # a leap second
        ("", None),
        ("Mon, 29 Feb 2027 00:00:00 GMT", None),
        ("Sun, 06 Foo 1994 08:49:37 GMT", None),
        ("Sun, 00 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 24:00:00 GMT", None),
        ("Sun, 06 Nov 1994 08:60:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:61 GMT", None),
        ("Sun, 06 Nov 1994 08:49:99 GMT", None),
        ("Sun, 6 Nov 1994 08:49:37 GMT", None),
        ("sun, 06 nov 1994 08:49:37 gmt", None),
        (DATE + "x", None),
        (" " + DATE, None),
        ("Sun, 06 Nov 1994 08:49:37 UTC", None),
        ("Sun, ٠٦ Nov 1994 08:49:37 GMT", None),
    ],
)
def test_http_dates(value, seconds):
    assert http_date(value) == seconds


# --- an error of an answer can travel between processes


@pytest.mark.parametrize("status", [200, 302, 400, 404, 418, 500, 503])
def test_errors_of_answers_are_pickled_and_unpickled(status):
    error = error_of(head(status, x_request_id="r", set_cookie="hunter2"), b'["a"]')
    packed = pickle.dumps(error)
    again = pickle.loads(packed)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) | {"response_headers": None} == vars(error) | {"response_headers": None}
    assert again.response_headers["x-request-id"] == "r"
    assert b"hunter2" not in packed
    assert "hunter2" not in repr(vars(error))
    assert getattr(again, "value", None) == getattr(error, "value", None)


def test_refusal_is_what_decode_raises():
    answer = head(404, x_request_id="r")
    assert vars(refusal(answer, b"x")) == vars(error_of(answer, b"x"))
