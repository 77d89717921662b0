"""httpcore's transport where it has something of its own: proxies, SOCKS, HTTP/2, left-over bytes, plumbing.

What every driver must do, the conformance suite has.
"""

import asyncio
import contextlib
import errno
import io
import logging
import socket
import ssl
import threading
from functools import partial
from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trustme

import httpcore
from agentrun_proto import (
    Config,
    ConnectError,
    ConnectTimeout,
    DecodeError,
    FileError,
    Origin,
    PoolTimeout,
    ProtocolError,
    ReadAll,
    ReadSome,
    Request,
    Retry,
    Send,
    Timeout,
    TLSError,
    TransportError,
)
from agentrun_transports import (
    TLS,
    AsyncioClient,
    BlockingClient,
    DataAPI,
    Limits,
    ResourceType,
    TrioClient,
    _routes,
)
from agentrun_transports._httpcore import network, sessions
from agentrun_transports._proxies import Proxies
from agentrun_transports.emulator import Emulator
from agentrun_transports.testing import Await, ScriptedServer, Step, Tell, answer
from proxy_servers import HTTPProxyServer, SilentProxyServer, SOCKSProxyServer


class BlockingRunner:
    """Runs a list of calls on one client; each is (method, *args)."""

    def __call__(self, make, calls):
        with make(BlockingClient) as client:
            return [perform(client, *call) for call in calls]


def perform(client, method, *args):
    if callable(method):
        return method(*args)
    return getattr(client, method)(*args)


async def perform_async(client, method, *args):
    if callable(method):
        return method(*args)
    return await getattr(client, method)(*args)


async def run_async(make, kind, calls):
    async with make(kind) as client:
        return [await perform_async(client, *call) for call in calls]


def run_asyncio(make, calls):
    return asyncio.run(run_async(make, AsyncioClient, calls))


def run_trio(make, calls):
    return trio.run(run_async, make, TrioClient, calls)


RUNNERS = {"blocking": BlockingRunner(), "asyncio": run_asyncio, "trio": run_trio}


@pytest.fixture(params=sorted(RUNNERS))
def run(request):
    """Runs calls on a client made by `make(class)`, on each kind of client."""
    return RUNNERS[request.param]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    ca = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(path)
    certificate = ca.issue_cert("localhost", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return path, context, certificate


def client_of(config, **options):
    return lambda kind: kind(config, **options)


def config_of(emulator, **settings):
    return Config.from_env(emulator.environment).merge(Config(**{"retry": Retry.never(), **settings}))


# --- through proxies

PROXIES = {
    "http": HTTPProxyServer,
    "socks5": SOCKSProxyServer,
    "http_auth": partial(HTTPProxyServer, ("user", "hunter/2")),
    "socks5_auth": partial(SOCKSProxyServer, ("user", "hunter2")),
}


@pytest.mark.parametrize("proxy", sorted(PROXIES))
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_through_a_proxy(run, proxy, scheme, authority, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    path, context, _ = authority
    sent = tmp_path / "sent.bin"
    sent.write_bytes(bytes(range(256)) * 3000)
    saved = tmp_path / "saved.bin"
    with Emulator(ssl_context=context if scheme == "https" else None) as emulator, PROXIES[proxy]() as server:
        url = server.url.replace("hunter/2", "hunter%2F2")
        make = client_of(config_of(emulator), tls=TLS(ca_file=str(path)), proxy=url)
        if scheme == "http" and "http" in proxy:
            # This proxy forwards one request a connection, which httpcore keeps: one call each.
            run(make, [("post", "resources", {"name": "first"})])
            assert server.served[0].startswith("POST http://127.0.0.1:")
        else:
            run(
                make,
                [
                    ("post", "resources", {"name": "first"}),
                    ("get", "resources"),
                    ("post_file", "files", sent, "/data/f"),
                    ("get_file", "files", saved, {"path": "/data/f"}),
                ],
            )
            assert saved.read_bytes() == sent.read_bytes()
            assert len(server.served) == 1, "one tunnel for all of it"
            assert str(emulator.port) in server.served[0]
        assert emulator.connections == 1
    assert "hunter" not in caplog.text


@pytest.mark.parametrize("kind", [HTTPProxyServer, SOCKSProxyServer])
def test_a_proxy_that_refuses_our_password(run, kind, authority):
    path, context, _ = authority
    with Emulator(ssl_context=context) as emulator, kind(("user", "right")) as server:
        make = client_of(
            config_of(emulator), tls=TLS(ca_file=str(path)), proxy=server.url.replace("right", "hunter2")
        )
        with pytest.raises(ConnectError) as refused:
            run(make, [("post", "resources", {"name": "first"})])
        assert not refused.value.may_be_processed
        assert str(server.port) in str(refused.value)
        assert "hunter2" not in str(refused.value) + repr(refused.value.__cause__)


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b""]
)
def test_a_proxy_that_gives_no_tunnel(run, said, authority):
    path, context, _ = authority
    with Emulator(ssl_context=context) as emulator, HTTPProxyServer() as server:
        server.answer = said
        make = client_of(config_of(emulator), tls=TLS(ca_file=str(path)), proxy=server.url)
        with pytest.raises(ConnectError) as refused:
            run(make, [("post", "resources", {"name": "first"})])
        assert not refused.value.may_be_processed
        assert emulator.connections == 0


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_is_silent(run, scheme, authority):
    path, context, _ = authority
    with Emulator(ssl_context=context) as emulator, SilentProxyServer() as server:
        url = f"{scheme}://127.0.0.1:{server.port}"
        config = config_of(emulator, timeout=Timeout(total=0.3))
        with pytest.raises(ConnectTimeout) as late:
            run(
                client_of(config, tls=TLS(ca_file=str(path)), proxy=url),
                [("post", "resources", {"name": "x"})],
            )
        assert not late.value.may_be_processed


