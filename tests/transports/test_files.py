"""HOSTILE's "Files": what is sent and what is saved, through a client and by itself.

An error before a connection is opened where it can be known; the old file untouched on every failure; no
temporary file left; a symbolic link stays one.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentrun_proto import AgentRunClientError, FileError
from agentrun_transports._files import FileSink, FileSource, HandleSink
from transports_support import DRIVERS, RawServer, Say, answer, assert_next_call_is_right

TESTS = str(Path(__file__).parents[1])
CONTENT = answer(b"new")


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request):
    return request.param


@pytest.fixture
def open_folder():
    """A folder that another user can reach, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def unprivileged():
    """As a user who is not root, whom no mode keeps out."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def assert_no_part(folder):
    assert [path.name for path in folder.rglob("*") if "part" in path.name] == []


# --- sending


def bad_sources(folder):
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    loop = folder / "loop"
    loop.symlink_to(loop)
    (folder / "folder").mkdir()
    (folder / "file").write_text("x")
    return {
        "missing": folder / "missing",
        "folder": folder / "folder",
        "under_a_file": folder / "file" / "x",
        "fifo": fifo,
        "loop": loop,
        "device": "/dev/zero",
        "nul": str(folder / "a\0b"),
        "too_long": folder / ("x" * 300),
        "empty": "",
    }


@pytest.mark.hostile("files-source", "published-foreign-errors")
@pytest.mark.parametrize(
    "name", ["missing", "folder", "under_a_file", "fifo", "loop", "device", "nul", "too_long", "empty"]
)
def test_a_source_that_is_none(driver, tmp_path, name):
    """E before a connection is opened, and without waiting for a writer of a pipe."""
    path = bad_sources(tmp_path)[name]
    with RawServer() as server, driver.client(server.config()) as client:
        with pytest.raises(FileError) as caught:
            client.upload("u", path, "/x")
        assert not caught.value.may_be_processed
        assert server.connections == 0
        assert_next_call_is_right(client)


@pytest.mark.hostile("files-source")
def test_a_source_that_is_not_readable(driver, open_folder):
    path = open_folder / "secret"
    path.write_text("x")
    path.chmod(0)
    with RawServer() as server, driver.client(server.config()) as client:
        with unprivileged(), pytest.raises(FileError) as caught:
            client.upload("u", path, "/x")
        assert isinstance(caught.value.__cause__, PermissionError)
        assert "secret" in str(caught.value)
        assert server.connections == 0


@pytest.mark.parametrize("size", [0, 1, 65_536, 262_144, 262_145, 3_000_000])
def test_a_file_arrives_whole(driver, tmp_path, size):
    content = os.urandom(size)
    path = tmp_path / 'na"me\u00e9.bin'
    path.write_bytes(content)
    with RawServer() as server, driver.client(server.config()) as client:
        form = {"mode": "644", "n": 3, "flag": True}
        kept = dict(form)
        client.upload("u", path, "/target/x", form_data=form, query={"a": 1})
        assert form == kept
        (request,) = server.requests
        fields = {name.lower(): value for name, value in request.lines}
        assert int(fields["content-length"]) == len(request.body)
        boundary = fields["content-type"].partition("boundary=")[2]
        found = parse_multipart(request.body, boundary)
        assert found == [
            ('form-data; name="mode"', None, b"644"),
            ('form-data; name="n"', None, b"3"),
            ('form-data; name="flag"', None, b"true"),
            ('form-data; name="path"', None, b"/target/x"),
            ('form-data; name="file"; filename="na%22me\u00e9.bin"', "application/octet-stream", content),
        ]
        assert_next_call_is_right(client)
        assert server.connections == 1


def parse_multipart(body, boundary):
    """A form taken apart with nothing but split: RFC 2046, 5.1.1."""
    mark = b"\r\n--" + boundary.encode()
    first, *parts, last = (b"\r\n" + body).split(mark)
    assert (first, last) == (b"", b"--\r\n")
    found = []
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        found.append((fields["Content-Disposition"], fields.get("Content-Type"), content))
    return found


def test_a_boundary_is_new_each_time(driver, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x")
    with RawServer() as server, driver.client(server.config()) as client:
        for _ in range(3):
            client.upload("u", path, "/x")
        assert len({dict(request.lines)["Content-Type"] for request in server.requests}) == 3


@pytest.mark.hostile("published-content-type")
def test_a_content_type_of_the_callers_does_not_lose_the_boundary(driver, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x")
    with (
        RawServer() as server,
        driver.client(server.config(headers={"content-type": "text/plain"})) as client,
    ):
        client.upload("u", path, "/x")
        assert "boundary=" in dict(server.requests[0].lines)["Content-Type"]
        with pytest.raises(ValueError):
            client.upload("u", path, "/x", headers={"CONTENT-TYPE": "text/plain"})


# --- saving


@pytest.mark.hostile("files-target", "published-foreign-errors")
@pytest.mark.parametrize(
    "name", ["folder", "missing_folder", "under_a_file", "nul", "too_long", "empty", "slash"]
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_target_that_cannot_be_one(driver, tmp_path, name, resume):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    path = {
        "folder": tmp_path / "folder",
        "missing_folder": tmp_path / "missing" / "f",
        "under_a_file": tmp_path / "file" / "f",
        "nul": str(tmp_path / "a\0b"),
        "too_long": tmp_path / ("x" * 300),
        "empty": "",
        "slash": str(tmp_path / "new") + "/",
    }[name]
    with RawServer() as server, driver.client(server.config()) as client:
        with pytest.raises(FileError) as caught:
            client.download("f", path, resume=resume)
        if name != "too_long":  # found out when it is renamed
            assert not caught.value.may_be_processed
            assert server.connections == 0
        assert_no_part(tmp_path)
        assert_next_call_is_right(client)


@pytest.mark.hostile("files-target")
@pytest.mark.parametrize("resume", [False, True])
def test_a_target_in_a_folder_that_is_not_writable(driver, open_folder, resume):
    with RawServer() as server, driver.client(server.config()) as client:
        with unprivileged(), pytest.raises(FileError):
            client.download("f", open_folder / "f", resume=resume)
        assert server.connections == 0
        assert list(open_folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_a_target_that_is_no_regular_file_stays_what_it_is(driver, tmp_path, kind):
    """Saving to /dev/null, as root, must not put a regular file in its place."""
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    else:
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("making a device takes root")
    before = stat.S_IFMT(path.stat().st_mode)
    with RawServer(CONTENT) as server, driver.client(server.config()) as client:
        try:
            client.download("f", path)
        except FileError:
            pass
        assert stat.S_IFMT(path.stat().st_mode) == before
        assert_no_part(tmp_path)


@pytest.mark.parametrize("old", [None, b"old"])
def test_what_arrives_is_saved(driver, tmp_path, old):
    path = tmp_path / "f"
    if old is not None:
        path.write_bytes(old)
    with RawServer(CONTENT) as server, driver.client(server.config()) as client:
        assert client.download("f", path, query={"a": 1}) == {"saved_path": str(path), "size": 3}
        assert path.read_bytes() == b"new"
        assert [entry.name for entry in tmp_path.iterdir()] == ["f"]
        fields = {name.lower(): value for name, value in server.requests[0].lines}
        assert fields["accept-encoding"] == "identity"


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 262_143, 262_144, 262_145, 3_000_001])
@pytest.mark.parametrize("framing", ["counted", "chunked", "until_close"])
def test_files_of_all_sizes(driver, tmp_path, size, framing):
    from transports_support import Close

    content = os.urandom(size)
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(piece), piece)
        for at in range(0, size, 50_001)
        if (piece := content[at : at + 50_001])
    )
    script = {
        "counted": (Say(answer(content)),),
        "chunked": (Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"),),
        "until_close": (Say(b"HTTP/1.1 200 OK\r\n\r\n" + content), Close()),
    }[framing]
    path = tmp_path / "f"
    with RawServer(script) as server, driver.client(server.config()) as client:
        assert client.download("f", path)["size"] == size
        assert path.read_bytes() == content
        assert_next_call_is_right(client)
        assert server.connections == (2 if framing == "until_close" else 1)


@pytest.mark.hostile("files-symlink")
@pytest.mark.parametrize("resume", [False, True])
def test_a_symbolic_link_stays_and_its_target_is_replaced(driver, tmp_path, resume):
    (tmp_path / "a").mkdir()
    target, link = tmp_path / "a" / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(Path("a") / "target")
    with RawServer(CONTENT) as server, driver.client(server.config()) as client:
        assert client.download("f", link, resume=resume)["saved_path"] == str(link)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert_no_part(tmp_path)


def test_a_link_to_what_is_not_there_yet(driver, tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with RawServer(CONTENT) as server, driver.client(server.config()) as client:
        client.download("f", link)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("resume", [False, True])
def test_the_mode_is_that_of_a_new_file(driver, tmp_path, resume):
    mask = os.umask(0o027)
    try:
        with RawServer(CONTENT) as server, driver.client(server.config()) as client:
            client.download("f", tmp_path / "f", resume=resume)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_a_relative_path_is_returned_as_given(driver, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RawServer(CONTENT) as server, driver.client(server.config()) as client:
        assert client.download("f", "f.bin") == {"saved_path": "f.bin", "size": 3}
    assert (tmp_path / "f.bin").read_bytes() == b"new"


def test_a_long_name_still_has_room(driver, tmp_path):
    path = tmp_path / ("x" * 255)
    with RawServer(CONTENT) as server, driver.client(server.config()) as client:
        client.download("f", path)
    assert path.read_bytes() == b"new"


def test_a_long_name_that_is_not_ascii_still_has_room(driver, tmp_path):
    path = tmp_path / ("é" * 127)  # 254 bytes
    with RawServer(CONTENT) as server, driver.client(server.config()) as client:
        client.download("f", path)
    assert path.read_bytes() == b"new"
    path = tmp_path / ("😀" * 63)  # 252 bytes; of which a prefix of 48 letters has 192
    with RawServer(CONTENT) as server, driver.client(server.config()) as client:
        client.download("f", path)
    assert path.read_bytes() == b"new"


def test_a_target_that_becomes_a_folder_meanwhile(driver, tmp_path):
    path = tmp_path / "f"
    with RawServer(CONTENT) as server, driver.client(server.config()) as client:
        real = FileSink.commit

        def commit(self):
            path.mkdir()
            real(self)

        FileSink.commit = commit
        try:
            with pytest.raises(FileError):
                client.download("f", path)
        finally:
            FileSink.commit = real
        assert path.is_dir()
        assert_no_part(tmp_path)
        assert_next_call_is_right(client)


FULL = """
import resource, signal, sys
from pathlib import Path
from agentrun_proto import Config, FileError
from agentrun_transports import BlockingClient
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
client = BlockingClient(Config(data_endpoint=sys.argv[1], timeout=20))
target = Path(sys.argv[2])
try:
    client.get_file("f", target)
