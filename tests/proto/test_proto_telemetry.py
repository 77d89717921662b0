"""What a listener is told: which events, in which order, and never a secret.

Rules of this file: sequences are compared whole, as values; the marks that no event may hold stand in every
place that a secret, a query or content may travel in.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from agentrun_proto import (
    AccessKey,
    AccessToken,
    AgentRunClientError,
    AuthenticationError,
    ClockAdjusted,
    Config,
    ConnectError,
    ConnectionOpened,
    ConnectionReused,
    CredentialError,
    CredentialsRefreshed,
    CredentialsRefreshFailed,
    DataEndpoint,
    DecodeError,
    Event,
    Head,
    Headers,
    HeadReceived,
    NotFoundError,
    Provide,
    ReadAll,
    Redirected,
    Refresh,
    RequestEnded,
    RequestSent,
    Resource,
    Retry,
    RetryScheduled,
    Secret,
    Send,
    ServiceUnavailableError,
    Sleep,
    telemetry,
)
from proto_strategies import ByHand, FakeClock, FakeSink, FakeSource

MARK = "hunter2"
URL = "http://h/2025-09-10/agents/x"


class Told(list[Event]):
    """A listener that keeps what it is told; calls are numbered from 1, as it hears of them."""

    def __call__(self, event: Event) -> None:
        numbers = self.__dict__.setdefault("numbers", {})
        number = numbers.setdefault(event.call, len(numbers) + 1)
        self.append(dataclasses.replace(event, call=number))

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self]


def endpoint(**config: Any) -> DataEndpoint:
    return DataEndpoint(Config(**{"data_endpoint": "http://h", **config}))


def a_call(at: DataEndpoint, told: Any, method: str = "GET", path: str = "x", **request: Any) -> ByHand:
    return ByHand(at.call(at.request(method, path, **request), clock=FakeClock(), listener=told))


def sent(attempt: int = 1, call: int = 1, method: str = "GET", url: str = URL) -> RequestSent:
    return RequestSent(call=call, attempt=attempt, method=method, url=url)


def head(status: int, attempt: int = 1, call: int = 1, request_id: str | None = None) -> HeadReceived:
    return HeadReceived(call=call, attempt=attempt, status=status, request_id=request_id)


def ended(error: str | None = None, attempt: int = 1, call: int = 1) -> RequestEnded:
    return RequestEnded(call=call, attempt=attempt, error=error)


def answered(step: ByHand, status: int = 200, content: bytes = b"", **headers: str) -> ByHand:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    step.answer(Head(status=status, headers=Headers(fields)))
    assert type(step.command) is ReadAll
    return step.answer(content)


def refresh(step: ByHand, credential: AccessKey | AccessToken) -> ByHand:
    """Does what a driver does with a Refresh of a provider's credential."""
    assert type(step.command) is Refresh
    flow = ByHand(step.command.flow())
    assert type(flow.command) is Provide
    return step.answer(flow.answer(credential).result)


# --- sequences


def test_a_plain_call():
    told = Told()
    step = a_call(endpoint(), told, "POST", data={"a": 1})
    assert told == [sent(method="POST")], "told before it goes out"
    step.answer(Head(status=200, headers=Headers({"x-acs-request-id": "r-1"})))
    assert told[1:] == [head(200, request_id="r-1")]
    step.answer(b"{}")
    assert told[2:] == [ended()]
    assert step.done


def test_a_call_that_is_refused():
    told = Told()
    with pytest.raises(NotFoundError):
        answered(a_call(endpoint(), told), 404)
    assert told == [sent(), head(404), ended("NotFoundError")]


def test_an_answer_that_is_nonsense_and_one_that_never_comes():
    told = Told()
    with pytest.raises(DecodeError):
        answered(a_call(endpoint(), told), 200, b"[]")
    with pytest.raises(ConnectError):
        a_call(endpoint(retry=Retry.never()), told).fail(ConnectError("x"))
    assert told == [
        sent(),
        head(200),
        ended("DecodeError"),
        sent(call=2),
        ended("ConnectError", call=2),
    ]


