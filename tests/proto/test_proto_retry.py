"""What is tried again: every failure against every kind of request, how long the pause is, what it costs.

Rules of this file: what is expected stands in tables that were written from RFC 9110 and from the issue, not
worked out by the code under test; a verdict is read off the flow: it asks for chance for its pause, or it
raises.
"""

from __future__ import annotations

import math
from email.utils import formatdate
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentrun_proto
from agentrun_proto import (
    AgentRunClientError,
    Body,
    BodyError,
    Config,
    ConnectError,
    ConnectTimeout,
    CredentialError,
    DataEndpoint,
    DecodeError,
    FileError,
    Head,
    Headers,
    IncompleteError,
    PoolTimeout,
    ProtocolError,
    RandomBytes,
    ReadAll,
    ReadTimeout,
    Request,
    Retry,
    Rewind,
    Send,
    ServiceUnavailableError,
    Sleep,
    StatusError,
    TimeoutExceeded,
    TLSError,
    TransportError,
    WriteTimeout,
)
from agentrun_proto.errors import error_class
from agentrun_proto.retry import (
    LONGEST_PAUSE,
    Outcome,
    RetryQuota,
    is_stale,
    may_repeat,
    outcome_of,
    pause,
)
from proto_strategies import NOON, PROPERTY, ByHand, FakeClock, FakeSource

# --- the table

NOT_SENT, REJECTED, AMBIGUOUS, FINAL = Outcome.NOT_SENT, Outcome.REJECTED, Outcome.AMBIGUOUS, Outcome.FINAL

# Every status not named here is final.
STATUSES = {408: REJECTED, 429: REJECTED, 503: REJECTED, 500: AMBIGUOUS, 502: AMBIGUOUS, 504: AMBIGUOUS}
REFUSALS = [*range(100, 104), *range(300, 310), *range(400, 600)]

# Every class that a driver may throw in, or a flow raise itself.
CLASSES: dict[type[AgentRunClientError], Outcome] = {
    ConnectError: NOT_SENT,
    ConnectTimeout: NOT_SENT,
    TLSError: FINAL,
    PoolTimeout: FINAL,
    TimeoutExceeded: FINAL,
    ReadTimeout: AMBIGUOUS,
    WriteTimeout: AMBIGUOUS,
    IncompleteError: AMBIGUOUS,
    ProtocolError: FINAL,
    BodyError: FINAL,
    TransportError: FINAL,
    DecodeError: FINAL,
    FileError: FINAL,
    CredentialError: FINAL,
    AgentRunClientError: FINAL,
}

# RFC 9110, 9.2.2.
IDEMPOTENT = {
    "GET": True, "HEAD": True, "PUT": True, "DELETE": True, "OPTIONS": True, "TRACE": True,
    "POST": False, "PATCH": False,
}  # fmt: skip

# How a caller may promise what the method does not.
PROMISES: dict[str, tuple[bool, dict[str, str], bool]] = {  # (idempotent=, headers, is it one?)
    "plain": (False, {}, False),
    "said so": (True, {}, True),
    "keyed": (False, {"Idempotency-Key": "k1"}, True),
}


class AnySource(FakeSource):
    """A source of either kind."""

    def __init__(self, replayable: bool) -> None:
        super().__init__(5)
        self.replayable = replayable


BODIES = {
    "none": (lambda: Body(), True),
    "bytes": (lambda: Body(segments=(b"12345",), length=5), True),
    "replayable": (lambda: Body(segments=(b"[", AnySource(True), b"]"), length=7), True),
    "one-shot": (lambda: Body(segments=(AnySource(True), AnySource(False)), length=10), False),
}

# Outcome -> whether the request goes out again, where (it is idempotent or promised so).
AGAIN = {
    NOT_SENT: {True: True, False: True},
    REJECTED: {True: True, False: True},
    AMBIGUOUS: {True: True, False: False},
    FINAL: {True: False, False: False},
}

KINDS = list(product(IDEMPOTENT, BODIES, PROMISES))


def expected(outcome: Outcome, method: str, body: str, promise: str) -> bool:
    return BODIES[body][1] and AGAIN[outcome][IDEMPOTENT[method] or PROMISES[promise][2]]