except FileError as error:
    assert error.__cause__.errno == 27, error
else:
    raise SystemExit("it was saved")
assert target.read_bytes() == b"old"
assert [path.name for path in target.parent.iterdir()] == ["f"]
assert client._session.pool.open == 0
assert client.get("own")["target"].endswith("/own")
"""


@pytest.mark.hostile("files-target")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of a process are POSIX")
def test_a_disk_that_is_full(tmp_path):
    """The limit on a file's size stands for it: writes fall short, then fail, in the same way."""
    (tmp_path / "f").write_bytes(b"old")
    with RawServer(answer(os.urandom(3_000_000))) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", FULL, server.url, str(tmp_path / "f")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, *filter(None, sys.path)])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.hostile("files-broken-off", "published-overwritten")
def test_the_service_refuses(driver, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    refusal = answer({"code": "SandboxNotFound", "requestId": "id-1", "message": "gone"}, "404 Not Found")
    with RawServer(refusal) as server, driver.client(server.config()) as client:
        with pytest.raises(AgentRunClientError) as caught:
            client.download("f", path)
        assert (caught.value.status_code, caught.value.error_code) == (404, "SandboxNotFound")
        assert path.read_bytes() == b"old"
        assert_no_part(tmp_path)
        assert_next_call_is_right(client)
        assert server.connections == 1


# --- by themselves


def test_a_source_reads_what_it_declared_and_rewinds(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    source = FileSource(str(path))
    assert source.length == 10
    assert (source.read(4), source.read(100), source.read(1)) == (b"0123", b"456789", b"")
    source.rewind()
    assert source.read(2) == b"01"
    source.close()
    source.close()


def test_a_sink_shows_nothing_until_it_is_committed(tmp_path):
    path = tmp_path / "f"
    sink = FileSink(str(path))
    sink.write(b"ab")
    sink.write(memoryview(b"cd"))
    assert not path.exists()
    assert sink.size == 4
    sink.commit()
    assert path.read_bytes() == b"abcd"
    sink.discard()
    assert path.read_bytes() == b"abcd"
    other = FileSink(str(path))
    other.write(b"xx")
    other.discard()
    other.discard()
    assert path.read_bytes() == b"abcd"
    assert_no_part(tmp_path)


@pytest.mark.parametrize("system", ["posix", "nt"])
@pytest.mark.parametrize("end", ["commit", "discard"])
def test_a_sink_is_open_while_its_names_change_but_on_windows(tmp_path, monkeypatch, system, end):
    """The lock keeps others away until the names are free; Windows renames and removes no open file."""
    target = str(tmp_path / "f")
    sink = FileSink(target)
    sink.write(b"ab")
    open_then: list[bool] = []

    def change(real: Any, *paths: str) -> None:
        open_then.append(not sink._file.closed)
        real(*paths)

    for name in ("replace", "unlink"):
        monkeypatch.setattr(os, name, partial(change, getattr(os, name)))
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "name", system)
        getattr(sink, end)()
    assert open_then == [system == "posix"]
    assert sink._file.closed
    assert [entry.name for entry in tmp_path.iterdir()] == (["f"] if end == "commit" else [])


def test_where_there_are_no_locks_a_sink_is_taken_up_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    target = str(tmp_path / "f")
    first = FileSink(target, "source")
    first.prepare(0, '"v1"', ())
    first.write(b"ab")
    first.discard()
    second = FileSink(target, "source")
    assert (second.size, second.validator) == (2, '"v1"')
    second.spoil()
    second.discard()
    assert list(tmp_path.iterdir()) == []


def test_an_open_file_that_takes_nothing_now():
    """A file that does not block, and is full: nobody tells when there is room."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(reader, "rb"), open(writer, "wb", buffering=0) as file:
        sink = HandleSink(file)
        with pytest.raises(OSError, match="takes nothing now"):
            while True:
                sink.write(bytes(65536))
        assert sink.size % 4096 == 0, "what it took before is counted"
        assert sink.size >= 4096


def test_an_open_file_that_is_closed_amid_it():
    memory = io.BytesIO()
    sink = HandleSink(memory)
    sink.write(b"ab")
    memory.close()
    with pytest.raises(OSError, match="closed"):
        sink.write(b"cd")
    assert sink.size == 2


def test_two_sinks_for_one_target_do_not_mix(tmp_path):
    path = str(tmp_path / "f")
    first, second = FileSink(path), FileSink(path)
    first.write(b"1" * 10)
    second.write(b"2" * 5)
    first.commit()
    second.commit()
    assert (tmp_path / "f").read_bytes() == b"2" * 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("source", [None, "source"])
def test_an_error_names_the_path_that_the_caller_gave(tmp_path, source):
    target = tmp_path / "missing" / "file"
    with pytest.raises(OSError, match="No such file") as raised:
        FileSink(str(target), source)
    assert raised.value.filename == str(target)
