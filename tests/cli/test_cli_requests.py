"""get, post, put, patch, delete, upload and download, in process, against a real emulator."""

import json
import os

import pytest

from agentrun_transports.emulator import Fault


def created(run, **fields):
    return json.loads(run("post", "resources", "--data", json.dumps(fields)).out)["data"]


def test_each_verb_does_its_work(emulator, run):
    item = created(run, name="first", id="r-1")
    assert item["id"] == "r-1"
    for method, data, wanted in [
        ("get", None, {"name": "first"}),
        ("patch", '{"size": 3}', {"name": "first", "size": 3}),
        ("put", '{"name": "second"}', {"name": "second"}),
        ("delete", None, {"name": "second"}),
    ]:
        ran = run(method, "resources/r-1", *(["--data", data] if data else []))
        assert (ran.code, ran.err) == (0, "")
        found = json.loads(ran.out)["data"]
        assert {key: found.get(key) for key in ("name", "size") if key in found} == wanted
        last = emulator.requests.last[-1]
        assert last.method == method.upper()
        assert last.header("Agentrun-Authorization").startswith("AGENTRUN4-HMAC-SHA256 ")
    assert json.loads(run("get", "resources").out)["data"]["items"] == []


def test_output_off_a_terminal_is_one_compact_line(emulator, run):
    created(run, name="é ☃", id="r-1")
    out = run("get", "resources/r-1").out
    assert out.startswith('{"code":"SUCCESS","requestId":"')
    assert '"name":"é ☃"' in out
    assert out.count("\n") == 1
    assert out.endswith("}\n")


def test_an_array_is_printed_as_what_it_is(emulator, run):
    run("post", "/", "--namespace", "sandboxes", "--data", '{"templateName":"python","sandboxId":"sb-1"}')
    ran = run("get", "sb-1/recordings", "--namespace", "sandboxes")
    assert (ran.code, emulator.requests.last[-1].target) == (0, "/sandboxes/sb-1/recordings")
    ran = run("get", "sb-1/processes", "--namespace", "sandboxes")
    assert (ran.code, json.loads(ran.out)) == (0, [])


@pytest.mark.parametrize("content", [b"null", b"[]", b'"text"', b"0", b"false"])
def test_any_json_is_printed_as_what_it_is(emulator, run, monkeypatch, content):
    handle = emulator.service.handle

    def replaced(request):
        answer = handle(request)
        fields = [field for field in answer.headers if field[0] != "Content-Length"]
        headers = (*fields, ("Content-Length", str(len(content))))
        return type(answer)(status=200, headers=headers, body=content)

    monkeypatch.setattr(emulator.service, "handle", replaced)
    ran = run("get", "resources")
    assert (ran.code, ran.out, ran.err) == (0, content.decode() + "\n", "")


def test_query_is_merged_and_repeated(emulator, run):
    ran = run(
        "get",
        "resources?page=1&x=0",
        "--query",
        "limit=10",
        "--query",
        "tag=a b",
        "--query",
        "x=1",
        "--query",
        "tag=",
    )
    assert ran.code == 0
    assert emulator.requests.last[-1].target.partition("?")[2] == "page=1&x=1&limit=10&tag=a+b&tag="


def test_headers_are_sent_repeated_ones_too(emulator, run):
    run("get", "resources", "--header", "X-One: a: b", "--header", "X-Two:1", "--header", "x-two: 2")
    sent = [
        (name.lower(), value)
        for name, value in emulator.requests.last[-1].headers
        if name.lower().startswith("x-")
    ]
    assert [pair for pair in sent if pair[0] in ("x-one", "x-two")] == [
        ("x-one", "a: b"),
        ("x-two", "1"),
        ("x-two", "2"),
    ]


@pytest.mark.parametrize("source", ["literal", "file", "stdin"])
def test_data_goes_out_byte_for_byte(emulator, run, tmp_path, source):
    text = '{ "name" : "\\u00e9é", "n": 1.50 }'
    path = tmp_path / "data.json"
    path.write_bytes(text.encode())
    data = {"literal": text, "file": f"@{path}", "stdin": "-"}[source]
    assert run("post", "resources", "--data", data, stdin=text.encode()).code == 0
    last = emulator.requests.last[-1]
    assert (last.body, last.header("Content-Type")) == (text.encode(), "application/json")


