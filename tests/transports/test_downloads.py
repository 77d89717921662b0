"""Downloads over real connections that break: whole in the end or not there at all, and nothing sent twice.

Rules of this file: the server counts what it sends; where it breaks off is drawn from a seed or said by the
test; a download runs on each driver, through its public face. Which answers are believed is shown without
sockets in the core's tests.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from threading import Lock, Thread
from typing import Any

import pytest

from agentrun_proto import Config, DecodeError, FileError, IncompleteError, Retry
from agentrun_transports import BlockingClient, _files
from agentrun_transports._files import FileSink
from agentrun_transports._progress import Meter
from agentrun_transports.emulator import Emulator, Fault
from drivers_support import SRC, native, run
from transports_support import PATIENCE, Close, RawServer, Say, TurnedClock, answer

pytestmark = pytest.mark.once

FACES = ("blocking", "asyncio", "trio")
CONTENT = random.Random(1).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TAG = '"v1"'


@pytest.fixture(params=FACES)
def face(request):
    return request.param


def use(face: str, config: Config, method: str, *arguments: Any, **options: Any) -> Any:
    """One call of a client's method, on a client of its own."""
    if face == "blocking":
        with BlockingClient(config) as client:
            return getattr(client, method)(*arguments, **options)

    async def main() -> Any:
        async with native(face)(config) as client:
            return await getattr(client, method)(*arguments, **options)

    return run(face, main)


def get_file(face: str, config: Config, *arguments: Any, **options: Any) -> Any:
    return use(face, config, "get_file", *arguments, **options)


def names(folder: Any) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def part_of(folder: Any) -> Any:
    """The one file that is there to be resumed."""
    (found,) = [entry for entry in folder.iterdir() if entry.name.endswith(".part")]
    return found


class Shelf:
    """A server that holds one file, answers ranges of it as RFC 9110 has it, and breaks off when told to.

    Args:
        cuts: after how many bytes of content each answer breaks off, one after another; then none does.
        headers: of each answer; a validator, say.
    """

    def __init__(
        self,
        content: bytes = CONTENT,
        *,
        cuts: tuple[int, ...] = (),
        headers: dict[str, str] | None = None,
        chunked: bool = False,
    ) -> None:
        self.content = content
        self.cuts = list(cuts)
        self.headers = {"ETag": TAG} if headers is None else headers
        self.chunked = chunked
        self.asked: list[tuple[str | None, str | None]] = []
        self.sent = 0
        self._lock = Lock()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted, condition = handler.headers["Range"], handler.headers["If-Range"]
        with self._lock:
            self.asked.append((wanted, condition))
            cut = self.cuts.pop(0) if self.cuts else None
        start = 0
        if wanted is not None and condition in (None, *self.headers.values()):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        rest = self.content[start:]
        handler.send_response(206 if start else 200)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        if start:
            size = len(self.content)
            handler.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if self.chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        else:
            handler.send_header("Content-Length", str(len(rest)))
        handler.end_headers()
        told = rest[:cut]
        try:
            if self.chunked:
                handler.wfile.write(b"%x\r\n%b" % (len(rest), told))
                if cut is None:
                    handler.wfile.write(b"\r\n0\r\n\r\n")
            else:
                handler.wfile.write(told)
            with self._lock:
                self.sent += len(told)
        except OSError:  # the client was killed
            handler.close_connection = True
        if cut is not None:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_WR)

    @contextmanager
    def open(self):
        shelf = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                shelf.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = False  # joined when it is closed

            def handle_error(self, *_: object) -> None:
                pass  # a client that was killed

        server = Server(("127.0.0.1", 0), Handler)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def config_of(url: str, **settings: Any) -> Config:
    return Config(
        **{"data_endpoint": url, "timeout": PATIENCE, "retry": Retry(attempts=2, backoff=0.0), **settings}
    )


