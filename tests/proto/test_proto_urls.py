"""URLs: the documented results, HOSTILE's rows on URLs and queries (a test names its row), and the laws."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request as WerkzeugRequest

from agentrun_proto import Config, DataEndpoint, Origin, merge_query, path_segment
from agentrun_proto.urls import (
    join_path,
    normalise_query,
    parse_form,
    parse_url,
    ram_host,
    resolve,
    split_pairs,
    wire_path,
    wire_query,
)
from proto_strategies import (
    DATA,
    NOON,
    PROPERTY,
    any_text,
    awkward_text,
    form_dict,
    loose_queries,
    queries,
    read_form,
    value_texts,
    wire_queries,
)

BASE = "http://account.agentrun-data.cn-hangzhou.aliyuncs.com/2025-09-10/agents"
ENDPOINT = DataEndpoint(Config(account_id="account", protocol="http"))
HOST = "account.agentrun-data.cn-hangzhou.aliyuncs.com"


class Colour(enum.Enum):
    RED = "red"
    SEVEN = 7
    YES = True
    MANY = ("a", "b")


class Level(enum.IntEnum):
    HIGH = 3


class Word(str, enum.Enum):
    ONE = "one"


# --- the documented results


@pytest.mark.parametrize(
    ("path", "query", "url"),
    [
        ("resources", None, BASE + "/resources"),
        ("resources", {"limit": 10}, BASE + "/resources?limit=10"),
        ("resources?page=1", {"limit": 10}, BASE + "/resources?page=1&limit=10"),
    ],
)
def test_the_documented_results_of_with_path(path, query, url):
    assert ENDPOINT.url(path, query) == url


# --- joining


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("resources", "/resources"),
        ("/resources", "/resources"),
        ("resources/", "/resources"),
        ("///resources///", "/resources"),
        ("a/b", "/a/b"),
        ("a//b", "/a//b"),
        ("", ""),
        ("/", ""),
        ("?x=1", "?x=1"),
        ("/?x=1", "?x=1"),
        ("a/?x=1", "/a?x=1"),
        ("a?", "/a"),
        ("a?&&", "/a"),
        ("a?x=/b/", "/a?x=/b/"),
        ("a?b?c=1", "/a?b?c=1"),
    ],
)
def test_join_rules(path, target):
    assert ENDPOINT.url(path) == BASE + target
    assert ENDPOINT.request("GET", path).target == "/2025-09-10/agents" + target


@pytest.mark.parametrize(
    ("endpoint", "version", "namespace", "path", "url"),
    [
        ("http://h", "", "", "", "http://h/"),
        ("http://h", "", "", "x", "http://h/x"),
        ("http://h/", "", "/", "/x/", "http://h/x"),
        ("http://h", "v1", "", "x", "http://h/v1/x"),
        ("http://h", "", "ns", "x", "http://h/ns/x"),
        ("http://h/base/", "", "/ns/", "x", "http://h/base/ns/x"),
        ("http://h//base//", "v1", "n/s", "x", "http://h/base/v1/n/s/x"),
        ("http://h/b%20c", None, "sandboxes/é", "x", "http://h/b%20c/sandboxes/%C3%A9/x"),
        ("http://u:p@h:8077", "", "ns", "x", "http://u:p@h:8077/ns/x"),
        ("http://h:80", "", "ns", "x", "http://h/ns/x"),
        ("HTTPS://H:443", "", "ns", "x", "https://h/ns/x"),
        ("http://[::1]:80", "", "ns", "x", "http://[::1]/ns/x"),
    ],
)
def test_endpoint_version_namespace_and_path_are_joined_with_single_slashes(
    endpoint, version, namespace, path, url
):
    assert DataEndpoint(Config(data_endpoint=endpoint, version=version), namespace).url(path) == url


@pytest.mark.parametrize("path", [None, 3, b"x", ["x"]])
def test_a_path_that_is_no_text_is_a_type_error(path):
    with pytest.raises(TypeError, match="str"):
        ENDPOINT.url(path)
    with pytest.raises(TypeError):
        ENDPOINT.request("GET", path)
    with pytest.raises(TypeError, match="str"):
        join_path(path)


# --- HOSTILE, Requests: "CR, LF or NUL in path, query, header name or value"


@pytest.mark.hostile("requests-injection")
@pytest.mark.parametrize("character", ["\r", "\n", "\0", "\r\n"])
@pytest.mark.parametrize("where", ["a{}b", "{}a", "a{}", "a?x={}", "a?x=1{}", "a?{}"])
def test_row_line_breaks_in_a_path_are_refused(where, character):
    for path in (where.format(character), where.format(character) + "y"):
        with pytest.raises(ValueError, match="line break or NUL"):
            ENDPOINT.url(path)
        with pytest.raises(ValueError, match="line break or NUL"):
            parse_url("http://h/" + path)


@pytest.mark.hostile("requests-injection")
def test_row_line_breaks_in_query_values_and_segments_are_encoded():
    assert ENDPOINT.url("a", {"x\r\n": "1\r\n\0"}) == BASE + "/a?x%0D%0A=1%0D%0A%00"
    assert path_segment("a\r\n\0") == "a%0D%0A%00"
    with pytest.raises(ValueError, match="line break or NUL"):
        merge_query("/a?x=1\r\nEvil: 1", {"y": 2})


# --- HOSTILE, Requests: "`.` or `..` as a path segment, encoded or not"

DOTS = [".", "..", "%2e", "%2E%2e", ".%2e", "%2E.", "%2E"]


@pytest.mark.hostile("requests-dot-segments", "published-other-sandbox")
@pytest.mark.parametrize("dots", DOTS)
@pytest.mark.parametrize("where", ["{}", "{}/a", "a/{}/b", "a/{}", "/{}/", "a/{}?x=1", "../../{}/stop"])
def test_row_dot_segments_are_refused(where, dots):
    path = where.format(dots)
    with pytest.raises(ValueError, match=r"'\.' and '\.\.'.*path_segment"):
        ENDPOINT.url(path)
    with pytest.raises(ValueError, match="path_segment"):
        DataEndpoint(Config(account_id="1"), f"sandboxes/{path.partition('?')[0]}")
    with pytest.raises(ValueError, match="path_segment"):
        Config(data_endpoint=f"http://h/{path.partition('?')[0]}")


@pytest.mark.parametrize(
    "path", ["...", "a.", ".a", "a..b", "%2e%2e%2e", "..%2Fb", "%252e%252e", ". .", "a?x=..", "a?/../b"]
)
def test_row_dots_that_are_no_dot_segment_stand(path):
    assert ENDPOINT.url(path).startswith(BASE + "/")


@pytest.mark.hostile("requests-dot-segments")
@pytest.mark.parametrize("value", ["", ".", ".."])
def test_row_dot_segments_have_no_encoding(value):
    with pytest.raises(ValueError, match="cannot be a path segment"):
        path_segment(value)


@pytest.mark.hostile("published-other-sandbox")
def test_an_id_cannot_reach_another_sandbox():
    assert path_segment("../../sb2/stop") == "..%2F..%2Fsb2%2Fstop"
    assert ENDPOINT.url(f"x/{path_segment('../../sb2/stop')}").count("/") == (BASE + "/x/_").count("/")


# --- HOSTILE, Requests: "absolute URL, `//host`, or user info as a path"


@pytest.mark.hostile("requests-other-host")
@pytest.mark.parametrize("path", ["http://evil/x", "HTTPS://evil", "ftp://e/x", "a.b+c-d://e"])
def test_row_an_absolute_url_is_no_path(path):
    with pytest.raises(ValueError, match="not a URL"):
        join_path(path)
    with pytest.raises(ValueError, match="not a URL"):
        ENDPOINT.url(path)


def test_row_a_refused_url_does_not_show_its_password():
    with pytest.raises(ValueError, match="not a URL") as caught:
        ENDPOINT.url("http://user:hunter2@evil/x")
    assert "hunter2" not in str(caught.value)


@pytest.mark.hostile("requests-other-host")
@pytest.mark.parametrize(
    "path",
    [
        "//evil/x",
        "@evil/x",
        "user:pw@evil",
        ":8080/x",
        "\\\\evil\\x",
        ".evil.com",
        "a/http://evil",
        "/http://evil",
        "//http://evil",
    ],
)
def test_row_the_host_never_changes(path):
    url = ENDPOINT.url(path)
    assert urlsplit(url).netloc == yarl.URL(url, encoded=True).host == parse_url(url).origin.host == HOST
    assert ENDPOINT.request("GET", path).origin.host == HOST


@pytest.mark.hostile("requests-other-host")
@PROPERTY
@given(st.one_of(awkward_text, st.text("/\\@:.?%#hHtTpP", max_size=12)), queries)
def test_law_the_host_never_changes(path, query):
    try:
        url = ENDPOINT.url(path, query)
    except ValueError:
        return
    split = urlsplit(url)
    assert (split.scheme, split.netloc, split.fragment) == ("http", HOST, "")
    assert split.path.startswith("/2025-09-10/agents")
    assert yarl.URL(url, encoded=True).host == HOST


# --- HOSTILE, Requests: "`#` in a path"


@pytest.mark.hostile("requests-fragment", "published-query")
@pytest.mark.parametrize("path", ["a#b/c", "#", "a#", "a?x=1#b", "a?#", "a#?b"])
def test_row_a_fragment_is_refused_with_advice(path):
    with pytest.raises(ValueError, match="write %23"):
        ENDPOINT.url(path)
    with pytest.raises(ValueError, match="write %23"):
        merge_query("http://h/" + path, {"a": 1})
    assert "%23" in ENDPOINT.url("a%23b/c", {"x": "#"})


# --- HOSTILE, Requests: "non-ASCII, space, tab, DEL, backslash, quotes, `%zz`"


@pytest.mark.hostile("requests-path-encoding")
@pytest.mark.parametrize(
    ("path", "wire"),
    [
        ("é中😀", "%C3%A9%E4%B8%AD%F0%9F%98%80"),
        ("a b", "a%20b"),
        ("a+b", "a+b"),
        ("a\tb", "a%09b"),
        ("a\x7fb", "a%7Fb"),
        ("a\\b", "a%5Cb"),
        ("\"'<>", "%22'%3C%3E"),
        ("%zz", "%25zz"),
        ("%", "%25"),
        ("100%/x", "100%25/x"),
        ("%4", "%254"),
        ("%%41", "%25%41"),
        ("%41%ff%2F", "%41%ff%2F"),  # a valid triplet keeps its bytes, and its case
        ("%C3é", "%C3%C3%A9"),
        ("!$&'()*+,;=:@~_-.x", "!$&'()*+,;=:@~_-.x"),
        ("[x]{y}|^`", "%5Bx%5D%7By%7D%7C%5E%60"),
        ("\ufeff\u2028\xa0", "%EF%BB%BF%E2%80%A8%C2%A0"),
    ],
)
def test_row_one_documented_encoding_of_a_path(path, wire):
    request = ENDPOINT.request("GET", path)
    assert request.target == "/2025-09-10/agents/" + wire
    assert wire_path(wire) == wire, "the wire form is a fixed point"
    assert unquote_to_bytes(wire) == unquote_to_bytes(path.replace("%zz", "%25zz"))


@pytest.mark.hostile("requests-path-encoding")
@pytest.mark.parametrize(
    "call",
    [
        lambda: ENDPOINT.url("a\ud800"),
        lambda: ENDPOINT.url("a?x=\udfff"),
        lambda: ENDPOINT.url("a", {"x": "\ud800"}),
        lambda: ENDPOINT.url("a", {"\ud800": "x"}),
        lambda: path_segment("\ud800"),
        lambda: merge_query("/a?\ud800", {"x": 1}),
        lambda: parse_url("http://u:\ud800@h/"),
    ],
)
def test_row_a_lone_surrogate_is_a_value_error_of_ours(call):
    with pytest.raises(ValueError, match="lone surrogate") as caught:
        call()
    assert not isinstance(caught.value, UnicodeError)


# --- HOSTILE, Requests: "query values `None`, `True`, 3, 1.5, an `Enum`, a list, a tuple, `[]`, a dict, ..."


@pytest.mark.hostile("requests-query-values")
@pytest.mark.parametrize(
    ("value", "query"),
    [
        (None, "?keep=1"),
        (True, "?keep=1&x=true"),
        (False, "?keep=1&x=false"),
        (3, "?keep=1&x=3"),
        (-0, "?keep=1&x=0"),
        (1.5, "?keep=1&x=1.5"),
        (1e22, "?keep=1&x=1e%2B22"),
        ("", "?keep=1&x="),
        (Colour.RED, "?keep=1&x=red"),
        (Colour.SEVEN, "?keep=1&x=7"),
        (Colour.YES, "?keep=1&x=true"),
        (Level.HIGH, "?keep=1&x=3"),
        (Word.ONE, "?keep=1&x=one"),
        ([1, "b", True, None, Colour.RED], "?keep=1&x=1&x=b&x=true&x=red"),
        ((1, 2), "?keep=1&x=1&x=2"),
        ([], "?keep=1"),
        ([None], "?keep=1"),
        ("a b&c=d+e", "?keep=1&x=a+b%26c%3Dd%2Be"),
    ],
)
def test_row_query_values(value, query):
    assert ENDPOINT.url("r?keep=1", {"x": value}) == BASE + "/r" + query
    assert merge_query("r?keep=1", {"x": value}) == "r" + query


@pytest.mark.hostile("requests-query-values")
@pytest.mark.parametrize(
    "value", [{}, {"a": 1}, b"x", bytearray(b"x"), {1}, object(), Colour.MANY, [[1]], [b"x"], 1j]
)
def test_row_query_values_of_other_types_are_type_errors(value):
    with pytest.raises(TypeError, match=r"'x'.*type"):
        ENDPOINT.url("r", {"x": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), [float("nan")]])
def test_query_numbers_without_a_text_are_value_errors(value):
    with pytest.raises(ValueError, match="'x'"):
        ENDPOINT.url("r", {"x": value})


@pytest.mark.parametrize("name", [1, None, b"x", Colour.RED])
def test_query_names_are_text(name):
    with pytest.raises(TypeError, match="name of a query parameter"):
        ENDPOINT.url("r", {name: 1})


@pytest.mark.hostile("requests-query-values")
def test_an_empty_list_removes_the_key():
    assert merge_query("/r?a=1&b=2&a=3", {"a": []}) == "/r?b=2"
    assert merge_query("http://h/r?a=1", {"a": []}) == "http://h/r"


# --- HOSTILE, Requests: "a query of 30 KB; `?flag`; `?a=&b`; repeated keys; `%20` against `+`; `;`"


@pytest.mark.hostile("requests-query-shapes", "published-query")
@pytest.mark.parametrize(
    ("query", "wire"),
    [
        ("flag", "flag="),
        ("a=&b", "a=&b="),
        ("&a=1&&b=2&", "a=1&b=2"),
        ("a=1&a=2&a=1", "a=1&a=2&a=1"),
        ("a=%20+ b", "a=%20+%20b"),
        ("a=1;b=2", "a=1;b=2"),
        ("x=%FF", "x=%FF"),
        ("=1", "=1"),
        ("=", "="),
        ("a==", "a=="),
        ("a=%zz%", "a=%25zz%25"),
        ("é=[1]", "%C3%A9=%5B1%5D"),
        ("a=b?c/d", "a=b?c/d"),
    ],
)
def test_row_a_query_keeps_what_it_can(query, wire):
    assert ENDPOINT.request("GET", f"r?{query}").target == f"/2025-09-10/agents/r?{wire}"
    assert merge_query(f"/r?{query}", {"new": 1}) == f"/r?{wire}&new=1"
    assert normalise_query(wire) == wire


@pytest.mark.hostile("requests-query-shapes")
def test_row_a_query_of_30_kb_is_sent():
    value = "x y" * 10_000
    assert read_form(urlsplit(ENDPOINT.url("r", {"q": value})).query) == [("q", value)]
    assert len(ENDPOINT.url("r?q=" + "x" * 30_000)) == len(BASE) + len("/r?q=") + 30_000


def test_a_merge_replaces_where_the_first_stood():
    assert merge_query("/r?a=1&b=%20&%61=2&c", {"a": [3, 4], "d": True}) == "/r?a=3&a=4&b=%20&c=&d=true"


def test_merging_nothing_changes_nothing():
    for url in ("/r?flag&&x=%20#frag", "http://h/é?a", "", "?"):
        for nothing in (None, {}, {"a": None}):
            assert merge_query(url, nothing) == url


# --- the laws of merging


def merged_form(existing: str, query: dict[str, Any]) -> list[tuple[str, str]]:
    """The dict merge of both sides, in the documented order, by way of the standard library's parser."""
    waiting = {name: value_texts(value) for name, value in query.items() if value is not None}
    result: list[tuple[str, str]] = []
    replaced = set(waiting)
    for name, value in read_form(existing):
        if name not in replaced:
            result.append((name, value))
        else:
            result += [(name, text) for text in waiting.pop(name, [])]
    return result + [(name, text) for name, texts in waiting.items() for text in texts]


