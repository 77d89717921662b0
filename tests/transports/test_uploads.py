"""What goes up: everything that can be sent, as the bytes that a service sees, and what becomes of it.

Rules of this file: a server of its own, which knows of HTTP what is written here, takes the requests; forms
are read back by decoders that are not ours; nothing sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import mimetypes
import os
import socket
import threading
from dataclasses import replace
from math import inf

import pytest
import trio

from agentrun_proto import (
    Body,
    BodyError,
    Config,
    FileError,
    Origin,
    ReadAll,
    Request,
    Retry,
    Send,
    StatusError,
    Timeout,
    encode_body,
)
from agentrun_transports import AsyncioClient, BlockingClient, DataAPI, ResourceType, TrioClient
from agentrun_transports._exchange import CHUNK, CONSENT, Exchange
from agentrun_transports._files import FileSource
from agentrun_transports._network import Read, Write
from agentrun_transports._performing import BodyReader
from agentrun_transports._pool import Limits, Pool
from agentrun_transports._sources import as_source, file_part
from form_decoders import DECODERS, unescaped
from transports_support import FakeNetwork, TurnedClock, answer

NO = Retry.never()
SOON = Retry(attempts=3, backoff=0.0, max_backoff=0.0)
OK = answer({"ok": True})
NEXT = answer({"next": True})
BIG = bytes(range(256)) * 3000  # three chunks, the last not full


class Got:
    """A request as the server saw it: its head, its body as it came, and what that stands for."""

    def __init__(self, connection, head, raw, body, pieces):
        self.connection, self.head, self.raw, self.body, self.pieces = connection, head, raw, body, pieces

    def field(self, name):
        values = [
            value.strip()
            for key, _, value in (line.partition(":") for line in self.head.decode().split("\r\n")[1:])
            if key.lower() == name
        ]
        assert len(values) <= 1
        return values[0] if values else None


class Server:
    """Answers the n-th POST with the n-th answer, and those after that with 200.

    A GET has an answer of its own, so that it shows who took it. An answer that is a pair is said with its
    first part when the head has come, before any of the body; with a second part of None, the body is not
    read and the connection is closed. Chunks are read as RFC 9112, 7.1 has them, and in no other way.
    """

    def __init__(self, *answers):
        self.answers, self.got, self.faults = list(answers), [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.lock, self.socks, self.connections, self.closing = threading.Lock(), [], 0, False
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closing = True
        socket.create_connection(self.listener.getsockname()).close()
        self.threads[0].join()
        for sock in self.socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads[1:]:
            thread.join()
        for sock in [self.listener, *self.socks]:
            sock.close()
        assert self.faults == []

    def config(self, retry=NO):
        return Config(data_endpoint=self.url, retry=retry, timeout=Timeout(total=30.0))

    def accept(self):
        while True:
            sock, _ = self.listener.accept()
            self.socks.append(sock)
            if self.closing:
                return
            self.threads.append(threading.Thread(target=self.serve, args=(sock, self.connections)))
            self.connections += 1
            self.threads[-1].start()

    def serve(self, sock, number):
        with contextlib.suppress(OSError, EOFError), sock, sock.makefile("rb") as stream:
            while self.serve_one(sock, stream, number):
                pass

    def serve_one(self, sock, stream, number):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                return False
            head += line
        got = Got(number, head, b"", b"", [])
        with self.lock:
            self.got.append(got)
            said = NEXT if head.startswith(b"GET ") else self.answers.pop(0) if self.answers else OK
        if isinstance(said, tuple):
            first, said = said
            sock.sendall(first)
            if said is None:
                sock.shutdown(socket.SHUT_WR)
                return False  # with the body unread: the client gets a reset
        self.take(stream, got)
        sock.sendall(said)
        return True

    def take(self, stream, got):
        def exactly(count):
            data = stream.read(count)
            got.raw += data
            if len(data) < count:
                raise EOFError
            return data

        if got.field("transfer-encoding") is None:
            got.body = exactly(int(got.field("content-length") or 0))
            return
        if got.field("transfer-encoding") != "chunked" or got.field("content-length") is not None:
            self.faults.append(got.head)
        size = None
        while size != 0:
            line = stream.readline()
            got.raw += line
            if not line.endswith(b"\r\n"):
                raise EOFError
            size = int(line[:-2], 16)
            if line != b"%x\r\n" % size:
                self.faults.append(line)
            piece = exactly(size)
            if exactly(2) != b"\r\n":
                self.faults.append(piece)
            got.pieces.append(piece)
        got.body = b"".join(got.pieces)


def send(server, data, kind="blocking", *, retry=NO, transport="native", **arguments):
    """POSTs data, then asks for something else on the same client, which must get its answer."""
    config = server.config(retry)
    if kind == "blocking":
        with BlockingClient(config, transport=transport) as client:
            try:
                return client.post("up", data, **arguments)
            finally:
                assert client.get("next") == {"next": True}

    async def run():
        async with {"asyncio": AsyncioClient, "trio": TrioClient}[kind](
            config, transport=transport
        ) as client:
            try:
                return await client.post("up", data, **arguments)
            finally:
                assert await client.get("next") == {"next": True}

    return asyncio.run(run()) if kind == "asyncio" else trio.run(run)


class Again:
    """An iterable that is no iterator."""

    def __init__(self, *pieces):
        self.pieces = pieces

    def __iter__(self):
        return iter(self.pieces)


async def slowly(*pieces):
    for piece in pieces:
        yield piece


def opened(tmp_path, content=BIG, name="f"):
    (tmp_path / name).write_bytes(content)
    return open(tmp_path / name, "rb")


KINDS = ["blocking", "asyncio", "trio"]
TRANSPORTS = ["native", "httpcore"]
everywhere = pytest.mark.parametrize("kind", KINDS)
either = pytest.mark.parametrize("transport", TRANSPORTS)


# --- what can be sent


@everywhere
@either
def test_an_open_file_is_sent_from_where_it_stands_and_stays_open(tmp_path, kind, transport):
    with opened(tmp_path) as file, Server() as server:
        file.seek(1000)
        assert send(server, file, kind, transport=transport) == {"ok": True}
        assert not file.closed
    got = server.got[0]
    assert got.body == BIG[1000:]
    assert (got.field("content-length"), got.field("content-type")) == (
        str(len(BIG) - 1000),
        "application/octet-stream",
    )


@either
@pytest.mark.parametrize("content", [b"", b"a", BIG])
def test_bytes_in_a_file_object(content, transport):
    with Server() as server:
        file = io.BytesIO(content)
        send(server, file, transport=transport)
        assert not file.closed
    assert (server.got[0].body, server.got[0].field("content-length")) == (content, str(len(content)))


def test_a_file_that_stands_behind_its_end_has_nothing_to_send():
    file = io.BytesIO(b"abc")
    file.seek(9)
    with Server() as server:
        send(server, file)
    assert (server.got[0].body, server.got[0].field("content-length")) == (b"", "0")


@everywhere
@either
@pytest.mark.parametrize(
    "pieces",
    [[], [b""], [b"", b"ab", b"", b"c", b""], [bytearray(b"ab"), memoryview(b"cd")], [BIG, b"x", BIG]],
    ids=["none", "empty", "holes", "buffers", "big"],
)
def test_what_has_no_length_goes_out_in_chunks(pieces, kind, transport):
    whole = b"".join(pieces)
    contents = [iter(pieces), (piece for piece in pieces), Again(*pieces)]
    if kind != "blocking" and transport == "native":
        contents.append(slowly(*pieces))
    for content in contents:
        with Server() as server:
            send(server, content, kind, transport=transport)
        got = server.got[0]
        assert got.body == whole
        assert got.field("transfer-encoding") == "chunked"
        assert got.raw.endswith(b"0\r\n\r\n")
        assert b"" not in got.pieces[:-1]  # it would be the end
        assert max(map(len, got.pieces)) <= CHUNK


@everywhere
def test_a_pipe_goes_out_in_chunks(kind):
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe, Server() as server:
        out = os.fdopen(writer, "wb")

        def fill():
            with out:
                out.write(BIG)

        filler = threading.Thread(target=fill)
        filler.start()
        send(server, pipe, kind)
        filler.join()
        assert not pipe.closed
    assert server.got[0].body == BIG
    assert server.got[0].field("transfer-encoding") == "chunked"


def test_a_file_object_that_can_only_be_read():
    class Bare:
        def __init__(self):
            self.left = [b"ab", b"c"]

        def read(self, size):
            return self.left.pop(0) if self.left else b""

    with Server() as server:
        send(server, Bare())
    assert server.got[0].body == b"abc"
    assert server.got[0].field("transfer-encoding") == "chunked"


def test_a_file_object_whose_seek_says_nothing_has_a_length():
    class Silent(io.BytesIO):
        def seek(self, *arguments):
            super().seek(*arguments)

    source = as_source(Silent(b"abc"))
    assert (source.length, source.replayable, source.read(9)) == (3, True, b"abc")


@everywhere
@either
def test_a_file_that_is_open_as_text_is_refused_before_anything_is_sent(tmp_path, kind, transport):
    opened(tmp_path).close()
    for make in (lambda: io.StringIO("a"), (tmp_path / "f").open):
        with make() as file, Server() as server:
            with pytest.raises(TypeError, match="binary mode"):
                send(server, file, kind, transport=transport)
            assert len(server.got) == 1


@everywhere
@either
def test_an_iterator_of_text_is_a_type_error_and_the_next_call_is_right(kind, transport):
    contents = [iter([b"a" * CHUNK, "b"]), Again("a")]
    if kind != "blocking" and transport == "native":
        contents.append(slowly(b"a", "b"))
    for content in contents:
        with Server() as server, pytest.raises(TypeError, match="consists of bytes, not of str"):
            send(server, content, kind, transport=transport)
        assert not any(got.raw.endswith(b"0\r\n\r\n") for got in server.got)  # it never looks complete


@everywhere
@either
def test_what_an_iterator_raises_reaches_its_owner(kind, transport):
    def broken():
        yield b"a" * CHUNK
        raise KeyError("mine")

    with Server() as server, pytest.raises(KeyError, match="mine"):
        send(server, broken(), kind, transport=transport)
    assert not any(got.raw.endswith(b"0\r\n\r\n") for got in server.got)


@either
def test_an_async_iterator_is_refused_where_nothing_can_await_it(transport):
    said = "call the method whose name ends in _async" if transport == "native" else "native transport alone"
    with Server() as server, pytest.raises(BodyError, match=said):
        send(server, slowly(b"a"), transport=transport)
    if transport == "httpcore":
        for kind in KINDS[1:]:
            with Server() as server, pytest.raises(BodyError, match=said):
                send(server, slowly(b"a"), kind, transport=transport)


def test_other_things_are_type_errors():
    for data in (3, object(), 1.5):
        with Server() as server, pytest.raises(TypeError, match="what is sent is a dict"):
            send(server, data)
    with pytest.raises(TypeError, match="not str"):
        as_source("text")


# --- sent again, or not


@everywhere
@either
def test_what_can_be_read_again_is_sent_again_from_where_it_stood(tmp_path, kind, transport):
    unavailable = answer(b"", "503 Service Unavailable")
    with opened(tmp_path) as file:
        file.seek(7)
        for content, whole in ((file, BIG[7:]), (Again(b"ab", BIG), b"ab" + BIG)):
            with Server(unavailable) as server:
                send(server, content, kind, retry=SOON, transport=transport, idempotent=True)
            assert [got.body for got in server.got] == [whole, whole, b""]


@everywhere
def test_what_cannot_be_read_again_is_sent_once(kind):
    contents = [lambda: iter([b"ab"])]
    if kind != "blocking":
        contents.append(lambda: slowly(b"ab"))
    for make in contents:
        with Server(answer(b"", "503 Service Unavailable")) as server:
            with pytest.raises(StatusError) as caught:
                send(server, make(), kind, retry=SOON, idempotent=True)
            assert caught.value.status_code == 503
            assert [got.body for got in server.got] == [b"ab", b""]


# --- files that the system sends by itself


def send_path(server, path, kind):
    """Uploads a file by its path, then asks for something else; the file's bytes are the server's to find."""
    with BlockingClient(server.config(NO)) if kind == "blocking" else contextlib.nullcontext() as client:
        if client is not None:
            try:
                return client.post_file("up", path, "/t")
            finally:
                assert client.get("next") == {"next": True}

    async def run():
        async with {"asyncio": AsyncioClient, "trio": TrioClient}[kind](server.config(NO)) as client:
            try:
                return await client.post_file("up", path, "/t")
            finally:
                assert await client.get("next") == {"next": True}

    return asyncio.run(run()) if kind == "asyncio" else trio.run(run)


@pytest.fixture
def sendfile(monkeypatch):
    """What os.sendfile was asked for, as (offset, count); and a list of what it does first, call by call."""
    real, asked, first = os.sendfile, [], []

    def noted(out, source, offset, count):
        asked.append((offset, count))
        if first:
            first.pop(0)()
        return real(out, source, offset, count)

    monkeypatch.setattr(os, "sendfile", noted)
    return asked, first


def failing(number):
    def fail():
        raise OSError(number, os.strerror(number))

    return fail


needs_sendfile = pytest.mark.skipif(not hasattr(os, "sendfile"), reason="this system has no sendfile")


@needs_sendfile
@pytest.mark.parametrize("kind", ["blocking", "trio"])
def test_the_system_sends_files_by_itself(tmp_path, kind, sendfile):
    opened(tmp_path).close()
    with Server() as server:
        assert send_path(server, tmp_path / "f", kind) == {"ok": True}
        assert BIG in server.got[0].body
    asked, _ = sendfile
    assert asked[0] == (0, CHUNK)
    assert {min(CHUNK, len(BIG) - offset) for offset, _ in asked} == {count for _, count in asked}


@needs_sendfile
@pytest.mark.parametrize("kind", ["blocking", "trio"])
@pytest.mark.parametrize("at", [0, 1])
def test_a_file_that_the_system_does_not_send_is_read_from_there(tmp_path, kind, sendfile, at):
    opened(tmp_path).close()
    asked, first = sendfile
    first += [lambda: None] * at + [failing(errno.EINVAL)]
    with Server() as server:
        assert send_path(server, tmp_path / "f", kind) == {"ok": True}
        assert BIG in server.got[0].body
    assert len(asked) == at + 1


@needs_sendfile
@pytest.mark.parametrize("kind", ["blocking", "trio"])
def test_a_socket_with_less_room_than_it_said_is_asked_again(tmp_path, kind, sendfile):
    opened(tmp_path).close()
    asked, first = sendfile
    first.append(failing(errno.EAGAIN))
    with Server() as server:
        assert send_path(server, tmp_path / "f", kind) == {"ok": True}
        assert BIG in server.got[0].body
    assert asked[0] == asked[1]


@everywhere
def test_a_local_file_that_shrinks_while_it_is_sent(tmp_path, kind, monkeypatch):
    """At its second piece, whoever reads it."""
    opened(tmp_path).close()

    def cut_then(real):
        calls = iter([lambda: None, lambda: os.truncate(tmp_path / "f", CHUNK)])

        def wrapped(*args):
            next(calls, lambda: None)()
            return real(*args)

        return wrapped

    if hasattr(os, "sendfile"):
        monkeypatch.setattr(os, "sendfile", cut_then(os.sendfile))
    monkeypatch.setattr(FileSource, "read", cut_then(FileSource.read))
    with Server() as server, pytest.raises(BodyError, match=r"ended \d+ bytes before"):
        send_path(server, tmp_path / "f", kind)


# --- files that change, refusals that come early


class Shrunk(io.BytesIO):
    """Says that it is longer than it is."""

    def tell(self):
        return super().tell() + (5 if super().tell() else 0)


@pytest.mark.hostile("files-size-changes")
@either
def test_a_file_that_shrinks_is_an_error_and_one_that_grows_is_sent_as_declared(tmp_path, transport):
    with Server() as server, pytest.raises(BodyError, match="ended 5 bytes before"):
        send(server, Shrunk(b"abc"), transport=transport)
    with opened(tmp_path, b"abc") as file, Server() as server:
        source = as_source(file)
        with open(tmp_path / "f", "ab") as more:
            more.write(b"d" * 10)
        with BlockingClient(server.config(), transport=transport) as client:
            client.post("up", file)  # opened anew: all of it
            file.seek(0)
        body = encode_body(source)
        assert (source.length, b"".join(iter(BodyReader(body).read, b""))) == (3, b"abc")
    assert server.got[0].body == b"abc" + b"d" * 10


@pytest.mark.hostile("answers-early-refusal")
@everywhere
def test_an_early_refusal_of_chunks_shows(kind):
    refused = (answer({"message": "too big"}, "413 Content Too Large"), None)

    def endless():
        while True:
            yield b"x" * CHUNK

    with Server(refused) as server:
        with pytest.raises(StatusError) as caught:
            send(server, endless(), kind)
        assert caught.value.status_code == 413
        assert server.got[0].body == b""


def test_a_refusal_that_comes_as_the_last_chunk_is_sent_shows():
    clock = TurnedClock()

    def fail(number, command):
        if isinstance(command, Write) and bytes(command.data) == b"0\r\n\r\n":
            command.link.incoming += answer(b"no", "413 Content Too Large")
            return BrokenPipeError()
        return None

    network = FakeNetwork(clock, lambda request: b"", fail=fail)
    body = encode_body(as_source(iter([b"abc"])))
    request = Request(method="POST", origin=Origin("http", "h", 80), target="/a", body=body)

    def flow():
        head = yield Send(request, Timeout(), clock.monotonic() + 60.0)
        return head.status, (yield ReadAll(100))

    pool = Pool(Limits(), clock.monotonic)
    assert network.drive(Exchange(pool, clock).conduct(flow())) == (413, b"no")
    assert network.links[0].aborted == 1  # our side was not done: nobody else gets the connection


# --- Expect: 100-continue


def expecting(server, kind, files, **arguments):
    fields = {"a": "b"}
    if kind == "blocking":
        with BlockingClient(server.config()) as client:
            try:
                return client.post_form("up", fields, files, expect_continue=True, **arguments)
            finally:
                assert client.get("next") == {"next": True}

    async def run():
        async with {"asyncio": AsyncioClient, "trio": TrioClient}[kind](server.config()) as client:
            try:
                return await client.post_form("up", fields, files, expect_continue=True, **arguments)
            finally:
                assert await client.get("next") == {"next": True}

    return asyncio.run(run()) if kind == "asyncio" else trio.run(run)


@everywhere
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"])
def test_consent_then_content(kind, interim):
    agreed = (interim + b"HTTP/1.1 100 Continue\r\n\r\n", OK)
    with Server(agreed, agreed) as server:
        assert expecting(server, kind, {"file": BIG}) == {"ok": True}
        assert expecting(server, kind, {"file": iter([BIG])}) == {"ok": True}
    assert [got.field("expect") for got in server.got] == ["100-continue", None] * 2
    assert all(BIG in got.body for got in server.got[::2])


@everywhere
@pytest.mark.parametrize("status", ["417 Expectation Failed", "413 Content Too Large"])
def test_a_refusal_instead_of_consent_is_an_error_and_nothing_is_sent(kind, status):
    read = []

    def content():
        read.append(1)
        yield BIG

    with Server((answer({"message": "no"}, status), None)) as server:
        with pytest.raises(StatusError) as caught:
            expecting(server, kind, {"file": content()})
        assert caught.value.status_code == int(status[:3])
        assert (server.got[0].raw, read) == (b"", [])
        assert server.connections == 2  # neither side is sure of the first one any more


def test_silence_is_consent_after_a_second():
    clock = TurnedClock()
    network = FakeNetwork(
        clock,
        lambda request: OK,
        seconds=lambda command: inf if isinstance(command, Read) and not command.link.incoming else 0.0,
    )
    request = Request(
        method="POST",
        origin=Origin("http", "h", 80),
        target="/a",
        body=encode_body(as_source(io.BytesIO(b"abc"))),
        expect_continue=True,
    )
    begun = clock.monotonic()

    def flow():
        head = yield Send(request, Timeout(), begun + 60.0)
        return head.status, (yield ReadAll(100))

    pool = Pool(Limits(), clock.monotonic)
    assert network.drive(Exchange(pool, clock).conduct(flow())) == (200, b'{"ok": true}')
    assert clock.monotonic() == begun + CONSENT == begun + 1.0
    assert network.requests[0].endswith(b"Expect: 100-continue\r\n\r\nabc")
    # Who has not waited has not asked: without the field, no time passes.
    plain = replace(request, body=encode_body(as_source(io.BytesIO(b"abc"))), expect_continue=False)

    def plainly():
        return (yield Send(plain, Timeout(), begun + 60.0)).status

    assert network.drive(Exchange(pool, clock).conduct(plainly())) == 200
    assert clock.monotonic() == begun + 1.0


# --- forms


AWKWARD = ["a b", 'a"b', "a\r\nb", "é中😀", "a;b", "a%22b", "..", "\\", '";evil="', "\r\nEvil: 1\r\n\r\n"]


def form_of(got):
    """What three decoders make of a form; all of one mind."""
    body = Body(segments=(got.body,), length=len(got.body), content_type=got.field("content-type"))
    read = []
    for decoder in DECODERS:
        fields, files = decoder(body)
        read.append(
            (
                [(unescaped(name), value) for name, value in fields],
                sorted((unescaped(name), unescaped(filename), content) for name, filename, content in files),
            )
        )
    assert read[0] == read[1] == read[2]
    return read[0]


@everywhere
@either
def test_a_form_with_everything_in_it(tmp_path, kind, transport):
    (tmp_path / "path.png").write_bytes(b"\x89PNG")
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as out:
        out.write(b"piped")
    with opened(tmp_path, b"0123", "open.json") as file, os.fdopen(reader, "rb") as pipe, Server() as server:
        file.seek(1)
        files = {
            "path": tmp_path / "path.png",
            "text": str(tmp_path / "path.png"),
            "bytes": b"bytes",
            "file": file,
            "pipe": pipe,
            "pieces": iter([b"a", b"", b"b"]),
            "again": Again(b"c", b"d"),
            "empty": b"",
            "named": ("n.txt", b"named"),
            "typed": ("n.txt", b"typed", "a/b"),
            "many": [b"1", ("two", io.BytesIO(b"2")), tmp_path / "path.png"],
            "none": [],
        }
        wanted = [
            ("again", "again", b"cd"),
            ("bytes", "bytes", b"bytes"),
            ("empty", "empty", b""),
            ("file", "open.json", b"123"),
            ("many", "many", b"1"),
            ("many", "path.png", b"\x89PNG"),
            ("many", "two", b"2"),
            ("named", "n.txt", b"named"),
            ("path", "path.png", b"\x89PNG"),
            ("pieces", "pieces", b"ab"),
            ("pipe", "pipe", b"piped"),
            ("text", "path.png", b"\x89PNG"),
            ("typed", "n.txt", b"typed"),
        ]
        if kind != "blocking" and transport == "native":
            files["slow"] = slowly(b"x", b"y")
            wanted.append(("slow", "slow", b"xy"))
        fields = {"a": "1", "é": "ü", "b": True, "c": 1.5, "left out": None, "empty": ""}
        assert post_form(server, kind, transport, fields, files) == {"ok": True}
        assert not file.closed
        assert not pipe.closed
    texts = [("a", "1"), ("é", "ü"), ("b", "true"), ("c", "1.5"), ("empty", "")]
    assert form_of(server.got[0]) == (texts, sorted(wanted))
    assert server.got[0].field("transfer-encoding") == "chunked"


def post_form(server, kind, transport, fields, files, **arguments):
    config = server.config()
    if kind == "blocking":
        with BlockingClient(config, transport=transport) as client:
            return client.post_form("up", fields, files, **arguments)

    async def run():
        async with {"asyncio": AsyncioClient, "trio": TrioClient}[kind](
            config, transport=transport
        ) as client:
            return await client.post_form("up", fields, files, **arguments)

    return asyncio.run(run()) if kind == "asyncio" else trio.run(run)


@pytest.mark.hostile("requests-file-names")
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_names_arrive(name):
    with Server() as server:
        post_form(server, "blocking", "native", {name: "v"}, {name: (name, iter([b"x"]))})
    read = unescaped(name)  # a literal %22 cannot be told from an escaped quote
    assert form_of(server.got[0]) == ([(read, "v")], [(read, read, b"x")])


@everywhere
@pytest.mark.parametrize(("fields", "files"), [(None, None), ({}, {}), ({"a": None}, {"b": []})])
def test_a_form_with_nothing_in_it(kind, fields, files):
    with Server() as server:
        post_form(server, kind, "native", fields, files)
    (got,) = server.got
    boundary = got.field("content-type").partition("boundary=")[2]
    assert got.body == f"--{boundary}--\r\n".encode()
    assert got.field("content-length") == str(len(got.body))


def test_a_form_whose_lengths_are_known_has_one(tmp_path):
    (tmp_path / "f").write_bytes(BIG)
    with opened(tmp_path, b"ab", "g") as file, Server() as server:
        post_form(server, "blocking", "native", {"a": 1}, {"f": tmp_path / "f", "g": file, "h": b"x"})
    (got,) = server.got
    assert got.field("content-length") == str(len(got.body))
    assert got.field("transfer-encoding") is None


@pytest.mark.parametrize(
    ("filename", "content_type"),
    [
        ("a.json", "application/json"),
        ("a.PNG", "image/png"),
        ("a.b.txt", "text/plain"),
        ("a.tar.gz", "application/octet-stream"),  # the type of what is inside would be a lie
        ("a.html.gz", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
        ("a", "application/octet-stream"),
        (".json", "application/octet-stream"),
        ("", "application/octet-stream"),
        ("data:text/html,a", "application/octet-stream"),
        ("data:é/x,a.json", "application/json"),
        ("http://h/a.json", "application/json"),
        ("//[a.json", "application/json"),
    ],
)
def test_the_content_type_follows_from_the_name(filename, content_type):
    assert file_part("f", (filename, b"")).content_type == content_type
    assert file_part("f", (filename, b"", "a/b")).content_type == "a/b"


def test_what_the_machine_knows_of_types_does_not_matter():
    mimetypes.add_type("machine/own", ".json")
    mimetypes.add_type("machine/own", ".unheard-of")
    try:
        assert file_part("f", ("a.json", b"")).content_type == "application/json"
        assert file_part("f", ("a.unheard-of", b"")).content_type == "application/octet-stream"
    finally:
        mimetypes.init()


def test_a_name_is_the_paths_or_the_files_or_the_fields(tmp_path):
    with opened(tmp_path, b"", "x.json") as file:
        assert file_part("f", file).filename == "x.json"
        with os.fdopen(os.dup(file.fileno()), "rb") as numbered:  # its name is a number
            assert file_part("f", numbered).filename == "f"
    assert file_part("f", tmp_path / "x.json").filename == "x.json"
    assert file_part("f", io.BytesIO()).filename == "f"


@pytest.mark.parametrize(
    "content",
    [(), ("a",), ("a", b"", "c", "d"), (b"a", b""), ("a", b"", None), {"a": b""}, 3, None, io.StringIO()],
    ids=lambda content: type(content).__name__,
)
def test_no_part_of_a_form_is_a_type_error_before_anything_is_sent(content):
    with Server() as server:
        with pytest.raises(TypeError):
            post_form(server, "blocking", "native", {}, {"f": content})
        assert server.got == []


@pytest.mark.hostile("files-source")
@everywhere
@either
def test_a_missing_file_shows_before_a_connection_and_what_was_opened_is_closed(tmp_path, kind, transport):
    (tmp_path / "there").write_bytes(b"x")
    with Server() as server:
        before = open_files()
        with pytest.raises(FileError, match="missing"):
            post_form(server, kind, transport, {}, {"a": tmp_path / "there", "b": str(tmp_path / "missing")})
        assert server.connections == 0
        assert open_files() == before
        post_form(server, kind, transport, {}, {"a": tmp_path / "there"})
        assert not any("there" in name for name in open_files())


def open_files():
    """The names of this process's open files (Linux); elsewhere, an unclosed file is a warning."""
    names = []
    for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{number}")
            if "test_a_missing_file" in name:
                names.append(name)
    return names