# --- within a call


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
def test_it_arrives_whole_through_many_breaks_and_no_byte_is_sent_twice(face, tmp_path, seed, chunked):
    chance = random.Random(seed)
    cuts = tuple(chance.choice([1, 100, 65_535, 65_536, chance.randrange(1, 150_000)]) for _ in range(30))
    shelf = Shelf(cuts=cuts, chunked=chunked)
    with shelf.open() as url:
        saved = get_file(face, config_of(url), "f", tmp_path / "f", sha256=SHA256)
    assert saved["size"] == len(CONTENT)
    assert hashlib.sha256((tmp_path / "f").read_bytes()).hexdigest() == SHA256
    assert names(tmp_path) == ["f"]
    assert len(shelf.asked) == len(cuts) + 1
    assert shelf.sent == len(CONTENT), "what arrived before a break is kept, to the last byte"
    places = [sum(cuts[:n]) for n in range(len(cuts) + 1)]
    assert shelf.asked == [(None, None), *((f"bytes={place}-", TAG) for place in places[1:])]


@pytest.mark.parametrize("seed", [3, 4])
def test_the_same_from_the_emulator(face, tmp_path, seed):
    """Where each attempt begins shows in how many of them it takes: one byte twice, and it takes another."""
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    chance = random.Random(seed)
    cuts, left = [], len(CONTENT)
    while left > 0:
        cuts.append(min(left, chance.randrange(1, 250_000)))
        left -= cuts[-1]
    with Emulator() as emulator:
        config = Config.from_env(emulator.environment).merge(Config(retry=Retry(attempts=2, backoff=0.0)))
        use(face, config, "post_file", "files", source, "/f")
        before = emulator.requests.count
        for cut in cuts:
            emulator.service.faults.add(Fault(cut=cut), match="GET")
        saved = get_file(face, config, "files", tmp_path / "f", query={"path": "/f"}, sha256=SHA256)
        assert emulator.requests.count - before == len(cuts)
    assert saved["size"] == len(CONTENT)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert names(tmp_path) == ["f", "source"]


def test_without_a_validator_it_starts_over_as_often_as_it_may(face, tmp_path):
    shelf = Shelf(cuts=(1000, 2000), headers={})
    with shelf.open() as url:
        config = config_of(url, retry=Retry(attempts=3, backoff=0.0))
        assert get_file(face, config, "f", tmp_path / "f", sha256=SHA256)["size"] == len(CONTENT)
        assert shelf.asked == [(None, None)] * 3
        shelf.cuts = [5000] * 3
        with pytest.raises(IncompleteError):
            get_file(face, config, "f", tmp_path / "g")
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize(
    ("headers", "resumed"),
    [
        ({"ETag": 'W/"v1"'}, False),
        ({"Last-Modified": "Fri, 06 Mar 2026 11:00:00 GMT"}, True),  # the server sends the Date of today
        ({"Last-Modified": "Fri, 06 Mar 2099 11:00:00 GMT"}, False),
    ],
)
def test_what_tells_a_version_and_what_does_not(face, tmp_path, headers, resumed):
    shelf = Shelf(cuts=(1000,), headers=headers)
    with shelf.open() as url:
        get_file(face, config_of(url), "f", tmp_path / "f", sha256=SHA256)
    validator = next(iter(headers.values()))
    assert shelf.asked == [(None, None), ("bytes=1000-", validator) if resumed else (None, None)]


def test_a_file_that_changes_between_two_attempts(face, tmp_path):
    new = CONTENT[::-1]

    def progress(done: int, total: int | None) -> None:
        shelf.content, shelf.headers = new, {"ETag": '"v2"'}

    shelf = Shelf(cuts=(1_000_000,))
    with shelf.open() as url:
        get_file(face, config_of(url), "f", tmp_path / "f", progress=progress)
    assert shelf.asked == [(None, None), ("bytes=1000000-", TAG)]
    assert (tmp_path / "f").read_bytes() == new


