"""Slow, paced, cut and silent answers over real sockets, and clients that leave in the middle of them."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import http.client
import json
import os
import socket
import ssl
import threading
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import trustme

from agentrun_transports.emulator import Emulator, Fault
from agentrun_transports.emulator import connection as connection_module
from agentrun_transports.emulator.commands import AwaitArrival, Pause, Receive
from agentrun_transports.emulator.connection import Connection

AGENTS = "/2025-09-10/agents"
CHAT = "/agent-runtimes/r/endpoints/Default/invocations/openai/v1/chat/completions"
TOKEN = {"Agentrun-Access-Token": "emulator-token"}
# How long a test waits for what must come at once: only a failure takes this long.
PATIENCE = 20
# A pause that no test could outlast.
LONG = "3000"


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


def ask(connection, method, target, body=None, **headers):
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, target, body, {**TOKEN, **fields})
    with contextlib.closing(connection.getresponse()) as answer:
        return answer.status, answer.headers, answer.read()


def request(target, fault=None, method="GET", body=b"", version="1.1"):
    lines = [f"{method} {target} HTTP/{version}", "Host: h", "Agentrun-Access-Token: emulator-token"]
    lines += [] if fault is None else [f"x-emulator-fault: {fault}"]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def chat(said="one two three", stream=True):
    return json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": said}], "stream": stream}
    ).encode()


@contextlib.contextmanager
def plug(emulator):
    with socket.create_connection(("127.0.0.1", emulator.port), timeout=PATIENCE) as sock:
        yield sock


def until(sock, mark):
    data = b""
    while mark not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    return data


def rest(sock):
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return data


def chunks(data):
    """Return the chunks of a chunked body that may be cut short, and whether it is whole."""
    found = []
    while data:
        size, _, data = data.partition(b"\r\n")
        if int(size, 16) == 0:
            return found, True
        found.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return found, False


def gone(number):
    """Wait until the thread of a connection has ended."""
    for thread in threading.enumerate():
        if thread.name == f"emulator-{number}":
            thread.join(PATIENCE)
            assert not thread.is_alive()


# Streams as they travel.


def test_a_stream_is_sent_in_chunks_and_the_connection_is_kept(emulator):
    with talk(emulator) as connection:
        for _ in range(2):
            status, headers, body = ask(connection, "GET", f"{AGENTS}/lines?count=3")
            assert (status, headers["Transfer-Encoding"], headers["Content-Length"]) == (200, "chunked", None)
            assert body == b'{"number":1}\n{"number":2}\n{"number":3}\n'
    assert emulator.connections == 1


def test_each_event_is_a_chunk_of_its_own(emulator):
    with plug(emulator) as sock:
        sock.sendall(request(CHAT, method="POST", body=chat()))
        sock.shutdown(socket.SHUT_WR)
        head, _, body = rest(sock).partition(b"\r\n\r\n")
    assert b"content-type: text/event-stream" in head.lower()
    found, whole = chunks(body)
    assert (len(found), whole, found[-1]) == (6, True, b"data: [DONE]\n\n")
    assert all(piece.startswith(b"data: {") and piece.endswith(b"}\n\n") for piece in found[:-1])


def test_a_completion_that_is_no_stream_has_a_length(emulator):
    with talk(emulator) as connection:
        status, headers, body = ask(connection, "POST", CHAT, chat(stream=False))
    assert (status, headers["Content-Type"], int(headers["Content-Length"])) == (
        200,
        "application/json",
        len(body),
    )
    assert json.loads(body)["choices"][0]["message"]["content"] == "one two three"


def test_a_stream_to_http_1_0_ends_with_the_connection(emulator):
    with plug(emulator) as sock:
        sock.sendall(request(f"{AGENTS}/lines?count=2", version="1.0"))
        head, _, body = rest(sock).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body == b'{"number":1}\n{"number":2}\n'


def test_head_of_a_stream_has_no_body(emulator):
    with talk(emulator) as connection:
        status, headers, body = ask(connection, "HEAD", f"{AGENTS}/lines")
        assert (status, headers["Content-Length"], body) == (200, None, b"")
        assert ask(connection, "GET", f"{AGENTS}/lines?count=1")[2] == b'{"number":1}\n'
    assert emulator.connections == 1


def test_resumption_ends_with_204(emulator):
    with talk(emulator) as connection:
        _, _, body = ask(connection, "GET", f"{AGENTS}/events?count=5", x_emulator_fault="after=9; then=cut")
        assert body.count(b"\ndata: ") == 5
        status, headers, body = ask(connection, "GET", f"{AGENTS}/events?count=5", Last_Event_ID="3")
        assert (status, [line for line in body.split(b"\n") if line.startswith(b"id")]) == (
            200,
            [b"id: 4", b"id: 5"],
        )
        status, headers, body = ask(connection, "GET", f"{AGENTS}/events?count=5", Last_Event_ID="5")
        assert (status, headers["Content-Length"], body) == (204, None, b"")
        assert ask(connection, "GET", f"{AGENTS}/lines")[0] == 200
    assert emulator.connections == 1


def test_a_stream_of_another_origin(emulator):
    said = json.dumps(
        {
            "messages": [{"role": "user", "content": "Hi there"}],
            "forwardedProps": {"metadata": {"agentRuntimeName": "a"}},
        }
    )
    with Emulator(streams=emulator) as second, talk(second) as connection:
        path = "/2025-09-10/super-agents/__SUPER_AGENT__/invoke"
        data = json.loads(ask(connection, "POST", path, said)[2])["data"]
        assert data["url"].startswith(emulator.endpoint + "/")
        with talk(emulator) as other:
            other.request("GET", urlsplit(data["url"]).path, headers=data["headers"])
            assert b"event: RUN_FINISHED\n" in other.getresponse().read()
        assert emulator.requests.last[-1].header("agentrun-access-token") is None
        # Without another, it is its own.
        with talk(emulator) as other:
            data = json.loads(ask(other, "POST", path, said)[2])["data"]
            assert data["url"].startswith(emulator.endpoint + "/")


# Streams that are unlucky.


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_stream_that_is_cut_after_so_many_events(emulator, count):
    with plug(emulator) as sock:
        sock.sendall(request(f"{AGENTS}/lines?count=3", f"after={count}; then=cut"))
        head, _, body = rest(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert chunks(body) == ([b'{"number":%d}\n' % number for number in range(1, count + 1)], False)


@pytest.mark.parametrize("count", [0, 1, 13, 15, 26, 38])
def test_a_stream_that_is_cut_after_so_many_bytes(emulator, count):
    with plug(emulator) as sock:
        sock.sendall(request(f"{AGENTS}/lines?count=3", f"cut={count}"))
        _, _, body = rest(sock).partition(b"\r\n\r\n")
    found, whole = chunks(body)
    assert (b"".join(found), whole) == (b'{"number":1}\n{"number":2}\n{"number":3}\n'[:count], False)


@pytest.mark.parametrize(
    "fault", ["after=4; then=cut", "after=4; then=stall", "after=4; then=error", "cut=39"]
)
def test_a_stream_that_ends_before_its_fault_is_whole(emulator, fault):
    with talk(emulator) as connection:
        for _ in range(2):
            body = ask(connection, "GET", f"{AGENTS}/lines?count=3", x_emulator_fault=fault)[2]
            assert body.count(b"\n") == 3
    assert emulator.connections == 1


@pytest.mark.parametrize("count", [0, 2, 6])
def test_an_error_in_the_middle_of_a_chat(emulator, count):
    with talk(emulator) as connection:
        for _ in range(2):
            fault = f"after={count}; then=error"
            _, _, body = ask(connection, "POST", CHAT, chat(), x_emulator_fault=fault)
            *before, last = body.decode().split("\n\n")[:-1]
            assert len(before) == count
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "ERR_INTERNAL_SERVER_ERROR"
    assert emulator.connections == 1


def test_faults_of_streams_leave_other_answers_alone(emulator):
    with talk(emulator) as connection:
        fault = f"after=0; then=stall; pace={LONG}"
        assert ask(connection, "GET", f"{AGENTS}/resources", x_emulator_fault=fault)[0] == 200


def test_a_planned_fault_of_a_stream(emulator):
    emulator.service.faults.add(Fault(after=1, then="error"), match="GET /2025")
    with talk(emulator) as connection:
        assert b'"error"' in ask(connection, "GET", f"{AGENTS}/lines")[2]
        assert b'"error"' not in ask(connection, "GET", f"{AGENTS}/lines")[2]


def test_pace_is_waited_between_events(emulator, monkeypatch):
    waited = []
    monkeypatch.setattr(Connection, "pause", lambda self, seconds: waited.append(seconds))
    with talk(emulator) as connection:
        ask(connection, "GET", f"{AGENTS}/lines?count=3", x_emulator_fault="pace=1.5")
    assert waited == [1.5, 1.5]


# In the middle, as what a client does is the same in each: begin to read, and leave, or be left.
MIDDLE = {
    "paced": (request(f"{AGENTS}/lines", f"pace={LONG}"), b'{"number":1}\n'),
    "stalled": (request(f"{AGENTS}/events", "after=2; then=stall"), b'{"number":2}\n\n'),
    "stalled at once": (request(f"{AGENTS}/events", "after=0; then=stall"), b"\r\n\r\n"),
    "paced chat": (request(CHAT, f"pace={LONG}", "POST", chat()), b'"role":"assistant"'),
    "dripped": (request(f"{AGENTS}/videos?path=demo.mkv", "slow=20"), b"\r\n\r\n\x1a"),
    "dripped stream": (request(f"{AGENTS}/lines", "slow=20"), b"\r\n\r\n1\r\n{"),
    "endless": (request(f"{AGENTS}/lines?count=999999999"), b'{"number":1}\n'),
}
middles = pytest.mark.parametrize(("sent", "mark"), MIDDLE.values(), ids=MIDDLE.keys())


@middles
def test_others_are_served_meanwhile_and_a_client_that_leaves_is_noticed(emulator, sent, mark):
    with plug(emulator) as sock:
        sock.sendall(sent)
        until(sock, mark)
        with talk(emulator) as connection:
            assert ask(connection, "GET", f"{AGENTS}/resources")[0] == 200
    gone(1)
    assert emulator.connections == 2


@middles
def test_close_ends_what_is_in_the_middle(sent, mark):
    emulator = Emulator(idle_timeout=3600)
    with plug(emulator) as sock:
        sock.sendall(sent)
        until(sock, mark)
        closer = threading.Thread(target=emulator.close, daemon=True)
        closer.start()
        closer.join(PATIENCE)
        assert not closer.is_alive()
        assert not emulator.folder.exists()
    gone(1)
    del emulator
    gc.collect()


def test_a_client_that_leaves_during_a_delay_is_noticed(emulator):
    with plug(emulator) as sock:
        sock.sendall(request(f"{AGENTS}/resources", f"delay={LONG}"))
        with talk(emulator) as connection:
            assert ask(connection, "GET", f"{AGENTS}/resources")[0] == 200
    gone(1)


def test_a_client_that_leaves_under_tls_is_noticed():
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    sent, mark = MIDDLE["stalled"]
    with Emulator(host="localhost", ssl_context=server) as emulator:
        plain = socket.create_connection(("localhost", emulator.port), timeout=PATIENCE)
        with client.wrap_socket(plain, server_hostname="localhost") as sock:
            sock.sendall(sent)
            until(sock, mark)
        gone(1)


def test_what_a_client_sends_during_a_pause_is_answered_later(emulator):
    with plug(emulator) as sock:
        sock.sendall(request(f"{AGENTS}/lines?count=3", "pace=0.05"))
        first = until(sock, b'{"number":1}\n')  # and more, if we are slow
        for byte in request(f"{AGENTS}/lines?count=1&from=9"):
            sock.sendall(bytes([byte]))
        assert b'{"number":2}\n' in first + until(sock, b'{"number":9}\n')


def test_a_client_that_sends_without_end_during_a_pause_is_not_read_without_end(emulator):
    many = request(f"{AGENTS}/resources") * 20_000
    with plug(emulator) as sock:
        sock.sendall(request(f"{AGENTS}/lines", f"pace={LONG}"))
        until(sock, b'{"number":1}\n')
        sock.settimeout(0.5)
        # Nobody reads it: the buffers on the way are full before all is sent.
        with pytest.raises(TimeoutError):
            for _ in range(100):
                sock.sendall(many)


@pytest.fixture
def between(emulator):
    """A connection that no thread runs, and the other end of it."""
    sock, peer = socket.socketpair()
    with sock, peer:
        sock.settimeout(PATIENCE)
        yield Connection(sock, emulator, 1), peer


def test_a_pause_is_over_though_something_came_at_its_very_end(between, emulator, monkeypatch):
    connection, peer = between
    peer.sendall(b"early")
    clock = SimpleNamespace(monotonic=iter([0.0, 0.0, 5.0]).__next__)
    monkeypatch.setattr(connection_module, "time", clock)
    assert connection._perform(Pause(5.0)) is None
    assert connection._sock.gettimeout() == emulator.idle_timeout
    assert connection._perform(Receive(100)) == b"early"


def test_what_has_no_room_in_a_pause_stays_where_it_is(between, monkeypatch):
    connection, peer = between
    monkeypatch.setattr(connection_module, "MAX_HEAD", 4)
    peer.sendall(b"early, and more")
    assert connection._perform(Pause(0.01)) is None
    assert [connection._perform(Receive(100)) for _ in range(2)] == [b"earl", b"y, and more"]


def test_what_came_in_a_pause_is_an_arrival(between, monkeypatch):
    connection, peer = between
    peer.sendall(b"early")
    connection._perform(Pause(0.01))
    monkeypatch.delattr(connection_module.selectors, "DefaultSelector")  # there is nothing to wait for
    assert connection._perform(AwaitArrival()) is None
    assert connection._perform(Receive(100)) == b"early"


# Slow.


@pytest.mark.parametrize(
    ("target", "size"), [("videos?path=demo.mkv", None), ("files?path=a", 100_000), ("lines?count=3", 39)]
)
def test_slow_is_so_many_bytes_a_second(emulator, form, monkeypatch, target, size):
    waited = []
    with talk(emulator) as connection:
        body, kind = form([("path", None, b"a")], b"x" * 100_000)
        ask(connection, "POST", f"{AGENTS}/files", body, Content_Type=kind)
        _, _, plain = ask(connection, "GET", f"{AGENTS}/{target}")
        monkeypatch.setattr(Connection, "pause", lambda self, seconds: waited.append(seconds))
        _, _, slow = ask(connection, "GET", f"{AGENTS}/{target}", x_emulator_fault="slow=50000")
    assert slow == plain
    assert size in (None, len(slow))
    assert sum(waited) == pytest.approx(len(slow) / 50_000)
    assert max(waited) <= 0.05


def test_slow_and_cut_go_together(emulator, monkeypatch):
    waited = []
    monkeypatch.setattr(Connection, "pause", lambda self, seconds: waited.append(seconds))
    with plug(emulator) as sock:
        sock.sendall(request(f"{AGENTS}/videos?path=demo.mkv", "slow=1; cut=3"))
        assert rest(sock).partition(b"\r\n\r\n")[2] == b"\x1a\x45\xdf"
    assert waited == [1, 1, 1]


# Downloads and uploads.


@pytest.mark.parametrize("count", [0, 1, 50_000])
def test_a_range_that_is_cut(emulator, form, count):
    content = os.urandom(200_000)
    body, kind = form([("path", None, b"a")], content)
    with talk(emulator) as connection:
        ask(connection, "POST", f"{AGENTS}/files", body, Content_Type=kind)
    with plug(emulator) as sock:
        sent = request(f"{AGENTS}/files?path=a", f"cut={count}")
        sock.sendall(sent.replace(b"\r\n\r\n", b"\r\nRange: bytes=100000-\r\n\r\n"))
        head, _, data = rest(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206 ")
    assert b"content-length: 100000\r\n" in head.lower() + b"\r\n"
    assert data == content[100_000 : 100_000 + count]


def test_a_download_that_is_cut_again_and_again_is_resumed(emulator, form):
    content = os.urandom(100_000)
    body, kind = form([("path", None, b"a")], content)
    with talk(emulator) as connection:
        ask(connection, "POST", f"{AGENTS}/files", body, Content_Type=kind)
        etag = ask(connection, "HEAD", f"{AGENTS}/files?path=a")[1]["ETag"]
    arrived = b""
    for _ in range(4):
        with talk(emulator) as connection:
            fields = {"Range": f"bytes={len(arrived)}-", "If-Range": etag, "x-emulator-fault": "cut=30000"}
            connection.request("GET", f"{AGENTS}/files?path=a", headers={**TOKEN, **fields})
            with contextlib.closing(connection.getresponse()) as answer:
                assert answer.status == 206
                try:
                    arrived += answer.read()
                except http.client.IncompleteRead as error:
                    arrived += error.partial
    assert arrived == content
    with talk(emulator) as connection:
        status, headers, _ = ask(
            connection, "GET", f"{AGENTS}/files?path=a", Range="bytes=100000-", If_Range=etag
        )
        assert (status, headers["Content-Range"]) == (416, "bytes */100000")


def test_several_files_in_chunks(emulator, form):
    contents = [os.urandom(300_000), os.urandom(10), b""]
    names = ("file", "second", "third")
    parts = [(name, f"{name}.bin", content) for name, content in zip(names, contents, strict=True)]
    body, kind = form([("path", None, b"a"), *parts])
    pieces = (body[at : at + 7000] for at in range(0, len(body), 7000))
    with talk(emulator) as connection:
        told = json.loads(ask(connection, "POST", f"{AGENTS}/files", pieces, Content_Type=kind)[2])["data"]
        assert [part["sha256"] for part in told["files"]] == [hashlib.sha256(c).hexdigest() for c in contents]
        assert ask(connection, "GET", f"{AGENTS}/files?path=a")[2] == contents[0]
    assert emulator.requests.last[0].header("transfer-encoding") == "chunked"


def test_an_upload_that_is_expected_is_asked_for(emulator, form):
    body, kind = form([("path", None, b"a")], b"content")
    head = request(f"{AGENTS}/files", method="POST").removesuffix(b"\r\n") + (
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    with plug(emulator) as sock:
        sock.sendall(head)
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert until(sock, b'"SUCCESS"').startswith(b"HTTP/1.1 200 ")
