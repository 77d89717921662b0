"""Plays the rounds: A B C, A B C, ..., each contender in its own process.

How many calls make a round is found out for each contender beforehand, so that every round lasts about as
long; who is so slow that even one call for each place in flight takes longer plays fewer rounds, and the
output says how many.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmarks import contenders
from benchmarks.results import Missing, Row, SectionResult

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from benchmarks.sections import Section
    from benchmarks.server import Server

PATIENCE = 180.0  # seconds that a contender may take over one order before it has failed
SLOW = 4.0  # seconds; whose round takes longer plays FEW_ROUNDS
FEW_ROUNDS = 3
# What requests trusts before what it is told, and what has every import compile its source anew.
NOT_PASSED_ON = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PYTHONDONTWRITEBYTECODE")
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How long, how often, and with whom."""

    rounds: int
    round_seconds: float
    transfer_mib: int
    transfer_rounds: int
    events: int
    client_core: int | None
    only: Collection[str] = ()
    interpreters: Mapping[str, str] = field(default_factory=dict[str, str])


class Failed(Exception):
    """A contender's process said that it failed, or died, or kept us waiting too long."""


class NotThere(Exception):
    """A contender's process said that its client is missing."""


class Worker:
    """A contender's process."""

    def __init__(self, spec: dict[str, Any], interpreter: str) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [interpreter, "-m", "benchmarks.worker", json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=Path(__file__).parent.parent,
            env=environment(),
        )
        self.version: str = self._hear()["version"]

    def play(self, calls: int) -> dict[str, float]:
        """Play one round and return what a call cost."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"calls": calls}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died: what it left behind says why
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        alarm = threading.Timer(PATIENCE, self._process.kill)
        alarm.start()
        try:
            line = self._process.stdout.readline()
        finally:
            alarm.cancel()
        answer: dict[str, Any] = json.loads(line) if line else {"failed": self._last_words()}
        if "missing" in answer:
            self.close()
            raise NotThere(answer["missing"])
        if "failed" in answer:
            self.close()
            raise Failed(answer["failed"])
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"ended with status {code}, or took more than {PATIENCE:.0f} s"

    def close(self) -> None:
        """Let the process end, and make sure that it does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def environment() -> dict[str, str]:
    """Return the environment without what sends loopback traffic through a proxy, and `NOT_PASSED_ON`."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name not in NOT_PASSED_ON
    }


def run_section(
    section: Section, settings: Settings, server: Server, say: Callable[[str], None]
) -> SectionResult:
    """Measure one section and return its rows, and who is missing from them."""
    chosen = contenders.names(section.loop, section.operation)
    chosen = [name for name in chosen if not settings.only or name in settings.only]
    names = [name for name in chosen if name not in section.without]
    missing = [
        Missing(contender=name, why=section.without[name], kind="left out")
        for name in chosen
        if name in section.without
    ]
    workers: dict[str, Worker] = {}
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=_roomy_folder()) as folder:
        arguments, size = _arguments(section, settings, Path(folder))
        try:
            for name in names:
                spec = {
                    "contender": name,
                    "loop": section.loop,
                    "operation": section.operation,
                    "arguments": arguments,
                    "size": size,
                    "in_flight": section.in_flight,
                    "port": server.port,
                    "ca_file": server.ca_file,
                    "core": settings.client_core,
                }
                say(f"{section.name}: starting {name}")
                try:
                    worker = Worker(spec, settings.interpreters.get(name, sys.executable))
                    workers[name] = worker
                    rows[name] = _calibrated(name, worker, section, settings)
                except (Failed, NotThere) as error:
                    missing.append(_named(name, error))
                    workers.pop(name, None)
            for number in range(settings.transfer_rounds if section.transfer else settings.rounds):
                for name, row in list(rows.items()):
                    if number >= row.planned_rounds:
                        continue
                    say(f"{section.name}: round {number + 1}, {name}")
                    try:
                        row.rounds.append(workers[name].play(row.calls))
                    except Failed as error:
                        missing.append(_named(name, error))
                        del rows[name], workers[name]
        finally:
            for worker in workers.values():
                worker.close()
    return SectionResult(
        name=section.name,
        title=section.title.format(mib=settings.transfer_mib, events=settings.events),
        loop=section.loop,
        in_flight=section.in_flight,
        unit=section.unit,
        limit=section.limit,
        peers=section.peers,
        transfer_bytes=size,
        rows=list(rows.values()),
        missing=missing,
    )


def _calibrated(name: str, worker: Worker, section: Section, settings: Settings) -> Row:
    if section.transfer:
        return Row(contender=name, version=worker.version, calls=1, planned_rounds=settings.transfer_rounds)
    worker.play(section.in_flight)  # opens the connections
    seconds = worker.play(max(section.in_flight, 5))["wall"]
    calls = max(section.in_flight, int(settings.round_seconds / seconds), 5)
    slow = calls * seconds > SLOW
    rounds = min(FEW_ROUNDS, settings.rounds) if slow else settings.rounds
    return Row(contender=name, version=worker.version, calls=calls, planned_rounds=rounds)


def _arguments(section: Section, settings: Settings, folder: Path) -> tuple[list[str], int]:
    """Return what the operation is called with, and how many bytes it moves (0: too few to matter)."""
    route = section.route.format(mib=settings.transfer_mib, events=settings.events)
    routes = [route] if route else []
    if not section.transfer:
        return routes, 0
    size = settings.transfer_mib * MIB
    file = folder / "file.bin"
    if not section.route:
        piece = os.urandom(MIB)
        with file.open("wb") as new:  # content, not a hole, which is read out of one page again and again
            for _ in range(settings.transfer_mib):
                new.write(piece)
    return [*routes, str(file)], size


def _roomy_folder() -> str | None:
    """Return memory rather than a disk, where there is room: it is the client that is measured."""
    memory = "/dev/shm"
    try:
        stat = os.statvfs(memory)
    except OSError:
        return None
    return memory if stat.f_bavail * stat.f_frsize > 1024 * MIB else None


def _named(name: str, error: Failed | NotThere) -> Missing:
    return Missing(contender=name, why=str(error), kind="failed" if isinstance(error, Failed) else "missing")