@pytest.mark.hostile("files-broken-off")
def test_no_retry_is_one_attempt_and_nothing_is_left(face, tmp_path):
    shelf = Shelf(cuts=(1000,))
    (tmp_path / "f").write_bytes(b"old")
    with shelf.open() as url, pytest.raises(IncompleteError):
        get_file(face, config_of(url, retry=Retry.never()), "f", tmp_path / "f")
    assert len(shelf.asked) == 1
    assert names(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


@pytest.mark.parametrize("wrong", ["ignored", "shifted"])
def test_an_emulator_that_gets_ranges_wrong(face, tmp_path, wrong):
    source = tmp_path / "source"
    source.write_bytes(CONTENT[:50_000])
    with Emulator() as emulator:
        config = Config.from_env(emulator.environment).merge(Config(retry=Retry(attempts=3, backoff=0.0)))
        use(face, config, "post_file", "files", source, "/f")
        emulator.service.faults.add(Fault(cut=20_000), match="GET")
        emulator.service.faults.add(Fault(wrong_range=wrong), match="GET")
        download = (config, "files", tmp_path / "f")
        if wrong == "ignored":
            get_file(face, *download, query={"path": "/f"})
            assert (tmp_path / "f").read_bytes() == CONTENT[:50_000]
        else:
            with pytest.raises(DecodeError, match="another part"):
                get_file(face, *download, query={"path": "/f"})
            assert names(tmp_path) == ["source"]


# --- over calls


@pytest.mark.hostile("files-broken-off")
def test_the_next_call_goes_on_where_the_last_one_ended(face, tmp_path):
    shelf = Shelf(cuts=(1_000_000, 500_000))
    target = tmp_path / "f"
    with shelf.open() as url:
        config = config_of(url, retry=Retry.never())
        for size in (1_000_000, 1_500_000):
            with pytest.raises(IncompleteError):
                get_file(face, config, "f", target, resume=True, sha256=SHA256)
            assert not target.exists()
            assert part_of(tmp_path).read_bytes() == CONTENT[:size]
        told: list[tuple[int, int | None]] = []
        get_file(
            face, config, "f", target, resume=True, sha256=SHA256, progress=lambda *args: told.append(args)
        )
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["f"]
    assert shelf.sent == len(CONTENT)
    assert told[0][0] > 1_500_000
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_what_another_driver_began(tmp_path):
    shelf = Shelf(cuts=(1_000_000, 1_000_000))
    with shelf.open() as url:
        config = config_of(url, retry=Retry.never())
        for face in FACES[:2]:
            with pytest.raises(IncompleteError):
                get_file(face, config, "f", tmp_path / "f", resume=True)
        get_file(FACES[2], config, "f", tmp_path / "f", resume=True, sha256=SHA256)
    assert shelf.sent == len(CONTENT)


def test_without_a_validator_nothing_is_kept_that_could_not_be_used(face, tmp_path):
    shelf = Shelf(cuts=(1000,), headers={})
    with shelf.open() as url, pytest.raises(IncompleteError):
        get_file(face, config_of(url, retry=Retry.never()), "f", tmp_path / "f", resume=True)
    assert names(tmp_path) == []


def test_a_file_that_changed_between_two_calls(face, tmp_path):
    shelf = Shelf(cuts=(1000,))
    new = CONTENT[::-1]
    with shelf.open() as url:
        config = config_of(url, retry=Retry.never())
        with pytest.raises(IncompleteError):
            get_file(face, config, "f", tmp_path / "f", resume=True)
        shelf.content, shelf.headers = new, {"ETag": '"v2"'}
        get_file(face, config, "f", tmp_path / "f", resume=True)
    assert (tmp_path / "f").read_bytes() == new
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("path", ["other", "f?a=1"])
def test_a_part_of_another_source_is_not_taken_up(face, tmp_path, path):
    shelf = Shelf(cuts=(1000,))
    with shelf.open() as url:
        config = config_of(url, retry=Retry.never())
        with pytest.raises(IncompleteError):
            get_file(face, config, "f", tmp_path / "f", resume=True)
        get_file(face, config, path, tmp_path / "f", resume=True)
    assert shelf.asked == [(None, None)] * 2
    assert (tmp_path / "f").read_bytes() == CONTENT


def of_a_note(**changes: Any) -> Any:
    return lambda note: json.dumps({**json.loads(note), **changes}).encode()


@pytest.mark.parametrize(
    "garble",
    [
        lambda note: b"",
        lambda note: note[:-1],
        lambda note: b"\xff" + note,
        lambda note: b"[]",
        lambda note: b"null",
        lambda note: b"{}",
        lambda note: b"[" * 100_000,
        of_a_note(validator=None),
        of_a_note(validator=1),
        of_a_note(validator=""),
        of_a_note(validator='"a\r\nX: y"'),
        of_a_note(validator='"\u1234"'),
        of_a_note(source=None),
        of_a_note(source="0" * 64),
        None,
    ],
    ids=range(15),
)
def test_a_note_that_cannot_be_read_is_none(tmp_path, garble):
    shelf = Shelf(cuts=(1000,))
    with shelf.open() as url:
        config = config_of(url, retry=Retry.never())
        with pytest.raises(IncompleteError):
            get_file("blocking", config, "f", tmp_path / "f", resume=True)
        part = part_of(tmp_path)
        note = part.with_name(part.name + ".json")
        if garble is None:
            note.unlink()
        else:
            note.write_bytes(garble(note.read_bytes()))
        get_file("blocking", config, "f", tmp_path / "f", resume=True)
    assert shelf.asked == [(None, None)] * 2
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert names(tmp_path) == ["f"]


def test_a_note_holds_no_url(tmp_path):
    """A query may hold a secret; whoever reads the folder does not learn it."""
    shelf = Shelf(cuts=(1000,))
    with shelf.open() as url, pytest.raises(IncompleteError):
        config = config_of(url, retry=Retry.never())
        get_file("blocking", config, "f", tmp_path / "f", query={"key": "geheim"}, resume=True)
    for entry in tmp_path.iterdir():
        assert b"geheim" not in entry.read_bytes()
        assert "geheim" not in entry.name


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="Windows opens what a link leads to")
@pytest.mark.parametrize("suffix", ["", ".json"])
def test_a_link_in_place_of_a_part_or_its_note_is_not_followed(tmp_path, suffix):
    """Their names can be foreseen: in a folder that others may write to, a link would lead anywhere."""
    folder, victim = tmp_path / "folder", tmp_path / "victim"
    folder.mkdir()
    victim.write_bytes(b"precious")
    shelf = Shelf(cuts=(1000,))
    with shelf.open() as url:
        config = config_of(url, retry=Retry.never())
        with pytest.raises(IncompleteError):
            get_file("blocking", config, "f", folder / "f", resume=True)
        part = part_of(folder)
        for name in (part.name, part.name + ".json"):
            (folder / name).unlink()
        (folder / (part.name + suffix)).symlink_to(victim)
        with pytest.raises(FileError):
            get_file("blocking", config, "f", folder / "f", resume=True)
    assert victim.read_bytes() == b"precious"