def test_a_retry():
    told = Told()
    step = a_call(endpoint(), told)
    answered(step, 503, Retry_After="2").answer(b"\x80" + bytes(5))
    assert type(step.command) is Sleep
    assert told[-1] == RetryScheduled(call=1, attempt=1, delay=2.0, reason="ServiceUnavailableError")
    step.answer(None).fail(ConnectError("x")).answer(b"\x80" + bytes(5)).answer(None)
    answered(step)
    assert told == [
        sent(),
        head(503),
        ended("ServiceUnavailableError"),
        RetryScheduled(call=1, attempt=1, delay=2.0, reason="ServiceUnavailableError"),
        sent(attempt=2),
        ended("ConnectError", attempt=2),
        RetryScheduled(call=1, attempt=2, delay=1.0, reason="ConnectError"),
        sent(attempt=3),
        head(200, attempt=3),
        ended(attempt=3),
    ]


def test_a_retry_that_is_not_made_is_not_told():
    told = Told()
    step = answered(a_call(endpoint(timeout=1), told), 503, Retry_After="2")
    with pytest.raises(ServiceUnavailableError):
        step.answer(bytes(6))
    assert told.kinds == ["RequestSent", "HeadReceived", "RequestEnded"]


def test_a_refresh():
    told, at = Told(), DataEndpoint(Config(data_endpoint="http://h"), credentials=lambda: None)
    first, second = (
        AccessToken(token=Secret(text), expires_at=at) for text, at in (("a", 1e10), ("b", None))
    )
    step = refresh(a_call(at, told), first)
    refresh(answered(step, 401), second)
    answered(step)
    assert told == [
        CredentialsRefreshed(call=1, expires_at=1e10),
        sent(),
        head(401),
        ended("AuthenticationError"),
        CredentialsRefreshed(call=1, expires_at=None),
        sent(attempt=2),
        head(200, attempt=2),
        ended(attempt=2),
    ]


def test_a_refresh_that_fails():
    told, at = Told(), DataEndpoint(Config(data_endpoint="http://h"), credentials=lambda: None)
    step = a_call(at, told)
    flow = ByHand(step.command.flow())
    with pytest.raises(CredentialError):
        flow.fail(CredentialError("none"))
    with pytest.raises(CredentialError):
        step.fail(CredentialError("none"))
    assert told == [CredentialsRefreshFailed(call=1, error="CredentialError")], "nothing was sent"


def test_a_token_is_fetched_in_sight_of_the_listener():
    told = Told()
    at = DataEndpoint(
        Config(
            data_endpoint="http://h", control_endpoint="http://c", access_key_id="i", access_key_secret="s"
        ),
        resource=Resource(type="tool", name=MARK),
    )
    step = a_call(at, told)
    flow = ByHand(step.command.flow()).answer(bytes(16))
    answered(flow, 503).answer(bytes(6)).answer(bytes(16))
    answered(flow, 200, b'{"data": {"accessToken": "hunter2"}}')
    answered(step.answer(flow.result))
    control = "http://c/2025-09-10/agents/accessToken"
    assert told == [
        sent(url=control),
        head(503),
        ended("ServiceUnavailableError"),
        RetryScheduled(call=1, attempt=1, delay=0.0, reason="ServiceUnavailableError"),
        sent(attempt=2, url=control),
        head(200, attempt=2),
        ended(attempt=2),
        CredentialsRefreshed(call=2, expires_at=None),
        sent(call=2),
        head(200, call=2),
        ended(call=2),
    ]
    assert MARK not in repr(told)


def test_a_clock_that_is_set():
    told = Told()
    at = endpoint(access_key_id="i", access_key_secret="s")
    answered(answered(a_call(at, told), 403, Date="Fri, 06 Mar 2026 13:00:00 GMT"))
    assert told[3:5] == [ClockAdjusted(call=1, offset=3600.0), sent(attempt=2)]


def test_a_redirect():
    told = Told()
    step = a_call(endpoint(trusted_origins=["http://friend"]), told)
    for location in ("http://friend/a?b=1", "/c?d#e", f"http://user:{MARK}@evil:81/f?{MARK}", "http://h/"):
        answered(step, 307, Location=location)
    answered(step)
    hops = [
        ("http://friend/a", True),
        ("http://friend/c", True),
        ("http://evil:81/f", False),
        ("http://h/", False),
    ]
    expected: list[Event] = [sent()]
    for number, (url, credential) in enumerate(hops, 1):
        expected += [
            head(307, attempt=number),
            ended("RedirectError", attempt=number),
            Redirected(call=1, status=307, url=url, credential=credential),
            sent(attempt=number + 1, url=url),
        ]
    assert told == [*expected, head(200, attempt=5), ended(attempt=5)]


