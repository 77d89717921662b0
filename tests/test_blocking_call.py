"""A blocking call inside a running loop works, warns once for each client, and names the caller's line."""

import asyncio
import threading
import warnings

import pytest
import trio

from agentrun_proto import Config
from agentrun_transports import BlockingCallWarning, BlockingClient, DataAPI, ResourceType
from agentrun_transports.testing import ScriptedServer

CLIENTS = {
    "native": lambda config: BlockingClient(config),
    "httpcore": lambda config: BlockingClient(config, transport="httpcore"),
    "data_api": lambda config: DataAPI("name", ResourceType.Sandbox, config, transport="native"),
}
LOOPS = {"asyncio": asyncio.run, "trio": lambda coroutine: trio.run(lambda: coroutine)}


@pytest.fixture(params=sorted(CLIENTS))
def make(request):
    with ScriptedServer() as server:
        yield lambda: CLIENTS[request.param](Config(data_endpoint=server.url))


@pytest.mark.parametrize("loop", sorted(LOOPS))
def test_it_works_and_warns_once(make, loop):
    with make() as client, make() as other, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        async def main():
            return [one.get("a")["target"] for one in (client, client, other)]

        assert LOOPS[loop](main()) == ["/2025-09-10/agents/a"] * 3
        told = [warning for warning in caught if issubclass(warning.category, BlockingCallWarning)]
        assert len(told) == 2, "once for each client"
        assert {warning.filename for warning in told} == {__file__}
        assert loop in str(told[0].message)


def test_a_stream_warns_where_it_is_entered(make):
    async def main():
        with client.stream("GET", "a") as stream:
            return list(stream)

    with make() as client, pytest.warns(BlockingCallWarning) as told:
        assert asyncio.run(main())
    assert [warning.filename for warning in told] == [__file__]


def test_the_switch_is_the_standard_filter(make):
    async def main():
        return client.get("a")

    with make() as client, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=BlockingCallWarning)
        assert asyncio.run(main())
    with make() as client, warnings.catch_warnings():
        warnings.filterwarnings("error", category=BlockingCallWarning)
        with pytest.raises(BlockingCallWarning):
            asyncio.run(main())


def test_no_warning_without_a_loop_or_in_a_thread_beside_one(make):
    async def main():
        done = []
        thread = threading.Thread(target=lambda: done.append(client.get("a")))
        thread.start()
        thread.join()
        return done

    with make() as client:
        client.get("a")
        assert len(asyncio.run(main())) == 1