def test_the_tables_leave_nothing_out():
    public = {value for value in vars(agentrun_proto).values() if isinstance(value, type)}
    errors = {kind for kind in public if issubclass(kind, AgentRunClientError)}
    assert {kind for kind in errors if not issubclass(kind, StatusError)} == set(CLASSES)
    assert len(REFUSALS) == 214
    assert set(range(400, 600)) | STATUSES.keys() <= set(REFUSALS)
    assert set(IDEMPOTENT) == {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "POST", "PATCH"}
    assert len(KINDS) == 8 * 4 * 3


AT = DataEndpoint(Config(data_endpoint="http://h"))
REQUESTS = {
    kind: Request(
        method=kind[0],
        origin=AT.origin,
        target="/x",
        headers=Headers(PROMISES[kind[2]][1]),
        body=BODIES[kind[1]][0](),
        repeatable=PROMISES[kind[2]][0],
    )
    for kind in KINDS
}


def repeated(failed: ByHand, request: Request) -> bool:
    """What became of a failure: whether the request went out again, just as it was."""
    assert type(failed.command) is RandomBytes
    sleep = failed.answer(b"\x80" + bytes(5)).command
    assert type(sleep) is Sleep
    again = failed.answer(None).command
    if request.body.sources:
        assert type(again) is Rewind
        assert again.body is request.body
        again = failed.answer(None).command
    assert type(again) is Send
    assert again.request == request
    failed.close()
    return True


@pytest.mark.parametrize("status", REFUSALS)
def test_every_status_against_every_kind_of_request(status):
    outcome = STATUSES.get(status, FINAL)
    assert outcome_of(error_class(status)("x", status_code=status)) is outcome
    for kind in KINDS:
        request = REQUESTS[kind]
        step = ByHand(AT.call(request, clock=FakeClock())).answer(Head(status=status))
        assert type(step.command) is ReadAll
        if expected(outcome, *kind):
            assert repeated(step.answer(b""), request), kind
        else:
            with pytest.raises(error_class(status)):
                step.answer(b"")
        assert may_repeat(outcome, request) is expected(outcome, *kind)
        AT.standing.quota.earn(500)


@pytest.mark.parametrize("where", ["send", "read"])
@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_failure_against_every_kind_of_request(error, where):
    outcome = CLASSES[error]
    assert outcome_of(error("x")) is outcome
    for kind in KINDS:
        request = REQUESTS[kind]
        step = ByHand(AT.call(request, clock=FakeClock()))
        if where == "read":
            step.answer(Head(status=200))
        thrown = error("x")
        if expected(outcome, *kind):
            assert repeated(step.fail(thrown), request), kind
        else:
            with pytest.raises(error) as caught:
                step.fail(thrown)
            if not (where == "read" and error is DecodeError):
                assert caught.value is thrown
        AT.standing.quota.earn(500)


@pytest.mark.parametrize("status", [204, 200, 206, 299])
def test_a_success_is_never_repeated(status):
    step = ByHand(AT.call(REQUESTS["GET", "none", "plain"], clock=FakeClock())).answer(Head(status=status))
    assert step.answer(b"").result == {}


# (status, the service's own code, whether it says that a credential has ended)
STALE = [
    (401, None, True),
    (401, "ERR_FORBIDDEN", True),
    (403, None, False),
    (403, "ERR_FORBIDDEN", False),
    (403, "InvalidSecurityToken", True),
    (403, "InvalidSecurityToken.Expired", True),
    (403, "InvalidSecurityToken.Malformed", True),
    (403, "SecurityTokenExpired", True),
    (403, "ERR_TOKEN_EXPIRED", True),
    (403, "AccessKeyExpired", True),
    (403, "ERR_TOKEN_INVALID", False),
    (403, "InvalidSecurity", False),
    (403, "SignatureDoesNotMatch", False),
    (403, "NoPermission", False),
    (400, "InvalidSecurityToken", False),
    (404, "SecurityTokenExpired", False),
    (503, "ERR_TOKEN_EXPIRED", False),
]


@pytest.mark.parametrize(("status", "code", "stale"), STALE)
def test_which_refusals_say_that_a_credential_has_ended(status, code, stale):
    assert is_stale(error_class(status)("x", status_code=status, error_code=code)) is stale


