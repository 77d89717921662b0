"""One program for every client: what is written with `await` runs over blocking clients too."""

from __future__ import annotations

import os

from agentrun_transports import AsyncioClient, BlockingClient, DataAPI, ResourceType, TrioClient
from awaited import Awaited, run_plainly
from drivers_support import run

CLIENTS = ("blocking", "asyncio", "trio", "data-api", "data-api-asyncio", "data-api-trio")


class _Suffixed:
    """The methods of a `DataAPI` that are awaited, without their suffix."""

    def __init__(self, api):
        self._api = api

    def __getattr__(self, name):
        return getattr(self._api, f"{name}_async")


def run_program(kind, program, config, **options):
    """Runs `program(client)` with a client of this kind, and returns its result."""
    if kind == "blocking":
        with BlockingClient(config, **options) as client:
            return run_plainly(program(Awaited(client)))
    if kind == "data-api":
        with DataAPI("agent", ResourceType.Runtime, config, **options) as client:
            return run_plainly(program(Awaited(client)))

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