KILLED = """
import os, signal, sys
from agentrun_proto import Config
from agentrun_transports import BlockingClient
from agentrun_transports._files import FileSink
url, target, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
write = FileSink.write

def write_and_die(self, piece):
    write(self, piece)
    if self.size >= size:
        os.kill(os.getpid(), signal.SIGKILL)

FileSink.write = write_and_die
BlockingClient(Config(data_endpoint=url, timeout=30)).get_file("f", target, resume=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no signal that cannot be caught")
def test_what_a_killed_process_left_is_gone_on_from(face, tmp_path):
    target = tmp_path / "f"
    target.write_bytes(b"old")
    sizes = [0]
    shelf = Shelf()
    with shelf.open() as url:
        for size in (1, 1_000_000, 2_000_000):
            done = subprocess.run(
                [sys.executable, "-c", KILLED, url, str(target), str(size)],
                env={**os.environ, "PYTHONPATH": str(SRC)},
                timeout=60,
                check=False,
            )
            assert done.returncode == -signal.SIGKILL
            assert target.read_bytes() == b"old"
            sizes.append(part_of(tmp_path).stat().st_size)
            assert sizes[-1] >= size
        get_file(face, config_of(url), "f", target, resume=True, sha256=SHA256)
    assert [asked[0] for asked in shelf.asked] == [None, *(f"bytes={size}-" for size in sizes[1:])]
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["f"]


def test_two_downloads_to_one_path_at_once(face, tmp_path):
    """The second is refused, clearly and before anything is sent; the first is none the worse."""
    refusals: list[FileError] = []

    def second() -> None:
        try:
            get_file(face, config_of(url), "other", tmp_path / "f", resume=True)
        except FileError as error:
            refusals.append(error)

    def progress(done: int, total: int | None) -> None:
        if not refusals:
            thread = Thread(target=second)
            thread.start()
            thread.join()

    shelf = Shelf()
    with shelf.open() as url:
        get_file(face, config_of(url), "f", tmp_path / "f", resume=True, progress=progress, sha256=SHA256)
    (refusal,) = refusals
    assert "another download to this path is under way" in str(refusal)
    assert str(tmp_path / "f") in str(refusal)
    assert not refusal.may_be_processed
    assert len(shelf.asked) == 1
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("end", ["commit", "discard"])
def test_a_name_that_is_given_up_between_opening_and_locking_is_taken_anew(tmp_path, monkeypatch, end):
    """Else the second would write into the file that the first has just saved, or into one without a name."""
    target = tmp_path / "f"
    first = FileSink(str(target), "source")
    first.prepare(0, TAG, ())
    first.write(b"whole")
    if end == "discard":
        first.spoil()
    lock = _files._lock
    ends = [getattr(first, end)]

    def late(descriptor: int) -> None:
        if ends:
            ends.pop()()
        lock(descriptor)

    monkeypatch.setattr(_files, "_lock", late)
    second = FileSink(str(target), "source")
    assert (second.size, second.validator) == (0, None)
    second.prepare(0, TAG, ())
    second.write(b"second")
    first.discard()  # again, as a flow does after a commit: the names are another's now
    if end == "commit":
        assert target.read_bytes() == b"whole"
    second.commit()
    assert target.read_bytes() == b"second"
    assert names(tmp_path) == ["f"]


# --- the local file


@pytest.mark.hostile("files-target")
@pytest.mark.parametrize("resume", [False, True])
def test_a_disk_that_gets_full(face, tmp_path, monkeypatch, resume):
    """The old file stays; what was written is there to go on from only where that was asked for."""
    target = tmp_path / "f"
    target.write_bytes(b"old")
    write = FileSink.write

    def until_full(self: FileSink, piece: Any) -> None:
        if self.size + len(piece) > 1_000_000:
            write(self, piece[: 1_000_000 - self.size])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, piece)

    shelf = Shelf()
    with shelf.open() as url:
        with monkeypatch.context() as full, pytest.raises(FileError, match="No space left") as caught:
            full.setattr(FileSink, "write", until_full)
            get_file(face, config_of(url), "f", target, resume=resume)
        assert caught.value.__cause__.errno == errno.ENOSPC
        assert target.read_bytes() == b"old"
        if not resume:
            assert names(tmp_path) == ["f"]
        get_file(face, config_of(url), "f", target, resume=resume, sha256=SHA256)
    assert shelf.asked[1:] == [("bytes=1000000-", TAG) if resume else (None, None)]
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["f"]


LIMIT = 1 << 20


@pytest.fixture
def tmpfs(tmp_path):
    """A disk of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={LIMIT}", "none", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk, where at all; the quota stands in for it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def quota(tmp_path):
    """No file may have more than a megabyte."""
    resource = pytest.importorskip("resource", reason="there are no such limits here")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.hostile("files-target")
