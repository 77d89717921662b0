"""sign: the headers that it prints, and the curl command, are the request that would be sent."""

import shlex
import shutil
import subprocess

import pytest

from agentrun_proto import Body, Headers, Origin, Request
from agentrun_transports._cli.signed import curl_command

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def printed_headers(ran):
    assert (ran.code, ran.err) == (0, "")
    return dict(line.split(": ", 1) for line in ran.out.splitlines())


def test_the_headers_authorise_the_request(emulator, run):
    import http.client

    fields = printed_headers(
        run("sign", "get", "resources?page=1", "--query", "limit=5", "--header", "X-A: 1")
    )
    assert (fields["Host"], fields["X-A"]) == (f"127.0.0.1:{emulator.port}", "1")
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port)
    connection.request("GET", "/2025-09-10/agents/resources?page=1&limit=5", headers=fields)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 200


def test_nothing_is_sent(emulator, run):
    assert run("sign", "POST", "resources", "--data", "{}", "--curl").code == 0
    assert emulator.connections == 0


def test_a_url_of_the_endpoint_is_signed_as_it_stands(emulator, run):
    by_path = run("sign", "GET", "resources/r-1", "--query", "a=1", "--curl").out
    by_url = run(
        "sign", "GET", f"{emulator.endpoint}/2025-09-10/agents/resources/r-1", "--query", "a=1", "--curl"
    ).out
    assert shlex.split(by_path)[:5] == shlex.split(by_url)[:5]
    assert shlex.split(by_url)[4] == f"{emulator.endpoint}/2025-09-10/agents/resources/r-1?a=1"


def test_a_credential_is_not_for_another_origin(emulator, run):
    ran = run("sign", "GET", "https://elsewhere.example/resources")
    assert (ran.code, ran.out) == (2, "")
    assert "--endpoint" in ran.err


def test_nothing_to_sign_with(emulator, run, monkeypatch):
    monkeypatch.delenv("AGENTRUN_ACCESS_KEY_ID")
    monkeypatch.delenv("AGENTRUN_ACCESS_KEY_SECRET")
    ran = run("sign", "GET", "resources")
    assert (ran.code, ran.out) == (2, "")
    assert "AGENTRUN_ACCESS_KEY_ID" in ran.err


def test_the_secret_is_never_printed(emulator, run, monkeypatch):
    monkeypatch.setenv("AGENTRUN_ACCESS_KEY_SECRET", "marked-secret")
    for further in ([], ["--curl"]):
        ran = run("sign", "GET", "resources", *further)
        assert "Signature=" in ran.out
        assert "marked-secret" not in ran.out + ran.err


@needs_curl
@pytest.mark.parametrize(
    "argv",
    [
        ["GET", "resources?x=$HOME", "--query", "q='\"`\\ *"],
        ["POST", "resources", "--data", '{"name": "it\'s $HOME `x` \\\\ \\n", "a": "@"}'],
        ["POST", "resources"],
        ["PATCH", "resources/r-1", "--data", "@file", "--header", "Content-Type: text/plain"],
        ["PUT", "resources/r-1", "--data", "-", "--header", "X-Empty:", "--header", "X-A: it's"],
        ["DELETE", "resources/r-1"],
        ["HEAD", "resources"],
    ],
)
def test_curl_sends_exactly_this_request(emulator, run, tmp_path, monkeypatch, child_environment, argv):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("@not a file name\nand 'another' line\n")
    ran = run("sign", *argv, "--curl", stdin=b'{"from":"stdin"}')
    assert ran.code == 0
    shown = run("sign", *argv, stdin=b'{"from":"stdin"}')
    subprocess.run(["sh", "-c", ran.out], check=True, capture_output=True, env=child_environment, timeout=60)
    (sent,) = emulator.requests.last
    assert sent.method == argv[0]
    printed = (line.partition(":") for line in shown.out.splitlines())
    wanted = {name.lower(): value.strip() for name, _, value in printed}
    got = {name.lower(): value for name, value in sent.headers}
    assert (
        got.pop("agentrun-authorization").partition("Signature=")[0]
        == wanted.pop("agentrun-authorization").partition("Signature=")[0]
    )
    assert got.pop("x-acs-date")
    del wanted["x-acs-date"]
    assert got == wanted
    bodies = {"@file": (tmp_path / "file").read_bytes(), "-": b'{"from":"stdin"}'}
    data = argv[argv.index("--data") + 1] if "--data" in argv else ""
    assert sent.body == bodies.get(data, data.encode())


@needs_curl
def test_what_curl_sends_is_accepted(emulator, run, child_environment):
    command = run("sign", "POST", "resources", "--data", '{"name":"first"}', "--curl").out
    ran = subprocess.run(
        ["sh", "-c", command], capture_output=True, env=child_environment, text=True, timeout=60
    )
    assert ran.stdout.startswith('{"code":"SUCCESS"')


@pytest.mark.parametrize("content", [b"\xff", b"a\x00b", b"x" * 40_000])
def test_content_that_no_command_line_can_hold(content):
    request = Request(
        method="POST",
        origin=Origin("http", "h", 80),
        target="/",
        headers=Headers(),
        body=Body(segments=(content,), length=len(content)),
    )
    with pytest.raises(ValueError, match="--data-binary"):
        curl_command(request)


def test_the_curl_command_reads_well():
    request = Request(
        method="GET", origin=Origin("https", "h", 443), target="/a?b=c", headers=Headers({"X-A": "1"})
    )
    assert (
        curl_command(request) == "curl --compressed --request GET 'https://h/a?b=c' \\\n  --header 'X-A: 1'"
    )