def query_of(url: str) -> str:
    return url.partition("?")[2]


@PROPERTY
@given(loose_queries, queries)
def test_law_a_form_parser_reads_the_dict_merge_of_both_sides(existing, query):
    expected = merged_form(existing, query)
    if any(value is not None for value in query.values()):
        assert read_form(query_of(merge_query(f"/r?{existing}", query))) == expected
    assert read_form(query_of(ENDPOINT.url(f"r?{existing}", query))) == expected
    plain = {
        **form_dict(read_form(existing)),
        **{k: value_texts(v) for k, v in query.items() if v is not None},
    }
    assert form_dict(expected) == {name: texts for name, texts in plain.items() if texts}


@pytest.mark.hostile("requests-query-shapes", "published-query")
@PROPERTY
@given(wire_queries, queries)
def test_law_untouched_pairs_keep_their_bytes(existing, query):
    touched = {name for name, value in query.items() if value is not None}
    before = [pair for pair in existing.split("&") if pair]
    kept = [pair for pair in before if read_form(pair)[0][0] not in touched]
    for url in (merge_query(f"/r?{existing}", query), ENDPOINT.url(f"r?{existing}", query)):
        after = [pair for pair in query_of(url).split("&") if pair and read_form(pair)[0][0] not in touched]
        assert after == kept


@PROPERTY
@given(loose_queries, queries)
def test_law_merging_twice_equals_merging_once(existing, query):
    once = merge_query(f"http://h/r?{existing}", query)
    assert merge_query(once, query) == once
    url = ENDPOINT.url(f"r?{existing}", query)
    assert merge_query(url, query) == url
    assert ENDPOINT.url("r?" + query_of(url)) == url, "the wire form is a fixed point"


@PROPERTY
@given(st.lists(st.tuples(awkward_text, awkward_text), max_size=4), queries)
def test_law_the_result_is_plain_ascii_that_three_parsers_read_alike(existing, query):
    from urllib.parse import quote_plus

    path = "r?" + "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in existing)
    url = ENDPOINT.url(path, query)
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url
    raw = query_of(url)
    by_standard_library = read_form(raw)
    by_yarl = list(yarl.URL(url, encoded=True).query.items())
    environ = EnvironBuilder(path="/r", query_string=raw).get_environ()
    by_werkzeug = WerkzeugRequest(environ).args
    assert by_yarl == by_standard_library == parse_form(raw)
    assert by_werkzeug.to_dict(flat=False) == form_dict(by_standard_library)
    assert by_standard_library == merged_form(query_of(path), query)


@PROPERTY
@given(loose_queries, queries)
def test_law_nothing_passed_in_is_changed(existing, query):
    before = {name: list(value) if isinstance(value, list) else value for name, value in query.items()}
    merge_query(f"/r?{existing}", query)
    ENDPOINT.url("r", query)
    assert query == before


