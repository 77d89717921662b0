"""Nobody closes anything: connections end with their loop, their client, their process, without a word.

Rules of this file: what must be silent runs as a program of its own, with every warning an error, Python's
development mode and asyncio's debug mode on, and may write nothing to stderr.
"""

import asyncio
import gc
import os
import signal
import sys
import threading
import types

import pytest
import trio

from agentrun_transports import BlockingClient, DataAPI, ResourceType
from drivers_support import (
    BACKENDS,
    LOOPS,
    EmulatorProcess,
    QuickServer,
    assert_silent,
    in_thread,
    native,
    run,
    run_asyncio,
    session_of,
    settled_sockets,
    sockets,
    turns,
    uvloop,
)

pytestmark = pytest.mark.once

# Debug mode reports slow callbacks; a busy machine makes them so. Each loop sets what is slow, here in vain.
PATIENT = "asyncio.base_events.BaseEventLoop.slow_callback_duration = property(lambda _: 60, lambda *_: None)"
# What every program begins with; `quiet` is for uvloop's loops.
PROLOGUE = f"""
import asyncio, gc, os, sys, threading
from agentrun_proto import Config
from agentrun_transports import AsyncioClient, BlockingClient, DataAPI, ResourceType, TrioClient
{PATIENT}
config = Config.from_env(os.environ)
api = DataAPI("r", ResourceType.Runtime)
def quiet():
    asyncio.get_running_loop().slow_callback_duration = 60
async def once(what=None):
    return (await (what or api).get_async("resources"))["code"]
async def several(what=None):
    quiet()
    return set(await asyncio.gather(*(once(what) for _ in range(5))))
"""

PROGRAMS = {
    "asyncio.run": "assert asyncio.run(several()) == {'SUCCESS'}",
    "asyncio.run twice": "assert asyncio.run(several()) == asyncio.run(several()) == {'SUCCESS'}",
    "asyncio native": "client = AsyncioClient(config); [asyncio.run(several(client)) for _ in range(2)]",
    "asyncio client local to main": """
async def main():
    quiet()
    await AsyncioClient(config).get("resources")
asyncio.run(main())
""",
    "asyncio client dropped and collected": """
async def main():
    quiet()
    client = AsyncioClient(config)
    await client.get("resources")
    del client
    gc.collect()
    await asyncio.sleep(0)
asyncio.run(main())
""",
    "asyncio call left running": """
async def main():
    quiet()
    task = asyncio.ensure_future(api.get_async("resources", headers={"x-emulator-fault": "delay=60"}))
    await api.get_async("resources")
asyncio.run(main())
""",
    "asyncio exits amid a call": """
async def main():
    quiet()
    asyncio.ensure_future(api.get_async("resources", headers={"x-emulator-fault": "delay=60"}))
    await api.get_async("resources")
    raise SystemExit(0)
asyncio.run(main())
""",
    "asyncio error ends the loop": """
async def main():
    quiet()
    await api.get_async("resources")
    raise KeyError
try:
    asyncio.run(main())
except KeyError:
    pass
""",
    "loop closed without shutdown_asyncgens": """
loop = asyncio.new_event_loop()
loop.run_until_complete(several())
loop.close()
""",
    "loop closed without shutdown_asyncgens, client local": """
async def main():
    quiet()
    await AsyncioClient(config).get("resources")
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
loop.close()
""",
    "loop never closed, as in a notebook": """
loop = asyncio.new_event_loop()
loop.run_until_complete(several())
loop.run_until_complete(several())
import warnings
warnings.filterwarnings("ignore", "unclosed event loop", ResourceWarning)
""",
    "trio.run twice": """
import trio
for _ in range(2):
    assert trio.run(once) == 'SUCCESS'
""",
    "trio client dropped and collected": """
import trio
async def main():
    client = TrioClient(config)
    await client.get("resources")
    del client
    gc.collect()
    await trio.lowlevel.checkpoint()
trio.run(main)
""",
    "trio client local to main": """
import trio
async def main():
    await TrioClient(config).get("resources")
trio.run(main)
""",
    "trio error ends the run": """
import trio
async def main():
    await api.get_async("resources")
    raise KeyError
try:
    trio.run(main)
except KeyError:
    pass
""",
    "all kinds, one after another": """
import trio
assert api.get("resources")["code"] == 'SUCCESS'
asyncio.run(several())
assert trio.run(once) == 'SUCCESS'
assert api.get("resources")["code"] == 'SUCCESS'
asyncio.run(several())
assert trio.run(once) == 'SUCCESS'
""",
    "a blocking call inside either loop": """
import trio, warnings
warnings.simplefilter("ignore", UserWarning)
warnings.simplefilter("ignore", RuntimeWarning)
async def main():
    assert api.get("resources")["code"] == await once()
asyncio.run(main())
trio.run(main)
""",
    "two loops in two threads": """
results = []
def work():
    for _ in range(3):
        results.append(asyncio.run(several()))
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert results == [{'SUCCESS'}] * 6
""",
    "the last reference dropped in another thread": """
async def main():
    quiet()
    box = [AsyncioClient(config)]
    await box[0].get("resources")
    await asyncio.get_running_loop().run_in_executor(None, box.clear)
    gc.collect()
    await asyncio.sleep(0)
asyncio.run(main())
""",
    "closed by those who like to": """
import trio
async def main():
    async with DataAPI("r", ResourceType.Runtime) as one:
        await one.get_async("resources")
    async with AsyncioClient(config) as two:
        await two.get("resources")
    await one.get_async("resources")
asyncio.run(main())
async def main():
    async with DataAPI("r", ResourceType.Runtime) as one, TrioClient(config) as two:
        await one.get_async("resources")
        await two.get("resources")
trio.run(main)
""",
    "a generator of the caller's is left open": """
async def stream():
    for _ in range(3):
        yield await once()
async def main():
    quiet()
    async for code in stream():
        break
asyncio.run(main())
""",
    "a download left running": """
async def main():
    quiet()
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/in", "wb") as file:
            file.write(bytes(3_000_000))
        await api.post_file_async("files", folder + "/in", "/left")
        task = asyncio.ensure_future(api.get_file_async("files", folder + "/out", {"path": "/left"}))
        while not any(name.endswith(".part") for name in os.listdir(folder)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert os.listdir(folder) == ["in"]
asyncio.run(main())
""",
}
UVLOOP = ("asyncio.run twice", "asyncio client dropped and collected", "asyncio call left running")


