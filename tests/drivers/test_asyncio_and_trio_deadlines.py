"""Deadlines: exactly, on a clock that jumps from timer to timer; and once in real time, to within 50 ms.

Rules of this file: the clock stands still while anything can happen, so what is measured is what was set.
"""

import asyncio
import math
import os
import socket
import time

import pytest
import trio

from agentrun_proto import (
    AgentRunClientError,
    Config,
    ConnectTimeout,
    PoolTimeout,
    ReadTimeout,
    Retry,
    Timeout,
    TimeoutExceeded,
    WriteTimeout,
)
from agentrun_transports import TLS, Limits
from drivers_support import (
    BACKENDS,
    Authority,
    native,
    now,
    run,
    run_virtual,
    session_of,
    settled_sockets,
    sockets,
    standing_clock,
    stuck_server,
    turns,
    unreachable_server,
)

VIRTUAL = ("asyncio", "trio")
BIG = bytes(32 << 20)  # more than the kernel takes for a peer that does not read


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


async def duration(backend, operation, kind):
    """How long an operation takes, on the loop's clock, until it fails as it should."""
    began = now(backend)
    with pytest.raises(TimeoutExceeded) as caught:
        await operation
    assert type(caught.value) is kind, caught.value
    assert not isinstance(caught.value, TimeoutError), "code that waits for its own must not catch ours"
    assert caught.value.may_be_processed == (kind in (ReadTimeout, WriteTimeout))
    return now(backend) - began


async def end(backend, client, sockets_before):
    pool = session_of(client).pool
    await turns(backend)
    assert (pool.open, pool.waiting) == (0, 0)
    assert sockets() == sockets_before


# part -> (what is set, what it must be, for how long)
CALLS = {
    "number": (2.5, ReadTimeout, 2.5),
    "total": (Timeout(total=7), ReadTimeout, 7),
    "read": (Timeout(read=3.25), ReadTimeout, 3.25),
    "total before read": (Timeout(total=2, read=3), ReadTimeout, 2),
    "read before total": (Timeout(total=20, read=3), ReadTimeout, 3),
    "unset": (None, ReadTimeout, 600),
    "other parts": (Timeout(total=5, connect=1, write=1, pool=1), ReadTimeout, 5),
}


@pytest.mark.hostile("answers-silence")
@pytest.mark.parametrize("case", CALLS)
@pytest.mark.parametrize("backend", VIRTUAL)
def test_silence_before_the_answer(backend, case):
    timeout, kind, seconds = CALLS[case]

    async def main():
        with stuck_server() as (url, _):
            before = settled_sockets()
            client = native(backend)(Config(data_endpoint=url, timeout=timeout, retry=Retry.never()))
            for _ in range(2):
                assert await duration(backend, client.get("x"), kind) == pytest.approx(seconds, abs=1e-6)
                await end(backend, client, before)

    run_virtual(backend, main)


CONNECTS = {
    "number": (2.5, 2.5),
    "total": (Timeout(total=7), 7),
    "connect": (Timeout(connect=3.25), 3.25),
    "total before connect": (Timeout(total=2, connect=3), 2),
    "longer than a loop's own limit": (Timeout(connect=100), 100),
}


@pytest.mark.parametrize("case", CONNECTS)
@pytest.mark.parametrize("backend", VIRTUAL)
def test_connecting(backend, case):
    timeout, seconds = CONNECTS[case]

    async def main():
        with unreachable_server() as url:
            before = settled_sockets()
            client = native(backend)(Config(data_endpoint=url, timeout=timeout, retry=Retry.never()))
            assert await duration(backend, client.get("x"), ConnectTimeout) == pytest.approx(
                seconds, abs=1e-6
            )
            await end(backend, client, before)

    run_virtual(backend, main)


