"""Deadlines over real sockets: the right class for each phase, in time, and the client goes on working.

The exact times are asserted on a turned clock in `test_exchange_torture.py`; here only that it is soon.

Rules of this file: the call that is to be late has a short timeout, and no other has.
"""

from __future__ import annotations

import socket
import threading
import time

import pytest

from agentrun_proto import (
    Config,
    ConnectError,
    ConnectTimeout,
    PoolTimeout,
    ReadTimeout,
    Retry,
    Timeout,
    TimeoutExceeded,
    WriteTimeout,
)
from agentrun_transports import TLS, Limits
from agentrun_transports._addresses import resolve
from transports_support import (
    DRIVERS,
    PATIENCE,
    Announce,
    BeforeBody,
    Pause,
    RawServer,
    Repeat,
    Say,
    Stall,
    answer,
    assert_next_call_is_right,
)

SOON = 10.0  # a generous bound for a deadline of 0.3 s on two busy cores
SHORT = 0.3


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request):
    return request.param


def assert_ends_soon(call, kind, *, processed):
    began = time.monotonic()
    with pytest.raises(TimeoutExceeded) as caught:
        call()
    took = time.monotonic() - began
    assert type(caught.value) is kind
    assert caught.value.may_be_processed is processed
    assert not isinstance(caught.value, TimeoutError)
    assert SHORT * 0.9 < took < SOON


