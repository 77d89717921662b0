"""Whether a socket can be read or written, with poll and where the system has none."""

from __future__ import annotations

import select
import socket
from math import inf

import pytest

from agentrun_transports._readiness import Readiness

SOON = 0.01  # seconds; a wait that is to end without anything having come


@pytest.fixture(params=["poll", "select"])
def pair(request, monkeypatch):
    """Ours, what is asked after it, and its peer."""
    if request.param == "select":
        monkeypatch.delattr(select, "poll", raising=False)
    elif not hasattr(select, "poll"):
        pytest.skip("this system has no poll")
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        peer.setblocking(False)
        yield ours, Readiness(ours.fileno()), peer


def fill(sock):
    with pytest.raises(BlockingIOError):
        while True:
            sock.send(bytes(65536))


def test_what_has_come_can_be_read(pair):
    _, ready, peer = pair
    assert not ready.readable()
    peer.send(b"x")
    assert ready.readable()


def test_the_end_can_be_read(pair):
    _, ready, peer = pair
    peer.shutdown(socket.SHUT_WR)
    assert ready.readable()


def test_there_is_room_until_it_is_full(pair):
    ours, ready, _ = pair
    assert ready.writable()
    for seconds in (SOON, inf, 1e300):
        assert ready.until_writable(seconds)
    fill(ours)
    assert not ready.writable()


def test_the_wait_for_room_ends_in_time(pair):
    ours, ready, _ = pair
    fill(ours)
    with pytest.raises(TimeoutError):
        ready.until_writable(SOON)
    for seconds in (0.0, -1.0):
        with pytest.raises(TimeoutError):
            ready.until_writable(seconds)


def test_what_arrives_ends_the_wait_for_room(pair):
    ours, ready, peer = pair
    fill(ours)
    peer.send(b"x")
    assert not ready.until_writable(inf), "there is no room still"


def test_a_wait_for_ever_is_made_of_long_ones(pair, monkeypatch):
    """poll and select take no infinity: none of them ends it."""
    ours, ready, _ = pair
    fill(ours)
    monkeypatch.setattr("agentrun_transports._readiness._LONGEST", SOON)
    assert not ready.until_writable(inf), "whoever waits asks once more"