# --- how far it is


@everywhere
@either
def test_progress_is_told_to_the_end(kind, transport):
    for content, known in ((BIG, True), (iter([BIG]), False)):
        told = []
        with Server() as server:
            files, progress = {"f": content}, lambda *now, told=told: told.append(now)
            post_form(server, kind, transport, {"a": 1}, files, progress=progress)
        size = len(server.got[0].body)
        assert told[-1] == (size, size if known else None)
        assert told == sorted(told)
        assert len(set(told)) == len(told)
        assert all(total == (size if known else None) for _, total in told)


# --- the documented client


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_documented_client_does_the_same_in_both_ways(transport):
    with Server() as server:
        api = DataAPI("name", ResourceType.Sandbox, server.config(), transport=transport)
        fields, told = {"a": 1}, []

        def files():
            return {"f": ("n.json", io.BytesIO(BIG)), "g": [b"1", b"2"]}

        def progress(done, total):
            told.append((done, total))

        found = [api.post_form("up", fields, files(), {"q": "1"}, {"X-A": "b"}, progress=progress)]
        assert api.post("up", io.BytesIO(b"raw")) == {"ok": True}

        async def run():
            found.append(
                await api.post_form_async("up", fields, files(), {"q": "1"}, {"X-A": "b"}, progress=progress)
            )
            assert await api.post_async("up", io.BytesIO(b"raw")) == {"ok": True}

        asyncio.run(run())
        trio.run(run)
        api.close()
    forms, raw = server.got[::2], server.got[1::2]
    assert found == [{"ok": True}] * 3
    assert len({str(form_of(got)) for got in forms}) == 1
    assert {got.head.split(b"\r\n")[0].partition(b"?")[2] for got in forms} == {b"q=1 HTTP/1.1"}
    assert {got.field("x-a") for got in forms} == {"b"}
    assert {got.body for got in raw} == {b"raw"}
    assert [done for done, total in told if done == total] == [len(forms[0].body)] * 3


