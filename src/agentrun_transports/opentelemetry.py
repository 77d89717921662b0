"""What happens, as OpenTelemetry spans and metrics: a listener for the clients' parameter of that name.

Each attempt is a CLIENT span, named and described by the HTTP client conventions; a retry or a redirect is
a further span beside it. The parent is the span that is current where the call is made. Each attempt counts
in ``http.client.request.duration``, and its trace context goes out with the request.

Rules of this file: what a span holds an event has told, and that is no secret; one span is open for each call
at most, and it ends with the `RequestEnded` that every `RequestSent` is followed by; `opentelemetry-api` is
imported here and nowhere else, and of it nothing that needs an SDK.

Source: OpenTelemetry semantic conventions for HTTP, stable since 1.23
(opentelemetry.io/docs/specs/semconv/http/http-spans, http-metrics).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from agentrun_proto import (
    ClockAdjusted,
    ConnectionOpened,
    ConnectionReused,
    CredentialsRefreshed,
    CredentialsRefreshFailed,
    Event,
    HeadReceived,
    Redirected,
    RequestEnded,
    RequestSent,
    RetryScheduled,
    __version__,
)
from agentrun_proto.urls import DEFAULT_PORTS

try:
    from opentelemetry import metrics, trace
    from opentelemetry.propagate import inject
except ImportError as _missing:
    raise ImportError(
        "agentrun_transports.opentelemetry needs opentelemetry-api: pip install 'agentrun-proto[otel]'",
        name=_missing.name,
    ) from _missing

__all__ = ["OpenTelemetryListener"]

SCHEMA = "https://opentelemetry.io/schemas/1.23.1"

# "http.request.method": those of RFC 9110, and PATCH (RFC 5789). Any other is _OTHER, and its span is HTTP.
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})

# "http.client.request.duration": the boundaries that the conventions advise, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

# What else is told becomes a span event: of the attempt that is under way, else of the caller's own span.
# By the kind of event: its name, and which of its values are told as attributes.
NOTES: Mapping[type[Event], tuple[str, tuple[str, ...]]] = {
    ClockAdjusted: ("agentrun.clock_adjusted", ("offset",)),
    ConnectionOpened: ("agentrun.connection_opened", ("origin",)),
    ConnectionReused: ("agentrun.connection_reused", ("origin",)),
    CredentialsRefreshFailed: ("agentrun.credentials_refresh_failed", ("error",)),
    CredentialsRefreshed: ("agentrun.credentials_refreshed", ("expires_at",)),
    Redirected: ("agentrun.redirected", ("status", "url", "credential")),
    RetryScheduled: ("agentrun.retry_scheduled", ("attempt", "delay", "reason")),
}


class _Attempt:
    """An attempt that is under way."""

    __slots__ = ("begun", "facts", "span", "status")

    def __init__(self, span: trace.Span, facts: dict[str, str | int], begun: float) -> None:
        self.span = span
        self.facts = facts
        """What the metric is told by; all of it is of few values."""
        self.begun = begun
        self.status: int | None = None


class OpenTelemetryListener:
    """Tells OpenTelemetry what happens; threads, tasks and clients may share one.

    Span attributes: ``http.request.method`` (and ``http.request.method_original`` for one that is not in the
    conventions), ``server.address``, ``server.port``, ``url.full`` (without query and user info),
    ``http.request.resend_count``, ``http.response.status_code``, ``error.type``, and
    ``agentrun.request_id``, which the service's support asks for. A status of 400 or more, a failure and a
    cancellation set the span's status to ERROR.

    Args:
        tracer_provider, meter_provider: whom to tell; unset, the process's own.
        monotonic: seconds that never jump, for the metric.

    Raises:
        ImportError: on import of this module, where the extra ``otel`` is not installed.

    >>> from agentrun_proto import Config
    >>> from agentrun_transports import BlockingClient
    >>> client = BlockingClient(Config(account_id="123"), listener=OpenTelemetryListener())
    """

    __slots__ = ("_durations", "_monotonic", "_open", "_tracer")

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracer = trace.get_tracer("agentrun_proto", __version__, tracer_provider, SCHEMA)
        self._durations = metrics.get_meter(
            "agentrun_proto", __version__, meter_provider, SCHEMA
        ).create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._monotonic = monotonic
        # By call. The events of one call come one after another, and each does one thing to the table: that
        # takes no lock.
        self._open: dict[int, _Attempt] = {}

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        if isinstance(event, RequestSent):
            self._begin(event)
        elif isinstance(event, HeadReceived):
            self._answered(event)
        elif isinstance(event, RequestEnded):
            self._end(event)
        else:
            self._note(event)

    def _begin(self, event: RequestSent) -> None:
        url = urlsplit(event.url)
        known = event.method in METHODS
        facts: dict[str, str | int] = {
            "http.request.method": event.method if known else "_OTHER",
            "server.address": url.hostname or "",
            "server.port": url.port or DEFAULT_PORTS[url.scheme],
        }
        attributes = {**facts, "url.full": event.url}
        if not known:
            attributes["http.request.method_original"] = event.method
        if event.attempt > 1:
            attributes["http.request.resend_count"] = event.attempt - 1
        span = self._tracer.start_span(
            event.method if known else "HTTP", kind=trace.SpanKind.CLIENT, attributes=attributes
        )
        self._open[event.call] = _Attempt(span, facts, self._monotonic())
        inject(event.carrier, trace.set_span_in_context(span))

    def _answered(self, event: HeadReceived) -> None:
        attempt = self._open[event.call]
        attempt.status = attempt.facts["http.response.status_code"] = event.status
        attempt.span.set_attribute("http.response.status_code", event.status)
        if event.request_id is not None:
            attempt.span.set_attribute("agentrun.request_id", event.request_id)

    def _end(self, event: RequestEnded) -> None:
        attempt = self._open.pop(event.call, None)
        if attempt is None:
            return  # its beginning failed here, and that is what the caller hears of
        span = attempt.span
        error, told = _error(event, attempt.status)
        if error is not None:
            attempt.facts["error.type"] = error
            span.set_attribute("error.type", error)
            span.set_status(trace.StatusCode.ERROR, told)
        seconds = self._monotonic() - attempt.begun
        self._durations.record(seconds, attempt.facts, context=trace.set_span_in_context(span))
        span.end()

    def _note(self, event: Event) -> None:
        attempt = self._open.get(event.call)
        span = trace.get_current_span() if attempt is None else attempt.span
        if span.is_recording() and type(event) in NOTES:
            name, parts = NOTES[type(event)]
            values: dict[str, Any] = {f"agentrun.{part}": getattr(event, part) for part in parts}
            span.add_event(name, {key: value for key, value in values.items() if value is not None})


def _error(event: RequestEnded, status: int | None) -> tuple[str | None, str | None]:
    """``error.type``, and what the span's status tells beside it: nothing where the code says it all."""
    if status is not None and status >= 400:
        return str(status), None
    if status is not None and event.error == "RedirectError":
        return None, None  # 3xx is no error of this exchange, whether it is followed or not
    return event.error, event.error
