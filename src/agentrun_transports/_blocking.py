"""Blocking I/O: the network of plain sockets, and the driver of about fifteen lines.

Rules of this file: every wait has the deadline it was given, by the monotonic clock; a socket's timeout is
set again only where it would end too early or too late; one client may be shared by threads.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, cast

from agentrun_proto import Clock, Command, Origin, TLSError

from ._addresses import FOREVER, open_first, open_socket, resolve, seconds_left
from ._blocking_call import warn_in_a_loop
from ._drive import drive
from ._exchange import Exchange
from ._flights import Flights
from ._network import Await, Connect, Link, Operation, Read, Run, SendFile, Spawn, Steps, Wait, Write
from ._pool import Limits, Pool
from ._readiness import Readiness
from ._streams import BlockingRun
from ._tls import TLS, tls_context
from ._wire import Wire

if TYPE_CHECKING:
    import ssl


Result = TypeVar("Result")

_SLACK = 0.02  # seconds by which a socket's timeout may be late without being set anew; the promise is 50 ms


class SystemClock:
    """The machine's clocks."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class BlockingLink:
    """A connected socket."""

    __slots__ = ("_monotonic", "_sock", "_timeout", "_tls", "idle_since", "origin", "ready", "used", "wire")

    def __init__(
        self, sock: socket.socket, origin: Origin, *, tls: bool, monotonic: Callable[[], float]
    ) -> None:
        self.origin = origin
        self.wire = Wire()
        self.used = False
        self.idle_since = 0.0
        self._sock = sock
        self._tls = tls
        self._timeout: float | None = None
        self._monotonic = monotonic
        self.ready = Readiness(sock.fileno())

    def abort(self) -> None:
        """Closes it at once."""
        self._sock.close()

    def arm(self, deadline: float) -> None:
        """Sets the socket's timeout so that it ends at the deadline (monotonic seconds)."""
        left = deadline - self._monotonic()
        if left <= 0:
            raise TimeoutError
        armed = inf if self._timeout is None else self._timeout
        if not left <= armed <= left + _SLACK:
            self._timeout = left if left < FOREVER else None
            self._sock.settimeout(self._timeout)

    def write(self, data: bytes | memoryview, deadline: float, *, watch: bool) -> int:
        """Sends some of it; with `watch`, whatever arrives ends the wait for room."""
        if watch and not self.ready.until_writable(deadline - self._monotonic()):
            return 0
        self.arm(deadline)
        return self._sock.send(data)

    @property
    def sends_files(self) -> bool:
        """Whether the system can send files by itself here."""
        return not self._tls and hasattr(os, "sendfile")

    def send_file(self, descriptor: int, offset: int, count: int, deadline: float) -> int | None:
        """Sends some of a file; whatever arrives ends the wait for room."""
        self._timeout = 0.0
        self._sock.settimeout(0.0)
        while self.ready.until_writable(deadline - self._monotonic()):
            try:
                return os.sendfile(self._sock.fileno(), descriptor, offset, count)
            except BlockingIOError:
                pass  # there was less room than it takes
        return None

    def read(self) -> int:
        """Receives into the wire."""
        count = self._sock.recv_into(self.wire.get_buffer())
        self.wire.received(count)
        return count

    def take_in(self) -> int | None:
        """Takes into the wire what has arrived, without waiting; 0 at the end, None if nothing has."""
        if not self.ready.readable() and not (self._tls and cast("ssl.SSLSocket", self._sock).pending()):
            return None
        self._timeout = 0.0
        self._sock.settimeout(0.0)
        try:
            return self.read()
        except OSError as error:
            # Under TLS, what is readable may be the peer's session tickets: no bytes for us.
            return None if self._tls and error.errno == _want_read() else 0


def _want_read() -> int:
    import ssl

    return ssl.SSL_ERROR_WANT_READ


