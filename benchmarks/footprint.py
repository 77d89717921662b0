"""What a library costs before the first call: its import, in fresh interpreters, and what it brings along.

Each import is timed inside a new interpreter, so the interpreter's own start is not in the figure.
Dependencies are the installed distributions that the library's own requirements reach, extras left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.results import Missing, Row, SectionResult
from benchmarks.runner import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.runner import Settings

NAME = "footprint"

IMPORT = """
import json, os, resource, sys, time
core = {core}
if core is not None: os.sched_setaffinity(0, {{core}})
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
modules, memory, wall, cpu = len(sys.modules), peak(), time.perf_counter(), time.process_time()
import {modules}
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
print(json.dumps({{"cpu": cpu, "wall": wall, "memory_growth": peak() - memory,
                   "modules": len(sys.modules) - modules}}), file=sys.__stdout__)
"""

CLOSURE = """
import json, os, re, sys
from importlib import metadata
from pathlib import Path
wanted, found, size = [sys.argv[1]], set(), 0
while wanted:
    name = re.sub("[-_.]+", "-", wanted.pop()).lower()
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        continue
    if name in found:
        continue
    found.add(name)
    for file in distribution.files or ():
        path = file.locate()
        if "__pycache__" not in file.parts and path.is_file():
            size += path.stat().st_size
        if path.suffix == ".pth":  # an editable install names the folders of its sources here
            for folder in filter(os.path.isdir, set(path.read_text().splitlines())):
                sources = (source for source in Path(folder).rglob("*") if "__pycache__" not in source.parts)
                size += sum(source.stat().st_size for source in sources if source.is_file())
    for line in distribution.requires or ():
        if "extra ==" not in line:
            wanted.append(re.match(r"[A-Za-z0-9._-]+", line)[0])
version = metadata.version(sys.argv[1]) if found else ""
print(json.dumps({"version": version, "distributions": len(found), "installed": size}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """What is imported; `distribution` is where it comes from, None for the standard library."""

    contender: str
    modules: str
    distribution: str | None = None


LIBRARIES = (
    Library(contender="agentrun-proto", modules="agentrun_proto", distribution="agentrun-proto"),
    Library(
        contender="agentrun-proto transports", modules="agentrun_transports", distribution="agentrun-proto"
    ),
    Library(contender="agentrun-sdk", modules="agentrun.utils.data_api", distribution="agentrun-sdk"),
    Library(contender="json, hashlib, hmac, urllib.parse", modules="json, hashlib, hmac, urllib.parse"),
    Library(contender="socket, ssl", modules="socket, ssl"),
    Library(contender="http.client", modules="http.client"),
    Library(contender="asyncio", modules="asyncio"),
    *(
        Library(contender=name, modules=name, distribution=name)
        for name in (
            "trio",
            "urllib3",
            "requests",
            "niquests",
            "httpcore",
            "httpx",
            "aiohttp",
            "pyreqwest",
            "pycurl",
        )
    ),
)


def measure(settings: Settings, say: Callable[[str], None]) -> SectionResult:
    """Import every library in turn, round by round."""
    rows: dict[str, Row] = {}
    missing: list[Missing] = []
    brought: dict[str, dict[str, Any]] = {}
    chosen = [library for library in LIBRARIES if not settings.only or library.contender in settings.only]
    for number in range(settings.rounds + 1):  # the first fills the file system's cache and __pycache__
        for library in chosen:
            name = library.contender
            if number and name not in rows:
                continue
            say(f"{NAME}: round {number}, {name}")
            interpreter = settings.interpreters.get(name, sys.executable)
            played = _python(interpreter, IMPORT.format(modules=library.modules, core=settings.client_core))
            if isinstance(played, str):
                missing.append(
                    Missing(
                        contender=name,
                        why=played,
                        kind="missing" if "ModuleNotFoundError" in played else "failed",
                    )
                )
            elif number == 0:
                brought[name] = {"version": ""}
                if library.distribution:
                    closure = _python(interpreter, CLOSURE, library.distribution)
                    assert isinstance(closure, dict), closure
                    brought[name] = closure
                version = str(brought[name].pop("version"))
                rows[name] = Row(contender=name, version=version, calls=1, planned_rounds=settings.rounds)
            else:
                rows[name].rounds.append({**played, **brought[name]})
    return SectionResult(
        name=NAME,
        title="Start-up: an import in a fresh interpreter, and what is installed for it",
        unit="ms",
        extras=("modules", "distributions", "installed"),
        rows=list(rows.values()),
        missing=missing,
    )


def _python(interpreter: str, code: str, *arguments: str) -> dict[str, Any] | str:
    """Run `code` and return what it printed, or its last word if it failed."""
    done = subprocess.run(
        [interpreter, "-c", code, *arguments], capture_output=True, text=True, env=environment()
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed
