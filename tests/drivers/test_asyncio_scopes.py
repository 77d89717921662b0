"""asyncio's own ways of cancelling, around our calls and beside our timeouts: neither swallows the other."""

import asyncio
import socket
import sys
import threading

import pytest

from agentrun_proto import Config, NotFoundError, ReadTimeout, Retry
from agentrun_transports import TLS, AsyncioClient, Limits
from agentrun_transports._asyncio import AsyncioNetwork
from agentrun_transports._network import Run
from drivers_support import QuickServer, run_virtual, session_of, standing_clock, stuck_server, turns

has_timeout = pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with Python 3.11")
has_groups = pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.TaskGroup came with Python 3.11")


def now():
    return asyncio.get_running_loop().time()


def clean(client):
    pool = session_of(client).pool
    return pool.open == len(pool.idle) and pool.waiting == 0


@pytest.mark.hostile("many-two-timeouts")
@has_timeout
@pytest.mark.parametrize(("theirs", "ours"), [(2, 5), (5, 2)], ids=["theirs first", "ours first"])
def test_asyncio_timeout(theirs, ours):
    async def main():
        with stuck_server() as (url, _):
            client = AsyncioClient(Config(data_endpoint=url, timeout=ours, retry=Retry.never()))
            began = now()
            if theirs < ours:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(theirs):
                        await client.get("x")
            else:
                with pytest.raises(ReadTimeout):
                    async with asyncio.timeout(theirs) as scope:
                        await client.get("x")
                assert not scope.expired()
            assert now() - began == min(theirs, ours)
            assert clean(client)
            assert asyncio.current_task().cancelling() == 0

    run_virtual("asyncio", main)


@pytest.mark.hostile("many-two-timeouts")
@has_timeout
def test_asyncio_timeout_at_the_same_moment():
    """Whichever wins, it is one of the two, and nothing of the other remains."""

    async def main():
        with stuck_server() as (url, _):
            client = AsyncioClient(Config(data_endpoint=url, timeout=3, retry=Retry.never()))
            with pytest.raises((TimeoutError, ReadTimeout)):
                async with asyncio.timeout(3):
                    await client.get("x")
            await turns("asyncio")
            assert asyncio.current_task().cancelling() == 0
            assert clean(client)

    run_virtual("asyncio", main)


@pytest.mark.hostile("many-two-timeouts")
@has_timeout
def test_except_timeout_error_does_not_catch_ours():
    async def main():
        with stuck_server() as (url, _):
            client = AsyncioClient(Config(data_endpoint=url, timeout=1, retry=Retry.never()))
            with pytest.raises(ReadTimeout):
                try:
                    async with asyncio.timeout(60):
                        await client.get("x")
                except TimeoutError:
                    raise AssertionError("mistaken for the caller's own") from None

    run_virtual("asyncio", main)


@pytest.mark.hostile("many-two-timeouts")
@pytest.mark.parametrize(("theirs", "ours"), [(2, 5), (5, 2)], ids=["theirs first", "ours first"])
def test_asyncio_wait_for(theirs, ours):
    async def main():
        with stuck_server() as (url, _):
            client = AsyncioClient(Config(data_endpoint=url, timeout=ours, retry=Retry.never()))
            began = now()
            with pytest.raises(asyncio.TimeoutError if theirs < ours else ReadTimeout):
                await asyncio.wait_for(client.get("x"), theirs)
            assert now() - began == min(theirs, ours)
            assert clean(client)

    run_virtual("asyncio", main)


@has_groups
def test_asyncio_task_group_one_fails_the_others_are_cancelled():
    async def main():
        with stuck_server() as (url, _), QuickServer() as server:
            client = AsyncioClient(
                Config(data_endpoint=url, timeout=60, retry=Retry.never()), limits=Limits(total=3)
            )
            quick = AsyncioClient(server.config())
            fate = []

            async def waits():
                try:
                    await client.get("x")
                except asyncio.CancelledError:
                    fate.append("cancelled")
                    raise

            async def fails():
                await client.get("x", config=Config(timeout=5))

            with pytest.raises(BaseException) as caught:  # an ExceptionGroup; its name is new in 3.11
                async with asyncio.TaskGroup() as group:
                    group.create_task(fails())
                    for _ in range(9):
                        group.create_task(waits())
            assert [type(error) for error in caught.value.exceptions] == [ReadTimeout]
            assert fate == ["cancelled"] * 9
            assert clean(client)
            with standing_clock("asyncio"):
                assert (await quick.get("own"))["target"].endswith("/own")
            await quick.aclose()

    run_virtual("asyncio", main)


