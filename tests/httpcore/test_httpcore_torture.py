"""httpcore's three: the n-th network operation fails, or is cancelled, for every n until none is left.

After each: what surfaces is ours or the cancellation, nothing is left open, and the next call is right. The
server is a process of its own, so that this one's descriptors are the client's alone.
"""

import asyncio
import gc
import itertools
import os
import socket

import pytest
import trio

import httpcore
from agentrun_proto import AgentRunClientError, Resource, Retry
from agentrun_transports import AsyncioClient, BlockingClient, TrioClient
from agentrun_transports._httpcore import network
from drivers_support import EmulatorProcess, assert_silent

pytestmark = pytest.mark.once

OPERATIONS = ("connect_tcp", "read", "write")
FAILURES = {
    "connect_tcp": httpcore.ConnectError,
    "read": httpcore.ReadError,
    "write": httpcore.WriteError,
}


def broken(stream, name):
    """The error to raise; a connection that cannot be written to is no better for reading."""
    if name == "write":
        stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    return FAILURES[name]("planted")


class Saboteur:
    """Counts operations, and meddles with the one whose number it was given."""

    def __init__(self):
        self.number, self.victim = 0, 0

    def due(self):
        self.number += 1
        return self.number == self.victim

    def arm(self, victim):
        self.number, self.victim = 0, victim


def sabotage(monkeypatch, saboteur, classes, meddle, is_async):
    for cls in classes:
        for name in OPERATIONS:
            if not hasattr(cls, name):
                continue

            def wrap(original, name):
                def blocking(self, *args, **kwargs):
                    if saboteur.due():
                        meddle(self, name)
                    return original(self, *args, **kwargs)

                async def awaited(self, *args, **kwargs):
                    if saboteur.due():
                        await meddle(self, name)
                    return await original(self, *args, **kwargs)

                return awaited if is_async else blocking

            monkeypatch.setattr(cls, name, wrap(getattr(cls, name), name))


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module")
def emulator():
    running = EmulatorProcess()
    yield running
    running.close()


@pytest.fixture
def local(tmp_path):
    path = tmp_path / "local"
    path.write_bytes(os.urandom(200_000))
    return path


def calls(client, local, reused):
    """The operations to torture: (name, a function that makes the call)."""
    saved = local.with_name("saved")
    return {
        "get": lambda: client.get("resources"),
        "post": lambda: client.post("resources", {"labels": [reused]}),
        "upload": lambda: client.upload("files", local, "/torture"),
        "download": lambda: client.download("files", saved, {"path": "/torture"}),
        "retried": lambda: client.post("resources", {"labels": ["r"]}, headers=fault("status=503")),
        "refreshed": lambda: client.get("resources", headers=fault("expired-token")),
    }


OPERATED = ("get", "post", "upload", "download", "retried", "refreshed")
_unused = itertools.count(1)


def fault(text):
    """Headers that have one request go wrong, and what is sent again go right: each text counts by itself."""
    return {"x-emulator-fault": f"{text}; delay=0.{next(_unused):06d}; times=1"}


def settings(emulator, operation):
    """How a client is made: with retries, and for a refresh with a token that is fetched."""
    sandbox = Resource(type="sandbox", name="sb-1") if operation == "refreshed" else None
    config = emulator.config(retry=Retry(backoff=0.001))
    return {"config": config, "access_token_for": sandbox, "transport": "httpcore"}


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")


@needs_proc
@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "reused"])
@pytest.mark.parametrize("operation", OPERATED)
def test_blocking(emulator, local, monkeypatch, operation, reused):
    saboteur = Saboteur()

    def fail(stream, name):
        raise broken(stream, name)

    sabotage(monkeypatch, saboteur, (network.Backend, network.Stream), fail, is_async=False)
    with BlockingClient(emulator.config(), transport="httpcore") as client:
        client.upload("files", local, "/torture")

    def one(victim):
        """Whether the victim was met."""
        with BlockingClient(**settings(emulator, operation)) as client:
            if reused:
                client.get("resources")
            saboteur.arm(victim)
            try:
                calls(client, local, reused)[operation]()
            except AgentRunClientError:
                pass
            met = saboteur.number >= victim
            saboteur.arm(0)
            assert client.get("resources", {"limit": 1})["data"]["limit"] == 1
            return met

    victim, before = 1, descriptors()
    while one(victim):
        victim += 1
        assert [path.name for path in local.parent.iterdir() if path.name.startswith(".")] == []
    assert victim > 2, "it got somewhere"
    assert descriptors() <= before


