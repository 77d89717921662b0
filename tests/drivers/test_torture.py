"""The n-th network operation fails, or is cancelled, for every n until none is left, on every async driver.

After each: the failure or the cancellation surfaces, nothing has leaked (places, waiters, descriptors, files,
tasks), the calls beside it are not disturbed, and the next call is right.

Rules of this file: the server is a process of its own, so that this one's sockets are the client's; a case
ends by itself, when there is no n-th operation any more.
"""

import asyncio
import itertools
import os
import threading

import pytest
import trio

from agentrun_proto import AgentRunClientError, ConflictError, NotFoundError, Resource, Retry
from agentrun_transports import Limits
from agentrun_transports._network import Spawn, Wait
from drivers_support import (
    BACKENDS,
    LOOPS,
    CancelAtStep,
    EmulatorProcess,
    Torture,
    assert_nothing_leaked,
    cancelled_at,
    native,
    parts,
    quick_collection,
    run,
    session_of,
    sockets,
    turns,
)

pytestmark = pytest.mark.once

SIZE = 300_000  # two pieces of an upload, and of a download
CONTENT = os.urandom(SIZE)
FATES = {
    "cancelled": None,
    "OSError": ConnectionResetError(104, "torture"),
    "TimeoutError": TimeoutError(),
}
MANY = 200  # more operations than any of the flows has
SANDBOX = Resource(type="sandbox", name="sb-1")

# In what a network has no way to fail, or to be cancelled: a pause or a wait for others ends in time or too
# late, and what is done beside is begun at once.
SPARED = {"OSError": (Wait, Spawn), "TimeoutError": (Spawn,), "cancelled": (Spawn,)}


@pytest.fixture(scope="module")
def emulator():
    emulator = EmulatorProcess()
    yield emulator
    emulator.close()


@pytest.fixture(autouse=True)
def _quick_collection():
    with quick_collection():
        yield


@pytest.fixture
def scene(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "local.bin").write_bytes(CONTENT)
    return Scene(tmp_path)


class Scene:
    """The operations that are tortured, and what each must leave behind."""

    def __init__(self, folder):
        self.local = folder / "in" / "local.bin"
        self.out = folder / "out"
        self.target = self.out / "saved.bin"
        self.remote = f"/data/{folder.name}.bin"

    async def prepare(self, client):
        await client.upload("files", self.local, self.remote)

    async def operate(self, client, name):
        if name == "get":
            return (await client.get("resources", {"limit": 1}))["code"]
        if name == "post":
            return (await client.post("resources", {"name": os.urandom(8).hex()}))["code"]
        if name == "retried":
            return (await client.post("resources", {}, headers=fault("status=503")))["code"]
        if name == "upload":
            return (await client.upload("files", self.local, self.remote))["data"]["size"]
        self.target.write_bytes(b"old")
        return (await client.download("files", self.target, {"path": self.remote}))["size"]

    def right(self, name):
        return "SUCCESS" if name in ("get", "post", "retried") else SIZE

    def assert_files(self, name, *, done):
        assert parts(self.out) == []
        if name == "download":
            saved = self.target.read_bytes()
            assert saved == CONTENT if done else saved in (b"old", CONTENT)


_unused = itertools.count(1)


def fault(text):
    """Headers that have one request go wrong, and what is sent again go right: each text counts by itself."""
    return {"x-emulator-fault": f"{text}; delay=0.{next(_unused):06d}; times=1"}


def config_for(emulator, operation):
    """Most operations are tortured without a retry, so that what happens to one attempt shows."""
    retry = Retry(backoff=0.001) if operation in ("retried", "refreshed") else Retry.never()
    return emulator.config(retry=retry)


async def own_answer(client, number):
    """A call that can tell whether the answer is its own: the resource that it names does not exist."""
    name = f"none-{number}"
    with pytest.raises(NotFoundError, match=name):
        await client.get(f"resources/{name}")
    return number


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith(("asyncio_", "Trio"))}


# --- by commands

OPERATIONS = ("get", "post", "upload", "download", "retried")

# uvloop runs the same network as asyncio: what differs there is how a cancellation is delivered.
STRUCK = [
    *((backend, fate) for backend in ("asyncio", "trio") for fate in FATES),
    pytest.param("uvloop", "cancelled", marks=BACKENDS[1].marks),
]


