"""Connections that die while idle or as the next request goes out, uploads refused half-way, and reuse.

HOSTILE: "idle connection closed, reset, or sent a 408"; "connection dropped as the next request goes out";
"close or reset before or amid an answer: a POST is not sent again"; "413 before the upload is finished";
"file shrinks or grows while it is sent".
"""

from __future__ import annotations

import math
import os
import select
import threading
import time

import pytest

from agentrun_proto import (
    AgentRunClientError,
    BodyError,
    IncompleteError,
    PayloadTooLargeError,
    Timeout,
)
from agentrun_transports import _files
from transports_support import (
    DRIVERS,
    PATIENCE,
    Announce,
    BeforeBody,
    Close,
    Pause,
    RawServer,
    Repeat,
    Reset,
    Rudely,
    Say,
    Stall,
    answer,
    assert_next_call_is_right,
)

OK = Say(answer({"ok": 1}))


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request):
    return request.param


@pytest.mark.hostile("answers-idle-dead")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("fate", ["closed", "reset", "408", "408_closed"])
def test_an_idle_connection_is_found_dead(driver, fate, method):
    """X, on a new connection, whatever the method: nothing was sent on the old one."""
    read, over = threading.Event(), threading.Event()
    steps = {
        "closed": (Rudely(),),
        "reset": (Reset(),),
        "408": (Say(answer(b"", "408 Request Timeout")), Announce(over)),
        "408_closed": (Say(answer(b"", "408 Request Timeout", "Connection: close\r\n")), Rudely()),
    }[fate]
    with RawServer((OK, Pause(read), *steps)) as server, driver.client(server.config()) as client:
        assert client.call("GET", "first") == {"ok": 1}
        read.set()
        if fate == "408":
            assert over.wait(PATIENCE)
        else:
            _until_the_peer_has_closed(client)
        assert client.call(method, "second")["target"].endswith("/second")
        assert [request.connection for request in server.requests] == [0, 1]
        assert_next_call_is_right(client)


def _until_the_peer_has_closed(client):
    """Waits for the end of an idle connection to have arrived here, without a sleep."""
    (link,) = client._client._session.pool.idle
    poller = select.poll()
    poller.register(link._sock, select.POLLRDHUP)
    assert poller.poll(PATIENCE * 1000)


@pytest.mark.hostile("answers-dropped")
@pytest.mark.parametrize("end", [Close, Reset, Rudely], ids=lambda end: end.__name__)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_a_reused_connection_is_dropped_as_the_next_request_goes_out(driver, method, end):
    """An idempotent request goes out once more, on a fresh connection, and is answered."""
    with RawServer((OK,), (end(),)) as server, driver.client(server.config()) as client:
        assert client.call("GET", "first") == {"ok": 1}
        found = client.call(method, "second")
        assert found == b"" if method == "HEAD" else found["target"].endswith("/second")
        assert [request.connection for request in server.requests] == [0, 0, 1]
        assert_next_call_is_right(client)


@pytest.mark.hostile("answers-lost", "answers-dropped")
@pytest.mark.parametrize("end", [Close, Reset], ids=lambda end: end.__name__)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_an_ambiguous_request_is_never_repeated(driver, method, end):
    with RawServer((OK,), (end(),)) as server, driver.client(server.config()) as client:
        assert client.call("GET", "first") == {"ok": 1}
        with pytest.raises(IncompleteError) as caught:
            client.call(method, "second", data={"a": 1})
        assert caught.value.may_be_processed
        assert [request.target.rpartition("/")[2] for request in server.requests] == ["first", "second"]
        assert_next_call_is_right(client)


@pytest.mark.hostile("answers-dropped")
@pytest.mark.parametrize("end", [Close, Reset], ids=lambda end: end.__name__)
def test_only_once_more(driver, end):
    """A second death of the same request is an error: the fresh connection had no time to grow stale."""
    with RawServer((OK,), (end(),), (end(),)) as server, driver.client(server.config()) as client:
        client.call("GET", "first")
        with pytest.raises(IncompleteError):
            client.call("GET", "second")
        assert len(server.requests) == 3
        assert_next_call_is_right(client)


@pytest.mark.hostile("answers-lost")
@pytest.mark.parametrize("end", [Close, Reset], ids=lambda end: end.__name__)
def test_a_fresh_connection_that_dies_is_an_error(driver, end):
    with RawServer((end(),)) as server, driver.client(server.config()) as client:
        with pytest.raises(IncompleteError):
            client.call("GET", "first")
        assert len(server.requests) == 1
        assert_next_call_is_right(client)


@pytest.mark.hostile("answers-lost")
def test_a_death_amid_the_answer_is_never_repeated(driver):
    with (
        RawServer((OK,), (Say(b"HTTP/1.1 200 O"), Close())) as server,
        driver.client(server.config()) as client,
    ):
        client.call("GET", "first")
        with pytest.raises(IncompleteError):
            client.call("GET", "second")
        assert len(server.requests) == 2
        assert_next_call_is_right(client)


def test_a_large_put_is_sent_once_more_from_its_start(driver):
    data = os.urandom(300_000)
    with RawServer((OK,), (BeforeBody(), Reset())) as server, driver.client(server.config()) as client:
        client.call("GET", "first")
        assert client.call("PUT", "second", data=data)["target"].endswith("/second")
        assert server.requests[-1].body == data
        assert_next_call_is_right(client)


# --- uploads


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large.bin"
    with open(path, "wb") as file:
        file.truncate(32 * 1024 * 1024)
    return path


REFUSAL = answer({"code": "ERR_TOO_LARGE", "requestId": "id-1"}, "413 Content Too Large")


