"""Faults as values: how they are written, whom they befall, what they do to an answer."""

from __future__ import annotations

import pytest

from agentrun_transports.emulator import Fault, Faults
from agentrun_transports.emulator.faults import parse_fault
from agentrun_transports.emulator.messages import Refusal

ROOT = "/2025-09-10/agents/resources"


@pytest.mark.parametrize(
    ("text", "fault", "times"),
    [
        ("delay=0.5", Fault(delay=0.5), None),
        ("delay=3600", Fault(delay=3600), None),
        ("status=503; retry-after=1", Fault(status=503, retry_after="1"), None),
        (
            "status=429;retry-after=Fri, 06 Mar 2026 12:00:00 GMT",
            Fault(status=429, retry_after="Fri, 06 Mar 2026 12:00:00 GMT"),
            None,
        ),
        ("status=503; retry-after=-1e400", Fault(status=503, retry_after="-1e400"), None),
        ("status=307; location=http://x/?a=b", Fault(status=307, location="http://x/?a=b"), None),
        ("drop", Fault(drop=True), None),
        ("drop-before; times=1", Fault(drop_before=True), 1),
        ("cut=0", Fault(cut=0), None),
        (" cut=100 ; delay=1 ;times=20", Fault(cut=100, delay=1), 20),
        ("expired-token", Fault(expired_token=True), None),
        ("slow=1000", Fault(slow=1000), None),
        ("pace=0.25; after=0; then=stall", Fault(pace=0.25, then="stall"), None),
        ("after=3; then=cut", Fault(after=3, then="cut"), None),
        ("then=error; after=3; times=2", Fault(after=3, then="error"), 2),
        ("wrong-range=ignored", Fault(wrong_range="ignored"), None),
        ("wrong-range=shifted; wrong-checksum", Fault(wrong_range="shifted", wrong_checksum=True), None),
    ],
    ids=range(17),
)
def test_what_may_be_written(text, fault, times):
    assert parse_fault(text) == (fault, times)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "delay",
        "delay=",
        "delay=-1",
        "delay=nan",
        "delay=1e3",
        "delay=3601",
        "status=200",
        "status=399",
        "status=307",
        "status=304; location=/x",
        "status=503; location=/x",
        "status=307; location=",
        "location=/x",
        "status=600",
        "status=5xx",
        "retry-after=1",
        "status=503; retry-after=",
        "drop=1",
        "drop; drop",
        "cut=-1",
        "cut=x",
        "times=2",
        "drop; times=0",
        "drop; times=x",
        "drop;",
        "Drop",
        "slow=0",
        "slow",
        "pace=x",
        "pace=3601",
        "after=1",
        "then=cut",
        "after=1; then=drop",
        "after=-1; then=cut",
        "wrong-range",
        "wrong-range=other",
        "wrong-checksum=1",
    ],
)
def test_what_may_not(ask, text):
    with pytest.raises(Refusal, match="status=503; retry-after=1; times=2"):
        parse_fault(text)
    answer = ask("GET", ROOT, headers={"x-emulator-fault": text})
    assert (answer.status, answer.json()["code"]) == (400, "ERR_BAD_REQUEST")
    assert "x-emulator-fault" in answer.json()["message"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"delay": -1},
        {"delay": float("nan")},
        {"delay": float("inf")},
        {"status": 200},
        {"retry_after": "1"},
        {"status": 503, "retry_after": "1\r\nX: y"},
        {"status": 307, "location": "/\r\nX: y"},
        {"status": 503, "location": "/"},
        {"cut": -1},
        {"pace": -1},
        {"pace": float("nan")},
        {"slow": 0},
        {"after": 1},
        {"after": -1, "then": "cut"},
    ],
    ids=range(15),
)
def test_a_fault_checks_itself(settings):
    with pytest.raises(ValueError):
        Fault(**settings)


@pytest.mark.parametrize(
    ("match", "fits", "misses"),
    [
        ("", [("GET", "/a"), ("POST", "/")], []),
        ("GET", [("GET", "/a")], [("POST", "/a")]),
        ("get /a", [("GET", "/a"), ("GET", "/a/b")], [("GET", "/"), ("PUT", "/a")]),
        ("/a", [("GET", "/a"), ("PUT", "/ab")], [("GET", "/b/a")]),
    ],
)
def test_whom_a_planned_fault_befalls(match, fits, misses):
    faults = Faults()
    fault = Fault(drop=True)
    faults.add(fault, count=None, match=match)
    assert all(faults.take(method, path, None) is fault for method, path in fits)
    assert all(faults.take(method, path, None) is None for method, path in misses)
    faults.clear()
    assert all(faults.take(method, path, None) is None for method, path in fits)