@pytest.mark.hostile("files-broken-off", "many-cancelled")
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "reused"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("backend", "fate"), STRUCK)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_nth_command_fails_or_is_cancelled(backend, operation, fate, after, fresh, emulator, scene):
    async def main():
        before = sockets()
        client = native(backend)(config_for(emulator, operation), limits=Limits(per_origin=3))
        await scene.prepare(client)
        for nth in range(MANY):
            if fresh:
                await client.aclose()
            outcome, torture = await victim_and_bystanders(
                backend, client, scene, operation, nth, fate, after
            )
            if isinstance(outcome, BaseException):
                kind = AgentRunClientError if FATES[fate] is not None else Cancellation
                assert isinstance(outcome, kind), (nth, torture.kinds, outcome)
                if fate != "cancelled":
                    assert outcome.__cause__ is not None or outcome.__suppress_context__
            else:
                assert outcome == scene.right(operation)
            scene.assert_files(operation, done=not isinstance(outcome, BaseException))
            await assert_nothing_leaked(backend, client, before)
            assert await own_answer(client, nth) == nth
            if torture.count <= nth:  # a pause that is over by itself was struck in vain, and others follow
                return nth
        raise AssertionError("there is no end to it")

    # Connect; Write, Read; files, which the system may send unread; a pause, unless no network fails in it.
    least = {"get": 2, "post": 2, "upload": 6, "download": 7, "retried": 4}[operation] + fresh
    assert run(backend, main) >= least


def spare(torture, fate):
    """Leaves what cannot fail so out of it."""
    for kind in SPARED[fate]:
        torture._network._perform[kind] = torture._former[kind]
    return torture


class Cancellation(BaseException):
    """Stands for what each loop raises."""


async def victim_and_bystanders(backend, client, scene, operation, nth, fate, after):
    """Runs the victim beside two calls that must not notice."""
    if backend == "trio":
        return await _beside_trio(client, scene, operation, nth, fate, after)
    return await _beside_asyncio(client, scene, operation, nth, fate, after)


async def _beside_asyncio(client, scene, operation, nth, fate, after):
    victim = asyncio.ensure_future(scene.operate(client, operation))
    torture = Torture(
        session_of(client),
        nth,
        FATES[fate],
        after=after,
        is_victim=lambda: asyncio.current_task() is victim,
        cancel=victim.cancel,
        give_way=lambda: asyncio.sleep(0),
    )
    spare(torture, fate)
    beside = [asyncio.ensure_future(own_answer(client, number)) for number in (1, 2)]
    try:
        outcome, *others = await asyncio.gather(victim, *beside, return_exceptions=True)
    finally:
        torture.end()
    assert others == [1, 2]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    if isinstance(outcome, asyncio.CancelledError):
        outcome = Cancellation()
    return outcome, torture


async def _beside_trio(client, scene, operation, nth, fate, after):
    scope = trio.CancelScope()
    victim = None
    outcome = None
    others = []

    async def suffer(task_status):
        nonlocal victim, outcome
        victim = trio.lowlevel.current_task()
        task_status.started()
        with scope:
            try:
                outcome = await scene.operate(client, operation)
            except AgentRunClientError as error:
                outcome = error
        if scope.cancelled_caught:
            outcome = Cancellation()

    async def stand_by(number):
        others.append(await own_answer(client, number))

    torture = Torture(
        session_of(client),
        nth,
        FATES[fate],
        after=after,
        is_victim=lambda: trio.lowlevel.current_task() is victim,
        cancel=scope.cancel,
        give_way=trio.lowlevel.checkpoint,
    )
    spare(torture, fate)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: suffer(task_status))
            nursery.start_soon(stand_by, 1)
            nursery.start_soon(stand_by, 2)
    finally:
        torture.end()
    assert sorted(others) == [1, 2]
    return outcome, torture


# --- a refresh, which is done beside


@pytest.mark.hostile("calling-hundred", "many-cancelled")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("backend", "fate"), STRUCK)
def test_nth_command_of_two_calls_that_refresh(backend, fate, after, emulator):
    """One of two calls with an expired token is cancelled, or a command of it or of the refresh fails.

    A cancellation comes at any command of the call or of the refresh, and is that of the call alone.
    """

    async def main():
        before = sockets()
        client = native(backend)(config_for(emulator, "refreshed"), access_token_for=SANDBOX)
        await own_answer(client, 0)
        for nth in range(MANY):
            if nth % 2:
                await client.aclose()
            refresh = refresh_trio if backend == "trio" else refresh_asyncio
            outcome, other, torture = await refresh(client, nth, fate, after)
            if fate == "cancelled":
                assert other == "SUCCESS", (nth, torture.kinds)
                assert outcome == "SUCCESS" or isinstance(outcome, Cancellation)
            else:
                for each in (outcome, other):
                    assert each == "SUCCESS" or isinstance(each, AgentRunClientError), (nth, torture.kinds)
            assert session_of(client)._flights._under_way == {}
            await assert_nothing_leaked(backend, client, before)
            assert await own_answer(client, nth) == nth
            if torture.count <= nth:  # a pause that is over by itself was struck in vain, and others follow
                return nth
        raise AssertionError("there is no end to it")

    assert run(backend, main) >= 6  # a call twice and a fetch, Write and Read each


