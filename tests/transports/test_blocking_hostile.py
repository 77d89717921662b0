"""Every row of HOSTILE's "Answers" over a real socket, on every driver, whole and byte by byte.

In each row: one of the allowed outcomes and no foreign exception, in time; no request is repeated that may
have been acted on; and the next call on the same client gets its own answer.
"""

from __future__ import annotations

import threading
import time

import pytest

from agentrun_proto import AgentRunClientError, DecodeError, IncompleteError
from hostile import ROWS, cases, head
from transports_support import (
    DRIVERS,
    LOOP_DRIVERS,
    PATIENCE,
    Announce,
    Close,
    Pause,
    RawServer,
    Repeat,
    Say,
    Stall,
    answer,
    assert_next_call_is_right,
)

DEADLINE = 0.4  # for rows on silence
GENEROUS = 15.0  # what two busy cores may make of it


@pytest.fixture(
    params=[*DRIVERS, *(pytest.param(driver, marks=pytest.mark.once) for driver in LOOP_DRIVERS)],
    ids=lambda driver: driver.name,
)
def driver(request):
    return request.param


def outcome(call):
    try:
        return call()
    except AgentRunClientError as error:
        return error


def run(driver, row, *, bytewise):
    said = threading.Event()
    with RawServer(row.script(Announce(said)), bytewise=bytewise) as server:
        config = server.config(timeout=DEADLINE if row.silent else PATIENCE)
        with driver.client(config) as client:
            began = time.monotonic()
            found = outcome(lambda: client.call(row.method, "row"))
            assert time.monotonic() - began < GENEROUS
            row.judge(found)
            assert len(server.requests) == 1, "the request was sent more than once"
            assert client.open_connections() == client.idle_connections()
            if row.reuse is False:
                # What is left over may arrive after the answer. If it came after the next request, it would
                # be taken for its answer, by any client of HTTP/1.1: so the next call waits until it is here.
                assert said.wait(PATIENCE)
                server_side = server.connections
                assert_next_call_is_right(client)
                assert server.connections == server_side + 1
            else:
                assert_next_call_is_right(client)
            if row.reuse is True:
                assert server.connections == 1


@pytest.mark.parametrize("row", cases(ROWS))
def test_whole(driver, row):
    run(driver, row, bytewise=False)


@pytest.mark.parametrize(
    "row",
    # A silence is as long however the bytes before it came.
    cases(row for row in ROWS if not row.big and not row.silent and not row.after and len(row.raw) < 2000),
)
def test_byte_by_byte(driver, row):
    run(driver, row, bytewise=True)


@pytest.mark.hostile("answers-left-over")
def test_a_second_answer_that_comes_later(driver):
    """A second answer 50 ms later: the connection is closed, and the next call is right."""
    for evil in (
        answer({"evil": 1}),
        b"x",
        answer({"evil": 1})[:-2],
        b"HTTP/1.1 408 Request Timeout\r\n\r\n",
    ):
        read, sent = threading.Event(), threading.Event()
        with (
            RawServer((Say(answer({"ok": 1})), Pause(read), Say(evil), Announce(sent))) as server,
            driver.client(server.config()) as client,
        ):
            assert client.call("GET", "first") == {"ok": 1}
            read.set()
            assert sent.wait(PATIENCE)
            assert_next_call_is_right(client)
            assert server.connections == 2


# --- answers to downloads: the same rows of "bytes after the answer" and "cut short", read the other way


@pytest.mark.hostile("answers-left-over")
@pytest.mark.parametrize(
    "data",
    [
        answer(b"file") + b"x",
        answer(b"file") + answer({"evil": 1}),
        answer(b"file") + answer({"evil": 1})[:-3],
        answer(b"") + answer({"evil": 1}),
        answer(b"") + b"\r\n",
        head("Transfer-Encoding: chunked", length=None) + b"4\r\nfile\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n",
        head("X: a", "Connection: b", length=4) + b"file" + answer({"evil": 1}),
    ],
    ids=["byte", "answer", "part", "empty_answer", "empty_line", "chunked", "long_road"],
)
def test_bytes_after_a_download(driver, tmp_path, data):
    with RawServer((Say(data),)) as server, driver.client(server.config()) as client:
        found = client.download("file", tmp_path / "f")
        assert (tmp_path / "f").read_bytes() in (b"file", b"")
        assert found["size"] == (tmp_path / "f").stat().st_size
        assert client.open_connections() == 0, "bytes were left over, and the connection was kept"
        assert_next_call_is_right(client)
        assert server.connections == 2