def test_a_redirect_of_a_place_that_a_hook_led_to_keeps_the_credential():
    def auth(url: str, headers: dict[str, str], query: Any, *_: Any) -> Any:
        return url.replace("http://h/", "http://gateway/"), headers, query

    told = Told()
    answered(a_call(DataEndpoint(Config(data_endpoint="http://h"), auth=auth), told), 307, Location="/x")
    assert Redirected(call=1, status=307, url="http://gateway/x", credential=True) in told


def test_attempts_count_on_over_redirects_and_retries():
    told = Told()
    step = a_call(endpoint(), told)
    answered(step, 302, Location="/a")
    answered(step, 503).answer(bytes(6))
    answered(step, 302, Location="/b")
    answered(step)
    numbers = [event.attempt for event in told if isinstance(event, RequestSent)]
    assert numbers == [1, 2, 3, 4]
    assert [event.attempt for event in told if isinstance(event, RetryScheduled)] == [2]


# --- each RequestSent is followed by exactly one RequestEnded


@pytest.mark.parametrize("answers", [0, 1], ids=["send", "read"])
def test_a_call_that_is_given_up(answers):
    told = Told()
    step = a_call(endpoint(), told)
    for _ in range(answers):
        step.answer(Head(status=200))
    step.close()
    assert told == [sent(), head(200), ended("cancelled")] if answers else [sent(), ended("cancelled")]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("x"), GeneratorExit()])
def test_what_is_no_failure_of_the_request_ends_it_as_cancelled(failure):
    told = Told()
    step = a_call(endpoint(), told)
    with pytest.raises(type(failure)):
        step.fail(failure)
    assert told == [sent(), ended("cancelled")]


def test_a_call_that_is_given_up_in_a_pause_has_ended_its_attempt_already():
    told = Told()
    step = answered(a_call(endpoint(), told), 503)
    step.answer(b"\x80" + bytes(5)).close()
    assert told.kinds == ["RequestSent", "HeadReceived", "RequestEnded", "RetryScheduled"]


def test_a_call_that_is_given_up_before_it_sends_tells_nothing():
    told = Told()
    at = DataEndpoint(Config(data_endpoint="http://h"), credentials=lambda: None)
    a_call(at, told).close()
    at.call(at.request("GET", "x"), clock=FakeClock(), listener=told).close()
    assert told == []


def test_what_a_listener_raises_ends_the_call():
    for raises in ("RequestSent", "HeadReceived"):
        kinds: list[str] = []

        def listener(event: Event, raises: str = raises, kinds: list[str] = kinds) -> None:
            kinds.append(type(event).__name__)
            if kinds[-1] == raises:
                raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            a_call(endpoint(), listener).answer(Head(status=200))
        assert kinds[-1] == "RequestEnded"


# --- calls, transfers


def test_calls_are_told_apart_and_those_of_an_overlay_too():
    told, at = Told(), endpoint()
    one = a_call(at, told)
    other = a_call(at.overlaid(Config(timeout=5)), told)
    answered(other)
    answered(one)
    assert told == [sent(), sent(call=2), head(200, call=2), ended(call=2), head(200), ended()]


def test_transfers_and_exchanges_are_told_alike():
    told, at = Told(), endpoint()
    up = at.upload("x", "/l", filename="f", boundary="b", clock=FakeClock(), listener=told)
    answered(ByHand(up).answer(FakeSource()))
    down = ByHand(at.download(at.file_request("x"), "/l", clock=FakeClock(), listener=told))
    sink = FakeSink()
    down.answer(sink).answer(Head(status=200)).answer(None)  # opened, sent, prepared
    sink.size = 5
    down.answer(5).answer(None)
    assert down.result == 5
    answered(ByHand(at.exchange(at.request("GET", "x"), clock=FakeClock(), listener=told)), 404)
    assert told == [
        sent(method="POST"),
        head(200),
        ended(),
        sent(call=2),
        head(200, call=2),
        ended(call=2),
        sent(call=3),
        head(404, call=3),
        ended("NotFoundError", call=3),
    ]


def test_where_nobody_listens_no_event_is_made(monkeypatch):
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("an event was made")

    for kind in all_kinds():
        monkeypatch.setattr(kind, "__init__", forbidden)
    at = endpoint(retry=Retry(attempts=9), access_key_id="i", access_key_secret="s")
    step = a_call(at, None)
    assert step.command.observer is None
    answered(step, 302, Location="/y")
    answered(step, 403, Date="Fri, 06 Mar 2026 13:00:00 GMT")
    answered(step, 503).answer(bytes(6))
    assert answered(step).done


