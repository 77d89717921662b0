"""OpenTelemetry: a span and a measurement for each attempt, by the HTTP client conventions, on every driver.

Rules of this file: what the conventions say is written out here; time is turned by hand; the exporters are
those that the SDK has for tests.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import trio

from agentrun_proto import (
    AccessToken,
    Config,
    ConnectError,
    ConnectionOpened,
    DataEndpoint,
    Head,
    Headers,
    IncompleteError,
    NotFoundError,
    RandomBytes,
    ReadAll,
    ReadTimeout,
    Refresh,
    Resource,
    Retry,
    RetryScheduled,
    Secret,
    Send,
    Sleep,
    StatusError,
)
from agentrun_transports import DataAPI, Limits, ResourceType
from agentrun_transports.embedding import drive
from agentrun_transports.emulator import Emulator
from agentrun_transports.testing import ScriptedServer, TurnedClock
from agentrun_transports.testing.scripted import Step, Tell, answer
from conformance_drivers import DRIVERS
from drivers_support import run

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

from opentelemetry import baggage, context, trace
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from agentrun_transports.opentelemetry import OpenTelemetryListener

ONCE, AT_ONCE = Retry.never(), Retry(backoff=0.0)
OK, GONE, BUSY = (answer({"ok": True}), answer({}, "404 Not Found"), answer({}, "503 Busy"))


class Watch:
    """A listener, with all that it has told."""

    def __init__(self, **settings: Any) -> None:
        self.clock = TurnedClock()
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.provider = TracerProvider(**settings)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])
        self.listener = OpenTelemetryListener(self.provider, self.meters, monotonic=self.clock.monotonic)

    @property
    def spans(self) -> list[Any]:
        """The CLIENT spans that have ended, in order."""
        return [span for span in self.exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]

    @property
    def measurements(self) -> list[Any]:
        data = self.reader.get_metrics_data()
        metrics = [
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        (duration,) = metrics
        assert (duration.name, duration.unit) == ("http.client.request.duration", "s")
        return list(duration.data.data_points)

    @contextmanager
    def parent(self, name="parent"):
        with self.provider.get_tracer("test").start_as_current_span(name) as span:
            yield span

    def finished(self, name="parent"):
        (span,) = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return span

    def assert_over(self) -> None:
        assert self.listener._open == {}


@pytest.fixture
def watch():
    made = Watch()
    yield made
    made.assert_over()
    made.provider.shutdown()
    made.meters.shutdown()


def lines(received):
    """The field lines of a request as they came, names in lower case."""
    found = [line.partition(": ") for line in received.head.decode("latin-1").split("\r\n")[1:] if line]
    return {name.lower(): value for name, _, value in found}


def traceparent(span):
    own = span.context
    return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"


def by_hand(watch, *outcomes, method="GET", config=None, seconds=0.0, on_send=lambda: None):
    """Runs one call without a network: each outcome is what comes of an attempt, a status or an error."""
    endpoint = DataEndpoint(config or Config(data_endpoint="http://h:8080/", retry=ONCE))
    request = endpoint.request(method, "resources", query={"secret": "query"})
    left = list(outcomes)

    def perform(command):
        if isinstance(command, Send):
            on_send()
            watch.clock.turn(seconds)
            outcome = left.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome if isinstance(outcome, Head) else Head(status=outcome)
        if isinstance(command, RandomBytes):
            return bytes(command.size)
        if isinstance(command, Sleep):
            return None
        assert isinstance(command, ReadAll)
        if left and isinstance(left[0], IncompleteError):
            raise left.pop(0)
        return b"{}"

    flow = endpoint.call(request, clock=watch.clock, listener=watch.listener)
    try:
        return drive(flow, perform)
    finally:
        assert left == []


# --- one attempt


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_call_on_every_driver(watch, driver):
    running = DRIVERS[driver](Limits())
    try:
        with ScriptedServer() as server:
            endpoint = DataEndpoint(Config(data_endpoint=f"{server.url}/base", retry=ONCE))
            request = endpoint.request("GET", "own", query={"hidden": "1"})
            running.run(lambda clock: endpoint.call(request, clock=clock, listener=watch.listener))
            (span,) = watch.spans
            assert lines(server.requests[0])["traceparent"] == traceparent(span)
            assert server.requests[0].target.endswith("/own?hidden=1")
    finally:
        running.close()
    assert span.name == "GET"
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "url.full": f"{server.url}/base/2025-09-10/agents/own",
        "http.response.status_code": 200,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope.name == "agentrun_proto"
    assert span.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.23.1"


@pytest.mark.parametrize("transport", ["native", "httpcore"])
@pytest.mark.parametrize("loop", ["blocking", "asyncio", "trio"])
def test_the_clients_on_every_loop(watch, loop, transport):
    """The current span of the caller is the parent; a retry and a reused connection are told."""
    with ScriptedServer(BUSY, OK, OK) as server:
        config = Config(data_endpoint=server.url, retry=AT_ONCE)
        api = DataAPI("r", ResourceType.Runtime, config, listener=watch.listener, transport=transport)

        async def main():
            with watch.parent("outer"):
                await api.get_async("r")
                await api.get_async("r")

        if loop == "blocking":
            with api, watch.parent("outer"):
                api.get("r")
                api.get("r")
        else:
            run(loop, main)
        told = [lines(request)["traceparent"] for request in server.requests]
    outer = watch.finished("outer")
    assert told == [traceparent(span) for span in watch.spans]
    assert [span.parent.span_id for span in watch.spans] == [outer.context.span_id] * 3
    assert [span.attributes.get("http.request.resend_count") for span in watch.spans] == [None, 1, None]
    assert [event.name for span in watch.spans for event in span.events] == [
        "agentrun.connection_opened",
        "agentrun.connection_reused",
        "agentrun.connection_reused",
    ]
    (retry,) = outer.events
    assert retry.name == "agentrun.retry_scheduled"
    assert dict(retry.attributes) == {
        "agentrun.attempt": 1,
        "agentrun.delay": 0.0,
        "agentrun.reason": "ServiceUnavailableError",
    }


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, None),
        (204, None),
        (304, None),
        (399, None),
        (400, "400"),
        (401, "401"),
        (404, "404"),
        (429, "429"),
        (500, "500"),
        (503, "503"),
        (599, "599"),
    ],
)
def test_statuses(watch, status, error):
    refused = nullcontext() if status < 300 else pytest.raises(StatusError)
    with refused:
        by_hand(watch, status)
    (span,) = watch.spans
    assert span.attributes["http.response.status_code"] == status
    assert span.attributes.get("error.type") == error
    assert span.status.status_code is (StatusCode.ERROR if error else StatusCode.UNSET)
    assert span.status.description is None  # the code says it all
    (point,) = watch.measurements
    assert point.attributes.get("error.type") == error


@pytest.mark.parametrize("failure", [ConnectError("no"), ReadTimeout("late"), IncompleteError("cut")])
def test_failures_before_an_answer(watch, failure):
    with pytest.raises(type(failure)):
        by_hand(watch, failure)
    (span,) = watch.spans
    assert "http.response.status_code" not in span.attributes
    assert span.attributes["error.type"] == span.status.description == type(failure).__name__
    assert span.status.status_code is StatusCode.ERROR


def test_a_failure_after_the_head(watch):
    with pytest.raises(IncompleteError):
        by_hand(watch, 200, IncompleteError("cut"))
    (span,) = watch.spans
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["error.type"] == "IncompleteError"
    assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize(
    ("method", "name", "told", "original"),
    [
        ("GET", "GET", "GET", None),
        ("PATCH", "PATCH", "PATCH", None),
        ("PURGE", "HTTP", "_OTHER", "PURGE"),
        ("get", "HTTP", "_OTHER", "get"),
    ],
)
def test_methods(watch, method, name, told, original):
    by_hand(watch, 200, method=method)
    (span,) = watch.spans
    assert (span.name, span.attributes["http.request.method"]) == (name, told)
    assert span.attributes.get("http.request.method_original") == original
    (point,) = watch.measurements
    assert point.attributes["http.request.method"] == told
    assert "http.request.method_original" not in point.attributes  # a caller's text: of too many values


@pytest.mark.parametrize(
    ("endpoint", "address", "port"),
    [
        ("http://example.com/", "example.com", 80),
        ("https://example.com/", "example.com", 443),
        ("https://user:word@example.com:8443/a", "example.com", 8443),
        ("http://[::1]:8080/", "::1", 8080),
        ("http://[::1]/", "::1", 80),
    ],
)
def test_addresses(watch, endpoint, address, port):
    by_hand(watch, 200, config=Config(data_endpoint=endpoint, retry=ONCE))
    (span,) = watch.spans
    assert (span.attributes["server.address"], span.attributes["server.port"]) == (address, port)
    assert "@" not in span.attributes["url.full"]
    assert "?" not in span.attributes["url.full"]


def test_the_request_id_is_told(watch):
    by_hand(watch, Head(status=200, headers=Headers({"x-acs-request-id": "id-1"})))
    assert watch.spans[0].attributes["agentrun.request_id"] == "id-1"


# --- several attempts


def test_each_attempt_is_a_span_of_its_own(watch):
    config = Config(data_endpoint="http://h/", retry=Retry(attempts=3, backoff=4.0))
    with watch.parent():
        by_hand(
            watch,
            ConnectError("no"),
            Head(status=503, headers=Headers({"Retry-After": "7"})),
            200,
            config=config,
        )
    first, second, third = watch.spans
    assert [span.attributes.get("http.request.resend_count") for span in watch.spans] == [None, 1, 2]
    assert [span.attributes.get("error.type") for span in watch.spans] == ["ConnectError", "503", None]
    assert len({span.context.span_id for span in watch.spans}) == 3
    parent = watch.finished()
    assert {span.parent.span_id for span in (first, second, third)} == {parent.context.span_id}
    assert [(event.name, event.attributes["agentrun.delay"]) for event in parent.events] == [
        ("agentrun.retry_scheduled", 0.0),
        ("agentrun.retry_scheduled", 7.0),
    ]


def test_a_redirect_counts_as_sent_again_and_is_no_error(watch):
    elsewhere = Head(status=307, headers=Headers({"Location": "http://other:81/x?token=1"}))
    with watch.parent():
        by_hand(watch, elsewhere, 200)
    first, second = watch.spans
    assert "error.type" not in first.attributes
    assert first.status.status_code is StatusCode.UNSET
    assert second.attributes["http.request.resend_count"] == 1
    assert (second.attributes["server.address"], second.attributes["server.port"]) == ("other", 81)
    (event,) = watch.finished().events
    assert (event.name, dict(event.attributes)) == (
        "agentrun.redirected",
        {"agentrun.status": 307, "agentrun.url": "http://other:81/x", "agentrun.credential": False},
    )


def test_what_is_told_after_the_parent_has_ended_is_let_go(watch, caplog):
    """A refresh may outlive the call that began it; the SDK would complain of each event."""
    with watch.parent() as parent:
        pass
    with trace.use_span(parent):
        watch.listener(RetryScheduled(call=1, attempt=1, delay=1.0, reason="x"))
        watch.listener(ConnectionOpened(call=1, origin="http://h"))
    assert watch.finished().events == ()
    assert caplog.records == []


# --- the metric


def test_the_metric_has_the_required_attributes_and_the_advised_buckets(watch):
    by_hand(watch, 200, seconds=0.25)
    with pytest.raises(ConnectError):
        by_hand(watch, ConnectError("no"), seconds=3.0)
    measured = {json.dumps(dict(point.attributes), sort_keys=True): point for point in watch.measurements}
    common = {"http.request.method": "GET", "server.address": "h", "server.port": 8080}
    fine = measured.pop(json.dumps({**common, "http.response.status_code": 200}, sort_keys=True))
    failed = measured.pop(json.dumps({**common, "error.type": "ConnectError"}, sort_keys=True))
    assert measured == {}
    assert (fine.sum, fine.count, failed.sum, failed.count) == (0.25, 1, 3.0, 1)
    advised = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    assert tuple(fine.explicit_bounds) == tuple(failed.explicit_bounds) == advised


def test_each_attempt_is_measured_by_itself(watch):
    by_hand(watch, 503, 200, config=Config(data_endpoint="http://h/", retry=AT_ONCE), seconds=2.0)
    assert sorted((point.sum, point.count) for point in watch.measurements) == [(2.0, 1), (2.0, 1)]


# --- trace context


def test_baggage_and_other_propagators_go_out_too(watch):
    token = context.attach(baggage.set_baggage("tenant", "t1"))
    try:
        with ScriptedServer() as server:
            api = DataAPI(
                "r", ResourceType.Runtime, Config(data_endpoint=server.url), listener=watch.listener
            )
            with api:
                api.get("r")
            assert lines(server.requests[0])["baggage"] == "tenant=t1"
    finally:
        context.detach(token)


def test_what_is_not_sampled_is_sent_all_the_same():
    watch = Watch(sampler=ALWAYS_OFF)
    with ScriptedServer() as server:
        api = DataAPI("r", ResourceType.Runtime, Config(data_endpoint=server.url), listener=watch.listener)
        with api:
            api.get("r")
        flags = lines(server.requests[0])["traceparent"].rpartition("-")[2]
        assert int(flags, 16) & 1 == 0
    assert watch.spans == []
    watch.assert_over()


def test_without_an_sdk_nothing_happens():
    """Where the process has set up no provider, the API does nothing, and the call is as it was."""
    with ScriptedServer() as server:
        listener = OpenTelemetryListener(trace.NoOpTracerProvider())
        api = DataAPI("r", ResourceType.Runtime, Config(data_endpoint=server.url), listener=listener)
        with api:
            assert api.get("r")["target"].endswith("/r")
        assert "traceparent" not in lines(server.requests[0])
    assert listener._open == {}


# --- many at once, and calls that nobody waits for


def test_threads_share_a_listener(watch):
    with ScriptedServer() as server:
        api = DataAPI("r", ResourceType.Runtime, Config(data_endpoint=server.url), listener=watch.listener)

        def work(number):
            with watch.parent(f"parent {number}"):
                for each in range(10):
                    api.get(f"r/{number}/{each}")

        with api, ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
        sent = {lines(request)["traceparent"]: request.target for request in server.requests}
    assert len(watch.spans) == len(sent) == 80
    for span in watch.spans:
        path = span.attributes["url.full"].removeprefix(server.url)
        assert sent[traceparent(span)] == path
        number = path.split("/")[-2]
        assert span.parent.span_id == watch.finished(f"parent {number}").context.span_id


def test_several_clients_share_a_listener(watch):
    """Calls of two endpoints, step by step side by side: each ends its own span."""
    flows, sent = {}, {}
    for name in "ab":
        endpoint = DataEndpoint(Config(data_endpoint=f"http://{name}/", retry=ONCE))
        flow = endpoint.call(endpoint.request("GET", name), clock=TurnedClock(), listener=watch.listener)
        sent[name] = next(flow).request.headers["traceparent"]
        flows[name] = flow
    for name, status in (("a", 404), ("b", 200)):
        flows[name].send(Head(status=status))
    for name in "ab":
        with pytest.raises(NotFoundError if name == "a" else StopIteration):
            flows[name].send(b"{}")
    told = {span.attributes["server.address"]: span for span in watch.spans}
    assert {name: traceparent(span) for name, span in told.items()} == sent
    assert {name: span.attributes["http.response.status_code"] for name, span in told.items()} == {
        "a": 404,
        "b": 200,
    }


def test_a_token_that_is_fetched_beside_a_call(watch):
    """A refresh ahead of the expiry runs while the call goes on: neither takes the other's span."""
    config = Config(data_endpoint="http://data/", control_endpoint="http://control/", retry=ONCE)
    config = config.merge(Config(access_key_id="id", access_key_secret="s"))
    endpoint = DataEndpoint(config, resource=Resource(type="runtime", name="r"))
    clock = TurnedClock(wall=1000.0)
    endpoint.identity.cache.keep(AccessToken(token=Secret("t"), expires_at=5000.0), 1000.0)
    clock.turn(3200.0)
    flow = endpoint.call(endpoint.request("GET", "r"), clock=clock, listener=watch.listener)
    refresh = next(flow)
    assert isinstance(refresh, Refresh)
    assert not refresh.wait
    fetching = refresh.flow()
    command = next(fetching)
    assert isinstance(command, RandomBytes)
    assert isinstance(fetching.send(bytes(16)), Send)  # the token's request is out ...
    assert isinstance(flow.send(None), Send)  # ... and the call's too
    fetching.send(Head(status=200))
    flow.send(Head(status=503))
    with pytest.raises(StopIteration):
        fetching.send(b'{"data": {"accessToken": "new"}}')
    with pytest.raises(Exception, match="503"):
        flow.send(b"{}")
    assert {
        span.attributes["server.address"]: span.attributes["http.response.status_code"]
        for span in watch.spans
    } == {"control": 200, "data": 503}