@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("limit", ["tmpfs", "quota"])
def test_a_disk_that_is_really_full(face, request, limit, resume):
    folder = request.getfixturevalue(limit)
    target = folder / "f"
    target.write_bytes(b"old")
    shelf = Shelf()
    with shelf.open() as url:
        with pytest.raises(FileError, match=r"No space left|too large") as caught:
            get_file(face, config_of(url), "f", target, resume=resume)
        assert caught.value.__cause__.errno in (errno.ENOSPC, errno.EFBIG)
        assert target.read_bytes() == b"old"
        left = set(names(folder)) - {"f"}
        assert len(left) == (2 if resume else 0), "a part and its note, if they are to be taken up"
        assert len(shelf.asked) == 1, "a full disk is no reason to ask again"
        shelf.content = CONTENT[:100]
        shelf.headers = {"ETag": '"smaller"'}
        assert get_file(face, config_of(url), "f", target, resume=resume)["size"] == 100
    assert target.read_bytes() == CONTENT[:100]
    assert set(names(folder)) - {"f"} == set()


# --- into an open file


def test_into_an_open_file_from_where_it_stands(face, tmp_path):
    with (tmp_path / "f").open("wb") as file:
        file.write(b"before|")
        with Shelf(cuts=(1000, 70_000)).open() as url:
            saved = get_file(face, config_of(url), "f", file, sha256=SHA256)
        assert saved == {"saved_path": str(tmp_path / "f"), "size": len(CONTENT)}
        file.write(b"|after")
    assert (tmp_path / "f").read_bytes() == b"before|" + CONTENT + b"|after"


