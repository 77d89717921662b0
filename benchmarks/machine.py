"""The machine under the figures: what it is, and which core does what."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def cores() -> tuple[int | None, int | None]:
    """Return the cores for client and server; None where there are not two, or no way to choose."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[-1], allowed[0]) if len(allowed) > 1 else (None, None)


def pin(core: int | None, process: int = 0) -> None:
    """Keep a process (0: this one) on `core`, where one was chosen."""
    if core is not None:
        os.sched_setaffinity(process, {core})


def allow_many_files() -> int:
    """Raise the limit of open files as far as it goes: 1,000 connections need 1,000 of them."""
    try:
        import resource
    except ImportError:
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return soft
    return hard


def describe() -> dict[str, Any]:
    """Return what a reader needs to know to compare these figures with others."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": platform.python_compiler(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
