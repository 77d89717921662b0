"""Ten thousand calls, one in five of which goes wrong, leave nothing: on every driver.

What is counted after the first tenth is counted again at the end: descriptors, threads, tasks, objects that
the collector knows, blocks of memory, temporary files. Before either the client is closed, which leaves it as
good as new, so that no idle connection is counted.

Rules of this file: the server is a process of its own, so that this one's descriptors are the client's; what
goes wrong is told by the number of the call, so that every run has the same faults.
"""

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from agentrun_proto import AgentRunClientError, Config, Retry
from agentrun_transports import BlockingClient, Limits
from drivers_support import BACKENDS, descriptors, native, run, turns

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="descriptors are counted in /proc"),
]

CALLS = 10_000
CALLS_OVER_HTTPCORE = 3_000  # of which each costs several times as much
SIDE_BY_SIDE = 8
CONNECTIONS = 5
# What may be more at the end: of objects, those of a few threads and locks, and of httpcore's last
# connections; of blocks, what fills up in tables. One object for each call with one kind of fault would be
# 128 more (over httpcore 38), one block for each fault 1,800.
OBJECTS, BLOCKS = 100, 1_500
OF_A_THREAD, OF_A_CONNECTION = 30, 60

SERVER = r"""
import selectors, socket, struct

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"ok": 1}'
FAULTS = {
    1: (b'', 'close'),
    2: (b'', 'reset'),
    3: (OK[:-4], 'close'),
    4: (OK[:20], 'reset'),
    5: (b'SSH-2.0-x\r\n\r\n', 'close'),
    6: (OK + OK, ''),
    7: (OK.replace(b'{"ok": 1}', b'{"ok": 1,'), ''),
    8: (b'HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nRetry-After: 0\r\n\r\n{}', ''),
    9: (b'HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\n<h1>', ''),
    10: (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"ok": 1}\r\n', 'close'),
    11: (b'HTTP/1.1 302 There\r\nContent-Length: 0\r\nLocation: /a?n=0\r\n\r\n', ''),
    12: (OK.replace(b'Content-Length', b'Content-Encoding: gzip\r\nContent-Length'), ''),
    13: (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"ok": 1}\r\n0\r\n\r\n', ''),
    14: (b'', 'stall'),
}
listener = socket.create_server(('127.0.0.1', 0), backlog=128)
print(listener.getsockname()[1], flush=True)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
pending = {}
while True:
    for key, _ in selector.select():
        sock = key.fileobj
        if sock is listener:
            made, _ = listener.accept()
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(made, selectors.EVENT_READ)
            pending[made] = b''
            continue
        end = ''
        try:
            data = sock.recv(262144)
            pending[sock] += data
            head, whole, body = pending[sock].partition(b'\r\n\r\n')
            length = head.lower().partition(b'content-length: ')[2].partition(b'\r\n')[0]
            if not data:
                end = 'close'
            elif whole and len(body) >= int(length or 0):
                pending[sock] = b''
                number = int(head.partition(b'n=')[2].split()[0])
                answer, end = FAULTS.get(number % 70, (OK, ''))
                if answer:
                    sock.sendall(answer)
        except OSError:
            end = 'close'
        if end == 'reset':
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        if end in ('close', 'reset'):
            selector.unregister(sock)
            del pending[sock]
            sock.close()
"""


@pytest.fixture(scope="module")
def url():
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE) as process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def settings(url):
    return Config(data_endpoint=url, timeout=30.0, retry=Retry(attempts=2, backoff=0.0))


STALLED = Config(timeout=0.01)


def what_is_called(number, folder):
    """The method and the arguments of a call: a GET, a POST, or a file either way."""
    query = {"n": number}
    config = STALLED if number % 70 == 14 else None
    if number % 50 == 3:
        return "post_file", ("f", folder / "local", "/x"), {"query": query, "config": config}
    if number % 50 == 4:
        return "get_file", ("f", folder / "saved"), {"query": query, "config": config}
    return ("post" if number % 3 else "get"), ("a",), {"query": query, "config": config}