# --- for other HTTP libraries


def test_a_body_reader_reads_what_has_no_length():
    body = Body(
        segments=(
            b"a",
            as_source(Again(b"b", BIG)),
            b"",
            as_source(io.BytesIO(b"c")),
            as_source(Again()),
            b"d",
        ),
        length=None,
    )
    reader = BodyReader(body)
    for _ in range(2):
        pieces = list(iter(reader.read, b""))
        assert b"".join(pieces) == b"ab" + BIG + b"cd"
        assert max(map(len, pieces)) <= CHUNK
        assert reader.read() == b""
        reader.rewind()
    assert reader.read() == b"a"
    reader.read()
    reader.rewind()  # in the middle of a source
    assert b"".join(iter(reader.read, b"")) == b"ab" + BIG + b"cd"


def test_a_body_reader_of_what_cannot_be_read_again():
    reader = BodyReader(encode_body(as_source(iter([b"a"]))))
    assert list(iter(reader.read, b"")) == [b"a"]
    reader = BodyReader(encode_body(as_source(slowly(b"a"))))
    with pytest.raises(BodyError, match="native transport"):
        reader.read()
    with pytest.raises(FileError, match="cannot be read again"):
        reader.rewind()


def test_a_body_reader_of_a_source_whose_pieces_are_to_be_awaited():
    """Not only a coroutine is; there is nothing to close then."""

    class Later:
        def __await__(self):
            return iter([])

    class Source:
        length, replayable = None, False
        rewind = close = lambda self: None

        def read(self, size):
            return Later()

    with pytest.raises(BodyError, match="native transport"):
        BodyReader(encode_body(Source())).read()


@pytest.mark.hostile("published-foreign-errors")
def test_a_local_file_that_fails_is_a_file_error(tmp_path):
    class Failing(io.BytesIO):
        def read(self, *_):
            raise OSError(5, "Input/output error")

    for transport in TRANSPORTS:
        with Server() as server, pytest.raises(FileError, match="Input/output error"):
            send(server, Failing(b"abc"), transport=transport)
