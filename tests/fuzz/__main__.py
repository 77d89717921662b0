"""``python -m tests.fuzz [target ...] [--seconds N] [--seed N]``: fuzzes, and prints what broke.

Each target runs in a process of its own, as many at a time as there are processors: with atheris where it is
installed, which is guided by coverage, else by plain mutation. Exits with 1 where an invariant does not hold.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from . import NAMES

TESTS = Path(__file__).parent.parent
ENGINE = "atheris" if importlib.util.find_spec("atheris") else "mutation"
PROGRESS = ("#", "INFO:", "0x")  # lines of libFuzzer's that say how it gets on
SHOWN = 4000  # characters at the end of what a target says when it fails


def fuzz(seed: int, seconds: float, name: str) -> tuple[bool, str]:
    """Whether the target's invariant has held, and what to say of it."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fuzz.one", ENGINE, name, str(seed), str(seconds), folder]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env={**os.environ, "PYTHONPATH": path}
        )
        crashes = [path.read_bytes() for path in sorted(Path(folder).glob("crash-*"))]
    told = re.search(r"number_of_executed_units: *(\d+)", done.stderr)
    count = f"{int(told[1]):,}" if told else "an unknown number of"
    said = f"{name}: {count} executions in {seconds:g} s ({ENGINE}, seed {seed})"
    if not done.returncode and not crashes:
        return True, said
    lines = (done.stdout + done.stderr).splitlines()
    output = "\n".join([line for line in lines if not line.startswith(PROGRESS)])[-SHOWN:]
    inputs = "".join(f"\n{name}: broken by {data!r}" for data in crashes)
    return False, f"{output}\n{said}; it FAILED with exit code {done.returncode}{inputs}"


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="to draw the same inputs again")
    asked = parser.parse_args()
    unknown = set(asked.targets) - set(NAMES)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    seed = random.randrange(1, 2**31) if asked.seed is None else asked.seed
    held = True
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for good, said in pool.map(partial(fuzz, seed, asked.seconds), asked.targets or NAMES):
            print(said, flush=True)
            held = held and good
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