def test_into_memory_and_into_what_only_takes_bytes(face):
    class Taker:
        def __init__(self) -> None:
            self.taken: list[bytes] = []

        def write(self, data: Any) -> int:
            self.taken.append(bytes(data[:50_000]))  # as a raw file may
            return len(self.taken[-1])

    memory, taker = io.BytesIO(), Taker()
    with Shelf(cuts=(1000,)).open() as url:
        assert get_file(face, config_of(url), "f", memory) == {"saved_path": None, "size": len(CONTENT)}
    with Shelf(cuts=(1000,)).open() as url:
        get_file(face, config_of(url), "f", taker)
    assert memory.getvalue() == b"".join(taker.taken) == CONTENT


def test_an_open_file_starts_over_where_it_can(face):
    memory = io.BytesIO(b"x" * 10)
    memory.seek(5)
    with Shelf(cuts=(300_000,), headers={}).open() as url:
        get_file(face, config_of(url), "f", memory, sha256=SHA256)
    assert memory.getvalue() == b"x" * 5 + CONTENT


def test_an_open_file_that_cannot_start_over(face):
    reader, writer = os.pipe()
    got: list[bytes] = []

    def drain() -> None:
        with open(reader, "rb") as file:
            got.append(file.read())

    thread = Thread(target=drain)
    thread.start()
    with open(writer, "wb") as pipe, Shelf(cuts=(1000,), headers={}).open() as url:
        with pytest.raises(FileError, match="starts over"):
            get_file(face, config_of(url), "f", pipe)
        get_file(face, config_of(url), "f", pipe)
    thread.join()
    assert got == [CONTENT[:1000] + CONTENT]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_an_open_file_on_a_full_disk(face):
    with open("/dev/full", "wb", buffering=0) as full, Shelf().open() as url:
        with pytest.raises(FileError, match="No space left"):
            get_file(face, config_of(url), "f", full)
        assert not full.closed


def test_a_closed_file(face):
    memory = io.BytesIO()
    memory.close()
    shelf = Shelf()
    with shelf.open() as url, pytest.raises(FileError, match="closed"):
        get_file(face, config_of(url), "f", memory)
    assert shelf.asked == []


@pytest.mark.parametrize(
    ("target", "kind", "said"),
    [
        (io.StringIO(), TypeError, "binary"),
        (7, TypeError, "not int"),
        (b"bytes", TypeError, "not bytes"),
    ],
)
def test_what_is_no_file(face, target, kind, said):
    shelf = Shelf()
    with shelf.open() as url, pytest.raises(kind, match=said):
        get_file(face, config_of(url), "f", target)
    assert shelf.asked == []


def test_an_open_file_is_not_resumed_in_another_call(face):
    shelf = Shelf()
    with shelf.open() as url, pytest.raises(ValueError, match="path"):
        get_file(face, config_of(url), "f", io.BytesIO(), resume=True)
    assert shelf.asked == []