# --- carrier


def test_what_a_listener_adds_goes_out_with_this_attempt_alone():
    def listener(event: Event) -> None:
        if isinstance(event, RequestSent):
            event.carrier["traceparent"] = f"00-{event.attempt}"
            event.carrier["X-Mine"] = "from the listener"

    at = endpoint(access_key_id="i", access_key_secret="s")
    step = a_call(at, listener, headers={"x-mine": "from the caller"})
    for attempt in ("00-1", "00-2"):
        fields = step.command.request.fields()
        assert [value for name, value in fields if name == "traceparent"] == [attempt]
        assert [value for name, value in fields if name.lower() == "x-mine"] == ["from the listener"]
        assert "Agentrun-Authorization" in dict(fields)
        step.fail(ConnectError("x")).answer(bytes(6))
    step.close()
    assert "traceparent" not in a_call(at, None).command.request.headers


def test_a_field_that_cannot_be_sent_is_refused():
    def listener(event: Event) -> None:
        if isinstance(event, RequestSent):
            event.carrier["traceparent"] = "a\r\nEvil: 1"

    with pytest.raises(ValueError, match="control character"):
        a_call(endpoint(), listener)


# --- what no event holds


def all_kinds() -> list[type[Event]]:
    return [kind for kind in vars(telemetry).values() if isinstance(kind, type) and issubclass(kind, Event)]


def test_events_are_frozen_values():
    for kind in all_kinds():
        assert kind.__doc__
        assert dataclasses.fields(kind)[0].name == "call"
        assert "__slots__" in vars(kind)
    for event in (ConnectionOpened(call=1, origin="http://h"), ConnectionReused(call=1, origin="http://h")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.call = 2
        assert event == dataclasses.replace(event)


def test_no_event_holds_a_secret_a_query_or_content():
    told = Told()
    at = DataEndpoint(
        Config(
            data_endpoint=f"http://user:{MARK}@h",
            headers={"x-mine": MARK, "Authorization": MARK, "Cookie": MARK},
            retry=Retry(attempts=9),
        ),
        credentials=lambda: None,
    )
    key = AccessKey(access_key_id="id", access_key_secret=Secret(MARK), security_token=Secret(f"{MARK}-sts"))
    other = AccessToken(token=Secret(f"{MARK}-token"))
    step = a_call(
        at,
        told,
        "GET",
        f"x?a={MARK}",
        data=MARK,
        query={"b": MARK},
        headers={"Idempotency-Key": MARK, "x-own": MARK},
    )
    content = f'{{"message": "{MARK}", "code": "{MARK}"}}'.encode()
    refresh(step, key)
    answered(step, 403, content, Date="Fri, 06 Mar 2026 13:00:00 GMT", Set_Cookie=MARK)
    refresh(answered(step, 401, content), other)
    answered(step, 503, content).answer(bytes(6))
    step.fail(ConnectError(MARK)).answer(bytes(6))
    for location in (f"/y?{MARK}#{MARK}", f"http://{MARK}:{MARK}@evil/x?{MARK}=1"):
        answered(step, 302, content, Location=location)
    with pytest.raises(AgentRunClientError):
        answered(step, 404, content)
    assert set(told.kinds) >= {
        "RequestSent", "HeadReceived", "RequestEnded", "RetryScheduled", "Redirected", "CredentialsRefreshed",
        "ClockAdjusted",
    }  # fmt: skip
    for event in told:
        assert MARK not in repr(event)
        assert MARK not in str(dataclasses.asdict(event))


@pytest.mark.parametrize("url", ["http://user:hunter2@h", "http://hunter2@h"])
def test_no_url_of_an_event_has_user_info(url):
    told = Told()
    answered(a_call(endpoint(data_endpoint=url), told))
    assert told[0] == sent()


def test_the_driver_is_given_the_line_to_the_listener():
    told = Told()
    step = a_call(endpoint(), told)
    assert type(step.command) is Send
    observer = step.command.observer
    observer.tell(ConnectionOpened(call=observer.call, origin="http://h"))
    assert told[-1] == ConnectionOpened(call=1, origin="http://h")
    with pytest.raises(AuthenticationError):
        answered(step, 401)
