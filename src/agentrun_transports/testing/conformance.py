"""One suite for every driver: the same commands, the same results, whoever performs them.

A *driver* runs operations on some loop, over some network. `CASES` is a table of what may happen to an
operation: each row plays it against a server of this machine, says what must come of it, and has the
*transcript* of it, which is every command that the flow yields and what it is answered. A driver conforms
where each row holds and each transcript is the one in the table.

Rules that hold here: no test framework is imported; a row asks nothing of the driver that a user would not;
nobody sleeps, and no row asserts how long something took.

>>> from contextlib import closing
>>> from agentrun_transports.embedding import Limits
>>> from agentrun_transports.testing.conformance import BY_NAME, check
>>> from agentrun_transports._blocking import BlockingSession
>>> class Blocking:
...     def __init__(self, limits):
...         self._session = BlockingSession(None, limits, None)
...         self.run, self.close = self._session.run, self._session.close
...     @property
...     def open(self):
...         return self._session.pool.open
>>> check(BY_NAME["success"], Blocking)
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from agentrun_proto import (
    AccessToken,
    AgentRunClientError,
    Clock,
    Command,
    Config,
    ConnectError,
    ConnectTimeout,
    CredentialError,
    DataEndpoint,
    DecodeError,
    FileError,
    Flow,
    Head,
    IncompleteError,
    NotFoundError,
    OpenSink,
    OpenSource,
    PayloadTooLargeError,
    PoolTimeout,
    ProtocolError,
    ReadTimeout,
    Resource,
    Retry,
    Send,
    ServiceUnavailableError,
    Timeout,
    WriteTimeout,
)

from .._network import Operation
from .._pool import Limits
from ..emulator import Emulator, Fault
from .scripted import PATIENCE, Drip, Script, ScriptedServer, Step, Tell, answer

__all__ = [
    "BY_NAME",
    "CASES",
    "Cancelling",
    "Case",
    "Concurrent",
    "Driver",
    "NotApplicable",
    "OpenDriver",
    "Stage",
    "check",
]

Result = TypeVar("Result")

_SHORT = 0.2  # seconds until a timeout that is meant to be met
_LATER = 1.0  # the same, where something else is to happen before it
_BIG = 24 << 20  # bytes: more than the buffers of both ends hold

_ONCE = Retry.never()  # most rows are about one attempt
_SOON = Retry(backoff=0.001)
_SANDBOX = Resource(type="sandbox", name="sb-1")


@runtime_checkable
class Driver(Protocol):
    """A loop, and the connections that belong to it, as long as it is not closed."""

    def run(self, operation: Operation[Result]) -> Result:
        """Runs an operation to its end, on connections that earlier operations have left."""
        ...

    @property
    def open(self) -> int | None:
        """How many connections are open, or None where the driver cannot tell."""
        ...

    def close(self) -> None:
        """Closes the connections, and ends the loop."""
        ...


@runtime_checkable
class Concurrent(Driver, Protocol):
    """A driver that can run several operations at the same time."""

    def together(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Begins them in this order, and returns what came of each: its result, or its error."""
        ...


@runtime_checkable
class Cancelling(Driver, Protocol):
    """A driver whose operations can be cancelled."""

    def cancel(self, operation: Operation[Any], when: Event) -> None:
        """Begins an operation, and cancels it when the event is set; returns when it is over.

        Raises:
            AssertionError: it ended without being cancelled.
        """
        ...


OpenDriver = Callable[[Limits], Driver]
"""Makes a driver that has this many connections."""


class NotApplicable(Exception):
    """A case asks for something that this driver, or this machine, does not have; the message says what."""


