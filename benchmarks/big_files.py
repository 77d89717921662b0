"""Files of a gibibyte, up and down, by each driver: what stays in memory, what goes over the wire, who waits.

``python -m benchmarks.big_files`` makes a file, an emulator in a process of its own, and for each driver and
direction a client in a process of its own. It prints a row for each: the growth of the client's peak of
resident memory, the bytes that were sent over those that the file has, with the connection cut at random
places of a seed, whether the file arrived whole, and how late a ticker of 10 ms came at most beside it.

Resident memory is read from ``/proc``: Linux alone. The file is checked by its SHA-256, which the client
takes as it saves.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import trio

from agentrun_proto import Config, Retry, Timeout
from agentrun_transports import AsyncioClient, BlockingClient, TrioClient
from agentrun_transports.emulator import Emulator, Fault

MIB = 1 << 20
DRIVERS = ("blocking", "asyncio", "trio")
TICK = 0.01
NO_CHECKSUM = {"x-emulator-checksum": "none"}  # else the emulator would spend longer on it than all others
REMOTE = "/big"


# --- the client, in a process of its own


def _memory(name: str) -> int:
    """A figure of this process's memory, in bytes: VmRSS is what is resident now, VmHWM its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Lateness:
    """How late a tick came at most, in seconds; None where there is no loop that could be held up."""

    def __init__(self) -> None:
        self.most: float | None = None

    def tick(self, due: float) -> None:
        self.most = max(self.most or 0.0, time.monotonic() - due)

    async def on_asyncio(self) -> None:
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            self.tick(due)

    async def on_trio(self) -> None:
        while True:
            due = time.monotonic() + TICK
            await trio.sleep(TICK)
            self.tick(due)


def _client(spec: dict[str, Any]) -> dict[str, Any]:
    """Warms up, waits to be told to go, moves the big file in one direction; what that came to."""
    config = Config(**spec["config"], timeout=Timeout(), retry=Retry(attempts=2, backoff=0.0))
    late = Lateness()
    warm_up, last = _calls(spec)

    def begin() -> tuple[int, float]:
        print("warm", flush=True)
        sys.stdin.readline()
        gc.collect()
        _forget_peak()
        late.most = None
        return _memory("VmRSS"), time.perf_counter()

    def end(before: int, begun: float) -> dict[str, Any]:
        seconds = time.perf_counter() - begun
        return {"grown": _memory("VmHWM") - before, "seconds": seconds, "late": late.most}

    if spec["driver"] == "blocking":
        with BlockingClient(config) as client:
            for method, arguments, options in warm_up:
                getattr(client, method)(*arguments, **options)
            begun = begin()
            getattr(client, last[0])(*last[1], **last[2])
            return end(*begun)
    kind = AsyncioClient if spec["driver"] == "asyncio" else TrioClient

    async def work() -> dict[str, Any]:
        async with kind(config) as client:
            for method, arguments, options in warm_up:
                await getattr(client, method)(*arguments, **options)
            begun = begin()
            await getattr(client, last[0])(*last[1], **last[2])
            return end(*begun)

    return _run_beside(work, late, spec["driver"])


Call = tuple[str, tuple[str, ...], dict[str, Any]]


def _calls(spec: dict[str, Any]) -> tuple[list[Call], Call]:
    """Small files to warm up with, and the big one: method, arguments, options."""
    up = {"headers": NO_CHECKSUM}
    warm_up: list[Call] = [
        ("upload", ("files", spec["small"], "/small"), up),
        ("download", ("files", spec["saved"]), {"query": {"path": "/small"}, "sha256": spec["small_sha256"]}),
    ]
    if spec["direction"] == "up":
        return warm_up * 3, ("upload", ("files", spec["big"], REMOTE), up)
    down = {"query": {"path": REMOTE}, "sha256": spec["big_sha256"]}
    return warm_up * 3, ("download", ("files", spec["saved"]), down)


def _run_beside(work: Callable[[], Awaitable[dict[str, Any]]], late: Lateness, driver: str) -> dict[str, Any]:
    """Runs it beside the ticker."""
    if driver == "asyncio":

        async def on_asyncio() -> dict[str, Any]:
            ticker = asyncio.ensure_future(late.on_asyncio())
            try:
                return await work()
            finally:
                ticker.cancel()

        return asyncio.run(on_asyncio())

    async def on_trio() -> dict[str, Any]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(late.on_trio)
            figures = await work()
            nursery.cancel_scope.cancel()
        return figures

    return trio.run(on_trio)