def test_cancelled_while_a_proxy_is_silent(authority):
    """httpcore would count a connection that never came to be for ever, and leave its socket open."""
    path, _, _ = authority
    options = {"tls": TLS(ca_file=str(path)), "limits": Limits(total=1, per_origin=1)}
    patient = Config(timeout=30.0)  # what is cancelled does not end before that

    async def on_asyncio(client):
        task = asyncio.ensure_future(client.get("a", config=patient))
        await asyncio.get_running_loop().run_in_executor(None, server.accepted.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def on_trio(client):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.get, "a", config=patient))
            await trio.to_thread.run_sync(server.accepted.wait)
            nursery.cancel_scope.cancel()

    async def main(kind, cancel):
        config = Config(
            data_endpoint="https://service.test", timeout=Timeout(total=30, connect=0.2), retry=Retry.never()
        )
        async with kind(config, proxy=server.url, **options) as client:
            await cancel(client)
            with pytest.raises(ConnectTimeout):  # and no PoolTimeout
                await client.get("b")

    for run, kind, cancel in ((asyncio.run, AsyncioClient, on_asyncio), (trio.run, TrioClient, on_trio)):
        with SilentProxyServer() as server:
            run(main(kind, cancel)) if run is asyncio.run else run(main, kind, cancel)