@pytest.mark.hostile("files-broken-off", "published-overwritten")
@pytest.mark.parametrize(
    ("data", "end", "error"),
    [
        (head(length=20) + b"half", (Close(),), IncompleteError),
        (head("Transfer-Encoding: chunked", length=None) + b"4\r\nhalf\r\n", (Close(),), IncompleteError),
        (head("Transfer-Encoding: chunked", length=None) + b"4\r\nhalf\r\n-1\r\n", (), AgentRunClientError),
        (answer(b'{"code": "ERR"}', fields="Content-Type: application/json\r\n"), (), DecodeError),
        (
            answer(b'{"code": "ERR"}', fields="content-type: Application/JSON;charset=utf-8\r\n"),
            (),
            DecodeError,
        ),
        (answer(b"no", "404 Not Found"), (), AgentRunClientError),
        (answer(b"", "302 Found", "Location: file:///x\r\n"), (), AgentRunClientError),
        # Never asked for (no Range): the bytes are not the file's.
        (
            answer(b"part", "206 Partial Content", "Content-Range: bytes 0-3/1000\r\n"),
            (),
            AgentRunClientError,
        ),
    ],
    ids=["cut", "cut_chunks", "bad_chunk", "json", "json_charset", "404", "302", "206"],
)
def test_a_download_that_fails_leaves_the_old_file(driver, tmp_path, data, end, error):
    target = tmp_path / "f"
    target.write_bytes(b"old")
    with RawServer((Say(data), *end)) as server, driver.client(server.config()) as client:
        with pytest.raises(error):
            client.download("file", target)
        assert target.read_bytes() == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["f"]
        assert_next_call_is_right(client)


@pytest.mark.hostile("answers-silence", "files-broken-off")
@pytest.mark.parametrize("steps", [(Stall(),), (Repeat(b"y", pause=0.05),)], ids=["silence", "drip"])
def test_a_download_without_end(driver, tmp_path, steps):
    from agentrun_proto import Timeout, TimeoutExceeded

    with RawServer((Say(head(length=10**9) + b"x"), *steps)) as server:
        config = server.config(timeout=Timeout(total=DEADLINE))
        with driver.client(config) as client:
            began = time.monotonic()
            with pytest.raises(TimeoutExceeded):
                client.download("file", tmp_path / "f")
            assert time.monotonic() - began < GENEROUS
            assert list(tmp_path.iterdir()) == []
            assert_next_call_is_right(client)


@pytest.mark.hostile("answers-huge-head")
def test_fields_cost_no_more_than_their_length():
    """60 KB of spaces inside a value: reading them is linear, or a peer holds us up past any deadline."""
    from agentrun_proto import Headers

    block = "Content-Encoding: identity\r\nX: y" + " " * 60_000 + "y\r\n"
    began = time.process_time()
    assert len(Headers.from_block(block).fields) == 2
    assert time.process_time() - began < 1.0  # linear: below a millisecond; quadratic: about ten seconds


@pytest.mark.parametrize("coding", ["gzip", "br", "unheard-of"])
def test_a_download_is_saved_as_it_is_stored(driver, tmp_path, coding):
    """A file may be stored under a content coding: no download takes one off."""
    coded = answer(b"coded", fields=f"Content-Encoding: {coding}\r\n")
    with RawServer((Say(coded),)) as server, driver.client(server.config()) as client:
        client.download("file", tmp_path / "f")
        assert (tmp_path / "f").read_bytes() == b"coded"
