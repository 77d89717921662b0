"""stream, chat and download --resume: what has come is shown, and what breaks off is told."""

import contextlib
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from agentrun_transports._cli.screen import Screen
from agentrun_transports.cli import main
from agentrun_transports.emulator import Fault

MODULE = [sys.executable, "-m", "agentrun_transports"]
ONCE = ("--attempts", "1")
MODEL = ("--model", "m")
# Where the tests run in the background, SIGINT may be ignored, and children inherit that.
INTERRUPTIBLE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from agentrun_transports.cli import main; sys.exit(main(sys.argv[1:]))"
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n'


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@contextlib.contextmanager
def child(child_environment, content_type, *argv):
    """A command as a process, and a function that sends it a piece of the answer to its request."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-c", INTERRUPTIBLE, *argv, "--endpoint", endpoint, "--timeout", "60"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=child_environment
        ) as process:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(60)
                assert connection.recv(65536)
                connection.sendall(HEAD % content_type)
                yield process, lambda piece: connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))


def numbers(ran):
    return [json.loads(json.loads(line)["data"])["number"] for line in ran.out.splitlines()]


def test_content_comes_out_byte_for_byte(emulator, child_environment, tmp_path):
    content = os.urandom(100_000) + b"\r\n\xff"
    (tmp_path / "a").write_bytes(content)
    env = {**child_environment, **emulator.environment}
    subprocess.run([*MODULE, "upload", str(tmp_path / "a"), "files"], env=env, check=True, timeout=60)
    ran = subprocess.run([*MODULE, "stream", "files?path=a"], capture_output=True, env=env, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, content, b"")


def test_lines_come_out_as_they_are(emulator, run, tmp_path):
    (tmp_path / "a").write_bytes("a\tb\r\n\x1b[1m\né ☃".encode())
    run("upload", str(tmp_path / "a"), "files")
    ran = run("stream", "--lines", "files?path=a")
    assert (ran.code, ran.out, ran.err) == (0, "a\tb\n\x1b[1m\né ☃\n", "")


def test_an_event_is_json_on_a_line(emulator, run):
    ran = run("stream", "events", "--events", "--query", "count=2")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        '{"type":"message","id":"1","data":"{\\"number\\":1}"}\n'
        '{"type":"message","id":"2","data":"{\\"number\\":2}"}\n'
    )
    assert emulator.requests.last[-1].header("Accept") == "text/event-stream"
    run("stream", "events?count=0", "--events", "--header", "accept: x/y")
    assert emulator.requests.last[-1].header("Accept") == "x/y"


def test_events_are_taken_up_again(emulator, run):
    emulator.service.faults.add(Fault(after=2, then="cut"))
    ran = run("stream", "events?count=5&retry=0", "--events", "--resume")
    assert (ran.code, ran.err, numbers(ran)) == (0, "", [1, 2, 3, 4, 5])
    assert [request.header("Last-Event-ID") for request in emulator.requests.last] == [None, "2", "5"]


def test_events_that_break_off_are_shown_and_told(emulator, run):
    emulator.service.faults.add(Fault(after=2, then="cut"))
    ran = run("stream", "events?count=5", "--events")
    assert (ran.code, numbers(ran)) == (3, [1, 2])
    assert ran.err.startswith("error: ")


@pytest.mark.parametrize("how", [[], ["--events"], ["--lines"]])
def test_a_refusal_is_told_as_ever(emulator, run, how):
    ran = run("stream", "resources/missing", *how)
    assert (ran.code, ran.out) == (1, "")
    assert "\n  code        ResourceNotFound\n" in ran.err


def test_any_method_with_content(emulator, run):
    ran = run("stream", "post", "resources", "--data", "-", stdin=b'{"name": "first"}')
    assert (ran.code, json.loads(ran.out)["data"]["name"]) == (0, "first")
    last = emulator.requests.last[-1]
    assert (last.method, last.body) == ("POST", b'{"name": "first"}')


def test_lines_of_what_is_no_text_have_a_hint(emulator, run, tmp_path):
    (tmp_path / "a").write_bytes(b"\xff\n")
    run("upload", str(tmp_path / "a"), "files")
    ran = run("stream", "files?path=a", "--lines")
    assert ran.code == 1
    assert "Without --events and --lines" in ran.err


@pytest.mark.parametrize(
    "argv",
    [
        ["stream"],
        ["stream", "GET", "a", "b"],
        ["stream", "events", "--resume"],
        ["stream", "events", "--lines", "--resume"],
        ["stream", "events", "--lines", "--events"],
        ["stream", "POST", "events", "--events", "--resume"],
        ["stream", "G T", "events"],
        ["chat"],
        ["chat", "my-agent", "hello", "more"],
        ["chat", "my-agent", ""],
        ["chat", "my-agent"],
        ["chat", "my-agent", "hello", "--namespace", "x"],
        ["download", "files", "f", "--sha256", "abc"],
    ],
)
def test_misuse_shows_before_anything_is_sent(emulator, run, argv):
    ran = run(*argv)
    assert (ran.code, ran.out, emulator.connections) == (2, "", 0)
    assert "error: " in ran.err


def test_a_flag_may_stand_before_what_may_be_left_out(emulator, run):
    for argv in (
        ["chat", "my-agent", *MODEL, "hello"],
        ["chat", *MODEL, "my-agent", "hello"],
        ["chat", "my-agent", "hello", *MODEL],
    ):
        assert run(*argv).out == "hello\n"
    assert run("stream", "GET", "--lines", "lines?count=1").out == '{"number":1}\n'
    assert run("chat", "my-agent", *MODEL, "--", "-x").out == "-x\n"


@pytest.mark.parametrize("how", [[], ["--lines"]])
def test_a_stream_cannot_command_the_terminal(emulator, run, tmp_path, how):
    (tmp_path / "a").write_bytes(b"a\tb\x1b]0;owned\x07\xc2\x9b2J\xe2\x80\xae\x7f\n\xe2\x98\x83\n")
    run("upload", str(tmp_path / "a"), "files")
    out = Terminal()
    with contextlib.redirect_stdout(out):
        assert main(["stream", "files?path=a", *how]) == 0
    assert out.getvalue() == "a\tb\\x1b]0;owned\\x07\\x9b2J\\u202e\\x7f\n☃\n"


def test_characters_that_are_cut_are_joined_on_a_terminal():
    out = Terminal()
    Screen(out, None).content([b"\xe2", b"\x98", b"\x83\xff", b"\xe2\x98"])
    assert out.getvalue() == "☃\\xff\\xe2\\x98"


def test_an_event_is_one_line_on_a_terminal_too(emulator):
    out = Terminal()
    with contextlib.redirect_stdout(out):
        assert main(["stream", "events?count=2", "--events"]) == 0
    assert out.getvalue().count("\n") == 2


def test_text_that_the_stream_cannot_encode_and_no_stream():
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="")
    Screen(out, None).text("a\x1bé☃\ud800\n")
    assert out.buffer.getvalue() == b"a\x1b\\xe9\\u2603\\ud800\n"
    Screen(None, None).text("a")
    Screen(None, None).content([b"a"])


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
@pytest.mark.parametrize(
    ("argv", "content_type", "pieces", "shown"),
    [
        (["stream", "x"], b"text/plain", [b"fir", b"st\n"], [b"fir", b"st\n"]),
        (["stream", "x", "--lines"], b"text/plain", [b"a\nb", b"c\n"], [b"a\n", b"bc\n"]),
        (
            ["stream", "x", "--events"],
            b"text/event-stream",
            [b"data: 1\n\n", b"event: e\ndata: 2\n\n"],
            [b'{"type":"message","id":"","data":"1"}\n', b'{"type":"e","id":"","data":"2"}\n'],
        ),
        (["chat", "a", "hi"], b"text/event-stream", [TOKEN % b"Hel", TOKEN % b"lo"], [b"Hel", b"lo"]),
    ],
    ids=["bytes", "lines", "events", "chat"],
)
def test_what_has_come_is_shown_at_once_and_ctrl_c_ends_it(
    child_environment, argv, content_type, pieces, shown
):
    """A piece is sent only when the one before it has been read from stdout."""
    with child(child_environment, content_type, *argv) as (process, send):
        for piece, wanted in zip(pieces, shown, strict=True):
            send(piece)
            assert process.stdout.read(len(wanted)) == wanted
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), err) == (130, b"", b"")


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
@pytest.mark.parametrize(
    "argv",
    [
        ["stream", "events"],
        ["stream", "events?count=1000000", "--events"],
        ["stream", "lines?count=1000000", "--lines"],
        ["chat", "my-agent", "hello", *MODEL],
    ],
)
def test_a_reader_that_went_away(emulator, child_environment, argv):
    reader, writer = os.pipe()
    os.close(reader)
    env = {**child_environment, **emulator.environment}
    with os.fdopen(writer, "wb") as out:
        ran = subprocess.run([*MODULE, *argv], stdout=out, stderr=subprocess.PIPE, env=env, timeout=60)
    assert (ran.returncode, ran.stderr) == (141, b"")


def test_an_answer_is_typed(emulator, run):
    ran = run("chat", "my-agent", "Hello, wide\tworld", *MODEL)
    assert (ran.code, ran.out, ran.err) == (0, "Hello, wide\tworld\n", "")
    last = emulator.requests.last[-1]
    assert last.target == (
        "/agent-runtimes/my-agent/endpoints/Default/invocations/openai/v1/chat/completions"
    )
    assert json.loads(last.body) == {
        "messages": [{"role": "user", "content": "Hello, wide\tworld"}],
        "model": "m",
        "stream": True,
    }
    run("chat", "my agent", "x", *MODEL, "--endpoint-name", "blue/green")
    target = emulator.requests.last[-1].target
    assert target.startswith("/agent-runtimes/my%20agent/endpoints/blue%2Fgreen/invocations/")


def test_a_message_is_read_from_stdin(emulator, run):
    ran = run("chat", "my-agent", *MODEL, stdin="é\n\nline two\r\n".encode())
    assert (ran.code, ran.out) == (0, "é\n\nline two\n")
    assert run("chat", "my-agent", *MODEL, stdin=b"\xff").code == 2


def test_stdin_that_is_closed(emulator, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["chat", "my-agent"]) == 2
    assert "there is no message" in capsys.readouterr().err


def test_the_model_is_left_out_unless_given(emulator, run):
    ran = run("chat", "my-agent", "hello")
    assert ran.code == 1
    assert "model" not in json.loads(emulator.requests.last[-1].body)


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (Fault(after=3, then="error"), 1, "one two\n"),
        (Fault(after=3, then="cut"), 3, "one two\n"),
        (Fault(status=500), 1, ""),
        (Fault(drop=True), 3, ""),
    ],
    ids=["error", "cut", "status", "drop"],
)
def test_a_failure_in_an_answer_is_told(emulator, run, fault, code, said):
    emulator.service.faults.add(fault, count=None)
    ran = run("chat", "my-agent", "one two three four", *MODEL, *ONCE)
    assert (ran.code, ran.out.replace(" \n", "\n")) == (code, said)
    assert ran.err.startswith("error: ")


def test_what_may_have_been_done_twice_is_warned_of(emulator, run):
    emulator.service.faults.add(Fault(drop=True))
    assert "\n  warning  " in run("chat", "my-agent", "hello", *MODEL, *ONCE).err


def test_hints_for_a_runtime(emulator, run):
    emulator.service.faults.add(Fault(status=404))
    assert "--endpoint-name" in run("chat", "my-agent", "hello", *MODEL).err


@pytest.mark.parametrize(
    "chunk",
    [
        "{}",
        '{"choices": null}',
        '{"choices": []}',
        '{"choices": [null]}',
        '{"choices": [{"delta": null}]}',
        '{"choices": [{"delta": {"content": null}}]}',
        '{"choices": [{"delta": {"content": 1}}]}',
    ],
)
def test_chunks_without_text_are_passed_over(run, chunk):
    ran = run_answered(run, f"data: {chunk}\n\n".encode() + TOKEN % b"x" + b"data: [DONE]\n\n")
    assert (ran.code, ran.out, ran.err) == (0, "x\n", "")


def test_an_answer_without_text_is_no_line(run):
    ran = run_answered(run, b"data: [DONE]\n\n")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def run_answered(run, body):
    """Has a message answered with a stream of these bytes."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(head + body)

        thread = threading.Thread(target=serve)
        thread.start()
        ran = run("chat", "a", "hi", "--endpoint", f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    return ran


@pytest.fixture
def talk(monkeypatch, capsys):
    """Runs a conversation: lines typed at a terminal, and Ctrl-D."""

    def talk(*lines, argv=MODEL):
        typed = Terminal("".join(f"{line}\n" for line in lines))
        monkeypatch.setattr(sys, "stdin", typed)
        code = main(["chat", "my-agent", *argv])
        out, err = capsys.readouterr()
        return code, out, err

    return talk


def test_a_conversation_is_kept(emulator, talk):
    code, out, err = talk("first", "", "   ", "second\tone")
    assert (code, out, err) == (0, "first\nsecond\tone\n", "> > > > > \n")
    assert [json.loads(request.body)["messages"] for request in emulator.requests.last] == [
        [{"role": "user", "content": "first"}],
        [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "first"},
            {"role": "user", "content": "second\tone"},
        ],
    ]


