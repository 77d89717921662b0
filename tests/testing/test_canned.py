"""The canned transport: answers in order on every client, failures, live answers, and what was asked."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from agentrun_proto import (
    AccessKey,
    AgentRunClientError,
    Config,
    ConnectError,
    CredentialError,
    DecodeError,
    Head,
    Headers,
    IncompleteError,
    NotFoundError,
    Origin,
    ReadSome,
    ReadTimeout,
    Request,
    Resource,
    Retry,
    Secret,
    Send,
    ServiceUnavailableError,
    Timeout,
    TransportError,
)
from agentrun_transports import AsyncioClient, BlockingClient
from agentrun_transports._routes import Route, Setup
from agentrun_transports.testing import CannedTransport, MadeRequest, Reply, UnexpectedRequest
from agentrun_transports.testing.memory import MemorySession
from testing_support import CLIENTS, clean_environment, run_program

CONFIG = Config(account_id="1", access_key_id="id", access_key_secret="secret")
on_every_client = pytest.mark.parametrize("kind", CLIENTS)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("nothing here opens a connection")

    clean_environment(monkeypatch)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@on_every_client
def test_answers_come_in_order_and_requests_are_there_to_be_looked_at(kind):
    canned = CannedTransport([Reply(200, json={"n": 1}), Reply(404, json={"message": "no"}), Reply()])

    async def program(client):
        first = await client.post("resources?page=1", {"name": "a"}, query={"limit": 2}, headers={"X-A": "b"})
        with pytest.raises(NotFoundError, match="no"):
            await client.get("resources/x")
        return first, await client.delete("resources/y")

    assert run_program(kind, program, CONFIG, transport=canned) == ({"n": 1}, {})
    first, second, third = canned.requests
    assert (first.method, second.method, third.method) == ("POST", "GET", "DELETE")
    assert first.url.endswith(".aliyuncs.com/2025-09-10/agents/resources?page=1&limit=2")
    assert first.json() == {"name": "a"}
    assert first.headers["x-a"] == "b"
    assert first.headers["content-type"] == "application/json"
    assert first.headers["agentrun-authorization"].startswith("AGENTRUN4-HMAC-SHA256 Credential=id/")
    assert third.content == b""
    assert canned.unused == []


@on_every_client
def test_a_failure_is_met_retried_and_its_pause_takes_no_time(kind):
    canned = CannedTransport([ConnectError("refused"), Reply(503, json={}), Reply(json={"ok": True})])
    config = CONFIG.merge(Config(retry=Retry(attempts=3, backoff=200.0), timeout=1000))

    async def program(client):
        return await client.get("resources")

    assert run_program(kind, program, config, transport=canned) == {"ok": True}
    assert len(canned.requests) == 3
    assert canned.requests[0].headers["x-acs-date"] <= canned.requests[2].headers["x-acs-date"]


def test_pauses_count_against_the_deadline():
    canned = CannedTransport([Reply(503, headers={"Retry-After": "15"})] * 10)
    config = CONFIG.merge(Config(retry=Retry(attempts=9, backoff=15.0, max_backoff=15.0), timeout=40))
    with (
        BlockingClient(config, transport=canned) as client,
        pytest.raises(ServiceUnavailableError, match="outlast the call"),
    ):
        client.get("resources")
    assert len(canned.requests) == 3  # each pause is of 15 seconds, whatever is drawn: two of them fit


@pytest.mark.parametrize(
    ("timeout", "requests"), [(Timeout(total=600, read=5), 2), (600, 1), (Timeout(total=9, read=5), 2)]
)
def test_a_timeout_has_passed_at_once(timeout, requests):
    canned = CannedTransport([ReadTimeout("silence"), Reply(json={"ok": 1})])
    config = CONFIG.merge(Config(timeout=timeout, retry=Retry(backoff=0.0)))
    with BlockingClient(config, transport=canned) as client:
        if requests == 1:
            with pytest.raises(ReadTimeout):
                client.get("resources")
        else:
            assert client.get("resources") == {"ok": 1}
    assert len(canned.requests) == requests


def test_a_transfer_without_any_limit_times_out_and_goes_on():
    inf = float("inf")
    canned = CannedTransport([ReadTimeout("silence"), Reply(content=b"x")])
    config = CONFIG.merge(Config(timeout=Timeout(total=inf, read=inf), retry=Retry(backoff=0.0)))
    with BlockingClient(config, transport=canned) as client, client.stream("GET", "events") as stream:
        assert list(stream) == [b"x"]


@on_every_client
def test_a_live_answer_comes_piece_by_piece_and_breaks(kind):
    pieces = ["data: a\n\nda", "ta: b\n\n", "", b"data: c\n\n"]
    canned = CannedTransport([Reply(content=pieces, failure=IncompleteError("cut")), Reply(content=pieces)])

    async def program(client):
        told = []
        async with client.stream("GET", "events") as stream:
            try:
                async for event in stream.events():
                    told.append(event.data)  # noqa: PERF401 - what came before the failure counts
            except IncompleteError as error:
                told.append(error.message)
        async with client.stream("GET", "events") as stream:
            told += [piece async for piece in stream]
        return told

    assert run_program(kind, program, CONFIG, transport=canned) == [
        "a",
        "b",
        "c",
        "cut",
        b"data: a\n\nda",
        b"ta: b\n\n",
        b"data: c\n\n",
    ]


@on_every_client
def test_files_are_sent_and_saved(kind, tmp_path):
    (tmp_path / "in").write_bytes(b"x" * 300_000)
    broken = Reply(
        content=b"01", headers={"ETag": '"1"', "Content-Length": "4"}, failure=IncompleteError("cut")
    )
    rest = Reply(206, content=b"23", headers={"ETag": '"1"', "Content-Range": "bytes 2-3/4"})
    canned = CannedTransport([Reply(json={}), broken, rest])
    told = []

    async def program(client):
        await client.post_file(
            "files", tmp_path / "in", "/in", progress=lambda done, total: told.append((done, total))
        )
        return await client.get_file("files", tmp_path / "out")

    config = CONFIG.merge(Config(retry=Retry(backoff=0.0)))
    assert run_program(kind, program, config, transport=canned)["size"] == 4
    assert (tmp_path / "out").read_bytes() == b"0123"
    sent, _, again = canned.requests
    assert b"x" * 300_000 in sent.content
    assert told[-1] == (len(sent.content), len(sent.content))
    assert again.headers["range"] == "bytes=2-"


@pytest.mark.parametrize("kind", ["asyncio", "trio", "data-api-asyncio", "data-api-trio"])
def test_async_iterables_are_sent(kind):
    canned = CannedTransport([Reply(json={})])

    async def pieces():
        yield b"a"
        yield b"b"

    async def program(client):
        return await client.post("resources", pieces())

    run_program(kind, program, CONFIG, transport=canned)
    assert canned.requests[0].content == b"ab"


def test_a_file_that_shrinks_is_an_error_as_ever():
    class Shrinking:
        def seekable(self):
            return True

        def tell(self):
            return 0

        def seek(self, offset, whence=0):
            return None

        def read(self, size):
            return b""

    source = Shrinking()
    source.tell = iter([0, 5]).__next__
    canned = CannedTransport([Reply()])
    with (
        BlockingClient(CONFIG, transport=canned) as client,
        pytest.raises(AgentRunClientError, match="ended"),
    ):
        client.post("resources", source)
    assert canned.requests == []


@on_every_client
def test_a_request_beyond_the_script_is_no_failure_of_the_service(kind):
    canned = CannedTransport([Reply(json={})])

    async def program(client):
        await client.get("resources")
        await client.get("resources?Signature=abcdefgh")

    with pytest.raises(UnexpectedRequest, match=r"GET http.*Signature=\*\*\* is request 2; .* replies to 1"):
        run_program(kind, program, CONFIG, transport=canned)


@on_every_client
def test_a_token_is_fetched_by_the_script_too(kind):
    canned = CannedTransport([Reply(json={"data": {"accessToken": "the-token"}}), Reply(json={"ok": 1})])
    named = (
        {"use_access_token": True}
        if kind.startswith("data")
        else {"access_token_for": Resource(type="runtime", name="agent")}
    )

    async def program(client):
        return await client.get("resources")

    assert run_program(kind, program, CONFIG, transport=canned, **named) == {"ok": 1}
    fetched, sent = canned.requests
    assert "/agents/accessToken?" in fetched.url
    assert sent.headers["agentrun-access-token"] == "the-token"


def test_a_refresh_beyond_the_script_tells_why():
    canned = CannedTransport([])
    resource = Resource(type="runtime", name="agent")
    with (
        BlockingClient(CONFIG, transport=canned, access_token_for=resource) as client,
        pytest.raises(UnexpectedRequest, match=r"accessToken\?.* is request 1; the script has replies to 0"),
    ):
        client.get("resources")


def test_a_refresh_that_fails_by_the_script_fails_as_ever():
    canned = CannedTransport([Reply(403, json={"message": "no"})])
    resource = Resource(type="runtime", name="agent")
    with (
        BlockingClient(CONFIG, transport=canned, access_token_for=resource) as client,
        pytest.raises(CredentialError, match="no access token"),
    ):
        client.get("resources")


def test_content_beyond_the_limit_of_memory(monkeypatch):
    monkeypatch.setattr("agentrun_proto.flows.MAX_BODY", 3)
    canned = CannedTransport([Reply(content=b"12345")])
    with (
        BlockingClient(CONFIG, transport=canned) as client,
        pytest.raises(DecodeError, match="larger than 3"),
    ):
        client.get("resources")


def test_an_answer_is_read_once():
    def flow():
        request = Request(method="GET", origin=Origin("http", "h", 80), target="/")
        head = yield from Send(request, Timeout(), float("inf"))
        pieces = [(yield from ReadSome()), (yield from ReadSome())]
        with pytest.raises(TransportError, match="read already"):
            yield from ReadSome()
        return head, pieces

    session = MemorySession(CannedTransport([Reply(204, content=b"x")]))
    assert session.run(lambda clock: flow()) == (
        Head(status=204, headers=Headers({"Content-Length": "1"})),
        [b"x", b""],
    )


def test_threads_share_a_script():
    canned = CannedTransport([Reply(json={"n": number}) for number in range(40)])
    told = []
    with BlockingClient(CONFIG, transport=canned) as client:
        threads = [
            threading.Thread(target=lambda: told.extend([client.get("r")["n"] for _ in range(10)]))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(told) == list(range(40))


def test_a_client_goes_from_loop_to_loop():
    canned = CannedTransport([Reply(json={"n": number}) for number in range(3)])
    client = AsyncioClient(CONFIG, transport=canned)

    async def main():
        return (await client.get("r"))["n"]

    assert [asyncio.run(main()) for _ in range(3)] == [0, 1, 2]
    assert len(client._sessions._by_loop) == 1, "the others are over"


def test_a_client_serves_two_loops_at_once():
    canned = CannedTransport([Reply(json={"n": number}) for number in range(3)])
    client = AsyncioClient(CONFIG, transport=canned)
    loops = [asyncio.new_event_loop() for _ in range(2)]
    try:
        told = [loop.run_until_complete(client.get("r"))["n"] for loop in (*loops, loops[0])]
    finally:
        for loop in loops:
            loop.close()
    assert told == [0, 1, 2]
    assert len(client._sessions._by_loop) == 2


def test_each_meets_a_failure_of_its_own():
    failure = ConnectError("refused")
    canned = CannedTransport([failure, failure])
    config = CONFIG.merge(Config(retry=Retry(attempts=2, backoff=0.0)))
    with BlockingClient(config, transport=canned) as client, pytest.raises(ConnectError) as caught:
        client.get("r")
    assert caught.value is not failure
    assert failure.attempts == ()
    assert failure.__traceback__ is None
    assert len(caught.value.attempts) == 2


def test_a_script_holds_replies_and_failures_alone():
    with pytest.raises(TypeError, match="not a dict"):
        CannedTransport([{"status": 200}])
    with pytest.raises(ValueError, match="either"):
        Reply(json={}, content=b"x")


def test_what_is_left_over_is_told():
    canned = CannedTransport([Reply(), ConnectError("never")])
    with BlockingClient(CONFIG, transport=canned) as client:
        client.get("r")
    assert [type(left) for left in canned.unused] == [ConnectError]


def test_a_request_does_not_show_its_credential():
    canned = CannedTransport([Reply()])
    token = AccessKey(
        access_key_id="id", access_key_secret=Secret("s" * 20), security_token=Secret("the-security-token")
    )
    with BlockingClient(Config(account_id="1"), credentials=lambda: token, transport=canned) as client:
        client.get("r")
    (made,) = canned.requests
    assert isinstance(made, MadeRequest)
    assert made.headers["x-acs-security-token"] == "the-security-token"
    assert "the-security-token" not in repr(made)


# --- the seam


def test_a_transport_is_told_how_the_client_was_set_up():
    setups = []

    class Telling(CannedTransport):
        def open(self, setup):
            setups.append(setup)
            return super().open(setup)

    with BlockingClient(CONFIG, transport=Telling([]), unix_socket="/s", proxy="http://u:the-password@p:1"):
        pass
    (setup,) = setups
    assert str(setup.origin) == "https://1-ram.agentrun-data.cn-hangzhou.aliyuncs.com"
    assert (setup.unix_socket, setup.proxy, setup.tls, setup.limits) == (
        "/s",
        "http://u:the-password@p:1",
        None,
        None,
    )
    assert "the-password" not in repr(setup)


@pytest.mark.parametrize("transport", ["Native", 7, object()])
def test_nothing_else_is_a_transport(transport):
    with pytest.raises(ValueError, match="transport is 'native', 'httpcore' or a Transport"):
        Route.choose(Setup(origin=Origin("http", "h", 80)), transport)
