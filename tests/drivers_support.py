"""What the tests of the async drivers share: loops, servers that cost little, torture, virtual time, TLS.

Rules of this file: whatever is counted (descriptors, places in the pool, tasks, temporary files) is counted
exactly; servers that a descriptor is counted against live in a process of their own; nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
import os
import selectors
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio
import trio.testing
import trustme

import agentrun_proto
from agentrun_proto import Config, Retry
from agentrun_transports import AsyncioClient, TrioClient
from agentrun_transports._asyncio_link import AsyncioLink
from agentrun_transports._network import Connect, Run, SendFile, Write

try:
    import uvloop
except ImportError:  # uvloop has no wheels for Windows
    uvloop = None

BACKENDS = (
    "asyncio",
    pytest.param("uvloop", marks=pytest.mark.skipif(uvloop is None, reason="uvloop is not installed")),
    "trio",
)
LOOPS = BACKENDS[:2]
SRC = Path(agentrun_proto.__file__).parent.parent


# --- loops


def run_asyncio(main: Callable[..., Any], *args: Any, loop_factory: Any = None, debug: bool = False) -> Any:
    """asyncio.run with a loop of our choice, on Python 3.10 too."""
    if loop_factory is None:
        return asyncio.run(main(*args), debug=debug)
    loop = loop_factory()
    loop.set_debug(debug)
    try:
        return loop.run_until_complete(main(*args))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def run(backend: str, main: Callable[..., Any], *args: Any) -> Any:
    """Runs an async function on a backend by name."""
    if backend == "trio":
        return trio.run(main, *args)
    return run_asyncio(main, *args, loop_factory=uvloop.new_event_loop if backend == "uvloop" else None)


def native(backend: str) -> Any:
    """The client class of a backend."""
    return TrioClient if backend == "trio" else AsyncioClient


def checkpoint(backend: str) -> Any:
    """One turn of the loop."""
    return trio.lowlevel.checkpoint() if backend == "trio" else asyncio.sleep(0)


async def turns(backend: str, count: int = 6) -> None:
    """A few turns of the loop: what was closed by a plain call is let go of in the next ones."""
    for _ in range(count):
        await checkpoint(backend)


async def in_thread(backend: str, function: Callable[..., Any], *args: Any) -> Any:
    """Runs a blocking call of the test where it holds no loop up."""
    if backend == "trio":
        return await trio.to_thread.run_sync(function, *args)
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


def session_of(client: Any) -> Any:
    """The session of a client on the running loop."""
    loop: object
    try:
        loop = trio.lowlevel.current_trio_token()
    except RuntimeError:
        loop = asyncio.get_running_loop()
    return client._sessions._by_loop[loop]


# --- what may leak


def descriptors() -> set[str]:
    """The descriptors that this process has open, each with what it is."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor is gone again
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


def sockets() -> int:
    """How many sockets this process has open."""
    return sum("socket:" in entry for entry in descriptors())


def settled_sockets() -> int:
    """The same, without what earlier tests have left to be collected, whenever that may be."""
    gc.collect()
    return sockets()


@contextmanager
def quick_collection() -> Iterator[None]:
    """Makes `gc.collect` look at what is made from now on only, so that it can be called often."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def assert_nothing_leaked(backend: str, client: Any, sockets_before: int) -> None:
    """Every place in the pool is an idle connection, nobody waits, and no other socket is open."""
    pool = session_of(client).pool
    await turns(backend)
    gc.collect()
    await turns(backend)
    assert pool.waiting == 0
    assert pool.open == len(pool.idle)
    assert sockets() - sockets_before == len(pool.idle)


def parts(folder: Path) -> list[str]:
    """The temporary files in a folder."""
    return [entry.name for entry in folder.iterdir() if entry.name.endswith(".part")]


def fileno_of(link: Any) -> int:
    """The descriptor of a connection, whichever driver has it; below 0 once it is closed."""
    if isinstance(link, AsyncioLink):
        return link._transport.get_extra_info("socket").fileno()
    return link._socket.fileno()


# --- servers


class EmulatorProcess:
    """The emulator in a process of its own, so that the descriptors of this one are the client's alone."""

    def __init__(self) -> None:
        script = (
            "import json, sys\n"
            "from agentrun_transports.emulator import Emulator\n"
            "with Emulator() as emulator:\n"
            "    print(json.dumps(emulator.environment), flush=True)\n"
            "    sys.stdin.read()\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SRC)},
        )
        assert self._process.stdout is not None
        self.environment = json.loads(self._process.stdout.readline())

    def config(self, **settings: Any) -> Config:
        return Config.from_env(self.environment).merge(
            Config(**{"timeout": 30.0, "retry": Retry.never(), **settings})
        )

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


