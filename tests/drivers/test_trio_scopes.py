"""trio's own ways of cancelling, around our calls and beside our timeouts: neither swallows the other."""

import pytest
import trio

from agentrun_proto import Config, ReadTimeout, Retry
from agentrun_transports import Limits, TrioClient
from drivers_support import QuickServer, run_virtual, session_of, standing_clock, stuck_server


def clean(client):
    pool = session_of(client).pool
    return pool.open == len(pool.idle) and pool.waiting == 0


@pytest.mark.hostile("many-two-timeouts")
@pytest.mark.parametrize(("theirs", "ours"), [(2, 5), (5, 2)], ids=["theirs first", "ours first"])
def test_trio_fail_after(theirs, ours):
    async def main():
        with stuck_server() as (url, _):
            client = TrioClient(Config(data_endpoint=url, timeout=ours, retry=Retry.never()))
            began = trio.current_time()
            with pytest.raises(trio.TooSlowError if theirs < ours else ReadTimeout), trio.fail_after(theirs):
                await client.get("x")
            assert trio.current_time() - began == pytest.approx(min(theirs, ours), abs=1e-6)
            assert clean(client)

    run_virtual("trio", main)


@pytest.mark.hostile("many-two-timeouts")
@pytest.mark.parametrize(("theirs", "ours"), [(2, 5), (5, 2)], ids=["theirs first", "ours first"])
def test_trio_move_on_after(theirs, ours):
    async def main():
        with stuck_server() as (url, _):
            client = TrioClient(Config(data_endpoint=url, timeout=ours, retry=Retry.never()))
            fate = None
            with trio.move_on_after(theirs) as scope:
                try:
                    await client.get("x")
                except ReadTimeout:
                    fate = "ours"
                except trio.Cancelled:
                    fate = "theirs"
                    raise
            assert fate == ("theirs" if theirs < ours else "ours")
            assert scope.cancelled_caught == (theirs < ours)
            assert clean(client)

    run_virtual("trio", main)


@pytest.mark.hostile("many-two-timeouts")
def test_trio_at_the_same_moment():
    async def main():
        with stuck_server() as (url, _):
            client = TrioClient(Config(data_endpoint=url, timeout=3, retry=Retry.never()))
            with pytest.raises((trio.TooSlowError, ReadTimeout)), trio.fail_after(3):
                await client.get("x")
            await trio.lowlevel.checkpoint()
            assert clean(client)

    run_virtual("trio", main)


def test_trio_nursery_one_fails_the_others_are_cancelled():
    async def main():
        with stuck_server() as (url, _), QuickServer() as server:
            client = TrioClient(
                Config(data_endpoint=url, timeout=60, retry=Retry.never()), limits=Limits(total=3)
            )
            quick = TrioClient(server.config())
            fate = []

            async def waits():
                try:
                    await client.get("x")
                except trio.Cancelled:
                    fate.append("cancelled")
                    raise

            async def fails():
                await client.get("x", config=Config(timeout=5))

            with pytest.raises(BaseException) as caught:  # an ExceptionGroup; its name is new in 3.11
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fails)
                    await trio.testing.wait_all_tasks_blocked(0.001)
                    for _ in range(9):
                        nursery.start_soon(waits)
            assert [type(error) for error in caught.value.exceptions] == [ReadTimeout]
            assert fate == ["cancelled"] * 9
            assert clean(client)
            with standing_clock("trio"):
                assert (await quick.get("own"))["target"].endswith("/own")
            await quick.aclose()

    run_virtual("trio", main)


def test_trio_shield():
    """A shield of the caller's holds for our call; the cancellation comes after it."""

    async def main():
        with QuickServer() as server:
            client = TrioClient(server.config())
            got = None
            with trio.CancelScope() as outer:
                outer.cancel()
                with trio.CancelScope(shield=True):
                    got = await client.get("own")
                await trio.lowlevel.checkpoint()
            assert got["target"].endswith("/own")
            assert outer.cancelled_caught
            assert clean(client)
            await client.aclose()

    trio.run(main)


@pytest.mark.parametrize("kept", [False, True], ids=["fresh", "kept"])
def test_trio_cancelled_before_it_begins_sends_nothing(kept):
    async def main():
        with QuickServer() as server:
            client = TrioClient(server.config())
            if kept:
                await client.get("own", {"n": 1})
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.get("own", {"n": 2})
            assert scope.cancelled_caught
            assert server.order == [1] * kept
            assert clean(client)
            assert (await client.get("own"))["target"].endswith("/own")
            await client.aclose()

    trio.run(main)
