"""The process that one contender lives in, for one section.

It is started as `python -m benchmarks.worker SPEC` with a JSON object, says on standard output that it is
ready (or missing, or failed), and then plays a round for each line that it reads: so many calls, answered
with what a call cost. Between rounds it waits in a blocking read, whatever its loop: nothing may run that is
not measured.

A driver plays rounds on one kind of loop. `serve_blocking` is for operations that return, `serve_async` for
those that are awaited; a new kind of loop needs a way to run N copies of a coroutine together, and nothing
else.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import sys
import time
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import find
from benchmarks.contenders.base import Contender, Missing, Target, file_size
from benchmarks.machine import allow_many_files, pin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Together = Callable[[Callable[[], Awaitable[None]], int], Awaitable[None]]


class Channel:
    """The conversation with the runner, kept clear of whatever a client prints."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, **message: Any) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def orders(self) -> Iterator[int]:
        for line in sys.stdin:
            yield json.loads(line)["calls"]


class Meter:
    """What calls cost: CPU and wall seconds per call, and the bytes that memory grew by at its peak."""

    def __init__(self) -> None:
        gc.collect()
        self._memory, _ = _memory()
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def read(self, calls: int) -> dict[str, float]:
        cpu = time.process_time() - self._cpu
        wall = time.perf_counter() - self._wall
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "cpu": cpu / calls,
            "wall": wall / calls,
            "user": (usage.ru_utime - self._usage.ru_utime) / calls,
            "system": (usage.ru_stime - self._usage.ru_stime) / calls,
            "memory_growth": max(0, _memory(reset=False)[1] - self._memory),
        }


def _memory(*, reset: bool = True) -> tuple[int, int]:
    """Return resident memory in bytes, now and at its peak, which `reset` makes start from now."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return peak, peak


def serve_blocking(channel: Channel, make: Callable[[], Contender], spec: dict[str, Any]) -> None:
    """Play rounds of an operation that returns."""
    contender = make()
    operation = partial(getattr(contender, spec["operation"]), *spec["arguments"])
    check(spec, operation())
    channel.say(ready=True, version=version(contender))
    for calls in channel.orders():
        for _ in range(calls // 10):
            operation()
        meter = Meter()
        for _ in range(calls):
            operation()
        channel.say(**meter.read(calls))


async def serve_async(
    channel: Channel, make: Callable[[], Contender], spec: dict[str, Any], together: Together
) -> None:
    """Play rounds of an operation that is awaited, with so many in flight as the section asks for."""
    contender: Any = make()
    await contender.open()
    operation = partial(getattr(contender, spec["operation"]), *spec["arguments"])

    async def play(calls: int) -> None:
        left = calls

        async def one_in_flight() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await operation()

        await together(one_in_flight, min(spec["in_flight"], calls))

    check(spec, await operation())
    channel.say(ready=True, version=version(contender))
    for calls in channel.orders():
        await play(calls // 10)
        meter = Meter()
        await play(calls)
        channel.say(**meter.read(calls))
    await contender.close()


def serve_asyncio(channel: Channel, make: Callable[[], Contender], spec: dict[str, Any]) -> None:
    """Play rounds on asyncio."""
    import asyncio

    async def together(task: Callable[[], Any], count: int) -> None:
        await asyncio.gather(*[task() for _ in range(count)])

    asyncio.run(serve_async(channel, make, spec, together))


def serve_trio(channel: Channel, make: Callable[[], Contender], spec: dict[str, Any]) -> None:
    """Play rounds on trio."""
    import trio

    async def together(task: Callable[[], Any], count: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(task)

    trio.run(serve_async, channel, make, spec, together)


DRIVERS = {"none": serve_blocking, "blocking": serve_blocking, "asyncio": serve_asyncio, "trio": serve_trio}


def check(spec: dict[str, Any], result: Any) -> None:
    """Raise ValueError unless the first call did the work: who measures an error page is fast for nothing."""
    if spec["operation"] in ("json", "decode") and result.get("code") != "SUCCESS":
        raise ValueError(f"not the answer that was asked for: {result!r:.200}")
    if spec["operation"] == "events" and str(result) != spec["arguments"][0].rpartition("-")[2]:
        raise ValueError(f"{result} events were read of {spec['arguments'][0]}")
    if spec["operation"] in ("upload", "multipart") and result["received"] < file_size(spec["arguments"][0]):
        raise ValueError(f"the server received {result['received']} bytes")
    if spec["operation"] == "download" and file_size(spec["arguments"][1]) != spec["size"]:
        raise ValueError(f"{file_size(spec['arguments'][1])} bytes were saved instead of {spec['size']}")


def version(contender: Contender) -> str:
    """Return the version of the distribution that a contender stands for, "" for the standard library."""
    return metadata.version(contender.needs) if contender.needs else ""


def main() -> None:
    """Find the contender that the first argument names, and serve."""
    spec = json.loads(sys.argv[1])
    channel = Channel()
    pin(spec["core"])
    allow_many_files()
    target = Target(port=spec["port"], in_flight=spec["in_flight"], ca_file=spec["ca_file"])
    try:
        contender = find(spec["loop"], spec["contender"])
        DRIVERS[spec["loop"]](channel, partial(contender, target), spec)
    except (ImportError, Missing) as error:
        channel.say(missing=re.sub(r" \([^)]*\)$", "", str(error)))  # without the path of whoever ran this
    except Exception as error:
        channel.say(failed=f"{type(error).__name__}: {error}")
        raise


if __name__ == "__main__":
    main()