class QuickServer:
    """Answers each GET with its own target, for many connections, in one thread.

    ``order`` lists the numbers ``n`` of the queries as they arrived; ``most`` is how many connections were
    open at once.
    """

    def __init__(self, body: bytes = b"", *, backlog: int = 1024) -> None:
        self.order: list[int] = []
        self.most = self.accepted = self._open = 0
        self._body = body
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self._listener.setblocking(False)
        self._waker, self._wake = socket.socketpair()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def config(self, **settings: Any) -> Config:
        return Config(**{"data_endpoint": self.url, "timeout": 60.0, "retry": Retry.never(), **settings})

    def __enter__(self) -> QuickServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.send(b"x")
        self._thread.join(30)
        assert not self._thread.is_alive()
        for sock in (self._listener, self._waker, self._wake):
            sock.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._waker, selectors.EVENT_READ)
            pending: dict[socket.socket, bytes] = {}
            while True:
                for key, _ in selector.select():
                    sock: Any = key.fileobj
                    if sock is self._waker:
                        for each in pending:
                            each.close()
                        return
                    if sock is self._listener:
                        with contextlib.suppress(BlockingIOError):
                            made, _ = self._listener.accept()
                            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                            selector.register(made, selectors.EVENT_READ)
                            pending[made] = b""
                            self.accepted += 1
                            # Those that have ended meanwhile are taken out when it is their turn.
                            self.most = max(self.most, sum(map(is_open, pending)))
                        continue
                    try:
                        data = sock.recv(65536)
                    except OSError:
                        data = b""
                    if not data:
                        selector.unregister(sock)
                        del pending[sock]
                        sock.close()
                        continue
                    pending[sock] += data
                    if pending[sock].endswith(b"\r\n\r\n"):
                        target = pending[sock].split(b" ", 2)[1]
                        pending[sock] = b""
                        number = target.rpartition(b"n=")[2]
                        if number.isdigit():
                            self.order.append(int(number))
                        content = self._body or b'{"target":"%b"}' % target
                        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
                        with contextlib.suppress(OSError):
                            sock.sendall(head + content)


def is_open(sock: socket.socket) -> bool:
    """Whether the peer has not closed it, as far as what has arrived tells."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False


@contextmanager
def stuck_server() -> Iterator[tuple[str, threading.Event]]:
    """Accepts connections in the kernel, and never reads or says a word; the event is never set."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", threading.Event()


@contextmanager
def unreachable_server() -> Iterator[str]:
    """A port whose queue of connections is full: a further attempt is neither answered nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


# --- TLS


class Authority:
    """A certificate authority of our own, the server's context, and the file that a client is to trust."""

    def __init__(self, folder: Path, *names: str) -> None:
        authority = trustme.CA()
        self.ca_file = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        certificate = authority.issue_cert(*(names or ("localhost", "127.0.0.1", "::1")))
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(self.context)
        self.key_file, self.cert_file = str(folder / "key.pem"), str(folder / "cert.pem")
        certificate.private_key_pem.write_to_path(self.key_file)
        with open(self.cert_file, "wb") as file:
            for blob in certificate.cert_chain_pems:
                file.write(blob.bytes())


# --- torture by commands


