"""An example: a driver over nothing but `selectors` and non-blocking sockets. Plain TCP, no threads.

A loop of its own that has never heard of asyncio: each operation is a task, a task is a generator that yields
what it waits for, and `Loop.run_all` turns until all are done. Level 2 of `agentrun_transports.embedding`.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Generator, Sequence
from math import inf
from typing import Any, NamedTuple

from agentrun_proto import AgentRunClientError, CredentialError, Origin
from agentrun_transports.embedding import (
    Await,
    Connect,
    Exchange,
    Flights,
    Limits,
    Link,
    Operation,
    Pool,
    Read,
    Run,
    Spawn,
    Steps,
    Ticket,
    Wait,
    Wire,
    Write,
)


class Clock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class Pause(NamedTuple):
    """What a task waits for: a socket that becomes ready for `events`, or the call of a ticket's `notify`."""

    target: socket.socket | Ticket
    events: int
    deadline: float


Pauses = Generator["Pause | Task", None, Any]
"""What a task is: it yields what it waits for, or another task, which is begun beside it."""


class SelectorsLink:
    """A connected, non-blocking socket."""

    def __init__(self, sock: socket.socket, origin: Origin) -> None:
        self.sock = sock
        self.origin = origin
        self.wire = Wire()
        self.used = False
        self.idle_since = 0.0

    def abort(self) -> None:
        self.sock.close()

    def receive(self) -> int:
        count = self.sock.recv_into(self.wire.get_buffer())
        if count:
            self.wire.received(count)
        return count

    def take_in(self) -> int | None:
        try:
            return self.receive()
        except BlockingIOError:
            return None
        except OSError:
            return 0  # a reset is an end, too


def connect(command: Connect) -> Pauses:
    address = (command.origin.host, command.origin.port)
    sock = socket.socket()
    try:
        sock.setblocking(False)
        sock.connect_ex(address)
        yield Pause(sock, selectors.EVENT_WRITE, command.deadline)
        if failure := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(failure, f"cannot connect to {address}")
    except BaseException:
        sock.close()
        raise
    return SelectorsLink(sock, command.origin)


def write(command: Write) -> Pauses:
    link = command.link
    events = selectors.EVENT_WRITE | (selectors.EVENT_READ if command.watch else 0)
    while True:
        try:
            return link.sock.send(command.data)
        except BlockingIOError:
            yield Pause(link.sock, events, command.deadline)
        if command.watch and readable(link.sock):
            return 0


def readable(sock: socket.socket) -> bool:
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return True  # the end included


def read(command: Read) -> Pauses:
    while True:
        try:
            return command.link.receive()
        except BlockingIOError:
            yield Pause(command.link.sock, selectors.EVENT_READ, command.deadline)


def wait(command: Wait) -> Pauses:
    if not command.ticket.ready:
        yield Pause(command.ticket, 0, command.deadline)


def run(command: Run[Any]) -> Pauses:
    return command.function()
    yield  # this loop has no threads: files are read where they are


def await_(command: Await[Any]) -> Pauses:
    raise CredentialError("this loop awaits nothing; give a plain function as the provider")
    yield


def spawn(command: Spawn) -> Pauses:
    yield Task(drive(command.flow), command.done)  # the loop takes it from here


PERFORM = {
    Connect: connect,
    Write: write,
    Read: read,
    Wait: wait,
    Run: run,
    Await: await_,
    Spawn: spawn,
}


def drive(steps: Steps[Any]) -> Pauses:
    """The fifteen lines: performs network commands until their flow returns."""
    try:
        command = steps.send(None)
        while True:
            try:
                answer = yield from PERFORM[type(command)](command)
            except (OSError, AgentRunClientError) as error:
                command = steps.throw(error)
            else:
                command = steps.send(answer)
    except StopIteration as stop:
        return stop.value
    finally:
        steps.close()


class Task:
    """An operation on its way: paused, or over with an outcome (a result, or an error)."""

    def __init__(self, steps: Pauses, done: Callable[[], None] = lambda: None) -> None:
        self.steps = steps
        self.done = done
        self.pause: Pause | None = None
        self.outcome: Any = None


class Loop:
    """Turns tasks until they are done."""

    def __init__(self, limits: Limits) -> None:
        self.pool: Pool[Link] = Pool(limits, time.monotonic)
        self._flights = Flights()
        self._beside: list[Task] = []
        self._selector = selectors.DefaultSelector()

    def run_all(
        self, operations: Sequence[Operation[Any]], cancelled: Callable[[], bool] | None = None
    ) -> list[Any]:
        """What comes of each operation: its result, or its error. None if they are cancelled before that."""
        tasks = [Task(drive(self._exchange().conduct(make(Clock)))) for make in operations]
        for task in tasks:
            self._turn(task)
        while any(task.pause is not None for task in tasks):
            if cancelled is not None and cancelled():
                for task in tasks:
                    self._cancel(task)
                break
            waiting = [task for task in [*tasks, *self._beside] if task.pause is not None]
            now = time.monotonic()
            late = [task for task in waiting if task.pause.deadline <= now]
            for task in late:
                self._turn(task, TimeoutError())
            if not late:
                for task in self._select(waiting, now, 0.01 if cancelled else inf):
                    self._turn(task)
        return [task.outcome for task in tasks]

    def _exchange(self) -> Exchange:
        return Exchange(self.pool, Clock, self._flights)  # all share the refreshes that are under way

    def _select(self, waiting: list[Task], now: float, longest: float) -> list[Task]:
        """Those whose wait is over, once there are any, or once a deadline has come."""
        served = [
            task for task in waiting if isinstance(task.pause.target, Ticket) and task.pause.target.ready
        ]
        if served:
            return served
        left = min(longest, min(task.pause.deadline for task in waiting) - now)
        return [key.data for key, _ in self._selector.select(None if left == inf else left)]

    def _turn(self, task: Task, error: BaseException | None = None) -> None:
        """Lets a task go on to its next pause, or to its end."""
        self._leave(task)
        try:
            found = next(task.steps) if error is None else task.steps.throw(error)
            while isinstance(found, Task):
                self._beside.append(found)
                self._turn(found)
                found = next(task.steps)
        except StopIteration as stop:
            task.outcome = stop.value
        except AgentRunClientError as failure:
            task.outcome = failure
        else:
            task.pause = found
            if found.events:
                self._selector.register(found.target, found.events, task)
            return
        self._end(task)

    def _end(self, task: Task) -> None:
        if task in self._beside:
            self._beside.remove(task)
        task.done()

    def _cancel(self, task: Task) -> None:
        if task.pause is not None:
            self._leave(task)
            task.steps.close()  # whatever it held is given back
            self._end(task)

    def _leave(self, task: Task) -> None:
        if task.pause is not None and task.pause.events:
            self._selector.unregister(task.pause.target)
        task.pause = None

    def close(self) -> None:
        for task in [*self._beside]:
            self._cancel(task)
        self.pool.close()
        self._selector.close()
