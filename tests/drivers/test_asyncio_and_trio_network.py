"""Connections of the async drivers: whose answer it is, what is closed in the meantime, TLS, addresses."""

import asyncio
import contextlib
import socket
import ssl
import threading

import pytest
import trio

from agentrun_proto import (
    Config,
    ConnectError,
    IncompleteError,
    PayloadTooLargeError,
    Retry,
    TLSError,
    TransportError,
)
from agentrun_transports import TLS
from drivers_support import (
    BACKENDS,
    Authority,
    assert_nothing_leaked,
    in_thread,
    native,
    run,
    session_of,
    settled_sockets,
    sockets,
    turns,
)
from transports_support import PATIENCE, Announce, BeforeBody, Close, Pause, RawServer, Say, Stall, answer

EVIL = answer({"evil": True})
SIZES = {"small": 10, "buffer": 60_000, "large": 200_000, "pieces": 600_000}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


def serve(scheme, authority, *scripts, **options):
    return RawServer(*scripts, context=authority.context if scheme == "https" else None, **options)


def open_client(backend, server, authority, **options):
    return native(backend)(server.config(), tls=TLS(ca_file=authority.ca_file), **options)


# --- whose answer it is


@pytest.mark.hostile("answers-left-over")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("writes", [1, 2])
def test_an_answer_nobody_asked_for_is_never_the_next_callers(backend, scheme, size, writes, authority):
    """A second answer comes with the first, or right after it; it is there when the next request is made."""
    first = answer(b'{"a": "' + b"x" * SIZES[size] + b'"}')
    sent = threading.Event()
    said = (Say(first + EVIL),) if writes == 1 else (Say(first), Say(EVIL))

    async def main():
        with serve(scheme, authority, (*said, Announce(sent))) as server:
            client = open_client(backend, server, authority)
            assert len((await client.get("first"))["a"]) == SIZES[size]
            if writes == 2 or SIZES[size] > 60_000:
                assert await in_thread(backend, sent.wait, 30)
                await turns(backend)
            for number in (2, 3):
                got = await client.get("own", {"n": number})
                assert got == {"target": f"/2025-09-10/agents/own?n={number}"}

    run(backend, main)


