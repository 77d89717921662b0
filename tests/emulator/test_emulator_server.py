"""The emulator over real sockets: raw bytes and http.client on one side, h11 and threads on the other."""

from __future__ import annotations

import contextlib
import doctest
import errno
import gc
import hashlib
import http.client
import importlib
import json
import os
import pkgutil
import socket
import ssl
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

import agentrun_transports.emulator
from agentrun_transports.emulator import Emulator, Fault, FileBody, Response, serve
from agentrun_transports.emulator.connection import Connection

ROOT = "/2025-09-10/agents/resources"
FILES = "/2025-09-10/agents/files"
TOKEN = {"Agentrun-Access-Token": "emulator-token"}
# How long a test waits for what must come at once: only a failure takes this long.
PATIENCE = 20


@pytest.fixture
def emulator():
    with Emulator() as emulator:
        yield emulator


@contextlib.contextmanager
def talk(emulator):
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=PATIENCE)
    ) as connection:
        yield connection


def ask(connection, method, target, body=None, headers=None):
    connection.request(method, target, body, {**TOKEN, **(headers or {})})
    with contextlib.closing(connection.getresponse()) as answer:
        return answer.status, answer.headers, answer.read()


@contextlib.contextmanager
def plug(emulator):
    with socket.create_connection(("127.0.0.1", emulator.port), timeout=PATIENCE) as sock:
        yield sock


def rest(sock):
    """Return what comes until the end; a reset is an end, too, and says so."""
    data = b""
    try:
        while chunk := sock.recv(65536):
            data += chunk
    except ConnectionResetError:
        return data, "reset"
    return data, "end"


GET = f"GET {ROOT} HTTP/1.1\r\nHost: h\r\nAgentrun-Access-Token: emulator-token\r\n".encode()


# HTTP.


def test_a_connection_is_kept(emulator):
    with talk(emulator) as connection:
        for number in range(3):
            status, headers, body = ask(connection, "POST", ROOT, json.dumps({"id": f"r{number}"}))
            assert (status, json.loads(body)["data"]["id"]) == (200, f"r{number}")
            assert headers["x-acs-request-id"] == json.loads(body)["requestId"]
            assert headers["Content-Type"] == "application/json"
            assert "Date" in headers
        assert json.loads(ask(connection, "GET", ROOT)[2])["data"]["total"] == 3
    assert emulator.connections == 1
    assert emulator.requests.count == 4
    last = emulator.requests.last[-2]
    assert (last.method, last.target, last.body, last.connection) == ("POST", ROOT, b'{"id": "r2"}', 1)
    assert (last.body_length, last.header("agentrun-access-token")) == (12, "emulator-token")
    assert "emulator-token" not in repr(last)


def test_the_environment_is_enough_to_sign(emulator, signer):
    found = emulator.environment
    assert found["AGENTRUN_DATA_ENDPOINT"] == found["AGENTRUN_CONTROL_ENDPOINT"] == emulator.endpoint
    host = f"127.0.0.1:{emulator.port}"
    signed = signer.agentrun4(
        "GET",
        f"{ROOT}?limit=2&q=a+b",
        host=host,
        key_id=found["AGENTRUN_ACCESS_KEY_ID"],
        secret=found["AGENTRUN_ACCESS_KEY_SECRET"],
        region=found["AGENTRUN_REGION"],
        now=time.time(),
    )
    fetch = "/2025-09-10/agents/accessToken?resourceName=r&resourceType=runtime"
    with talk(emulator) as connection:
        connection.request("GET", f"{ROOT}?limit=2&q=a+b", headers=signed)
        assert connection.getresponse().read().startswith(b'{"code":"SUCCESS"')
        connection.request(
            "GET", fetch, headers=signer.acs3("GET", fetch, nonce="n", host=host, now=time.time())
        )
        token = json.loads(connection.getresponse().read())["data"]["accessToken"]
        assert ask(connection, "GET", ROOT, headers={"Agentrun-Access-Token": token})[0] == 200
    assert emulator.service.token_fetches == 1


def test_a_security_token_is_in_the_environment_and_asked_for(signer, fixed_now):
    with Emulator(security_token="sts", now=lambda: fixed_now) as emulator, talk(emulator) as connection:
        host, token = f"127.0.0.1:{emulator.port}", emulator.environment["AGENTRUN_SECURITY_TOKEN"]
        for sent, status in ((token, 200), (None, 403), ("other", 403)):
            connection.request("GET", ROOT, headers=signer.agentrun4("GET", ROOT, host=host, token=sent))
            with contextlib.closing(connection.getresponse()) as answer:
                assert (answer.status, bool(answer.read())) == (status, True)