@pytest.mark.parametrize("how", ["closed", "dropped"])
@pytest.mark.parametrize("answered", [False, True])
def test_a_call_that_is_abandoned_ends_its_span_once(watch, how, answered):
    endpoint = DataEndpoint(Config(data_endpoint="http://h/"))
    flow = endpoint.call(endpoint.request("GET", "r"), clock=TurnedClock(), listener=watch.listener)
    assert isinstance(next(flow), Send)
    if answered:
        assert isinstance(flow.send(Head(status=200)), ReadAll)
    if how == "closed":
        flow.close()
    del flow
    gc.collect()
    (span,) = watch.spans
    assert span.attributes["error.type"] == "cancelled"
    assert span.attributes.get("http.response.status_code") == (200 if answered else None)
    assert span.status.status_code is StatusCode.ERROR
    (point,) = watch.measurements
    assert point.count == 1


@pytest.mark.parametrize("transport", ["native", "httpcore"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_cancellation_ends_the_span(watch, loop, transport):
    arrived = threading.Event()
    with ScriptedServer([Tell(arrived), Step.STALL]) as server:
        api = DataAPI(
            "r",
            ResourceType.Runtime,
            Config(data_endpoint=server.url),
            listener=watch.listener,
            transport=transport,
        )

        async def on_asyncio():
            task = asyncio.ensure_future(api.get_async("r"))
            await asyncio.to_thread(arrived.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        async def on_trio():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(api.get_async, "r")
                await trio.to_thread.run_sync(arrived.wait)
                nursery.cancel_scope.cancel()

        run(loop, on_trio if loop == "trio" else on_asyncio)
    (span,) = watch.spans
    assert span.attributes["error.type"] == "cancelled"


@pytest.mark.parametrize("where", ["span", "propagator"])
def test_telemetry_that_fails_leaves_nothing_behind(watch, monkeypatch, where):
    """What a listener raises ends the call, and no span stays open for it."""

    class Broken:
        def inject(self, *args, **kwargs):
            raise LookupError("broken telemetry")

    before = get_global_textmap()
    if where == "propagator":
        set_global_textmap(Broken())
    else:
        monkeypatch.setattr(watch.listener._tracer, "start_span", Broken().inject)
    try:
        with pytest.raises(LookupError, match="broken telemetry"):
            by_hand(watch)
    finally:
        set_global_textmap(before)
    assert len(watch.spans) == (where == "propagator")


# --- the package


def test_where_the_api_is_not_installed_the_error_says_what_to_do(monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] == "opentelemetry":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "agentrun_transports.opentelemetry")
    with pytest.raises(ImportError, match=r"pip install 'agentrun-proto\[otel\]'") as raised:
        importlib.import_module("agentrun_transports.opentelemetry")
    assert raised.value.name == "opentelemetry"


def test_no_other_module_imports_it():
    import agentrun_proto
    import agentrun_transports

    for package in (agentrun_proto, agentrun_transports):
        for path in Path(package.__file__).parent.rglob("*.py"):
            named = "opentelemetry import" in path.read_text() or "import opentelemetry" in path.read_text()
            assert named == (path.name == "opentelemetry.py"), path


def test_it_adds_no_record_to_the_log(watch, caplog):
    with caplog.at_level(logging.DEBUG), Emulator() as emulator:
        api = DataAPI("r", ResourceType.Runtime, Config.from_env(emulator.environment))
        told = DataAPI(
            "r", ResourceType.Runtime, Config.from_env(emulator.environment), listener=watch.listener
        )
        with api, told:
            api.get("resources")
            before = [record.getMessage().split()[0] for record in caplog.records]
            caplog.clear()
            told.get("resources")
    assert [record.getMessage().split()[0] for record in caplog.records] == before
