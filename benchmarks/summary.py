"""The bars over several runs, as Markdown: `python -m benchmarks.summary results.json...`.

A bar is met if every run that measured it says so. What was measured is given from the least of the runs
to the most. benchmarks/RESULTS.md is made from this.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bars import BARS
from benchmarks.results import SectionResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bars import Bar


def table(documents: list[dict[str, Any]]) -> str:
    """Return what was run, and a row for each bar."""
    lines = [
        f"- {run['started']}: {run['rounds']} rounds{', quick' if run['quick'] else ''}; "
        f"{run['machine']['python']} on {run['machine']['processor']}; {run['server']}"
        f"{'; under TLS: ' + run['tls_server'] if run['tls_server'] else ''}"
        for run in documents
    ]
    lines += ["", "| what | bar | measured | met |", "|---|---|---|---|"]
    runs = [{each["name"]: SectionResult.from_json(each) for each in run["sections"]} for run in documents]
    for bar in BARS:
        measured = [found for run in runs if (found := bar.measure(run)) is not None]
        lines.append(f"| {bar.what} | {bar.at_most:.3g} | {_range(measured)} | {_verdict(bar, measured)} |")
    return "\n".join(lines)


def _range(measured: Sequence[float]) -> str:
    ends = [f"{end:.3g}" for end in (min(measured), max(measured))] if measured else []
    return "..".join(dict.fromkeys(ends))


def _verdict(bar: Bar, measured: Sequence[float]) -> str:
    met = sum(figure <= bar.at_most for figure in measured)
    if not measured:
        return "not measured"
    if 0 < met < len(measured):
        return f"in {met} of {len(measured)} runs"
    return "yes" if met else "no"


def main() -> int:
    """Read the JSON of the runs, print the table."""
    if len(sys.argv) < 2:
        print("usage: python -m benchmarks.summary results.json...", file=sys.stderr)
        return 2
    print(table([json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
