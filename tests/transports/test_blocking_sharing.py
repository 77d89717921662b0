"""Many at once: threads that share a client, a full pool, forks, the end of the program, flat memory."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

from agentrun_proto import Timeout
from agentrun_transports import TLS, BlockingClient, Limits
from agentrun_transports._blocking import BlockingNetwork
from transports_support import PATIENCE, Pause, RawServer, Say, answer, assert_next_call_is_right

pytestmark = pytest.mark.once

TESTS = str(Path(__file__).parents[1])


def run_threads(count, work):
    failures = []

    def guarded(n):
        try:
            work(n)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures, failures[:3]


@pytest.mark.hostile("many-threads")
@pytest.mark.parametrize(
    "limits", [Limits(), Limits(total=3), Limits(per_origin=1)], ids=["all", "three", "one"]
)
def test_threads_that_share_a_client_get_their_own_answers(limits):
    with RawServer() as server, BlockingClient(server.config(), limits=limits) as client:

        def work(n):
            for m in range(50):
                if m % 3:
                    found = client.get(f"r/{n}/{m}")
                else:
                    found = client.post(f"r/{n}/{m}", {"body": n * 1000 + m})
                assert found["target"].endswith(f"/r/{n}/{m}")

        run_threads(16, work)
        assert len(server.requests) == 16 * 50
        assert server.connections <= min(limits.total, limits.per_origin)
        bodies = sorted(request.body for request in server.requests if request.body)
        assert bodies == sorted(b'{"body":%d}' % (n * 1000 + m) for n in range(16) for m in range(0, 50, 3))
        assert client._session.pool.open == len(client._session.pool.idle)


@pytest.mark.hostile("many-pool-full")
def test_a_full_pool_serves_in_order():
    """Callers who wait are served in the order in which they came."""
    go_on = threading.Event()
    script = (Pause(go_on), Say(answer({"ok": 1})))
    with RawServer(script) as server, BlockingClient(server.config(), limits=Limits(total=1)) as client:
        pool = client._session.pool
        first = threading.Thread(target=lambda: client.get("first"))
        first.start()
        pause = threading.Event()
        while not server.requests:
            pause.wait(0.001)
        threads = []
        for n in range(8):
            thread = threading.Thread(target=lambda n=n: client.get(f"r{n}"))
            thread.start()
            threads.append(thread)
            while pool.waiting < n + 1:
                pause.wait(0.001)
        go_on.set()
        for thread in [first, *threads]:
            thread.join(PATIENCE)
        order = [request.target.rpartition("/")[2] for request in server.requests]
        assert order == ["first", *(f"r{n}" for n in range(8))]
        assert server.connections == 1


@pytest.mark.hostile("many-pool-full")
def test_a_waiter_whose_time_is_over_gives_its_place_up():
    go_on = threading.Event()
    script = (Pause(go_on), Say(answer({"ok": 1})))
    with RawServer(script) as server, BlockingClient(server.config(), limits=Limits(total=1)) as client:
        first = threading.Thread(target=lambda: client.get("first"))
        first.start()
        pause = threading.Event()
        while not server.requests:
            pause.wait(0.001)
        from agentrun_proto import Config, PoolTimeout

        with pytest.raises(PoolTimeout):
            client.get("late", config=Config(timeout=Timeout(pool=0.05)))
        assert client._session.pool.waiting == 0
        go_on.set()
        first.join(PATIENCE)
        assert client.get("own")["target"].endswith("/own")
        assert len(server.requests) == 2


def test_close_closes_what_is_idle_and_a_closed_client_goes_on():
    with RawServer() as server:
        client = BlockingClient(server.config())
        client.get("a")
        assert client._session.pool.open == 1
        client.close()
        assert client._session.pool.open == 0
        assert client.get("b")["target"].endswith("/b")
        client.close()
        client.close()


def test_close_while_a_call_runs_lets_it_end():
    go_on = threading.Event()
    with RawServer((Pause(go_on), Say(answer({"ok": 1})))) as server:
        client = BlockingClient(server.config())
        results = []
        thread = threading.Thread(target=lambda: results.append(client.get("a")))
        thread.start()
        pause = threading.Event()
        while not server.requests:
            pause.wait(0.001)
        client.close()
        go_on.set()
        thread.join(PATIENCE)
        assert results == [{"ok": 1}]
        assert client._session.pool.open == 0


def test_a_client_that_is_dropped_closes_its_connections():
    """Without a word from the user, and without a ResourceWarning (which is an error here)."""
    with RawServer() as server:
        client = BlockingClient(server.config())
        client.get("a")
        pool = client._session.pool
        (link,) = pool.idle
        gone = weakref.ref(client)
        del client
        gc.collect()
        assert gone() is None
        assert pool.open == 0
        assert link._sock.fileno() == -1
        del link


def test_an_interrupt_amid_a_call_leaves_nothing_behind():
    """KeyboardInterrupt, here out of a hook's place in the flow: the next call works."""
    with RawServer() as server, BlockingClient(server.config()) as client:
        client.get("a")
        link = client._session.pool.idle[0]
        kind = type(link)
        read = kind.read

        def interrupt(self):
            kind.read = read
            raise KeyboardInterrupt

        kind.read = interrupt
        try:
            with pytest.raises(KeyboardInterrupt):
                client.get("b")
        finally:
            kind.read = read
        assert client._session.pool.open == 0
        from transports_support import _BlockingClient

        assert_next_call_is_right(_BlockingClient(client))


