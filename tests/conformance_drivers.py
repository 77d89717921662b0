"""The drivers that the conformance suite runs on, each with a loop of its own until it is closed."""

from __future__ import annotations

import asyncio
import importlib.util
import queue
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

from agentrun_proto import AgentRunClientError
from agentrun_transports._asyncio import AsyncioNetwork
from agentrun_transports._blocking import BlockingNetwork, BlockingSession
from agentrun_transports._httpcore import HttpcoreBlockingSession, HttpcoreSessions
from agentrun_transports._proxies import Proxies
from agentrun_transports._sessions import LoopSessions
from agentrun_transports._tls import TLS
from agentrun_transports._trio import TrioNetwork

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def load(path):
    """A module from a file that is on no path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcome(run, operation):
    try:
        return run(operation)
    except AgentRunClientError as error:
        return error


class Threads:
    """Blocking calls side by side: from threads that begin one after another."""

    def together(self, operations):
        with ThreadPoolExecutor(len(operations)) as threads:
            return list(threads.map(lambda operation: outcome(self.run, operation), operations))


class Blocking(Threads):
    def __init__(self, limits):
        self._session = BlockingSession(None, limits, None)
        self.run, self.close = self._session.run, self._session.close

    @property
    def open(self):
        return self._session.pool.open


class Asyncio:
    """An event loop of this thread, run whenever there is something to do."""

    def __init__(self, limits, new_loop=asyncio.new_event_loop, sessions=None):
        self._loop = new_loop()
        self._sessions = sessions or LoopSessions(None, limits, None)

    def _session(self):
        return self._sessions.get(self._loop, AsyncioNetwork)

    async def _run(self, operation):
        return await self._session().run(operation)

    async def _outcome(self, operation):
        try:
            return await self._run(operation)
        except AgentRunClientError as error:
            return error

    async def _together(self, operations):
        return await asyncio.gather(*map(self._outcome, operations))

    async def _cancel(self, operation, when):
        task = asyncio.ensure_future(self._run(operation))
        task.add_done_callback(lambda task: when.set())  # it must not end by itself; nobody waits if it does
        await self._loop.run_in_executor(None, when.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def _open(self):
        return self._session().open if hasattr(self._session(), "open") else self._session().pool.open

    def run(self, operation):
        return self._loop.run_until_complete(self._run(operation))

    def together(self, operations):
        return self._loop.run_until_complete(self._together(operations))

    def cancel(self, operation, when):
        self._loop.run_until_complete(self._cancel(operation, when))

    @property
    def open(self):
        return self._loop.run_until_complete(self._open())

    def close(self):
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


class Trio:
    """A trio run in a thread, asked from outside."""

    def __init__(self, limits, sessions=None):
        self._sessions = sessions or LoopSessions(None, limits, None)
        started = queue.Queue()
        self._thread = threading.Thread(target=trio.run, args=(self._main, started), daemon=True)
        self._thread.start()
        self._token, self._over = started.get()

    async def _main(self, started):
        over = trio.Event()
        started.put((trio.lowlevel.current_trio_token(), over))
        await over.wait()

    def _session(self):
        return self._sessions.get(trio.lowlevel.current_trio_token(), TrioNetwork)

    async def _run(self, operation):
        return await self._session().run(operation)

    async def _together(self, operations):
        outcomes = [None] * len(operations)

        async def one(number):
            try:
                outcomes[number] = await self._run(operations[number])
            except AgentRunClientError as error:
                outcomes[number] = error

        async with trio.open_nursery() as nursery:
            for number in range(len(operations)):
                nursery.start_soon(one, number)
        return outcomes

    async def _cancel(self, operation, when):
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def one():
                try:
                    with scope:
                        await self._run(operation)
                finally:
                    when.set()  # it must not end by itself; nobody waits if it does

            nursery.start_soon(one)
            await trio.to_thread.run_sync(when.wait)
            scope.cancel()
        assert scope.cancelled_caught

    async def _open(self):
        return self._session().open if hasattr(self._session(), "open") else self._session().pool.open

    def _call(self, function, *args):
        return trio.from_thread.run(function, *args, trio_token=self._token)

    def run(self, operation):
        return self._call(self._run, operation)

    def together(self, operations):
        return self._call(self._together, operations)

    def cancel(self, operation, when):
        self._call(self._cancel, operation, when)

    @property
    def open(self):
        return self._call(self._open)

    def close(self):
        trio.from_thread.run_sync(self._over.set, trio_token=self._token)
        self._thread.join()


def uvloop(limits):
    if sys.platform == "win32":
        pytest.skip("uvloop does not run on Windows")
    module = pytest.importorskip("uvloop", reason="uvloop is not installed")
    return Asyncio(limits, module.new_event_loop)


class Selectors:
    """The example over nothing but selectors."""

    def __init__(self, limits):
        self._loop = load(Path(__file__).parent / "conformance" / "selectors_driver.py").Loop(limits)
        self.close = self._loop.close

    def run(self, operation):
        (result,) = self._loop.run_all([operation])
        if isinstance(result, AgentRunClientError):
            raise result
        return result

    def together(self, operations):
        return self._loop.run_all(operations)

    def cancel(self, operation, when):
        assert self._loop.run_all([operation], cancelled=when.is_set) == [None]

    @property
    def open(self):
        return self._loop.pool.open


class Httpx(Threads):
    """The example over httpx."""

    open = None

    def __init__(self, limits):
        httpx = pytest.importorskip("httpx", reason="httpx is not installed")
        pool = httpx.Limits(max_connections=limits.total, keepalive_expiry=limits.idle)
        self._client = httpx.Client(limits=pool, trust_env=False)
        self.run = load(EXAMPLES / "httpx_driver.py").HttpxDriver(self._client).run
        self.close = self._client.close


class HttpcoreBlocking(Threads):
    def __init__(self, limits):
        network = BlockingNetwork(TLS())
        self._session = HttpcoreBlockingSession(network, TLS(), limits, None, Proxies())
        self.run, self.close = self._session.run, self._session.forget

    @property
    def open(self):
        return self._session.open


def httpcore_asyncio(limits):
    return Asyncio(limits, sessions=HttpcoreSessions(None, limits, None, Proxies()))


def httpcore_trio(limits):
    return Trio(limits, sessions=HttpcoreSessions(None, limits, None, Proxies()))


DRIVERS = {
    "blocking": Blocking,
    "asyncio": Asyncio,
    "uvloop": uvloop,
    "trio": Trio,
    "selectors": Selectors,
    "httpx": Httpx,
    "httpcore_blocking": HttpcoreBlocking,
    "httpcore_asyncio": httpcore_asyncio,
    "httpcore_trio": httpcore_trio,
}
