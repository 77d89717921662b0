"""The emulator's sockets: HTTP/1.1 by h11's server side, one thread for each connection.

Rules that hold here:
1. Nothing is decided here that the service could decide: this file reads requests, asks ``Service``, and
   performs what the response says, faults included.
2. One thread owns a connection. From outside, it is only ever shut down (which wakes the thread), never
   closed.
3. ``close`` ends every wait, joins every thread, and removes what was made: sockets, the socket's path,
   temporary files.
4. No request is held in memory: beyond ``_SPOOL`` bytes, its body goes through a temporary file.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import tempfile
import threading
import time
import uuid
from collections import deque
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import h11

from .messages import FileBody, Request, Response
from .service import DEFAULT_BODY_LIMIT, Service
from .verify import Account

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

# How much is read at once, and how much of a body stays in memory, in bytes.
_CHUNK = 256 << 10
_SPOOL = 1 << 20
# The longest head: queries of 30 KB are the service's business, 8 MB of header are not.
_MAX_HEAD = 128 << 10
# How long the rest of a refused body is read, in seconds, so that the refusal is not lost to a reset
# connection.
_LINGER = 5.0
# How much of each received body is kept for `Emulator.requests`.
_KEEP_BODY = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """A request that arrived, for tests to look at.

    ``connection`` is the number of the connection it came on, from 1; ``body`` its first 64 KiB, and
    ``body_length`` how long it was. ``headers`` do not show in the ``repr``: they hold credentials.
    """

    connection: int
    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    body_length: int

    def header(self, name: str) -> str | None:
        """Return the first value of the field ``name`` (any case), or None."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class RequestLog:
    """How many requests arrived whole, and the last of them. Threads may share it."""

    def __init__(self, keep: int) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._last: deque[ReceivedRequest] = deque(maxlen=keep)

    def add(self, request: ReceivedRequest) -> None:
        """Count a request."""
        with self._lock:
            self._count += 1
            self._last.append(request)

    @property
    def count(self) -> int:
        """How many arrived."""
        return self._count

    @property
    def last(self) -> list[ReceivedRequest]:
        """The last requests, oldest first."""
        with self._lock:
            return list(self._last)


