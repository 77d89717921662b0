"""Small, real proxies on this machine: HTTP (CONNECT and forwarding) and SOCKS5, one thread a connection.

Rules of this file: no code under test is used; every thread and socket ends with its server.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import threading


class ProxyServer:
    """What both kinds share: accepting, relaying, ending. `served` has what was asked for."""

    scheme = ""

    def __init__(self, auth: tuple[str, str] | None = None) -> None:
        self.auth = auth
        self.served: list[str] = []
        self._socks: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._over = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def url(self) -> str:
        user = "" if self.auth is None else f"{self.auth[0]}:{self.auth[1]}@"
        return f"{self.scheme}://{user}127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._over = True
        socket.create_connection(("127.0.0.1", self.port)).close()  # wakes the acceptor
        self._threads[0].join()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for sock in [self._listener, *self._socks]:
            sock.close()

    def _start(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            sock, _ = self._listener.accept()
            self._socks.append(sock)
            if self._over:
                return
            self._start(self._guarded, sock)

    def _guarded(self, sock):
        with contextlib.suppress(OSError, EOFError):
            self.serve(sock)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    def connect(self, host, port):
        upstream = socket.create_connection((host, port))
        self._socks.append(upstream)
        return upstream

    def relay(self, client, upstream):
        self._start(self._pump, upstream, client)
        self._pump(client, upstream)

    def _pump(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def exactly(sock, count):
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def head_of(sock):
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += exactly(sock, 1)
    return data


class HTTPProxyServer(ProxyServer):
    """CONNECT for tunnels; forwards one plain request a connection. `answer`, if set, is said instead."""

    scheme = "http"
    answer: bytes | None = None

    def serve(self, sock):
        head = head_of(sock).decode("latin-1")
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        self.served.append(f"{method} {target}")
        fields = {
            line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in head.split("\r\n")[1:-2]
        }
        if self.answer is not None:
            sock.sendall(self.answer)
            return
        if self.auth is not None:
            due = "Basic " + base64.b64encode(":".join(self.auth).encode()).decode()
            if fields.get("proxy-authorization") != due:
                sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            upstream = self.connect(host, int(port))
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            authority, _, path = target.removeprefix("http://").partition("/")
            host, _, port = authority.rpartition(":")
            upstream = self.connect(host, int(port))
            kept = [line for line in head.split("\r\n")[1:-2] if not line.lower().startswith("proxy-")]
            upstream.sendall("\r\n".join([f"{method} /{path} HTTP/1.1", *kept, "", ""]).encode("latin-1"))
        self.relay(sock, upstream)


class SOCKSProxyServer(ProxyServer):
    """SOCKS5 (RFC 1928), with user name and password (RFC 1929) if it has them."""

    scheme = "socks5"

    def serve(self, sock):
        version, count = exactly(sock, 2)
        methods = exactly(sock, count)
        assert version == 5
        if self.auth is None:
            sock.sendall(b"\x05\x00")
        else:
            if 2 not in methods:
                sock.sendall(b"\x05\xff")
                return
            sock.sendall(b"\x05\x02")
            exactly(sock, 1)
            user = exactly(sock, exactly(sock, 1)[0]).decode()
            password = exactly(sock, exactly(sock, 1)[0]).decode()
            right = (user, password) == self.auth
            sock.sendall(b"\x01\x00" if right else b"\x01\x01")
            if not right:
                return
        _, _, _, kind = exactly(sock, 4)
        if kind == 3:
            host = exactly(sock, exactly(sock, 1)[0]).decode()
        else:
            host = socket.inet_ntop(
                socket.AF_INET if kind == 1 else socket.AF_INET6, exactly(sock, 4 if kind == 1 else 16)
            )
        (port,) = struct.unpack(">H", exactly(sock, 2))
        self.served.append(f"{host}:{port}")
        upstream = self.connect(host, port)
        sock.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        self.relay(sock, upstream)


class SilentProxyServer(ProxyServer):
    """Accepts, and never says a word; `accepted` is set once somebody has spoken to it."""

    scheme = "socks5"

    def __init__(self) -> None:
        self.accepted = threading.Event()
        super().__init__()

    def serve(self, sock):
        exactly(sock, 1)
        self.accepted.set()
        while sock.recv(65536):
            pass
