"""Many seeds at once: ``python -m tests.simulation --seeds 10000``, spread over the drivers and the
processors.

A failure ends it, with the seed and the shortest script that repeats it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from agentrun_transports.testing import SimulationFailure, SimulationReport, simulate

from .workload import DRIVERS, program_in

_CHUNK = 100  # seeds that a process takes at once
_MEMORY = Path("/dev/shm")  # for what is saved: a disk takes milliseconds for each file that is to last


def run(first: int, last: int, folder: str) -> SimulationReport | str:
    """The seeds from first to before last, each on the driver that is its turn; a str tells of a failure."""
    total = SimulationReport()
    try:
        for seed in range(first, last):
            driver = DRIVERS[seed % len(DRIVERS)]
            total += simulate(program_in(Path(folder)), seeds=[seed], driver=driver)
    except SimulationFailure as failure:
        return str(failure)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (%(default)s)")
    options = parser.parse_args()
    began, end = time.monotonic(), options.first + options.seeds
    starts = range(options.first, end, _CHUNK)
    place = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder, ProcessPoolExecutor(os.cpu_count()) as processes:
        ends = [min(start + _CHUNK, end) for start in starts]
        total = SimulationReport()
        for report in processes.map(run, starts, ends, [folder] * len(starts)):
            if isinstance(report, str):
                print(report, file=sys.stderr)
                processes.shutdown(cancel_futures=True)
                return 1
            total += report
    print(f"{total}\nin {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
