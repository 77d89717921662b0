"""Recordings: what is played is what was recorded, on all clients and transports, failures too."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import socket

import pytest

from agentrun_proto import (
    AgentRunClientError,
    AuthenticationError,
    Config,
    ConnectError,
    DecodeError,
    FileError,
    IncompleteError,
    NotFoundError,
    Origin,
    ReadTimeout,
    Request,
    Resource,
    Retry,
    Timeout,
)
from agentrun_transports import AsyncioClient, BlockingClient
from agentrun_transports.emulator import Emulator
from agentrun_transports.testing import (
    CannedTransport,
    Player,
    Recorder,
    Reply,
    ScriptedServer,
    UnexpectedRequest,
)
from agentrun_transports.testing.recording import Recorded, Told
from agentrun_transports.testing.scripted import Step, answer
from testing_support import CLIENTS, clean_environment, run_program

CONFIG = Config(account_id="1", access_key_id="id", access_key_secret="secret", retry=Retry(backoff=0.0))
on_every_client = pytest.mark.parametrize("kind", CLIENTS)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    clean_environment(monkeypatch)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "exchanges.json"


@pytest.fixture
def no_network(monkeypatch):
    """Called once the recording is made: from then on, no connection can be."""

    def forbid():
        def refuse(*args):
            raise AssertionError("playing opens no connection")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket.socket, "connect_ex", refuse)

    return forbid


def exchanges(path):
    return json.loads(path.read_text(encoding="utf-8"))["exchanges"]


def record(path, script, program, *, kind="blocking", config=CONFIG, **options):
    """Records a program that is answered by a script; returns its result."""
    with Recorder(path, transport=CannedTransport(script)) as recorder:
        return run_program(kind, program, config, transport=recorder, **options)


def play(path, program, *, kind="blocking", config=CONFIG, **options):
    """Plays it; all that was recorded must be asked for."""
    player = Player(path)
    result = run_program(kind, program, config, transport=player, **options)
    assert player.unplayed == []
    return result


# --- all of it, against the emulator


def the_whole_job(folder):
    """A program that does what a client can; all that it sees is its result."""
    (folder / "up.bin").write_bytes(bytes(range(256)) * 2000)
    down = folder / "down.bin"

    async def program(client):
        seen = [await client.post("resources", {"name": "first", "labels": ["é"]})]
        seen.append(await client.get("resources", query={"limit": 1}))
        with pytest.raises(NotFoundError) as missing:
            await client.get("resources/missing")
        seen.append((missing.value.message, missing.value.request_id, missing.value.error_code))
        await client.post_file("files", folder / "up.bin", "/data/up.bin", {"note": "n"})
        await client.post_form("files", {"path": "/b"}, {"file": ("b.txt", b"in memory")})
        seen.append(await client.get_file("files", down, {"path": "/data/up.bin"}))
        seen.append(hashlib.sha256(down.read_bytes()).hexdigest())
        async with client.stream("GET", "events?count=3") as stream:
            seen += [(event.id, event.data) async for event in stream.events()]
        async with client.stream("GET", "lines?count=3") as stream:
            seen += [line async for line in stream.json_lines()]
        messages = [{"role": "user", "content": "count to three"}]
        async with client.invoke_stream("agent", messages, model="m") as stream:
            seen += [chunk async for chunk in stream.chat()]
        return seen

    return program


def test_feeds_are_there():
    with Emulator() as emulator, BlockingClient(Config.from_env(emulator.environment)) as client:
        for path in ("events?count=3", "lines?count=3"):
            with client.stream("GET", path) as stream:
                assert b"".join(stream)


@pytest.mark.parametrize("transport", ["native", "httpcore"])
@on_every_client
def test_what_is_played_is_what_was_recorded(kind, transport, path, tmp_path, no_network):
    program = the_whole_job(tmp_path)
    with Emulator() as emulator, Recorder(path, transport=transport) as recorder:
        config = Config.from_env(emulator.environment)
        recorded = run_program(kind, program, config, transport=recorder)
    no_network()
    assert play(path, program, kind=kind, config=config) == recorded


def test_what_one_client_recorded_plays_on_all(path, tmp_path, no_network):
    program = the_whole_job(tmp_path)
    with Emulator() as emulator, Recorder(path) as recorder:
        config = Config.from_env(emulator.environment)
        recorded = run_program("asyncio", program, config, transport=recorder)
    no_network()
    for kind in CLIENTS:
        assert play(path, program, kind=kind, config=config) == recorded


@on_every_client
def test_an_access_token_is_fetched_again_when_it_is_played(kind, path, no_network):
    named = (
        {"use_access_token": True}
        if kind.startswith("data")
        else {"access_token_for": Resource(type="runtime", name="agent")}
    )

    async def program(client):
        return await client.get("resources")

    with Emulator() as emulator, Recorder(path) as recorder:
        config = Config.from_env(emulator.environment)
        recorded = run_program(kind, program, config, transport=recorder, **named)
    no_network()
    assert play(path, program, kind=kind, config=config, **named) == recorded
    fetched, _ = exchanges(path)
    assert '"accessToken":"***' in fetched["answer"]["content"][0].replace(" ", "")


# --- the file


def test_the_file_is_for_readers(path):
    async def program(client):
        await client.post("resources", {"name": "é"})
        async with client.stream("GET", "events") as stream:
            return [piece async for piece in stream]

    live = Reply(content=["data: 1\n\n", b"\xff\xfe", "data: 2\n\n"], headers={"Content-Type": "text/x"})
    record(path, [Reply(json={"ok": True}), live], program)
    assert path.read_text(encoding="utf-8") == (
        """{
 "recording": 1,
 "exchanges": [
  {
   "request": {
    "method": "POST",
    "url": "https://1-ram.agentrun-data.cn-hangzhou.aliyuncs.com/2025-09-10/agents/resources",
    "headers": [
     "Accept: application/json",
     "Content-Type: application/json",
     "Content-Length: 13"
    ],
    "content": [
     "{\\"name\\":\\"é\\"}"
    ]
   },
   "answer": {
    "status": 200,
    "headers": [
     "Content-Type: application/json",
     "Content-Length: 12"
    ],
    "content": [
     "{\\"ok\\": true}"
    ]
   }
  },
  {
   "request": {
    "method": "GET",
    "url": "https://1-ram.agentrun-data.cn-hangzhou.aliyuncs.com/2025-09-10/agents/events",
    "headers": [
     "Accept: */*"
    ]
   },
   "answer": {
    "status": 200,
    "headers": [
     "Content-Length: 20",
     "Content-Type: text/x"
    ],
    "content": [
     "data: 1\\n\\n",
     {
      "base64": "//4="
     },
     "data: 2\\n\\n"
    ]
   }
  }
 ]
}
"""
    )
    assert play(path, program) == [b"data: 1\n\n", b"\xff\xfe", b"data: 2\n\n"]


def test_the_same_calls_make_the_same_file(path, tmp_path):
    program = the_whole_job(tmp_path)
    texts = []
    for _ in range(2):
        names = iter([f"{number:032}" for number in range(1000)])
        with Emulator(new_id=names.__next__, now=lambda: 1772798400.0) as emulator:
            config = Config(data_endpoint=emulator.endpoint, token="emulator-token")
            with Recorder(path) as recorder:
                run_program("blocking", program, config, transport=recorder)
        text = path.read_text(encoding="utf-8").replace(emulator.endpoint, "http://emulator")
        told = json.loads(text)
        for exchange in told["exchanges"]:
            answered = exchange["answer"]
            # The emulator's clock stands still here, and ours does not.
            answered["headers"] = [line for line in answered["headers"] if line[:5] not in ("Date:", "Last-")]
            answered["content"] = "".join(map(str, answered.get("content", [])))  # packets are chance
        texts.append(told)
    assert texts[0] == texts[1]
    assert len(texts[0]["exchanges"]) == 9


def test_form_parts_are_readable_and_files_are_told_by_their_checksum(path, tmp_path):
    (tmp_path / "in").write_bytes(b"content")
    boundaries = set()

    async def program(client):
        return await client.post_file("files", tmp_path / "in", "/in")

    for _ in range(2):
        canned = CannedTransport([Reply(json={})])
        with Recorder(path, transport=canned) as recorder:
            run_program("blocking", program, CONFIG, transport=recorder)
        boundaries.add(canned.requests[0].headers["content-type"])
        request = exchanges(path)[0]["request"]
        first, told, last = request["content"]
        assert 'name="path"\r\n\r\n/in\r\n' in first
        assert told == {"length": 7, "sha256": hashlib.sha256(b"content").hexdigest()}
        assert last.startswith("\r\n--boundaryboundary")
        assert any("boundary=boundaryboundary" in line for line in request["headers"])
    assert len(boundaries) == 2, "they are chance"
    play(path, program)
    (tmp_path / "in").write_bytes(b"another")
    with pytest.raises(UnexpectedRequest, match="with other content"):
        play(path, program)


def test_the_date_is_told_from_the_clients_clock(path):
    async def program(client):
        return await client.request("GET", "r")

    with Emulator() as emulator, Recorder(path) as recorder:
        config = Config.from_env(emulator.environment)
        run_program("blocking", program, config, transport=recorder)
    assert "Date: +0" in exchanges(path)[0]["answer"]["headers"]
    assert play(path, program, config=config).headers["date"].endswith(" GMT")


def test_a_clock_that_is_off_is_off_again(path):
    """A signature is refused for its date, and made again: also months after it was recorded."""
    with Emulator(now=lambda: 1772798400.0) as emulator, Recorder(path) as recorder:
        config = Config.from_env(emulator.environment)

        async def program(client):
            return (await client.get("resources"))["code"]

        assert run_program("blocking", program, config, transport=recorder) == "SUCCESS"
    refused, answered = exchanges(path)
    assert refused["answer"]["status"] in (401, 403)
    assert answered["answer"]["status"] == 200
    assert play(path, program, config=config) == "SUCCESS"


def test_a_content_coding_is_taken_off(path):
    coded = Reply(
        content=gzip.compress(b'{"accessToken": "hidden-in-gzip", "n": 1}'),
        headers={"Content-Encoding": "gzip"},
    )

    async def program(client):
        return (await client.get("r"))["n"]

    assert record(path, [coded], program) == 1
    told = exchanges(path)[0]["answer"]
    assert told["content"] == ['{"accessToken": "**************", "n": 1}']
    assert "headers" not in told
    assert play(path, program) == 1


def test_a_coding_that_is_damaged_stays_so(path):
    async def program(client):
        with pytest.raises(DecodeError) as caught:
            await client.get("r")
        return type(caught.value)

    damaged = gzip.compress(b'{"accessToken": "hidden-in-gzip"}')[:-9]
    record(path, [Reply(content=damaged, headers={"Content-Encoding": "gzip"})], program)
    assert exchanges(path)[0]["answer"]["content"] == ["?"]
    assert play(path, program) is DecodeError


# --- failures


@on_every_client
def test_failures_are_played(kind, path):
    script = [
        ConnectError("refused"),
        Reply(content="{", headers={"Content-Length": "9"}, failure=IncompleteError("cut")),
        Reply(json={"ok": 1}),
    ]

    async def program(client):
        return await client.get("resources")

    assert record(path, script, program, kind=kind) == {"ok": 1}
    assert exchanges(path)[0]["failure"] == {
        "error": "ConnectError",
        "message": "refused",
        "may_be_processed": False,
    }
    assert play(path, program, kind=kind) == {"ok": 1}


@pytest.mark.parametrize("transport", ["native", "httpcore"])
@pytest.mark.parametrize("kind", ["blocking", "asyncio", "trio"])
def test_failures_of_real_connections_are_played(kind, transport, path):
    async def program(client):
        told = []
        for number in range(3):
            try:
                told.append(await client.post("r", {"n": number}))
            except AgentRunClientError as error:
                told.append((type(error), error.message, error.may_be_processed))
        return told

    cut = [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", Step.CLOSE]
    with ScriptedServer([Step.RESET], cut, answer({"ok": 1})) as server:
        config = Config(data_endpoint=server.url)
        with Recorder(path, transport=transport) as recorder:
            recorded = run_program(kind, program, config, transport=recorder)
    assert [told if isinstance(told, dict) else told[0] for told in recorded] == [
        IncompleteError,
        IncompleteError,
        {"ok": 1},
    ]
    assert play(path, program, kind=kind, config=config) == recorded


@pytest.mark.parametrize("timeout", [0.5, Timeout(total=60, read=0.05)])
def test_a_timeout_is_played_at_once(timeout, path):
    async def program(client):
        try:
            return await client.get("r")
        except ReadTimeout as error:
            return len(error.attempts)

    config = Config(timeout=timeout, retry=Retry(backoff=0.0))
    with ScriptedServer([Step.STALL], [Step.STALL], [Step.STALL]) as server:
        config = config.merge(Config(data_endpoint=server.url))
        with Recorder(path) as recorder:
            recorded = run_program("blocking", program, config, transport=recorder)
    assert recorded == (1 if timeout == 0.5 else 3)
    assert play(path, program, config=config) == recorded


@on_every_client
def test_a_download_that_breaks_and_goes_on(kind, path, tmp_path):
    out = tmp_path / "out"
    broken = Reply(
        content=b"01", headers={"ETag": '"1"', "Content-Length": "4"}, failure=IncompleteError("cut")
    )
    rest = Reply(206, content=b"\xff3", headers={"ETag": '"1"', "Content-Range": "bytes 2-3/4"})

    async def program(client):
        await client.get_file("files", out)
        return out.read_bytes()

    assert record(path, [broken, rest], program, kind=kind) == b"01\xff3"
    told = exchanges(path)
    assert told[0]["answer"]["content"] == ["01"]
    assert told[0]["failure"]["error"] == "IncompleteError"
    assert "Range: bytes=2-" in told[1]["request"]["headers"]
    out.unlink()
    assert play(path, program, kind=kind) == b"01\xff3"


@on_every_client
def test_a_stream_that_is_left_cannot_be_read_any_further(kind, path):
    live = Reply(content=["1\n", "2\n", "3\n"])

    def program(lines):
        async def read(client):
            told = []
            async with client.stream("GET", "r") as stream:
                async for line in stream.lines():
                    told.append(line)
                    if len(told) == lines:
                        return told
            return told

        return read

    record(path, [live], program(2), kind=kind)
    assert exchanges(path)[0]["left"] is True
    assert play(path, program(2), kind=kind) == ["1", "2"]
    with pytest.raises(UnexpectedRequest, match="not read any further when it was recorded"):
        play(path, program(3), kind=kind)


def test_what_was_too_large_is_too_large_again(path, monkeypatch):
    monkeypatch.setattr("agentrun_proto.flows.MAX_BODY", 3)

    async def program(client):
        with pytest.raises(DecodeError) as caught:
            await client.get("r")
        return caught.value.message

    assert record(path, [Reply(content=b"12345")], program) == play(path, program)


def test_a_file_that_cannot_be_written_is_no_failure_of_the_exchange(path, tmp_path, monkeypatch):
    def full(self, piece):
        raise OSError(28, "no space left")

    async def program(client):
        with pytest.raises(FileError):
            await client.get_file("r", tmp_path / "out")

    with monkeypatch.context() as patched:
        patched.setattr("agentrun_transports._files.FileSink.write", full)
        record(path, [Reply(content=b"x")], program)
        play(path, program)
    assert exchanges(path)[0]["left"] is True


def test_what_the_caller_did_wrong_is_not_recorded(path):
    class Broken:
        def __iter__(self):
            yield "text"

    async def program(client):
        with pytest.raises(TypeError):
            await client.post("r", Broken())

    record(path, [], program)
    assert exchanges(path) == []
    play(path, program)


def test_a_file_that_shrinks_is_not_recorded(path, tmp_path):
    async def program(client):
        with open(tmp_path / "f", "w+b") as file:
            file.write(b"12345")
            file.seek(0)
            lengths = iter([0, 5, 0])

            class Shrinking:
                seekable, seek, tell = file.seekable, file.seek, lengths.__next__

                def read(self, size):
                    return b""

            with pytest.raises(AgentRunClientError, match="ended"):
                await client.post("r", Shrinking())

    record(path, [], program)
    assert exchanges(path) == []


def test_a_body_that_was_not_sent_whole_matches_by_its_length(path):
    """A refusal comes before all of it is sent: nobody has seen the rest."""
    early = [Step.EARLY, answer({"message": "no"}, "413 Content Too Large"), Step.CLOSE]

    async def program(client):
        with pytest.raises(AgentRunClientError) as caught:
            await client.post("r", iter([b"x" * 1000] * size))
        return caught.value.status_code

    size = 20_000
    with ScriptedServer(early) as server:
        config = Config(data_endpoint=server.url)
        with Recorder(path) as recorder:
            recorded = run_program("blocking", program, config, transport=recorder)
    assert recorded == 413
    (told,) = exchanges(path)[0]["request"]["content"]
    assert told == {"length": None}
    assert play(path, program, config=config) == 413


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
def test_async_iterables_are_recorded(kind, path):
    async def pieces():
        yield b"a"
        yield b"b"

    async def program(client):
        return await client.post("r", pieces())

    record(path, [Reply(json={})], program, kind=kind)
    (told,) = exchanges(path)[0]["request"]["content"]
    assert told == {"length": 2, "sha256": hashlib.sha256(b"ab").hexdigest()}
    play(path, program, kind=kind)


def test_an_upload_that_is_retried_is_counted_anew(path, tmp_path):
    (tmp_path / "in").write_bytes(b"content")

    with open(tmp_path / "in", "rb") as file:

        async def put(client):
            file.seek(0)
            return await client.put("r", file)

        record(path, [Reply(503, json={}), Reply(json={"ok": 1})], put)
        assert play(path, put) == {"ok": 1}
    told = [exchange["request"]["content"] for exchange in exchanges(path)]
    assert told[0] == told[1] == [{"length": 7, "sha256": Told.of(b"content").checksum}]


def test_an_upload_that_meets_a_closed_connection_is_counted_anew(path):
    """It goes out again below what is recorded: one exchange, and what it carried once."""

    async def program(client):
        await client.get("r")
        return await client.put("r", io.BytesIO(b"content"))

    with ScriptedServer(answer({}), [Step.RESET], answer({"ok": 1})) as server:
        config = Config(data_endpoint=server.url)
        with Recorder(path) as recorder:
            assert run_program("blocking", program, config, transport=recorder) == {"ok": 1}
    _, put = exchanges(path)
    assert put["request"]["content"] == [{"length": 7, "sha256": Told.of(b"content").checksum}]


def test_an_empty_file_is_whole(path):
    async def program(client):
        return await client.put("r", io.BytesIO())

    record(path, [Reply(json={})], program)
    (told,) = exchanges(path)[0]["request"]["content"]
    assert told == {"length": 0, "sha256": Told.of(b"").checksum}
    play(path, program)


def test_a_call_that_is_cancelled_before_its_answer_is_not_recorded(path):
    async def main():
        with ScriptedServer([Step.STALL]) as server, Recorder(path) as recorder:
            async with AsyncioClient(Config(data_endpoint=server.url), transport=recorder) as client:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(client.get("r"), 0.05)

    asyncio.run(main())
    assert exchanges(path) == []


# --- what matches


def test_requests_match_in_any_order_and_alike_ones_in_theirs(path):
    async def program(client):
        return [await client.get(name) for name in names]

    names = ["a", "b", "a"]
    record(path, [Reply(json={"n": number}) for number in range(3)], program)
    names = ["b", "a", "a"]
    assert play(path, program) == [{"n": 1}, {"n": 0}, {"n": 2}]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("GET", "resources/2", None), r"The nearest that was: GET http://h/.*/resources/1"),
        (("PUT", "resources/1", {"n": 1}), r"The nearest that was: POST http://h/.*/resources/1"),
        (("GET", "resources/1?x=1", None), r"The nearest that was: GET http://h/.*/resources/1"),
        (("POST", "resources/1", {"n": 2}), r"with other content.\n.*\{\"n\":1\}\n.*\{\"n\":2\}"),
        (("POST", "resources/1", None), r"with other content.\n.*\{\"n\":1\}\nasked:    \(none\)"),
        (("GET", "else", None), r"and is asked for once more"),
    ],
)
def test_what_was_not_recorded_is_told_beside_what_was(asked, message, path):
    config = Config(data_endpoint="http://h")

    async def program(client):
        await client.get("else")
        await client.get("resources/1")
        await client.post("resources/1", {"n": 1})

    record(path, [Reply(json={})] * 3, program, config=config)
    player = Player(path)
    with BlockingClient(config, transport=player) as client:
        client.get("else")
        with pytest.raises(UnexpectedRequest, match=f"(?s)^{asked[0]} .*{message}"):
            client.request(*asked)
    assert len(player.unplayed) == 2


def test_an_empty_recording_says_so(path):
    Recorder(path).save()
    with (
        BlockingClient(CONFIG, transport=Player(path)) as client,
        pytest.raises(UnexpectedRequest, match="holds nothing"),
    ):
        client.get("r")


def test_recordings_of_all_clients_of_one_recorder_are_one(path):
    canned = CannedTransport([Reply(json={"n": 1}), Reply(json={"n": 2})])
    with Recorder(path, transport=canned) as recorder:
        for name in ("a", "b"):
            BlockingClient(CONFIG, transport=recorder).get(name)
    assert [exchange["request"]["url"][-1] for exchange in exchanges(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("recorded", "asked", "same"),
    [
        ("resources/1", "resources/1", True),
        ("resources/1", "resources/12", False),
        ("a***z?b=***", "a/1/z?b=2", True),
        ("a***z?b=***", "az?b=2", False),
        ("a***z?b=***", "a1z?b=", False),
        ("a***z?b=***", "b1z?b=2", False),
        ("a***y***z", "a1x2z", False),
        ("a***z", "a1zz", True),
        ("a***z", "a1y", False),
        ("a*z", "a1z", False),
    ],
)
def test_where_a_secret_was_anything_may_stand(recorded, asked, same):
    request = Request(method="GET", origin=Origin("http", "h", 80), target=f"/{asked}")
    assert Recorded(method="GET", url=f"http://h/{recorded}").same_address(request) is same
    post = Recorded(method="GET", url="u", segments=(recorded.encode(),))
    assert post.same_content([asked.encode()]) is same


# --- the file on disk


def test_a_block_that_fails_leaves_the_old_file(path):
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), Recorder(path):
        raise ZeroDivisionError
    assert path.read_text() == "old"


def test_what_cannot_be_written_leaves_no_trace(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError, match="folder"):
        Recorder(target).save()
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(FileNotFoundError):
        Recorder(tmp_path / "missing" / "x.json").save()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"recording": 2, "exchanges": []}',
        '{"recording": 1, "exchanges": [{}]}',
        '{"recording": 1, "exchanges": [{"request": {"method": "GET", "url": "u"}}]}',
        '{"recording": 1, "exchanges": [{"request": {"method": "GET", "url": "u", "headers": ["a"]}, '
        '"answer": {"status": 200}}]}',
        '{"recording": 1, "exchanges": [{"request": {"method": "GET", "url": "u", '
        '"content": [{"base64": "!"}]}, "answer": {"status": 200}}]}',
        '{"recording": 1, "exchanges": [{"request": {"method": "GET", "url": "u"}, '
        '"failure": {"error": "Nonsense", "message": "", "may_be_processed": true}}]}',
    ],
)
def test_what_is_no_recording_is_refused(text, path):
    path.write_text(text)
    with pytest.raises(ValueError, match=r"exchanges\.json is no recording of version 1"):
        Player(path)


def test_a_recording_may_be_written_by_hand(path):
    told = {
        "recording": 1,
        "exchanges": [
            {
                "request": {"method": "GET", "url": "http://h/2025-09-10/agents/r"},
                "answer": {"status": 401, "headers": ["Date: Sun, 06 Nov 1994 08:49:37 GMT"]},
            }
        ],
    }
    path.write_text(json.dumps(told))
    with (
        BlockingClient(Config(data_endpoint="http://h"), transport=Player(path)) as client,
        pytest.raises(AuthenticationError) as caught,
    ):
        client.get("r")
    assert caught.value.response_headers["date"] == "Sun, 06 Nov 1994 08:49:37 GMT"
