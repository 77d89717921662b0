"""One connection of a simulation: the emulator's conversation at the far end, and what befalls it on the way.

Rules of this file: what is drawn is drawn where it can happen, so that a script tells nothing that did not;
bytes arrive in the order in which they were sent, late or not; the client's end is a real socket, and a
reset of it is a real one: our end is closed with a byte unread.
"""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..emulator.commands import AwaitArrival, Command, Linger, Pause, Receive, Send, SendFile

if TYPE_CHECKING:
    from ..emulator.commands import Flow
    from ._world import Timer, World
    from .choices import Choices
    from .fault_model import FaultModel

IDLE = 60.0
"""Seconds of silence after which the service closes a connection."""

_PIECES = 20
_GAP = 0.001  # seconds between pieces, so that each is read by itself
_READ = 1 << 18

# What nobody has asked for. A client that took it for an answer would tell so: it is none of the service's.
STRAY = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"stray":true}'


class Line:
    """A connection, from the moment it is there.

    Args:
        number: which one it is, from 1.
        client: the socket that the client has.
        flow: what is said at the other end.
    """

    def __init__(
        self,
        number: int,
        client: socket.socket,
        ours: socket.socket,
        flow: Flow[None],
        world: World,
        choices: Choices,
        faults: FaultModel,
    ) -> None:
        self.number = number
        self._client = client
        self._ours = ours
        self._flow = flow
        self._world = world
        self._choices = choices
        self._faults = faults
        self._exchange = 1  # the number of the request that is awaited, or being answered
        self._part = 0  # of the answer: how many were sent
        self._received = False  # whether bytes of this request have come
        self._arrived_at = self._leaves_at = 0.0  # when the last bytes on their way arrive, at either end
        self._inbox = bytearray()
        self._left = False  # whether the client's end has come
        self._outbox = bytearray()  # what the client's socket has no room for yet
        self._ending: Callable[[], None] | None = None  # what follows that
        self._idle = IDLE  # seconds of silence that the service bears
        self._mute = False  # nothing that is sent arrives any more
        self._events = selectors.EVENT_READ
        self._timer: Timer | None = None
        self._over = False
        world.watch(self, ours, self._events)
        self._command: Command | None = next(flow)
        self._go_on()

    def _drawn(self, what: str, odds: float, most: int) -> int:
        return self._choices.choose(f"connection {self.number}, {what}", odds, most)

    # What the sockets tell

    def stirred(self, events: int) -> None:
        """Something can be read or written."""
        if events & selectors.EVENT_WRITE:
            self._flush()
        if events & selectors.EVENT_READ and not self._over:
            try:
                data = self._ours.recv(_READ)
            except OSError:  # a reset is an end, here
                data = b""
            if data:
                self._on_the_way(data)
            else:
                self._watch(self._events & ~selectors.EVENT_READ)
                self._later(self._leave)

    def _on_the_way(self, data: bytes) -> None:
        """Bytes of a request begin their way to the service."""
        if not self._received:
            self._received = True
            request, faults = f"request {self._exchange}", self._faults
            lost = self._drawn(f"{request}: reset after (bytes)", faults.lost_request, len(data))
            late = self._drawn(f"{request}: late by (ms)", faults.late_request, 2000)
            self._arrived_at = max(self._arrived_at, self._world.time) + late / 1000
            if lost:
                self._later(partial(self._arrive, data[: lost - 1]))
                self._later(self._reset)
                return
        self._later(partial(self._arrive, data))

    def _later(self, action: Callable[[], None]) -> None:
        """Has something happen at the service's end, behind what is on its way there."""
        if self._arrived_at <= self._world.time:
            action()
        else:
            self._world.at(self._arrived_at, action)

    def _arrive(self, data: bytes) -> None:
        self._inbox += data
        self._go_on()

    def _leave(self) -> None:
        self._left = True
        self._go_on()

    # What the conversation asks

    def _go_on(self) -> None:
        """Performs commands until one has to wait."""
        while self._command is not None and not self._over:
            command = self._command
            if isinstance(command, Send):
                self._send(command.data)
                self._answer(None)
            elif isinstance(command, SendFile):
                self._send(os.pread(command.file.fileno(), command.count, command.offset))
                self._answer(None)
            elif not self._wait(command):
                return

    def _wait(self, command: Receive | Pause | AwaitArrival | Linger) -> bool:
        """Whether what is waited for is there; else, a timer runs."""
        if isinstance(command, Linger):
            self._inbox.clear()
            if self._timer is None:
                self._at_the_end(self._shut)
            ready = self._left
        elif isinstance(command, Pause):
            ready = False
            if self._left:
                self._fail(ConnectionAbortedError())
                return True
        else:
            if self._part and isinstance(command, Receive):
                self._begin_exchange()
            ready = bool(self._inbox) or self._left
        if ready:
            self._answer(self._taken(command.size) if isinstance(command, Receive) else None)
            return True
        if self._timer is None:
            self._start_timer(command)
        return False

    def _start_timer(self, command: Receive | Pause | AwaitArrival | Linger) -> None:
        time = self._world.time
        if isinstance(command, Receive):
            self._timer = self._world.at(time + self._idle, partial(self._expire, TimeoutError()))
            self._idle = IDLE
        elif isinstance(command, AwaitArrival):
            self._timer = self._world.at(time + IDLE, partial(self._expire, None))
        elif command.seconds is not None:
            self._timer = self._world.at(time + command.seconds, partial(self._expire, None))

    def _begin_exchange(self) -> None:
        """The answer is over, and a request may come: in less time, perhaps, than amid one."""
        idle = self._drawn(
            f"after answer {self._exchange}: closed when idle for (ms)", self._faults.stale, 5000
        )
        self._idle = idle / 1000 or IDLE
        self._exchange += 1
        self._part, self._received = 0, False

    def _expire(self, error: OSError | None) -> None:
        self._timer = None
        if error is None:
            self._answer(None)
        else:
            self._fail(error)
        self._go_on()

    def _taken(self, size: int) -> bytes:
        data = bytes(self._inbox[:size])
        del self._inbox[:size]
        return data

    def _answer(self, answer: bytes | None) -> None:
        self._resume(partial(self._flow.send, answer))

    def _fail(self, error: OSError) -> None:
        self._resume(partial(self._flow.throw, error))

    def _resume(self, step: Callable[[], Command]) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._command = None
        try:
            self._command = step()
        except (StopIteration, OSError):
            self._at_the_end(self._finish)

    # What is sent

    def _send(self, data: bytes) -> None:
        """Bytes of an answer begin their way to the client."""
        if self._mute or not data:
            return
        self._part += 1
        answer = f"answer {self._exchange}" + (f", part {self._part}" if self._part > 1 else "")
        faults, size = self._faults, len(data)
        late = self._drawn(f"{answer}: late by (ms)", faults.late_answer, 5000)
        self._leaves_at = max(self._leaves_at, self._world.time) + late / 1000
        end = None
        for text, odds, action in (
            ("cut after (bytes)", faults.cut, self._finish),
            ("half-closed after (bytes)", faults.half_closed, self._shut),
            ("reset after (bytes)", faults.reset, self._reset),
            ("silent after (bytes)", faults.silent, None),
        ):
            if drawn := self._drawn(f"{answer}: {text}", odds, size):
                data, self._mute, end = data[: drawn - 1], True, action
                break
        else:
            if size <= _READ // 4 and self._drawn(f"{answer}: followed by a stray one", faults.stray, 1):
                # At the same moment as the answer: later, it could be taken for that of the next request,
                # and nothing in HTTP/1.1 could tell.
                end = partial(self._write, STRAY)
        self._send_pieces(data, answer)
        if end is not None:
            self._at_the_end(end)

    def _send_pieces(self, data: bytes, answer: str) -> None:
        faults, size = self._faults, len(data)
        piece = self._drawn(f"{answer}: in pieces of (bytes)", faults.split, max(size, 1))
        slow = self._drawn(f"{answer}: a piece in (ms)", faults.slow, 3000)
        piece = max(piece, size // _PIECES, 1) if piece or slow else max(size, 1)
        for start in range(0, size, piece):
            if start:
                self._leaves_at += slow / 1000 or _GAP
            self._at_the_end(partial(self._write, data[start : start + piece]))

    def _at_the_end(self, action: Callable[[], None]) -> None:
        """Has something happen at the client's end, behind what is on its way there."""
        if self._leaves_at <= self._world.time:
            action()
        else:
            self._world.at(self._leaves_at, action)

    def _write(self, data: bytes) -> None:
        if not self._over:
            self._outbox += data
            self._flush()

    def _flush(self) -> None:
        try:
            while self._outbox:
                del self._outbox[: self._ours.send(self._outbox)]
        except BlockingIOError:
            self._watch(self._events | selectors.EVENT_WRITE)
            return
        except OSError:  # the client has gone, which is read, too
            self._outbox.clear()
        self._watch(self._events & ~selectors.EVENT_WRITE)
        if self._ending is not None:
            self._ending()

    def _watch(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._world.watch(self, self._ours, events)

    # The end

    def _shut(self) -> None:
        """Ends our side, behind what there was no room for."""
        self._mute = True
        if self._outbox:
            self._ending = self._shut
        elif not self._over:
            try:
                self._ours.shutdown(socket.SHUT_WR)
            except OSError:  # the client has gone
                pass

    def _finish(self) -> None:
        """Closes our end, behind what there was no room for."""
        if self._outbox:
            self._ending = self.close
        else:
            self.close()

    def _reset(self) -> None:
        if not self._over:
            try:
                self._client.send(b"!")  # unread when our end is closed, which makes that a reset
            except OSError:  # the client has gone, or there is no room, and something is unread anyway
                pass
            self.close()

    def close(self) -> None:
        """Closes our end at once; harmless if it has been."""
        if not self._over:
            self._over = True
            if self._timer is not None:
                self._timer.cancel()
            self._flow.close()
            self._world.watch(self, self._ours, 0)
            self._ours.close()