@pytest.fixture
def full_backlog():
    """A port whose queue of connections is full: nobody accepts, and a further SYN is dropped."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(8):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        waiting.append(sock)
    yield listener.getsockname()[1]
    for sock in [*waiting, listener]:
        sock.close()


@pytest.mark.parametrize("timeout", [SHORT, Timeout(connect=SHORT)], ids=["total", "part"])
def test_connect(driver, full_backlog, timeout):
    config = Config(data_endpoint=f"http://127.0.0.1:{full_backlog}", timeout=timeout, retry=Retry.never())
    with driver.client(config) as client:
        assert_ends_soon(lambda: client.call("POST", "a"), ConnectTimeout, processed=False)
        assert client.open_connections() == 0


def test_refused(driver):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else gets it meanwhile
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with driver.client(Config(data_endpoint=url, timeout=PATIENCE, retry=Retry.never())) as client:
            with pytest.raises(ConnectError) as caught:
                client.call("POST", "a")
            assert not caught.value.may_be_processed
            assert not isinstance(caught.value, TimeoutExceeded)


@pytest.mark.parametrize("timeout", [SHORT, Timeout(write=SHORT)], ids=["total", "part"])
@pytest.mark.parametrize("size", [4_000_000, 64_000_000])
def test_write(driver, timeout, size):
    """A peer that never reads."""
    with (
        RawServer((BeforeBody(), Stall()), on_accept=small_buffer) as server,
        driver.client(server.config()) as client,
    ):
        data, config = bytes(size), Config(timeout=timeout)
        assert_ends_soon(
            lambda: client.call("POST", "a", data=data, config=config), WriteTimeout, processed=True
        )
        assert_next_call_is_right(client)


def small_buffer(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)


@pytest.mark.parametrize("timeout", [SHORT, Timeout(write=SHORT)], ids=["number", "part"])
def test_write_of_an_upload(driver, tmp_path, timeout):
    path = tmp_path / "f"
    with open(path, "wb") as file:
        file.truncate(64_000_000)
    with (
        RawServer((BeforeBody(), Stall()), on_accept=small_buffer) as server,
        driver.client(server.config()) as client,
    ):
        config = Config(timeout=timeout)
        assert_ends_soon(lambda: client.upload("a", path, "/x", config=config), WriteTimeout, processed=True)
        assert_next_call_is_right(client)


class SlowReader:
    """A TLS server that takes 16 KB every fifth of a second: a write never stalls for long, nor ends."""

    def __init__(self, folder):
        import ssl

        import trustme

        authority = trustme.CA()
        self.ca_file = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        # A Unix socket hands on what is read at once; TCP's windows would make stalls of their own.
        self.path = str(folder / "slow")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        sock, _ = self._listener.accept()
        with self._context.wrap_socket(sock, server_side=True) as wrapped:
            while not self._over.wait(0.2):
                try:
                    if not wrapped.recv(16384):
                        return
                except OSError:
                    return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(PATIENCE)
        self._listener.close()


def test_write_under_tls_to_a_peer_that_drips(driver, tmp_path, monkeypatch):
    """The total bounds the whole of a write, however many records are made of it and get through in time."""
    connect = socket.socket.connect

    def with_a_small_buffer(sock, address):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", with_a_small_buffer)
    with SlowReader(tmp_path) as server:
        config = Config(data_endpoint="https://127.0.0.1", timeout=1.0, retry=Retry.never())
        tls = TLS(ca_file=server.ca_file)
        with driver.client(config, tls=tls, unix_socket=server.path) as client:
            began = time.monotonic()
            with pytest.raises(WriteTimeout):
                client.call("POST", "a", data=bytes(16_000_000))
            # One piece of 512 KiB is 32 records, each of which would have its own second, and takes 0.4 s.
            assert time.monotonic() - began < 2.5


def test_a_slow_write_is_no_stall(driver, tmp_path, monkeypatch):
    """`write` bounds one stall of the peer: one that reads steadily is waited for, however slow it is."""
    connect = socket.socket.connect

    def with_a_small_buffer(sock, address):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", with_a_small_buffer)
    path, size = str(tmp_path / "s"), 300_000
    listener = socket.socket(socket.AF_UNIX)  # whose room shows at once, unlike that of TCP's windows
    listener.bind(path)
    listener.listen()
    over = threading.Event()

    def serve():
        sock, _ = listener.accept()
        with sock:
            pending = b""
            while b"\r\n\r\n" not in pending:
                pending += sock.recv(4096)
            left = size - len(pending.partition(b"\r\n\r\n")[2])
            while left > 0 and not over.wait(0.1):  # 19 times: longer than one stall may be, by far less each
                data = sock.recv(16384, socket.MSG_WAITALL) if left > 16384 else sock.recv(left)
                if not data:
                    return
                left -= len(data)
            sock.sendall(answer({"ok": 1}))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    config = Config(data_endpoint="http://127.0.0.1", timeout=Timeout(write=1.0), retry=Retry.never())
    try:
        with driver.client(config, unix_socket=path) as client:
            assert client.call("POST", "a", data=bytes(size)) == {"ok": 1}
    finally:
        over.set()
        thread.join(PATIENCE)
        listener.close()


@pytest.mark.hostile("answers-silence")
@pytest.mark.parametrize("timeout", [SHORT, Timeout(read=SHORT)], ids=["total", "part"])
@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 200 OK\r\n", answer(b"x" * 100)[:-50], answer(b"x" * 10**6)[:-50]],
    ids=["nothing", "half_a_head", "half_a_body", "most_of_a_body"],
)
def test_read(driver, said, timeout):
    with RawServer((Say(said), Stall())) as server, driver.client(server.config()) as client:
        config = Config(timeout=timeout)
        assert_ends_soon(lambda: client.call("POST", "a", config=config), ReadTimeout, processed=True)
        assert_next_call_is_right(client)


@pytest.mark.hostile("answers-silence")
def test_read_of_a_drip_that_never_falls_silent(driver):
    script = (Say(answer(b"x", length=10**6)), Repeat(b"y", pause=0.02))
    with RawServer(script) as server, driver.client(server.config()) as client:
        config = Config(timeout=SHORT)
        assert_ends_soon(lambda: client.call("POST", "a", config=config), ReadTimeout, processed=True)
        assert_next_call_is_right(client)


@pytest.mark.hostile("many-pool-full")
@pytest.mark.parametrize("timeout", [SHORT, Timeout(pool=SHORT)], ids=["total", "part"])
def test_pool(driver, timeout):
    """Exhausted: a pool timeout, nothing sent, and the place in the queue is given up."""
    go_on = threading.Event()
    asked = threading.Event()

    script = (Pause(go_on), Say(answer({"ok": 1})))
    with (
        RawServer(script) as server,
        driver.client(server.config(), limits=Limits(total=1)) as client,
    ):
        config = Config(timeout=timeout)
        results = []

        def first():
            asked.set()
            results.append(client.call("GET", "first"))

        thread = threading.Thread(target=first)
        thread.start()
        try:
            while not server.requests:
                asked.wait(0.01)
            assert_ends_soon(
                lambda: client.call("POST", "second", config=config), PoolTimeout, processed=False
            )
        finally:
            go_on.set()
            thread.join(PATIENCE)
        assert results == [{"ok": 1}]
        assert [request.target.rpartition("/")[2] for request in server.requests] == ["first"]
        assert_next_call_is_right(client)


@pytest.mark.hostile("many-wall-clock")
@pytest.mark.parametrize("jump", [86400.0, -86400.0], ids=["ahead", "back"])
def test_wall_time_moves_no_deadline(driver, monkeypatch, jump):
    """A day either way, while a call waits: it neither ends early nor late."""
    real, offset = time.time, [0.0]
    clock = "agentrun_transports._blocking.SystemClock.now"
    monkeypatch.setattr(clock, staticmethod(lambda: real() + offset[0]))
    jumped, asked = threading.Event(), threading.Event()
    script = (Announce(asked), Pause(jumped), Say(answer({"ok": 1})))
    with RawServer(script, (Stall(),)) as server, driver.client(server.config(timeout=PATIENCE)) as client:

        def turn():
            assert asked.wait(PATIENCE)
            offset[0] = jump
            jumped.set()

        thread = threading.Thread(target=turn)
        thread.start()
        assert client.call("GET", "a") == {"ok": 1}
        thread.join(PATIENCE)
        began = time.monotonic()
        with pytest.raises(ReadTimeout):
            client.call("GET", "b", config=Config(timeout=SHORT))
        assert time.monotonic() - began < SOON


def test_a_resolver_that_says_nothing(monkeypatch):
    """It takes no timeout: it is left behind in a thread of its own."""
    asked, over = threading.Event(), threading.Event()

    def look_up(name, port, *, type, flags=0):
        if flags:
            raise OSError("it is no address")
        asked.set()
        over.wait(PATIENCE)
        raise OSError("too late")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        with pytest.raises(TimeoutError):
            resolve("host.invalid", 80, time.monotonic() + SHORT)
        assert asked.wait(PATIENCE)
    finally:
        over.set()
