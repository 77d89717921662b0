"""Runs one target, in a process of its own: atheris never returns.

Rules of this file: nothing of ours is imported before atheris can instrument it.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from fuzz import first_inputs, load
from fuzz.mutation import LARGEST, Crash, run

INSTRUMENTED = ["agentrun_proto", "agentrun_transports", "h11"]


def by_atheris(name: str, seed: int, seconds: float, folder: Path) -> None:
    """Ends the process; what is left in the folder is what crashed."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        target = load(name)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(first_inputs(target)):
        (corpus / str(number)).write_bytes(data)
    options = {
        "seed": seed % 2**32 or 1,  # libFuzzer takes 0 for any
        "max_total_time": max(1, round(seconds)),
        "max_len": LARGEST,
        "timeout": 60,
        "print_final_stats": 1,
        "artifact_prefix": f"{folder}/crash-",
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([name, *arguments, str(corpus)], target.check)
    atheris.Fuzz()


def by_mutation(name: str, seed: int, seconds: float, folder: Path) -> None:
    """Leaves what crashed in the folder."""
    target = load(name)
    try:
        count = run(target.check, first_inputs(target), seed, seconds)
    except Crash as crash:
        traceback.print_exception(crash.__cause__)
        (folder / "crash-input").write_bytes(crash.data)
        sys.exit(1)
    # In the words of libFuzzer.
    print(f"stat::number_of_executed_units: {count}", file=sys.stderr)


if __name__ == "__main__":
    engine, name, seed, seconds, folder = sys.argv[1:]
    {"atheris": by_atheris, "mutation": by_mutation}[engine](name, int(seed), float(seconds), Path(folder))
