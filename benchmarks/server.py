"""Builds, starts and stops the loopback server, and says which one it is.

The C server is compiled once per version of its source into `.build/`. Where there is no compiler, or no
epoll, the Python server stands in; it takes more of the wall time, which is why it is named in the output.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import pin

if TYPE_CHECKING:
    from collections.abc import Generator

HERE = Path(__file__).parent
SOURCE = HERE / "server.c"
BUILD = HERE / ".build"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that listens on 127.0.0.1; `ca_file` is who signed its certificate ("": no TLS)."""

    port: int
    kind: str
    ca_file: str = ""


@contextmanager
def running(core: int | None) -> Generator[Server]:
    """Run the server on `core` for as long as the block lasts."""
    command, kind = _command()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE.parent)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pin(core, process.pid)
        yield Server(port=int(process.stdout.readline()), kind=kind)
    finally:
        process.stdin.close()  # its word to stop
        process.stdout.close()
        process.wait()


def _command() -> tuple[list[str], str]:
    try:
        return [str(build())], "C, epoll (benchmarks/server.c)"
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[0]
        return (
            [sys.executable, "-m", "benchmarks.fallback_server"],
            f"Python stand-in, slower than the C one (not built: {reason}); trust CPU time, not wall time",
        )


def build() -> Path:
    """Return the compiled server, made now if its source is new."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise FileNotFoundError("no C compiler found")
    program = BUILD / f"server-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        BUILD.mkdir(exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")  # two may build at once: the last rename wins
        command = [*shlex.split(compiler), "-O2", "-o", str(unfinished), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        unfinished.replace(program)
    return program