@PROPERTY
@given(awkward_text, loose_queries, queries)
def test_law_url_and_request_agree_and_a_parsed_url_is_what_is_sent(path, existing, query):
    try:
        url = ENDPOINT.url(f"{path.replace('?', '')}?{existing}", query)
    except ValueError:
        return
    request = ENDPOINT.request("GET", f"{path.replace('?', '')}?{existing}", query=query)
    parsed = parse_url(url)
    assert request.url == url
    assert (parsed.origin, parsed.request_target) == (request.origin, request.target)


@pytest.mark.hostile("requests-dot-segments", "published-raw-path")
@PROPERTY
@given(awkward_text, queries)
def test_law_the_path_that_is_signed_is_the_path_in_the_target(path, query):
    endpoint = DataEndpoint(Config(account_id="1", access_key_id="i", access_key_secret="s"))
    try:
        request = endpoint.request("GET", path, query=query)
    except ValueError:
        return
    assert endpoint.sign(request, NOON).target == request.target
    assert wire_path(request.target.partition("?")[0]) == request.target.partition("?")[0]


@PROPERTY
@given(any_text.filter(lambda text: text not in {"", ".", ".."}))
def test_law_a_path_segment_is_one_segment_and_reads_back(text):
    segment = path_segment(text)
    assert unquote(segment, errors="strict") == text
    target = ENDPOINT.request("GET", f"a/{segment}/b").target
    assert target == f"/2025-09-10/agents/a/{segment}/b"
    assert target.split("/")[4] == segment


