"""Answers that are read while they arrive, on every driver, over real sockets.

Rules of this file: a test's body is written once, as a coroutine; for the blocking driver it never gives way.
What a server is yet to say, it says when the test has seen what came before; nothing here waits for time.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace

import pytest
import trio
import trio.testing

from agentrun_proto import (
    AgentRunClientError,
    Config,
    DecodeError,
    IncompleteError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    ReadTimeout,
    Retry,
    ServerSentEvent,
    Timeout,
)
from agentrun_transports import BlockingClient, DataAPI, ResourceType
from agentrun_transports.emulator import Emulator
from awaited import Awaited, run_plainly
from drivers_support import (
    BACKENDS,
    EmulatorProcess,
    assert_silent,
    in_thread,
    native,
    run,
    session_of,
    settled_sockets,
    sockets,
    turns,
)
from transports_support import (
    PATIENCE,
    Announce,
    Close,
    Pause,
    RawServer,
    Reset,
    Say,
    Stall,
    answer,
)

SOON = Retry(backoff=0.001)
EVENTS = "Content-Type: text/event-stream\r\n"
DRIVERS = [
    pytest.param(name, transport, marks=marks, id=f"{name}-{transport}")
    for backend in ("blocking", *BACKENDS)
    for name, marks in [
        (backend, ()) if isinstance(backend, str) else (backend.values[0], backend.marks),
    ]
    for transport in ("native", "httpcore")
    if (name, transport) != ("uvloop", "httpcore")
]
on_every_driver = pytest.mark.parametrize(("backend", "transport"), DRIVERS)
on_native_drivers = pytest.mark.parametrize("backend", ["blocking", *BACKENDS])
on_loops = pytest.mark.parametrize("backend", BACKENDS)


# --- one body for all drivers


def play(backend, transport, config, body):
    """Runs `body(client)` on a driver."""
    if backend == "blocking":
        with BlockingClient(config, transport=transport) as client:
            run_plainly(body(Awaited(client)))
        return

    async def main():
        client = native(backend)(config, transport=transport)
        await body(client)
        await turns(backend)

    run(backend, main)


def opened(client):
    """How many connections are open."""
    session = client.client._session if isinstance(client, Awaited) else session_of(client)
    return session.open if hasattr(session, "open") else session.pool.open


async def all_of(items):
    return [item async for item in items]


async def gather(items, got):
    """Appends the items as they come, so that those before a failure are known."""
    async for item in items:
        got.append(item)


async def assert_next_call_is_right(client):
    assert (await client.get("own"))["target"].endswith("/own")


# --- what a server says


def head(fields="", status="200 OK", version="1.1"):
    return f"HTTP/{version} {status}\r\n{fields}\r\n".encode()


def chunk(piece):
    return b"%x\r\n%b\r\n" % (len(piece), piece)


CHUNKED = "Transfer-Encoding: chunked\r\n"
END = b"0\r\n\r\n"


def chunked(*pieces, fields=""):
    return head(CHUNKED + fields) + b"".join(map(chunk, pieces)) + END


def framings(content):
    """The same content, told in every way that HTTP/1.1 and 1.0 have; and whether the connection lives."""
    counted = f"Content-Length: {len(content)}\r\n"
    return {
        "counted": ((Say(head(counted) + content),), True),
        "chunked": ((Say(chunked(content[:5], content[5:])),), True),
        "close_delimited": ((Say(head("Connection: close\r\n") + content), Close()), False),
        "http_1_0": ((Say(head(counted, version="1.0") + content), Close()), False),
        "http_1_0_close_delimited": ((Say(head(version="1.0") + content), Close()), False),
    }


# --- the head, then the content


@on_every_driver
def test_the_head_is_there_before_the_content(backend, transport):
    seen = threading.Event()
    script = (
        Say(head(CHUNKED + "x-acs-request-id: r-1\r\nX-Own: a\r\n")),
        Pause(seen),
        Say(chunk(b"late") + END),
    )

    async def body(client):
        async with client.stream("GET", "s") as stream:
            assert (stream.status, stream.headers["x-own"], stream.request_id) == (200, "a", "r-1")
            assert stream.head.status == 200
            seen.set()
            assert b"".join(await all_of(stream)) == b"late"
        assert opened(client) == 1
        await assert_next_call_is_right(client)

    with RawServer(script) as server:
        play(backend, transport, server.config(), body)
        assert server.connections == 1


@on_every_driver
def test_each_item_is_there_before_the_next_is_sent(backend, transport):
    first, second = threading.Event(), threading.Event()
    script = (
        Say(head(CHUNKED) + chunk(b"one\ntw")),
        Pause(first),
        Say(chunk(b"o\nthree\n")),
        Pause(second),
        Say(chunk(b"end") + END),
    )

    async def body(client):
        async with client.stream("GET", "s") as stream:
            lines = stream.lines()
            assert await lines.__anext__() == "one"
            first.set()
            assert [await lines.__anext__(), await lines.__anext__()] == ["two", "three"]
            second.set()
            assert await all_of(lines) == ["end"]
            assert await all_of(lines) == []

    with RawServer(script) as server:
        play(backend, transport, server.config(), body)


KINDS = {
    "lines": (lambda stream: stream.lines(), b"a\r\n\xc3\xbc\nlast", ["a", "ü", "last"]),
    "json_lines": (lambda stream: stream.json_lines(), b'{"i":1}\n\n[2]\n3', [{"i": 1}, [2], 3]),
    "events": (
        lambda stream: stream.events(),
        b": hello\nid: 7\ndata: a\ndata: b\n\nevent: late\ndata: c\n\ndata: unfinished",
        [ServerSentEvent(data="a\nb", id="7"), ServerSentEvent(type="late", data="c", id="7")],
    ),
    "chat": (
        lambda stream: stream.chat(),
        b'data: {"i":1}\n\ndata: {"i":2}\n\ndata: [DONE]\n\n',
        [{"i": 1}, {"i": 2}],
    ),
}


@on_every_driver
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("framing", framings(b""))
def test_every_kind_in_every_framing(backend, transport, kind, framing):
    read, content, expected = KINDS[kind]
    script, lives = framings(content)[framing]

    async def body(client):
        async with client.stream("GET", "s") as stream:
            assert await all_of(read(stream)) == expected
        if transport == "native":
            assert opened(client) == lives
        await assert_next_call_is_right(client)

    with RawServer(script) as server:
        play(backend, transport, server.config(), body)


@on_native_drivers
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_byte_by_byte(backend, kind):
    read, content, expected = KINDS[kind]

    async def body(client):
        async with client.stream("GET", "s") as stream:
            assert await all_of(read(stream)) == expected

    with RawServer(chunked(content, fields=EVENTS), bytewise=True) as server:
        play(backend, "native", server.config(), body)


@on_every_driver
def test_many_small_events(backend, transport):
    async def body(client):
        async with client.stream("GET", "events", query={"count": 10_000}) as stream:
            numbers = [event.json()["number"] async for event in stream.events()]
        assert numbers == list(range(1, 10_001))

    with Emulator() as emulator:
        play(backend, transport, Config.from_env(emulator.environment), body)


# --- what fails


@on_every_driver
def test_a_refusal_raises_where_the_stream_is_entered(backend, transport):
    async def body(client):
        with pytest.raises(NotFoundError) as caught:
            async with client.stream("GET", "s"):
                raise AssertionError("nobody gets in")
        assert (caught.value.status_code, caught.value.request_id) == (404, "r")
        assert opened(client) == 1
        await assert_next_call_is_right(client)

    refusal = answer({"code": "NotFound", "requestId": "r", "message": "no"}, "404 Not Found")
    with RawServer(refusal) as server:
        play(backend, transport, server.config(), body)
        assert server.connections == 1


@on_every_driver
def test_what_fails_before_the_head_is_tried_again(backend, transport):
    async def body(client):
        async with client.stream("GET", "s") as stream:
            assert await all_of(stream.lines()) == ["a"]

    with RawServer(answer({}, "503 Service Unavailable"), (Reset(),), answer(b"a\n")) as server:
        play(backend, transport, server.config(retry=SOON), body)
        assert len(server.requests) == 3


@on_every_driver
def test_what_fails_after_the_head_is_not_tried_again(backend, transport):
    async def body(client):
        got = []
        with pytest.raises(IncompleteError):
            async with client.stream("GET", "s") as stream:
                await gather(stream.lines(), got)
        assert got == ["a", "b"]
        assert opened(client) == 0
        await assert_next_call_is_right(client)

    with RawServer((Say(head(CHUNKED) + chunk(b"a\nb\nc")), Close())) as server:
        play(backend, transport, server.config(retry=SOON), body)
        assert len(server.requests) == 2


@on_native_drivers
@pytest.mark.parametrize("script", [
    (Say(head("Content-Length: 9\r\n") + b"a\nb\n"), Close()),
    (Say(head(CHUNKED) + chunk(b"a\nb\n") + b"zz\r\n"), Close()),
])  # fmt: skip
def test_what_came_before_a_failure_is_delivered(backend, script):
    async def body(client):
        got = []
        with pytest.raises((IncompleteError, ProtocolError)):
            async with client.stream("GET", "s") as stream:
                await gather(stream.lines(), got)
        assert got == ["a", "b"]
        assert opened(client) == 0

    with RawServer(script) as server:
        play(backend, "native", server.config(), body)


@on_every_driver
def test_a_silence_that_is_too_long(backend, transport):
    silent = Config(timeout=Timeout(read=1.0))  # the head has as long: it is said by a thread of this process

    async def body(client):
        got = []
        with pytest.raises(ReadTimeout):
            async with client.stream("GET", "s", config=silent) as stream:
                await gather(stream.lines(), got)
        assert got == ["a"]
        assert opened(client) == 0
        await assert_next_call_is_right(client)

    with RawServer((Say(head(CHUNKED) + chunk(b"a\n")), Stall())) as server:
        play(backend, transport, server.config(), body)


@on_every_driver
def test_a_content_coding_that_nobody_knows_is_refused(backend, transport):
    async def body(client):
        with pytest.raises(DecodeError, match="coding"):
            async with client.stream("GET", "s"):
                raise AssertionError("nobody gets in")
        await assert_next_call_is_right(client)

    with RawServer(chunked(b"x", fields="Content-Encoding: compress\r\n")) as server:
        play(backend, transport, server.config(), body)
        assert b"gzip" not in server.requests[0].head


@on_every_driver
def test_a_content_coding_is_taken_off_as_it_comes(backend, transport):
    seen = threading.Event()
    squeeze = zlib.compressobj(wbits=31)

    def flushed(text):
        return squeeze.compress(text) + squeeze.flush(zlib.Z_SYNC_FLUSH)

    async def body(client):
        async with client.stream("GET", "s", headers={"Accept-Encoding": "gzip"}) as stream:
            lines = stream.lines()
            assert await lines.__anext__() == "one"
            seen.set()
            assert await all_of(lines) == ["two"]
        await assert_next_call_is_right(client)

    script = (
        Say(head(CHUNKED + "Content-Encoding: gzip\r\n") + chunk(flushed(b"one\ntw"))),
        Pause(seen),
        Say(chunk(flushed(b"o") + squeeze.flush()) + END),
    )
    with RawServer(script) as server:
        play(backend, transport, server.config(), body)
        assert b"ccept-Encoding: gzip\r\n" in server.requests[0].head


@on_every_driver
def test_an_item_that_makes_no_sense_comes_after_those_that_do(backend, transport):
    async def body(client):
        got = []
        with pytest.raises(DecodeError):
            async with client.stream("GET", "s") as stream:
                await gather(stream.json_lines(), got)
        assert got == [1]
        await assert_next_call_is_right(client)

    with RawServer(chunked(b"1\nno\n2\n")) as server:
        play(backend, transport, server.config(), body)


# --- leaving early


LEFT = {
    "live": ((Say(head(CHUNKED) + chunk(b"a\n")), Stall()), 0),
    "short_rest_that_is_here": ((Say(chunked(b"a\n", b"b\n", b"c\n")),), 1),
    "damaged_rest_that_is_here": ((Say(head(CHUNKED) + chunk(b"a\n") + b"no size\r\n"), Stall()), 0),
    "long_rest": ((Say(head("Content-Length: 9000000\r\n") + b"a\n" * 100), Stall()), 0),
}


class Stop(Exception):
    """Ours."""


@on_native_drivers
@pytest.mark.parametrize("case", LEFT)
@pytest.mark.parametrize("how", ["break", "exception", "unread"])
def test_leaving_early(backend, case, how):
    script, kept = LEFT[case]

    async def body(client):
        with suppress(Stop):
            async with client.stream("GET", "s") as stream:
                if how != "unread":
                    async for _ in stream.lines():
                        if how == "break":
                            break
                        raise Stop
        assert opened(client) == kept
        await assert_next_call_is_right(client)

    with RawServer(script) as server:
        play(backend, "native", server.config(), body)
        assert server.connections == 2 - kept


@pytest.mark.parametrize("backend", ["blocking", "asyncio", "trio"])
def test_leaving_early_over_httpcore(backend):
    async def body(client):
        async with client.stream("GET", "s") as stream:
            async for _ in stream.lines():
                break
        assert opened(client) == 0
        await assert_next_call_is_right(client)

    with RawServer(LEFT["live"][0]) as server:
        play(backend, "httpcore", server.config(), body)


@pytest.mark.parametrize(
    ("backend", "transport"), [driver for driver in DRIVERS if driver.values[0] != "blocking"]
)
@pytest.mark.parametrize("where", ["entering", "reading"])
def test_cancellation(backend, transport, where):
    begun = threading.Event()
    said = head(CHUNKED) + chunk(b"a\n") if where == "reading" else b""
    script = (Say(said), Announce(begun), Stall())

    async def body(client):
        got = []
        reached = (trio if backend == "trio" else asyncio).Event()

        async def reader():
            if where == "entering":
                reached.set()
            async with client.stream("GET", "s") as stream:
                async for line in stream.lines():
                    got.append(line)
                    reached.set()

        if backend == "trio":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader)
                await reached.wait()
                await in_thread(backend, begun.wait, PATIENCE)
                nursery.cancel_scope.cancel()
        else:
            task = asyncio.create_task(reader())
            await reached.wait()
            await in_thread(backend, begun.wait, PATIENCE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert got == (["a"] if where == "reading" else [])
        assert opened(client) == 0
        await assert_next_call_is_right(client)

    with RawServer(script) as server:
        play(backend, transport, server.config(), body)


# --- what a stream is not for


@on_native_drivers
def test_a_stream_is_entered_once_read_once_and_not_after_it_was_left(backend):
    async def body(client):
        stream = client.stream("GET", "s")
        for use in (lambda: stream.head, lambda: stream.status, lambda: stream.lines()):
            with pytest.raises(RuntimeError, match="not open"):
                use()
        await stream.aclose()  # nothing is open
        async with stream:
            lines = stream.lines()
            assert await lines.__anext__() == "a"
            for again in (stream.lines, stream.events, stream.chat, stream.__aiter__):
                with pytest.raises(RuntimeError, match="once"):
                    again()
            with pytest.raises(RuntimeError, match="once"):
                await stream.__aenter__()
            assert await lines.__anext__() == "b"
        assert await all_of_ready(lines) == ["c"]  # it had arrived with the others
        with pytest.raises(RuntimeError, match="once"):
            await stream.__aenter__()
        assert stream.status == 200
        assert opened(client) == 0

    async def all_of_ready(lines):
        found = []
        with pytest.raises(RuntimeError, match="was left"):
            await gather(lines, found)
        return found

    with RawServer((Say(head(CHUNKED) + chunk(b"a\nb\nc\n")), Stall())) as server:
        play(backend, "native", server.config(), body)
        assert len(server.requests) == 1


@on_loops
def test_two_tasks_do_not_read_one_stream(backend):
    seen = threading.Event()

    async def body(client):
        async with client.stream("GET", "s") as stream:
            lines = stream.lines()
            results = []

            async def reader():
                try:
                    results.append(await lines.__anext__())
                except RuntimeError as error:
                    results.append(str(error))
                    seen.set()

            if backend == "trio":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(reader)
                    nursery.start_soon(reader)
            else:
                await asyncio.gather(reader(), reader())
            assert "another thread or task" in results[0]
            assert results[1] == "a"

    with RawServer((Say(head(CHUNKED)), Pause(seen), Say(chunk(b"a\n") + END))) as server:
        play(backend, "native", server.config(), body)


@pytest.mark.parametrize("transport", ["native", "httpcore"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stream_that_is_left_while_another_task_reads_it(backend, transport):
    async def body(client):
        async with client.stream("GET", "s") as stream:
            lines = stream.lines()
            assert await lines.__anext__() == "a"

            async def reader():
                with pytest.raises(RuntimeError, match="was left"):
                    await lines.__anext__()

            if backend == "trio":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(reader)
                    await trio.testing.wait_all_tasks_blocked()
                    await stream.aclose()
            else:
                task = asyncio.create_task(reader())
                await turns(backend)
                await stream.aclose()
                await task
        assert opened(client) == 0
        await assert_next_call_is_right(client)

    with RawServer(LEFT["live"][0]) as server:
        play(backend, transport, server.config(), body)


def test_a_thread_does_not_leave_what_another_reads():
    seen = threading.Event()
    script = (Say(head(CHUNKED) + chunk(b"a\n")), Pause(seen), Say(chunk(b"b\n") + END))
    with RawServer(script) as server, BlockingClient(server.config()) as client:
        with client.stream("GET", "s") as stream:
            lines = stream.lines()
            assert next(lines) == "a"
            perform = stream._run._perform

            def announced(command):
                waiting.set()
                return perform(command)

            waiting = threading.Event()
            stream._run._perform = announced
            with ThreadPoolExecutor(1) as threads:
                found = threads.submit(next, lines)
                assert waiting.wait(PATIENCE)
                for use in (stream.close, lines.__next__):
                    with pytest.raises(RuntimeError, match="another thread"):
                        use()
                seen.set()
                assert found.result(PATIENCE) == "b"
        assert client._session.pool.open == 1


@pytest.fixture(scope="module")
def emulator_elsewhere():
    with closing(EmulatorProcess()) as emulator:
        yield emulator


@on_native_drivers
@pytest.mark.parametrize("how", ["left", "abandoned"])
def test_no_descriptor_stays(emulator_elsewhere, backend, how):
    async def begun(client):
        stream = client.stream("GET", "events", query={"count": 1_000_000})
        await stream.__aenter__()
        async for _ in stream.events():
            break
        if how == "left":
            await stream.aclose()

    async def body(client):
        await client.get("resources")
        before = settled_sockets()
        for _ in range(3):
            await begun(client)
        gc.collect()
        if not isinstance(client, Awaited):
            await turns(backend)
        assert opened(client) == 0
        assert sockets() == before - 1  # the connection that was kept served the first stream

    play(backend, "native", emulator_elsewhere.config(), body)


def test_an_abandoned_stream_leaves_nothing():
    script = (Say(head(CHUNKED) + chunk(b"a\n")), Stall())
    with RawServer(script) as server, BlockingClient(server.config()) as client:
        next(client.stream("GET", "s").__enter__().lines())
        gc.collect()
        assert client._session.pool.open == 0
        assert client.get("own")["target"].endswith("/own")


ABANDONED = """
import gc
import asyncio
from agentrun_proto import Config
from agentrun_transports import AsyncioClient, BlockingClient, TrioClient

