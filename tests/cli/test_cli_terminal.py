"""What people see on a terminal, what pipes get, and how a run ends that is cut off."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun_transports._cli.screen import Failure, Screen
from agentrun_transports.cli import main
from agentrun_transports.emulator import Fault
from proto_strategies import PROPERTY

MODULE = [sys.executable, "-m", "agentrun_transports"]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """stdout and stderr are terminals; returns what was shown on each."""
    monkeypatch.setenv("TERM", "xterm-256color")
    out, err = Terminal(), Terminal()

    def run(*argv):
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(argv)
        return code, out.getvalue(), err.getvalue()

    return run


def without_rich(monkeypatch):
    for name in [name for name in sys.modules if name == "rich" or name.startswith("rich.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)


def test_json_is_indented_and_coloured(emulator, terminal):
    code, out, err = terminal("get", "resources")
    assert (code, err) == (0, "")
    assert '\n  \x1b[1;34m"code"\x1b[0m: \x1b[32m"SUCCESS"\x1b[0m,\n' in out


def test_json_is_indented_without_rich(emulator, terminal, monkeypatch):
    without_rich(monkeypatch)
    code, out, _ = terminal("get", "resources")
    assert code == 0
    assert out.startswith('{\n  "code": "SUCCESS",\n')
    assert json.loads(out)["data"]["items"] == []


def test_no_colour_where_it_is_not_wanted(emulator, terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    _, out, _ = terminal("get", "resources")
    assert "\x1b[3" not in out


def test_an_error_is_coloured_too(emulator, terminal):
    code, out, err = terminal("get", "resources/missing")
    assert (code, out) == (1, "")
    assert err.startswith("\x1b[1;31merror: \x1b[0m")


def test_an_error_is_wrapped_between_words(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    code, _, err = terminal("get", "resources", "--endpoint", "http://127.0.0.1:1", "--attempts", "1")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", err).splitlines()
    assert code == 3
    assert max(map(len, lines)) <= 60
    assert lines[-2:] == [
        "  hint  Check --endpoint, --account-id and --region",
        "        (`agentrun-data config`), and the network.",
    ]


def test_what_stands_beside_a_head_is_wrapped_under_itself(monkeypatch):
    told = "the first line, which is long\n-> the second line\n   third"
    wanted = {
        "31": [
            "ok  a  the first line, which is",
            "       long",
            "       -> the second line",
            "          third",
        ],
        "28": [
            "ok  a  the first line, which",
            "       is long",
            "       -> the second line",
            "          third",
        ],
        "22": [  # never less than 20 columns
            "ok  a  the first line,",
            "       which is long",
            "       -> the second line",
            "          third",
        ],
    }
    for width, lines in wanted.items():
        monkeypatch.setenv("COLUMNS", width)
        out = Terminal()
        Screen(out, None).beside((("ok  ", "bold"), ("a  ", "dim")), told)
        assert re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines() == lines
    plain = io.StringIO()
    Screen(plain, None).beside((("ok  ", ""), ("a  ", "")), told)
    assert plain.getvalue().splitlines() == [
        "ok  a  the first line, which is long",
        "       -> the second line",
        "          third",
    ]


@pytest.mark.parametrize("rich", [True, False])
def test_every_command_works_on_a_terminal(emulator, terminal, monkeypatch, tmp_path, rich):
    if not rich:
        without_rich(monkeypatch)
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    for argv in (
        ["upload", str(tmp_path / "a"), "files"],
        ["download", "files?path=a", str(tmp_path / "b")],
        ["sign", "GET", "resources"],
        ["config"],
    ):
        assert terminal(*argv)[0] == 0, argv
    _, out, err = terminal("sign", "GET", "resources")
    assert "GET " in out
    assert (tmp_path / "b").read_bytes() == b"x" * 100_000
    # The bar is drawn where people look, and nowhere else.
    assert ("Sending a" in err, "Saving b" in err, "100.0" in err) == (rich, rich, rich)
    assert "Sending" not in out


@pytest.mark.skipif(os.name == "nt", reason="there is no pty")
def test_a_real_terminal(emulator, child_environment):
    import pty

    ours, theirs = pty.openpty()
    env = {**child_environment, **emulator.environment, "TERM": "xterm-256color"}
    with subprocess.Popen(
        [*MODULE, "get", "resources"], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    ) as child:
        os.close(theirs)
        shown = b""
        # Linux reports the other side's end as an error.
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)
        assert child.wait(timeout=60) == 0
    assert b'\x1b[1;34m"code"\x1b[0m: \x1b[32m"SUCCESS"\x1b[0m,\r\n' in shown


def test_a_service_cannot_command_the_terminal(emulator, terminal, run):
    evil = "\x1b]0;owned\x07\x9b2J\u202e\x7f"
    run("post", "resources", "--data", json.dumps({"id": "r-1", "name": evil}))
    _, out, _ = terminal("get", "resources/r-1", "--header", "X-A: 1")
    assert "\x1b]0" not in out
    assert not set("\x07\x9b\u202e\x7f") & set(out)
    assert "\\u009b2J\\u202e\\u007f" in out
    _, _, err = terminal("get", "resources/" + "".join(f"%{byte:02x}" for byte in evil.encode()))
    assert not set("\x07\x9b\u202e\x7f") & set(err)


class Stream(io.TextIOWrapper):
    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding=encoding, newline="")

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters())
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@PROPERTY
@given(json_values, st.sampled_from(["utf-8", "ascii", "latin-1", "cp1252"]))
def test_any_json_can_be_written_anywhere_and_read_back(value, encoding):
    stream = Stream(encoding)
    Screen(stream, None).json(value)
    text = stream.text()
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert json.loads(text) == value


@PROPERTY
@given(st.text(st.characters()), st.sampled_from(["utf-8", "ascii", "cp1252"]))
def test_any_message_can_be_written_anywhere(message, encoding):
    stream = Stream(encoding)
    Screen(None, stream).failure(Failure(message=message, facts=(("hint", message),)))
    assert stream.text().replace("\n", "").isprintable()


def test_closed_streams_are_no_trouble():
    screen = Screen(None, None)
    screen.json({"a": 1})
    screen.line(("a", "bold"))
    screen.rows([])
    screen.failure(Failure(message="m"))
    with screen.transfer("t") as meter:
        meter(1, None)


def test_nesting_that_cannot_be_written():
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="too deeply"):
        Screen(io.StringIO(), None).json(value)
    while value:  # taken apart by hand: the interpreter would recurse
        value = value.pop()


@pytest.fixture
def counted(monkeypatch):
    """What the bars were told: for each, its title and the pairs of done and total."""
    bars = []

    @contextlib.contextmanager
    def transfer(self, title):
        told = []
        bars.append((title, told))
        yield lambda done, total: told.append((done, total))

    monkeypatch.setattr(Screen, "transfer", transfer)
    return bars


def test_transfers_are_counted(emulator, run, counted, tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 600_000)
    assert run("upload", str(tmp_path / "a"), "files").code == 0
    assert run("download", "files?path=a", str(tmp_path / "b")).code == 0
    (sending, sent), (saving, saved) = counted
    assert (sending, saving) == ("Sending a", "Saving b")
    # What is sent is the form, with the file in it; what is saved is the file.
    (request,) = [request for request in emulator.requests.last if request.method == "POST"]
    assert sent == sorted(sent)
    assert sent[-1] == (request.body_length, request.body_length)
    assert request.body_length > 600_000
    assert saved == sorted(saved)
    assert saved[-1] == (600_000, 600_000)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()


def test_an_upload_that_is_sent_again_counts_anew(emulator, run, counted, tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 600_000)
    emulator.service.faults.add(Fault(status=503), match="POST")
    assert run("upload", str(tmp_path / "a"), "files").code == 0
    ((_, sent),) = counted
    assert [done for done, total in sent].count(sent[-1][0]) == 2
    assert {total for _, total in sent} == {sent[-1][0]}


def test_a_transfer_that_fails_keeps_its_error(emulator, run, counted, tmp_path):
    ran = run("upload", str(tmp_path / "missing"), "files")
    assert (ran.code, ran.out, counted) == (2, "", [("Sending missing", [])])
    assert "No such file or directory" in ran.err
    ran = run("download", "files?path=missing", str(tmp_path / "b"))
    assert (ran.code, ran.out, counted[1:]) == (1, "", [("Saving b", [])])
    assert not (tmp_path / "b").exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
@pytest.mark.parametrize("argv", [["get", "resources"], ["--help"], ["config"], ["demo"]])
def test_a_reader_that_went_away(emulator, child_environment, argv):
    reader, writer = os.pipe()
    os.close(reader)
    env = {**child_environment, **emulator.environment}
    with os.fdopen(writer, "wb") as out:
        ran = subprocess.run([*MODULE, *argv], stdout=out, stderr=subprocess.PIPE, env=env, timeout=60)
    assert (ran.returncode, ran.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(
    ("argv", "message"), [(["get", "resources"], b"error: No space left on device\n"), (["--help"], b"")]
)
def test_a_full_disk(emulator, child_environment, argv, message):
    env = {**child_environment, **emulator.environment}
    with open("/dev/full", "wb") as out:
        ran = subprocess.run([*MODULE, *argv], stdout=out, stderr=subprocess.PIPE, env=env, timeout=60)
    assert (ran.returncode, ran.stderr) == (2, message)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_in_a_request(child_environment):
    # Where the tests run in the background, SIGINT may be ignored, and children inherit that.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from agentrun_transports.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        argv = [sys.executable, "-c", program, "get", "resources", "--endpoint", endpoint]
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=child_environment
        ) as child:
            connection, _ = server.accept()
            with connection:
                assert connection.recv(65536).startswith(b"GET ")
                child.send_signal(signal.SIGINT)
                out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, b"", b"")


def test_rich_is_not_loaded_off_a_terminal(emulator, child_environment):
    program = (
        "import sys; from agentrun_transports.cli import main; main(['get', 'resources']);"
        "sys.exit(bool({'rich', 'asyncio', 'trio', 'ssl', 'httpcore'} & set(sys.modules)))"
    )
    env = {**child_environment, **emulator.environment}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, env=env, timeout=60)
    assert ran.returncode == 0