def test_a_proxy_that_is_not_there(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else gets it meanwhile
        port = taken.getsockname()[1]
        make = client_of(
            Config(data_endpoint="http://service.test", retry=Retry.never()), proxy=f"http://127.0.0.1:{port}"
        )
        with pytest.raises(ConnectError, match=f"127.0.0.1:{port}"):
            run(make, [("get", "resources")])


# --- TLS and HTTP/2


def test_a_certificate_that_nobody_vouches_for(run, authority):
    _, context, _ = authority
    with Emulator(ssl_context=context) as emulator, pytest.raises(TLSError):
        run(client_of(config_of(emulator), transport="httpcore"), [("get", "resources")])


@pytest.fixture(scope="module")
def hypercorn_server(authority, tmp_path_factory):
    """An ASGI server that says in JSON which HTTP version it was asked in, and how much it was sent."""
    pytest.importorskip("hypercorn", reason="hypercorn is not installed")
    from hypercorn.asyncio import serve
    from hypercorn.config import Config as ServerConfig

    _, _, certificate = authority
    folder = tmp_path_factory.mktemp("hypercorn")
    key, chain = folder / "key.pem", folder / "chain.pem"
    certificate.private_key_pem.write_to_path(key)
    for position, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(chain, append=position > 0)

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        size, more = 0, True
        while more:
            event = await receive()
            size += len(event.get("body", b""))
            more = event.get("more_body", False)
        content = b'{"version": "%s", "size": %d}' % (scope["http_version"].encode(), size)
        headers = [(b"content-type", b"application/json")]
        if scope["path"].endswith("/big"):
            content, headers = bytes(1_000_000), [(b"content-type", b"application/octet-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    config = ServerConfig()
    config.bind = ["127.0.0.1:0"]
    config.keyfile, config.certfile = str(key), str(chain)
    config.errorlog = None
    config.graceful_timeout = 0.1
    sockets = config.create_sockets()
    sockets.secure_sockets[0].listen(128)  # whoever comes before the server is up waits
    port = sockets.secure_sockets[0].getsockname()[1]
    config.create_sockets = lambda: sockets
    loop = asyncio.new_event_loop()
    over = asyncio.Event()
    started = threading.Event()

    async def main():
        started.set()
        await serve(app, config, shutdown_trigger=over.wait)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    started.wait()
    yield f"https://127.0.0.1:{port}"
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()
    for sock in sockets.secure_sockets:
        sock.close()


def test_http2(run, hypercorn_server, authority, tmp_path):
    path, _, _ = authority
    sent = tmp_path / "sent.bin"
    sent.write_bytes(bytes(1_000_000))
    saved = tmp_path / "saved.bin"
    config = Config(data_endpoint=hypercorn_server, retry=Retry.never())
    results = run(
        client_of(config, tls=TLS(ca_file=str(path)), transport="httpcore"),
        [
            ("get", "a"),
            ("post", "b", {"x": 1}),
            ("post_file", "c", sent, "/f"),
            ("get_file", "big", saved),
        ],
    )
    assert [result.get("version") for result in results[:3]] == ["2", "2", "2"]
    assert results[1]["size"] == 7
    assert results[2]["size"] > 1_000_000
    assert saved.read_bytes() == bytes(1_000_000)


def test_http2_is_not_forced_on_our_own_connections(hypercorn_server, authority):
    """httpcore sets what is negotiated in the context it is given: it must not be the one that others use."""
    path, _, _ = authority
    tls, config = TLS(ca_file=str(path)), Config(data_endpoint=hypercorn_server, retry=Retry.never())
    with BlockingClient(config, tls=tls, transport="httpcore") as client:
        assert client.get("a")["version"] == "2"
    with BlockingClient(config, tls=tls) as client:
        assert client.get("a")["version"] == "1.1"


def test_whether_an_idle_tls_layer_holds_more():
    incoming = ssl.MemoryBIO()
    context = ssl.create_default_context()
    secure = context.wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="localhost")
    assert not network._holds_more(secure)
    incoming.write_eof()  # the end, in the place of a record
    assert network._holds_more(secure)


# --- what is said after an answer reaches nobody

WHOLE = answer({"ok": 1})
EVIL = answer({"evil": 1})
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
AFTER = {
    "bytes": WHOLE + b"x",
    "line end": WHOLE + b"\r\n",
    "a second answer": WHOLE + EVIL,
    "part of a second answer": WHOLE + EVIL[:-3],
    "after chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n"
    + b'{"ok": 1}'
    + b"\r\n0\r\n\r\n"
    + EVIL,
    "after an empty answer": answer(b"") + EVIL,
    "a body on 204": NO_CONTENT + b'{"ok": 1}',
    "an answer on 204": NO_CONTENT + EVIL,
}


@pytest.mark.hostile("answers-left-over")
@pytest.mark.parametrize("name", sorted(AFTER))
def test_left_over_bytes(run, name):
    with ScriptedServer(AFTER[name]) as server:
        make = client_of(Config(data_endpoint=server.url, retry=Retry.never()), transport="httpcore")
        results = run(make, [("get", "a"), ("get", "b"), ("get", "c")])
        assert results[0] in ({"ok": 1}, {})
        assert [result["target"][-1] for result in results[1:]] == ["b", "c"]
        assert [request.connection for request in server.requests] == [0, 1, 1]


class TwoRecords:
    """A TLS server whose first answer is followed by another, in a record of its own but in one segment."""

    def __init__(self, context):
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        for said in ([WHOLE, EVIL], [answer({"own": 1})]):
            sock, _ = self._listener.accept()
            self.connections += 1
            with sock:
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                secure = self._context.wrap_bio(incoming, outgoing, server_side=True)
                self._until(sock, incoming, outgoing, secure.do_handshake)
                while b"\r\n\r\n" not in self._until(sock, incoming, outgoing, partial(secure.read, 65536)):
                    pass
                for record in said:
                    secure.write(record)
                sock.sendall(outgoing.read())
                with contextlib.suppress(ConnectionResetError):  # the client closes with bytes unread
                    while sock.recv(65536):
                        pass

    def _until(self, sock, incoming, outgoing, function):
        while True:
            try:
                return function()
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
            finally:
                if outgoing.pending:
                    sock.sendall(outgoing.read())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._thread.join()
        self._listener.close()


def test_a_second_answer_in_a_tls_record_of_its_own(run, authority):
    path, context, _ = authority
    with TwoRecords(context) as server:
        config = Config(data_endpoint=f"https://127.0.0.1:{server.port}", timeout=10, retry=Retry.never())
        make = client_of(config, tls=TLS(ca_file=str(path)), transport="httpcore")
        assert run(make, [("get", "a"), ("get", "b")]) == [{"ok": 1}, {"own": 1}]
        assert server.connections == 2


@pytest.mark.hostile("answers-left-over")
def test_a_second_answer_that_comes_later(run):
    done, said = threading.Event(), threading.Event()
    with ScriptedServer([WHOLE, Await(done), EVIL, Tell(said)]) as server:
        make = client_of(Config(data_endpoint=server.url, retry=Retry.never()), transport="httpcore")
        results = run(make, [("get", "a"), (done.set,), (said.wait,), ("get", "b")])
        assert results[0] == {"ok": 1}
        assert results[3]["target"].endswith("/b")
        assert [request.connection for request in server.requests] == [0, 1]


def test_more_after_an_answer_than_there_is_room_for_is_not_made_up_for():
    watch = network.Watch()
    watch.sent(b"GET / HTTP/1.1\r\n\r\n")
    watch.received(WHOLE[:5])
    watch.received(WHOLE[5:].ljust(network.BUFFER_SIZE, b"x"))
    assert not watch.fit
    watch.sent(b"GET / HTTP/1.1\r\n\r\n")
    watch.received(WHOLE)
    assert not watch.fit


def test_what_is_well_is_used_again(run):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with ScriptedServer(WHOLE, NO_CONTENT, head + b"2\r\n{}\r\n0\r\n\r\n", answer(b"")) as server:
        make = client_of(Config(data_endpoint=server.url, retry=Retry.never()), transport="httpcore")
        run(make, [("get", name) for name in "abcde"])
        assert server.connections == 1


def test_an_endless_answer_is_not_held_in_memory(run, monkeypatch):
    monkeypatch.setattr("agentrun_proto.flows.MAX_BODY", 100_000)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with ScriptedServer([head + b"FFFFFF\r\n" + bytes(200_000), Step.STALL]) as server:
        make = client_of(Config(data_endpoint=server.url, retry=Retry.never()), transport="httpcore")
        with pytest.raises(DecodeError, match="larger than 100000"):
            run(make, [("get", "a")])


# --- flows that are not the library's own


def conducted(run, server, flow):
    """What a flow, given the clock, returns; and the target that the next call has reached."""
    method = "_run" if run is RUNNERS["blocking"] else "_run_async"
    config = Config(data_endpoint=server.url, retry=Retry.never())
    # Whatever holds on to its connection has the next request wait in vain.
    make = client_of(config, limits=Limits(total=1, per_origin=1), transport="httpcore")
    result, following = run(make, [(method, flow), ("get", "next")])
    assert following["target"].endswith("/next")
    return result


def request_to(server, target):
    return Request(method="GET", origin=Origin("http", "127.0.0.1", server.port), target=target)


def test_an_answer_that_nobody_reads_is_left_for_the_next_request(run):
    def flow(clock):
        for target in ("/first", "/second"):
            head = yield Send(request_to(server, target), Timeout(), clock.monotonic() + 5.0)
        return head.status, (yield ReadAll(100))

    with ScriptedServer() as server:
        assert conducted(run, server, flow) == (200, b'{"target": "/second"}')
        assert [request.connection for request in server.requests] == [0, 1, 1]


def test_there_is_nothing_to_read_before_a_request(run):
    def flow(clock):
        told = []
        for command in (ReadAll(100), ReadSome()):
            try:
                yield command
            except TransportError as error:
                told.append(error.message)
        return told

    with ScriptedServer() as server:
        told = conducted(run, server, flow)
        assert [message.partition(":")[0] for message in told] == ["there is no answer to read"] * 2
        assert len(server.requests) == 1


def test_a_request_whose_time_is_over_is_not_sent(run):
    def flow(clock):
        try:
            yield Send(request_to(server, "/late"), Timeout(), clock.monotonic())
        except PoolTimeout as error:
            return error.may_be_processed

    with ScriptedServer() as server:
        assert conducted(run, server, flow) is False
        assert len(server.requests) == 1


# --- failures that are not the connection's


ILL_FORMED = b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 2\r\n\r\n{}"


class Full(io.BytesIO):
    def write(self, piece):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full(run):
    with ScriptedServer(answer(b"content")) as server:
        make = client_of(Config(data_endpoint=server.url, retry=Retry.never()), transport="httpcore")
        with pytest.raises(FileError, match="No space left on device"):
            run(make, [("get_file", "files", Full())])
        assert len(server.requests) == 1


def test_a_field_that_is_none_though_httpcore_takes_it(run):
    with ScriptedServer(ILL_FORMED) as server:
        make = client_of(Config(data_endpoint=server.url, retry=Retry.never()), transport="httpcore")
        with pytest.raises(ProtocolError, match="not well-formed: the header X holds a control character"):
            run(make, [("get", "a")])


def test_what_has_failed_holds_no_connection_while_its_flow_goes_on():
    with ScriptedServer(ILL_FORMED) as server:
        config = Config(data_endpoint=server.url, retry=Retry.never())
        with BlockingClient(config, transport="httpcore") as client:

            def flow(clock):
                try:
                    yield Send(request_to(server, "/a"), Timeout(), clock.monotonic() + 20.0)
                except ProtocolError:
                    return client._session.open

            assert client._run(flow) == 0


def test_a_request_that_httpcore_refuses_was_not_sent():
    error = network.Call(None, inf, None).translate(httpcore.LocalProtocolError("illegal"))
    assert (type(error), error.message, error.may_be_processed) == (ProtocolError, "illegal", False)


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        (socket.gaierror(-2, "Name or service not known"), ConnectError, "Name or service not known"),
        (TimeoutError("late"), ConnectTimeout, "no connection in time"),
    ],
)
def test_a_name_that_is_not_resolved(monkeypatch, raised, kind, said):
    def resolve(*args):
        raise raised

    monkeypatch.setattr(network, "resolve", resolve)
    config = Config(data_endpoint="http://service.test", retry=Retry.never())
    with BlockingClient(config, transport="httpcore") as client, pytest.raises(kind, match=said) as told:
        client.get("a")
    assert not told.value.may_be_processed


