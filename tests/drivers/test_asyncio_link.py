"""One asyncio connection, held in the hand: moments that no server can be made to hit every time."""

import asyncio
import contextlib
import socket
from functools import partial
from math import inf

import pytest

from agentrun_proto import Origin
from agentrun_transports import TLS
from agentrun_transports._asyncio import AsyncioNetwork
from agentrun_transports._asyncio_link import AsyncioLink
from agentrun_transports._network import Wait
from agentrun_transports._tickets import Ticket
from agentrun_transports._tls import TLSLayer, tls_context
from drivers_support import LOOPS, awaited, run, run_virtual, turns


async def connected():
    """A link, and the socket of its peer, which does not block."""
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(
        partial(AsyncioLink, loop, Origin("http", "h", 80), None), sock=ours
    )
    return link, peer


@pytest.mark.parametrize("backend", LOOPS)
def test_asyncio_abort_after_the_loop_has_let_the_connection_go(backend):
    """The peer ends its side while we still have much to send, and then takes all of it: the loop closes the
    connection when the last byte is gone. Closing it once more is nothing (a transport of asyncio then fails
    with AttributeError, since it has forgotten its loop)."""

    async def main():
        link, peer = await connected()
        with peer:
            link.wire.begin("POST")
            await awaited(link.write(bytes(5_000_000), 1e9, watch=False))
            peer.shutdown(socket.SHUT_WR)
            await turns(backend)
            with contextlib.suppress(OSError):
                while True:
                    try:
                        if not peer.recv(1 << 20):
                            break
                    except BlockingIOError:
                        await turns(backend, 1)
            await turns(backend)
            link.abort()
            link.abort()
            with pytest.raises(OSError):
                await awaited(link.write(b"x", 1e9, watch=False))

    run(backend, main)


@pytest.mark.parametrize("backend", LOOPS)
def test_asyncio_an_answer_that_a_reset_follows_is_read_before_more_is_written(backend):
    """The peer refuses, and closes with bytes unread: a write would fail, and the loop forget the answer."""

    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            peer, _ = listener.accept()
        ours.setblocking(False)
        _, link = await loop.create_connection(
            partial(AsyncioLink, loop, Origin("http", "h", 80), None), sock=ours
        )
        link.wire.begin("POST")
        with peer:
            assert await awaited(link.write(b"x" * 1000, 1e9, watch=True)) == 1000
            assert peer.recv(1) == b"x"
            peer.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        assert await awaited(link.write(b"x" * 1000, 1e9, watch=True)) == 0
        assert link.wire.read_head().status == 413
        link.abort()
        await turns(backend)

    run(backend, main)


@pytest.mark.parametrize("backend", LOOPS)
def test_asyncio_abort_twice_and_after_a_reset(backend):
    async def main():
        link, peer = await connected()
        peer.close()
        await turns(backend)
        link.abort()
        await turns(backend)
        link.abort()
        assert link.take_in() == 0

    run(backend, main)


def test_asyncio_a_stall_is_bounded_after_a_silence_that_was():
    """Whoever waits for consent in vain goes on to send; the timer is for that then."""

    async def main():
        link, peer = await connected()
        loop = asyncio.get_running_loop()
        with peer:
            link.wire.begin("POST")
            with pytest.raises(TimeoutError):
                await awaited(link.read(loop.time() + 1))
            await awaited(link.write(bytes(5_000_000), inf, watch=False))
            with pytest.raises(TimeoutError):
                await awaited(link.write(b"x", loop.time() + 1, watch=False))
            link.abort()
            await turns("asyncio")

    run_virtual("asyncio", main)


@pytest.mark.parametrize("backend", LOOPS)
def test_asyncio_more_arrives_than_there_is_room_for(backend):
    """Nobody takes what is there: reading stops at a buffer's worth, and goes on when there is room."""

    async def main():
        link, peer = await connected()
        with peer:
            link.wire.begin("GET")
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while sent < 10_000_000:
                    sent += peer.send(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" if not sent else bytes(65536)
                    )
            await turns(backend, 30)
            assert link.wire.pending == 65536
            head = link.wire.read_head()
            assert head.status == 200
            room = memoryview(bytearray(100_000))
            assert link.wire.fill(room) is None
            assert await awaited(link.read(1e9)) > 0
            link.abort()
            await turns(backend)

    run(backend, main)


@pytest.mark.parametrize("backend", LOOPS)
def test_asyncio_a_turn_that_has_come_already_is_not_waited_for(backend):
    async def main():
        ticket = Ticket()
        ticket.serve()
        await asyncio.wait_for(AsyncioNetwork(TLS(), None).perform(Wait(ticket, inf)), 30)

    run(backend, main)


@pytest.mark.parametrize("backend", LOOPS)
@pytest.mark.parametrize("failure", [None, ConnectionResetError(104, "reset")], ids=["closed", "reset"])
def test_asyncio_a_connection_that_is_lost_amid_its_tls_handshake(backend, failure):
    """Without the end of the stream before it, which TLS would tell of."""

    async def main():
        ours, peer = socket.socketpair()
        loop = asyncio.get_running_loop()
        layer = TLSLayer(tls_context(TLS()), "h")
        ours.setblocking(False)
        with peer:
            transport, link = await loop.create_connection(
                partial(AsyncioLink, loop, Origin("https", "h", 443), layer), sock=ours
            )
            shaking = asyncio.ensure_future(link.handshake())
            await turns(backend)
            link.connection_lost(failure)
            with pytest.raises(ConnectionResetError, match="amid the TLS handshake"):
                await shaking
            transport.abort()
            await turns(backend)

    run(backend, main)
