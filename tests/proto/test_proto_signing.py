"""Signatures: the published cases, the laws that hold for all others, and who may set which header."""

from __future__ import annotations

import calendar
import sys
import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentrun_proto import (
    AccessKey,
    AccessToken,
    Body,
    Config,
    DataEndpoint,
    Headers,
    Origin,
    Request,
    Secret,
)
from agentrun_proto.signing import Authoriser, Signer, canonical_query, sign_acs3, timestamp
from agentrun_proto.urls import normalise_query, parse_url
from proto_strategies import (
    FEWER,
    NOON,
    PROPERTY,
    FakeSource,
    any_text,
    header_values,
    load,
    loose_queries,
    read_form,
    received_signature,
    wire_queries,
)

AGENTRUN4 = load("agentrun4_vectors.json")["cases"]
ACS3 = load("acs3_vectors.json")["cases"]
DAY = 86400.0
KEY = AccessKey(access_key_id="id", access_key_secret=Secret("secret"))
TEMPORARY = replace(KEY, security_token=Secret("sts"))
ORIGIN = Origin("https", "123-ram.agentrun-data.cn-hangzhou.aliyuncs.com", 443)


def epoch(stamp: str) -> float:
    return float(calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")))


def a_request(**changes: Any) -> Request:
    fields: dict[str, Any] = {
        "method": "GET",
        "origin": ORIGIN,
        "target": "/2025-09-10/agents/resources?limit=10",
    }
    return Request(**{**fields, **changes})


def signature(
    request: Request, *, key: AccessKey = KEY, region: str = "cn-hangzhou", now: float = NOON
) -> str:
    return dict(Signer(key, region).fields(request, now))["Agentrun-Authorization"].rpartition("=")[2]


# --- the published cases


def test_there_are_as_many_published_cases_as_the_service_document_says():
    assert (len(AGENTRUN4), len(ACS3)) == (64, 24)


@pytest.mark.parametrize("case", AGENTRUN4, ids=range(len(AGENTRUN4)))
def test_agentrun4_equals_the_published_signers(case):
    target = parse_url(case["url"])
    key = AccessKey(
        access_key_id=case["access_key_id"],
        access_key_secret=Secret(case["access_key_secret"]),
        security_token=Secret(case["security_token"]) if case["security_token"] else None,
    )
    headers = Headers({"Content-Type": case["content_type"]} if case["content_type"] else {})
    request = Request(
        method=case["method"], origin=target.origin, target=target.request_target, headers=headers
    )
    fields = Signer(key, case["region"]).fields(request, epoch(case["time"]), sign_content_type=True)
    sent = {name.lower(): value for name, value in [*request.fields(), *fields]}
    sent.pop("content-length", None)
    assert sent == {name.lower(): value for name, value in case["headers"].items()}
    assert case["url"].endswith(target.request_target), "the URL that is sent is the one that was signed"


@pytest.mark.parametrize("case", ACS3, ids=lambda case: case["canonical_query"])
def test_acs3_equals_the_published_signer(case):
    signed = case["signed_headers"]
    key = AccessKey(
        access_key_id=case["access_key_id"],
        access_key_secret=Secret(case["access_key_secret"]),
        security_token=Secret(signed["x-acs-security-token"]) if "x-acs-security-token" in signed else None,
    )
    query = "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in case["query"].items()
    )
    request = Request(
        method=case["method"],
        origin=Origin("https", signed["host"], 443),
        target=f"{case['path']}?{query}",
        headers=Headers({"Accept": signed["accept"]}),
    )
    fields = sign_acs3(
        request,
        key,
        action=signed["x-acs-action"],
        version=signed["x-acs-version"],
        nonce=signed["x-acs-signature-nonce"],
        now=epoch(signed["x-acs-date"]),
    )
    assert dict(fields)["Authorization"] == case["authorization"]
    sent = {name.lower(): value for name, value in [*request.fields(), *fields]}
    assert {name: sent[name] for name in signed} == signed
    assert canonical_query(query) == case["canonical_query"]


def test_acs3_signs_a_hash_of_the_content_and_needs_it_in_memory():
    now = {"action": "A", "version": "1", "nonce": "n", "now": NOON}
    plain = dict(sign_acs3(a_request(), KEY, **now))
    with_body = dict(sign_acs3(a_request(body=Body(segments=(b"x",), length=1)), KEY, **now))
    assert plain["x-acs-content-sha256"].startswith("e3b0c442")
    assert with_body["x-acs-content-sha256"].startswith("2d711642")
    assert plain["Authorization"] != with_body["Authorization"]
    with pytest.raises(ValueError, match="memory"):
        sign_acs3(a_request(body=Body(segments=(FakeSource(1),), length=1)), KEY, **now)


