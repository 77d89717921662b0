"""Sandboxes: the lifecycle in its envelope, everything inside them bare, and nothing executed."""

from __future__ import annotations

import base64

import pytest

from agentrun_transports.emulator import sandbox
from agentrun_transports.emulator.evaluate import run_python
from agentrun_transports.emulator.recording import recording

BOX = "/sandboxes/a%2Fb"


@pytest.fixture
def box(ask):
    ask.data("POST", "/sandboxes", {"templateName": "t", "sandboxId": "a/b"})
    return ask


def test_lifecycle(ask):
    made = ask.data("POST", "/sandboxes", {"templateName": "t", "nasConfig": {"x": 1}})
    assert made == {
        "sandboxId": made["sandboxId"],
        "templateName": "t",
        "status": "READY",
        "sandboxIdleTimeoutSeconds": 600,
        "nasConfig": {"x": 1},
        "createdAt": "2026-03-06T12:00:00Z",
    }
    path = f"/sandboxes/{made['sandboxId']}"
    assert ask.data("GET", path) == made
    assert ask.bare("GET", f"{path}/health") == {"status": "ok"}
    stopped = ask.data("POST", f"{path}/stop")
    assert (stopped["status"], stopped["endedAt"]) == ("TERMINATED", "2026-03-06T12:00:00Z")
    assert ask.data("POST", f"{path}/stop") == stopped
    assert ask.refused("GET", f"{path}/health") == (409, "SandboxNotReady")
    assert ask.data("DELETE", path)["status"] == "TERMINATED"
    for method, target in (
        ("GET", path),
        ("DELETE", path),
        ("POST", f"{path}/stop"),
        ("GET", f"{path}/health"),
    ):
        assert ask.refused(method, target) == (404, "SandboxNotFound")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"templateName": ""},
        {"templateName": 3},
        {"templateName": "t", "sandboxIdleTimeoutSeconds": 0},
        {"templateName": "t", "sandboxIdleTimeoutSeconds": True},
        {"templateName": "t", "sandboxIdleTimeoutSeconds": "600"},
        {"templateName": "t", "sandboxId": ""},
        {"templateName": "t", "sandboxId": ".."},
        {"templateName": "t", "ossMountConfig": "x"},
    ],
    ids=range(9),
)
def test_bad_input(ask, data):
    assert ask.refused("POST", "/sandboxes", data) == (400, "ERR_VALIDATION_FAILED")


def test_the_same_id_twice(box):
    data = {"templateName": "t", "sandboxId": "a/b"}
    assert box.refused("POST", "/sandboxes", data) == (409, "SandboxAlreadyExists")


def test_an_idle_sandbox_stops(ask, fixed_now):
    ask.data("POST", "/sandboxes", {"templateName": "t", "sandboxId": "s", "sandboxIdleTimeoutSeconds": 10})
    for _ in range(3):  # use keeps it alive
        ask.now += 10
        assert ask.bare("GET", "/sandboxes/s/health") == {"status": "ok"}
    ask.now += 10.5
    assert ask.data("GET", "/sandboxes/s")["status"] == "TERMINATED"
    ask.now = fixed_now
    assert ask.refused("GET", "/sandboxes/s/health") == (409, "SandboxNotReady")