# --- the pause


@pytest.mark.parametrize(
    ("failures", "chance", "retry_after", "seconds"),
    [
        (1, 0.0, None, 0.0),
        (1, 0.5, None, 0.5),
        (1, 1.0, None, 1.0),
        (2, 1.0, None, 2.0),
        (3, 0.25, None, 1.0),
        (5, 1.0, None, 16.0),
        (6, 1.0, None, 20.0),
        (7, 0.5, None, 10.0),
        (64, 1.0, None, 20.0),
        (5000, 1.0, None, 20.0),
        (1, 0.5, 0.25, 0.5),
        (1, 0.5, 0.75, 0.75),
        (9, 1.0, 20.5, 20.5),
        (1, 0.0, 0.0, 0.0),
    ],
)
def test_the_pause_row_by_row(failures, chance, retry_after, seconds):
    assert pause(Retry(), failures, chance, retry_after) == seconds


@PROPERTY
@given(
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.integers(1, 63),
    st.floats(0, 1),
    st.none() | st.floats(0, 1e6),
)
def test_law_full_jitter_truncated_and_never_less_than_asked_for(backoff, most, failures, chance, asked):
    drawn = pause(Retry(backoff=backoff, max_backoff=most), failures, chance, asked)
    assert drawn == max(chance * min(most, backoff * 2 ** (failures - 1)), asked or 0)
    assert 0 <= drawn < math.inf


@pytest.mark.parametrize("failures", [64, 65, 5000])
def test_no_backoff_stays_none(failures):
    assert pause(Retry(backoff=0), failures, 1.0, None) == 0


def a_refused_call(retry: Retry | None = None, head: Head | None = None, **config: Any) -> ByHand:
    """A call up to the chance for its first pause."""
    at = DataEndpoint(Config(data_endpoint="http://h", retry=retry, **config))
    step = ByHand(at.call(at.request("GET", "x"), clock=FakeClock()))
    return step.answer(head or Head(status=503)).answer(b"")


@pytest.mark.parametrize(
    ("drawn", "seconds"),
    [
        (b"\0\0\0\0\0\1", 1 / 2**48),
        (b"\x40\0\0\0\0\0", 0.25),
        (b"\x80\0\0\0\0\0", 0.5),
        (b"\xff" * 6, 1 - 1 / 2**48),
    ],
)
def test_the_chance_is_the_drivers(drawn, seconds):
    step = a_refused_call()
    assert step.command.size == 6
    assert step.answer(drawn).command.seconds == seconds


def test_no_pause_is_no_command():
    assert type(a_refused_call().answer(bytes(6)).command) is Send


def test_the_ceiling_doubles_with_each_failure_up_to_the_cap():
    at = DataEndpoint(Config(data_endpoint="http://h", retry=Retry(attempts=7, backoff=0.5, max_backoff=5.0)))
    step = ByHand(at.call(at.request("POST", "x"), clock=FakeClock()))
    pauses = []
    for _ in range(6):
        step.fail(ConnectError("x")).answer(b"\x80" + bytes(5))
        pauses.append(step.command.seconds)
        step.answer(None)
    assert pauses == [0.25, 0.5, 1.0, 2.0, 2.5, 2.5]
    with pytest.raises(ConnectError) as caught:
        step.fail(ConnectError("x"))
    assert len(caught.value.attempts) == 7
    assert "after 7 attempts" in str(caught.value)


# Chance is one half everywhere below, so that a pause of 0.5 s is drawn.
@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "0"}, 0.5),
        ({"Retry-After": formatdate(NOON + 7, usegmt=True), "Date": formatdate(NOON, usegmt=True)}, 7.0),
        # relative to the service's own clock, however wrong
        ({"Retry-After": formatdate(90007, usegmt=True), "Date": formatdate(90000, usegmt=True)}, 7.0),
        ({"Retry-After": formatdate(NOON - 7, usegmt=True), "Date": formatdate(NOON, usegmt=True)}, 0.5),
        ({"Retry-After": formatdate(NOON + 7, usegmt=True)}, 0.5),
        ({"Retry-After": formatdate(NOON + 7, usegmt=True), "Date": "junk"}, 0.5),
        ({"Retry-After": "soon"}, 0.5),
        ({"Retry-After": "-5"}, 0.5),
        ({"Retry-After": "1e400"}, 0.5),
        ({"Retry-After": "-1e400"}, 0.5),
        ({"Retry-After": "1.5"}, 0.5),
        ({"Retry-After": ""}, 0.5),
        ({"Retry-After": "nan"}, 0.5),
        ({"Retry-After": "600"}, 600.0),
    ],
)
@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_retry_after_is_the_least(status, fields, seconds):
    step = a_refused_call(head=Head(status=status, headers=Headers(fields)), timeout=1e6)
    assert step.answer(b"\x80" + bytes(5)).command.seconds == seconds


