"""Blocking calls in a simulation: where one would wait, the world advances.

Rules of this file: one thread; nothing waits for the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from .._blocking import BlockingLink, BlockingNetwork
from .._network import Read, SendFile, Wait, Write
from .._tls import TLS

if TYPE_CHECKING:
    import socket

    from agentrun_proto import Origin

    from ._world import Dialler, World

_ROOM = 1 << 16
"""Bytes that fit into a socket that says it has room (Linux: a quarter of 208 KiB is taken at most)."""


class SimulatedBlockingNetwork(BlockingNetwork):
    """The blocking network, with sockets and time of a simulation."""

    def __init__(self, tls: TLS, world: World, dial: Dialler, random: Callable[[int], bytes]) -> None:
        super().__init__(tls)
        self.clock = world
        self.random = random
        self._world = world
        self._begin_dialling = dial

    def until(self, ready: Callable[[], Any], deadline: float) -> None:
        """Advances the world until something is so. Raises TimeoutError."""
        world = self._world
        while not ready():
            if world.time >= deadline:
                raise TimeoutError
            world.advance(deadline)

    def _dial(self, origin: Origin, deadline: float) -> socket.socket:
        dial = self._begin_dialling(origin)
        try:
            self.until(lambda: dial.ready, deadline)
            return dial.take()
        except BaseException:
            dial.cancel()
            raise

    def _read(self, command: Read) -> int:
        self.until(cast("BlockingLink", command.link).ready.readable, command.deadline)
        return super()._read(command)

    def _write(self, command: Write) -> int:
        ready = cast("BlockingLink", command.link).ready
        self.until(lambda: ready.writable() or (command.watch and ready.readable()), command.deadline)
        piece = memoryview(command.data)[:_ROOM]
        return super()._write(Write(command.link, piece, command.deadline, command.watch))

    def _send_file(self, command: SendFile) -> int | None:
        ready = cast("BlockingLink", command.link).ready
        self.until(lambda: ready.writable() or ready.readable(), command.deadline)
        count = min(command.count, _ROOM)
        return super()._send_file(
            SendFile(command.link, command.descriptor, command.offset, count, command.deadline)
        )

    def _wait(self, command: Wait) -> None:
        self.until(lambda: command.ticket.ready, command.deadline)

    def spawn(self, run: Callable[[], None], done: Callable[[], None]) -> None:
        """Calls both at once: there is no other thread."""
        try:
            run()
        finally:
            done()

    def sleep(self, seconds: float) -> None:
        """Lets virtual time pass."""
        try:
            self.until(lambda: False, self._world.time + seconds)
        except TimeoutError:
            pass
