"""From a host to a connected socket: the addresses, their order, and blocking attempts at them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, cast

FOREVER = 1e8
"""Seconds, about three years: beyond it, a socket's timeout is none."""


def seconds_left(deadline: float) -> float | None:
    """Seconds until a deadline, as sockets want them."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left if left < FOREVER else None


Address = tuple[int, Any]
"""The address family, and what connect() takes."""


def resolve(host: str, port: int, deadline: float) -> list[Address]:
    """The addresses of a host, in the order to try them."""
    # As bytes: a str would have the codec for IDNA imported, under a lock that a fork may find held.
    name = host.encode("ascii")
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        found = _resolve_name(name, port, deadline)
    return interleaved(found)


def interleaved(found: Sequence[tuple[Any, ...]]) -> list[Address]:
    """What getaddrinfo has found, the families in turn, so that a broken one costs one attempt (RFC 8305, 4).

    >>> interleaved([(10, 1, 6, "", "a6"), (10, 1, 6, "", "b6"), (2, 1, 6, "", "a4")])
    [(10, 'a6'), (2, 'a4'), (10, 'b6')]
    """
    first: list[Address] = [(entry[0], entry[4]) for entry in found if entry[0] == found[0][0]]
    others: list[Address] = [(entry[0], entry[4]) for entry in found if entry[0] != found[0][0]]
    turns = [entry for pair in zip(first, others, strict=False) for entry in pair]
    shared = len(turns) // 2
    return turns + first[shared:] + others[shared:]


def _resolve_name(name: bytes, port: int, deadline: float) -> list[Any]:
    """getaddrinfo in a thread: it takes no timeout, and a resolver may be silent for a long time."""
    outcome: list[Any] = []
    done = threading.Event()

    def look_up() -> None:
        try:
            outcome.append(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            outcome.append(OSError(f"the name {name.decode()!r} is unknown: {error}"))
        done.set()

    threading.Thread(target=look_up, name="agentrun-resolver", daemon=True).start()
    if not done.wait(seconds_left(deadline)):
        raise TimeoutError
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return cast("list[Any]", outcome[0])


def open_first(addresses: list[Address], deadline: float) -> socket.socket:
    """A socket to the first address that answers; each gets its share of the time that is left."""
    failure: OSError | None = None
    for position, (family, address) in enumerate(addresses):
        left = seconds_left(deadline)
        share = None if left is None else left / (len(addresses) - position)
        try:
            sock = open_socket(family, address, share)
        except OSError as error:
            failure = error
        else:
            tune(sock)
            return sock
    raise failure or OSError("the name has no address")


def tune(sock: socket.socket) -> None:
    """Small requests go out at once, and a peer that has vanished is noticed some day."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def open_socket(family: int, address: Any, timeout: float | None) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock
