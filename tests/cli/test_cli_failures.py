"""How things end that cannot be done: exit codes, and a block on stderr that helps."""

import socket
import subprocess
import sys

import pytest

from agentrun_proto import errors
from agentrun_transports._cli.failures import HINTS, describe, exit_code
from agentrun_transports.emulator import Fault


def block(text):
    """The block's lines by name, the message under `error`."""
    first, *lines = text.splitlines()
    assert first.startswith("error: ")
    assert all(line.startswith("  ") for line in lines)
    return {"error": first[7:], **dict(line.strip().split("  ", 1) for line in lines)}


def told(ran):
    assert ran.out == ""
    return {name: value.strip() for name, value in block(ran.err).items()}


def test_a_refusal_tells_all_that_support_asks_for(emulator, run):
    ran = run("get", "resources/missing")
    assert ran.code == 1
    facts = told(ran)
    assert list(facts) == ["error", "status", "code", "request id", "hint"]
    assert (facts["status"], facts["code"]) == ("404", "ResourceNotFound")
    assert "'missing'" in facts["error"]
    assert len(facts["request id"]) == 36
    assert "--namespace" in facts["hint"]


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (400, "correct"),
        (401, "credential"),
        (403, "secret"),
        (405, "method"),
        (413, "upload"),
        (418, "correct"),
        (429, "later"),
        (500, "request id"),
        (502, "request id"),
        (503, "later"),
    ],
)
def test_refusals_by_status(emulator, run, status, hint):
    emulator.service.faults.add(Fault(status=status))
    ran = run("get", "resources")
    facts = told(ran)
    assert (ran.code, facts["status"]) == (1, str(status))
    assert hint in facts["hint"]


def test_when_to_come_back_is_told(emulator, run):
    emulator.service.faults.add(Fault(status=429, retry_after="7"))
    assert told(run("get", "resources"))["retry after"] == "7 s"


def test_an_anonymous_request_is_told_about_credentials(emulator, run, monkeypatch):
    monkeypatch.delenv("AGENTRUN_ACCESS_KEY_ID")
    monkeypatch.delenv("AGENTRUN_ACCESS_KEY_SECRET")
    ran = run("get", "resources")
    assert ran.code == 1
    assert "agentrun-data config" in told(ran)["hint"]


def test_an_answer_that_is_no_json(emulator, run, tmp_path):
    (tmp_path / "f").write_bytes(b"no JSON")
    run("upload", str(tmp_path / "f"), "files")
    ran = run("get", "files?path=f")
    assert ran.code == 1
    assert "download" in told(ran)["hint"]


def test_json_where_a_file_was_asked_for(emulator, run, tmp_path):
    ran = run("download", "resources", str(tmp_path / "f"))
    assert (ran.code, told(ran)["status"]) == (1, "200")


