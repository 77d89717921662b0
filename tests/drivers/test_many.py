"""A thousand in flight, ten thousand queued: each gets its own answer, in turn, at the cost of one.

Rules of this file: cost is counted in function calls, never in time.
"""

import asyncio
import sys
import tracemalloc

import pytest
import trio

from agentrun_transports import Limits
from agentrun_transports._network import Write
from agentrun_transports._pool import PoolTicket as Ticket
from drivers_support import BACKENDS, QuickServer, native, run, session_of

pytestmark = pytest.mark.once


async def all_of(backend, function, count):
    """Runs `count` of them at once, asked for in order; the results in that order."""
    if backend != "trio":
        return await asyncio.gather(*(function(number) for number in range(count)))
    results = [None] * count
    started = 0

    async def one(number):
        results[number] = await function(number)

    async with trio.open_nursery(strict_exception_groups=True) as nursery:
        # trio shuffles what is started at once; the order of asking is the point here.
        for number in range(count):
            nursery.start_soon(one, number)
            started += 1
            await trio.lowlevel.checkpoint()
    return results


def number_of(command):
    """The number of the request that a command sends."""
    return int(bytes(command.data).split(b" ", 2)[1].rpartition(b"n=")[2])


def log_writes(session):
    """The numbers of the requests, in the order in which they go out."""
    sent = []
    perform = session._network._perform
    former = perform[Write]
    perform[Write] = lambda command: (sent.append(number_of(command)), former(command))[1]
    return sent


@pytest.mark.hostile("many-pool-full")
@pytest.mark.parametrize(("count", "connections"), [(1000, 100), (300, 1)], ids=["100", "one"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_in_flight(backend, count, connections, monkeypatch):
    served = []
    serve = Ticket.hand_over
    monkeypatch.setattr(
        Ticket, "hand_over", lambda self, link: (served.append(self.number), serve(self, link))[1]
    )

    async def main():
        with QuickServer() as server:
            client = native(backend)(
                server.config(), limits=Limits(total=connections, per_origin=connections)
            )
            await client.get("own", {"n": 0})
            sent = log_writes(session_of(client))
            server.order.clear()
            served.clear()
            pool = session_of(client).pool
            # The only one is kept until all but the last have asked: none is answered before the next asks.
            held = [pool.checkout(pool.idle[0].origin)] if connections == 1 else []

            async def one(number):
                if held and number == count - 1:
                    pool.checkin(held.pop())
                return await client.get("own", {"n": number})

            answers = await all_of(backend, one, count)
            assert [answer["target"] for answer in answers] == [
                f"/2025-09-10/agents/own?n={number}" for number in range(count)
            ]
            assert sorted(server.order) == list(range(count))
            assert served == sorted(served)
            assert connections > 1 or len(served) >= count - connections
            if connections == 1:
                assert sent == server.order == list(range(count))
            elif backend != "trio":  # which shuffles the tasks that are woken in the same turn
                assert sorted(sent[: 2 * connections]) == list(range(2 * connections))  # some connect first
                assert sent[2 * connections :] == list(range(2 * connections, count))
            assert max(abs(number - place) for place, number in enumerate(sent)) <= 2 * connections
            assert server.most <= connections
            assert server.accepted == pool.open == len(pool.idle) <= connections
            assert pool.waiting == 0
            await client.aclose()

    run(backend, main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_ten_thousand_queued(backend):
    """All answered, each with its own; and what waits in the queue is small."""
    count, connections = 10_000, 100

    async def main():
        with QuickServer() as server:
            client = native(backend)(
                server.config(), limits=Limits(total=connections, per_origin=connections)
            )
            await client.get("own", {"n": 0})
            pool = session_of(client).pool
            wrong = []
            held = []
            origin = pool.idle[0].origin
            while not held or len(held) < connections:
                held.append(pool.checkout(origin))  # all places are taken, so that all calls queue

            async def one(number):
                answer = await client.get("own", {"n": number})
                if answer["target"] != f"/2025-09-10/agents/own?n={number}":
                    wrong.append(number)

            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            size = []

            async def let_go():
                while pool.waiting < count:
                    await (trio.lowlevel.checkpoint() if backend == "trio" else asyncio.sleep(0))
                size.append((tracemalloc.get_traced_memory()[0] - before) / count)
                tracemalloc.stop()
                server.order.clear()
                for place in held:
                    if hasattr(place, "ready"):
                        pool.forfeit(origin)
                    else:
                        pool.checkin(place)

            if backend == "trio":
                async with trio.open_nursery() as nursery:
                    for number in range(count):
                        nursery.start_soon(one, number)
                    nursery.start_soon(let_go)
            else:
                await asyncio.gather(let_go(), *(one(number) for number in range(count)))
            assert wrong == []
            assert sorted(server.order) == list(range(count))
            assert server.most <= connections
            assert pool.waiting == 0
            assert size[0] < 20_000, f"{size[0]:.0f} bytes for each call that waits, its task included"
            await client.aclose()

    run(backend, main)


def calls_per_call(backend, workers, each, connections):
    """How many functions a call enters, on the client's thread, with so many of them in flight."""

    async def main():
        with QuickServer(b'{"ok": true}') as server:
            client = native(backend)(
                server.config(), limits=Limits(total=connections, per_origin=connections)
            )
            counted = 0

            def count(frame, event, argument):
                nonlocal counted
                if event in ("call", "c_call"):
                    counted += 1

            async def warm_up(number):
                await client.get("own", {"n": number})

            async def work(number):
                for _ in range(each):
                    await client.get("own", {"n": number})

            await all_of(backend, warm_up, connections)
            sys.setprofile(count)
            try:
                if backend == "trio":
                    async with trio.open_nursery() as nursery:
                        for number in range(workers):
                            nursery.start_soon(work, number)
                else:
                    await asyncio.gather(*(work(number) for number in range(workers)))
            finally:
                sys.setprofile(None)
            await client.aclose()
            return counted / (workers * each)

    return run(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cost_per_call_does_not_grow_with_the_calls_in_flight(backend):
    """PERFORMANCE: from 1 to 1,000 in flight it grows by at most a third."""
    alone = calls_per_call(backend, 1, 300, 1)
    crowded = calls_per_call(backend, 1000, 3, 100)
    assert crowded <= alone * 4 / 3, (alone, crowded)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_origins_share_the_total(backend):
    """Never more than the total, and neither origin starves."""

    async def main():
        with QuickServer() as one, QuickServer() as other:
            client = native(backend)(one.config(), limits=Limits(total=4, per_origin=3))

            async def call(number):
                config = one.config() if number % 2 else other.config()
                return await client.get("own", {"n": number}, config=config)

            answers = await all_of(backend, call, 200)
            assert [answer["target"].rpartition("=")[2] for answer in answers] == [str(n) for n in range(200)]
            assert sorted(one.order + other.order) == list(range(200))
            assert all(number % 2 for number in one.order)
            assert max(one.most, other.most) <= 4  # what is closed is so in the next turn of the loop
            assert session_of(client).pool.open <= 4
            await client.aclose()

    run(backend, main)