# --- rules, one by one


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        ("", ""),
        ("b=2&a=1", "a=1&b=2"),
        ("a=1&b=2&a=3", "a=3&b=2"),  # of a repeated name the last value counts
        ("a=1+1", "a=1%201"),  # a form's plus is a space
        ("a=%2B", "a=%2B"),
        ("%61=%41~._-", "a=A~._-"),
        ("flag=", "flag="),
        ("flag", "flag="),
        ("a==", "a=%3D"),
        ("B=1&a=1", "B=1&a=1"),  # by code point
        ("a%2Fb=/", "a%2Fb=%2F"),
        ("é=中", "%C3%A9=%E4%B8%AD"),
        ("a=!'()*", "a=%21%27%28%29%2A"),
        ("a;b=1;2", "a%3Bb=1%3B2"),
    ],
)
def test_canonical_query(query, canonical):
    assert canonical_query(query) == canonical


@pytest.mark.hostile("many-wall-clock")
def test_the_time_is_utc_in_whole_seconds():
    assert [timestamp(t) for t in (0, 0.999, NOON - 1e-3, 1e10)] == [
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "2026-03-06T11:59:59Z",
        "2286-11-20T17:46:40Z",
    ]


@pytest.mark.hostile("many-wall-clock")
@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system has no time zone by process")
@pytest.mark.parametrize("zone", ["Asia/Shanghai", "XXX+11", "UTC"])
def test_dates_are_utc_wherever_the_machine_stands(zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert timestamp(NOON) == "2026-03-06T12:00:00Z"
    finally:
        monkeypatch.undo()
        time.tzset()


class CountingSecret(Secret):
    """A secret that counts how often a key was made of it."""

    __slots__ = ("count",)

    def reveal(self) -> str:
        self.count = getattr(self, "count", 0) + 1
        return super().reveal()


def test_the_days_key_is_kept_over_the_day_and_renewed_at_midnight_utc():
    secret = CountingSecret("secret")
    signer = Signer(AccessKey(access_key_id="id", access_key_secret=secret), "cn-hangzhou")
    midnight = NOON + DAY / 2
    seen = []
    for now in (NOON - DAY / 2, NOON, NOON + 1, midnight - 1e-3, midnight, midnight + 1, midnight - 1):
        value = dict(signer.fields(a_request(), now))["Agentrun-Authorization"]
        seen.append((secret.count, value.split("/")[1]))
        assert value == dict(Signer(KEY, "cn-hangzhou").fields(a_request(), now))["Agentrun-Authorization"]
    assert seen == [
        (1, "20260306"),
        (1, "20260306"),
        (1, "20260306"),
        (1, "20260306"),
        (2, "20260307"),
        (2, "20260307"),
        (3, "20260306"),  # the clock was set back
    ]


def interrupted(signer: Signer, request: Request, now: float, step: int, other: float) -> tuple[Any, Any]:
    """What `signer` returns for `now`, and for `other` from amid that call, before its line number `step`."""
    lines, theirs = 0, None

    def tracer(frame: Any, event: str, _argument: Any) -> Any:
        nonlocal lines, theirs
        if not frame.f_code.co_filename.endswith("signing.py"):
            return None
        if event == "line":
            if lines == step:
                sys.settrace(None)
                theirs = signer.fields(request, other)
            lines += 1
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        ours = signer.fields(request, now)
    finally:
        sys.settrace(before)
    return ours, theirs


@pytest.mark.parametrize("other", [NOON + DAY, NOON + 1], ids=["the next day", "the next second"])
def test_threads_that_sign_at_once_each_get_a_true_signature(other):
    """Another thread signs between any two lines of ours: a trace function stands for the scheduler."""
    request, later = a_request(), NOON + 2
    expected = {now: Signer(KEY, "cn-hangzhou").fields(request, now) for now in (NOON, other, later)}
    for step in range(1000):
        signer = Signer(KEY, "cn-hangzhou")
        signer.fields(request, NOON - DAY)
        ours, theirs = interrupted(signer, request, NOON, step, other)
        assert ours == expected[NOON], f"ours, interrupted before line {step}"
        if theirs is None:
            break
        assert theirs == expected[other], f"the other thread's, before line {step}"
        assert signer.fields(request, later) == expected[later], f"a later one, after line {step}"
    assert step > 10, "the other thread has been everywhere"


@pytest.mark.hostile("published-signed-host")
def test_host_is_signed_without_user_info_and_default_port():
    for url, host in (
        ("https://u:p@h:443/x", "h"),
        ("http://u:p@h:80/x", "h"),
        ("http://h:443/x", "h:443"),
        ("https://H.Example:8443/x", "h.example:8443"),
        ("http://[::1]:8077/x", "[::1]:8077"),
    ):
        target = parse_url(url)
        request = a_request(origin=target.origin, target=target.request_target)
        lines = [*request.fields(), *Signer(KEY, "cn-hangzhou").fields(request, NOON)]
        assert dict(lines)["Host"] == host
        computed, sent, names = received_signature(
            method="GET", target=request.target, lines=lines, secret="secret"
        )
        assert computed == sent
        assert "host" in names


def test_callers_acs_headers_are_signed_and_others_are_not():
    request = a_request(
        headers=Headers({"X-Acs-Meta": "1", "x-acs-trace": "2", "X-Other": "3", "Accept": "*/*"})
    )
    fields = dict(Signer(TEMPORARY, "cn-hangzhou").fields(request, NOON))
    names = fields["Agentrun-Authorization"].partition("SignedHeaders=")[2].partition(",")[0]
    assert names == "host;x-acs-content-sha256;x-acs-date;x-acs-meta;x-acs-security-token;x-acs-trace"
    assert "X-Acs-Meta" not in fields, "the caller's own lines are not sent a second time"
    without = signature(a_request(headers=Headers({"X-Acs-Meta": "1", "x-acs-trace": "2"})), key=TEMPORARY)
    assert fields["Agentrun-Authorization"].endswith(without)


def test_a_content_type_is_signed_only_when_asked():
    typed = a_request(headers=Headers({"Content-Type": "text/plain"}))
    signer = Signer(KEY, "cn-hangzhou")
    assert signer.fields(typed, NOON) == signer.fields(a_request(), NOON)
    assert (
        "content-type;host"
        in dict(signer.fields(typed, NOON, sign_content_type=True))["Agentrun-Authorization"]
    )
    assert signer.fields(a_request(), NOON, sign_content_type=True) == signer.fields(a_request(), NOON)


@pytest.mark.hostile("published-stale-signature")
@pytest.mark.parametrize(
    "name",
    ["x-acs-date", "X-Acs-Date", "x-acs-content-sha256", "X-ACS-Security-Token", "Agentrun-Authorization"],
)
def test_headers_that_the_signature_decides_are_refused(name):
    endpoint = DataEndpoint(Config(account_id="1", access_key_id="id", access_key_secret="s"))
    with pytest.raises(ValueError, match=r"credential.*auth\(\)"):
        endpoint.request("GET", "x", headers={name: "mine"})
    with pytest.raises(ValueError, match="credential"):
        Signer(KEY, "cn-hangzhou").fields(a_request(headers=Headers({name: "mine"})), NOON)
    with pytest.raises(ValueError, match="credential"):
        DataEndpoint(endpoint.config.merge(Config(headers={name: "mine"})))


def test_a_token_is_added_and_cannot_be_set_twice():
    endpoint = DataEndpoint(Config(account_id="1", token="t0k", access_key_id="id", access_key_secret="s"))
    signed = endpoint.sign(endpoint.request("GET", "x"), NOON)
    assert signed.signature == (("Agentrun-Access-Token", "t0k"),), "a token wins over an access key"
    assert "-ram" not in signed.url
    with pytest.raises(ValueError, match="credential"):
        endpoint.request("GET", "x", headers={"agentrun-access-TOKEN": "mine"})


def test_without_a_credential_nothing_is_added():
    endpoint = DataEndpoint(Config(account_id="1"))
    assert endpoint.sign(endpoint.request("GET", "x", headers={"x-acs-date": "mine"}), NOON).signature == ()
    assert Authoriser(None, "r").fields(a_request(), NOON) == ()
    assert Authoriser(AccessToken(token=Secret("t")), "r").fields(a_request(), NOON) == (
        ("Agentrun-Access-Token", "t"),
    )


@pytest.mark.hostile("published-reused-date")
def test_each_attempt_is_signed_afresh():
    endpoint = DataEndpoint(Config(account_id="1", access_key_id="id", access_key_secret="s"))
    request = endpoint.request("GET", "x")
    first, second = endpoint.sign(request, NOON), endpoint.sign(request, NOON + 1)
    assert request.signature == ()
    assert dict(first.signature)["x-acs-date"] == "2026-03-06T12:00:00Z"
    assert dict(second.signature)["x-acs-date"] == "2026-03-06T12:00:01Z"
    assert dict(first.signature)["Agentrun-Authorization"] != dict(second.signature)["Agentrun-Authorization"]
    assert endpoint.sign(first, NOON + 1) == second, "a second signature takes the place of the first"
    names = [name.lower() for name, _ in second.fields()]
    assert len(names) == len(set(names)), "no field line goes out twice"


# --- laws

plain_queries = st.lists(st.text("abB01.~_-=", max_size=6), max_size=6).map("&".join)


@PROPERTY
@given(st.one_of(plain_queries, wire_queries, loose_queries))
def test_the_canonical_query_is_that_of_a_form_parser(query):
    last = dict(read_form(query))
    expected = "&".join(f"{quote(name, safe='')}={quote(last[name], safe='')}" for name in sorted(last))
    assert canonical_query(query) == expected
    assert canonical_query(normalise_query(query)) == expected


acs_headers = st.dictionaries(
    st.sampled_from(["x-acs-a", "X-Acs-B", "x-acs-c", "x-acs-signature-nonce"]), header_values, max_size=4
)
pairs = st.dictionaries(any_text, any_text, max_size=5)


def encoded(query: list[tuple[str, str]]) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query)


