"""One program for every client: what is written with `await` runs over blocking clients too."""

from __future__ import annotations

import os

from agentrun_transports import AsyncioClient, BlockingClient, DataAPI, ResourceType, TrioClient
from drivers_support import run

CLIENTS = ("blocking", "asyncio", "trio", "data-api", "data-api-asyncio", "data-api-trio")


class _Items:
    def __init__(self, items):
        self._items = iter(items)

    def __aiter__(self):
        return self

    async def __anext__(self):
        for item in self._items:
            return item
        raise StopAsyncIteration


class _Stream:
    """A stream in the shape of an asynchronous one."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        value = getattr(self._stream, name)
        if name in ("lines", "json_lines", "events", "chat"):
            return lambda **options: _Items(value(**options))
        return value

    def __aiter__(self):
        return _Items(self._stream)

    async def __aenter__(self):
        self._stream.__enter__()
        return self

    async def __aexit__(self, *failure):
        self._stream.__exit__(*failure)


class _Awaited:
    """A blocking client in the shape of an asynchronous one."""

    def __init__(self, client):
        self._client = client

    def __getattr__(self, name):
        function = getattr(self._client, name)
        if "stream" in name:
            return lambda *args, **options: _Stream(function(*args, **options))

        async def called(*args, **options):
            return function(*args, **options)

        return called


class _Suffixed:
    """The methods of a `DataAPI` that are awaited, without their suffix."""

    def __init__(self, api):
        self._api = api

    def __getattr__(self, name):
        return getattr(self._api, f"{name}_async")


def _run_plainly(coroutine):
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a blocking client does not give way")


def run_program(kind, program, config, **options):
    """Runs `program(client)` with a client of this kind, and returns its result."""
    if kind == "blocking":
        with BlockingClient(config, **options) as client:
            return _run_plainly(program(_Awaited(client)))
    if kind == "data-api":
        with DataAPI("agent", ResourceType.Runtime, config, **options) as client:
            return _run_plainly(program(_Awaited(client)))

    async def main():
        if kind in ("asyncio", "trio"):
            async with (AsyncioClient if kind == "asyncio" else TrioClient)(config, **options) as client:
                return await program(client)
        async with DataAPI("agent", ResourceType.Runtime, config, **options) as client:
            return await program(_Suffixed(client))

    return run("trio" if kind.endswith("trio") else "asyncio", main)


def clean_environment(monkeypatch):
    """Takes out what a client would read."""
    for name in list(os.environ):
        if name.startswith(("AGENTRUN_", "ALIBABA_CLOUD_", "FC_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