# --- checksums


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("kind", ["md5", "crc64", "sha256"])
def test_checksums(face, tmp_path, kind, right):
    """A wrong one leaves nothing: neither the file, nor a part that the next call would go on from."""
    source, target = tmp_path / "source", tmp_path / "f"
    source.write_bytes(CONTENT[:100_001])
    target.write_bytes(b"old")
    sha256 = hashlib.sha256(CONTENT[: 100_001 if right else 100_000]).hexdigest()
    with Emulator() as emulator:
        config = Config.from_env(emulator.environment)
        stored = {"x-emulator-checksum": "none" if kind == "sha256" else kind}
        use(face, config, "post_file", "files", source, "/f", headers=stored)
        if kind != "sha256" and not right:
            emulator.service.faults.add(Fault(wrong_checksum=True), match="GET")
        download = (config, "files", target)
        options = {"query": {"path": "/f"}, "resume": True, "sha256": sha256 if kind == "sha256" else None}
        if right:
            get_file(face, *download, **options)
        else:
            with pytest.raises(DecodeError, match="damaged, or another file"):
                get_file(face, *download, **options)
    assert target.read_bytes() == (source.read_bytes() if right else b"old")
    assert names(tmp_path) == ["f", "source"]


def test_the_checksum_of_a_file_that_came_in_pieces(face, tmp_path):
    """Told once, with the first piece; what was there before is read again where it must be."""
    right = b64encode(hashlib.md5(CONTENT).digest()).decode()
    wrong = b64encode(bytes(16)).decode()
    for md5 in (right, wrong):
        shelf = Shelf(cuts=(1_000_000, 70_000), headers={"ETag": TAG, "Content-MD5": md5})
        with shelf.open() as url:
            if md5 == right:
                get_file(face, config_of(url), "f", tmp_path / "f", sha256=SHA256)
            else:
                with pytest.raises(DecodeError, match="md5"):
                    get_file(face, config_of(url), "g", tmp_path / "g", resume=True, sha256=SHA256)
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("sha256", ["", "no", "0" * 63, "g" * 64])
def test_what_is_no_checksum_is_refused_before_anything_is_sent(face, tmp_path, sha256):
    with RawServer() as server:
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            get_file(face, server.config(), "f", tmp_path / "f", sha256=sha256)
        assert server.connections == 0
    assert names(tmp_path) == []


def test_a_checksum_may_be_written_in_capitals(face, tmp_path):
    with RawServer(answer(b"new")) as server:
        capitals = hashlib.sha256(b"new").hexdigest().upper()
        get_file(face, server.config(), "f", tmp_path / "f", sha256=capitals)
    assert (tmp_path / "f").read_bytes() == b"new"


# --- progress


def assert_progress(told: list[tuple[int, int | None]], size: int, total: int | None) -> None:
    counts = [done for done, _ in told]
    assert counts == sorted(set(counts)), "each tells more than the one before it"
    assert {of for _, of in told} == {total}
    assert told[-1] == (size, total)


@pytest.mark.parametrize("size", [0, 1, len(CONTENT)])
def test_progress_of_a_download(face, tmp_path, size):
    told: list[tuple[int, int | None]] = []
    with Shelf(CONTENT[:size]).open() as url:
        get_file(face, config_of(url), "f", tmp_path / "f", progress=lambda *args: told.append(args))
    assert_progress(told, size, size)


def test_progress_of_a_download_that_does_not_tell_its_length(face, tmp_path):
    told: list[tuple[int, int | None]] = []
    with Shelf(chunked=True).open() as url:
        get_file(face, config_of(url), "f", tmp_path / "f", progress=lambda *args: told.append(args))
    assert_progress(told, len(CONTENT), None)


def test_progress_goes_on_after_a_break(face, tmp_path):
    told: list[tuple[int, int | None]] = []
    shelf = Shelf(cuts=(1_000_000, 1, 1_000_000))
    with shelf.open() as url:
        get_file(face, config_of(url), "f", tmp_path / "f", progress=lambda *args: told.append(args))
    assert_progress(told, len(CONTENT), len(CONTENT))
    assert told[-1] != told[0]