class OnAsyncio:
    client = AsyncioClient

    @staticmethod
    def run(main, *args):
        return asyncio.run(main(*args))

    @staticmethod
    async def cancelled(call, cancel_here):
        """Runs the call so that `cancel_here` cancels it; whether it was cancelled."""
        task = asyncio.ensure_future(call())
        cancel_here.append(task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            return True
        return False

    @staticmethod
    async def give_way():
        await asyncio.sleep(0)


class OnTrio:
    client = TrioClient

    @staticmethod
    def run(main, *args):
        return trio.run(main, *args)

    @staticmethod
    async def cancelled(call, cancel_here):
        with trio.CancelScope() as scope:
            cancel_here.append(scope.cancel)
            await call()
        return scope.cancelled_caught

    @staticmethod
    async def give_way():
        await trio.lowlevel.checkpoint()


@needs_proc
@pytest.mark.parametrize("how", ["fails", "cancelled"])
@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "reused"])
@pytest.mark.parametrize("operation", OPERATED)
@pytest.mark.parametrize("on", [OnAsyncio, OnTrio], ids=["asyncio", "trio"])
def test_async(emulator, local, monkeypatch, on, operation, reused, how):
    saboteur, cancel_here = Saboteur(), []

    async def meddle(stream, name):
        if how == "fails":
            raise broken(stream, name)
        cancel_here[-1]()
        await on.give_way()  # it surfaces here, but in a refresh, which goes on beside

    sabotage(monkeypatch, saboteur, (network.AsyncBackend, network.AsyncStream), meddle, is_async=True)

    async def prepare():
        async with on.client(emulator.config(), transport="httpcore") as client:
            await client.upload("files", local, "/torture")

    async def one(victim):
        """Whether the victim was met."""
        async with on.client(**settings(emulator, operation)) as client:
            if reused:
                await client.get("resources")
            saboteur.arm(victim)
            try:
                gone = await on.cancelled(calls(client, local, reused)[operation], cancel_here)
            except AgentRunClientError:
                gone = False
            met = saboteur.number >= victim
            assert gone == (met and how == "cancelled"), "the cancellation surfaces, and nothing else does"
            saboteur.arm(0)
            assert (await client.get("resources", {"limit": 1}))["data"]["limit"] == 1
            return met

    on.run(prepare)
    victim, before = 1, descriptors()
    while on.run(one, victim):
        victim += 1
        assert [path.name for path in local.parent.iterdir() if path.name.startswith(".")] == []
    assert victim > 2, "it got somewhere"
    assert descriptors() <= before


COLLECTED = """
import gc
import {loop} as lib
from agentrun_proto import Config
from agentrun_transports import AsyncioClient, TrioClient, _pool
from agentrun_transports.emulator import Emulator

clients = []

def forget():
    clients.clear()
    gc.collect()

if {transport!r} == "native":
    close = _pool.Pool.close

    def close_late(self):
        forget()
        close(self)

    _pool.Pool.close = close_late
else:
    from agentrun_transports._httpcore import network

    aclose = network.AsyncStream.aclose

    async def aclose_late(self):
        forget()
        await turns()
        await aclose(self)

    network.AsyncStream.aclose = aclose_late

async def turns():
    if {loop!r} == "trio":
        with lib.CancelScope(shield=True):
            for _ in range(5):
                await lib.lowlevel.checkpoint()
    else:
        for _ in range(5):
            await lib.sleep(0)

async def main(config):
    if {loop!r} == "asyncio":
        lib.get_running_loop().slow_callback_duration = 30  # a slow machine is no fault
    clients.append((TrioClient if {loop!r} == "trio" else AsyncioClient)(config, transport={transport!r}))
    await clients[0].get("resources")

with Emulator() as emulator:
    config = Config.from_env(emulator.environment)
    if {loop!r} == "trio":
        lib.run(main, config)
    else:
        lib.run(main(config))
print(len(clients))
"""


@pytest.mark.parametrize("transport", ["native", "httpcore"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_session_that_is_collected_while_its_loop_closes_it(loop, transport):
    """The end of the loop is closing its connections when the last reference to the client goes."""
    assert_silent(COLLECTED.format(loop=loop, transport=transport), "0")


MANY_LEFT = """
import asyncio
from agentrun_proto import Config
from agentrun_transports import AsyncioClient
from agentrun_transports.emulator import Emulator

async def main(config):
    asyncio.get_running_loop().slow_callback_duration = 30  # a slow machine is no fault
    client = AsyncioClient(config, transport="httpcore")
    await asyncio.gather(*[client.get("resources") for _ in range(20)])

with Emulator() as emulator:
    asyncio.run(main(Config.from_env(emulator.environment)))
print("over")
"""


def test_a_loop_that_ends_with_many_connections_of_a_client_that_is_gone():
    """What is closing them is cancelled with all other tasks of the loop; it closes the rest all the same."""
    assert_silent(MANY_LEFT, "over")