class Emulator:
    """The AgentRun data plane and GetAccessToken, on a port of this machine. It runs from when it is made.

    - ``port``: 0 takes a free one. ``host``: the address to listen on. ``unix_socket``: a path to listen on
      instead; it must not exist, and is removed in the end. ``ssl_context``: a server-side context, to
      serve ``https``.
    - ``folder``: where resources, files and sandboxes are kept over restarts; None: in a temporary folder.
    - ``account_id``, ``access_key_id``, ``access_key_secret``, ``security_token``, ``region``: who may
      sign, and for which region; ``token``: an access token that is valid from the start.
    - ``now``: the wall time, in seconds since the epoch. ``new_id``: makes names that were never made before.
    - ``body_limit``: the longest request body, in bytes; beyond it, 413.
    - ``idle_timeout``: seconds of silence after which a connection is closed.
    - ``keep_requests``: how many of the last requests ``requests.last`` holds.

    Attributes: ``service`` (its ``faults`` and ``token_fetches``), ``requests``, ``port``, ``endpoint``,
    ``environment``, ``connections``. Raises ``OSError`` where it cannot listen.

    >>> with Emulator() as emulator:
    ...     print(emulator.endpoint == f"http://127.0.0.1:{emulator.port}", emulator.requests.count)
    True 0
    """

    def __init__(
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        folder: Path | str | None = None,
        account_id: str = "123456789",
        access_key_id: str = "emulator-id",
        access_key_secret: str = "emulator-secret",
        security_token: str | None = None,
        token: str = "emulator-token",
        region: str = "cn-hangzhou",
        ssl_context: ssl.SSLContext | None = None,
        unix_socket: Path | str | None = None,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        body_limit: int = DEFAULT_BODY_LIMIT,
        idle_timeout: float = 60.0,
        keep_requests: int = 1000,
    ) -> None:
        account = Account(
            access_key_id=access_key_id, access_key_secret=access_key_secret, security_token=security_token
        )
        self.requests = RequestLog(keep_requests)
        self.idle_timeout = idle_timeout
        self.closing = threading.Event()
        self._ssl_context = ssl_context
        self._lock = threading.Lock()
        self._connections: dict[_Connection, threading.Thread] = {}
        self._accepted = 0
        with ExitStack() as stack:
            self._listener = stack.enter_context(_listen(host, port, unix_socket))
            if unix_socket is not None:
                stack.callback(Path(unix_socket).unlink, missing_ok=True)
            if folder is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="agentrun-emulator-"))
            self.folder = Path(folder)
            self.service = Service(
                accounts=[account],
                tokens=[token],
                region=region,
                now=now,
                new_id=new_id,
                folder=self.folder,
                body_limit=body_limit,
            )
            self._waker, self._wake = socket.socketpair()
            stack.callback(self._waker.close)
            stack.callback(self._wake.close)
            self.port = 0 if unix_socket is not None else cast("int", self._listener.getsockname()[1])
            scheme = "http" if ssl_context is None else "https"
            authority = f"[{host}]" if ":" in host else host
            self.endpoint = (
                f"{scheme}://{authority}:{self.port}" if unix_socket is None else f"{scheme}://localhost"
            )
            self.environment = {
                "AGENTRUN_DATA_ENDPOINT": self.endpoint,
                "AGENTRUN_CONTROL_ENDPOINT": self.endpoint,
                "AGENTRUN_ACCESS_KEY_ID": access_key_id,
                "AGENTRUN_ACCESS_KEY_SECRET": access_key_secret,
                "AGENTRUN_ACCOUNT_ID": account_id,
                "AGENTRUN_REGION": region,
                **({} if security_token is None else {"AGENTRUN_SECURITY_TOKEN": security_token}),
            }
            self._acceptor = threading.Thread(target=self._accept, name="emulator", daemon=True)
            self._acceptor.start()
            self._made = stack.pop_all()

    def __enter__(self) -> Emulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """How many connections have been accepted so far."""
        return self._accepted

    def wait(self) -> None:
        """Wait until another thread closes the emulator, or a ``KeyboardInterrupt`` ends the wait."""
        self.closing.wait()

    def close(self) -> None:
        """Stop listening, end all connections, join all threads, remove what was made; again is fine."""
        with self._lock:
            first = not self.closing.is_set()
            self.closing.set()
        if first:
            self._wake.send(b"\0")
            self._acceptor.join()
            with self._lock:
                running = dict(self._connections)
            for connection in running:
                connection.shut_down()
            for thread in running.values():
                thread.join()
            self._made.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._waker, selectors.EVENT_READ)
            while True:
                selector.select()
                if self.closing.is_set():
                    return
                try:
                    sock, _ = self._listener.accept()
                except OSError:
                    # Gone before it was accepted, or no descriptor is free: then one will be, soon.
                    self.closing.wait(0.01)
                    continue
                self._begin(sock)

    def _begin(self, sock: socket.socket) -> None:
        self._accepted += 1
        try:
            sock.settimeout(self.idle_timeout)
            if sock.family != getattr(socket, "AF_UNIX", None):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._ssl_context is not None:
                sock = self._ssl_context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:  # the peer has gone already
            sock.close()
            return
        connection = _Connection(sock, self, self._accepted)
        thread = threading.Thread(
            target=self._run, args=(connection,), name=f"emulator-{self._accepted}", daemon=True
        )
        with self._lock:
            self._connections[connection] = thread
        thread.start()

    def _run(self, connection: _Connection) -> None:
        try:
            connection.run()
        finally:
            with self._lock:
                del self._connections[connection]


def _listen(host: str, port: int, unix_socket: Path | str | None) -> socket.socket:
    if unix_socket is None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(unix_socket))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