# --- plumbing


def test_from_env(run):
    with Emulator() as emulator, SOCKSProxyServer() as proxy:
        environment = {**emulator.environment, "ALL_PROXY": proxy.url}
        run(lambda kind: kind.from_env(environment), [("get", "resources")])
        assert len(proxy.served) == 1
        run(lambda kind: kind.from_env({**environment, "NO_PROXY": "127.0.0.1"}), [("get", "resources")])
        run(lambda kind: kind.from_env(environment, transport="native"), [("get", "resources")])
        assert len(proxy.served) == 1
        assert emulator.requests.count == 3


def test_data_api_reads_the_environment(monkeypatch):
    with Emulator() as emulator, SOCKSProxyServer() as proxy:
        for name, value in {**emulator.environment, "ALL_PROXY": proxy.url}.items():
            monkeypatch.setenv(name, value)
        api = DataAPI("name", ResourceType.Sandbox)
        api.get("resources")
        asyncio.run(api.get_async("resources"))
        trio.run(api.get_async, "resources")
        assert len(proxy.served) == 3, "each loop, and blocking calls, with connections of their own"
        DataAPI("name", ResourceType.Sandbox, transport="native").get("resources")
        monkeypatch.delenv("ALL_PROXY")
        DataAPI("name", ResourceType.Sandbox, proxy=proxy.url).get("resources")
        assert len(proxy.served) == 4
        api.close()


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(_routes, "find_spec", lambda name: None)
    config = Config(data_endpoint="http://service.test", retry=Retry.never())
    with pytest.raises(ImportError, match=r"pip install 'agentrun-proto\[httpcore\]'"):
        BlockingClient(config, transport="httpcore")
    with pytest.raises(ImportError, match="the proxy http://proxy:1 needs") as told:
        TrioClient(config, proxy="http://user:hunter2@proxy:1")
    assert "hunter2" not in str(told.value)
    BlockingClient(config)