async def call_expired(client):
    return (await client.get("resources", headers=fault("expired-token")))["code"]


async def refresh_asyncio(client, nth, fate, after):
    victim = asyncio.ensure_future(call_expired(client))
    beside = asyncio.ensure_future(call_expired(client))
    torture = Torture(
        session_of(client),
        nth,
        FATES[fate],
        after=after,
        is_victim=lambda: asyncio.current_task() is not beside,
        cancel=victim.cancel,
        give_way=lambda: asyncio.sleep(0),
    )
    spare(torture, fate)
    try:
        outcome, other = await asyncio.gather(victim, beside, return_exceptions=True)
        while session_of(client)._flights._under_way:  # it goes on, whoever is cancelled
            await asyncio.sleep(0)
    finally:
        torture.end()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    if isinstance(outcome, asyncio.CancelledError):
        outcome = Cancellation()
    return outcome, other, torture


async def refresh_trio(client, nth, fate, after):
    scope = trio.CancelScope()
    outcomes = [Cancellation(), None]
    spared = []

    async def call(number):
        try:
            outcomes[number] = await call_expired(client)
        except AgentRunClientError as error:
            outcomes[number] = error

    async def suffer():
        with scope:
            await call(0)

    async def stand_by():
        spared.append(trio.lowlevel.current_task())
        await call(1)

    torture = Torture(
        session_of(client),
        nth,
        FATES[fate],
        after=after,
        is_victim=lambda: trio.lowlevel.current_task() not in spared,
        cancel=scope.cancel,
        give_way=trio.lowlevel.checkpoint,
    )
    spare(torture, fate)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(suffer)
            nursery.start_soon(stand_by)
        while session_of(client)._flights._under_way:
            await trio.lowlevel.checkpoint()
    finally:
        torture.end()
    return *outcomes, torture


# --- by awaits


@pytest.mark.hostile("files-broken-off", "many-cancelled")
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "reused"])
@pytest.mark.parametrize("late", [False, True], ids=["waiting", "answered"])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("backend", LOOPS)
def test_asyncio_cancelled_at_every_await(backend, operation, late, fresh, emulator, scene):
    """`answered`: the cancellation comes when what was awaited is there, and the task has not run yet."""

    async def main():
        before = sockets()
        client = native(backend)(config_for(emulator, operation))
        await scene.prepare(client)
        for nth in range(MANY):
            if fresh:
                await client.aclose()
            reached = []
            coroutine = scene.operate(client, operation)

            async def suffer(coroutine=coroutine, nth=nth, reached=reached):
                return await cancelled_at(coroutine, nth, late=late, reached=reached)

            victim = asyncio.ensure_future(suffer())
            beside = asyncio.ensure_future(own_answer(client, 1))
            outcome, other = await asyncio.gather(victim, beside, return_exceptions=True)
            assert other == 1
            if reached:
                assert isinstance(outcome, asyncio.CancelledError), (nth, outcome)
            else:
                assert outcome == scene.right(operation)
            scene.assert_files(operation, done=not reached)
            await assert_nothing_leaked(backend, client, before)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert await own_answer(client, nth) == nth
            if not reached:
                return nth
        raise AssertionError("there is no end to it")

    assert run(backend, main) >= 1 + fresh


