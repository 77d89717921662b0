"""The credential that is kept: when a new one is due, by an expiry that may be anything."""

from __future__ import annotations

import math
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun_proto import (
    AccessKey,
    AccessToken,
    Config,
    CredentialError,
    DataEndpoint,
    Refresh,
    Secret,
    Send,
    Timeout,
)
from agentrun_proto.credential_cache import CredentialCache, Due
from proto_strategies import NOON, PROPERTY, ByHand, FakeClock

ORDER = [Due.NO, Due.SOON, Due.NOW]
times = st.floats(-1e10, 1e10)
lives = st.floats(-1e7, 1e7)


def token(expires_at: float | None = None, text: str = "t") -> AccessToken:
    return AccessToken(token=Secret(text), expires_at=expires_at)


def kept(expires_at: float | None, now: float = 0.0) -> CredentialCache:
    cache = CredentialCache()
    cache.keep(token(expires_at), now)
    return cache


def test_what_is_not_there_is_due_at_once():
    cache = CredentialCache()
    assert cache.credential is None
    for now in (-math.inf, 0.0, NOON, math.inf):
        assert cache.look(now)[0] is Due.NOW
    cache.postpone(NOON)
    cache.refuse(token())
    assert cache.credential is None
    assert cache.look(NOON)[0] is Due.NOW


# Seconds of life -> from when on a new one is begun, and waited for. What lives long has the windows of
# botocore (15 and 10 minutes before the end); what lives shorter, a quarter and an eighth of its life; and
# what lives less than a minute, or not at all any more, serves for one all the same.
WINDOWS = [
    (43200.0, 42300.0, 42600.0),
    (7200.0, 6300.0, 6600.0),
    (4800.0, 3900.0, 4200.0),
    (3600.0, 2700.0, 3150.0),
    (900.0, 675.0, 787.5),
    (60.0, 45.0, 52.5),
    (59.0, 45.0, 52.5),
    (1.0, 45.0, 52.5),
    (0.0, 45.0, 52.5),
    (-3600.0, 45.0, 52.5),
]


@pytest.mark.parametrize(("life", "soon", "latest"), WINDOWS)
@pytest.mark.parametrize("now", [0.0, NOON, -5000.0])
def test_the_windows_row_by_row(now, life, soon, latest):
    cache = kept(now + life, now)
    for after, due in [
        (-1e6, Due.NO),
        (0.0, Due.NO),
        (soon - 0.001, Due.NO),
        (soon, Due.SOON),
        (latest - 0.001, Due.SOON),
        (latest, Due.NOW),
        (max(life, 60.0), Due.NOW),
        (1e9, Due.NOW),
    ]:
        assert cache.look(now + after)[0] is due, after


@PROPERTY
@given(times, lives, st.lists(st.floats(-1e8, 1e8), min_size=1, max_size=20))
def test_law_what_is_due_only_becomes_more_so(now, life, moments):
    cache = kept(now + life, now)
    dues = [ORDER.index(cache.look(now + moment)[0]) for moment in sorted(moments)]
    assert dues == sorted(dues)
    assert cache.look(now)[0] is Due.NO, "a new one serves for a while, whatever its expiry says"
    assert cache.look(now + 44.0)[0] is Due.NO
    assert cache.look(now + max(life, 60.0))[0] is Due.NOW, "and never past its end"


# Multiples of 8 s: all that is worked out from them is exact.
@PROPERTY
@given(st.integers(-(10**9), 10**10), st.integers(8, 10**6).map(lambda n: n * 8), st.floats(0, 1))
def test_law_a_refresh_is_begun_before_it_is_waited_for_and_both_before_the_end(now, life, part):
    cache = kept(float(now + life), float(now))
    soon, latest = now + life - min(900, life / 4), now + life - min(600, life / 8)
    assert now < soon < latest < now + life
    for beginning, end, due in [
        (now, soon, Due.NO),
        (soon, latest, Due.SOON),
        (latest, now + life, Due.NOW),
    ]:
        moment = beginning + part * (end - beginning)
        assert cache.look(beginning)[0] is due
        assert moment == end or cache.look(moment)[0] is due