config = Config(data_endpoint={url!r})

def blocking():
    with BlockingClient(config, transport={transport!r}) as client:
        next(client.stream("GET", "s").__enter__().lines())
        gc.collect()

async def on_a_loop(client_class):
    if client_class is AsyncioClient:
        asyncio.get_running_loop().slow_callback_duration = 60  # what is imported on first need takes a while
    client = client_class(config, transport={transport!r})
    stream = await client.stream("GET", "s").__aenter__()
    lines = stream.lines()
    assert await lines.__anext__() == "a"
    del stream, lines
    gc.collect()
"""


@pytest.mark.parametrize("transport", ["native", "httpcore"])
@pytest.mark.parametrize(
    "end",
    [
        "blocking()",
        "asyncio.run(on_a_loop(AsyncioClient))",
        "import trio; trio.run(on_a_loop, TrioClient)",
    ],
    ids=["blocking", "asyncio", "trio"],
)
def test_an_abandoned_stream_is_no_cause_for_a_warning(transport, end):
    with RawServer((Say(head(CHUNKED) + chunk(b"a\n")), Stall())) as server:
        assert_silent(ABANDONED.format(url=server.url, transport=transport) + end + "\ngc.collect()\n")


# --- chat


QUESTION = [{"role": "user", "content": "one two three"}]
COMPLETIONS = "/agent-runtimes/my%20runtime/endpoints/Default/invocations/openai/v1/chat/completions"


@on_every_driver
def test_an_agent_is_asked(backend, transport):
    async def body(client):
        whole = await client.invoke("r", QUESTION, model="m")
        async with client.invoke_stream("r", QUESTION, model="m", options={"temperature": 0}) as stream:
            deltas = [part["choices"][0]["delta"].get("content", "") async for part in stream.chat()]
        assert "".join(deltas) == whole["choices"][0]["message"]["content"] != ""
        assert (await client.invoke("r", QUESTION, model="m"))["object"] == "chat.completion"

    with Emulator() as emulator:
        play(backend, transport, Config.from_env(emulator.environment), body)


@on_every_driver
def test_what_an_invocation_sends(backend, transport):
    async def body(client):
        await client.invoke("my runtime", QUESTION)
        async with client.invoke_stream(
            "my runtime", QUESTION, model="m", endpoint="a/b", options={"n": 1, "stream": False}
        ) as stream:
            assert await all_of(stream.chat()) == []
        for name in ("..", ".", ""):
            with pytest.raises(ValueError):
                await client.invoke(name, QUESTION)
            with pytest.raises(ValueError):
                client.invoke_stream("r", QUESTION, endpoint=name)

    with RawServer(answer({"ok": True}), chunked(b"data: [DONE]\n\n")) as server:
        play(backend, transport, server.config(), body)
        plain, streamed = server.requests
    assert (plain.method, plain.target) == ("POST", COMPLETIONS)
    assert plain.body == b'{"messages":[{"role":"user","content":"one two three"}],"stream":false}'
    assert streamed.target == COMPLETIONS.replace("Default", "a%2Fb")
    assert b'"stream":true' in streamed.body
    assert b'"model":"m"' in streamed.body
    assert b'"n":1' in streamed.body
    assert dict(streamed.lines)["Accept"] == "text/event-stream"


@on_native_drivers
def test_done_ends_a_chat_and_keeps_the_connection(backend):
    chat = b'data: {"i":1}\n\ndata: [DONE]\n\ndata: {"i":2}\n\n'

    async def body(client):
        async with client.invoke_stream("r", QUESTION) as stream:
            assert await all_of(stream.chat()) == [{"i": 1}]
            assert opened(client) == 1
        await assert_next_call_is_right(client)

    with RawServer(chunked(chat)) as server:
        play(backend, "native", server.config(), body)
        assert server.connections == 1


@on_every_driver
def test_done_ends_a_chat_whose_connection_goes_on(backend, transport):
    async def body(client):
        async with client.invoke_stream("r", QUESTION) as stream:
            assert await all_of(stream.chat()) == [{"i": 1}]
        assert opened(client) == 0
        await assert_next_call_is_right(client)

    with RawServer((Say(head(CHUNKED) + chunk(b'data: {"i":1}\n\ndata: [DONE]\n\n')), Stall())) as server:
        play(backend, transport, server.config(), body)


@on_every_driver
@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (
            b'data: {"i":1}\n\ndata: {"error":{"message":"too hot","code":"E"}}\n\n',
            AgentRunClientError,
            "too hot",
        ),
        (b'data: {"i":1}\n\n', IncompleteError, "DONE"),
    ],
)
def test_a_chat_that_fails(backend, transport, content, kind, message):
    async def body(client):
        got = []
        with pytest.raises(kind, match=message) as caught:
            async with client.invoke_stream("r", QUESTION) as stream:
                await gather(stream.chat(), got)
        assert got == [{"i": 1}]
        assert type(caught.value) is kind
        await assert_next_call_is_right(client)

    with RawServer(chunked(content)) as server:
        play(backend, transport, server.config(retry=SOON), body)
        assert len(server.requests) == 2


# --- super agents, whose answers are read elsewhere


def deltas(events):
    return [event.json()["delta"] for event in events if event.type == "TEXT_MESSAGE_CONTENT"]


@pytest.mark.hostile("calling-foreign-urls")
@on_every_driver
@pytest.mark.parametrize("trusted", [False, True], ids=["another's", "listed"])
def test_a_super_agent_in_two_steps(backend, transport, trusted):
    said = [{"role": "user", "content": "to be said again"}]

    async def body(client):
        first = await client.invoke_super_agent("planner", said)
        async with client.stream_invocation(first) as stream:
            assert deltas(await all_of(stream.events())) == ["to ", "be ", "said ", "again"]
        again = await client.invoke_super_agent("planner", said, conversation_id=first.conversation_id)
        assert again.conversation_id == first.conversation_id
        assert again.url != first.url
        with pytest.raises(PermissionDeniedError):
            async with client.stream_invocation(replace(again, headers=first.headers)):
                pass
        async with client.stream_invocation(again) as stream:
            assert len(await all_of(stream.events())) == 8

    with Emulator() as elsewhere, Emulator(streams=elsewhere) as emulator:
        config = Config(headers={"X-Mine": "1"}, trusted_origins=[elsewhere.endpoint] if trusted else [])
        play(backend, transport, Config.from_env(emulator.environment).merge(config), body)
        assert emulator.requests.count == 2
        for request in elsewhere.requests.last:
            names = {name for name, _ in request.headers}
            assert {"agentrun-authorization", "x-mine"} & names == (
                {"agentrun-authorization", "x-mine"} if trusted else set()
            )


# --- event streams that are taken up again


@on_every_driver
@pytest.mark.parametrize("fault", [None, "after=3; then=cut; times=3", "cut=100; times=2", "cut=0; times=2"])
def test_every_event_comes_once(backend, transport, fault, monkeypatch):
    monkeypatch.setattr("agentrun_proto.streams.DEFAULT_RETRY", 0.001)

    async def body(client):
        headers = {} if fault is None else {"x-emulator-fault": fault}
        query = {"count": 10, "retry": 1}
        async with client.stream("GET", "events", query=query, headers=headers) as stream:
            numbers = [event.json()["number"] async for event in stream.events(resume=True)]
        assert numbers == list(range(1, 11))

    with Emulator() as emulator:
        config = Config.from_env(emulator.environment).merge(Config(retry=SOON))
        play(backend, transport, config, body)


EVENT = b"retry: 1\nid: \xe6\x97\xa5\ndata: a\n\n"  # an id that is not Latin-1


@on_every_driver
def test_how_a_stream_is_taken_up(backend, transport):
    async def body(client):
        async with client.stream("GET", "s", headers={"X-Own": "a"}) as stream:
            assert [event.data async for event in stream.events(resume=True)] == ["a", "b"]
        if transport == "native":
            assert opened(client) == 1

    with RawServer(
        chunked(EVENT, fields=EVENTS),
        answer({}, "503 Service Unavailable"),
        chunked(b"id\ndata: b\n\n", fields=EVENTS),
        head(status="204 No Content"),
    ) as server:
        play(backend, transport, server.config(retry=SOON), body)
        fields = [dict(request.lines) for request in server.requests]
    assert [each.get("Last-Event-ID") for each in fields] == [None, "\xe6\x97\xa5", "\xe6\x97\xa5", None]
    assert [each["X-Own"] for each in fields] == ["a"] * 4


@on_native_drivers
def test_a_post_is_not_taken_up(backend):
    async def body(client):
        async with client.stream("POST", "s", {"a": 1}) as stream:
            assert [event.data async for event in stream.events(resume=True)] == ["a"]

    with RawServer(chunked(EVENT, fields=EVENTS)) as server:
        play(backend, "native", server.config(), body)
        assert len(server.requests) == 1


@on_native_drivers
@pytest.mark.parametrize("scripts", [
    [answer({"no": "events"})],
    [chunked(b"id: \x01\nretry: 1\ndata: a\n\n", fields=EVENTS)],
])  # fmt: skip
def test_a_stream_that_cannot_be_taken_up(backend, scripts):
    async def body(client):
        with pytest.raises(DecodeError, match=r"taken up|take up"):
            async with client.stream("GET", "s") as stream:
                await all_of(stream.events(resume=True))
        await assert_next_call_is_right(client)

    with RawServer(*scripts) as server:
        play(backend, "native", server.config(), body)
        assert len(server.requests) == 2


@on_every_driver
def test_a_refusal_ends_what_is_taken_up(backend, transport):
    async def body(client):
        with pytest.raises(NotFoundError):
            async with client.stream("GET", "s") as stream:
                await all_of(stream.events(resume=True))
        await assert_next_call_is_right(client)

    with RawServer(chunked(EVENT, fields=EVENTS), answer({}, "404 Not Found")) as server:
        play(backend, transport, server.config(), body)


@on_native_drivers
def test_a_total_is_for_all_that_is_taken_up(backend):
    async def body(client):
        with pytest.raises(ReadTimeout):
            async with client.stream("GET", "s") as stream:
                await all_of(stream.events(resume=True))
        assert opened(client) == 0

    stall = (Say(head(CHUNKED + EVENTS) + chunk(EVENT)), Stall())
    with RawServer(chunked(EVENT, fields=EVENTS), stall) as server:
        play(backend, "native", server.config(timeout=Timeout(total=2.0, read=PATIENCE)), body)
        assert len(server.requests) == 2


# --- the documented client


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_data_api_has_both_faces(backend):
    with Emulator() as emulator:
        api = DataAPI("a", ResourceType.Runtime, Config.from_env(emulator.environment))
        with api.stream("GET", "lines", query={"count": 2}) as stream:
            assert list(stream.json_lines()) == [{"number": 1}, {"number": 2}]

        async def main():
            async with api.stream_async("GET", "lines", query={"count": 2}) as stream:
                assert await all_of(stream.json_lines()) == [{"number": 1}, {"number": 2}]
            async with api.invoke_stream_async("r", QUESTION, model="m") as stream:
                assert len(await all_of(stream.chat())) > 1

        run(backend, main)
