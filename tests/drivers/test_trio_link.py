"""One trio connection and its network, held in the hand: moments that no server can be made to hit.

Rules of this file: the clock is virtual, so that what would wait for ever ends at once, and fails.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from contextlib import asynccontextmanager, suppress
from math import inf

import pytest
import trio
import trio.testing

from agentrun_proto import FileError, Origin
from agentrun_transports import TLS, TrioClient
from agentrun_transports._network import Read, SendFile, Wait, Write
from agentrun_transports._tickets import Ticket
from agentrun_transports._tls import TLSLayer, tls_context
from agentrun_transports._trio import TrioLink, TrioNetwork
from drivers_support import Authority, run_virtual
from transports_support import RawServer, Stall

HOST = Origin("https", "localhost", 443)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


class Peer:
    """The other end; with an authority, it speaks TLS."""

    def __init__(self, sock, authority=None):
        self.sock = trio.socket.from_stdlib_socket(sock)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.secure = authority and authority.context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    async def do(self, step):
        """A step of TLS, with all that it takes from the other side."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self.sock.send(self.outgoing.read())
                self.incoming.write(await self.sock.recv(65536))
            finally:
                if self.outgoing.pending:
                    await self.sock.send(self.outgoing.read())

    async def say(self, content):
        await self.do(lambda: self.secure.write(content))


