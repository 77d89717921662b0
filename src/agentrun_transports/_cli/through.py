"""Blocking code over each driver: for `demo --driver`, whose steps are written once.

Rules of this file: the steps run in a thread; each of their calls runs on the loop that this file started,
so that all of them share its connections. Neither loop is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from ..data_api import DataAPI

Result = TypeVar("Result")
Call = Callable[..., Any]


class Api(Protocol):
    """The part of `DataAPI` that the demo uses."""

    @property
    def get(self) -> Call:
        """`DataAPI.get`."""
        ...

    @property
    def post(self) -> Call:
        """`DataAPI.post`."""
        ...

    @property
    def patch(self) -> Call:
        """`DataAPI.patch`."""
        ...

    @property
    def delete(self) -> Call:
        """`DataAPI.delete`."""
        ...

    @property
    def post_file(self) -> Call:
        """`DataAPI.post_file`."""
        ...

    @property
    def get_file(self) -> Call:
        """`DataAPI.get_file`."""
        ...


class _Through:
    """The blocking methods of a `DataAPI`, each by its `_async` twin on a loop of another thread."""

    def __init__(self, api: DataAPI, wait: Callable[[Callable[[], Awaitable[Any]]], Any]) -> None:
        def blocking(name: str) -> Call:
            method: Callable[..., Awaitable[Any]] = getattr(api, f"{name}_async")
            return lambda *args, **kwargs: wait(partial(method, *args, **kwargs))

        self.get, self.post = blocking("get"), blocking("post")
        self.patch, self.delete = blocking("patch"), blocking("delete")
        self.post_file, self.get_file = blocking("post_file"), blocking("get_file")


def _blocking(api: DataAPI, work: Callable[[Api], Result]) -> Result:
    return work(api)


def _asyncio(api: DataAPI, work: Callable[[Api], Result]) -> Result:
    import asyncio

    async def main() -> Result:
        loop = asyncio.get_running_loop()

        def wait(call: Callable[[], Awaitable[Any]]) -> Any:
            async def awaited() -> Any:
                return await call()

            return asyncio.run_coroutine_threadsafe(awaited(), loop).result()

        return await asyncio.to_thread(work, _Through(api, wait))

    return asyncio.run(main())


def _trio(api: DataAPI, work: Callable[[Api], Result]) -> Result:
    try:
        import trio
    except ModuleNotFoundError:
        raise ValueError("trio is not installed: pip install 'agentrun-proto[trio]'") from None

    async def main() -> Result:
        return await trio.to_thread.run_sync(work, _Through(api, trio.from_thread.run))

    return trio.run(main)


DRIVERS = {"blocking": _blocking, "asyncio": _asyncio, "trio": _trio}
"""By name: what runs a function, in which the calls of the `Api` it is given go over that driver."""