# --- the emulator, in a process of its own


def _serve(folder: str) -> None:
    """Answers orders from standard input until it ends.

    An object: after how many bytes the n-th GET from now on is cut. Null: how many bytes of the big file were
    sent since then.
    """
    with Emulator(folder=folder) as emulator:
        print(json.dumps(emulator.environment), flush=True)
        cuts: list[int] = []
        size = first = 0  # the requests are not so many that the log forgets one
        for line in sys.stdin:
            order = json.loads(line)
            if order is None:
                asked = [request for request in emulator.requests.last[first:] if request.method == "GET"]
                places = [*cuts, *[size] * len(asked)]
                sent = [
                    _sent(request.headers, size, cut) for request, cut in zip(asked, places, strict=False)
                ]
                print(sum(sent), flush=True)
                continue
            size, cuts, first = order["size"], order["cuts"], emulator.requests.count
            for cut in cuts:
                emulator.service.faults.add(Fault(cut=cut), match="GET")
            print("ok", flush=True)


def _sent(headers: tuple[tuple[str, str], ...], size: int, cut: int) -> int:
    """How much of the file an answer held: from where the request asked for it, to where it was cut."""
    start = int(dict(headers).get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    return min(cut, size - start)


# --- all of it


class Child:
    """This program in another process, with which lines of JSON are exchanged."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "benchmarks.big_files", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark has failed; see above")
        return line

    def tell(self, order: object) -> None:
        """A line for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.big_files", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--mib", type=int, default=1024, help="the size of the file (default: 1024)")
    parser.add_argument("--cuts", type=int, default=20, help="how often a download is cut (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="where it is cut (default: 1)")
    parser.add_argument("--driver", action="append", choices=DRIVERS, help="only this one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.client:
        print(json.dumps(_client(json.loads(options.client))))
    elif options.serve:
        _serve(options.serve)
    else:
        with tempfile.TemporaryDirectory(prefix="agentrun-big-") as folder:
            rows = _measure(Path(folder), options)
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=1))
    return 0


def _measure(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    chance = random.Random(options.seed)
    size = options.mib * MIB
    spec: dict[str, Any] = {"big": str(folder / "big"), "small": str(folder / "small")}
    spec["big_sha256"] = _make(folder / "big", options.mib, chance)
    spec["small_sha256"] = _make(folder / "small", 1, chance)
    spec["saved"] = str(folder / "saved")
    cuts = [chance.randrange(1, 2 * size // options.cuts) for _ in range(options.cuts)]
    print(
        f"{options.mib} MiB; downloads are cut up to {options.cuts} times; a ticker of {TICK * 1000:.0f} ms"
    )
    print(f"{'driver':<10}{'direction':<10}{'grown, MiB':>11}{'sent':>7}{'late, ms':>10}{'MiB/s':>7}")
    rows: list[dict[str, Any]] = []
    with closing(Child("--serve", str(folder))) as server:
        environment = json.loads(server.read())
        config = Config.from_env(environment)
        spec["config"] = {
            "access_key_id": config.access_key_id,
            "access_key_secret": environment["AGENTRUN_ACCESS_KEY_SECRET"],
            "account_id": config.account_id,
            "region_id": config.region_id,
            "data_endpoint": config.data_endpoint,
        }
        for driver in options.driver or DRIVERS:
            for direction in ("up", "down"):
                with closing(
                    Child("--client", json.dumps({**spec, "driver": driver, "direction": direction}))
                ) as client:
                    client.read()
                    server.tell({"size": size, "cuts": cuts if direction == "down" else []})
                    server.read()
                    client.tell("go")
                    figures = json.loads(client.read())
                    server.tell(None)
                    sent = int(server.read())
                row = {"driver": driver, "direction": direction, **figures}
                row["sent"] = sent / size if direction == "down" else 1.0
                rows.append(row)
                late = "-" if row["late"] is None else f"{row['late'] * 1000:.1f}"
                print(
                    f"{driver:<10}{direction:<10}{row['grown'] / MIB:>11.2f}{row['sent']:>7.3f}{late:>10}"
                    f"{options.mib / row['seconds']:>7.0f}",
                    flush=True,
                )
    return rows


def _make(path: Path, mib: int, chance: random.Random) -> str:
    """Makes a file that no compression and no sparse page makes smaller; its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mib):
            piece = chance.randbytes(MIB)
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