@pytest.mark.hostile("answers-retry-after")
@pytest.mark.parametrize(
    "asked",
    [
        {"Retry-After": "601"},
        {"Retry-After": "86400"},
        {"Retry-After": "9" * 15},
        {"Retry-After": formatdate(NOON + 601, usegmt=True), "Date": formatdate(NOON, usegmt=True)},
    ],
)
@pytest.mark.parametrize("timeout", [1e6, math.inf])
def test_nobody_waits_longer_than_the_longest_pause(asked, timeout):
    assert LONGEST_PAUSE == 600
    step = a_refused_call(head=Head(status=429, headers=Headers(asked)), timeout=timeout)
    with pytest.raises(
        AgentRunClientError, match=r"not tried again: a pause of [\d.e+]{1,8} s is too"
    ) as caught:
        step.answer(bytes(6))
    assert caught.value.retry_after > 600
    assert caught.value.status_code == 429


def test_why_it_is_not_tried_again_is_said_after_what_the_service_says():
    head = Head(status=503, headers=Headers({"Retry-After": "7"}))
    at = DataEndpoint(Config(data_endpoint="http://h", timeout=5))
    step = ByHand(at.call(at.request("GET", "x"), clock=FakeClock())).answer(head)
    step.answer(b'{"message": "Too busy."}')
    with pytest.raises(ServiceUnavailableError) as caught:
        step.answer(bytes(6))
    assert caught.value.message == "Too busy; not tried again: the pause of 7 s would outlast the call"


@pytest.mark.parametrize(
    ("timeout", "asked", "waits"),
    [(5, "4", True), (5, "5", False), (5, "6", False), (0.25, "0", False), (0.51, "0", True)],
)
def test_a_pause_that_would_outlast_the_call_fails_at_once(timeout, asked, waits):
    head = Head(status=503, headers=Headers({"Retry-After": asked}))
    step = a_refused_call(head=head, timeout=timeout)
    if waits:
        assert step.answer(b"\x80" + bytes(5)).command.seconds == max(float(asked), 0.5)
    else:
        with pytest.raises(ServiceUnavailableError, match=r"not tried again: the pause of .* s") as caught:
            step.answer(b"\x80" + bytes(5))
        assert len(caught.value.attempts) == 1
        assert "not tried" not in caught.value.attempts[0]


# --- the quota


def test_the_numbers_of_the_quota():
    """botocore's standard mode: 500 tokens, 5 for a retry, 10 after a timeout."""
    at = DataEndpoint(Config(data_endpoint="http://h"))
    quota = at.standing.quota
    request = at.request("GET", "x")

    def after(*failures: AgentRunClientError) -> tuple[int, int]:
        """What is left after the failures, and after the success that follows."""
        step = ByHand(at.call(request, clock=FakeClock()))
        for failure in failures:
            step.fail(failure).answer(bytes(6))
        left = quota.left
        step.answer(Head(status=200)).answer(b"")
        assert step.done
        return left, quota.left

    assert quota.left == 500
    assert after() == (500, 500), "never more than it began with"
    assert after(ConnectError("x")) == (495, 500)
    assert after(IncompleteError("x")) == (495, 500)
    assert after(ReadTimeout("x")) == (490, 500)
    assert after(WriteTimeout("x")) == (490, 500)
    assert after(ConnectTimeout("x")) == (490, 500)
    assert after(ReadTimeout("x"), ConnectError("x")) == (485, 490), "what the last retry cost comes back"
    assert after() == (490, 491), "a success without a retry earns 1"
    quota.left = 3
    assert after() == (3, 4)


