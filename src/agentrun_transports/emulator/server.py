"""The emulator's sockets: it listens, and gives each connection a thread.

``close`` ends every wait, joins every thread, and removes what was made: sockets, the socket's path,
temporary files.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import tempfile
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .connection import Connection
from .log import RequestLog
from .service import DEFAULT_BODY_LIMIT, Service
from .verify import Account

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


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
    - ``streams``: the emulator to which the URLs of super agents' streams lead, as another origin; None: this
      one.

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
        streams: Emulator | None = None,
    ) -> None:
        account = Account(
            access_key_id=access_key_id, access_key_secret=access_key_secret, security_token=security_token
        )
        self.requests: RequestLog = RequestLog(keep_requests)
        self.idle_timeout = idle_timeout
        self.closing: threading.Event = threading.Event()
        self._ssl_context = ssl_context
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._ended: list[threading.Thread] = []  # whose connection is over, and which are so in a moment
        self._accepted = 0
        with ExitStack() as stack:
            self._listener = stack.enter_context(_listen(host, port, unix_socket))
            if unix_socket is not None:
                stack.callback(Path(unix_socket).unlink, missing_ok=True)
            if folder is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="agentrun-emulator-"))
            self.folder: Path = Path(folder)
            self.port: int = 0 if unix_socket is not None else cast("int", self._listener.getsockname()[1])
            scheme = "http" if ssl_context is None else "https"
            authority = f"[{host}]" if ":" in host else host
            self.endpoint = (
                f"{scheme}://{authority}:{self.port}" if unix_socket is None else f"{scheme}://localhost"
            )
            self.service: Service = Service(
                accounts=[account],
                tokens=[token],
                region=region,
                now=now,
                new_id=new_id,
                folder=self.folder,
                body_limit=body_limit,
                origin=self.endpoint if streams is None else streams.endpoint,
                streams=None if streams is None else streams.service.runs,
            )
            self._waker, self._wake = socket.socketpair()
            stack.callback(self._waker.close)
            stack.callback(self._wake.close)
            self.environment: dict[str, str] = {
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
                running, ended = dict(self._connections), self._ended
            for connection in running:
                connection.shut_down()
            for thread in [*running.values(), *ended]:
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
        connection = Connection(sock, self, self._accepted)
        thread = threading.Thread(
            target=self._run, args=(connection,), name=f"emulator-{self._accepted}", daemon=True
        )
        with self._lock:
            self._connections[connection] = thread
            ended, self._ended = self._ended, []
        for over in ended:
            over.join()
        thread.start()

    def _run(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            with self._lock:
                self._ended.append(self._connections.pop(connection))


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