def target_of(query: list[tuple[str, str]]) -> str:
    return "/p?" + encoded(query) if query else "/p"


@PROPERTY
@given(pairs, acs_headers, st.data())
def test_the_order_of_query_and_headers_never_matters(query, headers, data):
    lines = list(headers.items())
    one = a_request(target=target_of([*query.items()]), headers=Headers(lines))
    other = a_request(
        target=target_of(data.draw(st.permutations([*query.items()]))),
        headers=Headers(data.draw(st.permutations(lines))),
    )
    assert signature(one) == signature(other)


@pytest.mark.hostile("requests-path-encoding", "published-signed-early", "published-raw-path")
@PROPERTY
@given(
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    path=any_text,
    query=pairs,
    headers=acs_headers,
    temporary=st.booleans(),
    now=st.floats(0, 4e9),
)
def test_what_is_sent_is_what_is_signed(method, path, query, headers, temporary, now):
    endpoint = DataEndpoint(
        Config(
            data_endpoint="http://u:p@h:8077/base",
            access_key_id="id",
            access_key_secret="secret",
            security_token="sts" if temporary else None,
        )
    )
    try:
        request = endpoint.request(method, path.replace("?", ""), query=query, headers=headers)
    except ValueError:
        assume(False)
    sent = endpoint.sign(request, now)
    computed, claimed, names = received_signature(
        method=method, target=sent.target, lines=sent.fields(), secret="secret"
    )
    expected = {"host", "x-acs-date", "x-acs-content-sha256", *(name.lower() for name in headers)}
    assert set(names) == expected | ({"x-acs-security-token"} if temporary else set())
    assert computed == claimed