def test_a_failure_is_no_part_of_a_conversation(emulator, talk):
    emulator.service.faults.add(Fault(after=2, then="error"))
    code, out, err = talk("one two", "three")
    assert (code, out) == (0, "one \nthree\n")
    assert err.startswith("> error: ")
    assert json.loads(emulator.requests.last[-1].body)["messages"] == [{"role": "user", "content": "three"}]


def test_a_conversation_ends_as_its_last_answer_does(emulator, talk):
    emulator.service.faults.add(Fault(status=503), count=None)
    assert talk("one", argv=(*MODEL, *ONCE))[0] == 1
    assert talk()[0] == 0


def test_a_message_makes_no_conversation_of_a_terminal(emulator, talk):
    assert talk("never read", argv=(*MODEL, "hello")) == (0, "hello\n", "")


SUPER_AGENT = ("--super-agent",)


def test_a_super_agent_is_asked(emulator, run):
    ran = run("chat", "planner", "Hello, wide\tworld", *SUPER_AGENT)
    assert (ran.code, ran.out, ran.err) == (0, "Hello, wide\tworld\n", "")
    asked, read = emulator.requests.last[-2:]
    assert json.loads(asked.body)["forwardedProps"] == {"metadata": {"agentRuntimeName": "planner"}}
    assert read.method == "GET"