class BlockingNetwork:
    """Connects, reads, writes and waits with blocking sockets."""

    clock: Clock = SystemClock()

    def __init__(self, tls: TLS, unix_socket: str | None = None) -> None:
        self.random: Callable[[int], bytes] = os.urandom
        self._tls = tls
        self._unix_socket = unix_socket
        self._perform: dict[type, Callable[[Any], Any]] = {
            Connect: self._connect,
            Write: self._write,
            SendFile: self._send_file,
            Read: self._read,
            Wait: self._wait,
            Run: self._run,
            Await: self._await,
            Spawn: self._spawn,
        }

    def drive(self, steps: Steps[Result]) -> Result:
        """Performs network commands until their flow returns."""
        return drive(steps, self.perform)

    def perform(self, command: Command[Any]) -> Any:
        """Performs one network command."""
        return self._perform[type(command)](command)

    def _connect(self, command: Connect) -> BlockingLink:
        origin, deadline = command.origin, command.deadline
        context = tls_context(self._tls) if origin.scheme == "https" else None
        sock = self._dial(origin, deadline)
        try:
            if context is not None:
                sock = self._handshake(sock, context, origin, deadline)
        except BaseException:
            sock.close()
            raise
        return BlockingLink(sock, origin, tls=origin.scheme == "https", monotonic=self.clock.monotonic)

    def _dial(self, origin: Origin, deadline: float) -> socket.socket:
        """A connected socket, before any TLS."""
        if self._unix_socket is not None:
            return open_socket(socket.AF_UNIX, self._unix_socket, seconds_left(deadline))
        return open_first(resolve(origin.host.strip("[]"), origin.port, deadline), deadline)

    def _handshake(
        self, sock: socket.socket, context: ssl.SSLContext, origin: Origin, deadline: float
    ) -> socket.socket:
        import ssl

        wrapped = context.wrap_socket(
            sock,
            server_hostname=origin.host.strip("[]"),
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,  # a body that ends with the connection must be seen to end
        )
        try:
            wrapped.settimeout(seconds_left(deadline))
            wrapped.do_handshake()
        except ssl.SSLError as error:
            wrapped.close()
            raise TLSError(f"the TLS handshake with {origin} failed: {error}") from error
        except BaseException:
            wrapped.close()
            raise
        return wrapped

    def _write(self, command: Write) -> int:
        link = cast("BlockingLink", command.link)
        return link.write(command.data, command.deadline, watch=command.watch)

    def _send_file(self, command: SendFile) -> int | None:
        link = cast("BlockingLink", command.link)
        return link.send_file(command.descriptor, command.offset, command.count, command.deadline)

    def _read(self, command: Read) -> int:
        link = cast("BlockingLink", command.link)
        link.arm(command.deadline)
        return link.read()

    def _wait(self, command: Wait) -> None:
        ticket = command.ticket
        served = threading.Event()
        ticket.notify = served.set
        # It may have been served before it could notify us.
        if not ticket.ready and not served.wait(seconds_left(command.deadline)):
            raise TimeoutError

    def _run(self, command: Run[Any]) -> Any:
        return command.function()

    def _await(self, command: Await[Any]) -> Any:
        raise command.otherwise

    def _spawn(self, command: Spawn) -> None:
        self.spawn(partial(self.drive, command.flow), command.done)

    def spawn(self, run: Callable[[], None], done: Callable[[], None]) -> None:
        """Has `run` called in a thread of its own, and `done` when that is over."""

        def work() -> None:
            try:
                run()
            finally:
                done()

        context = copy_context()
        thread = threading.Thread(target=context.run, args=(work,), name="agentrun-refresh", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be had, as at the interpreter's end: the caller waits for it
            work()


class BlockingSession:
    """Connections for blocking calls, made as needed, and closed when the session is no longer used.

    Threads may share it. A forked child starts with none of its parent's connections.
    """

    def __init__(
        self,
        tls: TLS | None,
        limits: Limits | None,
        unix_socket: str | None,
        network: BlockingNetwork | None = None,
    ) -> None:
        self._network = network or BlockingNetwork(tls or TLS(), unix_socket)
        self._limits = limits or Limits()
        self._warned = False
        self._start()
        _sessions.add(self)

    def _start(self) -> None:
        self.pool: Pool[Link] = Pool(self._limits, self._network.clock.monotonic)
        self._flights = Flights()
        self._finalizer = weakref.finalize(self, self.pool.close)

    def after_fork(self) -> None:
        """In the child: lets go of what is the parent's; closing a copied descriptor ends no connection."""
        inherited = self.pool
        self._finalizer.detach()
        self._start()  # first: whatever the parent's pool was in the middle of, this one is whole
        for link in inherited.idle_unlocked():
            link.abort()

    @property
    def clock(self) -> Clock:
        """What time it is."""
        return self._network.clock

    def run(self, operation: Operation[Result]) -> Result:
        """Performs an operation's flow and returns its result."""
        self._warn()
        network = self._network
        exchange = Exchange(self.pool, network.clock, self._flights, network.random)
        return network.drive(exchange.conduct(operation(network.clock)))

    def begin(self, operation: Operation[None]) -> BlockingRun:
        """Begins a flow that is run from one delivery to the next."""
        self._warn()
        network = self._network
        exchange = Exchange(self.pool, network.clock, self._flights, network.random)
        return BlockingRun(exchange.conduct(operation(network.clock)), network.perform)

    def _warn(self) -> None:
        if not self._warned:
            self._warned = warn_in_a_loop()

    def close(self) -> None:
        """Closes the idle connections, and those in use once their calls are done."""
        self.pool.close()


_sessions: weakref.WeakSet[BlockingSession] = weakref.WeakSet()


def _after_fork() -> None:
    for session in list(_sessions):
        session.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork, and this is asked at import
    os.register_at_fork(after_in_child=_after_fork)
