"""An example: the core's commands performed over httpx, for a program that has an `httpx.Client` already.

Level 1 of `agentrun_transports.embedding`. What httpx decides itself (redirects, cookies, content codings) is
left out, and what it raises is told apart: by the part that failed, and by whether the request went out.

Two things are httpx's own. An answer's left-over bytes reach the next caller: its pool hands a connection on
without looking at them. And its timeouts are for each read, so that a drip ends at the deadline only once the
head has arrived. The transports of this library have neither (docs/httpcore.md says how).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from math import inf
from typing import Any, TypeVar

import httpx

from agentrun_proto import (
    AgentRunClientError,
    Command,
    ConnectError,
    ConnectTimeout,
    Credential,
    CredentialError,
    DecodeError,
    Head,
    Headers,
    IncompleteError,
    PoolTimeout,
    ProtocolError,
    ReadAll,
    ReadInto,
    ReadTimeout,
    Refresh,
    Send,
    TimeoutExceeded,
    TransportError,
    WriteTimeout,
)
from agentrun_transports.embedding import (
    BodyReader,
    FileSink,
    Flights,
    Operation,
    Run,
    Wait,
    drive,
    file_error,
    local_steps,
)

Result = TypeVar("Result")

ERRORS: tuple[tuple[type[Exception], type[TransportError]], ...] = (
    (httpx.PoolTimeout, PoolTimeout),
    (httpx.ConnectTimeout, ConnectTimeout),
    (httpx.WriteTimeout, WriteTimeout),
    (httpx.ReadTimeout, ReadTimeout),
    (httpx.ConnectError, ConnectError),
    (httpx.ProxyError, ConnectError),
    (httpx.NetworkError, IncompleteError),
    (httpx.ProtocolError, ProtocolError),
)


class Clock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


def as_ours(error: Exception) -> AgentRunClientError:
    """The error of this library that says the same."""
    text = str(error)
    if "disconnected without sending" in text or "closed connection without sending" in text:
        return IncompleteError(text)
    kind = next(ours for theirs, ours in ERRORS if isinstance(error, theirs))
    return kind(text or type(error).__name__)


def perform_local(command: Command[Any]) -> Any:
    """What is left of the commands that are not about HTTP."""
    if isinstance(command, Run):
        return command.function()
    if isinstance(command, Wait):
        time.sleep(max(0.0, command.deadline - time.monotonic()))
        raise TimeoutError  # a pause is over
    raise CredentialError("a blocking call cannot await a provider; give a plain function")


class HttpxDriver:
    """Runs operations over an `httpx.Client`."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.flights = Flights()

    def run(self, operation: Operation[Result]) -> Result:
        performer = Performer(self)
        try:
            return drive(operation(Clock), performer.perform)
        finally:
            performer.drop()

    def refresh(self, command: Refresh) -> Credential | None:
        """Renews a credential in a thread of its own, once for all who ask meanwhile."""
        passenger, first = self.flights.join(command.key)
        served = threading.Event()
        passenger.notify = served.set
        if first:
            threading.Thread(target=self.renew, args=(command,), daemon=True).start()
        if not command.wait:
            return None
        left = command.deadline - time.monotonic()
        if not passenger.ready and not served.wait(None if left == inf else left):
            raise TimeoutExceeded("no credential came in time", may_be_processed=False)
        if isinstance(passenger.outcome, AgentRunClientError):
            failed = passenger.outcome
            raise CredentialError(failed.message, status_code=failed.status_code) from failed
        return passenger.outcome

    def renew(self, command: Refresh) -> None:
        outcome: Credential | AgentRunClientError = CredentialError("the refresh failed")
        try:
            outcome = self.run(lambda clock: command.flow())
        except AgentRunClientError as error:
            outcome = error
        finally:
            self.flights.land(command.key, outcome)  # whatever happens: somebody waits for it


class Performer:
    """Performs the commands of one flow."""

    def __init__(self, driver: HttpxDriver) -> None:
        self.driver = driver
        self.client = driver.client
        self.response: httpx.Response | None = None
        self.deadline = inf

    def drop(self) -> None:
        """Closes the answer, and with it the connection if not all of it was read."""
        if self.response is not None:
            self.response.close()
            self.response = None

    def perform(self, command: Command[Any]) -> Any:
        try:
            if isinstance(command, Send):
                return self.send(command)
            if isinstance(command, ReadAll):
                return self.read_all(command.limit)
            if isinstance(command, ReadInto):
                return self.read_into(command.sink)
        except httpx.HTTPError as error:
            self.drop()
            raise as_ours(error) from error
        if isinstance(command, Refresh):
            return self.driver.refresh(command)
        return drive(local_steps(command, Clock), perform_local)

    def send(self, command: Send) -> Head:
        self.drop()
        self.deadline = command.deadline
        reader = BodyReader(command.request.body)
        try:
            self.response = self.client.send(self.build(command, reader), stream=True, follow_redirects=False)
        except (httpx.RemoteProtocolError, httpx.ReadError) as error:
            # RFC 9110, 9.2.2: what dies before an answer may be sent again, if that does it once.
            if command.request.method in ("POST", "PATCH") or isinstance(as_ours(error), ProtocolError):
                raise
            reader.rewind()
            self.response = self.client.send(self.build(command, reader), stream=True, follow_redirects=False)
        fields = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in self.response.headers.raw
        ]
        return Head(status=self.response.status_code, headers=Headers(fields))

    def build(self, command: Send, reader: BodyReader) -> httpx.Request:
        request, timeout = command.request, command.timeout
        left = max(0.001, command.deadline - time.monotonic())
        parts = {part: getattr(timeout, part) or inf for part in ("pool", "connect", "write", "read")}
        bounded = {
            part: None if (least := min(left, seconds)) == inf else least for part, seconds in parts.items()
        }
        return httpx.Request(
            request.method,
            request.url,
            headers=request.fields(),
            content=iter(reader.read, b"") if request.body.length else None,
            extensions={"timeout": bounded, "target": request.target.encode("ascii")},
        )

    def pieces(self) -> Iterator[bytes]:
        """The content as it came, before any coding is taken off: that is the core's to do."""
        if self.response is None:
            raise TransportError("there is no answer to read")
        for piece in self.response.iter_raw():
            if time.monotonic() > self.deadline:
                raise httpx.ReadTimeout("the answer took longer than the call may")
            yield piece
        self.drop()

    def read_all(self, limit: int) -> bytes:
        content = bytearray()
        for piece in self.pieces():
            content += piece
            if len(content) > limit:
                self.drop()
                raise DecodeError(f"the answer is larger than {limit} bytes")
        return bytes(content)

    def read_into(self, sink: Any) -> int:
        assert isinstance(sink, FileSink)
        for piece in self.pieces():
            try:
                sink.write(piece)
            except OSError as error:
                raise file_error(error) from error
        return sink.size