@PROPERTY
@given(any_text)
def test_law_the_wire_form_is_ascii_and_a_fixed_point(text):
    for form in (wire_path, wire_query):
        try:
            wire = form(text)
        except ValueError:
            continue
        assert wire.isascii()
        assert wire.isprintable()
        assert form(wire) == wire
        assert unquote(wire) == unquote(text)


# --- reading a form


@pytest.mark.parametrize(
    "case",
    json.loads((DATA / "urlencoded-parser-data.json").read_text(encoding="utf-8")),
    ids=lambda case: repr(case["input"]),
)
def test_parse_form_reads_what_the_whatwg_cases_say(case):
    assert parse_form(case["input"]) == [tuple(pair) for pair in case["output"]]


@PROPERTY
@given(loose_queries)
def test_parse_form_reads_what_the_standard_library_reads(query):
    assert parse_form(query) == read_form(query)
    assert [pair for _, pair in split_pairs(query)] == [pair for pair in query.split("&") if pair]


# --- URLs taken apart


@pytest.mark.parametrize(
    ("url", "origin", "target", "userinfo"),
    [
        ("http://h", Origin("http", "h", 80), "/", None),
        ("HTTP://H:80/", Origin("http", "h", 80), "/", None),
        ("https://h", Origin("https", "h", 443), "/", None),
        ("https://h:", Origin("https", "h", 443), "/", None),
        ("https://h:8443/a?b", Origin("https", "h", 8443), "/a?b", None),
        ("http://h?b=1", Origin("http", "h", 80), "/?b=1", None),
        ("http://h?", Origin("http", "h", 80), "/", None),
        ("http://u:p@h/a b?c d", Origin("http", "h", 80), "/a%20b?c%20d", "u:p"),
        ("http://u@v@h/", Origin("http", "h", 80), "/", "u@v"),
        ("http://@h/", Origin("http", "h", 80), "/", ""),
        ("http://é:p q%41%@h/", Origin("http", "h", 80), "/", "%C3%A9:p%20q%41%25"),
        ("http://[2001:DB8::1]:8077/x", Origin("http", "[2001:db8::1]", 8077), "/x", None),
        ("http://h/a?b=c:d@e", Origin("http", "h", 80), "/a?b=c:d@e", None),
        ("http://h/x@y/z", Origin("http", "h", 80), "/x@y/z", None),
    ],
)
def test_parse_url(url, origin, target, userinfo):
    parsed = parse_url(url)
    assert (parsed.origin, parsed.request_target, parsed.userinfo) == (origin, target, userinfo)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "not a URL"),
        ("h", "not a URL"),
        ("//h/x", "not a URL"),
        ("http:/h", "not a URL"),
        ("http://", "not a URL"),
        ("http:///x", "not a URL"),
        ("http://h:port/", "not a URL"),
        ("http://h:123456/", "not a URL"),
        ("http://h:-1/", "not a URL"),
        ("http://h:٣/", "not a URL"),
        ("http://a b/", "not a URL"),
        ("http://a%41/", "not a URL"),
        ("http://h\\evil/", "not a URL"),
        ("http://h..x/", "not a URL"),
        ("http://[::1/", "not a URL"),
        ("http://[::1]x/", "not a URL"),
        ("http://[::1::1]:80/a", "not an IPv6 address"),
        ("http://[1.2.3.4]/", "not an IPv6 address"),
        (" http://h/", "not a URL"),
        ("http://h:0/", "1 to 65535"),
        ("http://h:65536/", "1 to 65535"),
        ("ftp://h/", "'http' or 'https'"),
        ("file:///etc/passwd", "not a URL"),
        ("http://h/#", "fragment"),
        ("http://h/a#b", "fragment"),
        ("http://h/../x", "path_segment"),
        ("http://h/\n", "line break"),
    ],
)
def test_parse_url_refuses(url, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@h\n/",
        "http://user:hunter2@h:99999/",
        "http://user:hunter2@h h/",
        "http://user:hunter2\udc80@h/",
        "ftp://user:hunter2@h/",
        "http://user:hunter2@h/\0",
        "http://user:hunter2@h/#x",
    ],
)
def test_parse_url_never_shows_a_password(url):
    with pytest.raises(ValueError) as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        (Origin("http", "h", 80), "h"),
        (Origin("https", "h", 443), "h"),
        (Origin("http", "h", 443), "h:443"),
        (Origin("https", "[::1]", 80), "[::1]:80"),
    ],
)
def test_authority_leaves_the_default_port_out(origin, authority):
    assert (origin.authority, str(origin)) == (authority, f"{origin.scheme}://{authority}")