def test_file_system(box):
    def names(query=""):
        return [entry["path"] for entry in box.bare("GET", f"{BOX}/filesystem{query}")["entries"]]

    assert names() == []
    assert names("?path=/") == ["/home", "/tmp"]
    assert names("?path=/&depth=2") == ["/home", "/home/user", "/tmp"]
    made = box.bare("POST", f"{BOX}/filesystem/mkdir", {"path": "a/b", "parents": True, "mode": "0700"})
    assert (made["path"], made["type"], made["mode"]) == ("/home/user/a/b", "directory", "0700")
    assert box.bare("POST", f"{BOX}/filesystem/mkdir", {"path": "a/b", "parents": True})["status"] == "ok"
    for data, refusal in [
        ({"path": "a/b"}, (409, "FileExists")),
        ({"path": "x/y"}, (404, "FileNotFound")),
        ({"path": "x", "mode": "999"}, (400, "ERR_VALIDATION_FAILED")),
        ({"path": "x", "parents": "yes"}, (400, "ERR_VALIDATION_FAILED")),
        ({"path": "a\0"}, (400, "ERR_VALIDATION_FAILED")),
        ({}, (400, "ERR_VALIDATION_FAILED")),
    ]:
        assert box.refused("POST", f"{BOX}/filesystem/mkdir", data) == refusal
    box.bare("POST", f"{BOX}/files", {"path": "a/b/f.txt", "content": "ü"})
    assert names("?depth=3") == ["/home/user/a", "/home/user/a/b", "/home/user/a/b/f.txt"]
    stat = box.bare("GET", f"{BOX}/filesystem/stat?path=a/../a/b/f.txt")
    assert (stat["name"], stat["size"], stat["mode"], stat["type"]) == ("f.txt", 2, "0644", "file")
    assert box.bare("GET", f"{BOX}/filesystem/stat?path=/../..")["name"] == "/"
    box.bare("POST", f"{BOX}/filesystem/move", {"source": "a", "destination": "/tmp/z"})
    assert names("?depth=3") == []
    assert box.bare("GET", f"{BOX}/files?path=/tmp/z/b/f.txt")["content"] == "ü"
    for data, refusal in [
        ({"source": "none", "destination": "x"}, (404, "FileNotFound")),
        ({"source": "/tmp/z", "destination": "/tmp/z/b/c"}, (400, "ERR_VALIDATION_FAILED")),
        ({"source": "/", "destination": "/x"}, (400, "ERR_VALIDATION_FAILED")),
        ({"source": "/tmp/z", "destination": "/tmp"}, (409, "FileExists")),
        ({"source": "/tmp/z", "destination": "no/where"}, (404, "FileNotFound")),
        ({"source": "/tmp/z", "destination": "/tmp/z/b/f.txt/q"}, (400, "ERR_VALIDATION_FAILED")),
    ]:
        assert box.refused("POST", f"{BOX}/filesystem/move", data) == refusal
    box.bare("POST", f"{BOX}/filesystem/remove", {"path": "/tmp/z"})
    assert box.refused("GET", f"{BOX}/filesystem/stat?path=/tmp/z/b") == (404, "FileNotFound")
    assert box.refused("POST", f"{BOX}/filesystem/remove", {"path": "/tmp/z"}) == (404, "FileNotFound")
    assert box.refused("POST", f"{BOX}/filesystem/remove", {"path": "/"}) == (400, "ERR_VALIDATION_FAILED")
    assert box.refused("GET", f"{BOX}/filesystem?path=none") == (404, "FileNotFound")
    box.bare("POST", f"{BOX}/files", {"path": "f.txt", "content": "a file has no entries"})
    assert box.refused("GET", f"{BOX}/filesystem?path=f.txt") == (400, "ERR_VALIDATION_FAILED")
    assert box.refused("GET", f"{BOX}/filesystem?depth=0") == (400, "ERR_VALIDATION_FAILED")
    assert box.refused("GET", f"{BOX}/filesystem/stat") == (400, "ERR_VALIDATION_FAILED")


def test_removing_frees_the_contents(asker, tmp_path):
    ask = asker(tmp_path)
    ask.data("POST", "/sandboxes", {"templateName": "t", "sandboxId": "s"})
    for name in ("d/1", "d/2", "e"):
        ask.bare("POST", "/sandboxes/s/files", {"path": name, "content": name})
    ask.bare("POST", "/sandboxes/s/files", {"path": "e", "content": "again"})
    left = tmp_path / "blobs"
    assert len(list(left.iterdir())) == 3
    ask.bare("POST", "/sandboxes/s/filesystem/remove", {"path": "d"})
    assert len(list(left.iterdir())) == 1
    ask.data("DELETE", "/sandboxes/s")
    assert list(left.iterdir()) == []


def test_up_and_down(box, content_of):
    content = bytes(range(256)) * 1000
    answer = box.upload(f"{BOX}/filesystem/upload", "new/dir/x.bin", content, more="1").json()
    assert (answer["status"], answer["path"], answer["size"]) == ("ok", "/home/user/new/dir/x.bin", 256_000)
    assert content_of(box("GET", f"{BOX}/filesystem/download?path=new/dir/x.bin")) == content
    part = box("GET", f"{BOX}/filesystem/download?path=new/dir/x.bin", headers={"Range": "bytes=256-257"})
    assert (part.status, content_of(part)) == (206, b"\0\1")
    assert box.refused("GET", f"{BOX}/filesystem/download?path=new") == (400, "ERR_VALIDATION_FAILED")
    assert box.upload("/sandboxes/none/filesystem/upload", "x", b"1").status == 404
    assert box.upload(f"{BOX}/filesystem/upload", "new", b"1").status == 400


