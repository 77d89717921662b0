"""TLS, Unix sockets and IPv6 on every driver: who is trusted, what is reused, and what a cut is."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
import trustme

from agentrun_proto import (
    ConnectError,
    IncompleteError,
    PayloadTooLargeError,
    Timeout,
    TimeoutExceeded,
    TLSError,
)
from agentrun_transports import TLS
from transports_support import (
    DRIVERS,
    PATIENCE,
    Announce,
    BeforeBody,
    Pause,
    RawServer,
    Repeat,
    Reset,
    Rudely,
    Say,
    Stall,
    answer,
    assert_next_call_is_right,
    reset_on_close,
)


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request):
    return request.param


class Authority:
    """A certificate authority, its file, and contexts for servers."""

    def __init__(self, folder) -> None:
        self.ca = trustme.CA()
        self.file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.file)
        self.folder = folder

    def context(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names or ("127.0.0.1", "localhost")).configure_cert(context)
        return context

    def client_files(self, name: str) -> tuple[str, str]:
        issued = self.ca.issue_cert(name)
        cert, key = str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(cert, append=number > 0)
        issued.private_key_pem.write_to_path(key)
        return cert, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def test_a_trusted_server(driver, authority):
    with (
        RawServer(context=authority.context()) as server,
        driver.client(server.config(), tls=TLS(ca_file=authority.file)) as client,
    ):
        assert_next_call_is_right(client)
        assert client.call("POST", "a", data=bytes(300_000))["target"]
        assert len(server.requests[-1].body) == 300_000
        assert server.connections == 1


@pytest.mark.hostile("published-client-per-call")
def test_one_context_for_many_connections_and_clients(driver, authority, monkeypatch):
    """It is made on first need, and costs as much as twenty calls."""
    made = []
    create = ssl.create_default_context

    def counted(**options):
        made.append(options)
        return create(**options)

    monkeypatch.setattr(ssl, "create_default_context", counted)
    tls = TLS(ca_file=authority.file, key_password="of this test alone")  # what the cache has not seen
    closing = answer({"ok": 1}, fields="Connection: close\r\n")
    with RawServer(*[closing] * 3, context=authority.context()) as server:
        with driver.client(server.config(), tls=tls) as client:
            assert made == []
            for _ in range(3):
                assert client.call("GET", "a") == {"ok": 1}
        with driver.client(server.config(), tls=tls) as client:
            assert_next_call_is_right(client)
        assert server.connections == 4
    assert len(made) == 1


def test_an_unknown_authority(driver, authority, tmp_path):
    other = Authority(tmp_path)
    with RawServer(context=authority.context()) as server:
        for tls in (TLS(ca_file=other.file), TLS(), None):
            with driver.client(server.config(), tls=tls) as client:
                with pytest.raises(TLSError) as caught:
                    client.call("POST", "a", data={"a": 1})
                assert not caught.value.may_be_processed
                assert client.open_connections() == 0
        assert server.requests == []


def test_another_host(driver, authority):
    with RawServer(context=authority.context("example.org")) as server:
        with (
            driver.client(server.config(), tls=TLS(ca_file=authority.file)) as client,
            pytest.raises(TLSError),
        ):
            client.call("GET", "a")
        assert server.requests == []


def test_a_name_that_the_resolver_knows(driver, authority):
    with RawServer(context=authority.context("localhost")) as server:
        config = server.config(data_endpoint=f"https://localhost:{server.port}")
        with driver.client(config, tls=TLS(ca_file=authority.file)) as client:
            assert_next_call_is_right(client)


def test_old_tls(driver, authority):
    context = authority.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        RawServer(context=context) as server,
        driver.client(server.config(), tls=TLS(ca_file=authority.file)) as client,
    ):
        assert_next_call_is_right(client)
        assert server.connections == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_a_client_certificate(driver, authority, version):
    """Asked for and given; asked for and missing is an error, never a call without an answer."""
    context = authority.context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    authority.ca.configure_trust(context)
    cert, key = authority.client_files("client.example.org")
    with RawServer(context=context) as server:
        with driver.client(
            server.config(), tls=TLS(ca_file=authority.file, cert_file=cert, key_file=key)
        ) as client:
            assert_next_call_is_right(client)
        with driver.client(server.config(), tls=TLS(ca_file=authority.file)) as client:
            # In TLS 1.3 the refusal arrives after the client's side of the handshake is over.
            with pytest.raises((TLSError, IncompleteError)):
                client.call("GET", "a")
            assert client.open_connections() == 0


def test_session_tickets_that_arrive_late_do_not_spoil_reuse(driver, authority):
    """TLS 1.3 tickets are readable bytes that are no answer: the idle connection stays in use."""
    context = authority.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 4
    with (
        RawServer(context=context) as server,
        driver.client(server.config(), tls=TLS(ca_file=authority.file)) as client,
    ):
        for n in range(5):
            assert client.call("GET", f"r{n}")["target"].endswith(f"/r{n}")
        assert server.connections == 1


def test_session_tickets_that_arrive_amid_an_upload_are_no_answer(driver, authority):
    """On a fresh connection they come while the first request is sent: readable, and no byte for us."""
    context = authority.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 4
    with (
        RawServer(context=context) as server,
        driver.client(server.config(), tls=TLS(ca_file=authority.file)) as client,
    ):
        data = bytes(16_000_000)
        assert client.call("POST", "large", data=data)["target"].endswith("/large")
        assert len(server.requests[0].body) == len(data)
        assert_next_call_is_right(client)
        assert server.connections == 1


def test_an_idle_tls_connection_that_is_closed(driver, authority):
    gone = threading.Event()
    script = (Say(answer({"ok": 1})), Pause(gone), Rudely())
    with (
        RawServer(script, context=authority.context()) as server,
        driver.client(server.config(), tls=TLS(ca_file=authority.file)) as client,
    ):
        client.call("GET", "a")
        gone.set()
        client.call("POST", "b")["target"].endswith("/b") if _closed(client) else None
        assert [request.target.rpartition("/")[2] for request in server.requests] == ["a", "b"]
        assert_next_call_is_right(client)


def _closed(client):
    import select

    (link,) = client._client._session.pool.idle
    poller = select.poll()
    poller.register(link._sock, select.POLLRDHUP)
    return bool(poller.poll(PATIENCE * 1000))


@pytest.mark.hostile("answers-left-over")
def test_bytes_after_an_answer_under_tls(driver, authority):
    """They may have been decrypted together with the answer: then no socket is readable, yet they count."""
    sent = threading.Event()
    script = (Say(answer({"ok": 1}) + answer({"evil": 1})), Announce(sent))
    with (
        RawServer(script, context=authority.context()) as server,
        driver.client(server.config(), tls=TLS(ca_file=authority.file)) as client,
    ):
        assert client.call("GET", "a") == {"ok": 1}
        assert sent.wait(PATIENCE)
        assert_next_call_is_right(client)
        assert server.connections == 2


@pytest.mark.hostile("answers-left-over")
@pytest.mark.parametrize("size", [20_000, 200_000])
def test_a_large_answer_followed_by_more_under_tls(driver, authority, size):
    """The body is read straight into its place; what follows it waits inside OpenSSL."""
    sent = threading.Event()
    body = b'"' + b"x" * size + b'"'
    script = (Say(answer(b'{"a":' + body + b"}") + answer({"evil": 1})), Announce(sent))
    with (
        RawServer(script, context=authority.context()) as server,
        driver.client(server.config(), tls=TLS(ca_file=authority.file)) as client,
    ):
        assert len(client.call("GET", "a")["a"]) == size
        assert sent.wait(PATIENCE)
        assert_next_call_is_right(client)
        assert server.connections == 2


def test_a_close_delimited_body_that_tls_did_not_end_is_cut_short(driver, authority):
    """RFC 9112, 9.8: without a closure alert, a body that ends with the connection is incomplete."""
    script = (Say(b'HTTP/1.1 200 OK\r\n\r\n{"ok": 1}'), Rudely())
    with (
        RawServer(script, context=authority.context()) as server,
        driver.client(server.config(), tls=TLS(ca_file=authority.file)) as client,
    ):
        with pytest.raises(IncompleteError):
            client.call("GET", "a")
        assert_next_call_is_right(client)


@pytest.mark.parametrize("pause", [0.0, 0.3], ids=["at_once", "while_we_are_stuck"])
def test_413_from_a_peer_that_reads_no_further_under_tls(driver, authority, tmp_path, pause):
    """HOSTILE: 413 before the upload is finished. OpenSSL may be stuck in a record: it still shows."""
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(32 * 1024 * 1024)
    refusal = answer({"code": "ERR_TOO_LARGE"}, "413 Content Too Large")
    script = (BeforeBody(), Repeat(b"", times=1, pause=pause), Say(refusal), Stall())
    with RawServer(script, context=authority.context()) as server:
        config = server.config(timeout=Timeout(write=5.0, total=20.0))
        with driver.client(config, tls=TLS(ca_file=authority.file)) as client:
            with pytest.raises(PayloadTooLargeError):
                client.upload("upload", path, "/x")
            assert_next_call_is_right(client)


def test_plain_http_where_tls_is_expected(driver, authority):
    with RawServer(greet=(Say(answer({"ok": 1})),)) as server:
        config = server.config(data_endpoint=server.url.replace("http:", "https:"))
        with driver.client(config, tls=TLS(ca_file=authority.file)) as client, pytest.raises(TLSError):
            client.call("GET", "a")


def test_a_peer_that_closes_in_the_handshake(driver, authority):
    for step in (Reset(), Rudely()):
        with RawServer(greet=(step,)) as server:
            config = server.config(data_endpoint=server.url.replace("http:", "https:"))
            with driver.client(config, tls=TLS(ca_file=authority.file)) as client:
                with pytest.raises(ConnectError) as caught:
                    client.call("POST", "a")
                assert not caught.value.may_be_processed


def test_a_handshake_that_never_ends(driver, authority):
    with RawServer(greet=(Stall(),)) as server:
        config = server.config(
            data_endpoint=server.url.replace("http:", "https:"), timeout=Timeout(connect=0.3)
        )
        with driver.client(config, tls=TLS(ca_file=authority.file)) as client:
            with pytest.raises(TimeoutExceeded) as caught:
                client.call("GET", "a")
            assert isinstance(caught.value, ConnectError)


def test_files_that_do_not_hold_what_they_should(driver, tmp_path, authority):
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    with RawServer(context=authority.context()) as server:
        for tls in (
            TLS(ca_file=str(tmp_path / "missing")),
            TLS(ca_file=str(junk)),
            TLS(ca_file=authority.file, cert_file=str(junk)),
        ):
            with pytest.raises(ValueError, match="TLS"), driver.client(server.config(), tls=tls) as client:
                client.call("GET", "a")


def test_a_context_made_elsewhere(driver, authority):
    context = ssl.create_default_context(cafile=authority.file)
    with (
        RawServer(context=authority.context()) as server,
        driver.client(server.config(), tls=TLS(context=context)) as client,
    ):
        assert_next_call_is_right(client)


def test_the_password_of_a_key_is_not_shown():
    assert "hunter2" not in repr(TLS(key_password="hunter2"))


def test_a_unix_socket(driver, tmp_path):
    path = str(tmp_path / "s")
    with (
        RawServer(unix_socket=path) as server,
        driver.client(server.config(data_endpoint="http://service.example"), unix_socket=path) as client,
    ):
        assert_next_call_is_right(client)
        assert dict(server.requests[0].lines)["Host"] == "service.example"
        assert server.connections == 1


def test_a_unix_socket_that_is_not_there(driver, tmp_path):
    from agentrun_proto import Config

    config = Config(data_endpoint="http://service.example", timeout=5)
    with driver.client(config, unix_socket=str(tmp_path / "missing")) as client, pytest.raises(ConnectError):
        client.call("GET", "a")
    with (
        driver.client(config, unix_socket=str(tmp_path / ("x" * 200))) as client,
        pytest.raises(ConnectError),
    ):
        client.call("GET", "a")


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")
def test_ipv6(driver, authority):
    with RawServer(host="::1") as server, driver.client(server.config()) as client:
        assert_next_call_is_right(client)
        assert dict(server.requests[0].lines)["Host"] == f"[::1]:{server.port}"
    with (
        RawServer(host="::1", context=authority.context("::1")) as server,
        driver.client(server.config(), tls=TLS(ca_file=authority.file)) as client,
    ):
        assert_next_call_is_right(client)


def test_reset_as_soon_as_it_is_accepted(driver):
    with (
        RawServer(on_accept=reset_on_close, greet=(Reset(),)) as server,
        driver.client(server.config()) as client,
        pytest.raises((ConnectError, IncompleteError)),
    ):
        client.call("POST", "a")
