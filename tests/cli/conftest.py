"""What the command line's tests share: an environment of their own, an emulator, a way to run a command."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper

import pytest

from agentrun_proto.config import ENVIRONMENT
from agentrun_transports.cli import main
from agentrun_transports.emulator import Emulator

VARIABLES = {variable for variables in ENVIRONMENT.values() for variable in variables}
LOOKS = {"COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "PYTHONIOENCODING", "PYTHONUNBUFFERED", "TERM"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The caller's settings are gone; what a test needs it sets."""
    for name in VARIABLES | LOOKS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def emulator(monkeypatch):
    with Emulator() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@dataclass(frozen=True, kw_only=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs a command in this process; `stdin` is what it can read."""

    def run(*argv, stdin=b""):
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(stdin), encoding="utf-8"))
        code = main(argv)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Ran(code=code, out=out, err=err)

    return run


@pytest.fixture
def child_environment():
    """The environment of a child: as this one, and nothing of it said about settings or looks."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES | LOOKS}