def test_reading_and_writing(box):
    path = f"{BOX}/files"
    told = box.bare("POST", path, {"path": "a.txt", "content": "x\r\n中", "mode": "600"})
    assert (told["mode"], told["size"]) == ("0600", 6)
    read = box.bare("GET", f"{path}?path=/home/user/a.txt")
    assert (read["content"], read["encoding"], read["mode"]) == ("x\r\n中", "utf-8", "0600")
    raw = b"\xff\0\xfe"
    data = {"path": "b", "content": base64.b64encode(raw).decode(), "encoding": "base64"}
    assert box.bare("POST", path, data)["size"] == 3
    assert base64.b64decode(box.bare("GET", f"{path}?path=b")["content"]) == raw
    for data, refusal in [
        ({"path": "b", "content": "!", "encoding": "base64"}, (400, "ERR_VALIDATION_FAILED")),
        ({"path": "b", "content": "x", "encoding": "latin-1"}, (400, "ERR_VALIDATION_FAILED")),
        ({"path": "b", "content": 3}, (400, "ERR_VALIDATION_FAILED")),
        ({"path": "no/dir", "content": "x", "createDir": False}, (404, "FileNotFound")),
        ({"path": "b/c", "content": "x"}, (409, "FileExists")),
        ({"path": "/tmp", "content": "x"}, (400, "ERR_VALIDATION_FAILED")),
    ]:
        assert box.refused("POST", path, data) == refusal
    assert box.refused("GET", f"{path}?path=/tmp") == (400, "ERR_VALIDATION_FAILED")


def test_what_is_too_large_to_be_read_is_to_be_downloaded(box, monkeypatch):
    monkeypatch.setattr(sandbox, "_MAX_CONTENT", 3)
    for content, status in (("abc", 200), ("abcd", 400)):
        box.bare("POST", f"{BOX}/files", {"path": "a", "content": content})
        answer = box("GET", f"{BOX}/files?path=a")
        assert answer.status == status
    assert "'/home/user/a' has 4 bytes; download what is larger than 3." in answer.json()["message"]


def test_contexts(box):
    path = f"{BOX}/contexts"
    made = box.bare("POST", path, {})
    assert made == {"id": made["id"], "cwd": "/home/user", "language": "python"}
    other = box.bare("POST", path, {"language": "javascript", "cwd": "/tmp"})
    assert box.bare("GET", path) == [made, other]
    assert box.bare("GET", f"{path}/{made['id']}") == made
    run = box.bare("POST", f"{path}/execute", {"code": "print(6*7)", "contextId": made["id"]})
    assert (run["status"], run["result"]) == ("success", {"stdout": "42\n", "stderr": "", "exitCode": 0})
    js = box.bare("POST", f"{path}/execute", {"code": "1", "contextId": other["id"]})
    assert (js["status"], js["result"]["exitCode"]) == ("error", 1)
    for data, refusal in [
        ({"code": "1", "contextId": "none"}, (404, "ContextNotFound")),
        ({"code": "1", "contextId": other["id"], "language": "python"}, (400, "ERR_VALIDATION_FAILED")),
        ({"code": "1", "language": "ruby"}, (400, "ERR_VALIDATION_FAILED")),
        ({"code": "1", "timeout": 0}, (400, "ERR_VALIDATION_FAILED")),
        ({}, (400, "ERR_VALIDATION_FAILED")),
    ]:
        assert box.refused("POST", f"{path}/execute", data) == refusal
    assert box.bare("DELETE", f"{path}/{made['id']}") == {"status": "ok"}
    assert box.refused("DELETE", f"{path}/{made['id']}") == (404, "ContextNotFound")