async def awaited(answer: Any) -> Any:
    """An answer of a network's, which comes as it is where nothing has to be waited for."""
    return answer if isinstance(answer, int) else await answer


class Torture:
    """Lets the n-th network command of one task fail, or be cancelled, before or after it is performed.

    Args:
        session: whose network is tortured.
        nth: which command, from 0.
        fate: an exception to raise, or None for a cancellation, which `cancel` asks for.
        after: whether the command is performed first; what it brought is then given up, as a driver does.
        is_victim: says whether the running task is the one that is meant.
        cancel: asks for a cancellation of the running task.
        give_way: a point at which a cancellation that was asked for is delivered.
    """

    def __init__(
        self,
        session: Any,
        nth: int,
        fate: BaseException | None,
        *,
        after: bool,
        is_victim: Callable[[], bool],
        cancel: Callable[[], None],
        give_way: Callable[[], Any],
    ) -> None:
        self.count = 0
        self.kinds: list[str] = []
        self.struck = False
        self._nth, self._fate, self._after = nth, fate, after
        self._is_victim, self._cancel, self._give_way = is_victim, cancel, give_way
        self._network = session._network
        self._former = dict(self._network._perform)
        for kind, perform in self._former.items():
            self._network._perform[kind] = self._wrapped(perform)

    def end(self) -> None:
        """Leaves the network as it was."""
        self._network._perform.update(self._former)

    def _wrapped(self, perform: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def performed(command: Any) -> Any:
            if not self._is_victim():
                return await awaited(perform(command))
            strikes = self.count == self._nth
            self.count += 1
            self.kinds.append(type(command).__name__)
            if strikes and not self._after:
                self._break(command)
                await self._strike()
            answer = await awaited(perform(command))
            if strikes and self._after:
                self.struck = True
                if self._fate is None:
                    self._cancel()  # delivered where the task waits next, or never if it is done before
                    return answer
                if isinstance(command, Connect):
                    answer.abort()
                elif isinstance(command, Run):
                    command.undo(answer)
                self._break(command)
                raise self._fate
            return answer

        return performed

    def _break(self, command: Any) -> None:
        """A connection that failed to send has failed: what is read from it is its end."""
        if isinstance(command, (Write, SendFile)) and isinstance(self._fate, OSError):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fileno_of(command.link))) as sock:
                sock.shutdown(socket.SHUT_RDWR)

    async def _strike(self) -> None:
        self.struck = True
        if self._fate is not None:
            raise self._fate
        self._cancel()
        await self._give_way()


# --- cancellation at every await


def cancelled_at(coroutine: Any, nth: int, *, late: bool, reached: list[int]) -> Any:
    """An awaitable that runs a coroutine and cancels the asyncio task at its n-th suspension, from 0.

    With `late`, the cancellation comes when what is awaited is done already and the task has not run yet:
    the race in which an answer is in nobody's hands.
    """
    return _CancelledAt(coroutine, nth, late, reached)


class _CancelledAt:
    def __init__(self, coroutine: Any, nth: int, late: bool, reached: list[int]) -> None:
        self._coroutine, self._nth, self._late, self._reached = coroutine, nth, late, reached

    def __await__(self) -> Any:
        step = partial_send = self._coroutine.send
        argument: Any = None
        count = 0
        while True:
            try:
                awaited = step(argument)
            except StopIteration as stop:
                return stop.value
            if count == self._nth:
                self._reached.append(count)
                task = asyncio.current_task()
                assert task is not None
                if self._late and awaited is not None:
                    awaited.add_done_callback(lambda _, task=task: task.cancel())
                else:
                    task.cancel()
            count += 1
            try:
                argument = yield awaited
                step = partial_send
            except BaseException as error:
                step, argument = self._coroutine.throw, error