# --- SERVICE, RAM hosts


@pytest.mark.hostile("published-ram")
@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("123.agentrun-data.cn-hangzhou.aliyuncs.com", "123-ram.agentrun-data.cn-hangzhou.aliyuncs.com"),
        ("123-ram.agentrun-data.cn-hangzhou.aliyuncs.com", "123-ram.agentrun-data.cn-hangzhou.aliyuncs.com"),
        ("123.funagent-data-pre.cn.aliyuncs.com", "123-ram.funagent-data-pre.cn.aliyuncs.com"),
        ("123.funagent-data.cn.aliyuncs.com", "123.funagent-data.cn.aliyuncs.com"),
        ("123.agentrun-data", "123.agentrun-data"),
        ("agentrun-data.cn-hangzhou.aliyuncs.com", "agentrun-data.cn-hangzhou.aliyuncs.com"),
        ("a.b.agentrun-data.x", "a-ram.b.agentrun-data.x"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("gateway.example.com", "gateway.example.com"),
    ],
)
def test_ram_hosts(host, expected):
    assert ram_host(host) == expected
    assert ram_host(ram_host(host)) == expected


# --- references that are found in an answer (RFC 3986, 5.2)

RFC_3986_BASE = "http://a/b/c/d;p?q"
# RFC 3986, 5.4.1 and 5.4.2, as far as they lead to http or https; the fragment is left out.
RFC_3986_EXAMPLES = [
    ("g", "/b/c/g"),
    ("./g", "/b/c/g"),
    ("g/", "/b/c/g/"),
    ("/g", "/g"),
    ("?y", "/b/c/d;p?y"),
    ("g?y", "/b/c/g?y"),
    ("#s", "/b/c/d;p?q"),
    ("g#s", "/b/c/g"),
    ("g?y#s", "/b/c/g?y"),
    (";x", "/b/c/;x"),
    ("g;x", "/b/c/g;x"),
    ("g;x?y#s", "/b/c/g;x?y"),
    ("", "/b/c/d;p?q"),
    (".", "/b/c/"),
    ("./", "/b/c/"),
    ("..", "/b/"),
    ("../", "/b/"),
    ("../g", "/b/g"),
    ("../..", "/"),
    ("../../", "/"),
    ("../../g", "/g"),
    ("../../../g", "/g"),
    ("../../../../g", "/g"),
    ("/./g", "/g"),
    ("/../g", "/g"),
    ("g.", "/b/c/g."),
    (".g", "/b/c/.g"),
    ("g..", "/b/c/g.."),
    ("..g", "/b/c/..g"),
    ("./../g", "/b/g"),
    ("./g/.", "/b/c/g/"),
    ("g/./h", "/b/c/g/h"),
    ("g/../h", "/b/c/h"),
    ("g;x=1/./y", "/b/c/g;x=1/y"),
    ("g;x=1/../y", "/b/c/y"),
    ("g?y/./x", "/b/c/g?y/./x"),
    ("g?y/../x", "/b/c/g?y/../x"),
    ("g#s/../x", "/b/c/g"),
]