def test_processes(box):
    path = f"{BOX}/processes"
    box.bare("POST", f"{BOX}/files", {"path": "d/f.txt", "content": "inside\n"})

    def run(command, **more):
        return box.bare("POST", f"{path}/cmd", {"command": command, **more})

    assert run("echo 'a b' c")["result"] == {"stdout": "a b c\n", "stderr": "", "exitCode": 0}
    assert run("pwd", cwd="/tmp")["result"]["stdout"] == "/tmp\n"
    assert run("ls")["result"]["stdout"] == "d\n"
    assert run("ls d")["result"]["stdout"] == "f.txt\n"
    assert run("cat f.txt /home/user/d/f.txt", cwd="d")["result"]["stdout"] == "inside\ninside\n"
    for command, code in [
        ("cat none", 1),
        ("ls none", 1),
        ("false", 1),
        ("true", 0),
        ("  ", 0),
        ("a'", 2),
        ("rm x", 127),
    ]:
        assert run(command)["result"]["exitCode"] == code
    listed = box.bare("GET", path)
    assert isinstance(listed, list)
    assert [row["pid"] for row in listed] == list(range(1000, 1000 + len(listed)))
    assert box.bare("GET", f"{path}/1000")["command"] == "echo 'a b' c"
    assert box.bare("DELETE", f"{path}/1000") == {"status": "ok"}
    assert box.refused("GET", f"{path}/1000") == (404, "ProcessNotFound")
    assert run("true")["pid"] == 1000 + len(listed)
    assert box.refused("POST", f"{path}/cmd", {"command": "pwd", "cwd": "/none"}) == (404, "FileNotFound")


def test_recordings(box):
    path = f"{BOX}/recordings"
    assert box.bare("GET", path) == {"recordings": [{"filename": "demo.mkv"}]}
    assert box("GET", f"{path}/demo.mkv").body == recording()
    assert box.bare("DELETE", f"{path}/demo.mkv") == {"status": "ok"}
    assert box.bare("GET", path) == {"recordings": []}
    for method in ("GET", "DELETE"):
        assert box.refused(method, f"{path}/demo.mkv") == (404, "RecordingNotFound")


@pytest.mark.parametrize(
    ("code", "stdout"),
    [
        ("print()", "\n"),
        ("print(1, 'a', 2.5, True, None)", "1 a 2.5 True None\n"),
        ("x = 2 ** 10\ny = -x // 3\nprint(x % 7, y, +x - 1, not x)", "2 -342 1023 False\n"),
        ("print(1 < 2, 1 == 1.0, 'a' != 'b', 2 >= 3, 1 <= 1, 2 > 1)", "True True True False True True\n"),
        ("n = 3\nprint(f'{n} is {n * 2}', 'ab' * 2, 7 / 2)", "3 is 6 abab 3.5\n"),
        ("'only a value'\npass", ""),
    ],
)
def test_what_is_worked_out(code, stdout):
    outcome = run_python(code)
    assert (outcome.stdout, outcome.stderr, outcome.exit_code) == (stdout, "", 0)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("import os", "Import"),
        ("print(open('/etc/passwd'))", "Call"),
        ("print(().__class__)", "Tuple|Attribute"),
        ("(lambda: 0)()", "Call"),
        ("while True: pass", "While"),
        ("print(1, sep='')", "Call"),
        ("a, b = 1, 2", "Assign"),
        ("print(1 << 9)", "BinOp"),
        ("print(~1)", "UnaryOp"),
        ("print(1 < 2 < 3)", "Compare"),
        ("print(f'{1:>9}')", "FormattedValue"),
        ("print('%s' % 1)", "%"),
        ("print('%9999999999d' % 1)", "%"),
        ("print('a' * 10**9)", "text"),
        ("print(10**9 * 'a')", "text"),
        ("x = 'a' * 90000\nprint(x + x)", "large"),
        ("print(9 ** 9 ** 9)", "large"),
        ("x = 2 ** 2047\nprint(x * x * x)", "large"),
        ("print((-1) ** 0.5)", "complex"),
        ("print(1j)", "Constant"),
        ("print(b'x')", "Constant"),
        ("print(1 / 0)", "ZeroDivisionError"),
        ("print(1 + 'a')", "TypeError"),
        ("print(x)", "NameError"),
        ("print(", "SyntaxError"),
        ("print(1.5 ** 99999)", "OverflowError"),
        ("a\0b", "Error"),
        ("-" * 19_000 + "1", "nested|Error"),
        ("x" * 20_001, "20000"),
    ],
    ids=range(29),
)
def test_what_is_not(code, word):
    outcome = run_python(code)
    assert outcome.exit_code == 1
    assert any(part in outcome.stderr for part in word.split("|")), outcome.stderr
    assert outcome.stdout == ""


def test_what_was_printed_before_an_error_is_kept():
    outcome = run_python("print(1)\nprint(1 / 0)")
    assert (outcome.stdout, outcome.exit_code) == ("1\n", 1)
