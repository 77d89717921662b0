"""The pytest plugin: its fixtures, in runs of pytest of their own, and what it costs who does not use it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import agentrun_proto

pytestmark = pytest.mark.once

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent.parent
SOURCES = Path(agentrun_proto.__file__).parent.parent


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs tests with the plugin, where warnings are errors and the environment is somebody's."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("AGENTRUN_ACCOUNT_ID", "somebody")
    monkeypatch.setenv("ALIBABA_CLOUD_SECURITY_TOKEN", "somebodys")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(text, *options):
        pytester.makepyfile(text)
        plugin = () if "-p" in options else ("-p", "agentrun_pytest")
        return pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", *plugin, *options)

    return run


def test_the_emulator_is_found_by_every_client_and_gone_after_the_test(run):
    result = run(
        """
        import os, asyncio, socket
        import pytest
        from agentrun_proto import Config
        from agentrun_transports import AsyncioClient, BlockingClient, DataAPI, ResourceType

        ports = []

        def test_it(agentrun_emulator):
            ports.append(agentrun_emulator.port)
            assert "ALIBABA_CLOUD_SECURITY_TOKEN" not in os.environ
            DataAPI("agent", ResourceType.Runtime).post("resources", {"name": "first"})
            assert BlockingClient.from_env(os.environ).get("resources")["data"]["total"] == 1

            async def main():
                async with AsyncioClient(Config.from_env(agentrun_emulator.environment)) as client:
                    return await client.get("resources")

            assert asyncio.run(main())["data"]["total"] == 1
            assert agentrun_emulator.requests.count == 3

        def test_each_has_its_own(agentrun_emulator):
            assert DataAPI("agent", ResourceType.Runtime).get("resources")["data"]["total"] == 0

        def test_nothing_is_left():
            assert os.environ["AGENTRUN_ACCOUNT_ID"] == "somebody"
            assert os.environ["ALIBABA_CLOUD_SECURITY_TOKEN"] == "somebodys"
            assert "AGENTRUN_DATA_ENDPOINT" not in os.environ
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", ports[0])).close()
        """,
        "-p",
        "no:randomly",
        "-p",
        "agentrun_pytest",
    )
    result.assert_outcomes(passed=3)


def test_canned_answers_must_be_asked_for(run):
    result = run(
        """
        from agentrun_proto import Config, ConnectError
        from agentrun_transports import BlockingClient
        from agentrun_transports.testing import Reply

        def test_all_of_them(agentrun_canned):
            canned = agentrun_canned(ConnectError("refused"), Reply(json={"ok": 1}))
            assert BlockingClient(Config(account_id="1"), transport=canned).get("r") == {"ok": 1}

        def test_not_all_of_them(agentrun_canned):
            agentrun_canned()
            agentrun_canned(Reply(503))
        """
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["no request asked for Reply(status=503, *"])


def test_the_docs_tests_run(run, monkeypatch):
    monkeypatch.delenv("ALIBABA_CLOUD_SECURITY_TOKEN")
    text = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    told = text[text.index("## pytest") : text.index("## A transport of your own")]
    recorded = text[text.index("With pytest, this fixture") : text.index("## pytest")]
    blocks = [re.search(r"^```python\n(.*?)^```$", part, re.M | re.S)[1] for part in (recorded, told)]
    use = """
def test_it_is_recorded(recorded, agentrun_emulator):
    api = DataAPI("agent", ResourceType.Runtime, transport=recorded)
    assert api.get("resources")["data"]["total"] == 0
"""
    result = run("\n".join([*blocks, use]))
    result.assert_outcomes(passed=4)


def test_it_is_listed_with_what_it_is(run):
    result = run("def test_nothing(): pass", "--fixtures")
    result.stdout.fnmatch_lines(["agentrun_emulator -- *", "*The service on a port of this machine*"])


def test_it_can_be_kept_out(run):
    result = run("def test_it(agentrun_emulator): pass", "-p", "no:agentrun_pytest")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'agentrun_emulator' not found*"])


def test_the_entry_point():
    told = re.search(
        r"^\[project\.entry-points\.pytest11\]\n(\w+) = \"(\w+)\"$",
        (ROOT / "pyproject.toml").read_text(),
        re.M,
    )
    # One name for both: given by -p as well, it is the same plugin, and not registered twice.
    assert told[1] == told[2] == "agentrun_pytest"
    assert (SOURCES / f"{told[2]}.py").is_file()


@pytest.mark.skipif(
    not any(found.name == "agentrun_pytest" for found in entry_points(group="pytest11")),
    reason="installed before it had this entry point; the other tests load the plugin by name",
)
def test_it_is_there_once_it_is_installed(pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    pytester.makepyfile("def test_it(agentrun_emulator): assert agentrun_emulator.port")
    pytester.runpytest_subprocess("-W", "error", "-p", "agentrun_pytest").assert_outcomes(passed=1)


def test_it_costs_nothing_until_a_fixture_is_asked_for():
    code = (
        "import pytest, sys; before = set(sys.modules); import agentrun_pytest; "
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["agentrun_pytest"]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_pytest_is_imported_by_the_plugin_alone():
    users = [
        path.name
        for path in SOURCES.rglob("*.py")
        if any(name.partition(".")[0] in ("pytest", "_pytest") for name in imported(path))
    ]
    assert users == ["agentrun_pytest.py"]