def test_progress_of_an_upload(face, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    told: list[tuple[int, int | None]] = []
    with RawServer() as server:
        config = server.config()
        use(face, config, "post_file", "u", source, "/f", progress=lambda *args: told.append(args))
        length = len(server.requests[0].body)
    assert_progress(told, length, length)


class Stopped(Exception):
    """What a caller's callback raises."""


def stop(done: int, total: int | None) -> None:
    raise Stopped


@pytest.mark.parametrize("resume", [False, True])
def test_a_callback_that_raises_ends_a_download(face, tmp_path, resume):
    shelf = Shelf()
    (tmp_path / "f").write_bytes(b"old")
    with shelf.open() as url:
        with pytest.raises(Stopped):
            get_file(face, config_of(url), "f", tmp_path / "f", progress=stop, resume=resume)
        assert len(shelf.asked) == 1, "a mistake of the caller's is not tried again"
        assert (tmp_path / "f").read_bytes() == b"old"
        if resume:
            get_file(face, config_of(url), "f", tmp_path / "f", resume=True)
            assert shelf.asked[1][1] == TAG
    assert names(tmp_path) == ["f"]


def test_a_callback_that_raises_ends_an_upload(face, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    with RawServer() as server, pytest.raises(Stopped):
        use(face, server.config(), "post_file", "u", source, "/f", progress=stop)
    assert len(server.requests) <= 1, "a mistake of the caller's is not tried again"


def test_a_client_is_as_good_as_new_after_a_callback_raised(tmp_path):
    with RawServer(answer(CONTENT), answer(CONTENT)) as server, BlockingClient(server.config()) as client:
        with pytest.raises(Stopped):
            client.get_file("f", tmp_path / "f", progress=stop)
        assert client.get_file("f", tmp_path / "f")["size"] == len(CONTENT)
        with pytest.raises(Stopped):
            client.post_file("u", tmp_path / "f", "/f", progress=stop)
        assert client.get("own")["target"].endswith("/own")


def test_it_is_told_ten_times_a_second_at_most_and_at_the_end():
    told: list[tuple[int, int | None, float]] = []
    clock = TurnedClock(monotonic=5000.0)
    meter = Meter(lambda done, total: told.append((done, total, clock.time)), 10, 1000, clock)
    for _ in range(98):
        clock.time += 0.03125  # exact in binary
        meter.add(10)
    meter.end()
    times = [time for *_, time in told]
    assert [done for done, *_ in told] == [*range(20, 981, 40), 990]
    assert {later - earlier for earlier, later in pairwise(times[:-1])} == {0.125}
    assert told[-1] == (990, 1000, clock.time)


def test_the_end_is_not_told_twice_and_nothing_but_the_end_of_nothing():
    told: list[tuple[int, int | None]] = []
    clock = TurnedClock()
    meter = Meter(lambda *args: told.append(args), 0, 5, clock)
    meter.add(5)
    meter.end()
    assert told == [(5, 5)]
    empty = Meter(lambda *args: told.append(args), 0, 0, clock)
    empty.end()
    assert told == [(5, 5), (0, 0)]
    Meter(None, 0, 5, clock).end()


# --- a raw answer


def test_bytes_that_arrived_with_the_end_are_kept(face, tmp_path):
    """In one segment with the head, and the connection closed behind it."""
    first = (Say(answer(b"01234", fields=f"ETag: {TAG}\r\n", length=10)), Close())
    rest = answer(b"56789", "206 Partial Content", "Content-Range: bytes 5-9/10\r\n")
    with RawServer(first, rest) as server:
        config = server.config(retry=Retry(attempts=2, backoff=0.0))
        get_file(face, config, "f", tmp_path / "f")
        assert dict(server.requests[1].lines)["Range"] == "bytes=5-"
    assert (tmp_path / "f").read_bytes() == b"0123456789"
