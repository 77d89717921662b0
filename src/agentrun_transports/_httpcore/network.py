"""Between httpcore and the sockets: deadlines that hold, and connections that are looked at before each use.

- httpcore knows a timeout for each step. What it is given as one is an `Allowance`, a number that knows the
  deadline of the whole call, and which every step asks how much is left.
- httpcore hands an HTTP/1.1 connection on without looking at what came after the answer, and the next caller
  gets it. Here a `Wire` follows every connection, and one that is not to be used again tells the pool that
  it is "readable", which is how the pool recognises what it has to close. Under HTTP/2 each answer carries
  the number of its request, and there is nothing to guard.

Rules of this file: it decides nothing about requests; it keeps the books on each, for those who do.
"""

from __future__ import annotations

import ssl
import sys
import weakref
from math import inf
from typing import Any, TypeVar, cast

import httpcore
from agentrun_proto import (
    AgentRunClientError,
    Clock,
    ConnectError,
    ConnectTimeout,
    IncompleteError,
    PoolTimeout,
    ProtocolError,
    ReadTimeout,
    TimeoutExceeded,
    TLSError,
    WriteTimeout,
)

from .._addresses import resolve
from .._proxies import Proxy
from .._wire import BUFFER_SIZE, Wire

_PIECE = 65536  # bytes written at once; the deadline is looked at before each

_TIMEOUTS: tuple[tuple[type[Exception], type[TimeoutExceeded], str], ...] = (
    (
        httpcore.PoolTimeout,
        PoolTimeout,
        "no connection became free in time; raise the limits, or the timeout",
    ),
    (httpcore.ConnectTimeout, ConnectTimeout, "no connection in time"),
    (httpcore.WriteTimeout, WriteTimeout, "the request could not be sent in time"),
    (httpcore.ReadTimeout, ReadTimeout, "the service did not answer, or stopped answering, in time"),
)


class Vanished(IncompleteError):
    """The connection was gone before the first byte of an answer."""


class Call:
    """One request on its way, as the network sees it."""

    __slots__ = ("answered", "begun", "clock", "deadline", "ended", "fresh", "proxy", "stream")

    def __init__(self, clock: Clock, deadline: float, proxy: Proxy | None) -> None:
        self.clock = clock
        self.deadline = deadline
        self.proxy = proxy
        self.fresh = False  # a connection was made for it
        self.begun = False  # a byte of it has been sent to the service, or may have been
        self.answered = False  # a byte of the answer has come
        self.ended = False  # the peer has closed the connection
        self.stream: Any = None  # what was connected for it

    @property
    def stuck(self) -> bool:
        """Whether it failed between connecting and sending, where httpcore leaves sockets open."""
        return self.stream is not None and not self.begun

    def translate(self, error: Exception) -> AgentRunClientError:
        """The documented error that says what httpcore's says."""
        text = str(error) or type(error).__name__
        via = "" if self.proxy is None else f" (by the proxy {self.proxy})"
        if not self.begun and not isinstance(error, httpcore.PoolTimeout):
            if isinstance(error, httpcore.TimeoutException):
                return ConnectTimeout(f"no connection in time{via}")
            if isinstance(error, httpcore.LocalProtocolError):
                return ProtocolError(text, may_be_processed=False)
            if _caused_by(error, ssl.SSLError):
                return TLSError(f"the TLS handshake failed{via}: {text}")
            return ConnectError(f"cannot connect{via}: {text}")
        for theirs, ours, message in _TIMEOUTS:
            if isinstance(error, theirs):
                return ours(message)
        if self.ended or isinstance(error, (httpcore.NetworkError, OSError)):
            if not self.answered:
                return Vanished("the connection was closed before an answer came")
            return IncompleteError("the connection was closed in the middle of the answer")
        return ProtocolError(f"the answer is not well-formed: {text}")


def _caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


class Allowance(float):
    """How many seconds a part may take, never beyond the deadline of the call that it belongs to."""

    __slots__ = ("call",)
    call: Call

    @classmethod
    def of(cls, part: float | None, call: Call) -> Allowance:
        """The allowance for a part of a call; None: bounded by the call alone."""
        self = cls(inf if part is None else part)
        self.call = call
        return self

    def until(self) -> float:
        """The deadline of a step that begins now, monotonic."""
        return min(self.call.clock.monotonic() + self, self.call.deadline)

    def left(self, late: type[Exception]) -> float | None:
        """Seconds for a step that begins now, as httpcore wants them; raises `late` if there are none."""
        return _seconds(self.until() - self.call.clock.monotonic(), late)


def _seconds(left: float, late: type[Exception]) -> float | None:
    if left <= 0:
        raise late("the deadline has passed")
    return None if left == inf else left


