"""The list of hostile inputs against the tests: `python tests/hostile_table.py > docs/hostile.md`.

The rows are data (tests/data/hostile.json). A test that asserts what a row asks for names it, in a marker on
the test, on a parameter of it or on its module: `@pytest.mark.hostile("answers-obs-fold")`. The page is made
of the two, by a collection of all tests; test_hostile_table.py holds it against the page that is committed.

Rules of this file: a row without a test, and a marker that names no row, are errors; what is written depends
on nothing but the tests' names, so that it is the same on every machine and Python.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
TABLE: dict[str, Any] = json.loads((TESTS / "data" / "hostile.json").read_text(encoding="utf-8"))
OPENING = """\
# Hostile inputs

What peers, callers, files and loops do that they should not, and what happens then. In every row: no hang
past the deadline, no foreign exception, no unbounded memory, and the next call on the same client gets its
own answer. Each row names the tests that assert it, below `tests/`.

This page is made of `tests/data/hostile.json` and of the tests' markers, by `python tests/hostile_table.py`;
a test fails where it is out of date, where a row has no test, and where a marker names no row.
"""


def rows() -> Iterator[dict[str, str]]:
    """Every row of every section: `id`, `input`, `must` (the list's own words) and `ours` (what we do)."""
    for section in TABLE["sections"]:
        yield from section["rows"]


class Collector:
    """A pytest plugin that notes which tests name which row."""

    def __init__(self) -> None:
        self.tests: dict[str, set[tuple[str, str]]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            place = item.path.relative_to(TESTS).as_posix(), getattr(item, "originalname", None) or item.name
            for marker in item.iter_markers("hostile"):
                for row in marker.args:
                    self.tests.setdefault(row, set()).add(place)


def collect(*paths: str) -> dict[str, set[tuple[str, str]]]:
    """Row id -> the tests that name it, each as file and function."""
    collector, told = Collector(), io.StringIO()
    with contextlib.redirect_stdout(told):
        status = pytest.main(
            ["--collect-only", "-q", "-n0", "-p", "no:cacheprovider", *(paths or (str(TESTS),))],
            plugins=[collector],
        )
    if status != pytest.ExitCode.OK:
        raise SystemExit(told.getvalue())
    return collector.tests


def complaints(tests: dict[str, set[tuple[str, str]]]) -> list[str]:
    """What is wrong between rows and markers, a sentence each."""
    known = [row["id"] for row in rows()]
    return [
        *(f"two rows are called {row}" for row in sorted({row for row in known if known.count(row) > 1})),
        *(f"no test names {row}" for row in known if row not in tests),
        *(f"{row} is no row, and {sorted(tests[row])} name it" for row in sorted(set(tests) - set(known))),
    ]


def page(tests: dict[str, set[tuple[str, str]]]) -> str:
    """The page, in Markdown."""
    lines = [OPENING]
    for section in TABLE["sections"]:
        lines += [f"## {section['title']}", "", "| input | what happens | tests |", "|---|---|---|"]
        for row in section["rows"]:
            by_file: dict[str, list[str]] = {}
            for file, name in sorted(tests[row["id"]]):
                by_file.setdefault(file, []).append(f"`{name}`")
            cited = "; ".join(f"{file}: {', '.join(names)}" for file, names in by_file.items())
            lines.append(
                "| "
                + " | ".join(text.replace("|", r"\|") for text in (row["input"], row["ours"], cited))
                + " |"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    found = collect()
    if wrong := complaints(found):
        raise SystemExit("\n".join(wrong))
    sys.stdout.write(page(found))