@pytest.fixture(scope="module")
def emulator():
    emulator = EmulatorProcess()
    yield emulator
    emulator.close()


@pytest.mark.hostile("many-silent-end")
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_closes_nothing_is_silent(program, emulator):
    assert_silent(PROLOGUE + PROGRAMS[program], **emulator.environment)


@pytest.mark.hostile("many-silent-end")
@pytest.mark.skipif(uvloop is None, reason="uvloop is not installed")
@pytest.mark.parametrize("program", UVLOOP)
def test_asyncio_programs_are_as_silent_on_uvloop(program, emulator):
    script = PROLOGUE + PROGRAMS[program].replace("asyncio.run(", "uvloop.run(")
    assert_silent("import uvloop\n" + script, **emulator.environment)


@pytest.mark.hostile("many-fork")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork_with_open_connections_and_a_running_loop(emulator):
    """Parent and child share no connection, whichever way the child goes on."""
    assert_silent(
        PROLOGUE
        + """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, since Python 3.12
def in_child(work):
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
api.get("resources")
def sync():
    for _ in range(3):
        assert api.get("resources")["code"] == "SUCCESS"
async def main():
    quiet()
    await api.get_async("resources")
    in_child(sync)
    in_child(lambda: (asyncio.events._set_running_loop(None), asyncio.run(several())))
    assert await once() == "SUCCESS"
    in_child(sync)
in_child(sync)
asyncio.run(main())
in_child(lambda: asyncio.run(several()))
sync()
print("done")
""",
        "done",
        **emulator.environment,
    )


INTERRUPTS = {
    "blocking": """
try:
    api.get("resources", headers={"x-emulator-fault": "delay=60"})
except KeyboardInterrupt:
    print("interrupted")
pool = api._session.pool
assert (pool.open, pool.idle) == (0, [])
assert api.get("resources")["code"] == "SUCCESS"
""",
    "asyncio": """
async def main():
    quiet()
    try:
        await api.get_async("resources", headers={"x-emulator-fault": "delay=60"})
    finally:
        pool = next(iter(api._sessions._by_loop.values())).pool
        assert (pool.open, pool.idle) == (0, [])
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
assert asyncio.run(several()) == {"SUCCESS"}
""",
    "trio": """
import trio
async def main():
    try:
        await api.get_async("resources", headers={"x-emulator-fault": "delay=60"})
    finally:
        pool = next(iter(api._sessions._by_loop.values())).pool
        assert (pool.open, pool.idle) == (0, [])
try:
    trio.run(main)
except BaseException as error:
    assert isinstance(error, KeyboardInterrupt) or "KeyboardInterrupt" in repr(error), error
    print("interrupted")
assert trio.run(once) == "SUCCESS"
""",
}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
@pytest.mark.parametrize("driver", INTERRUPTS)
def test_keyboard_interrupt_amid_a_call(driver, emulator):
    # The alarm is set once the call has its connection: before that, much is imported on first need.
    begin = """
import signal
from agentrun_proto import ConnectionOpened
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job is begun without
signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
alarms = [0.2]
def listener(event):
    if isinstance(event, ConnectionOpened) and alarms:
        signal.setitimer(signal.ITIMER_REAL, alarms.pop())
api = DataAPI("r", ResourceType.Runtime, listener=listener)
"""
    assert_silent(PROLOGUE + begin + INTERRUPTS[driver], "interrupted", **emulator.environment)