@pytest.mark.parametrize(("reference", "target"), RFC_3986_EXAMPLES)
def test_references_resolve_as_rfc_3986_says(reference, target):
    found = resolve(RFC_3986_BASE, reference)
    assert (found.origin, found.request_target) == (Origin("http", "a", 80), target)


@pytest.mark.parametrize(
    ("reference", "origin", "target"),
    [
        ("//g", Origin("http", "g", 80), "/"),
        ("//G:81/x", Origin("http", "g", 81), "/x"),
        ("https://g", Origin("https", "g", 443), "/"),
        ("https://u:p@g/x?y#z", Origin("https", "g", 443), "/x?y"),
        ("http://a:80/x", Origin("http", "a", 80), "/x"),
        ("http://g/a b/é?c d", Origin("http", "g", 80), "/a%20b/%C3%A9?c%20d"),
    ],
)
def test_references_that_lead_elsewhere(reference, origin, target):
    found = resolve(RFC_3986_BASE, reference)
    assert (found.origin, found.request_target) == (origin, target)


@pytest.mark.parametrize(
    "reference",
    ["g:h", "file:///etc/passwd", "javascript:alert(1)", "data:,x", "ftp://a/", "http://", "http://a:x/", "http://[::1",
     "http://g\\h/", "http://g h/", "/%2E%2E/x", "/a/%2e", "http://g:99999/", "mailto:hunter2@g"],
)  # fmt: skip
def test_references_that_lead_nowhere(reference):
    with pytest.raises(ValueError):
        resolve("https://base/x", reference)


@PROPERTY
@given(any_text | awkward_text | st.text("/.:\\@?#[]%a\t ", max_size=12))
def test_law_a_reference_leads_to_http_or_nowhere(reference):
    try:
        found = resolve("https://h/a/b?c", reference)
    except ValueError:
        return
    assert found.origin.scheme in ("http", "https")
    assert found.request_target.isascii()
    assert found.request_target.startswith("/")
    assert "#" not in found.request_target
    assert parse_url(f"{found.origin}{found.request_target}") == dataclasses.replace(found, userinfo=None)