class Stage:
    """What a case plays on: a driver, servers on demand, a folder, and the transcript so far."""

    def __init__(self, driver: Driver, folder: Path, stack: ExitStack) -> None:
        self.driver = driver
        self.folder = folder
        self.transcript: list[str] = []
        self._stack = stack

    def emulate(
        self, *, retry: Retry = _ONCE, resource: Resource | None = None, **options: Any
    ) -> tuple[Emulator, DataEndpoint]:
        """An emulator, and the endpoint to talk to it: with a resource's token, or else with a signature."""
        emulator = self._stack.enter_context(Emulator(**options))
        config = Config(retry=retry).merge(Config.from_env(emulator.environment))
        return emulator, DataEndpoint(config, resource=resource)

    def script(
        self,
        *scripts: Script,
        full: bool = False,
        timeout: Timeout | float = PATIENCE,
        retry: Retry = _ONCE,
    ) -> tuple[ScriptedServer, DataEndpoint]:
        """A scripted server, and the endpoint to talk to it."""
        server = self._stack.enter_context(ScriptedServer(*scripts, full=full))
        config = Config(data_endpoint=server.url, timeout=timeout, retry=retry)
        return server, DataEndpoint(config, "n")

    def file(self, size: int) -> Path:
        """A file of so many bytes, none like the next."""
        path = self.folder / "report.bin"
        pattern = bytes(range(256)) * 4096
        with path.open("wb") as file:
            for start in range(0, size, len(pattern)):
                file.write(pattern[: size - start])
        return path

    def run(self, operation: Operation[Result]) -> Result:
        """Has the driver run it, and keeps the transcript."""
        return self.driver.run(self.recorded(operation))

    def fail(self, operation: Operation[Any], kind: type[AgentRunClientError]) -> AgentRunClientError:
        """Has the driver run what must fail with an error of exactly this class, and returns that."""
        try:
            result = self.run(operation)
        except AgentRunClientError as error:
            _must(type(error) is kind, f"{kind.__name__} was due, not {type(error).__name__}: {error}")
            return error
        raise AssertionError(f"{kind.__name__} was due, not {result!r}")

    def recorded(self, operation: Operation[Result]) -> Operation[Result]:
        """The operation, with everything that passes between its flow and the driver written down."""

        def run(clock: Clock) -> Flow[Result]:
            flow = operation(clock)
            try:
                command = flow.send(None)
                while True:
                    self.transcript.append(_told(command))
                    try:
                        reply = yield command
                    except AgentRunClientError as error:
                        self.transcript.append(f"! {type(error).__name__}")
                        command = flow.throw(error)
                    else:
                        self.transcript.append(f"= {_shown(reply)}")
                        command = flow.send(reply)
            except StopIteration as stop:
                return cast("Result", stop.value)
            finally:
                flow.close()

        return run

    def assert_closed(self) -> None:
        """After a failure, no connection is left open."""
        _must(self.driver.open in (None, 0), f"{self.driver.open} connections are open after a failure")

    def assert_next_is_right(self, endpoint: DataEndpoint) -> None:
        """The next call gets its own answer, in whatever time; only of a scripted server."""
        patient = endpoint.overlaid(Config(timeout=PATIENCE))
        own = self.driver.run(_get(patient, "own"))
        _must(own == {"target": "/2025-09-10/n/own"}, f"the next call got {own!r}")


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _told(command: Command[Any]) -> str:
    if isinstance(command, Send):
        request = command.request
        return f"Send {request.method} {request.target} {request.body.length}"
    if isinstance(command, (OpenSource, OpenSink)) and isinstance(command.path, str):
        return f"{type(command).__name__} {os.path.basename(command.path)}"
    return type(command).__name__


def _shown(reply: object) -> str:
    if isinstance(reply, Head):
        return str(reply.status)
    # What a service says of times and ids differs from run to run; how much it says, then, too.
    return str(reply) if isinstance(reply, int) else "content" if isinstance(reply, bytes) else "done"


def _get(endpoint: DataEndpoint, path: str) -> Operation[dict[str, Any]]:
    request = endpoint.request("GET", path)
    return lambda clock: endpoint.call(request, clock=clock)


def _post(endpoint: DataEndpoint, path: str, data: object) -> Operation[dict[str, Any]]:
    request = endpoint.request("POST", path, data=data)
    return lambda clock: endpoint.call(request, clock=clock)


def _upload(endpoint: DataEndpoint, local: Path) -> Operation[dict[str, Any]]:
    return lambda clock: endpoint.upload(
        "files",
        str(local),
        filename="report.bin",
        boundary="0123456789abcdef",
        fields={"path": "/data/report.bin"},
        clock=clock,
    )


