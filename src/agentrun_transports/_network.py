"""What a driver performs: connect, write, read, wait, run, and no more.

Rules of this file: a command is a question with a typed answer and does nothing itself; it has the deadline
(monotonic seconds, `inf` for none) after which the driver raises TimeoutError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from math import inf
from typing import Any, Generic, Protocol, TypeVar

from agentrun_proto import AgentRunClientError, Clock, Command, Flow, Origin

from ._pool import Pooled
from ._tickets import Ticket
from ._wire import Wire

Result = TypeVar("Result")
Answer = TypeVar("Answer")


class Link(Pooled, Protocol):
    """A connection, as an exchange knows it. Each driver has its own."""

    wire: Wire
    used: bool
    """Whether it has served a request before."""

    def take_in(self) -> int | None:
        """Takes into the wire what has arrived, without waiting: its size; 0 at the end, None if none."""
        ...


class Connect(Command[Link]):
    """Open a connection. Raises OSError, or TLSError."""

    __slots__ = ("deadline", "origin")

    def __init__(self, origin: Origin, deadline: float) -> None:
        self.origin: Origin = origin
        self.deadline: float = deadline


class Write(Command[int]):
    """Send some of these bytes, at least one; answer with how many. Raises OSError.

    With `watch`, something that arrives ends the wait for room too; the answer may then be 0.
    """

    __slots__ = ("data", "deadline", "link", "watch")

    def __init__(self, link: Link, data: bytes | memoryview, deadline: float, watch: bool) -> None:
        self.link: Link = link
        self.data: bytes | memoryview = data
        self.deadline: float = deadline
        self.watch: bool = watch


class SendFile(Command["int | None"]):
    """Have the system send some of an open file; answer with how many bytes, 0 at its end. Raises OSError.

    Something that arrives ends the wait for room, as with `Write`; the answer is None then. Only for links
    that can: see `sends_files`.
    """

    __slots__ = ("count", "deadline", "descriptor", "link", "offset")

    def __init__(self, link: Link, descriptor: int, offset: int, count: int, deadline: float) -> None:
        self.link: Link = link
        self.descriptor: int = descriptor
        self.offset: int = offset
        self.count: int = count
        self.deadline: float = deadline


def sends_files(link: Link) -> bool:
    """Whether `SendFile` is understood for a link: it says so in an attribute of this name."""
    return getattr(link, "sends_files", False)


class Read(Command[int]):
    """Receive into the link's wire, at least a byte; answer with how many, 0 at the end. Raises OSError."""

    __slots__ = ("deadline", "link")

    def __init__(self, link: Link, deadline: float) -> None:
        self.link: Link = link
        self.deadline: float = deadline


class Wait(Command[None]):
    """Wait until a ticket is ready. Raises TimeoutError."""

    __slots__ = ("deadline", "ticket")

    def __init__(self, ticket: Ticket, deadline: float) -> None:
        self.ticket: Ticket = ticket
        self.deadline: float = deadline


def _nothing(answer: object) -> None:
    pass


class Run(Command[Answer], Generic[Answer]):
    """Run a blocking call where it holds nobody up. Raises what the call raises."""

    __slots__ = ("function", "undo")
    deadline = inf  # a thread cannot be stopped

    def __init__(self, function: Callable[[], Answer], undo: Callable[[Answer], None] = _nothing) -> None:
        self.function: Callable[[], Answer] = function
        self.undo: Callable[[Answer], None] = undo
        """What to do with an answer that comes after the flow was cancelled."""


class Await(Command[Answer], Generic[Answer]):
    """Await what this async function returns. A driver that cannot await anything raises `otherwise`."""

    __slots__ = ("function", "otherwise")
    deadline = inf

    def __init__(self, function: Callable[[], Awaitable[Answer]], otherwise: AgentRunClientError) -> None:
        self.function: Callable[[], Awaitable[Answer]] = function
        self.otherwise: AgentRunClientError = otherwise


class Spawn(Command[None]):
    """Begin to perform a flow beside this one, which goes on at once; whoever cancels this leaves that alone.

    `done` is called when it is over, exactly once, however that comes about: when it is cancelled before its
    first step, too.
    """

    __slots__ = ("done", "flow")
    deadline = inf

    def __init__(self, flow: Flow[None], done: Callable[[], None]) -> None:
        self.flow: Flow[None] = flow
        self.done: Callable[[], None] = done


NetworkCommand = Connect | Write | SendFile | Read | Wait | Run[Any] | Await[Any] | Spawn
"""All that a driver performs. TimeoutError stands for a deadline (monotonic seconds) that has passed."""

Steps = Generator[Command[Any], Any, Answer]
"""A flow of network commands."""

Operation = Callable[[Clock], Flow[Result]]
"""What is to be done: a function from the driver's clock to a flow of the core."""