@asynccontextmanager
async def connected(authority=None):
    """A link and its peer; over TLS where there is an authority."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        layer = authority and TLSLayer(tls_context(TLS(ca_file=authority.ca_file)), "localhost")
        link, peer = TrioLink(ours, HOST, layer), Peer(theirs, authority)
        link.wire.begin("POST")
        if authority is not None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.do, peer.secure.do_handshake)
                await link.handshake()
        yield link, peer


def fill(link):
    """Until there is no room."""
    with socket.socket(fileno=os.dup(link.fileno())) as same, suppress(BlockingIOError):
        same.setblocking(False)
        while True:
            same.send(bytes(65536))


INTERIM = b"HTTP/1.1 103 Early Hints\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.skipif(not hasattr(os, "sendfile"), reason="this system has no sendfile")
def test_trio_what_arrives_ends_the_wait_for_room_for_a_file(tmp_path):
    (tmp_path / "f").write_bytes(b"content")

    async def main():
        async with connected() as (link, peer):
            fill(link)
            await peer.sock.send(INTERIM)
            with (tmp_path / "f").open("rb") as file, trio.fail_after(60):
                command = SendFile(link, file.fileno(), 0, 7, inf)
                assert await TrioNetwork(TLS(), None).perform(command) is None
            link.abort()

    run_virtual("trio", main)


def test_trio_what_arrives_ends_the_wait_for_room_under_tls(authority):
    """Enciphered bytes are left over: nothing further is taken before they are gone."""

    async def main():
        async with connected(authority) as (link, peer):
            await peer.say(INTERIM)
            content = bytes(4 << 20)
            with trio.fail_after(60):
                assert await link.write(content, watch=True) == len(content)
                assert await link.write(b"more", watch=True) == 0
            link.abort()

    run_virtual("trio", main)


def test_trio_the_end_of_what_was_written_goes_out_while_the_answer_is_awaited(authority):
    """What arrived (a hint, a session ticket) ended the wait for room amid the last piece of a body."""

    async def main():
        async with connected(authority) as (link, peer):
            await peer.say(INTERIM)
            content = bytes(4 << 20)
            heard = 0

            async def answer_when_all_is_there():
                nonlocal heard
                while heard < len(content):
                    heard += len(await peer.do(lambda: peer.secure.read(65536)))
                await peer.say(FINAL)

            assert await link.write(content, watch=True) == len(content)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer_when_all_is_there)
                with trio.fail_after(60):
                    while (head := link.wire.read_head()) is None:
                        await link.read()
            assert (head.status, heard) == (200, len(content))
            link.abort()

    run_virtual("trio", main)


def test_trio_a_peer_that_goes_away_amid_the_last_piece_is_read_to_its_end(authority):
    """It takes no more, and has said why."""

    async def main():
        async with connected(authority) as (link, peer):
            await peer.say(FINAL)
            content = bytes(4 << 20)
            assert await link.write(content, watch=True) == len(content)
            peer.sock.close()
            with trio.fail_after(60):
                while (head := link.wire.read_head()) is None:
                    await link.read()
            assert head.status == 200
            link.abort()

    run_virtual("trio", main)


def test_trio_a_turn_that_has_come_already_is_not_waited_for():
    async def main():
        ticket = Ticket()
        ticket.serve()
        with trio.fail_after(60):
            await TrioNetwork(TLS(), None).perform(Wait(ticket, inf))

    run_virtual("trio", main)


def test_trio_a_task_of_ours_that_fails_is_reported_and_ends_no_run(monkeypatch):
    told, done = [], trio.Event

    async def main():
        over = done()

        async def fail():
            await trio.lowlevel.checkpoint()
            raise LookupError("a bug")

        TrioNetwork(TLS(), None).spawn(fail, over.set)
        with trio.fail_after(60):
            await over.wait()

    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: told.append((kind, str(error))))
    run_virtual("trio", main)
    assert told == [(LookupError, "a bug")]


def test_trio_a_turn_that_comes_late_is_nobodys():
    """Once the wait is over, by its deadline or a cancellation, and at the same moment as the deadline."""

    async def main():
        network = TrioNetwork(TLS(), None)
        late = Ticket()
        with pytest.raises(TimeoutError):
            await network.perform(Wait(late, trio.current_time() + 1))
        late.serve()
        cancelled = Ticket()
        with trio.move_on_after(1) as scope:
            await network.perform(Wait(cancelled, inf))
        assert scope.cancelled_caught
        cancelled.serve()
        both = Ticket()

        async def serve():
            both.serve()
            both.notify.__self__.expire()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.perform, Wait(both, trio.current_time() + 60))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(serve)

    run_virtual("trio", main)


def test_trio_waits_of_different_lengths_end_in_time():
    """One timer ends them all: one that is shorter than all before it, too."""

    async def main():
        network, ended = TrioNetwork(TLS(), None), []

        async def wait(seconds):
            with pytest.raises(TimeoutError):
                await network.perform(Wait(Ticket(), trio.current_time() + seconds))
            ended.append((seconds, trio.current_time() - began))

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for seconds in (500, 100, 300, 7):
                nursery.start_soon(wait, seconds)
                await trio.testing.wait_all_tasks_blocked()
        assert ended == [(seconds, pytest.approx(seconds)) for seconds in (7, 100, 300, 500)]

    run_virtual("trio", main)


def test_trio_there_is_no_room_for_a_request_at_first():
    async def main():
        async with connected() as (link, peer):
            fill(link)

            async def empty():
                await trio.testing.wait_all_tasks_blocked()
                await peer.sock.recv(1 << 20)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(empty)
                assert await TrioNetwork(TLS(), None).perform(Write(link, b"GET", inf, False)) == 3
            link.abort()

    run_virtual("trio", main)


def test_trio_an_answer_that_another_has_taken_is_waited_for_again(monkeypatch):
    taken = []

    def receive(link):
        if not taken:
            taken.append(link)
            raise BlockingIOError
        return former(link)

    former = TrioLink.receive
    monkeypatch.setattr(TrioLink, "receive", receive)

    async def main():
        async with connected() as (link, peer):
            await peer.sock.send(FINAL)
            assert await TrioNetwork(TLS(), None).perform(Read(link, inf)) == len(FINAL)
            assert taken == [link]
            link.abort()

    run_virtual("trio", main)


def test_trio_a_connection_that_is_closed_under_whoever_waits():
    async def main():
        async with connected() as (link, _), trio.open_nursery() as nursery:

            async def wait():
                with pytest.raises(trio.ClosedResourceError):
                    await TrioNetwork(TLS(), None).perform(Read(link, inf))

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            link.abort()
            link.expire()  # at the same moment, it was due

    run_virtual("trio", main)


@pytest.mark.hostile("published-foreign-errors")
@pytest.mark.parametrize(
    ("cause", "message"),
    [(ConnectionResetError(104, "reset by peer"), "reset by peer"), (None, "the connection broke")],
)
def test_trio_a_stream_of_trio_that_breaks_while_its_bytes_are_sent(cause, message):
    """Content that is read from another connection of trio's; its errors are no OSErrors."""

    async def content():
        yield b"a"
        raise trio.BrokenResourceError from cause

    async def main():
        with RawServer((Stall(),)) as server:
            client = TrioClient(server.config())
            with pytest.raises(FileError, match=message):
                await client.request("POST", "x", data=content())
            await client.aclose()

    trio.run(main)