@pytest.mark.parametrize(
    "options",
    [
        {"transport": "carrier pigeon"},
        {"transport": "native", "proxy": "http://a:1"},
        {"unix_socket": "/tmp/s", "proxy": "http://a:1"},
        {"proxy": "http://a:1/path"},
    ],
)
def test_misuse(options):
    with pytest.raises(ValueError):
        BlockingClient(Config(data_endpoint="http://service.test", retry=Retry.never()), **options)


def test_over_a_unix_socket(run, tmp_path):
    path = Path(tmp_path, "s")
    with Emulator(unix_socket=path) as emulator:
        make = client_of(config_of(emulator), unix_socket=str(path), transport="httpcore")
        assert run(make, [("get", "resources")])[0]["data"]["total"] == 0


def test_a_client_that_is_dropped_closes_its_connections_in_the_loop():
    with Emulator() as emulator:

        async def use():
            client = AsyncioClient(config_of(emulator), transport="httpcore")
            await client.get("resources")

        async def main():
            await use()
            await asyncio.sleep(0)

        asyncio.run(main(), debug=True)
        trio.run(
            partial(
                run_async,
                client_of(config_of(emulator), transport="httpcore"),
                TrioClient,
                [("get", "resources")],
            )
        )


def test_close_leaves_what_is_in_use():
    done = threading.Event()
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst"
    with ScriptedServer([begun, Await(done), b"after"]) as server:
        config = Config(data_endpoint=server.url, retry=Retry.never())
        with BlockingClient(config, transport="httpcore") as client, client.stream("GET", "a") as stream:
            pieces = iter(stream)
            came = next(pieces)
            client.close()
            done.set()
            assert came + b"".join(pieces) == b"firstafter"