class Watch:
    """Follows an HTTP/1.1 connection, to know whether a further request may use it."""

    __slots__ = ("_answering", "_awaits_head", "_room", "_wire", "fit")

    def __init__(self) -> None:
        self._wire = Wire()
        self._room = memoryview(bytearray(BUFFER_SIZE))
        self._answering = False
        self._awaits_head = False
        self.fit = True
        """Whether all that was asked is answered, and nothing was said unasked."""

    def sent(self, data: bytes | memoryview) -> None:
        """These bytes go out: the start of a request, or more of it."""
        if not self._answering:
            self._wire.begin(bytes(data[:32]).split(b" ", 1)[0].decode("latin-1"))
            self._answering = self._awaits_head = True
            self.fit = False

    def received(self, data: bytes) -> None:
        """These bytes have come."""
        view = memoryview(data)
        try:
            while view:
                room = self._wire.get_buffer() if self._answering else memoryview(b"")
                if not room:
                    # Said unasked, or after the answer. Nothing makes up for it.
                    self._answering, self.fit = True, False
                    self._wire.spoil()
                    return
                count = min(len(room), len(view))
                room[:count] = view[:count]
                self._wire.received(count)
                view = view[count:]
                self._follow()
        except AgentRunClientError:
            self._wire.spoil()  # httpcore has its own say about this answer; the connection has had its last

    def _follow(self) -> None:
        wire = self._wire
        if self._awaits_head:
            if wire.read_head() is None:
                return
            self._awaits_head = False
        while not wire.done:
            if wire.fill(self._room) is None:
                return
        self._answering = False
        self.fit = wire.reusable


class Watched:
    """What the blocking and the asynchronous stream have in common: the books they keep."""

    __slots__ = ("_clock", "_connect_until", "_tunnel", "_watch")

    def __init__(self, clock: Clock, connect_until: float, watch: Watch | None) -> None:
        self._clock = clock
        self._connect_until = connect_until
        self._watch = watch
        self._tunnel = False

    def _left(self, timeout: float | None, late: type[Exception]) -> float | None:
        if isinstance(timeout, Allowance):
            return timeout.left(late)
        # httpcore sets no timeout while it talks to a SOCKS proxy: that belongs to the connecting.
        left = self._connect_until - self._clock.monotonic()
        return _seconds(left if timeout is None else min(left, timeout), late)

    def _note_sent(self, data: bytes, timeout: float | None) -> None:
        if not isinstance(timeout, Allowance):
            return
        if not self._tunnel and not timeout.call.begun and data.startswith(b"CONNECT "):
            self._tunnel = True  # what follows the proxy's answer is another stream, made by start_tls
        if self._tunnel:
            return
        timeout.call.begun = True
        if self._watch is not None:
            self._watch.sent(data)

    def _note_received(self, data: bytes, timeout: float | None) -> None:
        if self._tunnel or not isinstance(timeout, Allowance):
            return
        if data:
            timeout.call.answered = True
            if self._watch is not None:
                self._watch.received(data)
        else:
            timeout.call.ended = True

    def _is_fit(self, stream: httpcore.NetworkStream | httpcore.AsyncNetworkStream) -> bool:
        """Whether a further request may use the connection, as far as can be told without its socket."""
        if self._watch is None or not self._watch.fit:
            return self._watch is None
        secure = stream.get_extra_info("ssl_object")
        return not isinstance(secure, ssl.SSLObject) or not _holds_more(secure)


def _holds_more(secure: ssl.SSLObject) -> bool:
    """Whether an idle TLS layer over memory has taken in records that nobody has read, or is at its end."""
    try:
        secure.read(1)
    except ssl.SSLWantReadError:
        return False
    except (ssl.SSLError, OSError):
        pass
    return True


def _watch_for(ssl_object: Any) -> Watch | None:
    h2 = ssl_object is not None and ssl_object.selected_alpn_protocol() == "h2"
    return None if h2 else Watch()


class Stream(Watched, httpcore.NetworkStream):
    """A connection for blocking calls."""

    def __init__(
        self, stream: httpcore.NetworkStream, clock: Clock, connect_until: float, watch: Watch | None
    ) -> None:
        super().__init__(clock, connect_until, watch)
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(max_bytes, self._left(timeout, httpcore.ReadTimeout))
        self._note_received(data, timeout)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._note_sent(buffer, timeout)
        try:
            for start in range(0, len(buffer), _PIECE):
                self._stream.write(buffer[start : start + _PIECE], self._left(timeout, httpcore.WriteTimeout))
        except BaseException:
            del buffer  # a traceback may be shown with its locals
            raise

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _seconds(self._connect_until - self._clock.monotonic(), httpcore.ConnectTimeout)
        host = None if server_hostname is None else server_hostname.strip("[]")
        stream = self._stream.start_tls(ssl_context, host, left)
        watch = _watch_for(stream.get_extra_info("ssl_object"))
        return _note_stream(Stream(stream, self._clock, self._connect_until, watch), timeout)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and not self._is_fit(self._stream):
            return True
        return self._stream.get_extra_info(info)