class _Connection:
    """One connection, from accept to close. ``run`` is its thread; ``shut_down`` may come from any other."""

    def __init__(self, sock: socket.socket, emulator: Emulator, number: int) -> None:
        self._sock = sock
        self._emulator = emulator
        self._service = emulator.service
        self._number = number
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)

    def shut_down(self) -> None:
        """Wake the thread of this connection: whatever it waits for ends."""
        try:
            # Not SSLSocket.shutdown: that drops the TLS state under the thread that uses it.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:
            pass

    def run(self) -> None:
        """Serve until either side has had enough."""
        with closing(self._sock):
            try:
                if isinstance(self._sock, ssl.SSLSocket):
                    self._sock.do_handshake()
                while self._serve_one():
                    pass
            except OSError:  # reset, timed out, no TLS, or shut down by close()
                pass

    def _serve_one(self) -> bool:
        """Read and answer one request; return whether another may follow."""
        try:
            event = self._next_event()
            if not isinstance(event, h11.Request):
                return False
            request = Request(
                method=event.method.decode("ascii"),
                target=event.target.decode("ascii"),
                headers=tuple(
                    (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers
                ),
            )
            refusal = self._service.admit(request)
            with tempfile.SpooledTemporaryFile(max_size=_SPOOL, dir=str(self._emulator.folder)) as body:
                length = 0 if refusal is not None else self._read_body(body)
                if length > self._service.body_limit:
                    refusal = self._service.too_large(request)
                if refusal is not None:
                    self._log(request, b"", 0)
                    self._give_up(refusal)
                    return False
                body.seek(0)
                self._log(request, body.read(_KEEP_BODY), length)
                body.seek(0)
                return self._answer(
                    Request(method=request.method, target=request.target, headers=request.headers, body=body)
                )
        except h11.RemoteProtocolError as error:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                message = f"This is not HTTP/1.1: {error}."
                self._give_up(self._service.broken(error.error_status_hint, message))
            return False

    def _log(self, request: Request, body: bytes, length: int) -> None:
        self._emulator.requests.add(
            ReceivedRequest(
                connection=self._number,
                method=request.method,
                target=request.target,
                headers=request.headers,
                body=body,
                body_length=length,
            )
        )

    def _next_event(self) -> h11.Event:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                # PAUSED cannot come: the cycle ends before the next event is asked for.
                return cast("h11.Event", event)
            if self._http.they_are_waiting_for_100_continue:
                interim = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                self._sock.sendall(self._http.send(interim) or b"")
            self._http.receive_data(self._sock.recv(_CHUNK))

    def _read_body(self, body: IO[bytes]) -> int:
        """Read the request's body; return its length, or one above the limit as soon as that is known."""
        length = 0
        while isinstance(event := self._next_event(), h11.Data):
            length += len(event.data)
            if length > self._service.body_limit:
                break
            body.write(event.data)
        return length

    def _answer(self, request: Request) -> bool:
        try:
            response = self._service.handle(request)
        except Exception as error:
            self._send(self._service.broken(500, f"The emulator failed: {type(error).__name__}."))
            raise
        if response.delay and self._emulator.closing.wait(response.delay):
            return False
        if response.drop or not self._send(response, again=request):
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        if response.drop_next:
            self._await_arrival()
            return False
        self._http.start_next_cycle()
        return True

    def _send(self, response: Response, again: Request | None = None) -> bool:
        """Send an answer; return whether it went out whole.

        A file that was replaced between the answer and its opening is gone: then the same is asked
        ``again``, which a download may be, as it changes nothing.
        """
        body = response.body
        if isinstance(body, FileBody):
            try:
                file = body.path.open("rb")
            except FileNotFoundError:
                if again is None:
                    raise
                return self._send(self._service.handle(again))
            with file:
                return self._transmit(
                    response, len(body), lambda count: self._sock.sendfile(file, body.offset, count)
                )
        return self._transmit(response, len(body), None)

    def _transmit(self, response: Response, length: int, send_file: Callable[[int], object] | None) -> bool:
        """Send the head and ``length`` bytes of body, or what ``cut_after`` leaves of it."""
        head = (
            self._http.send(h11.Response(status_code=response.status, headers=list(response.headers))) or b""
        )
        cut = response.cut_after is not None and response.cut_after < length
        count = response.cut_after if cut and response.cut_after is not None else length
        if send_file is None:
            assert isinstance(response.body, bytes)
            self._sock.sendall(head + response.body[:count])
        else:
            self._sock.sendall(head)
            # With an offset but a count of 0, sendfile refuses.
            if count:
                send_file(count)
        if cut:
            return False
        if length:
            # h11 counts the bytes of a body and does not look at them.
            self._http.send_with_data_passthrough(h11.Data(data=cast("bytes", _Counted(length))))
        self._http.send(h11.EndOfMessage())
        return True

    def _await_arrival(self) -> None:
        """Wait for the first byte of another request, without reading it."""
        if self._http.trailing_data[0]:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            selector.select(self._emulator.idle_timeout)

    def _give_up(self, refusal: Response) -> None:
        """Refuse a request that has not been read whole, and be done with the connection.

        What still comes is read on for a while: closing with unread bytes would reset the refusal away
        (RFC 9112 9.6).
        """
        self._send(replace(refusal, headers=(*refusal.headers, ("Connection", "close"))))
        socket.socket.shutdown(self._sock, socket.SHUT_WR)
        end = time.monotonic() + _LINGER
        while (left := end - time.monotonic()) > 0 and not self._emulator.closing.is_set():
            self._sock.settimeout(left)
            # Below TLS: what is thrown away need not be deciphered.
            if not socket.socket.recv(self._sock, _CHUNK):
                return


class _Counted:
    """Stands for so many bytes that were sent past h11."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


def serve(
    port: int = 0,
    *,
    host: str = "127.0.0.1",
    folder: Path | str | None = None,
    region: str = "cn-hangzhou",
    ready: Callable[[Emulator], None] = lambda emulator: None,
) -> None:
    """Run an emulator until ``KeyboardInterrupt``; ``ready`` is called with it once it listens.

    ``port``, ``host``, ``folder`` and ``region`` are those of ``Emulator``. Raises ``OSError`` where it
    cannot listen.

    >>> serve(ready=lambda emulator: emulator.close())
    """
    with Emulator(port, host=host, folder=folder, region=region) as emulator:
        ready(emulator)
        try:
            emulator.wait()
        except KeyboardInterrupt:
            pass
