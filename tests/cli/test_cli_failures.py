"""How things end that cannot be done: exit codes, and a block on stderr that helps."""

import socket
import subprocess
import sys

import pytest

import agentrun_proto.recovery
from agentrun_proto import errors
from agentrun_transports._cli.failures import HINTS, describe, exit_code
from agentrun_transports.emulator import Fault

ONCE = ("--attempts", "1")


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
    ran = run("get", "resources", *ONCE)
    facts = told(ran)
    assert (ran.code, facts["status"]) == (1, str(status))
    assert hint in facts["hint"]


def test_when_to_come_back_is_told(emulator, run):
    emulator.service.faults.add(Fault(status=429, retry_after="7"))
    assert told(run("get", "resources", *ONCE))["retry after"] == "7 s"


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
        (["get", "x", "--attempts", "0"], "1 is never again, 0 never; not '0'"),
        (["get", "x", "--attempts", "-1"], "whole number"),
        (["get", "x", "--attempts", "2.5"], "whole number"),
        (["get", "x", "--attempts", "9" * 5000], "whole number"),
        (["get", "x", "--attempts", ""], "empty"),
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
    assert emulator.requests.count == 1
    ran = run("get", "resources", *ONCE)
    assert ran.code == 3
    assert "warning" not in told(ran)


def test_every_error_has_its_exit_code_and_its_hint():
    def below(kind):
        return {kind}.union(*(below(each) for each in kind.__subclasses__()))

    kinds = {kind for kind in below(errors.AgentRunClientError) if kind.__module__ == errors.__name__}
    for kind in kinds - {errors.AgentRunClientError, errors.StatusError}:
        error = kind("what happened", status_code=499 if issubclass(kind, errors.StatusError) else 0)
        misuse = kind in (errors.FileError, errors.CredentialError)
        wanted = 3 if issubclass(kind, errors.TransportError) else 2 if misuse else 1
        assert exit_code(error) == wanted
        assert dict(describe(error, "get").facts)["hint"]
    assert [exit_code(error) for error in (ValueError(), TypeError(), OSError())] == [2, 2, 2]


def test_no_hint_hides_behind_one_of_its_base_classes():
    kinds = [kind for kind, _ in HINTS]
    for position, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:position])


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(agentrun_proto.recovery, "pause", lambda *args: 0.0)


def test_three_attempts_unless_told_and_one_when_it_is_enough(emulator, run, no_pauses):
    for argv, faults, code, sent in [
        ([], 2, 0, 3),
        ([], 3, 1, 3),
        (["--attempts", "4"], 3, 0, 4),
        (["--attempts", "1"], 1, 1, 1),
    ]:
        emulator.service.faults.clear()
        emulator.service.faults.add(Fault(status=503), count=faults)
        before = emulator.requests.count
        assert (run("get", "resources", *argv).code, emulator.requests.count - before) == (code, sent)


def test_attempts_that_failed_alike_are_counted(emulator, run, no_pauses):
    emulator.service.faults.add(Fault(status=503), count=None)
    facts = told(run("get", "resources"))
    assert list(facts) == ["error", "status", "code", "request id", "attempts", "hint"]
    assert facts["attempts"] == "3, which all failed like this"
    assert "--attempts" in facts["hint"]


def test_attempts_that_failed_differently_are_told_each(emulator, run, no_pauses):
    emulator.service.faults.add(Fault(drop=True))
    emulator.service.faults.add(Fault(status=500))
    facts = told(run("get", "resources", "--attempts", "2"))
    first, last = facts["attempts"].split("; ")
    assert first.startswith("2: 1. the connection ")
    assert last == "2. This fault was asked for. (HTTP 500, code ERR_INTERNAL_SERVER_ERROR)"


def test_one_attempt_is_not_counted(emulator, run):
    emulator.service.faults.add(Fault(status=404))
    assert "attempts" not in told(run("get", "resources"))


def test_a_server_that_failed_a_post_may_have_done_it(emulator, run):
    emulator.service.faults.add(Fault(status=500))
    assert "may have acted" in told(run("post", "resources", "--data", "{}"))["warning"]
    emulator.service.faults.add(Fault(status=503))
    assert "warning" not in told(run("post", "resources", "--data", "{}", *ONCE))


def test_a_redirect_is_followed_for_get_alone(emulator, run):
    elsewhere = Fault(status=307, location="/2025-09-10/agents/elsewhere")
    emulator.service.faults.add(elsewhere)
    assert run("get", "resources").code == 0
    assert emulator.requests.last[-1].target == elsewhere.location
    emulator.service.faults.add(Fault(status=302, location="/elsewhere"))
    ran = run("post", "resources", "--data", "{}")
    facts = told(ran)
    assert (ran.code, facts["status"], facts["location"]) == (1, "302", "/elsewhere")
    assert "not followed" in facts["error"]
    assert "--endpoint" in facts["hint"]


def test_a_redirect_is_told_with_where_it_leads():
    error = errors.RedirectError(
        "moved", status_code=302, response_headers={"location": "https://elsewhere/"}
    )
    assert dict(describe(error, "get").facts)["location"] == "https://elsewhere/"


def test_a_refused_connection_ends_a_real_process_with_3(child_environment):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else gets it meanwhile
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        module = [sys.executable, "-m", "agentrun_transports"]
        argv = [*module, "get", "resources", "--endpoint", endpoint, *ONCE]
        ran = subprocess.run(argv, capture_output=True, text=True, env=child_environment, timeout=60)
    assert (ran.returncode, ran.stdout) == (3, "")
    facts = block(ran.stderr)
    assert endpoint in facts["error"]
    assert "Traceback" not in ran.stderr