def test_asyncio_gather_returns_each_its_own():
    async def main():
        with QuickServer() as server:
            client = AsyncioClient(server.config(), limits=Limits(total=3))
            answers = await asyncio.gather(*(client.get("own", {"n": n}) for n in range(20)))
            assert [answer["target"].rpartition("=")[2] for answer in answers] == [str(n) for n in range(20)]
            await client.aclose()

    asyncio.run(main())


def test_asyncio_shield_lets_the_call_go_on():
    async def main():
        with QuickServer() as server:
            client = AsyncioClient(server.config())
            call = asyncio.ensure_future(client.get("own"))
            waiter = asyncio.ensure_future(asyncio.shield(call))
            await turns("asyncio", 1)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert (await call)["target"].endswith("/own")
            assert clean(client)
            await client.aclose()

    asyncio.run(main())


@has_timeout
def test_asyncio_second_cancellation_while_a_thread_is_waited_for(tmp_path, monkeypatch):
    """A thread cannot be stopped; two cancellations come meanwhile, and both are accounted for."""
    from agentrun_transports._files import FileSource

    go, entered = threading.Event(), threading.Event()
    read = FileSource.read

    def slow(self, size):
        entered.set()
        assert go.wait(30)
        assert not self._file.closed, "closed while the thread reads"
        return read(self, size)

    monkeypatch.setattr(FileSource, "read", slow)
    (tmp_path / "local").write_bytes(bytes(200_000))

    async def main():
        with QuickServer() as server:
            client = AsyncioClient(server.config())
            task = asyncio.ensure_future(client.upload("x", tmp_path / "local", "/x"))
            await asyncio.get_running_loop().run_in_executor(None, entered.wait, 30)
            assert entered.is_set()
            for _ in range(3):
                task.cancel()
                await turns("asyncio")
                assert not task.done()
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert clean(client)

    asyncio.run(main())


def test_asyncio_generator_of_errors_keeps_its_traceback():
    """A refusal inside a cancelled scope is a refusal still."""

    async def main():
        from transports_support import RawServer, answer

        with RawServer(answer(b"", "404 Not Found")) as server:
            client = AsyncioClient(server.config())
            with pytest.raises(NotFoundError):
                await asyncio.wait_for(client.get("x"), 30)
            assert clean(client)

    asyncio.run(main())


def test_asyncio_a_thread_that_fails_after_its_flow_was_cancelled_has_nothing_undone():
    """What it would have made does not exist."""
    go, entered, undone = threading.Event(), threading.Event(), []

    def fail():
        entered.set()
        assert go.wait(30)
        raise OSError("too late")

    async def main():
        network = AsyncioNetwork(TLS(), None)
        task = asyncio.ensure_future(network.perform(Run(fail, undone.append)))
        await asyncio.get_running_loop().run_in_executor(None, entered.wait, 30)
        assert entered.is_set()
        task.cancel()
        await turns("asyncio")
        assert not task.done(), "the thread is waited for"
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert undone == []


def test_asyncio_the_first_address_answers_after_the_second_has_refused(monkeypatch):
    """Happy eyeballs: with nobody left to ask, who was asked is waited for."""

    async def main():
        refused = asyncio.Event()
        ours, theirs = socket.socketpair()

        async def connect(self, family, address):
            if address == "slow":
                await refused.wait()
                await turns("asyncio")
                return ours
            refused.set()
            raise ConnectionRefusedError

        monkeypatch.setattr(AsyncioNetwork, "_connect_one", connect)
        with ours, theirs:
            network = AsyncioNetwork(TLS(), None)
            addresses = [(socket.AF_INET, "slow"), (socket.AF_INET, "refused")]
            assert await network._connect_first(addresses) is ours

    run_virtual("asyncio", main)
