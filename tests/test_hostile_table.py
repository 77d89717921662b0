"""Every row of the list of hostile inputs has its tests, and the page in docs/ says which."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import agentrun_proto
import hostile_table

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "hostile.md"
pytestmark = pytest.mark.once  # it collects all tests

ROWS = {row["id"]: {("test_a.py", "test_b")} for row in hostile_table.rows()}


@pytest.mark.once
def test_every_row_has_its_tests_and_the_page_says_which():
    """In a process of its own: the tests are collected anew, all of them."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "hostile_table.py")],
        env={**os.environ, "PYTHONPATH": str(Path(agentrun_proto.__file__).parent.parent), "PYTHONUTF8": "1"},
        cwd=TESTS.parent,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == PAGE.read_text(encoding="utf-8"), (
        "run: python tests/hostile_table.py > docs/hostile.md"
    )


def test_a_row_is_written_in_full():
    for row in hostile_table.rows():
        assert set(row) == {"id", "input", "must", "ours"}
        assert all(row.values())


def test_a_row_without_a_test_is_told():
    assert hostile_table.complaints(ROWS) == []
    tests = {row: places for row, places in ROWS.items() if row != "many-fork"}
    assert hostile_table.complaints(tests) == ["no test names many-fork"]


def test_a_marker_that_names_no_row_is_told():
    tests = {**ROWS, "many-forks": {("test_a.py", "test_b")}}
    (complaint,) = hostile_table.complaints(tests)
    assert complaint.startswith("many-forks is no row")


def test_markers_are_found_wherever_they_stand(tmp_path, monkeypatch):
    (tmp_path / "test_here.py").write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.hostile('module')\n"
        "@pytest.mark.hostile('one', 'two')\n"
        "def test_it(): pass\n"
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.hostile('three')), 2])\n"
        "def test_table(x): pass\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import hostile_table, json, pathlib, sys; hostile_table.TESTS = pathlib.Path(sys.argv[1]);"
            "found = hostile_table.collect(sys.argv[1]);"
            "print(json.dumps({row: sorted(name for _, name in found[row]) for row in found}))",
            str(tmp_path),
        ],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "module": ["test_it", "test_table"],
        "one": ["test_it"],
        "three": ["test_table"],
        "two": ["test_it"],
    }
