"""The emulator's check of signatures, against the published vectors and against every way to spoil them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agentrun_transports.emulator import Account, Request
from agentrun_transports.emulator.messages import Refusal
from agentrun_transports.emulator.verify import canonical_query, verify_acs3, verify_agentrun4

DATA = Path(__file__).parent.parent / "data"
AGENTRUN4 = json.loads((DATA / "agentrun4_vectors.json").read_text("utf-8"))["cases"]
ACS3 = json.loads((DATA / "acs3_vectors.json").read_text("utf-8"))["cases"]


def seconds(date):
    return datetime.fromisoformat(date.replace("Z", "+00:00")).timestamp()


def accounts_of(case, token):
    account = Account(
        access_key_id=case["access_key_id"], access_key_secret=case["access_key_secret"], security_token=token
    )
    return {account.access_key_id: account}


def request_of(case):
    parts = urlsplit(case["url"])
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    # The signature covers content-type where the case asks for it; elsewhere it is not sent at all.
    return Request(method=case["method"], target=target, headers=tuple(case["headers"].items()))


def check(case, request, **changes):
    settings = {"region": case["region"], "now": seconds(case["time"]), **changes}
    return verify_agentrun4(request, accounts_of(case, case["security_token"]), **settings)


def refused(case, request, **changes):
    with pytest.raises(Refusal) as caught:
        check(case, request, **changes)
    assert caught.value.status == 403
    if case["access_key_secret"] != "secret":  # the word stands in the advice
        assert case["access_key_secret"] not in caught.value.message
    return caught.value.message


def with_field(request, name, change):
    return replace(
        request, headers=tuple((n, change(v)) if n.lower() == name else (n, v) for n, v in request.headers)
    )


@pytest.mark.parametrize("case", AGENTRUN4, ids=range(len(AGENTRUN4)))
def test_vector_is_accepted(case):
    assert check(case, request_of(case)).access_key_id == case["access_key_id"]


@pytest.mark.parametrize("case", AGENTRUN4[:12], ids=range(12))
def test_any_change_of_a_signed_part_is_refused(case):
    request = request_of(case)
    path, mark, query = request.target.partition("?")
    wrong = "The signature does not match"
    assert wrong in refused(case, replace(request, method="HEAD"))
    assert wrong in refused(case, replace(request, target=f"{path}x{mark}{query}"))
    assert wrong in refused(case, replace(request, target=f"{path}?{query}&extra=1"))
    assert wrong in refused(case, with_field(request, "host", lambda v: f"x{v}"))
    later = case["time"][:-3] + ("00Z" if case["time"][-3:] != "00Z" else "01Z")
    assert wrong in refused(case, with_field(request, "x-acs-date", lambda v: later))
    assert "UNSIGNED-PAYLOAD" in refused(
        case, with_field(request, "x-acs-content-sha256", lambda v: "0" * 64)
    )
    name = "agentrun-authorization"
    assert wrong in refused(
        case, with_field(request, name, lambda v: v[:-1] + ("0" if v[-1] != "0" else "1"))
    )
    assert "region" in refused(case, request, region="us-east-1")
    assert "product" in refused(
        case, with_field(request, name, lambda v: v.replace("/agentrun/", "/agentrum/"))
    )
    assert "unknown" in refused(
        case, with_field(request, name, lambda v: v.replace("Credential=", "Credential=x"))
    )
    assert "form" in refused(case, with_field(request, name, lambda v: v.replace("v4_request", "v3_request")))
    assert "form" in refused(case, with_field(request, name, str.lower))
    if request.header("content-type"):
        assert wrong in refused(case, with_field(request, "content-type", lambda v: "text/plain"))
    if case["security_token"]:
        assert "token" in refused(case, with_field(request, "x-acs-security-token", lambda v: v + "x"))


@pytest.mark.parametrize("name", ["host", "x-acs-date", "x-acs-content-sha256", "x-acs-security-token"])
def test_what_must_be_signed(name):
    case = next(case for case in AGENTRUN4 if case["security_token"])
    request = request_of(case)

    def unsign(value):
        return value.replace(f"{name};", "").replace(f";{name}", "")

    assert "must include" in refused(case, with_field(request, "agentrun-authorization", unsign))
    assert "came 0 times" in refused(
        case, replace(request, headers=tuple(f for f in request.headers if f[0].lower() != name))
    )
    double = replace(request, headers=(*request.headers, (name.title(), request.header(name))))
    assert "came 2 times" in refused(case, double)


def test_every_x_acs_field_must_be_signed(signer, fixed_now):
    fields = signer.agentrun4("GET", "/")
    case = {"access_key_id": "emulator-id", "access_key_secret": "emulator-secret", "security_token": None}
    case |= {"region": "cn-hangzhou", "time": "2026-03-06T12:00:00Z"}
    request = Request(method="GET", target="/", headers=tuple(fields.items()))
    check(case, request)
    assert "x-acs-more" in refused(case, replace(request, headers=(*request.headers, ("X-Acs-More", "1"))))
    # Signed, it is welcome; so is any other field.
    fields = signer.agentrun4("GET", "/", extra={"x-acs-more": "1", "accept": "*/*"})
    check(case, Request(method="GET", target="/", headers=tuple(fields.items())))


def test_list_of_signed_fields_is_sorted_and_unique(signer):
    case = AGENTRUN4[0]
    request = request_of(case)
    for names in ("x-acs-date;x-acs-content-sha256;host", "host;host;x-acs-content-sha256;x-acs-date"):
        change = with_field(
            request,
            "agentrun-authorization",
            lambda v, names=names: v.replace("host;x-acs-content-sha256;x-acs-date", names),
        )
        assert "sorted" in refused(case, change)


def test_authorization_comes_once():
    case = AGENTRUN4[0]
    request = request_of(case)
    twice = replace(request, headers=(*request.headers, request.headers[-1]))
    assert "came 2 times" in refused(case, twice)


@pytest.mark.parametrize(("off", "fits"), [(0, True), (900, True), (-900, True), (901, False), (-901, False)])
def test_window_of_fifteen_minutes(off, fits):
    case = AGENTRUN4[0]
    now = seconds(case["time"]) - off
    if fits:
        check(case, request_of(case), now=now)
    else:
        way = "ahead of" if off > 0 else "behind"
        assert f"901 s {way}" in refused(case, request_of(case), now=now)


@pytest.mark.parametrize(
    "date",
    [
        "",
        "now",
        "2026-03-06 12:00:00",
        "2026-03-06T12:00:00+00:00",
        "2026-02-30T12:00:00Z",
        "20260306T120000Z",
    ],
)
def test_malformed_date(date):
    case = AGENTRUN4[0]
    assert "x-acs-date must be" in refused(case, with_field(request_of(case), "x-acs-date", lambda v: date))


def test_scope_is_of_the_day_of_the_date(signer):
    fields = signer.agentrun4("GET", "/", scope_date="20260305")
    case = {"access_key_id": "emulator-id", "access_key_secret": "emulator-secret", "security_token": None}
    case |= {"region": "cn-hangzhou", "time": "2026-03-06T12:00:00Z"}
    request = Request(method="GET", target="/", headers=tuple(fields.items()))
    assert "20260305" in refused(case, request)


def test_temporary_key_needs_its_token_and_a_lasting_one_has_none():
    with_token = next(case for case in AGENTRUN4 if case["security_token"])
    without = AGENTRUN4[0]
    for case, token, word in ((without, "sts", "is missing"), (with_token, None, "does not belong")):
        with pytest.raises(Refusal, match=word):
            verify_agentrun4(
                request_of(case), accounts_of(case, token), region=case["region"], now=seconds(case["time"])
            )


@pytest.mark.parametrize("case", ACS3, ids=range(len(ACS3)))
def test_acs3_vector(case):
    target = f"{case['path']}?{case['canonical_query']}"
    fields = (*case["signed_headers"].items(), ("Authorization", case["authorization"]))
    request = Request(method=case["method"], target=target, headers=fields)
    token = case["signed_headers"].get("x-acs-security-token")
    settings = {"action": "GetAccessToken", "version": "2025-09-10"}
    settings["now"] = seconds(case["signed_headers"]["x-acs-date"])
    account, nonce = verify_acs3(request, b"", accounts_of(case, token), **settings)
    assert account.access_key_id == case["access_key_id"]
    assert nonce == case["signed_headers"]["x-acs-signature-nonce"]
    spoiled = [
        replace(request, target=target + "x"),
        with_field(request, "x-acs-signature-nonce", lambda v: v[::-1]),
        with_field(request, "accept", lambda v: "*/*"),
        with_field(request, "x-acs-content-sha256", lambda v: "0" * 64),
        with_field(request, "x-acs-version", lambda v: "2025-09-11"),
        with_field(request, "authorization", lambda v: v.replace("x-acs-action;", "")),
    ]
    for other in spoiled:
        with pytest.raises(Refusal):
            verify_acs3(other, b"", accounts_of(case, token), **settings)
    with pytest.raises(Refusal, match="SHA-256 of the body"):
        verify_acs3(request, b"body", accounts_of(case, token), **settings)
    assert canonical_query(target.partition("?")[2]) == case["canonical_query"]


@pytest.mark.parametrize(("named", "fits"), [("emulator-id", True), ("another-id", False)])
def test_acs3_may_name_its_key_once_more(signer, fixed_now, named, fits):
    fields = signer.acs3("GET", "/x?a=1", nonce="n", **{"x-acs-accesskey-id": named})
    request = Request(method="GET", target="/x?a=1", headers=tuple(fields.items()))
    account = Account(access_key_id="emulator-id", access_key_secret="emulator-secret")
    settings = {"action": "GetAccessToken", "version": "2025-09-10", "now": fixed_now}
    if fits:
        assert verify_acs3(request, b"", {"emulator-id": account}, **settings) == (account, "n")
    else:
        with pytest.raises(Refusal, match="name different access keys"):
            verify_acs3(request, b"", {"emulator-id": account}, **settings)


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("", ""),
        ("&&", ""),
        ("flag", "flag="),
        ("a=1&a=2", "a=2"),
        ("b=+&a=%2b%2B", "a=%2B%2B&b=%20"),
        ("a==&%C3%A9=~", "a=%3D&%C3%A9=~"),
        ("x=%FF", "x=%EF%BF%BD"),
        ("a?b=c?d", "a%3Fb=c%3Fd"),
    ],
)
def test_canonical_query(raw, canonical):
    assert canonical_query(raw) == canonical


def test_secrets_do_not_show():
    account = Account(access_key_id="id", access_key_secret="SECRET", security_token="TOKEN")
    assert "SECRET" not in repr(account)
    assert "TOKEN" not in repr(account)