def _download(endpoint: DataEndpoint, remote: str, local: Path) -> Operation[int]:
    request = endpoint.file_request("files", query={"path": remote})
    return lambda clock: endpoint.download(request, str(local), clock=clock)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- what may happen


def _success(stage: Stage) -> None:
    emulator, endpoint = stage.emulate()
    created = stage.run(_post(endpoint, "resources", {"name": "first"}))
    _must(created["data"]["name"] == "first", f"what was created is {created!r}")
    _must(stage.run(_get(endpoint, "resources?limit=1"))["data"]["total"] == 1, "it is not listed")
    _must([request.method for request in emulator.requests.last] == ["POST", "GET"], "what arrived")


def _keep_alive(stage: Stage) -> None:
    emulator, endpoint = stage.emulate()
    for _ in range(5):
        stage.run(_get(endpoint, "resources"))
    _must(emulator.connections == 1, f"5 calls took {emulator.connections} connections")
    _must(stage.driver.open in (None, 1), f"{stage.driver.open} connections are open")


def _refusal(stage: Stage) -> None:
    _, endpoint = stage.emulate()
    error = stage.fail(_get(endpoint, "resources/missing"), NotFoundError)
    _must(error.status_code == 404 and bool(error.error_code) and bool(error.request_id), f"{vars(error)}")


def _overloaded(stage: Stage) -> None:
    emulator, endpoint = stage.emulate()
    emulator.service.faults.add(Fault(status=503, retry_after="1"), count=None)
    error = stage.fail(_post(endpoint, "resources", {"name": "x"}), ServiceUnavailableError)
    _must(error.retry_after == 1.0, f"retry_after is {error.retry_after}")


def _html(stage: Stage) -> None:
    _, endpoint = stage.script(answer(b"<html>Welcome</html>", fields="Content-Type: text/html\r\n"))
    stage.fail(_get(endpoint, "page"), DecodeError)
    stage.assert_next_is_right(endpoint)


def _array(stage: Stage) -> None:
    _, endpoint = stage.script(answer([1, 2]))
    error = stage.fail(_get(endpoint, "array"), DecodeError)
    _must(cast("DecodeError", error).value == [1, 2], "the error has the decoded value")


def _chunked(stage: Stage) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    _, endpoint = stage.script(head + b'5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n')
    _must(stage.run(_get(endpoint, "chunks")) == {"a": 1}, "chunks are put together")
    stage.assert_next_is_right(endpoint)