@pytest.mark.parametrize(
    "argv",
    [
        ["get", "../x"],
        ["get", "a#b"],
        ["get", "http://elsewhere/x"],
        ["get", "x", "--header", "Host: y"],
        ["get", "x", "--header", "Agentrun-Authorization: y"],
        ["post", "x", "--data", "{"],
        ["post", "x", "--data", "NaN"],
        ["post", "x", "--data", "[" * 100_000],
        ["post", "x", "--data", "@no-such-file"],
        ["post", "x", "--data", "@."],
        ["upload", "no-such-file", "files"],
        ["upload", ".", "files"],
        ["download", "files", "no-such-folder/f"],
        ["download", "files", "."],
    ],
)
def test_misuse_shows_before_anything_is_sent(emulator, run, tmp_path, monkeypatch, argv):
    monkeypatch.chdir(tmp_path)
    ran = run(*argv)
    assert ran.code == 2
    assert told(ran)["error"]
    assert emulator.connections == 0


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ([], "usage:"),
        (["nonsense"], "invalid choice"),
        (["get"], "required: PATH"),
        (["get", "x", "--nonsense"], "--nonsense"),
        (["get", "x", "--query", "limit"], "name=value"),
        (["get", "x", "--query", "=1"], "name=value"),
        (["get", "x", "--header", "no colon"], "'Name: value'"),
        (["get", "x", "--header", "A: b\nc: d"], "control character"),
        (["get", "x", "--header", "a b: c"], "header name"),
        (["get", "x", "--timeout", "soon"], "--timeout"),
        (["get", "x", "--timeout", "0"], "above 0"),
        (["get", "x", "--timeout", "nan"], "above 0"),
        (["get", "x", "--endpoint", "127.0.0.1"], "http(s)://"),
        (["get", "x", "--region", ""], "empty"),
        (["get", "x", "--region", "a/b"], "host name"),
        (["get", "x", "--data", "{}"], "--data"),
        (["emulator", "--port", "x"], "0 to 65535"),
        (["emulator", "--port", "65536"], "0 to 65535"),
    ],
)
def test_bad_flags(run, argv, why):
    ran = run(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err
    assert ran.err.startswith("usage: agentrun-data ")


def test_without_an_account_the_way_on_is_shown(run):
    ran = run("get", "resources")
    assert ran.code == 2
    assert all(
        way in told(ran)["error"] for way in ("AGENTRUN_ACCOUNT_ID", "--account-id", "--endpoint", "demo")
    )


def test_half_an_access_key_and_a_bad_variable(run, monkeypatch):
    monkeypatch.setenv("AGENTRUN_ACCOUNT_ID", "123")
    monkeypatch.setenv("AGENTRUN_ACCESS_KEY_ID", "id")
    assert run("get", "resources").code == 2
    monkeypatch.setenv("AGENTRUN_ACCESS_KEY_SECRET", "with space\n")
    ran = run("get", "resources")
    assert ran.code == 2
    assert "AGENTRUN_ACCESS_KEY_SECRET" in ran.err
    assert "with space" not in ran.err


def test_a_broken_answer_warns_where_repeating_does_harm(emulator, run):
    emulator.service.faults.add(Fault(drop=True), count=None)
    ran = run("post", "resources", "--data", "{}")
    assert ran.code == 3
    assert "may have acted" in told(ran)["warning"]
    ran = run("get", "resources")
    assert ran.code == 3
    assert "warning" not in told(ran)


def test_every_error_has_its_exit_code_and_its_hint():
    def below(kind):
        return {kind}.union(*(below(each) for each in kind.__subclasses__()))

    kinds = {kind for kind in below(errors.AgentRunClientError) if kind.__module__ == errors.__name__}
    for kind in kinds - {errors.AgentRunClientError, errors.StatusError}:
        error = kind("what happened", status_code=499 if issubclass(kind, errors.StatusError) else 0)
        wanted = 3 if issubclass(kind, errors.TransportError) else 2 if kind is errors.FileError else 1
        assert exit_code(error) == wanted
        assert dict(describe(error, "get").facts)["hint"]
    assert [exit_code(error) for error in (ValueError(), TypeError(), OSError())] == [2, 2, 2]


def test_no_hint_hides_behind_one_of_its_base_classes():
    kinds = [kind for kind, _ in HINTS]
    for position, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:position])


def test_a_redirect_is_told_with_where_it_leads():
    error = errors.RedirectError(
        "moved", status_code=302, response_headers={"location": "https://elsewhere/"}
    )
    assert dict(describe(error, "get").facts)["location"] == "https://elsewhere/"


def unused_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_a_refused_connection_ends_a_real_process_with_3(child_environment):
    endpoint = f"http://127.0.0.1:{unused_port()}"
    argv = [sys.executable, "-m", "agentrun_transports", "get", "resources", "--endpoint", endpoint]
    ran = subprocess.run(argv, capture_output=True, text=True, env=child_environment, timeout=60)
    assert (ran.returncode, ran.stdout) == (3, "")
    facts = block(ran.stderr)
    assert endpoint in facts["error"]
    assert "Traceback" not in ran.stderr
