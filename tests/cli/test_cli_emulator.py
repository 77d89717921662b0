"""emulator: a real process that says where it is, answers, keeps what it is told to keep, and ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from agentrun_transports._cli import emulate
from agentrun_transports.emulator import Emulator, server

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and shells")

COMMAND = [sys.executable, "-m", "agentrun_transports", "emulator"]


@contextlib.contextmanager
def started(*argv, env):
    """The process and all that it printed when it was ready."""
    with subprocess.Popen(
        [*COMMAND, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as child:
        try:
            printed = []
            for line in child.stdout:
                printed.append(line.rstrip("\n"))
                if line.startswith("Ctrl-C"):
                    break
            yield child, printed
        finally:
            child.kill()


def exports(printed):
    return dict(line.strip().removeprefix("export ").split("=", 1) for line in printed if "export " in line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_answers_and_ends(number, child_environment, tmp_path, run, monkeypatch):
    with started(env={**child_environment, "TMPDIR": str(tmp_path)}) as (child, printed):
        endpoint = printed[0].removeprefix("AgentRun emulator at ")
        assert exports(printed)["AGENTRUN_DATA_ENDPOINT"] == endpoint
        for name, value in exports(printed).items():
            monkeypatch.setenv(name, value)
        assert run("post", "resources", "--data", '{"name": "first"}').code == 0
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
        assert (child.returncode, out, err) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_a_shell_understands_what_it_prints(child_environment):
    with started(env=child_environment) as (child, printed):
        script = (
            "\n".join(line for line in printed if "export " in line) + '\nprintf %s "$AGENTRUN_DATA_ENDPOINT"'
        )
        said = subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, check=True, env=child_environment
        )
        assert said.stdout == printed[0].removeprefix("AgentRun emulator at ")
        child.terminate()
        assert child.wait(timeout=60) == 0


def test_a_folder_is_kept_over_restarts(child_environment, tmp_path, run, monkeypatch):
    found = []
    for path in ("resources", "resources"):
        with started("--folder", str(tmp_path / "kept"), env=child_environment) as (child, printed):
            assert printed[-1] == f"Ctrl-C ends it; all is kept in {tmp_path / 'kept'}."
            for name, value in exports(printed).items():
                monkeypatch.setenv(name, value)
            found.append(json.loads(run("get", path).out)["data"]["total"])
            run("post", path, "--data", "{}")
            child.terminate()
            assert child.wait(timeout=60) == 0
    assert found == [0, 1]


def test_a_port_that_is_taken(run):
    with Emulator() as emulator:
        ran = run("emulator", "--port", str(emulator.port))
    assert (ran.code, ran.out) == (2, "")
    assert f"port {emulator.port} is in use" in ran.err


def test_a_folder_that_is_a_file(run, tmp_path):
    (tmp_path / "file").touch()
    ran = run("emulator", "--folder", str(tmp_path / "file"))
    assert (ran.code, ran.out) == (2, "")
    assert str(tmp_path / "file") in ran.err


def test_an_interruption_before_it_waits_ends_it_as_well(run, monkeypatch):
    made = []

    def interrupted(value):
        signal.raise_signal(signal.SIGINT)

    class Noted(Emulator):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            made.append(self)

    monkeypatch.setattr(server, "Emulator", Noted)
    monkeypatch.setattr(emulate, "quote", interrupted)  # amid what it says when it is ready
    ran = run("emulator")
    assert (ran.code, ran.err) == (0, "")
    assert "Ctrl-C" not in ran.out
    assert made[0].closing.is_set()
    assert not made[0].folder.exists()


def test_handlers_are_put_back(run, monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(Emulator, "wait", lambda self: signal.raise_signal(signal.SIGTERM))
    assert run("emulator").code == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
