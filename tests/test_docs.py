"""Every snippet of every page in docs/ runs: Python blocks in the order of the text, sessions as doctests."""

import doctest
import re
from pathlib import Path

import pytest

from agentrun_transports.emulator import Emulator

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))
# What a page's Python blocks print, where they do.
PRINTED = {
    "embedding.md": "generator\nfirst\n0 1\n"
    "pool_timeout: the driver runs one operation at a time\n"
    "cancelled: the driver's operations cannot be cancelled\n"
    "cancelled_download: the driver's operations cannot be cancelled\n"
    "side_by_side: the driver runs one operation at a time\n"
    "refreshed_once: the driver runs one operation at a time\n"
    "passed: True\n",
}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with Emulator() as emulator:
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
        scope: dict[str, object] = {"__name__": page.stem}
        for code in blocks(page, "python"):
            exec(compile(code, page.name, "exec"), scope)
    if page.name in PRINTED:
        assert capsys.readouterr().out == PRINTED[page.name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sessions_are_right(page):
    scope: dict[str, object] = {}
    runner = doctest.DocTestRunner()
    for number, session in enumerate(blocks(page, "pycon")):
        test = doctest.DocTestParser().get_doctest(session, scope, f"{page.name}[{number}]", str(page), 0)
        test.globs = scope  # one session after another, as in one REPL
        assert runner.run(test, clear_globs=False).failed == 0


def test_there_is_something_to_run():
    assert len(blocks(DOCS / "embedding.md", "python")) >= 4
    assert len(blocks(DOCS / "sans-io.md", "pycon")) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (DOCS / target).exists(), target