# --- processes


def test_where_no_thread_can_be_had_the_caller_does_the_work(monkeypatch):
    """As at the interpreter's end: a refresh that nobody does would be waited for for ever."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    BlockingNetwork(TLS()).spawn(lambda: done.append(threading.current_thread()), lambda: done.append("over"))
    assert done == [threading.current_thread(), "over"]
    with pytest.raises(LookupError):
        BlockingNetwork(TLS()).spawn({}.popitem, lambda: done.append("over all the same"))
    assert done[2:] == ["over all the same"]


def run(program, *arguments, timeout=60, flags=("-W", "error", "-X", "dev")):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AGENTRUN", "COV"))}
    return subprocess.run(
        [sys.executable, *flags, "-c", program, *arguments],
        env={**environment, "PYTHONPATH": os.pathsep.join([TESTS, *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


ENDS = {
    "plainly": "",
    "from_a_thread": "import threading; t = threading.Thread(target=client.get, args=('b',)); t.start()",
    "with_an_error": "import os; del client; raise SystemExit(0)",
    "in_a_cycle": "cycle = [client]; cycle.append(cycle); del client, cycle",
    "in_a_global_of_a_module": "import types; sys.modules['kept'] = types.SimpleNamespace(client=client)",
    "amid_a_daemon_thread": (
        "import threading; threading.Thread(target=client.get, args=('silence',), daemon=True).start()\n"
        "while not client._session.pool.open > len(client._session.pool.idle): threading.Event().wait(0.01)"
    ),
}


@pytest.mark.hostile("many-silent-end")
@pytest.mark.parametrize("end", ENDS)
def test_the_program_ends_without_closing(end):
    """No warning, no hang."""
    program = f"""
import sys
from agentrun_proto import Config
from agentrun_transports import BlockingClient
client = BlockingClient(Config(data_endpoint=sys.argv[1], timeout=50))
assert client.get("a")["target"].endswith("/a")
{ENDS[end]}
"""
    from transports_support import Stall

    scripts = [(Say(answer({"target": "/a"})),)] + [(Stall(),)] * (end == "amid_a_daemon_thread")
    with RawServer(*scripts) as server:
        done = run(program, server.url, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.hostile("many-fork")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_with_an_open_pool():
    """The child opens its own connections; the parent's go on to work; the limits count anew."""
    program = """
import os, sys
from agentrun_proto import Config
from agentrun_transports import BlockingClient, Limits
client = BlockingClient(Config(data_endpoint=sys.argv[1], timeout=20), limits=Limits(total=1))
assert client.get("parent")["target"].endswith("/parent")
child = os.fork()
if not child:
    assert client._session.pool.open == 0
    for n in range(3):
        assert client.get(f"child{n}")["target"].endswith(f"/child{n}")
    del client
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
for n in range(3):
    assert client.get(f"parent{n}")["target"].endswith(f"/parent{n}")
"""
    with RawServer() as server:
        done = run(program, server.url)
        assert (done.returncode, done.stderr) == (0, "")
        by_connection: dict[int, set[str]] = {}
        for request in server.requests:
            name = request.target.rpartition("/")[2].rstrip("0123456789")
            by_connection.setdefault(request.connection, set()).add(name)
        assert sorted(map(sorted, by_connection.values())) == [["child"], ["parent"]]