@pytest.mark.hostile("files-broken-off", "many-cancelled")
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "reused"])
@pytest.mark.parametrize("late", [False, True], ids=["parked", "scheduled"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_trio_cancelled_at_every_checkpoint(operation, late, fresh, emulator, scene):
    async def main():
        before = sockets()
        client = native("trio")(config_for(emulator, operation))
        await scene.prepare(client)
        for nth in range(MANY):
            if fresh:
                await client.aclose()
            instrument = CancelAtStep(nth, late=late)
            outcome = None
            others = []

            async def stand_by(others=others):
                others.append(await own_answer(client, 1))

            async def suffer(instrument=instrument):
                nonlocal outcome
                instrument.task = trio.lowlevel.current_task()
                with trio.CancelScope() as instrument.scope:
                    outcome = await scene.operate(client, operation)
                instrument.task = None

            trio.lowlevel.add_instrument(instrument)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(suffer)
                    nursery.start_soon(stand_by)
            finally:
                trio.lowlevel.remove_instrument(instrument)
            assert others == [1]
            # A thread cannot be stopped: a cancellation that comes in the last of them changes nothing.
            assert instrument.scope.cancelled_caught or outcome == scene.right(operation), nth
            scene.assert_files(operation, done=outcome is not None)
            await assert_nothing_leaked("trio", client, before)
            assert await own_answer(client, nth) == nth
            if not instrument.reached:
                assert outcome == scene.right(operation)
                return nth
        raise AssertionError("there is no end to it")

    assert run("trio", main) >= 1 + fresh


@pytest.mark.hostile("many-pool-full")
@pytest.mark.parametrize("late", [False, True], ids=["waiting", "served"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_cancelled_waiter_gives_its_place_up(backend, late, emulator):
    """Five wait for one connection; each in turn is cancelled, before it is served or right after."""

    async def main():
        before = sockets()
        client = native(backend)(emulator.config(), limits=Limits(total=1))
        await own_answer(client, 0)
        pool = session_of(client).pool
        for doomed in range(5):
            held = pool.checkout(pool.idle[0].origin)
            served = []
            surfaced = await (doom_trio if backend == "trio" else doom_asyncio)(
                client, pool, held, doomed, late, served
            )
            assert surfaced == [number == doomed for number in range(5)]
            assert served == [number for number in range(5) if number != doomed]
            await assert_nothing_leaked(backend, client, before)

    run(backend, main)


def release(pool, held, doomed, late, cancel):
    """Cancels a waiter and gives the connection that all wait for back, in the one order or the other."""
    ticket = list(next(iter(pool._lanes.values())).waiting.values())[doomed]
    if late:
        notify = ticket.notify
        ticket.notify = lambda: (notify(), cancel())  # it is cancelled with a connection in its hands
    else:
        cancel()
    pool.checkin(held)


async def doom_asyncio(client, pool, held, doomed, late, served):
    async def call(number):
        served.append(await own_answer(client, number))

    tasks = [asyncio.ensure_future(call(number)) for number in range(5)]
    while pool.waiting < 5:
        await asyncio.sleep(0)
    release(pool, held, doomed, late, tasks[doomed].cancel)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes]


async def doom_trio(client, pool, held, doomed, late, served):
    scopes = [trio.CancelScope() for _ in range(5)]

    async def call(number):
        with scopes[number]:
            served.append(await own_answer(client, number))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(call, number)
            while pool.waiting <= number:
                await trio.lowlevel.checkpoint()
        release(pool, held, doomed, late, scopes[doomed].cancel)
    return [scope.cancelled_caught for scope in scopes]


@pytest.mark.hostile("many-cancelled")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hundred_cancelled_at_once_leave_nothing(backend, emulator):
    async def main():
        before = sockets()
        client = native(backend)(emulator.config(), limits=Limits(total=7))
        await own_answer(client, 0)
        if backend == "trio":
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(own_answer, client, number)
                for _ in range(5):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        else:
            tasks = [asyncio.ensure_future(own_answer(client, number)) for number in range(100)]
            for _ in range(5):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await assert_nothing_leaked(backend, client, before)
        assert await own_answer(client, 5) == 5

    run(backend, main)


def test_refusals_are_not_failures_of_the_driver(emulator):
    """The torture's measure itself: an error that the service answers with leaves its connection in use."""

    async def main():
        client = native("asyncio")(emulator.config())
        name = os.urandom(8).hex()
        await client.post("resources", {"name": name})
        with pytest.raises(ConflictError):
            await client.post("resources", {"name": name})
        assert len(session_of(client).pool.idle) == 1

    run("asyncio", main)


@pytest.mark.hostile("many-cancelled")
@pytest.mark.parametrize("backend", BACKENDS)
def test_cancelled_while_connecting_at_every_turn_of_the_loop(backend, emulator):
    """What connects may be tasks of its own: the caller's awaits are too few to find every moment."""

    async def main():
        before = sockets()
        client = native(backend)(emulator.config())
        await own_answer(client, 0)
        await client.aclose()
        await turns(backend)
        leaked = {}
        for count in range(16):
            if backend == "trio":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(own_answer, client, 1)
                    await turns(backend, count)
                    nursery.cancel_scope.cancel()
            else:
                task = asyncio.ensure_future(own_answer(client, 1))
                await turns(backend, count)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            assert session_of(client).pool.open == len(session_of(client).pool.idle)
            await client.aclose()
            await turns(backend)
            leaked[count] = sockets() - before  # counted before the garbage collector hides it
            before = sockets()
        assert not any(leaked.values()), leaked

    run(backend, main)
