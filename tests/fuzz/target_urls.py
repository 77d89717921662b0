"""Whatever path and query are joined and merged is refused with a ValueError or TypeError, or is plain ASCII
of the endpoint's own origin that foreign parsers read as the merge of both sides.

An input is four groups: a path, a query of ``name=value`` records, a URL, and a reference to be resolved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yarl

from agentrun_proto import Config, DataEndpoint
from agentrun_proto.urls import merge_query, parse_form, parse_url, path_segment, resolve, without_userinfo
from fuzz.inputs import GROUP, RECORD, groups, joined, only, pairs, text
from proto_strategies import load

ENDPOINT = DataEndpoint(Config(data_endpoint="http://account.example:8080/base"))
ORIGIN = "http://account.example:8080/"

FOUND: dict[str, bytes] = {
    "brackets around what is no IPv6 address": b"\x1d\x1dhttp://[::1::1]:80/a?b\x1d",
}

PATHS = (
    "resources?page=1", "/a/b/", "a b?x= ", "a%2Fb?%zz=%", "é?é=é", "../x", "a/%2e%2E/b", "http://evil/x",
    "//h", "a#b", "a?flag&&x==", "a\\b", "a\r\nb", "?", "", "a;b,c@d:e?x;y=1&a+b=%20", "%00?%0d%0a",
    "\\\\evil",
    "a?x=1?y=2/3", "@h", "a:80", "\ud800",
)  # fmt: skip
URLS = (
    "http://h/a/b?c=1", "https://user:word@h:8443/", "HTTP://H:80", "http://[::1]:80/a?b", "http://h:99999/",
    "ftp://h/", "http://h?x", "http://h#f", "http://a@b@h/", "h/a", "http://h\\@evil/", "http://1.2.3.4./%7E",
)  # fmt: skip
VALUES = (
    "a=1", 'a=[1, "x", null]', "b=true", "é= ", "c=null", "page=[]", "d={}", "e=1.5", "f=NaN", "=", "x=1e999",
    "g=\ud800", 'h="\\u0000"',
)  # fmt: skip
REFERENCES = (
    "../x",
    "?y",
    "//evil/x",
    "https:x",
    "http:",
    "#f",
    "/..//x",
    "file:///etc",
    "x y",
    "///",
    "\t/x",
)


def _value(raw: str) -> Any:
    """JSON where it is, so that numbers, lists and dicts come as well; else the text."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw


def _texts(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [
        item if isinstance(item, str) else str(item).lower() if isinstance(item, bool) else repr(item)
        for item in items
        if item is not None
    ]


def check(data: bytes) -> None:
    path, query, url, reference = groups(data, 4)
    _merged(text(path), {name: _value(value) for name, value in pairs(query)})
    _parsed(text(url), text(reference))


def _merged(path: str, query: dict[str, Any]) -> None:
    given = json.dumps(query)
    try:
        url = ENDPOINT.url(path, query)
        request = ENDPOINT.request("GET", path, query=query)
    except (ValueError, TypeError) as error:
        only(error, TypeError, ValueError)
        return
    assert json.dumps(query) == given, "what the caller passed in was changed"
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url
    assert url.startswith(ORIGIN)
    assert request.url == url
    assert parse_url(url).request_target == request.target == url[len(ORIGIN) - 1 :]
    assert ENDPOINT.url(path, query) == url
    assert merge_query(url, query) == url, "merging twice is merging once"
    split = urlsplit(url)
    assert (split.scheme, split.netloc, split.fragment) == ("http", "account.example:8080", "")
    assert not _has_dots(split.path)
    assert not re.search("%(?![0-9A-Fa-f]{2})", url)
    expected = _merge(path.partition("?")[2], query)
    assert parse_form(split.query) == expected
    assert parse_qsl(split.query, keep_blank_values=True, max_num_fields=None) == expected
    assert list(yarl.URL(url, encoded=True).query.items()) == expected


def _merge(existing: str, query: dict[str, Any]) -> list[tuple[str, str]]:
    waiting = {name: _texts(value) for name, value in query.items() if value is not None}
    replaced, merged = set(waiting), []
    for name, value in parse_qsl(existing, keep_blank_values=True):
        if name in replaced:
            merged += [(name, item) for item in waiting.pop(name, [])]
        else:
            merged.append((name, value))
    return merged + [(name, item) for name, items in waiting.items() for item in items]


def _has_dots(path: str) -> bool:
    """Whether anybody on the way could take a segment for a step up or none."""
    return any(unquote(segment) in (".", "..") for segment in path.split("/"))


def _parsed(url: str, reference: str) -> None:
    shown = without_userinfo(url)
    assert "@" not in shown or shown.rpartition("@")[0].endswith("***")
    try:
        segment = path_segment(reference)
    except ValueError as error:
        only(error, ValueError)
    else:
        assert segment.isascii()
        assert "/" not in segment
        assert "?" not in segment
        assert segment not in ("", ".", "..")
    for parse in (parse_url, lambda found: resolve(found, reference)):
        try:
            target = parse(url)
        except ValueError as error:
            only(error, ValueError)
            continue
        again = f"{target.origin}{target.request_target}"
        assert again.isascii()
        assert again.isprintable()
        assert target.origin.scheme in ("http", "https")
        fixed = parse_url(again)
        assert (fixed.origin, fixed.request_target) == (target.origin, target.request_target)
        split = urlsplit(again)
        assert not _has_dots(split.path)
        assert split.hostname == target.origin.host.strip("[]")
        assert (split.port or target.origin.port) == target.origin.port


def corpus() -> Iterator[bytes]:
    def made(path: str, query: Sequence[str], url: str, reference: str) -> bytes:
        return joined(GROUP, [path, joined(RECORD, query), url, reference])

    for number, path in enumerate(PATHS):
        start = number % len(VALUES)
        url, reference = URLS[number % len(URLS)], REFERENCES[number % len(REFERENCES)]
        yield made(path, VALUES[start : start + 3], url, reference)
    for case in load("urlencoded-parser-data.json"):
        yield made("r?" + case["input"], [f"{name}={value}" for name, value in case["output"]], URLS[0], "x")
