"""A conversation over a socket: its commands are performed here, in a thread of the connection's own.

Rules that hold here:
1. One thread owns a connection. From outside, it is only ever shut down (which wakes the thread), never
   closed.
2. Nothing is decided here.
"""

from __future__ import annotations

import math
import selectors
import socket
import ssl
import time
from contextlib import closing
from typing import TYPE_CHECKING

from .commands import AwaitArrival, Pause, Receive, Send, SendFile
from .conversation import CHUNK, MAX_HEAD, Conversation

if TYPE_CHECKING:
    from .commands import Command
    from .server import Emulator


class Connection:
    """One connection, from accept to close. ``run`` is its thread; ``shut_down`` may come from any other."""

    def __init__(self, sock: socket.socket, emulator: Emulator, number: int) -> None:
        self._sock = sock
        self._emulator = emulator
        self._conversation = Conversation(emulator.service, emulator.requests, number, emulator.folder)
        self._kept = b""  # arrived during a pause

    def shut_down(self) -> None:
        """Wake the thread of this connection: whatever it waits for ends."""
        try:
            # Not SSLSocket.shutdown: that drops the TLS state under the thread that uses it.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:
            pass

    def run(self) -> None:
        """Serve until either side has had enough."""
        with closing(self._sock), closing(self._conversation.run()) as flow:
            try:
                if isinstance(self._sock, ssl.SSLSocket):
                    self._sock.do_handshake()
                command = next(flow)
                while True:
                    try:
                        answer = self._perform(command)
                    except OSError as error:
                        command = flow.throw(error)
                    else:
                        command = flow.send(answer)
            except StopIteration:
                pass
            except OSError:  # reset, timed out, no TLS, or shut down by close()
                pass

    def _perform(self, command: Command) -> bytes | None:
        if isinstance(command, Receive):
            return self._receive(command.size)
        if isinstance(command, Send):
            self._sock.sendall(command.data)
        elif isinstance(command, SendFile):
            self._sock.sendfile(command.file, command.offset, command.count)
        elif isinstance(command, Pause):
            self.pause(command.seconds)
        elif isinstance(command, AwaitArrival):
            self._await_arrival()
        else:
            self._linger(command.seconds)
        return None

    def _receive(self, size: int) -> bytes:
        if self._kept:
            data, self._kept = self._kept[:size], self._kept[size:]
            return data
        return self._sock.recv(size)

    def pause(self, seconds: float | None) -> None:
        """Wait, for ever where ``seconds`` is None. Raises ``OSError`` where the peer leaves before that.

        Where it sends more than any head has, nobody looks whether it is still there.
        """
        end = math.inf if seconds is None else time.monotonic() + seconds
        try:
            while (left := end - time.monotonic()) > 0:
                room = MAX_HEAD - len(self._kept)
                if room <= 0:
                    if self._emulator.closing.wait(None if seconds is None else left):
                        raise ConnectionAbortedError
                    return
                self._sock.settimeout(None if seconds is None else left)
                data = self._sock.recv(room)
                if not data:
                    raise ConnectionAbortedError
                self._kept += data
        except TimeoutError:  # the time is over, and nothing has come
            pass
        finally:
            self._sock.settimeout(self._emulator.idle_timeout)

    def _await_arrival(self) -> None:
        if self._kept:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            selector.select(self._emulator.idle_timeout)

    def _linger(self, seconds: float) -> None:
        socket.socket.shutdown(self._sock, socket.SHUT_WR)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._emulator.closing.is_set():
            self._sock.settimeout(left)
            # Below TLS: what is thrown away need not be deciphered.
            if not socket.socket.recv(self._sock, CHUNK):
                return