@pytest.mark.hostile("many-fork")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_while_another_thread_calls():
    """The pool's lock, held or not by a thread that the child does not have, holds nobody up there."""
    program = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork in a program with threads
from agentrun_proto import Config
from agentrun_transports import BlockingClient, Limits
client = BlockingClient(Config(data_endpoint=sys.argv[1], timeout=20), limits=Limits(total=2))
over = threading.Event()
def work(n):
    m = 0
    while not over.is_set():
        m += 1
        assert client.get(f"p{n}x{m}")["target"].endswith(f"/p{n}x{m}")
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
for n in range(10):
    child = os.fork()
    if not child:
        ok = client.get(f"c{n}")["target"].endswith(f"/c{n}") and client._session.pool.open == 1
        os._exit(7 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
over.set()
for thread in threads: thread.join()
"""
    with RawServer() as server:
        done = run(program, server.url)
    assert (done.returncode, done.stderr) == (0, "")


MEASURE = """
import resource, sys
from agentrun_proto import Config
from agentrun_transports import BlockingClient
client = BlockingClient(Config(data_endpoint=sys.argv[1], timeout=60))
client.get("warm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
SIZE = 64 * 1024 * 1024


@pytest.mark.hostile("published-memory")
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in KB on Linux alone")
@pytest.mark.parametrize("coding", ["counted", "chunked", "until_close"])
def test_a_download_needs_no_memory(tmp_path, coding):
    from transports_support import Close, Repeat

    piece = bytes(65536)
    script = {
        "counted": (Say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE), Repeat(piece, times=1024)),
        "chunked": (
            Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Repeat(b"10000\r\n" + piece + b"\r\n", times=1024),
            Say(b"0\r\n\r\n"),
        ),
        "until_close": (Say(b"HTTP/1.1 200 OK\r\n\r\n"), Repeat(piece, times=1024), Close()),
    }[coding]
    with RawServer(answer({}), script) as server:
        program = MEASURE.format("assert client.get_file('f', sys.argv[2])['size'] == 1 << 26")
        done = run(program, server.url, str(tmp_path / "f"), flags=("-W", "error"))
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 8 * 1024, "KB"
    assert (tmp_path / "f").stat().st_size == SIZE


@pytest.mark.hostile("published-memory")
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in KB on Linux alone")
def test_an_upload_needs_no_memory(tmp_path):
    from transports_support import BeforeBody, Drain

    path = tmp_path / "f"
    with open(path, "wb") as file:
        file.truncate(SIZE)
    with RawServer(answer({}), (BeforeBody(), Drain(), Say(answer({"ok": 1})))) as server:
        program = MEASURE.format("assert client.post_file('f', sys.argv[2], '/x') == {'ok': 1}")
        done = run(program, server.url, str(path), flags=("-W", "error"))
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 8 * 1024, "KB"


def test_faults_leave_no_descriptor_behind():
    """A hundred of each kind: reset, no HTTP, not what was promised."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc to count descriptors in")
    from transports_support import Reset

    with RawServer(*([(Reset(),), (Say(b"junk"),), (Say(answer(b"[1]")),)] * 100)) as server:
        with BlockingClient(server.config()) as client:
            before = len(os.listdir("/proc/self/fd"))
            from agentrun_proto import AgentRunClientError

            for _ in range(300):
                with pytest.raises(AgentRunClientError):
                    client.post("a")  # never sent twice
            assert client._session.pool.open == len(client._session.pool.idle) <= 1
        with server._lock:
            theirs = sum(sock.fileno() != -1 for sock in server._socks)
        assert len(os.listdir("/proc/self/fd")) - theirs <= before + 1