def test_each_loop_keeps_its_connection():
    with Emulator() as emulator:
        client = AsyncioClient(config_of(emulator), transport="httpcore")
        loops = [asyncio.new_event_loop() for _ in range(2)]
        for loop in loops * 2:
            loop.run_until_complete(client.get("resources"))
        assert emulator.connections == 2
        for loop in loops:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


def idle_session():
    """A session on a loop that never runs."""
    loop = SimpleNamespace(clock=None, close_from_anywhere=lambda close: None)
    return sessions.HttpcoreSession(loop, partial(sessions._settings, TLS(), Limits(), None), Proxies())


@pytest.mark.parametrize("kind", ["blocking", "loop"])
def test_a_pool_is_retired_once_though_two_calls_were_stuck_in_it(kind):
    settings = (TLS(), None, None, Proxies())
    blocking = sessions.HttpcoreBlockingSession(SimpleNamespace(clock=None), *settings)
    session = blocking if kind == "blocking" else idle_session()
    pool = session.pool(None)
    session.retire(None)
    session.retire(None)
    assert session._retired == [pool]
    assert session.pool(None) is not pool


class Closing:
    """A connection that takes its time to close."""

    def __init__(self):
        self.asked = 0

    async def aclose(self):
        self.asked += 1
        await Closing.Pause()

    class Pause:
        def __await__(self):
            yield


def guard_of(connections):
    """What ends a session, at work: it waits for the first connection to close."""
    guard = sessions._until_the_loop_ends({None: SimpleNamespace(connections=connections)}, [])
    with pytest.raises(StopIteration):
        guard.__anext__().send(None)
    ending = guard.aclose()
    ending.send(None)
    return guard, ending


def test_an_end_that_is_given_up_itself_closes_no_further_connection():
    connections = [Closing(), Closing()]
    _, ending = guard_of(connections)
    with pytest.raises(StopIteration):  # what closes a generator takes its GeneratorExit for the end
        ending.throw(GeneratorExit)
    assert [connection.asked for connection in connections] == [1, 0]


def test_an_end_that_is_under_way_is_not_begun_again():
    connections = [Closing(), Closing()]
    guard, ending = guard_of(connections)
    with pytest.raises(StopIteration):
        sessions._finish(guard).send(None)
    ending.send(None)
    with pytest.raises(StopIteration):
        ending.send(None)
    assert [connection.asked for connection in connections] == [1, 1]