def test_a_latin_1_header_is_signed_as_the_bytes_that_are_sent():
    request = a_request(headers=Headers({"x-acs-meta": "caf\xe9"}))
    lines = [*request.fields(), *Signer(KEY, "cn-hangzhou").fields(request, NOON)]
    computed, claimed, _ = received_signature(
        method="GET", target=request.target, lines=lines, secret="secret"
    )
    assert computed == claimed


@PROPERTY
@given(query=pairs, headers=acs_headers, other=any_text.filter(bool), data=st.data())
def test_any_change_of_a_signed_part_changes_the_signature(query, headers, other, data):
    request = a_request(target=target_of([*query.items()]), headers=Headers(headers))
    changes = {
        "method": lambda: signature(replace(request, method="PUT")),
        "path": lambda: signature(replace(request, target=request.target.replace("/p", "/q", 1))),
        "host": lambda: signature(replace(request, origin=Origin("https", "other", 443))),
        "port": lambda: signature(replace(request, origin=replace(ORIGIN, port=444))),
        "new pair": lambda: signature(
            replace(request, target=target_of([*query.items(), ("new" + "".join(query), other)]))
        ),
        "new header": lambda: signature(replace(request, headers=request.headers.merged({"x-acs-new": "1"}))),
        "date": lambda: signature(request, now=NOON + 1),
        "region": lambda: signature(request, region="cn-beijing"),
        "secret": lambda: signature(request, key=replace(KEY, access_key_secret=Secret("other"))),
        "token": lambda: signature(request, key=TEMPORARY),
    }
    if query:
        name = data.draw(st.sampled_from(sorted(query)))
        changed = {**query, name: query[name] + other}
        changes["query value"] = lambda: signature(replace(request, target=target_of([*changed.items()])))
        less = {key: value for key, value in query.items() if key != name}
        changes["pair removed"] = lambda: signature(replace(request, target=target_of([*less.items()])))
    if headers:
        name = data.draw(st.sampled_from(sorted(headers)))
        changes["header value"] = lambda: signature(
            replace(request, headers=request.headers.merged({name: headers[name] + "x"}))
        )
    before = signature(request)
    assert {what: change() for what, change in changes.items() if change() == before} == {}


@FEWER
@given(st.lists(st.floats(NOON - 3 * DAY, NOON + 3 * DAY), max_size=12))
def test_a_kept_key_never_shows_in_the_result(times):
    signer = Signer(TEMPORARY, "cn-hangzhou")
    assert [signer.fields(a_request(), now) for now in times] == [
        Signer(TEMPORARY, "cn-hangzhou").fields(a_request(), now) for now in times
    ]
