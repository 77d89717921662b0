"""Blocking code over each driver: for `demo --driver`, whose steps are written once.

Rules of this file: the steps run in a thread; each of their calls runs on the loop that this file started,
so that all of them share its connections. Neither loop is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from agentrun_proto import AgentRunClientError

from ..data_api import DataAPI

Messages = Sequence[Mapping[str, str]]
Result = TypeVar("Result")
Call = Callable[..., Any]
AsyncCall = Callable[[], Awaitable[Any]]


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


class Carrier(Protocol):
    """What carries the calls of clients."""

    def api(self, client: DataAPI) -> Api:
        """The blocking methods of a client, over this driver."""
        ...

    def get_at_once(self, client: DataAPI, path: str, count: int) -> list[Any]:
        """The answers of so many calls of `get` that run at the same time.

        Raises:
            AgentRunClientError: one of them failed.
        """
        ...

    def chat(self, client: DataAPI, runtime: str, messages: Messages, model: str) -> list[Any]:
        """The chunks of a streamed answer.

        Raises:
            AgentRunClientError: it failed.
        """
        ...


class _Blocking:
    """Calls in this thread, or each in one of its own."""

    def api(self, client: DataAPI) -> Api:
        return client

    def get_at_once(self, client: DataAPI, path: str, count: int) -> list[Any]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(client.get, [path] * count))

    def chat(self, client: DataAPI, runtime: str, messages: Messages, model: str) -> list[Any]:
        with client.invoke_stream(runtime, messages, model=model) as answer:
            return list(answer.chat())


class _Loop:
    """Calls on a loop of another thread.

    Args:
        wait: runs an async function there, and waits for its result.
        together: runs async functions at the same time.
    """

    def __init__(
        self,
        wait: Callable[[AsyncCall], Any],
        together: Callable[[Sequence[AsyncCall]], Awaitable[list[Any]]],
    ) -> None:
        self._wait = wait
        self._together = together

    def api(self, client: DataAPI) -> Api:
        return _Through(client, self._wait)

    def get_at_once(self, client: DataAPI, path: str, count: int) -> list[Any]:
        answers: list[Any] = self._wait(partial(self._together, [partial(client.get_async, path)] * count))
        return answers

    def chat(self, client: DataAPI, runtime: str, messages: Messages, model: str) -> list[Any]:
        async def chunks() -> list[Any]:
            async with client.invoke_stream_async(runtime, messages, model=model) as answer:
                return [chunk async for chunk in answer.chat()]

        found: list[Any] = self._wait(chunks)
        return found


class _Through:
    """The blocking methods of a `DataAPI`, each by its `_async` twin on a loop of another thread."""

    def __init__(self, api: DataAPI, wait: Callable[[AsyncCall], Any]) -> None:
        def blocking(name: str) -> Call:
            method: Callable[..., Awaitable[Any]] = getattr(api, f"{name}_async")
            return lambda *args, **kwargs: wait(partial(method, *args, **kwargs))

        self.get, self.post = blocking("get"), blocking("post")
        self.patch, self.delete = blocking("patch"), blocking("delete")
        self.post_file, self.get_file = blocking("post_file"), blocking("get_file")


def _blocking(work: Callable[[Carrier], Result]) -> Result:
    return work(_Blocking())


def _asyncio(work: Callable[[Carrier], Result]) -> Result:
    import asyncio

    async def together(calls: Sequence[AsyncCall]) -> list[Any]:
        return await asyncio.gather(*(call() for call in calls))

    async def main() -> Result:
        loop = asyncio.get_running_loop()

        def wait(call: AsyncCall) -> Any:
            async def awaited() -> Any:
                return await call()

            return asyncio.run_coroutine_threadsafe(awaited(), loop).result()

        return await asyncio.to_thread(work, _Loop(wait, together))

    return asyncio.run(main())


def _trio(work: Callable[[Carrier], Result]) -> Result:
    try:
        import trio
    except ModuleNotFoundError:
        raise ValueError("trio is not installed: pip install 'agentrun-proto[trio]'") from None

    async def together(calls: Sequence[AsyncCall]) -> list[Any]:
        answers: list[Any] = []
        errors: list[AgentRunClientError] = []  # kept out of the nursery, which would wrap them in a group

        async def keep(call: AsyncCall) -> None:
            try:
                answers.append(await call())
            except AgentRunClientError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(keep, call)
        if errors:
            raise errors[0]
        return answers

    async def main() -> Result:
        return await trio.to_thread.run_sync(work, _Loop(trio.from_thread.run, together))

    return trio.run(main)


DRIVERS = {"blocking": _blocking, "asyncio": _asyncio, "trio": _trio}
"""By name: what runs a function, with a `Carrier` over that driver."""
