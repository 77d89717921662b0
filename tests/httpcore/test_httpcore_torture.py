"""httpcore's three: the n-th network operation fails, or is cancelled, for every n until none is left.

After each: what surfaces is ours or the cancellation, nothing is left open, and the next call is right.
"""

import asyncio
import gc
import os
import socket

import pytest
import trio

import httpcore
from agentrun_proto import AgentRunClientError, Config
from agentrun_transports import AsyncioClient, BlockingClient, TrioClient
from agentrun_transports._httpcore import network
from agentrun_transports.emulator import Emulator

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
    with Emulator() as running:
        yield running


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
    }


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")


@needs_proc
@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "reused"])
@pytest.mark.parametrize("operation", ["get", "post", "upload", "download"])
def test_blocking(emulator, local, monkeypatch, operation, reused):
    saboteur = Saboteur()

    def fail(stream, name):
        raise broken(stream, name)

    sabotage(monkeypatch, saboteur, (network.Backend, network.Stream), fail, is_async=False)
    config = Config.from_env(emulator.environment)
    with BlockingClient(config, transport="httpcore") as client:
        client.upload("files", local, "/torture")

    def one(victim):
        """Whether the victim was met."""
        with BlockingClient(config, transport="httpcore") as client:
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
    async def forever():
        await asyncio.Event().wait()


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
    async def forever():
        await trio.sleep_forever()


@needs_proc
@pytest.mark.parametrize("how", ["fails", "cancelled"])
@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "reused"])
@pytest.mark.parametrize("operation", ["get", "post", "upload", "download"])
@pytest.mark.parametrize("on", [OnAsyncio, OnTrio], ids=["asyncio", "trio"])
def test_async(emulator, local, monkeypatch, on, operation, reused, how):
    saboteur, cancel_here = Saboteur(), []

    async def meddle(stream, name):
        if how == "fails":
            raise broken(stream, name)
        cancel_here[-1]()
        await on.forever()

    sabotage(monkeypatch, saboteur, (network.AsyncBackend, network.AsyncStream), meddle, is_async=True)
    config = Config.from_env(emulator.environment)

    async def prepare():
        async with on.client(config, transport="httpcore") as client:
            await client.upload("files", local, "/torture")

    async def one(victim):
        """Whether the victim was met."""
        async with on.client(config, transport="httpcore") as client:
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