def _cut_short(stage: Stage) -> None:
    _, endpoint = stage.script([b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"a":1}', Step.CLOSE])
    stage.fail(_get(endpoint, "cut"), IncompleteError)
    stage.assert_closed()
    stage.assert_next_is_right(endpoint)


def _nonsense(stage: Stage) -> None:
    _, endpoint = stage.script([b"SSH-2.0-OpenSSH_9.6\r\n\r\n", Step.STALL])
    stage.fail(_get(endpoint, "ssh"), ProtocolError)
    stage.assert_closed()
    stage.assert_next_is_right(endpoint)


def _left_over(stage: Stage) -> None:
    _, endpoint = stage.script(answer({"a": 1}) + answer({"evil": 1}))
    _must(stage.run(_get(endpoint, "twice")) == {"a": 1}, "the first answer counts")
    stage.assert_next_is_right(endpoint)


def _refused_connection(stage: Stage) -> None:
    server, endpoint = stage.script()
    server.close()
    error = stage.fail(_post(endpoint, "nobody", {"a": 1}), ConnectError)
    _must(not error.may_be_processed, "nobody was there to process it")
    stage.assert_closed()


def _pool_timeout(stage: Stage) -> None:
    driver = stage.driver
    if not isinstance(driver, Concurrent):
        raise NotApplicable("the driver runs one operation at a time")
    _, endpoint = stage.script([Step.STALL], timeout=Timeout(total=PATIENCE, read=_LATER, pool=_SHORT))
    first, second = driver.together([_get(endpoint, "first"), _get(endpoint, "second")])
    kinds: set[type[Any]] = {type(first), type(second)}
    _must(kinds == {ReadTimeout, PoolTimeout}, f"{first!r}, {second!r}")
    error = next(error for error in (first, second) if isinstance(error, PoolTimeout))
    _must(not error.may_be_processed, "it was never sent")
    stage.assert_closed()
    stage.assert_next_is_right(endpoint)


def _connect_timeout(stage: Stage) -> None:
    if sys.platform != "linux":
        raise NotApplicable("the queue of a listening socket is filled as Linux does it")
    _, endpoint = stage.script(full=True, timeout=Timeout(total=PATIENCE, connect=_SHORT))
    error = stage.fail(_post(endpoint, "full", {"a": 1}), ConnectTimeout)
    _must(not error.may_be_processed, "it was never sent")
    stage.assert_closed()


def _write_timeout(stage: Stage) -> None:
    _, endpoint = stage.script([Step.EARLY, Step.STALL], timeout=Timeout(total=PATIENCE, write=_SHORT))
    stage.fail(_post(endpoint, "big", bytes(_BIG)), WriteTimeout)
    stage.assert_closed()
    stage.assert_next_is_right(endpoint)


def _read_timeout(stage: Stage) -> None:
    _, endpoint = stage.script([Step.STALL], timeout=Timeout(total=PATIENCE, read=_SHORT))
    error = stage.fail(_post(endpoint, "silence", {"a": 1}), ReadTimeout)
    _must(error.may_be_processed, "it was sent")
    stage.assert_closed()
    stage.assert_next_is_right(endpoint)


def _read_timeout_in_body(stage: Stage) -> None:
    _, endpoint = stage.script(
        [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", Step.STALL],
        timeout=Timeout(total=PATIENCE, read=_LATER),
    )
    stage.fail(_get(endpoint, "silence"), ReadTimeout)
    stage.assert_closed()
    stage.assert_next_is_right(endpoint)


def _deadline(stage: Stage) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    _, endpoint = stage.script([head, Drip(b"y")], timeout=_LATER)
    stage.fail(_get(endpoint, "drip"), ReadTimeout)
    stage.assert_closed()


def _stale_get(stage: Stage) -> None:
    server, endpoint = stage.script(answer({"n": 1}), [Step.CLOSE])
    stage.run(_get(endpoint, "first"))
    _must(stage.run(_get(endpoint, "again")) == {"target": "/2025-09-10/n/again"}, "it is sent once more")
    told = [(request.connection, request.target[-5:]) for request in server.requests]
    _must(told == [(0, "first"), (0, "again"), (1, "again")], f"what arrived: {told}")


def _stale_post(stage: Stage) -> None:
    server, endpoint = stage.script(answer({"n": 1}), [Step.CLOSE])
    stage.run(_get(endpoint, "first"))
    error = stage.fail(_post(endpoint, "again", {"a": 1}), IncompleteError)
    _must(error.may_be_processed, "the service may have acted on it")
    _must(len(server.requests) == 2, "a POST is sent once")
    stage.assert_closed()
    stage.assert_next_is_right(endpoint)


def _idle_closed(stage: Stage) -> None:
    gone = Event()
    _, endpoint = stage.script([answer({"n": 1}, fields="Connection: close\r\n"), Step.CLOSE, Tell(gone)])
    stage.run(_get(endpoint, "first"))
    created = stage.run(_post(endpoint, "second", {"a": 1}))
    _must(created == {"target": "/2025-09-10/n/second"}, f"on a new connection: {created!r}")


def _always_gone(stage: Stage) -> None:
    server, endpoint = stage.script(*[[Step.CLOSE]] * 8)
    stage.fail(_get(endpoint, "gone"), IncompleteError)
    _must(len(server.requests) <= 3, f"it was sent {len(server.requests)} times")
    stage.assert_closed()


def _early_refusal(stage: Stage) -> None:
    _, endpoint = stage.emulate(body_limit=1000)
    error = stage.fail(_upload(endpoint, stage.file(4 << 20)), PayloadTooLargeError)
    _must(error.status_code == 413, f"{error}")


def _up_and_down(stage: Stage) -> None:
    emulator, endpoint = stage.emulate()
    sent = stage.file(3_000_017)
    uploaded = stage.run(_upload(endpoint, sent))
    _must(uploaded["code"] == "SUCCESS", f"{uploaded!r}")
    saved = stage.folder / "copy.bin"
    saved.write_bytes(b"old")
    _must(stage.run(_download(endpoint, "/data/report.bin", saved)) == 3_000_017, "its size")
    _must(_digest(saved) == _digest(sent), "it comes back as it went")
    _must(emulator.connections == 1, f"both took {emulator.connections} connections")
    _must(
        {path.name for path in stage.folder.iterdir()} == {"report.bin", "copy.bin"}, "nothing else is left"
    )


def _refused_download(stage: Stage) -> None:
    _, endpoint = stage.emulate()
    saved = stage.folder / "copy.bin"
    saved.write_bytes(b"old")
    stage.fail(_download(endpoint, "/missing", saved), NotFoundError)
    _must(saved.read_bytes() == b"old", "the old file is untouched")
    _must([path.name for path in stage.folder.iterdir()] == ["copy.bin"], "nothing else is left")


def _cut_download(stage: Stage) -> None:
    emulator, endpoint = stage.emulate()
    stage.run(_upload(endpoint, stage.file(100_000)))
    emulator.service.faults.add(Fault(cut=5000))
    saved = stage.folder / "copy.bin"
    stage.fail(_download(endpoint, "/data/report.bin", saved), IncompleteError)
    _must([path.name for path in stage.folder.iterdir()] == ["report.bin"], "nothing partial remains")
    stage.assert_closed()


def _missing_file(stage: Stage) -> None:
    emulator, endpoint = stage.emulate()
    error = stage.fail(_upload(endpoint, stage.folder / "missing.bin"), FileError)
    _must(not error.may_be_processed, "it was never sent")
    _must(emulator.connections == 0, "no connection was opened")


def _cancelled(stage: Stage) -> None:
    driver = stage.driver
    if not isinstance(driver, Cancelling):
        raise NotApplicable("the driver's operations cannot be cancelled")
    arrived = Event()
    _, endpoint = stage.script([Tell(arrived), Step.STALL])
    driver.cancel(stage.recorded(_get(endpoint, "slow")), arrived)
    stage.assert_closed()
    stage.assert_next_is_right(endpoint)


def _cancelled_download(stage: Stage) -> None:
    driver = stage.driver
    if not isinstance(driver, Cancelling):
        raise NotApplicable("the driver's operations cannot be cancelled")
    arrived = Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    _, endpoint = stage.script([head + bytes(500_000), Tell(arrived), Step.STALL])
    driver.cancel(_download(endpoint, "/data", stage.folder / "copy.bin"), arrived)
    _must(list(stage.folder.iterdir()) == [], "nothing partial remains")
    stage.assert_closed()
    stage.assert_next_is_right(endpoint)


def _side_by_side(stage: Stage) -> None:
    driver = stage.driver
    if not isinstance(driver, Concurrent):
        raise NotApplicable("the driver runs one operation at a time")
    _, endpoint = stage.script()
    results = driver.together([_get(endpoint, f"call-{number}") for number in range(20)])
    own = [{"target": f"/2025-09-10/n/call-{number}"} for number in range(20)]
    _must(results == own, f"each call gets its own answer, not {results!r}")


def _retried(stage: Stage) -> None:
    emulator, endpoint = stage.emulate(retry=_SOON)
    emulator.service.faults.add(Fault(status=503), count=2)
    created = stage.run(_post(endpoint, "resources", {"name": "first"}))
    _must(created["data"]["name"] == "first", f"what was created is {created!r}")
    _must(emulator.requests.count == 3, f"it was sent {emulator.requests.count} times")
    _must(emulator.connections == 1, f"that took {emulator.connections} connections")


def _given_up(stage: Stage) -> None:
    emulator, endpoint = stage.emulate(retry=_SOON)
    emulator.service.faults.add(Fault(status=503), count=None)
    error = stage.fail(_get(endpoint, "resources"), ServiceUnavailableError)
    _must(len(error.attempts) == 3, f"the error tells of {error.attempts}")


def _ambiguous_post(stage: Stage) -> None:
    server, endpoint = stage.script([Step.CLOSE], retry=_SOON)
    error = stage.fail(_post(endpoint, "once", {"a": 1}), IncompleteError)
    _must(error.may_be_processed, "the service may have acted on it")
    _must(len(server.requests) == 1, "a POST that may have been processed is sent once")
    stage.assert_closed()
    stage.assert_next_is_right(endpoint)


def _retried_upload(stage: Stage) -> None:
    emulator, endpoint = stage.emulate(retry=_SOON)
    emulator.service.faults.add(Fault(status=503), match="POST")
    sent = stage.file(3_000_017)
    stage.run(_upload(endpoint, sent))
    lengths = [request.body_length for request in emulator.requests.last]
    _must(lengths == [3_000_017 + _FORM] * 2, f"each attempt carries all of it, not {lengths}")
    saved = stage.folder / "copy.bin"
    stage.driver.run(_download(endpoint, "/data/report.bin", saved))
    _must(_digest(saved) == _digest(sent), "it arrives as it is")


def _retried_download(stage: Stage) -> None:
    emulator, endpoint = stage.emulate(retry=_SOON)
    sent = stage.file(3_000_017)
    stage.driver.run(_upload(endpoint, sent))
    emulator.service.faults.add(Fault(cut=1_000_000), match="GET")
    saved = stage.folder / "copy.bin"
    _must(stage.run(_download(endpoint, "/data/report.bin", saved)) == 3_000_017, "its size")
    _must(_digest(saved) == _digest(sent), "it goes on where it was cut")
    _must(
        {path.name for path in stage.folder.iterdir()} == {"report.bin", "copy.bin"}, "nothing else is left"
    )


def _redirected(stage: Stage) -> None:
    moved = answer(b"", "307 Temporary Redirect", "Location: /2025-09-10/n/there\r\n")
    server, endpoint = stage.script(moved)
    found = stage.run(_get(endpoint, "here"))
    _must(found == {"target": "/2025-09-10/n/there"}, f"what lies there, not {found!r}")
    _must(server.connections == 1, f"that took {server.connections} connections")


def _refreshed(stage: Stage) -> None:
    emulator, endpoint = stage.emulate(retry=_SOON, resource=_SANDBOX)
    stage.run(_get(endpoint, "resources"))
    _revoke(emulator, endpoint)
    stage.run(_get(endpoint, "resources"))
    _must(emulator.service.token_fetches == 2, f"{emulator.service.token_fetches} tokens were fetched")


def _refresh_refused(stage: Stage) -> None:
    emulator, endpoint = stage.emulate(resource=_SANDBOX)
    emulator.service.faults.add(Fault(status=403), match="GET /2025-09-10/agents/accessToken")
    error = stage.fail(_get(endpoint, "resources"), CredentialError)
    _must(error.status_code == 403 and error.__cause__ is not None, f"{error!r} tells why")
    stage.driver.run(_get(endpoint, "resources"))  # the next call asks anew


def _refreshed_once(stage: Stage) -> None:
    driver = stage.driver
    if not isinstance(driver, Concurrent):
        raise NotApplicable("the driver runs one operation at a time")
    emulator, endpoint = stage.emulate(retry=_SOON, resource=_SANDBOX)
    stage.driver.run(_get(endpoint, "resources"))
    _revoke(emulator, endpoint)
    results = driver.together([_get(endpoint, "resources") for _ in range(20)])
    failed = [result for result in results if isinstance(result, AgentRunClientError)]
    _must(not failed, f"{len(failed)} calls failed, with {failed[:1]!r}")
    _must(emulator.service.token_fetches == 2, f"{emulator.service.token_fetches - 1} refreshes, not one")


def _revoke(emulator: Emulator, endpoint: DataEndpoint) -> None:
    credential = endpoint.identity.credential
    assert isinstance(credential, AccessToken)
    emulator.service.revoke_token(credential.token.reveal())


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A row of the table.

    Args:
        name: what happens.
        play: plays it; raises AssertionError where the outcome is not the due one.
        transcript: what must pass between the flows and the driver.
        limits: how many connections the driver may have.
    """

    name: str
    play: Callable[[Stage], None]
    transcript: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


def _sent(path: str, *replies: str, method: str = "GET", size: int = 0) -> tuple[str, ...]:
    """The transcript of one call: it is sent, it is answered, and its content is read."""
    told = (f"Send {method} /2025-09-10/{path} {size}", *replies)
    return told if replies[-1].startswith("!") else (*told, "ReadAll", "= content")


_FORM = 239  # bytes that a form adds to the file in it
_OPENED = ("OpenSource report.bin", "= done")
_REFRESHED = ("Refresh", "= done")  # what it takes is done beside, and not in this flow
_PAUSED = ("RandomBytes", "= content", "Sleep", "= done")

CASES: tuple[Case, ...] = (
    Case(
        name="success",
        play=_success,
        transcript=(
            *_sent("agents/resources", "= 200", method="POST", size=16),
            *_sent("agents/resources?limit=1", "= 200"),
        ),
    ),
    Case(name="keep_alive", play=_keep_alive, transcript=_sent("agents/resources", "= 200") * 5),
    Case(name="refusal", play=_refusal, transcript=_sent("agents/resources/missing", "= 404")),
    Case(
        name="overloaded",
        play=_overloaded,
        transcript=_sent("agents/resources", "= 503", method="POST", size=12),
    ),
    Case(name="html", play=_html, transcript=_sent("n/page", "= 200")),
    Case(name="array", play=_array, transcript=_sent("n/array", "= 200")),
    Case(name="chunked", play=_chunked, transcript=_sent("n/chunks", "= 200")),
    Case(
        name="cut_short",
        play=_cut_short,
        transcript=("Send GET /2025-09-10/n/cut 0", "= 200", "ReadAll", "! IncompleteError"),
    ),
    Case(name="nonsense", play=_nonsense, transcript=_sent("n/ssh", "! ProtocolError")),
    Case(name="left_over", play=_left_over, transcript=_sent("n/twice", "= 200")),
    Case(
        name="refused_connection",
        play=_refused_connection,
        transcript=_sent("n/nobody", "! ConnectError", method="POST", size=7),
    ),
    Case(name="pool_timeout", play=_pool_timeout, limits=Limits(total=1, per_origin=1)),
    Case(
        name="connect_timeout",
        play=_connect_timeout,
        transcript=_sent("n/full", "! ConnectTimeout", method="POST", size=7),
    ),
    Case(
        name="write_timeout",
        play=_write_timeout,
        transcript=_sent("n/big", "! WriteTimeout", method="POST", size=_BIG),
    ),
    Case(
        name="read_timeout",
        play=_read_timeout,
        transcript=_sent("n/silence", "! ReadTimeout", method="POST", size=7),
    ),
    Case(
        name="read_timeout_in_body",
        play=_read_timeout_in_body,
        transcript=("Send GET /2025-09-10/n/silence 0", "= 200", "ReadAll", "! ReadTimeout"),
    ),
    Case(
        name="deadline",
        play=_deadline,
        transcript=("Send GET /2025-09-10/n/drip 0", "= 200", "ReadAll", "! ReadTimeout"),
    ),
    Case(
        name="stale_get",
        play=_stale_get,
        transcript=(*_sent("n/first", "= 200"), *_sent("n/again", "= 200")),
    ),
    Case(
        name="stale_post",
        play=_stale_post,
        transcript=(
            *_sent("n/first", "= 200"),
            *_sent("n/again", "! IncompleteError", method="POST", size=7),
        ),
    ),
    Case(
        name="idle_closed",
        play=_idle_closed,
        transcript=(*_sent("n/first", "= 200"), *_sent("n/second", "= 200", method="POST", size=7)),
    ),
    Case(name="always_gone", play=_always_gone, transcript=_sent("n/gone", "! IncompleteError")),
    Case(
        name="early_refusal",
        play=_early_refusal,
        transcript=(
            *_OPENED,
            *_sent("agents/files", "= 413", method="POST", size=(4 << 20) + _FORM),
        ),
    ),
    Case(
        name="up_and_down",
        play=_up_and_down,
        transcript=(
            *_OPENED,
            *_sent("agents/files", "= 200", method="POST", size=3_000_017 + _FORM),
            "OpenSink copy.bin",
            "= done",
            "Send GET /2025-09-10/agents/files?path=%2Fdata%2Freport.bin 0",
            "= 200",
            "Prepare",
            "= done",
            "ReadInto",
            "= 3000017",
            "Commit",
            "= done",
        ),
    ),
    Case(
        name="refused_download",
        play=_refused_download,
        transcript=("OpenSink copy.bin", "= done", *_sent("agents/files?path=%2Fmissing", "= 404")),
    ),
    Case(
        name="cut_download",
        play=_cut_download,
        transcript=(
            *_OPENED,
            *_sent("agents/files", "= 200", method="POST", size=100_000 + _FORM),
            "OpenSink copy.bin",
            "= done",
            "Send GET /2025-09-10/agents/files?path=%2Fdata%2Freport.bin 0",
            "= 200",
            "Prepare",
            "= done",
            "ReadInto",
            "! IncompleteError",
        ),
    ),
    Case(name="missing_file", play=_missing_file, transcript=("OpenSource missing.bin", "! FileError")),
    Case(name="cancelled", play=_cancelled, transcript=("Send GET /2025-09-10/n/slow 0",)),
    Case(name="cancelled_download", play=_cancelled_download),
    Case(name="side_by_side", play=_side_by_side, limits=Limits(total=4, per_origin=4)),
    Case(
        name="retried",
        play=_retried,
        transcript=(
            *(*_sent("agents/resources", "= 503", method="POST", size=16), *_PAUSED) * 2,
            *_sent("agents/resources", "= 200", method="POST", size=16),
        ),
    ),
    Case(
        name="given_up",
        play=_given_up,
        transcript=(
            *(*_sent("agents/resources", "= 503"), *_PAUSED) * 2,
            *_sent("agents/resources", "= 503"),
        ),
    ),
    Case(
        name="ambiguous_post",
        play=_ambiguous_post,
        transcript=_sent("n/once", "! IncompleteError", method="POST", size=7),
    ),
    Case(
        name="retried_upload",
        play=_retried_upload,
        transcript=(
            *_OPENED,
            *_sent("agents/files", "= 503", method="POST", size=3_000_017 + _FORM),
            *_PAUSED,
            "Rewind",
            "= done",
            *_sent("agents/files", "= 200", method="POST", size=3_000_017 + _FORM),
        ),
    ),
    Case(
        name="retried_download",
        play=_retried_download,
        transcript=(
            "OpenSink copy.bin",
            "= done",
            "Send GET /2025-09-10/agents/files?path=%2Fdata%2Freport.bin 0",
            "= 200",
            "Prepare",
            "= done",
            "ReadInto",
            "! IncompleteError",
            "Send GET /2025-09-10/agents/files?path=%2Fdata%2Freport.bin 0",
            "= 206",
            "Prepare",
            "= done",
            "ReadInto",
            "= 3000017",
            "Commit",
            "= done",
        ),
    ),
    Case(
        name="redirected",
        play=_redirected,
        transcript=(*_sent("n/here", "= 307"), *_sent("n/there", "= 200")),
    ),
    Case(
        name="refreshed",
        play=_refreshed,
        transcript=(
            *_REFRESHED,
            *_sent("agents/resources", "= 200"),
            *_sent("agents/resources", "= 401"),
            *_REFRESHED,
            *_sent("agents/resources", "= 200"),
        ),
    ),
    Case(name="refresh_refused", play=_refresh_refused, transcript=("Refresh", "! CredentialError")),
    Case(name="refreshed_once", play=_refreshed_once, limits=Limits(total=4, per_origin=4)),
)
"""What may happen to an operation, and what must come of it."""

BY_NAME = {case.name: case for case in CASES}
"""The rows by their names."""


def check(case: Case, open_driver: OpenDriver) -> None:
    """Plays a case on a new driver, which is closed in the end.

    Raises:
        AssertionError: the driver does not conform; the message says in what.
        NotApplicable: the driver, or this machine, lacks what the case asks for.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentrun-conformance-")))
        driver = stack.enter_context(closing(open_driver(case.limits)))
        stage = Stage(driver, folder, stack)
        case.play(stage)
    told = tuple(stage.transcript)
    if told != case.transcript:
        raise AssertionError(f"the transcript of {case.name} is {told}, not {case.transcript}")