@pytest.mark.parametrize("kind", ["call", "upload", "download"])
def test_keyboard_interrupt_at_every_command_of_a_blocking_call(kind, emulator, tmp_path):
    """Before the n-th network operation, for every n; the next call is right, and nothing is left."""
    (tmp_path / "local").write_bytes(bytes(300_000))
    client = BlockingClient(emulator.config())
    client.upload = client.post_file
    client.upload("files", tmp_path / "local", "/interrupted")
    perform = client._session._network._perform
    former = dict(perform)
    pool = client._session.pool
    before = settled_sockets() - len(pool.idle)
    (tmp_path / "out").mkdir()
    for nth in range(100):
        left = nth

        def performed(command):
            nonlocal left
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
            return former[type(command)](command)

        perform.update(dict.fromkeys(former, performed))
        try:
            if kind == "call":
                client.get("resources")
            elif kind == "upload":
                client.upload("files", tmp_path / "local", "/interrupted")
            else:
                client.get_file("files", tmp_path / "out" / "saved", {"path": "/interrupted"})
        except KeyboardInterrupt:
            assert list((tmp_path / "out").iterdir()) == []
        perform.update(former)
        assert pool.open == len(pool.idle)
        assert sockets() - before == len(pool.idle)
        assert client.get("resources")["code"] == "SUCCESS"
        if left >= 0:
            break
        client.close() if nth % 2 else None
    assert 2 <= nth < 100
    client.close()


# --- in this process


