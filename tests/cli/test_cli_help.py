"""The help teaches: every command is in it, every example works as it is written."""

import importlib
import shlex
import subprocess
import sys

import pytest

from agentrun_proto import __version__
from agentrun_transports import cli
from agentrun_transports._cli.arguments import COMMANDS, build_parser
from agentrun_transports._cli.settings import SETTINGS

NAMES = [command.name for command in COMMANDS]
EXAMPLES = [(command.name, line) for command in COMMANDS for line in command.examples.splitlines()]


def test_the_commands():
    assert " ".join(NAMES) == (
        "get post put patch delete upload download stream chat sign config emulator demo"
    )


def test_the_overview(run):
    ran = run("--help")
    assert (ran.code, ran.err) == (0, "")
    for command in COMMANDS:
        assert f"\n    {command.name} " in ran.out
        assert command.summary in " ".join(ran.out.split())
    for code in ("  0  ", "  1  ", "  2  ", "  3  ", "130"):
        assert f"\n  {code.strip()}" in ran.out
    assert "AGENTRUN_ACCESS_KEY_ID" in ran.out


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_the_help_of_each_command(run, command):
    ran = run(command.name, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: agentrun-data {command.name}")
    for line in command.examples.splitlines():
        assert f"\n  {line}\n" in ran.out
    if command.name not in ("emulator", "demo"):
        for setting in SETTINGS:
            assert setting.flag is None or setting.flag in ran.out


def test_the_version(run):
    ran = run("--version")
    assert (ran.code, ran.out) == (0, f"agentrun-data {__version__}\n")


def test_no_command_shows_the_help_and_is_misuse(run):
    ran = run()
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == build_parser().format_help()


@pytest.fixture
def prepared(emulator, run, tmp_path, monkeypatch):
    """All that the examples speak of."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.csv").write_text("a,b\n")
    (tmp_path / "main.py").write_text("print(1)\n")
    (tmp_path / "resource.json").write_text('{"name": "from a file"}')
    sandbox = '{"templateName": "python", "sandboxId": "sb-1"}'
    for argv in (
        ["post", "resources", "--data", '{"id": "r-1"}'],
        ["post", "/", "--namespace", "sandboxes", "--data", sandbox],
        ["upload", "report.csv", "files", "--target", "/data/report.csv"],
    ):
        assert run(*argv).code == 0


@pytest.mark.parametrize(("name", "line"), [pair for pair in EXAMPLES if pair[0] not in ("emulator", "demo")])
def test_every_example_works(prepared, run, monkeypatch, name, line):
    parts = [[]]
    for word in shlex.split(line):
        if word == "|":
            parts.append([])
        else:
            parts[-1].append(word)
    stdin = parts.pop(0)[1].encode() if parts[0][0] == "echo" else b""
    program, *argv = parts[0]
    if any(word.startswith("https://123-ram.") for word in argv):
        monkeypatch.delenv("AGENTRUN_DATA_ENDPOINT")
        monkeypatch.setenv("AGENTRUN_ACCOUNT_ID", "123")
    ran = run(*argv, stdin=stdin)
    assert (program, argv[0], ran.code, ran.err) == ("agentrun-data", name, 0, "")
    assert ran.out


def test_the_examples_of_what_runs_on_parse():
    for name, line in EXAMPLES:
        if name in ("emulator", "demo"):
            assert build_parser().parse_args(shlex.split(line)[1:]).command == name


def test_whoever_walks_through_the_modules_runs_no_command():
    assert importlib.import_module("agentrun_transports.__main__").main is cli.main


def test_python_m_is_the_same_program(child_environment):
    argv = [sys.executable, "-m", "agentrun_transports", "--version"]
    ran = subprocess.run(argv, capture_output=True, text=True, env=child_environment, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"agentrun-data {__version__}\n", "")