@pytest.mark.parametrize(
    "expires_at", [None, math.inf, 1e308, 253402300800.0, 10**18, -math.inf, -1e308, 0, -1, NOON - 1e9]
)
def test_an_expiry_that_makes_no_sense_makes_nobody_ask_all_the_time(expires_at):
    cache = kept(expires_at, NOON)
    assert cache.look(NOON)[0] is Due.NO
    assert cache.look(NOON + 44)[0] is Due.NO
    ends = expires_at is not None and expires_at < NOON
    assert cache.look(NOON + 60)[0] is (Due.NOW if ends else Due.NO)
    assert cache.look(NOON + 1e7)[0] is (Due.NOW if ends else Due.NO)


@pytest.mark.parametrize(
    "expires_at", [math.nan, 10**400, "2026-03-06T12:00:00Z", True], ids=["nan", "huge", "text", "true"]
)
def test_an_expiry_that_is_no_time_is_refused_where_it_is_made(expires_at: Any):
    for make in (
        lambda: token(expires_at),
        lambda: AccessKey(access_key_id="i", access_key_secret=Secret("s"), expires_at=expires_at),
    ):
        with pytest.raises((ValueError, TypeError), match="expires_at"):
            make()


# --- postpone, refuse, keep


@PROPERTY
@given(st.integers(-(10**9), 10**10), st.integers(8, 10**6).map(lambda n: n * 8), st.floats(0, 0.99))
def test_law_postponing_gives_a_minute_and_never_moves_the_end(now, life, part):
    cache, untouched = (kept(float(now + life), float(now)) for _ in range(2))
    soon, latest = now + life - min(900, life / 4), now + life - min(600, life / 8)
    begun = soon + part * (latest - soon)
    cache.postpone(begun)
    assert cache.credential == untouched.credential
    for moment in (begun, begun + 30, begun + 59.9):
        assert cache.look(moment)[0] is (Due.NOW if untouched.look(moment)[0] is Due.NOW else Due.NO)
    for moment in (begun + 60.1, begun + 1e6):
        assert cache.look(moment)[0] is untouched.look(moment)[0]


def test_a_refused_credential_is_used_no_more_and_no_other_one_suffers():
    cache = CredentialCache()
    old, new = token(text="old"), token(text="new")
    cache.keep(old, NOON)
    assert cache.look(NOON) == (Due.NO, old)
    cache.refuse(new)
    assert cache.credential is old
    cache.refuse(old)
    assert cache.credential is None
    assert cache.look(NOON) == (Due.NOW, None)
    cache.keep(new, NOON)
    cache.refuse(old)
    assert cache.look(NOON + 1e9) == (Due.NO, new)


def test_a_credential_that_comes_again_is_another_one():
    cache = CredentialCache()
    first, again = token(text="same"), token(text="same")
    cache.keep(first, NOON)
    cache.refuse(first)
    cache.keep(again, NOON)
    assert cache.credential is again
    cache.refuse(first)
    assert cache.credential is again, "a late refusal is of the one that was sent"
    cache.keep(first, NOON)
    assert cache.credential is first, "what a provider gives is what it has"


def test_a_refused_credential_does_not_come_back_with_a_late_refusal_of_an_earlier_one():
    cache = CredentialCache()
    earlier, later = token(text="earlier"), token(text="later")
    cache.keep(earlier, NOON)
    cache.keep(later, NOON)
    cache.refuse(later)
    cache.refuse(earlier)
    assert cache.credential is None


def test_a_new_credential_brings_its_own_windows():
    cache = kept(60.0)
    assert cache.look(55.0)[0] is Due.NOW
    cache.keep(token(7200.0), 55.0)
    assert cache.look(55.0)[0] is Due.NO
    cache.keep(token(None), 7000.0)
    assert cache.look(1e12)[0] is Due.NO


# --- how a call goes about it


def a_provided_call(expires_in: float | None = 3600.0) -> tuple[DataEndpoint, FakeClock]:
    """An endpoint whose provider has been asked once, at noon."""
    names = iter("abcdef")
    clock = FakeClock()

    def provider() -> AccessToken:
        return token(None if expires_in is None else clock.wall + expires_in, next(names))

    at = DataEndpoint(Config(data_endpoint="http://h"), credentials=provider)
    step = ByHand(at.call(at.request("GET", "x"), clock=clock))
    assert renew(step, wait=True) == "a"
    return at, clock