@pytest.mark.hostile("answers-early-refusal")
@pytest.mark.parametrize("end", [(Reset(),), (Rudely(),), (Close(),)], ids=["reset", "rudely", "politely"])
def test_413_before_the_upload_is_finished(driver, large, end):
    """E showing 413, not a broken pipe, whether the peer closes, resets, or goes on reading."""
    with RawServer((BeforeBody(), Say(REFUSAL), *end)) as server, driver.client(server.config()) as client:
        with pytest.raises(AgentRunClientError) as caught:
            client.upload("upload", large, "/target")
        if not (isinstance(end[0], Reset) and isinstance(caught.value, IncompleteError)):
            # A reset may overtake the refusal on the wire; then it was never here to be shown.
            assert isinstance(caught.value, PayloadTooLargeError)
            assert caught.value.error_code == "ERR_TOO_LARGE"
        assert len(server.requests) == 1
        assert_next_call_is_right(client)


@pytest.mark.hostile("answers-early-refusal")
@pytest.mark.parametrize("pause", [0.0, 0.3], ids=["at_once", "while_we_are_stuck"])
def test_413_from_a_peer_that_reads_no_further(driver, large, pause):
    """It answers, keeps the connection open and reads nothing: what it said counts, not our timeout."""
    late = Repeat(b"", times=1, pause=pause)  # by then the socket's buffers are full
    with (
        RawServer((BeforeBody(), late, Say(REFUSAL), Stall())) as server,
        driver.client(server.config(timeout=Timeout(write=5.0, total=20.0))) as client,
    ):
        with pytest.raises(PayloadTooLargeError):
            client.upload("upload", large, "/target")
        assert_next_call_is_right(client)


@pytest.mark.hostile("answers-early-refusal")
def test_413_from_a_peer_that_reads_no_further_when_there_is_no_deadline(driver, large):
    """Nothing but the answer itself can end the wait for room; the peer closes much later."""
    late, much_later = Repeat(b"", times=1, pause=0.3), Repeat(b"", times=1, pause=6.0)
    with (
        RawServer((BeforeBody(), late, Say(REFUSAL), much_later, Rudely())) as server,
        driver.client(server.config(timeout=math.inf)) as client,
    ):
        began = time.monotonic()
        with pytest.raises(PayloadTooLargeError):
            client.upload("upload", large, "/target")
        assert time.monotonic() - began < 5.0


@pytest.mark.hostile("answers-early-refusal")
def test_413_to_a_large_body_in_memory(driver):
    with (
        RawServer((BeforeBody(), Say(REFUSAL), Rudely())) as server,
        driver.client(server.config()) as client,
    ):
        with pytest.raises(PayloadTooLargeError):
            client.call("POST", "x", data=bytes(32 * 1024 * 1024))
        assert len(server.requests) == 1
        assert_next_call_is_right(client)


def test_an_early_answer_keeps_the_connection_from_being_reused(driver, large):
    """Our side was not done: what we still owe would be read as the next request."""
    with (
        RawServer((BeforeBody(), Say(answer({"ok": 1})), Close())) as server,
        driver.client(server.config()) as client,
    ):
        assert client.upload("upload", large, "/target") == {"ok": 1}
        assert client.open_connections() == 0
        assert_next_call_is_right(client)
        assert server.connections == 2


def test_an_interim_answer_amid_an_upload_is_passed_over(driver, large):
    with (
        RawServer((BeforeBody(), Say(b"HTTP/1.1 103 Early Hints\r\n\r\n" + REFUSAL), Close())) as server,
        driver.client(server.config()) as client,
        pytest.raises(PayloadTooLargeError),
    ):
        client.upload("upload", large, "/target")


@pytest.mark.hostile("files-size-changes")
@pytest.mark.parametrize("by", [-1, -300_000, -(10**6)])
def test_a_file_that_shrinks(driver, tmp_path, monkeypatch, by):
    path = tmp_path / "f"
    path.write_bytes(bytes(10**6))
    _when_first_read(monkeypatch, lambda: os.truncate(path, 10**6 + by))
    with RawServer() as server, driver.client(server.config()) as client:
        with pytest.raises(BodyError):
            client.upload("upload", path, "/target")
        assert client.open_connections() == 0
        assert_next_call_is_right(client)


@pytest.mark.hostile("files-size-changes")
def test_a_file_that_grows(driver, tmp_path, monkeypatch):
    """Exactly the declared length is sent."""
    path = tmp_path / "f"
    path.write_bytes(b"a" * 10**6)

    def grow():
        with open(path, "ab") as file:
            file.write(b"b" * 10**6)

    _when_first_read(monkeypatch, grow)
    with RawServer() as server, driver.client(server.config()) as client:
        client.upload("upload", path, "/target")
        body = server.requests[0].body
        assert body.count(b"a" * 1000) == 1000
        assert b"bbb" not in body
        assert_next_call_is_right(client)
        assert server.connections == 1


def _when_first_read(monkeypatch, change):
    """By us or by the system, whoever sends the file."""
    pending = [change]

    def after_the_change(function):
        def wrapped(*arguments):
            if pending:
                pending.pop()()
            return function(*arguments)

        return wrapped

    monkeypatch.setattr(_files.FileSource, "read", after_the_change(_files.FileSource.read))
    if hasattr(os, "sendfile"):
        monkeypatch.setattr(os, "sendfile", after_the_change(os.sendfile))


@pytest.mark.hostile("published-client-per-call")
def test_keep_alive_is_counted_on_the_server(driver):
    with RawServer() as server, driver.client(server.config()) as client:
        for n in range(20):
            assert client.call("POST", f"r{n}", data={"n": n})["target"].endswith(f"/r{n}")
        assert server.connections == 1
        assert [request.connection for request in server.requests] == [0] * 20
