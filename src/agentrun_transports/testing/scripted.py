"""A server that plays scripts: bytes, closes, resets, silence. It says what no HTTP library would.

Rules of this file: the server knows nothing of the client under test; it speaks and listens in bytes; every
thread and socket of it ends with it.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any

PATIENCE = 30.0
"""Seconds after which a step that waits for something gives up; reached only where something is wrong."""


class Step(Enum):
    """What a script may do beside saying bytes."""

    EARLY = "first step: play the rest when the head has arrived, without reading the body"
    CLOSE = "close politely, having read what was sent"
    RESET = "close with a reset"
    STALL = "do nothing more, and keep the connection open until the server is closed"


@dataclass(frozen=True, slots=True)
class Drip:
    """Say these bytes again and again, a few times a second, until the client has gone."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Tell:
    """Set an event, so that the test knows how far the script is."""

    event: threading.Event


@dataclass(frozen=True, slots=True)
class Await:
    """Wait until the test has set an event."""

    event: threading.Event


Script = bytes | Sequence[bytes | Step | Drip | Tell | Await]
"""What is played for one request; bytes alone are said. The connection then stays open for the next one."""


def answer(content: bytes | dict[str, Any] | list[Any], status: str = "200 OK", fields: str = "") -> bytes:
    """A plain answer: JSON where it is not bytes, with a Content-Length.

    >>> answer(b"ok", fields="X-A: 1\\r\\n")
    b'HTTP/1.1 200 OK\\r\\nX-A: 1\\r\\nContent-Length: 2\\r\\n\\r\\nok'
    """
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedRequest:
    """A request as it came: on which connection (from 0), its head with the empty line, its body."""

    connection: int
    head: bytes = field(repr=False)
    body: bytes = field(repr=False)
    method: str
    target: str


class ScriptedServer:
    """Plays the n-th script for the n-th request, whichever connection it comes on.

    When the scripts are over, each request is answered with ``{"target": its own target}``, so that every
    call can tell whether the answer is its own.

    Args:
        scripts: see `Script`.
        full: accept nobody, and have the queue of those who wait full: no connection can be made (Linux).

    >>> import http.client
    >>> with ScriptedServer(answer(b"first")) as server:
    ...     connection = http.client.HTTPConnection("127.0.0.1", server.port)
    ...     for target in ("/a", "/b"):
    ...         connection.request("GET", target)
    ...         print(connection.getresponse().read().decode())
    ...     connection.close()
    first
    {"target": "/b"}
    """

    def __init__(self, *scripts: Script, full: bool = False) -> None:
        self._scripts = list(scripts)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._socks: list[socket.socket] = []
        self._requests: list[ScriptedRequest] = []
        self._accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0 if full else 128)
        self.port: int = self._listener.getsockname()[1]
        if full:
            self._fill_queue()
        else:
            self._start(self._accept)

    @property
    def url(self) -> str:
        """The URL that it serves."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections have been accepted so far."""
        return self._accepted

    @property
    def requests(self) -> list[ScriptedRequest]:
        """The requests that have arrived so far; with `Step.EARLY`, without their bodies."""
        with self._lock:
            return list(self._requests)

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every connection and every thread; harmless if it has been done."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._threads:
            # Accepting is woken everywhere by a connection alone; it starts no thread any more.
            socket.create_connection(("127.0.0.1", self.port)).close()
            self._threads[0].join()
        for sock in self._socks:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that uses it
            except OSError:
                pass
        for thread in self._threads:
            thread.join()
        for sock in [self._listener, *self._socks]:
            sock.close()

    def _fill_queue(self) -> None:
        for _ in range(2):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(self._listener.getsockname())
            self._socks.append(sock)

    def _start(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=self._guarded, args=(target, *args), name="scripted", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guarded(self, target: Any, *args: Any) -> None:
        try:
            target(*args)
        except OSError:
            pass  # the client has gone, or the server is being closed

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._socks.append(sock)
                number = self._accepted
                self._accepted += 1
            if self._closing.is_set():
                return
            self._start(self._serve, sock, number)

    def _serve(self, sock: socket.socket, number: int) -> None:
        with sock:
            pending = bytearray()
            while self._serve_one(sock, number, pending):
                pass

    def _serve_one(self, sock: socket.socket, number: int, pending: bytearray) -> bool:
        if not _receive_until(sock, pending, b"\r\n\r\n"):
            return False
        head = bytes(pending[: pending.index(b"\r\n\r\n") + 4])
        del pending[: len(head)]
        with self._lock:
            script: Script | None = self._scripts.pop(0) if self._scripts else None
        steps = [script] if isinstance(script, bytes) else list(script or ())
        body = b""
        if steps[:1] == [Step.EARLY]:
            del steps[0]
        else:
            length = _content_length(head)
            while len(pending) < length:
                data = sock.recv(65536)
                if not data:
                    return False
                pending += data
            body = bytes(pending[:length])
            del pending[:length]
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        request = ScriptedRequest(connection=number, head=head, body=body, method=method, target=target)
        with self._lock:
            self._requests.append(request)
        if script is None:
            sock.sendall(answer({"target": target}))
        return all(self._play(sock, step) for step in steps)

    def _play(self, sock: socket.socket, step: bytes | Step | Drip | Tell | Await) -> bool:
        """Plays a step; whether the connection is there for a further one."""
        if isinstance(step, bytes):
            sock.sendall(step)
        elif isinstance(step, Drip):
            while not self._closing.wait(0.05):
                sock.sendall(step.data)
        elif isinstance(step, Tell):
            step.event.set()
        elif isinstance(step, Await):
            step.event.wait(PATIENCE)
        elif step is Step.CLOSE:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
            return False
        elif step is Step.RESET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        else:
            self._closing.wait()
            return False
        return True


def _receive_until(sock: socket.socket, pending: bytearray, end: bytes) -> bool:
    while end not in pending:
        data = sock.recv(65536)
        if not data:
            return False
        pending += data
    return True


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0