def test_a_quota_that_is_used_up_is_told_and_refilled_by_success():
    at = DataEndpoint(Config(data_endpoint="http://h", retry=Retry(attempts=2)))
    request = at.request("GET", "x")
    for number in range(110):
        step = ByHand(at.call(request, clock=FakeClock()))
        with pytest.raises(ConnectError) as caught:
            step.fail(ConnectError("x")).answer(bytes(6)).fail(ConnectError("y"))
        exhausted = number >= 100
        assert ("retry quota" in str(caught.value)) is exhausted
        assert len(caught.value.attempts) == (1 if exhausted else 2)
        assert at.standing.quota.left == max(0, 500 - 5 * (number + 1))
    for _ in range(5):
        assert ByHand(at.call(request, clock=FakeClock())).answer(Head(status=200)).answer(b"").done
    again = ByHand(at.call(request, clock=FakeClock())).fail(ConnectError("x")).answer(bytes(6))
    assert type(again.command) is Send
    assert at.standing.quota.left == 0
    with pytest.raises(ReadTimeout, match="retry quota"):
        ByHand(at.call(request, clock=FakeClock())).fail(ReadTimeout("x")).answer(bytes(6))


def test_what_is_no_retry_costs_nothing():
    at = DataEndpoint(Config(data_endpoint="http://h", retry=Retry(attempts=2)))
    step = ByHand(at.call(at.request("GET", "x"), clock=FakeClock()))
    for _ in range(2):
        step.answer(Head(status=302, headers=Headers({"Location": "/y"}))).answer(b"")
        assert at.standing.quota.left == 500
    with pytest.raises(AgentRunClientError):
        step.answer(Head(status=404)).answer(b"")
    assert at.standing.quota.left == 500
    too_late = ByHand(at.call(at.request("GET", "x"), clock=FakeClock()))
    too_late.answer(Head(status=503, headers=Headers({"Retry-After": "9999"}))).answer(b"")
    with pytest.raises(ServiceUnavailableError):
        too_late.answer(bytes(6))
    assert at.standing.quota.left == 500, "a retry that is not made is not paid for"


def test_one_quota_for_all_calls_of_an_endpoint_and_of_its_overlays():
    at = DataEndpoint(Config(data_endpoint="http://h"))
    same = at.overlaid(Config(timeout=5, retry=Retry(attempts=9), headers={"a": "b"}))
    assert same.standing is at.standing
    assert at.overlaid(Config(data_endpoint="http://h/base")).standing is at.standing
    assert at.overlaid(Config(data_endpoint="http://other")).standing is not at.standing
    assert DataEndpoint(at.config).standing is not at.standing


@PROPERTY
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0, 5, 10])), max_size=300))
def test_law_the_quota_stays_between_nothing_and_all(steps):
    quota = RetryQuota()
    for takes, cost in steps:
        before = quota.left
        if takes:
            assert quota.take(cost) is (before >= cost)
            assert quota.left == (before - cost if before >= cost else before)
        else:
            quota.earn(cost)
            assert quota.left == min(500, before + max(cost, 1))
        assert 0 <= quota.left <= 500


# --- one attempt, and the limits of a call


def test_never_is_one_attempt():
    assert Retry.never() == Retry(attempts=1)
    for failure in (ConnectError("x"), IncompleteError("x")):
        at = DataEndpoint(Config(data_endpoint="http://h", retry=Retry.never()))
        with pytest.raises(type(failure)) as caught:
            ByHand(at.call(at.request("GET", "x"), clock=FakeClock())).fail(failure)
        assert caught.value.attempts == ("x",)
        assert str(caught.value) == "x", "one attempt is not worth a word"


def test_three_attempts_are_the_default():
    at = DataEndpoint(Config(data_endpoint="http://h"))
    step = ByHand(at.call(at.request("POST", "x"), clock=FakeClock()))
    for _ in range(2):
        step.fail(ConnectError("x")).answer(bytes(6))
        assert type(step.command) is Send
    with pytest.raises(ConnectError, match=r"last \(after 3 attempts\)") as caught:
        step.fail(ConnectError("last"))
    assert caught.value.attempts == ("x", "x", "last")