class Backend(httpcore.NetworkBackend):
    """Connects for blocking calls."""

    def __init__(self, clock: Clock) -> None:
        self._backend = httpcore.SyncBackend()
        self._clock = clock

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        until = _connecting(timeout)
        try:
            addresses = resolve(host.strip("[]"), port, until)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        failure: Exception = httpcore.ConnectError("the name has no address")
        for position, (_, address) in enumerate(addresses):
            left = _seconds(until - self._clock.monotonic(), httpcore.ConnectTimeout)
            share = None if left is None else left / (len(addresses) - position)
            try:
                stream = self._backend.connect_tcp(address[0], address[1], share, None, ())
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _note_stream(Stream(stream, self._clock, until, Watch()), timeout)
        raise failure

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Any = None
    ) -> httpcore.NetworkStream:
        until = _connecting(timeout)
        left = _seconds(until - self._clock.monotonic(), httpcore.ConnectTimeout)
        stream = self._backend.connect_unix_socket(path, left, ())
        return _note_stream(Stream(stream, self._clock, until, Watch()), timeout)


AnyStream = TypeVar("AnyStream")


def _note_stream(stream: AnyStream, timeout: float | None) -> AnyStream:
    """Has the call know what was connected for it."""
    cast("Allowance", timeout).call.stream = stream
    return stream


def _connecting(timeout: float | None) -> float:
    """The deadline for connecting, and a note that the call has a connection of its own."""
    allowance = cast("Allowance", timeout)  # it is what we gave
    allowance.call.fresh = True
    return allowance.until()


class AsyncStream(Watched, httpcore.AsyncNetworkStream):
    """A connection for asynchronous calls."""

    def __init__(
        self, stream: httpcore.AsyncNetworkStream, clock: Clock, connect_until: float, watch: Watch | None
    ) -> None:
        super().__init__(clock, connect_until, watch)
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, self._left(timeout, httpcore.ReadTimeout))
        self._note_received(data, timeout)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._note_sent(buffer, timeout)
        try:
            for start in range(0, len(buffer), _PIECE):
                left = self._left(timeout, httpcore.WriteTimeout)
                await self._stream.write(buffer[start : start + _PIECE], left)
        except BaseException:
            del buffer  # a traceback may be shown with its locals
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        left = _seconds(self._connect_until - self._clock.monotonic(), httpcore.ConnectTimeout)
        host = None if server_hostname is None else server_hostname.strip("[]")
        stream = await self._stream.start_tls(ssl_context, host, left)
        watch = _watch_for(stream.get_extra_info("ssl_object"))
        return _note_stream(AsyncStream(stream, self._clock, self._connect_until, watch), timeout)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and not self._is_fit(self._stream):
            return True
        return self._stream.get_extra_info(info)


def abort_all(streams: weakref.WeakSet[AsyncStream]) -> None:
    """Closes trio's sockets, which takes no waiting."""
    for stream in list(streams):
        stream.get_extra_info("socket").close()


class AsyncBackend(httpcore.AsyncNetworkBackend):
    """Connects for asynchronous calls."""

    def __init__(self, clock: Clock, streams: weakref.WeakSet[AsyncStream]) -> None:
        self._streams = streams
        backend = httpcore.TrioBackend if in_trio() else httpcore.AnyIOBackend
        # Either may be a stand-in, where what it is made of is not installed; its type then says nothing.
        self._backend = cast("httpcore.AsyncNetworkBackend", backend())
        self._clock = clock

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        until = _connecting(timeout)
        left = _seconds(until - self._clock.monotonic(), httpcore.ConnectTimeout)
        stream = await self._backend.connect_tcp(host.strip("[]"), port, left, None, ())
        return self._keep(_note_stream(AsyncStream(stream, self._clock, until, Watch()), timeout))

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Any = None
    ) -> httpcore.AsyncNetworkStream:
        until = _connecting(timeout)
        left = _seconds(until - self._clock.monotonic(), httpcore.ConnectTimeout)
        stream = await self._backend.connect_unix_socket(path, left, ())
        return self._keep(_note_stream(AsyncStream(stream, self._clock, until, Watch()), timeout))

    def _keep(self, stream: AsyncStream) -> AsyncStream:
        self._streams.add(stream)
        return stream


def in_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and cast("bool", trio.lowlevel.in_trio_run())