def test_a_super_agent_keeps_the_conversation(emulator, talk):
    code, out, err = talk("first", "second", argv=SUPER_AGENT)
    assert (code, out, err) == (0, "first\nsecond\n", "> > > \n")
    first, second = [json.loads(request.body) for request in emulator.requests.last if request.body]
    assert "conversationId" not in first["forwardedProps"]
    assert second["forwardedProps"]["conversationId"]
    assert [message["content"] for message in second["messages"]] == ["second"]


def test_a_super_agent_that_fails_is_told(emulator, run):
    emulator.service.faults.add(Fault(after=3, then="error"), match="GET")
    ran = run("chat", "planner", "one two three", *SUPER_AGENT)
    assert (ran.code, ran.out) == (1, "one \n")
    assert ran.err.startswith("error: ")


@pytest.mark.parametrize("flags", [MODEL, ("--endpoint-name", "Default")])
def test_a_super_agent_decides_some_things_itself(emulator, run, flags):
    ran = run("chat", "planner", "hi", *SUPER_AGENT, *flags)
    assert (ran.code, emulator.requests.count) == (2, 0)
    assert "leave --model" in ran.err


@pytest.mark.skipif(os.name == "nt", reason="there is no pty")
def test_a_conversation_on_a_real_terminal(emulator, child_environment):
    import pty

    ours, theirs = pty.openpty()
    env = {**child_environment, **emulator.environment, "TERM": "dumb"}
    shown = b""

    def until(wanted):
        nonlocal shown
        while not shown.endswith(wanted):
            shown += os.read(ours, 65536)

    with subprocess.Popen(
        [*MODULE, "chat", "my-agent", *MODEL], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    ) as process:
        os.close(theirs)
        until(b"> ")
        os.write(ours, b"hello\n")
        until(b"hello\r\nhello\r\n> ")
        os.write(ours, b"\x04")
        assert process.wait(timeout=60) == 0
    os.close(ours)