@pytest.mark.parametrize("case", CONNECTS)
@pytest.mark.parametrize("backend", VIRTUAL)
def test_tls_handshake(backend, case, authority):
    """The handshake is a part of connecting, and has no limit of its own."""
    timeout, seconds = CONNECTS[case]

    async def main():
        with stuck_server() as (url, _):
            before = settled_sockets()
            config = Config(data_endpoint=url.replace("http", "https"), timeout=timeout, retry=Retry.never())
            client = native(backend)(config, tls=TLS(ca_file=authority.ca_file))
            assert await duration(backend, client.get("x"), ConnectTimeout) == pytest.approx(
                seconds, abs=1e-6
            )
            await end(backend, client, before)

    run_virtual(backend, main)


WRITES = {
    "number": (2.5, 2.5),
    "total": (Timeout(total=7), 7),
    "write": (Timeout(write=3.25), 3.25),
    "total before write": (Timeout(total=2, write=3), 2),
}


@pytest.mark.parametrize("kind", ["call", "upload"])
@pytest.mark.parametrize("case", WRITES)
@pytest.mark.parametrize("backend", VIRTUAL)
def test_a_peer_that_does_not_read(backend, case, kind, tmp_path):
    timeout, seconds = WRITES[case]
    (tmp_path / "big").write_bytes(BIG)

    async def main():
        with stuck_server() as (url, _):
            before = settled_sockets()
            client = native(backend)(Config(data_endpoint=url, timeout=timeout, retry=Retry.never()))
            operation = (
                client.post("x", BIG) if kind == "call" else client.upload("x", tmp_path / "big", "/x")
            )
            assert await duration(backend, operation, WriteTimeout) == pytest.approx(seconds, abs=1e-6)
            await end(backend, client, before)

    run_virtual(backend, main)


@pytest.mark.hostile("many-pool-full")
@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(2.5, 2.5), (Timeout(pool=3.25), 3.25), (Timeout(total=2, pool=3), 2), (Timeout(total=20, pool=3), 3)],
    ids=["number", "pool", "total before pool", "pool before total"],
)
@pytest.mark.parametrize("backend", VIRTUAL)
def test_pool(backend, timeout, seconds):
    """One call has the only connection for 50 seconds; others wait for it, each as long as it may."""

    async def main():
        with stuck_server() as (url, _):
            before = settled_sockets()
            client = native(backend)(
                Config(data_endpoint=url, timeout=50, retry=Retry.never()), limits=Limits(total=1)
            )
            took = []

            async def first():
                took.append(await duration(backend, client.get("x"), ReadTimeout))

            async def second():
                await turns(backend)
                operation = client.get("x", config=Config(timeout=timeout))
                took.append(await duration(backend, operation, PoolTimeout))

            await both(backend, first, second)
            assert took == [pytest.approx(seconds, abs=1e-6), pytest.approx(50, abs=1e-6)]
            await end(backend, client, before)

    run_virtual(backend, main)


async def both(backend, *functions):
    if backend == "trio":
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)
    else:
        await asyncio.gather(*(function() for function in functions))


@pytest.mark.parametrize("backend", VIRTUAL)
def test_total_spans_the_wait_for_a_place_and_the_answer(backend):
    """Three seconds of waiting leave two for the rest."""

    async def main():
        with stuck_server() as (url, _):
            client = native(backend)(
                Config(data_endpoint=url, timeout=3, retry=Retry.never()), limits=Limits(total=1)
            )
            took = []

            async def first():
                took.append(await duration(backend, client.get("x"), ReadTimeout))

            async def second():
                await turns(backend)
                took.append(await duration(backend, client.get("x", config=Config(timeout=5)), ReadTimeout))

            await both(backend, first, second)
            assert took == [pytest.approx(3, abs=1e-6), pytest.approx(5, abs=1e-6)]

    run_virtual(backend, main)


@pytest.mark.parametrize("backend", VIRTUAL)
def test_a_download_has_no_total_but_bounds_each_silence(backend, tmp_path):
    async def main():
        with stuck_server() as (url, _):
            client = native(backend)(Config(data_endpoint=url, timeout=4, retry=Retry.never()))
            operation = client.download("x", tmp_path / "saved")
            assert await duration(backend, operation, ReadTimeout) == pytest.approx(4, abs=1e-6)
            assert list(tmp_path.iterdir()) == []

    run_virtual(backend, main)