def test_requests_may_be_pipelined_and_come_byte_by_byte(emulator):
    with plug(emulator) as sock:
        sock.sendall(GET + b"\r\n" + GET + b"\r\n")
        for byte in GET + b"Connection: close\r\n\r\n":
            sock.sendall(bytes([byte]))
        data, _ = rest(sock)
    assert data.count(b"HTTP/1.1 200") == 3
    assert emulator.requests.count == 3


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nBad Name: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"G\xc3\xa4T / HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
    ids=range(8),
)
def test_what_is_not_http(emulator, sent):
    with plug(emulator) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        data, end = rest(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["code"] == "ERR_BAD_REQUEST"
    assert end == "end"
    assert emulator.requests.count == 0


def test_a_head_without_end_is_refused(emulator):
    with plug(emulator) as sock:
        sock.sendall(GET + b"X: " + b"x" * (200 << 10))
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock)[0].startswith(b"HTTP/1.1 431 ")


@pytest.mark.hostile("requests-query-shapes")
def test_a_long_query_is_served(emulator):
    with talk(emulator) as connection:
        assert ask(connection, "GET", f"{ROOT}?x={'y' * 30_000}")[0] == 200


def test_a_client_that_leaves_in_the_middle(emulator):
    for part in (b"", b"GET / HT", GET, GET + b"Content-Length: 5\r\n\r\n12"):
        with plug(emulator) as sock:
            sock.sendall(part)
    with talk(emulator) as connection:
        assert ask(connection, "GET", ROOT)[0] == 200
    assert emulator.requests.count == 1


def test_expect_100_continue(emulator):
    with plug(emulator) as sock:
        post = (
            GET.replace(b"GET", b"POST")
            + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        sock.sendall(post)
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"{}")
        assert rest(sock)[0].startswith(b"HTTP/1.1 200 ")


def test_chunked_bodies(emulator):
    with talk(emulator) as connection:
        pieces = (piece for piece in (b'{"id":', b'"c"}'))
        assert json.loads(ask(connection, "POST", ROOT, pieces)[2])["data"]["id"] == "c"
    assert emulator.requests.last[0].body == b'{"id":"c"}'


def test_head(emulator):
    with talk(emulator) as connection:
        status, headers, body = ask(connection, "HEAD", ROOT)
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) > 0
        assert ask(connection, "GET", ROOT)[0] == 200
    assert emulator.connections == 1


