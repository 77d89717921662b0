"""The loop stays free, and memory stays bounded, whatever the size of what goes either way.

Rules of this file: turns of the loop are counted, never timed; whoever stalls does so until the test says so.
"""

import asyncio
import contextlib
import gc
import os
import socket
import threading

import pytest
import trio

from agentrun_proto import Config, Retry, WriteTimeout
from agentrun_transports._files import FileSink, FileSource
from agentrun_transports._network import Connect
from drivers_support import BACKENDS, in_thread, native, run, run_virtual, stuck_server, turns

pytestmark = pytest.mark.once

MIB = 1 << 20
SIZE = 64 * MIB


class Torrent:
    """Sends a body of 64 MiB as fast as it is taken, or takes one; counts both."""

    def __init__(self):
        self.sent = self.received = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sock = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def config(self, **settings):
        port = self._listener.getsockname()[1]
        return Config(
            **{
                "data_endpoint": f"http://127.0.0.1:{port}",
                "timeout": 60.0,
                "retry": Retry.never(),
                **settings,
            }
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sock in (self._listener, self._sock):
            with contextlib.suppress(OSError, AttributeError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._listener.close()

    def _serve(self):
        chunk = bytes(MIB)
        with contextlib.suppress(OSError):
            self._sock, _ = self._listener.accept()
            with self._sock as sock:
                while True:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        data = sock.recv(65536)
                        if not data:
                            return
                        head += data
                    head, _, rest = head.partition(b"\r\n\r\n")
                    length = int(
                        (head.lower() + b"\r\n").partition(b"content-length: ")[2].split(b"\r\n")[0] or 0
                    )
                    self.received = len(rest)
                    while self.received < length:
                        self.received += len(sock.recv(MIB))
                    if head.startswith(b"GET"):
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
                        while self.sent < SIZE:
                            self.sent += sock.send(chunk[: SIZE - self.sent])
                    else:
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def resident():
    """The memory that this process has now, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def beside_a_ticker(backend, operation):
    """The result of an operation, and how often the loop turned meanwhile."""
    ticks = 0
    if backend == "trio":
        result = None

        async def ticker():
            nonlocal ticks
            while True:
                ticks += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ticker)
            result = await operation
            nursery.cancel_scope.cancel()
        return result, ticks
    task = asyncio.ensure_future(operation)
    while not task.done():
        ticks += 1
        await asyncio.sleep(0)
    return await task, ticks


@pytest.fixture
def file_work(monkeypatch):
    """Which threads have read and written files."""
    threads = set()
    for kind, name in (
        (FileSource, "read"),
        (FileSink, "write"),
        (FileSink, "commit"),
        (FileSink, "__init__"),
    ):
        former = getattr(kind, name)

        def noted(self, *args, former=former):
            threads.add(threading.get_ident())
            return former(self, *args)

        monkeypatch.setattr(kind, name, noted)
    sendfile = os.sendfile

    def noted_sendfile(*args):
        threads.add(threading.get_ident())
        return sendfile(*args)

    monkeypatch.setattr(os, "sendfile", noted_sendfile)
    return threads


@pytest.mark.hostile("published-memory", "published-blocking-files")
@pytest.mark.parametrize("direction", ["upload", "download"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_loop_turns_while_64_mib_go_by(backend, direction, tmp_path, file_work):
    local, saved = tmp_path / "local", tmp_path / "saved"
    with open(local, "wb") as file:
        file.truncate(SIZE)

    async def main():
        with Torrent() as server:
            client = native(backend)(server.config())
            gc.collect()
            before = resident()
            if direction == "upload":
                result, ticks = await beside_a_ticker(backend, client.upload("x", local, "/x"))
                assert result == {}
                assert server.received > SIZE
            else:
                result, ticks = await beside_a_ticker(backend, client.download("x", saved))
                assert result["size"] == saved.stat().st_size == SIZE
            assert ticks >= 2 * SIZE // MIB
            assert resident() - before < 24 * MIB, "what goes by stays in memory"
        assert file_work
        assert threading.get_ident() not in file_work, "the loop's thread worked on a file"

    run(backend, main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_peer_that_reads_slowly_does_not_let_memory_grow(backend, tmp_path, monkeypatch):
    """It reads nothing at all: no more is taken from the file than the kernel and one piece can hold."""
    taken = 0
    read = FileSource.read

    def counted(self, size):
        nonlocal taken
        taken += size
        return read(self, size)

    monkeypatch.setattr(FileSource, "read", counted)
    with open(tmp_path / "local", "wb") as file:
        file.truncate(SIZE)

    async def main():
        with stuck_server() as (url, _):
            client = native(backend)(Config(data_endpoint=url, timeout=5, retry=Retry.never()))
            with pytest.raises(WriteTimeout):
                await client.upload("x", tmp_path / "local", "/x")
        # tcp_wmem and tcp_rmem have maxima of 4 and 6 MiB by default, on either side.
        assert taken <= 16 * MIB

    run_virtual(backend, main)


@pytest.mark.parametrize("backend", ["asyncio", "uvloop"])
def test_asyncio_transport_holds_one_piece_at_most(backend, tmp_path):
    pytest.importorskip(backend)
    with open(tmp_path / "local", "wb") as file:
        file.truncate(SIZE)

    async def main():
        with Torrent() as server:
            client = native(backend)(server.config())
            links = []
            session = client._sessions.get(*client._loop())
            connect = session._network._perform[Connect]

            async def noted(command):
                links.append(await connect(command))
                return links[-1]

            session._network._perform[Connect] = noted
            task = asyncio.ensure_future(client.upload("x", tmp_path / "local", "/x"))
            most = 0
            while not task.done():
                await asyncio.sleep(0)
                for link in links:
                    most = max(most, link._transport.get_write_buffer_size())
            await task
            assert links
            assert most <= 524_288

    run(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_server_that_is_faster_than_the_disk_is_held_up(backend, tmp_path, monkeypatch):
    """The first write to the file stalls: what the server can send is what the kernel and one piece hold."""
    go, stalled = threading.Event(), threading.Event()
    write = FileSink.write

    def stuck(self, piece):
        stalled.set()
        assert go.wait(30)
        return write(self, piece)

    monkeypatch.setattr(FileSink, "write", stuck)

    async def main():
        with Torrent() as server:
            client = native(backend)(server.config())
            got = []

            async def download():
                got.append(await client.download("x", tmp_path / "saved"))

            async def watch():
                try:
                    assert await in_thread(backend, stalled.wait, 30)
                    known, quiet = -1, 0
                    while quiet < 2000:  # turns of the loop in which nothing more was sent
                        await turns(backend, 1)
                        quiet = quiet + 1 if server.sent == known else 0
                        known = server.sent
                    assert known < 24 * MIB
                finally:
                    go.set()

            if backend == "trio":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(download)
                    nursery.start_soon(watch)
            else:
                await asyncio.gather(download(), watch())
            assert got[0]["size"] == SIZE

    run(backend, main)