def test_a_byte_order_mark_is_not_sent(emulator, run, tmp_path):
    path = tmp_path / "data.json"
    path.write_bytes(b'\xef\xbb\xbf{"name":"first"}')
    assert run("post", "resources", "--data", f"@{path}").code == 0
    assert emulator.requests.last[-1].body == b'{"name":"first"}'


def test_other_content_needs_its_content_type_and_goes_out_as_it_is(emulator, run, tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(b"\x00\xff no JSON")
    run("post", "resources", "--data", f"@{path}", "--header", "content-type: text/plain")
    last = emulator.requests.last[-1]
    assert (last.body, last.header("Content-Type")) == (path.read_bytes(), "text/plain")
    merge_patch = "Content-Type: application/merge-patch+json"
    assert run("patch", "resources/r", "--data", "{", "--header", merge_patch).code == 2


def test_a_post_without_data_has_no_content(emulator, run):
    run("post", "resources")
    last = emulator.requests.last[-1]
    assert (last.body, last.header("Content-Length"), last.header("Content-Type")) == (b"", "0", None)


def test_an_empty_success_is_an_empty_object(emulator, run, monkeypatch):
    handle = emulator.service.handle

    def emptied(request):
        answer = handle(request)
        headers = tuple(field for field in answer.headers if field[0] != "Content-Length")
        return type(answer)(status=204, headers=headers, body=b"")

    monkeypatch.setattr(emulator.service, "handle", emptied)
    ran = run("delete", "resources/r-1")
    assert (ran.code, ran.out) == (0, "{}\n")


def test_flags_win_over_the_environment(emulator, run, monkeypatch):
    monkeypatch.setenv("AGENTRUN_DATA_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AGENTRUN_REGION", "cn-beijing")
    assert run("get", "resources", "--attempts", "1").code == 3
    assert run("get", "resources", "--endpoint", emulator.endpoint).code == 1
    ran = run("get", "resources", "--endpoint", emulator.endpoint, "--region", "cn-hangzhou")
    assert (ran.code, ran.err) == (0, "")


def test_timeout_bounds_the_call(emulator, run):
    emulator.service.faults.add(Fault(delay=60))
    ran = run("get", "resources", "--timeout", "0.5")
    assert ran.code == 3
    assert "--timeout" in ran.err


def test_a_file_goes_up_and_comes_back(emulator, run, tmp_path):
    content = os.urandom(300_000)
    (tmp_path / "a.bin").write_bytes(content)
    ran = run("upload", str(tmp_path / "a.bin"), "files", "--target", "/data/b.bin", "--query", "q=1")
    answer = json.loads(ran.out)["data"]
    assert (ran.code, ran.err, answer["path"], answer["size"], answer["fileName"]) == (
        0,
        "",
        "/data/b.bin",
        300_000,
        "a.bin",
    )
    assert emulator.requests.last[-1].target.endswith("/files?q=1")
    saved = tmp_path / "c.bin"
    ran = run("download", "files", str(saved), "--query", "path=/data/b.bin", "--header", "X-A: 1")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == {"saved_path": str(saved), "size": 300_000}
    assert saved.read_bytes() == content
    assert emulator.requests.last[-1].header("X-A") == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "c.bin"]


def test_an_upload_is_named_after_its_file_unless_told(emulator, run, tmp_path):
    (tmp_path / "report.csv").write_bytes(b"")
    ran = run("upload", str(tmp_path / "report.csv"), "files")
    assert json.loads(ran.out)["data"]["path"] == "report.csv"


def test_a_refused_download_leaves_the_old_file(emulator, run, tmp_path):
    saved = tmp_path / "old.txt"
    saved.write_text("old")
    for path in ("files?path=missing", "resources"):
        assert run("download", path, str(saved)).code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]
    assert saved.read_text() == "old"