def test_http_1_0_closes(emulator):
    with plug(emulator) as sock:
        sock.sendall(GET.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n")
        assert rest(sock)[0].startswith(b"HTTP/1.1 200 ")


# Bodies, large and too large.


def test_files_round_trip(emulator, form):
    content = os.urandom(5 << 20)
    digest = hashlib.sha256(content).hexdigest()
    body, kind = form([("path", None, b"big.bin")], content)
    with talk(emulator) as connection:
        answer = ask(connection, "POST", FILES, body, {"Content-Type": kind})[2]
        assert json.loads(answer)["data"]["sha256"] == digest
        status, headers, data = ask(connection, "GET", f"{FILES}?path=big.bin")
        assert (status, hashlib.sha256(data).hexdigest()) == (200, digest)
        wanted = {"Range": "bytes=1000000-3999999", "If-Range": headers["ETag"]}
        status, headers, data = ask(connection, "GET", f"{FILES}?path=big.bin", headers=wanted)
        assert (status, data) == (206, content[1_000_000:4_000_000])
        assert headers["Content-Range"] == f"bytes 1000000-3999999/{5 << 20}"
        beyond = {"Range": f"bytes={5 << 20}-"}
        assert ask(connection, "GET", f"{FILES}?path=big.bin", headers=beyond)[0] == 416
        status, headers, data = ask(connection, "HEAD", f"{FILES}?path=big.bin")
        assert (headers["Content-Length"], data) == (str(5 << 20), b"")
        body, kind = form([("path", None, b"none")], b"")
        assert ask(connection, "POST", FILES, body, {"Content-Type": kind})[0] == 200
        assert ask(connection, "GET", f"{FILES}?path=none")[2] == b""
    assert emulator.connections == 1
    record = emulator.requests.last[0]
    assert (len(record.body), record.body_length > 5 << 20) == (65536, True)


def test_too_long_by_its_length_is_refused_before_the_body_is_read():
    with Emulator(body_limit=1000) as emulator, plug(emulator) as sock:
        # Not a byte of the body is sent: the answer cannot have waited for it.
        sock.sendall(GET.replace(b"GET", b"POST") + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
        data, end = rest(sock)
        assert data.startswith(b"HTTP/1.1 413 ")
        assert json.loads(data.partition(b"\r\n\r\n")[2])["code"] == "ERR_PAYLOAD_TOO_LARGE"
        assert end == "end"
        assert emulator.requests.count == 1


def test_a_refusal_is_read_though_the_body_is_still_being_sent():
    with Emulator(body_limit=1000) as emulator, plug(emulator) as sock:
        sock.sendall(GET.replace(b"GET", b"POST") + b"Content-Length: 8000000\r\n\r\n" + b"x" * 8_000_000)
        data, end = rest(sock)
        assert data.startswith(b"HTTP/1.1 413 ")
        assert end == "end"


def test_too_long_without_a_length():
    with Emulator(body_limit=1000) as emulator, plug(emulator) as sock:
        head = GET.replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\n"
        sock.sendall(head + b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n")
        data, _ = rest(sock)
        assert data.startswith(b"HTTP/1.1 413 ")


def test_a_file_that_was_replaced_while_it_was_opened_is_asked_for_again(
    emulator, form, monkeypatch, tmp_path
):
    body, kind = form([("path", None, b"a")], b"content")
    handle = emulator.service.handle
    gone = [FileBody(path=tmp_path / "gone", offset=0, length=7)]

    def handle_late(request):
        answer = handle(request)
        return replace(answer, body=gone.pop()) if request.method == "GET" and gone else answer

    with talk(emulator) as connection:
        ask(connection, "POST", FILES, body, {"Content-Type": kind})
        monkeypatch.setattr(emulator.service, "handle", handle_late)
        assert ask(connection, "GET", f"{FILES}?path=a")[2] == b"content"
    assert gone == []


def test_a_file_that_is_gone_again_and_again_is_no_answer(emulator, monkeypatch, tmp_path):
    handle = emulator.service.handle
    gone = FileBody(path=tmp_path / "gone", offset=0, length=7)
    monkeypatch.setattr(emulator.service, "handle", lambda request: replace(handle(request), body=gone))
    with plug(emulator) as sock:
        sock.sendall(GET + b"\r\n")
        assert rest(sock) == (b"", "end")
    assert emulator.requests.count == 1


def test_an_error_of_the_emulators_own_is_a_500(emulator, monkeypatch):
    def fail(request):
        raise OSError("no space left")

    monkeypatch.setattr(emulator.service, "handle", fail)
    with talk(emulator) as connection:
        status, _, body = ask(connection, "GET", ROOT)
    assert (status, json.loads(body)["code"]) == (500, "ERR_INTERNAL_SERVER_ERROR")
    assert "OSError" in json.loads(body)["message"]


# Faults.


def fault(text):
    return GET + f"x-emulator-fault: {text}\r\n\r\n".encode()


def test_drop(emulator):
    with plug(emulator) as sock:
        sock.sendall(fault("drop"))
        assert rest(sock) == (b"", "end")
    assert emulator.requests.count == 1


def test_drop_before(emulator):
    with plug(emulator) as sock:
        sock.sendall(fault("drop-before"))
        answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"close" not in answer.partition(b"\r\n\r\n")[0].lower()
        # Still open: nothing comes, not even the end.
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(PATIENCE)
        sock.sendall(GET + b"\r\n")
        data, _ = rest(sock)
        assert data == b""
    assert emulator.requests.count == 1


def test_drop_before_a_request_that_is_there_already(emulator):
    with plug(emulator) as sock:
        sock.sendall(fault("drop-before") + GET + b"\r\n")
        assert rest(sock)[0].count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("count", [0, 1, 10])
def test_cut(emulator, count):
    with plug(emulator) as sock:
        sock.sendall(fault(f"cut={count}"))
        data, end = rest(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 1" in head.lower()
    assert (body, end) == (b'{"code":"SUCCESS"'[:count], "end")


def test_cut_beyond_the_end_cuts_nothing(emulator):
    with talk(emulator) as connection:
        for _ in range(2):
            assert ask(connection, "GET", ROOT, headers={"x-emulator-fault": "cut=100000"})[0] == 200
    assert emulator.connections == 1


@pytest.mark.parametrize("count", [0, 70_000])
def test_cut_of_a_file(emulator, form, count):
    content = os.urandom(100_000)
    body, kind = form([("path", None, b"a")], content)
    with talk(emulator) as connection:
        ask(connection, "POST", FILES, body, {"Content-Type": kind})
    with plug(emulator) as sock:
        sock.sendall(fault(f"cut={count}").replace(ROOT.encode(), f"{FILES}?path=a".encode()))
        assert rest(sock)[0].partition(b"\r\n\r\n")[2] == content[:count]


def test_delay_is_waited(emulator, monkeypatch):
    waited = []
    monkeypatch.setattr(Connection, "pause", lambda self, seconds: waited.append(seconds))
    with talk(emulator) as connection:
        assert ask(connection, "GET", ROOT, headers={"x-emulator-fault": "delay=1234.5"})[0] == 200
    assert waited == [1234.5]


def test_a_status_for_a_while(emulator):
    with talk(emulator) as connection:
        wanted = {"x-emulator-fault": "status=503; retry-after=1; times=2"}
        answers = [ask(connection, "GET", ROOT, headers=wanted) for _ in range(3)]
    assert [status for status, _, _ in answers] == [503, 503, 200]
    assert answers[0][1]["Retry-After"] == "1"


def test_planned_faults(emulator):
    emulator.service.faults.add(Fault(drop=True), count=1, match="GET /")
    with plug(emulator) as sock:
        sock.sendall(GET + b"\r\n")
        assert rest(sock) == (b"", "end")
    with talk(emulator) as connection:
        assert ask(connection, "GET", ROOT)[0] == 200


# Where it listens.


def test_tls(form):
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    content = os.urandom(1 << 20)
    body, kind = form([("path", None, b"a")], content)
    with Emulator(host="localhost", ssl_context=server) as emulator:
        assert emulator.endpoint == f"https://localhost:{emulator.port}"
        connection = http.client.HTTPSConnection("localhost", emulator.port, timeout=PATIENCE, context=client)
        with contextlib.closing(connection):
            assert ask(connection, "POST", FILES, body, {"Content-Type": kind})[0] == 200
            assert ask(connection, "GET", f"{FILES}?path=a")[2] == content
            # Plain HTTP on the same port, and a handshake that is not finished, disturb nobody.
            with plug(emulator) as sock, plug(emulator) as silent:
                sock.sendall(GET + b"\r\n")
                rest(sock)
                silent.sendall(b"\x16\x03\x01")
                assert ask(connection, "GET", ROOT)[0] == 200
            assert ask(connection, "GET", ROOT, headers={"x-emulator-fault": "drop-before"})[0] == 200
            with pytest.raises((OSError, http.client.HTTPException)):
                ask(connection, "GET", ROOT)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


def test_unix_socket(tmp_path, monkeypatch):
    # A socket's path is short: 108 bytes; so it is given from within its folder.
    monkeypatch.chdir(tmp_path)
    with Emulator(unix_socket="s") as emulator:
        assert (emulator.endpoint, emulator.port) == ("http://localhost", 0)
        with contextlib.closing(UnixConnection("s")) as connection:
            assert ask(connection, "GET", ROOT)[0] == 200
        with pytest.raises(OSError):
            Emulator(unix_socket="s")
        assert Path("s").exists()
    assert not Path("s").exists()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6():
    try:
        emulator = Emulator(host="::1")
    except OSError:
        pytest.skip("no IPv6 address on this machine")
    with emulator:
        assert emulator.endpoint == f"http://[::1]:{emulator.port}"
        with contextlib.closing(
            http.client.HTTPConnection("::1", emulator.port, timeout=PATIENCE)
        ) as connection:
            assert ask(connection, "GET", ROOT)[0] == 200


def test_a_port_that_is_taken():
    with Emulator() as emulator, pytest.raises(OSError):
        Emulator(emulator.port)


# The end.


def test_close_leaves_nothing():
    def mine():
        return {thread for thread in threading.enumerate() if thread.name.startswith("emulator")}

    before = mine()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        emulator = Emulator(idle_timeout=3600)
        folder = emulator.folder
        with contextlib.ExitStack() as stack:
            # Idle, amid a head, amid a body, waiting for a delay, amid an answer, and about to be dropped.
            parts = [
                b"",
                b"GET / HT",
                GET + b"Content-Length: 9\r\n\r\n1",
                fault("delay=3000"),
                fault("drop-before"),
            ]
            big = GET.replace(ROOT.encode(), b"/2025-09-10/agents/videos?path=demo.mkv") + b"\r\n"
            for part in [*parts, big * 500]:
                sock = stack.enter_context(plug(emulator))
                sock.sendall(part)
            with talk(emulator) as connection:
                ask(connection, "GET", ROOT)
            assert folder.is_dir()
            assert mine() - before
            # In a thread of its own, so that a close that waits fails this test instead of holding it up.
            closer = threading.Thread(target=emulator.close, daemon=True)
            closer.start()
            closer.join(PATIENCE)
            assert not closer.is_alive()
            emulator.close()
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", emulator.port), timeout=PATIENCE).close()
        assert mine() <= before
        assert not folder.exists()
        del emulator
        gc.collect()


def test_close_joins_a_thread_that_has_just_let_go_of_its_connection(monkeypatch):
    """It is a thread for a moment more, and whoever counts threads after a close would find it."""
    over, go = threading.Event(), threading.Event()
    run, joined = Emulator._run, []

    def lingering(self, connection):
        run(self, connection)
        over.set()
        assert go.wait(PATIENCE)

    def join():
        joined.append(thread)
        go.set()
        threading.Thread.join(thread)

    monkeypatch.setattr(Emulator, "_run", lingering)
    with Emulator() as emulator:
        with plug(emulator):
            pass
        assert over.wait(PATIENCE)
        (thread,) = [each for each in threading.enumerate() if each.name == "emulator-1"]
        thread.join = join
    go.set()
    assert joined == [thread]


class Accepts:
    """In the place of the listening socket: what `first` does is done once, before that one's turn."""

    def __init__(self, listener, first):
        self.listener, self.first = listener, [first]
        self.fileno = listener.fileno

    def accept(self):
        return self.first.pop()() if self.first else self.listener.accept()


def test_a_connection_that_cannot_be_accepted_yet_is_accepted_later(emulator):
    def no_descriptor():
        raise OSError(errno.EMFILE, "Too many open files")

    emulator._listener = Accepts(emulator._listener, no_descriptor)
    with talk(emulator) as connection:
        assert ask(connection, "GET", ROOT)[0] == 200
    assert (emulator._listener.first, emulator.connections) == ([], 1)


def test_a_connection_that_is_gone_when_it_is_accepted_stops_nobody(emulator):
    gone = socket.socket()
    gone.close()  # nothing can be set on it: as with a peer that has reset it, on some systems
    emulator._listener = Accepts(emulator._listener, lambda: (gone, None))
    with talk(emulator) as connection:
        assert ask(connection, "GET", ROOT)[0] == 200
        assert (emulator.connections, len(emulator._connections)) == (2, 1)


def test_an_idle_connection_is_closed():
    with Emulator(idle_timeout=0.05) as emulator, plug(emulator) as sock:
        assert rest(sock) == (b"", "end")


def test_a_folder_outlives_the_emulator(tmp_path, form):
    body, kind = form([("path", None, b"a")], b"kept")
    for number in range(2):
        with Emulator(folder=tmp_path) as emulator, talk(emulator) as connection:
            if number == 0:
                ask(connection, "POST", FILES, body, {"Content-Type": kind})
            assert ask(connection, "GET", f"{FILES}?path=a")[2] == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blobs", "journal.ndjson"]


def test_threads_do_not_cross(emulator):
    failures = []

    def work(number):
        with talk(emulator) as connection:
            for turn in range(20):
                name = f"{number}-{turn}"
                data = json.loads(ask(connection, "POST", ROOT, json.dumps({"id": name}))[2])["data"]
                if data["id"] != name:
                    failures.append((name, data))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (emulator.requests.count, emulator.connections) == (160, 8)
    with talk(emulator) as connection:
        assert json.loads(ask(connection, "GET", ROOT)[2])["data"]["total"] == 160


def test_serve_runs_until_it_is_interrupted(monkeypatch):
    seen = []

    def interrupt(emulator):
        raise KeyboardInterrupt

    monkeypatch.setattr(Emulator, "wait", interrupt)
    serve(ready=seen.append)
    assert seen[0].closing.is_set()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", seen[0].port), timeout=PATIENCE).close()


def test_the_examples_in_the_docstrings():
    package = agentrun_transports.emulator
    names = [
        package.__name__,
        *(f"{package.__name__}.{m.name}" for m in pkgutil.iter_modules(package.__path__)),
    ]
    results = [doctest.testmod(importlib.import_module(name), raise_on_error=False) for name in names]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) > 30


def test_the_check_of_signatures_shares_nothing_with_the_signer():
    for path in Path(agentrun_transports.emulator.__file__).parent.glob("*.py"):
        assert "agentrun_proto" not in path.read_text("utf-8"), path.name


def test_a_response_is_a_value():
    answer = Response(
        status=200, headers=(("ETag", '"x"'),), body=FileBody(path=Path("x"), offset=0, length=1)
    )
    assert (answer.header("etag"), answer.header("none")) == ('"x"', None)
    with pytest.raises(ValueError, match="not JSON"):
        answer.json()