@pytest.mark.hostile("answers-left-over")
@pytest.mark.parametrize("kind", ["download", "call"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_two_records_in_one_segment(backend, kind, authority, tmp_path):
    """Both answers are there, deciphered by nobody yet, when the first one is complete."""

    async def main():
        with TwoRecordServer(authority) as server:
            client = native(backend)(server.config(), tls=TLS(ca_file=authority.ca_file))
            if kind == "call":
                assert await client.get("first") == {"n": 1}
            else:
                saved = await client.download("first", tmp_path / "saved")
                assert saved["size"] == 8
            got = await client.get("second")
            assert got == {"n": 1}, "the answer to another request"

    run(backend, main)


class TwoRecordServer:
    """Answers the first request of each connection with two answers, in two TLS records and one segment."""

    def __init__(self, authority):
        self._context = authority.context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._closing = False
        self._sock = None
        self._thread.start()

    def config(self):
        return Config(
            data_endpoint=f"https://127.0.0.1:{self._listener.getsockname()[1]}",
            timeout=PATIENCE,
            retry=Retry.never(),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, AttributeError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self):
        with contextlib.suppress(OSError):
            while not self._closing:
                sock, _ = self._listener.accept()
                self._sock = sock
                with sock:
                    self._converse(sock)

    def _converse(self, sock):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(incoming, outgoing, server_side=True)

        def do(step):
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    data = sock.recv(65536)
                    if not data:
                        raise ConnectionError from None
                    incoming.write(data)

        with contextlib.suppress(OSError):
            do(tls.do_handshake)
            data = b""
            while b"\r\n\r\n" not in data:
                data += do(lambda: tls.read(65536))
            fields = "Content-Type: application/json\r\n" if b"/second" in data else ""
            tls.write(answer(b'{"n": 1}', fields=fields))
            tls.write(EVIL)
            sock.sendall(outgoing.read())
            sock.recv(65536)


@pytest.mark.hostile("answers-idle-dead")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_idle_connection_closed_by_the_peer_costs_nothing(backend, scheme, size, authority):
    """Whatever the last answer was: a POST on a connection that has ended goes out on a new one."""
    gone = threading.Event()
    first = answer(b'{"a": "' + b"x" * SIZES[size] + b'"}')

    async def main():
        with serve(scheme, authority, (Say(first), HalfClose(gone))) as server:
            client = open_client(backend, server, authority)
            await client.get("first")
            await in_thread(backend, gone.wait, 30)
            await turns(backend, 20)
            assert await client.post("second", {}) == {"target": "/2025-09-10/agents/second"}
            assert server.connections == 2

    run(backend, main)


class HalfClose(Announce):
    """Says goodbye first, as a server does that closes an idle connection."""


_play = RawServer._play


def play(self, sock, script):
    """Adds the one step that the raw server does not have."""
    for position, step in enumerate(script):
        if isinstance(step, HalfClose):
            if not _play(self, sock, script[:position]):
                return False
            if isinstance(sock, ssl.SSLSocket):
                socket.socket.shutdown(sock, socket.SHUT_WR)
            else:
                sock.shutdown(socket.SHUT_WR)
            step.event.set()
            with contextlib.suppress(OSError):
                while sock.recv(65536):
                    pass
            return False
    return _play(self, sock, script)


@pytest.fixture(autouse=True)
def _half_close(monkeypatch):
    monkeypatch.setattr(RawServer, "_play", play)


@pytest.mark.hostile("answers-dropped")
@pytest.mark.parametrize("backend", BACKENDS)
def test_connection_dropped_as_the_next_request_arrives(backend, authority):
    """The idle check sees nothing yet: GET goes out once more, POST is told to be lost (RFC 9110, 9.2.2)."""

    async def main():
        with RawServer(answer({"n": 1}), (Close(),), answer({"n": 2}), (Close(),)) as server:
            client = native(backend)(server.config())
            assert await client.get("first") == {"n": 1}
            assert await client.get("second") == {"n": 2}
            assert server.connections == 2
            with pytest.raises(TransportError) as caught:
                await client.post("third", {})
            assert caught.value.may_be_processed
            assert await client.get("own") == {"target": "/2025-09-10/agents/own"}

    run(backend, main)


@pytest.mark.hostile("answers-lost")
@pytest.mark.parametrize("backend", BACKENDS)
def test_connection_reset_amid_an_answer(backend):
    async def main():
        with RawServer((Say(answer({"n": 1})[:-3]), Close())) as server:
            client = native(backend)(server.config())
            with pytest.raises(TransportError, match="middle of the answer"):
                await client.get("first")
            assert await client.get("own") == {"target": "/2025-09-10/agents/own"}

    run(backend, main)


# --- TLS


@pytest.mark.hostile("published-client-per-call")
@pytest.mark.parametrize("backend", BACKENDS)
def test_tls_connections_are_used_again(backend, authority):
    async def main():
        before = settled_sockets()
        with serve("https", authority) as server:
            client = open_client(backend, server, authority)
            for number in range(10):
                assert (await client.get("own", {"n": number}))["target"].endswith(f"n={number}")
                await turns(backend)
            assert server.connections == 1
            await client.aclose()
            await turns(backend, 10)
        assert sockets() == before

    run(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tls_with_an_unknown_authority(backend, authority, tmp_path):
    async def main():
        other = Authority(tmp_path)
        before = settled_sockets()
        with serve("https", authority) as server:
            client = native(backend)(server.config(), tls=TLS(ca_file=other.ca_file))
            accepted = sockets()
            with pytest.raises(TLSError) as caught:
                await client.get("own")
            assert not caught.value.may_be_processed
            assert "certificate" in str(caught.value).lower()
            assert session_of(client).pool.open == 0
            assert accepted == before + 1
        await turns(backend)
        assert sockets() == before

    run(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tls_with_a_certificate_for_somebody_else(backend, tmp_path):
    async def main():
        wrong = Authority(tmp_path, "example.org")
        with serve("https", wrong) as server:
            client = native(backend)(server.config(), tls=TLS(ca_file=wrong.ca_file))
            with pytest.raises(TLSError):
                await client.get("own")
            assert session_of(client).pool.open == 0

    run(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tls_with_a_peer_that_speaks_plain_http(backend, authority):
    async def main():
        script = (Say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), Close())
        with RawServer(greet=script) as server:
            config = server.config(data_endpoint=server.url.replace("http", "https"))
            client = native(backend)(config, tls=TLS(ca_file=authority.ca_file))
            with pytest.raises(TLSError):
                await client.get("own")
            assert session_of(client).pool.open == 0

    run(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_missing_authority_file_is_the_callers_error_and_leaks_nothing(backend, authority):
    async def main():
        before = settled_sockets()
        with serve("https", authority) as server:
            client = native(backend)(server.config(), tls=TLS(ca_file="no-such-file.pem"))
            listening = sockets()
            for _ in range(3):
                with pytest.raises(ValueError, match=r"no-such-file\.pem"):
                    await client.get("own")
            await turns(backend)
            accepted = server.connections  # the server's own ends; it may not have noticed their end yet
            assert sockets() <= listening + accepted - 3 * (accepted > 0)
            assert session_of(client).pool.open == 0
            assert accepted == 0, "it connects before it knows whether it can"
        assert sockets() == before

    run(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_bodies_over_tls(backend, authority, tmp_path):
    """Pieces of a body do not end where records do; on every version of Python."""
    content = bytes(range(256)) * 5000  # 1.28 MB

    async def main():
        (tmp_path / "local").write_bytes(content)
        with serve("https", authority, answer(content), answer({"ok": 1}), answer(content)) as server:
            client = open_client(backend, server, authority)
            await client.download("file", tmp_path / "saved")
            assert (tmp_path / "saved").read_bytes() == content
            assert await client.upload("file", tmp_path / "local", "/x") == {"ok": 1}
            assert content in server.requests[1].body
            await client.download("file", tmp_path / "again")
            assert (tmp_path / "again").read_bytes() == content
            assert server.connections == 1

    run(backend, main)


# --- addresses


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_unix_socket(backend, scheme, authority, tmp_path):
    path = str(tmp_path / "socket")

    async def main():
        before = settled_sockets()
        with serve(scheme, authority, unix_socket=path) as server:
            config = server.config(data_endpoint=f"{scheme}://localhost")
            client = native(backend)(config, unix_socket=path, tls=TLS(ca_file=authority.ca_file))
            for number in (1, 2):
                assert (await client.get("own", {"n": number}))["target"].endswith(f"n={number}")
            assert server.connections == 1
            await client.aclose()
            await turns(backend, 10)
        with pytest.raises(ConnectError):
            await client.get("own")
        await turns(backend)
        assert sockets() == before

    run(backend, main)


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_ipv6_loopback(backend, scheme, authority):
    async def main():
        with serve(scheme, authority, host="::1") as server:
            client = open_client(backend, server, authority)
            assert await client.get("own") == {"target": "/2025-09-10/agents/own"}
            assert f"Host: [::1]:{server.port}".encode() in server.requests[0].head

    run(backend, main)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dead_first_address_is_passed_over(backend, scheme, authority, monkeypatch):
    """`localhost` has two addresses here: nobody listens on the first."""

    async def main():
        with serve(scheme, authority) as server:
            dead = ("127.0.0.2", server.port)
            resolve_to(monkeypatch, dead, ("127.0.0.1", server.port))
            config = server.config(data_endpoint=f"{scheme}://localhost:{server.port}")
            client = native(backend)(config, tls=TLS(ca_file=authority.ca_file))
            assert await client.get("own") == {"target": "/2025-09-10/agents/own"}
            await assert_places(client, 1)

    run(backend, main)


def resolve_to(monkeypatch, *addresses):
    """Lets every name have these addresses."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: list(found))

    async def for_uvloop(self, *args, **kwargs):
        return list(found)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", for_uvloop)


async def assert_places(client, count):
    pool = session_of(client).pool
    assert (pool.open, len(pool.idle), pool.waiting) == (count, count, 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_name_that_is_none(backend):
    async def main():
        before = settled_sockets()
        with RawServer() as server:
            config = server.config(data_endpoint="http://no-such-host.invalid:1")
            client = native(backend)(config)
            with pytest.raises(ConnectError) as caught:
                await client.get("own")
            assert not caught.value.may_be_processed
            await assert_nothing_leaked(backend, client, sockets())
        assert sockets() == before

    run(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_refused(backend):
    async def main():
        with socket.socket() as taken, RawServer() as server:
            taken.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else gets it meanwhile
            port = taken.getsockname()[1]
            client = native(backend)(server.config(data_endpoint=f"http://127.0.0.1:{port}"))
            for _ in range(3):
                with pytest.raises(ConnectError):
                    await client.get("own")
            await assert_places(client, 0)

    run(backend, main)


# --- one call's trouble is its own


@pytest.mark.hostile("answers-early-refusal")
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_early_refusal_of_a_long_body(backend, scheme, authority):
    """The peer refuses, ends its side and reads the rest away: it shows as what it is."""

    async def main():
        script = (BeforeBody(), Say(answer(b"", "413 Too Large", "Connection: close\r\n")), Close())
        with serve(scheme, authority, script) as server:
            client = open_client(backend, server, authority)
            with pytest.raises(PayloadTooLargeError):
                await client.post("big", b"x" * 20_000_000)
            assert await client.get("own") == {"target": "/2025-09-10/agents/own"}

    run(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_slow_call_holds_no_other_up(backend):
    go = threading.Event()

    async def main():
        order = []
        with RawServer((Pause(go), Say(answer({"n": 0})))) as server:
            client = native(backend)(server.config())

            async def slow():
                order.append((await client.get("slow"))["n"])

            async def quick():
                while not server.requests:
                    await turns(backend, 1)
                for number in (1, 2, 3):
                    await client.get("own")
                    order.append(number)
                go.set()

            if backend == "trio":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(slow)
                    nursery.start_soon(quick)
            else:
                await asyncio.gather(slow(), quick())
        assert order == [1, 2, 3, 0]

    run(backend, main)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_peer_that_says_goodbye_amid_a_long_body(backend, scheme, authority):
    """It has ended its side, reads on or not, and will never answer: that is an error, and soon."""
    gone = threading.Event()

    async def main():
        before = settled_sockets()
        with serve(scheme, authority, (BeforeBody(), HalfClose(gone))) as server:
            client = native(backend)(server.config(), tls=TLS(ca_file=authority.ca_file))
            with pytest.raises(IncompleteError):
                await client.post("big", b"x" * 30_000_000)
            assert await client.get("own") == {"target": "/2025-09-10/agents/own"}
            await client.aclose()
            await turns(backend)
        assert sockets() == before

    run(backend, main)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_answer_amid_a_long_body_that_nobody_reads(backend, scheme, authority):
    """The peer answers, keeps the connection, and reads no further: the answer is not waited for in vain."""

    async def main():
        script = (BeforeBody(), Say(answer(b"", "413 Too Large")), Stall())
        with serve(scheme, authority, script) as server:
            client = native(backend)(server.config(), tls=TLS(ca_file=authority.ca_file))
            with pytest.raises(PayloadTooLargeError):
                await client.post("big", b"x" * 30_000_000)
            assert await client.get("own") == {"target": "/2025-09-10/agents/own"}
            assert server.connections == 2

    run(backend, main)