def cut_off(emulator, run, tmp_path, *argv, size=300_000, cut=100_000):
    """A file in the service, and a download of it that broke off."""
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    run("upload", str(tmp_path / "a"), "files")
    os.unlink(tmp_path / "a")
    emulator.service.faults.add(Fault(cut=cut))
    return content, run("download", "files?path=a", str(tmp_path / "b"), *ONCE, *argv)


def test_a_download_goes_on_where_it_broke_off(emulator, run, tmp_path):
    content, ran = cut_off(emulator, run, tmp_path, "--resume")
    assert (ran.code, ran.out) == (3, "")
    assert "\n  hint  Run it again to go on from what has arrived.\n" in ran.err
    digest = hashlib.sha256(content).hexdigest().upper()
    ran = run("download", "files?path=a", str(tmp_path / "b"), "--resume", "--sha256", digest)
    assert (ran.code, ran.err, json.loads(ran.out)["size"]) == (0, "", 300_000)
    assert emulator.requests.last[-1].header("Range") == "bytes=100000-"
    assert (tmp_path / "b").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_download_that_is_not_to_go_on_leaves_nothing(emulator, run, tmp_path):
    _, ran = cut_off(emulator, run, tmp_path)
    assert (ran.code, list(tmp_path.iterdir())) == (3, [])
    assert "Run it again" not in ran.err