class Tally:
    """What came of the calls, and what is left of them."""

    def __init__(self, folder, calls=CALLS):
        self.folder, self.calls = folder, calls
        self.failed = self.succeeded = self.cancelled = 0
        (folder / "local").write_bytes(b"x" * 5000)

    def count(self, backend=""):
        urllib.parse.clear_cache()
        if backend == "trio":  # which keeps up to 1,000 deadlines that are over, to forget them all at once
            trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines._prune()
        for _ in range(3):
            gc.collect()
        return {
            "objects": len(gc.get_objects()),
            "blocks": sys.getallocatedblocks(),
            "descriptors": len(descriptors()),
            "threads": threading.active_count(),
            "files": len(list(self.folder.iterdir())),
        }

    def assert_flat(self, before, after):
        grown = {name: after[name] - before[name] for name in before}
        assert grown["descriptors"] == 0, grown
        assert grown["threads"] <= SIDE_BY_SIDE, grown  # of the loop's own, which it starts as it needs them
        assert grown["files"] == 0, grown
        kept = CONNECTIONS * OF_A_CONNECTION if self.calls == CALLS_OVER_HTTPCORE else 0
        assert grown["objects"] <= OBJECTS + OF_A_THREAD * max(0, grown["threads"]) + kept, grown
        assert grown["blocks"] <= BLOCKS, grown
        assert self.failed > self.calls / 10, "faults were included"
        assert self.succeeded > self.calls / 2


def test_blocking(url, tmp_path):
    tally = Tally(tmp_path)
    with BlockingClient(settings(url), limits=Limits(total=CONNECTIONS)) as client:

        def call(number):
            method, arguments, options = what_is_called(number, tmp_path)
            try:
                getattr(client, method)(*arguments, **options)
                return True
            except AgentRunClientError:
                return False

        with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
            tally.succeeded = sum(threads.map(call, range(CALLS // 10)))
            client.close()
            before = tally.count()
            for start in range(1, 10):  # in parts: what is handed to the threads is not to be counted
                part = range(start * CALLS // 10, (start + 1) * CALLS // 10)
                tally.succeeded += sum(threads.map(call, part))
            tally.failed = CALLS - tally.succeeded
            client.close()
            after = tally.count()
    tally.assert_flat(before, after)


@pytest.mark.parametrize(
    ("backend", "transport"),
    [
        *(
            pytest.param(*each.values, "native", marks=each.marks)
            if hasattr(each, "marks")
            else (each, "native")
            for each in BACKENDS
        ),
        ("asyncio", "httpcore"),
        ("trio", "httpcore"),
    ],
)
def test_on_a_loop(backend, transport, url, tmp_path):
    calls = CALLS if transport == "native" else CALLS_OVER_HTTPCORE
    tally = Tally(tmp_path, calls)

    async def main():
        client = native(backend)(settings(url), limits=Limits(total=CONNECTIONS), transport=transport)

        async def one(number):
            method, arguments, options = what_is_called(number, tmp_path)
            try:
                await getattr(client, method)(*arguments, **options)
                tally.succeeded += 1
            except AgentRunClientError:
                tally.failed += 1

        async def work(numbers):
            for number in numbers:
                if number % 70 == 15:
                    tally.cancelled += await cancelled(backend, one, number)
                else:
                    await one(number)

        async def some(first, last):
            numbers = iter(range(first, last))
            if backend == "trio":
                async with trio.open_nursery() as nursery:
                    for _ in range(SIDE_BY_SIDE):
                        nursery.start_soon(work, numbers)
            else:
                await asyncio.gather(*(work(numbers) for _ in range(SIDE_BY_SIDE)))
            await client.aclose()
            await turns(backend, 10)

        await some(0, calls // 10)
        before = tally.count(backend)
        await some(calls // 10, calls)
        after = tally.count(backend)
        if backend != "trio":
            assert asyncio.all_tasks() == {asyncio.current_task()}
        tally.assert_flat(before, after)

    run(backend, main)
    assert tally.cancelled > calls / 100


async def cancelled(backend, call, number):
    """Whether a call was cancelled, a few turns of the loop after it began."""
    if backend == "trio":
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, number)
                await turns(backend, number % 5)
                scope.cancel()
        return scope.cancelled_caught
    task = asyncio.ensure_future(call(number))
    await turns(backend, number % 5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return task.cancelled()