def test_planned_faults_are_used_up_in_order():
    faults = Faults()
    first, second = Fault(cut=1), Fault(cut=2)
    faults.add(first, count=2, match="GET /a")
    faults.add(second)
    took = [faults.take("GET", path, None) for path in ("/a", "/b", "/a", "/a")]
    assert took == [first, second, first, None]


@pytest.mark.parametrize("match", ["GET a", "GET  x/a", "G3T /a", "a/b"])
def test_a_match_that_is_none(match):
    with pytest.raises(ValueError, match="METHOD"):
        Faults().add(Fault(drop=True), match=match)


def test_a_count_below_one():
    with pytest.raises(ValueError, match="count"):
        Faults().add(Fault(drop=True), count=0)


def test_times_counts_each_text_by_itself(ask):
    def status(text):
        return ask("GET", ROOT, headers={"x-emulator-fault": text}).status

    assert [status("status=503; times=2") for _ in range(4)] == [503, 503, 200, 200]
    assert [status("status=500; times=1") for _ in range(2)] == [500, 200]
    ask.service.faults.clear()
    assert status("status=503; times=2") == 503


def test_counts_are_bounded():
    faults = Faults()
    for number in range(1, 1001):
        faults.take("GET", "/", f"cut={number}; times=1")
    assert faults.take("GET", "/", "cut=1; times=1") is None
    faults.take("GET", "/", "cut=1001; times=1")
    assert faults.take("GET", "/", "cut=1; times=1") == Fault(cut=1)


def test_effects_come_as_values(ask):
    answer = ask("GET", ROOT, headers={"x-emulator-fault": "delay=2; cut=5"})
    assert (answer.status, answer.delay, answer.cut_after, answer.drop, answer.drop_next) == (
        200,
        2.0,
        5,
        False,
        False,
    )
    assert ask("GET", ROOT, headers={"x-emulator-fault": "drop"}).drop
    assert ask("GET", ROOT, headers={"x-emulator-fault": "drop-before"}).drop_next
    answer = ask("GET", ROOT, headers={"x-emulator-fault": "slow=9; pace=3; after=4; then=error"})
    assert (answer.rate, answer.pace, answer.events_before, answer.ending) == (9, 3.0, 4, "error")
    plain = ask("GET", ROOT)
    assert (plain.rate, plain.pace, plain.ending) == (None, 0.0, None)
    assert (plain.delay, plain.cut_after, plain.drop, plain.drop_next) == (0.0, None, False, False)


def test_a_dropped_request_has_been_carried_out_a_refused_one_has_not(ask):
    for fault, there in (
        ("drop", 1),
        ("cut=0", 2),
        ("status=503", 2),
        ("status=307; location=/", 2),
        ("expired-token", 2),
    ):
        assert ask("POST", ROOT, {}, headers={"x-emulator-fault": fault})
        assert ask.data("GET", ROOT)["total"] == there


def test_a_status_with_its_envelope(ask):
    answer = ask("GET", ROOT, headers={"x-emulator-fault": "status=503; retry-after=7; delay=1"})
    assert (answer.header("Retry-After"), answer.delay) == ("7", 1.0)
    assert ask.refused("GET", ROOT, headers={"x-emulator-fault": "status=429"}) == (
        429,
        "ERR_TOO_MANY_REQUESTS",
    )
    assert ask.refused("GET", ROOT, headers={"x-emulator-fault": "status=418"}) == (418, "ERR_HTTP_418")


def test_a_redirect_says_where_to(ask):
    answer = ask("GET", ROOT, headers={"x-emulator-fault": "status=308; location=http://127.0.0.1:1/x?y=1"})
    assert (answer.status, answer.header("Location")) == (308, "http://127.0.0.1:1/x?y=1")
    assert answer.header("Retry-After") is None


def test_a_gateways_answer_is_html(ask):
    answer = ask("GET", ROOT, headers={"x-emulator-fault": "status=502"})
    assert (answer.status, answer.header("Content-Type")) == (502, "text/html")
    assert answer.body.startswith(b"<html>")


def test_an_expired_credential(ask, signer):
    fault = {"x-emulator-fault": "expired-token"}
    assert ask.refused("GET", ROOT, headers=fault) == (401, "ERR_TOKEN_EXPIRED")
    signed = {**signer.agentrun4("GET", ROOT), **fault}
    assert ask.refused("GET", ROOT, headers=signed) == (403, "InvalidSecurityToken.Expired")


def test_planned_in_the_service(ask):
    ask.service.faults.add(Fault(status=500), count=1, match=f"POST {ROOT}")
    assert ask("GET", ROOT).status == 200
    assert ask("POST", ROOT, {}).status == 500
    assert ask("POST", ROOT, {}).status == 200