@pytest.mark.parametrize("backend", BACKENDS)
def test_sockets_of_a_collected_client_are_closed_while_its_loop_goes_on(backend, emulator):
    async def main():
        gc.collect()  # of what earlier tests have left
        before = settled_sockets()
        client = native(backend)(emulator.config())
        await client.get("resources")
        assert sockets() == before + 1
        del client
        gc.collect()
        await turns(backend, 10)
        assert sockets() == before

    run(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_client_that_goes_away_amid_its_call_is_kept_until_then(backend, emulator):
    async def main():
        gc.collect()  # of what earlier tests have left
        before = settled_sockets()
        operation = native(backend)(emulator.config()).get("resources")
        gc.collect()
        assert (await operation)["code"] == "SUCCESS"
        del operation
        gc.collect()
        await turns(backend, 10)
        assert sockets() == before

    run(backend, main)


@pytest.mark.hostile("many-second-loop")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_client_on_one_loop_after_another(backend, emulator):
    """Each loop has its own connections; those of a loop that is over are gone, its session too."""
    before = settled_sockets()
    client = native(backend)(emulator.config())

    async def main():
        for _ in range(2):
            await client.get("resources")
        assert session_of(client).pool.open == 1
        assert len(client._sessions._by_loop) == 1

    for _ in range(3):
        run(backend, main)
        gc.collect()
        assert sockets() == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_aclose_amid_a_call(backend, emulator):
    """The call goes on; its connection is closed after it."""

    async def main():
        before = settled_sockets()
        client = native(backend)(emulator.config())
        await client.get("resources")
        got = []

        async def call():
            got.append(await client.get("resources"))

        async def close():
            await turns(backend, 1)
            await client.aclose()

        if backend == "trio":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                nursery.start_soon(close)
        else:
            await asyncio.gather(call(), close())
        assert got[0]["code"] == "SUCCESS"
        await client.aclose()
        await turns(backend)
        assert sockets() == before
        assert (await client.get("resources"))["code"] == "SUCCESS"

    run(backend, main)


@pytest.mark.hostile("many-threads")
def test_one_api_in_asyncio_trio_and_blocking_at_the_same_time(emulator, monkeypatch):
    """Three threads, three kinds of loops, one DataAPI; nobody gets what is another's."""
    with QuickServer() as server:
        api = DataAPI("r", ResourceType.Runtime, server.config())
        wrong = []
        failures = []

        def check(number, answer):
            if not answer["target"].endswith(f"/own?n={number}"):
                wrong.append((number, answer))

        async def calls(start):
            for number in range(start, start + 100):
                check(number, await api.get_async("own", {"n": number}))

        def blocking(start):
            for number in range(start, start + 100):
                check(number, api.get("own", {"n": number}))

        def guarded(work, *args):
            try:
                work(*args)
            except BaseException as error:
                failures.append(error)

        threads = [
            threading.Thread(target=guarded, args=(run_asyncio, calls, 1000)),
            threading.Thread(target=guarded, args=(run_asyncio, calls, 2000)),
            threading.Thread(target=guarded, args=(trio.run, calls, 3000)),
            threading.Thread(target=guarded, args=(trio.run, calls, 4000)),
            threading.Thread(target=guarded, args=(blocking, 5000)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert (wrong, failures) == ([], [])
        assert len(server.order) == 500
        api.close()


@types.coroutine
def _trap(what):
    return (yield what)


@pytest.mark.parametrize("method", ["get_async", "post_file_async", "get_file_async", "aclose"])
def test_under_a_runner_of_another_kind_it_says_how_to_embed(method, emulator):
    """A runner in curio's manner: it drives coroutines, and answers to traps of its own."""
    api = DataAPI("r", ResourceType.Runtime, emulator.config())

    async def main():
        assert await _trap("mine") == "answer"
        arguments = {"get_async": ("x",), "post_file_async": ("x", "y", "z"), "get_file_async": ("x", "y")}
        await getattr(api, method)(*arguments.get(method, ()))

    coroutine = main()
    assert coroutine.send(None) == "mine"
    with pytest.raises(RuntimeError, match="embed"):
        coroutine.send("answer")


def test_without_any_loop(emulator):
    api = DataAPI("r", ResourceType.Runtime, emulator.config())
    operation = api.get_async("x")
    with pytest.raises(RuntimeError, match="embed"):
        operation.send(None)


@pytest.mark.parametrize("missing", ["asyncio", "trio"])
def test_no_loop_is_imported_to_find_out_that_none_runs(emulator, monkeypatch, missing):
    operation = DataAPI("r", ResourceType.Runtime, emulator.config()).get_async("x")
    monkeypatch.delitem(sys.modules, missing)
    with pytest.raises(RuntimeError, match="embed"):
        operation.send(None)
    assert missing not in sys.modules


@pytest.mark.parametrize("backend", LOOPS)
def test_asyncio_client_under_trio_and_the_other_way_round(backend, emulator):
    """A native client on the wrong loop is the caller's mistake, told as such, and does no harm."""

    async def wrong(kind):
        client = native(kind)(emulator.config())
        with pytest.raises(RuntimeError):
            await client.get("resources")

    trio.run(wrong, "asyncio")
    run(backend, wrong, "trio")


@pytest.mark.parametrize("backend", BACKENDS)
def test_neither_loop_is_imported_before_it_is_used(backend, emulator):
    imported = {"asyncio": "trio", "uvloop": "trio", "trio": "agentrun_transports._asyncio"}[backend]
    name = "trio" if backend == "trio" else "asyncio"
    script = f"""
import os, sys
from agentrun_transports import DataAPI, ResourceType
assert not {{"asyncio", "trio", "ssl", "httpcore"}} & sys.modules.keys(), sys.modules.keys()
import {name}
{"" if name == "trio" else PATIENT}
api = DataAPI("r", ResourceType.Runtime)
async def main():
    assert (await api.get_async("resources"))["code"] == "SUCCESS"
{name}.run(main{"" if name == "trio" else "()"})
assert {imported!r} not in sys.modules
"""
    assert_silent(script, **emulator.environment)


def test_python_is_new_enough_for_what_is_tested():
    assert sys.version_info >= (3, 10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_idle_connections_grow_old(backend, emulator):
    """Those that are not needed are closed, by the loop's time."""
    from agentrun_transports import Limits

    async def main():
        client = native(backend)(emulator.config(), limits=Limits(idle=0.0))
        await client.get("resources")
        first = session_of(client).pool.idle
        await in_thread(backend, threading.Event().wait, 0.002)  # the loop's time moves on
        await client.get("resources")
        assert session_of(client).pool.idle != first
        assert session_of(client).pool.open == 1

    run(backend, main)