def test_what_to_do_first_comes_before_going_on(emulator, run, tmp_path):
    ran = run("download", "x", str(tmp_path / "b"), "--resume", "--endpoint", "http://127.0.0.1:1", *ONCE)
    assert ran.code == 3
    assert "and the network. Run it again to go on" in ran.err
    assert "Run it again" not in run("download", "files?path=missing", str(tmp_path / "b"), "--resume").err


def test_the_bar_starts_where_it_was(emulator, run, tmp_path, monkeypatch):
    cut_off(emulator, run, tmp_path, "--resume", size=6_000_000, cut=5_900_000)
    seen = []

    @contextlib.contextmanager
    def transfer(self, label):
        yield lambda done, total: seen.append((done, total))

    monkeypatch.setattr(Screen, "transfer", transfer)
    assert run("download", "files?path=a", str(tmp_path / "b"), "--resume").code == 0
    assert seen[0][0] > 5_900_000  # with the first piece, which from the start would be a small one
    assert seen[-1] == (6_000_000, 6_000_000)


def test_another_file_than_its_checksum_says(emulator, run, tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    run("upload", str(tmp_path / "a"), "files")
    ran = run("download", "files?path=a", str(tmp_path / "b"), "--resume", "--sha256", "0" * 64)
    assert (ran.code, ran.out) == (1, "")
    assert "saved again" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