@pytest.mark.parametrize("backend", VIRTUAL)
def test_a_shorter_deadline_after_a_longer_one_on_the_same_connection(backend):
    """The connection's one timer was armed for the longer one."""
    from drivers_support import QuickServer

    async def main():
        with QuickServer() as server:
            client = native(backend)(server.config(timeout=500))
            with standing_clock(backend):
                await client.get("own")
            link = session_of(client).pool.idle[0]
            for seconds in (100, 1, 30):
                silence(backend, link)
                operation = client.get("own", config=Config(timeout=seconds))
                assert await duration(backend, operation, ReadTimeout) == pytest.approx(seconds, abs=1e-6)
                with standing_clock(backend):
                    await client.get("own")
                link = session_of(client).pool.idle[0]

    run_virtual(backend, main)


def silence(backend, link):
    """What arrives on this connection is not noticed any more."""
    if backend == "trio":
        ours, mute = socket.socketpair()
        with ours:
            os.dup2(ours.fileno(), link.fileno())  # it leads to somebody who never answers
        MUTE.append(mute)
    else:
        link._transport.pause_reading()


MUTE = []


@pytest.fixture(autouse=True)
def _hang_up_on_the_mute():
    yield
    while MUTE:
        MUTE.pop().close()


@pytest.mark.parametrize("backend", VIRTUAL)
def test_no_limit_is_no_limit(backend):
    """Nothing ends it but the caller, after a day."""

    async def main():
        with stuck_server() as (url, _):
            client = native(backend)(Config(data_endpoint=url, timeout=math.inf, retry=Retry.never()))
            began = now(backend)
            if backend == "trio":
                with trio.move_on_after(86400) as scope:
                    await client.get("x")
                assert scope.cancelled_caught
            else:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(client.get("x"), 86400)
            assert now(backend) - began == pytest.approx(86400, abs=1e-6)
            assert session_of(client).pool.open == 0

    run_virtual(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_real_time_to_within_50_ms(backend):
    """The one test of real time: none is early, and one is in time; at all others the machine may be busy."""

    async def main():
        late = []
        with stuck_server() as (url, _):
            client = native(backend)(Config(data_endpoint=url, timeout=0.2, retry=Retry.never()))
            while min(late, default=1.0) >= 0.05 and len(late) < 50:
                began = time.monotonic()
                with pytest.raises(AgentRunClientError):
                    await client.get("x")
                late.append(time.monotonic() - began - 0.2)
        assert min(late) >= -0.005
        assert min(late) < 0.05

    run(backend, main)


@pytest.mark.parametrize("backend", VIRTUAL)
def test_cancelled_while_a_connect_timeout_is_dealt_with(backend):
    """At every turn of the loop around the deadline: the cancellation is not swallowed by our timeout."""

    async def main():
        for count in range(8):
            with unreachable_server() as url:
                client = native(backend)(Config(data_endpoint=url, timeout=1, retry=Retry.never()))
                outcome = []

                async def call(client=client, outcome=outcome):
                    try:
                        await client.get("x")
                    except ConnectTimeout:
                        outcome.append("ours")
                        raise
                    except BaseException:
                        outcome.append("theirs")
                        raise

                if backend == "trio":
                    async with trio.open_nursery() as nursery:
                        began = trio.current_time()

                        async def guarded(call=call):
                            try:
                                await call()
                            except ConnectTimeout:
                                pass

                        nursery.start_soon(guarded)
                        while trio.current_time() < began + 1:
                            await trio.sleep(0.5)
                        await turns(backend, count)
                        still_running = not outcome
                        nursery.cancel_scope.cancel()
                else:
                    task = asyncio.ensure_future(call())
                    loop = asyncio.get_running_loop()
                    fired = loop.create_future()
                    await turns(backend)
                    loop.call_at(loop.time() + 1, fired.set_result, None)
                    await fired
                    await turns(backend, count)
                    still_running = task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    if still_running:
                        assert task.cancelled(), f"swallowed {count} turns after the deadline"
                if still_running:
                    assert outcome == ["theirs"]

    run_virtual(backend, main)
