"""The seam: how to run this client on a loop, or over an HTTP library, that it has never heard of.

An operation is a function from a clock to a flow: ``lambda clock: endpoint.call(request, clock=clock)``. A
*flow* is a generator that yields commands, is sent their answers, and returns its result. `drive` and
`drive_async` are the whole of what runs one; what is left to write is a function that performs one command.
There are two levels to write it on:

**Level 1: perform the core's commands**, for those who have an HTTP library. They are in `agentrun_proto`::

    Send          send request.method, request.url and request.fields() as they are; answer with the Head
    ReadAll       answer with the content of that answer; DecodeError if it is larger than `limit`
    ReadInto      write the content to a sink; answer with its length
    OpenSource, OpenSink, Commit, Rewind, Sleep, RandomBytes, Provide      `local_steps` performs them
    Refresh       perform `flow()` like any other, once for all who ask for the same `key` meanwhile

A performer of `Send` follows no redirect, adds and removes no field (RFC 9112's framing aside), takes off
no content coding, never sends a POST twice, keeps to `timeout` and `deadline` (monotonic seconds), and
raises TransportError of the class that says what happened. `BodyReader` gives it the content to send.

**Level 2: perform seven network commands**, for those who have a loop. `Exchange` turns the core's commands
into these, and knows all there is to know of HTTP/1.1 and of connections::

    Connect       open a connection to an origin; answer with a Link. OSError, TLSError
    Write         send some of these bytes; answer with how many. OSError. With `watch`, something that
                  arrives ends the wait for room too, and the answer may be 0
    SendFile      have the system send some of an open file; only for links that say `sends_files`
    Read          receive into the link's wire; answer with how many bytes, 0 at the end. OSError
    Wait          wait until a ticket is ready; in a pause, it never is
    Run           run a blocking call where it holds nobody up; what it raises is raised
    Await         await an async function's result; CredentialError where nothing can be awaited
    Spawn         begin to perform a flow beside this one, without waiting; call `done` when it is over

Each has a `deadline` (monotonic seconds, `math.inf` for none); when it has passed, raise TimeoutError. A
`Link` is a connection with a `Wire` that takes its bytes; `abort` closes it at once and never waits. A
cancellation is nothing special: close the flow, and every connection and file that it held is given back.

A `Transport` has a client's operations run elsewhere: ``transport=`` of every client takes one. It makes a
`SyncSession`, and `Sessions` for asyncio and trio, from the client's `Setup`; what is in
`agentrun_transports.testing` is made so.

Rules that hold here: nothing here does I/O; every name is public, and a change of one is in CHANGELOG.md.
`docs/embedding.md` builds a driver step by step; `agentrun_transports.testing.conformance` tells whether it
is right.
"""

from __future__ import annotations

from ._drive import Perform, PerformAsync, drive, drive_async
from ._exchange import Exchange
from ._files import FileSink, FileSource
from ._flights import Flights
from ._local import file_error
from ._network import (
    Await,
    Connect,
    Link,
    NetworkCommand,
    Operation,
    Read,
    Run,
    SendFile,
    Spawn,
    Steps,
    Wait,
    Write,
)
from ._performing import BodyReader, LocalCommand, local_steps
from ._pool import Limits, Pool
from ._routes import Session, Sessions, Setup, SyncSession, Transport
from ._tickets import Ticket
from ._wire import Wire, encode_head

__all__ = [
    "Await",
    "BodyReader",
    "Connect",
    "Exchange",
    "FileSink",
    "FileSource",
    "Flights",
    "Limits",
    "Link",
    "LocalCommand",
    "NetworkCommand",
    "Operation",
    "Perform",
    "PerformAsync",
    "Pool",
    "Read",
    "Run",
    "SendFile",
    "Session",
    "Sessions",
    "Setup",
    "Spawn",
    "Steps",
    "SyncSession",
    "Ticket",
    "Transport",
    "Wait",
    "Wire",
    "Write",
    "drive",
    "drive_async",
    "encode_head",
    "file_error",
    "local_steps",
]