class CancelAtStep(trio.abc.Instrument):
    """Cancels a trio scope when a task is parked for the n-th time, or as it is about to go on after that."""

    def __init__(self, nth: int, *, late: bool) -> None:
        self.nth = nth
        self.late = late
        self.task: Any = None
        self.scope: Any = None
        self.count = 0
        self.reached = False

    def after_task_step(self, task: Any) -> None:
        if task is self.task:
            if self.count == self.nth and not self.late:
                self.reached = True
                self.scope.cancel()
            self.count += 1

    def before_task_step(self, task: Any) -> None:
        if task is self.task and self.late and self.count == self.nth + 1 and not self.reached:
            self.reached = True
            self.scope.cancel()


# --- virtual time


class _IdleSelector(selectors.DefaultSelector):
    """Waits as long as it takes the kernel to have nothing more; then says that nothing happened."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if found or timeout == 0:
            return found
        found = super().select(self.loop.grace if self.loop.may_jump else None)
        if not found and timeout is not None and self.loop.may_jump:
            self.loop.jump()
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time stands still, and jumps to the next timer when nothing else is left to do.

    What a thread does for it is something to do, however long the thread takes.
    """

    grace = 0.03  # real seconds in which the kernel hands on what loopback has been given

    def __init__(self) -> None:
        self._virtual = 1000.0
        selector = _IdleSelector()
        super().__init__(selector)
        selector.loop = self
        self._held = 0  # how much is under way that takes no virtual time

    @property
    def may_jump(self) -> bool:
        return not self._held

    def change(self, by: int) -> None:
        self._held += by

    def run_in_executor(self, *args: Any) -> Any:
        self.change(+1)
        work = super().run_in_executor(*args)
        work.add_done_callback(lambda _: self.change(-1))
        return work

    def time(self) -> float:
        return self._virtual

    def jump(self) -> None:
        when = min((timer.when() for timer in self._scheduled if not timer.cancelled()), default=None)
        if when is not None:
            self._virtual = max(self._virtual, when)


class _Held:
    """How much is under way that takes no virtual time: meanwhile trio's clock stands still."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock
        self._count = 0

    def change(self, by: int) -> None:
        self._count += by
        self._clock.autojump_threshold = math.inf if self._count else VirtualLoop.grace

    async def run_sync(self, *args: Any, **options: Any) -> Any:
        """`trio.to_thread.run_sync` is this."""
        self.change(+1)
        try:
            return await _run_sync(*args, **options)
        finally:
            self.change(-1)


_run_sync = trio.to_thread.run_sync
_held: trio.lowlevel.RunVar[_Held] = trio.lowlevel.RunVar("held")


def run_virtual(backend: str, main: Callable[..., Any], *args: Any) -> Any:
    """Runs with a clock that jumps to the next deadline when all is idle, threads included."""
    if backend != "trio":
        return run_asyncio(main, *args, loop_factory=VirtualLoop)
    clock = trio.testing.MockClock(autojump_threshold=VirtualLoop.grace)
    held = _Held(clock)

    async def whole() -> Any:
        _held.set(held)
        return await main(*args)

    with mock.patch.object(trio.to_thread, "run_sync", held.run_sync):
        return trio.run(whole, clock=clock)


@contextmanager
def standing_clock(backend: str) -> Iterator[None]:
    """Around what a server is to answer: it takes its time, and none of that is virtual."""
    clock: Any = _held.get() if backend == "trio" else asyncio.get_running_loop()
    clock.change(+1)
    try:
        yield
    finally:
        clock.change(-1)


def now(backend: str) -> float:
    """The loop's time."""
    return trio.current_time() if backend == "trio" else asyncio.get_running_loop().time()


# --- programs


def run_program(
    script: str, *, timeout: float = 60.0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a program with every warning an error and the loops' debug modes on; it must say nothing else."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", script],
        env={**os.environ, "PYTHONPATH": str(SRC), "PYTHONASYNCIODEBUG": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def assert_silent(script: str, expected: str = "", **environment: str) -> None:
    """The program prints what is expected, nothing on stderr, and ends well."""
    done = run_program(script, **environment)
    assert (done.stderr, done.stdout.strip(), done.returncode) == ("", expected, 0)