def renew(step: ByHand, *, wait: bool) -> str:
    """Does what a driver does with a Refresh, and says what is sent then."""
    refresh = step.command
    assert type(refresh) is Refresh
    assert refresh.wait is wait
    flow = ByHand(refresh.flow())
    flow.answer(flow.command.provider())
    step.answer(flow.result if wait else None)
    return sent(step)


def sent(step: ByHand) -> str:
    assert type(step.command) is Send
    return dict(step.command.request.signature)["Agentrun-Access-Token"]


def begin(at: DataEndpoint, clock: FakeClock) -> ByHand:
    return ByHand(at.call(at.request("GET", "x"), clock=clock))


def test_a_call_waits_for_a_new_credential_only_where_it_must():
    at, clock = a_provided_call()
    clock.wall = NOON + 2699
    assert sent(begin(at, clock)) == "a"
    clock.wall = NOON + 2700
    ahead = begin(at, clock)
    assert sent(begin(at, clock)) == "a", "one has begun; nobody else does"
    assert renew(ahead, wait=False) == "a", "and nobody is held up by it"
    assert sent(begin(at, clock)) == "b"
    clock.wall += 3600
    assert renew(begin(at, clock), wait=True) == "c"


def test_a_refresh_ahead_that_came_to_nothing_is_tried_again_after_a_minute():
    at, clock = a_provided_call()
    for seconds, asks in [(2700, True), (2701, False), (2759, False), (2760, True), (2761, False)]:
        clock.wall = NOON + seconds
        step = begin(at, clock)
        assert (type(step.command) is Refresh) is asks, seconds
        if asks:
            step.answer(None)
        assert sent(step) == "a"
    clock.wall = NOON + 3150
    step = begin(at, clock)
    assert step.command.wait
    with pytest.raises(CredentialError):
        step.fail(CredentialError("none"))


def test_the_time_is_that_of_the_services_clock():
    at, clock = a_provided_call()
    at.standing.offset = 2700.0
    assert type(begin(at, clock).command) is Refresh
    at.standing.offset = -1e6
    assert sent(begin(at, clock)) == "a"


def test_calls_ask_with_the_same_key_and_their_own_deadline():
    at = DataEndpoint(Config(data_endpoint="http://h"), credentials=lambda: token())
    one, other = (begin(at.overlaid(Config(timeout=seconds)), FakeClock()) for seconds in (5, 9))
    assert one.command.key is other.command.key is at.identity.cache
    assert (one.command.deadline, other.command.deadline) == (1005, 1009)


@pytest.mark.parametrize(
    ("timeout", "deadline"),
    [
        (None, 1600.0),
        (Timeout(read=3), 1003.0),
        (Timeout(total=math.inf), 1600.0),
        (Timeout(total=9), 1009.0),
    ],
)
def test_a_transfer_without_an_end_waits_for_a_credential_as_long_as_for_a_silence(timeout, deadline):
    at = DataEndpoint(Config(data_endpoint="http://h", timeout=timeout), credentials=lambda: token())
    step = ByHand(at.stream(at.stream_request("GET", "x"), clock=FakeClock()))
    assert type(step.command) is Refresh
    assert step.command.deadline == deadline


def test_a_credential_that_is_refused_while_a_refresh_begins_is_not_what_it_brings():
    at, clock = a_provided_call()
    clock.wall = NOON + 2700
    ahead = begin(at, clock)
    at.identity.cache.refuse(at.identity.credential)
    assert renew(ahead, wait=False) == "a", "this call has begun with the old one"
    assert sent(begin(at, clock)) == "b"


@pytest.mark.parametrize(
    ("given", "told"), [(None, "has no credential"), ("text", "a str"), (b"t", "a bytes")]
)
def test_what_a_provider_may_not_return(given: Any, told: str):
    at = DataEndpoint(Config(data_endpoint="http://h"), credentials=lambda: given)
    flow = ByHand(begin(at, FakeClock()).command.flow())
    with pytest.raises(CredentialError, match=told) as caught:
        flow.answer(given)
    assert "text" not in str(caught.value)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "'text'" not in shown.partition("src/agentrun_proto/context.py")[2]
    assert at.identity.credential is None
