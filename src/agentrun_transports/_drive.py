"""The driver: a loop that performs the commands of a flow, plain, awaited, and as a flow itself.

Rules of this file: it knows nothing of what it performs; a failure is thrown into the flow, which decides
what becomes of it; the flow is closed, however it ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from agentrun_proto import AgentRunClientError, Command, Flow

Result = TypeVar("Result")

Perform = Callable[[Command[Any]], Any]
"""Performs a command and returns its answer; raises AgentRunClientError, on the network's level OSError."""

PerformAsync = Callable[[Command[Any]], "Awaitable[Any] | int"]
"""The same, to be awaited; where nothing has to be waited for, a number may come as it is."""


def drive(flow: Flow[Result], perform: Perform) -> Result:
    """Performs the commands of a flow, one after another, and returns its result. This is a whole driver.

    Args:
        flow: of the core's commands, or of network commands.
        perform: answers one command. What it raises of AgentRunClientError and OSError is thrown into the
            flow, which decides what becomes of it; anything else ends the flow.

    Raises:
        Whatever the flow does not catch: AgentRunClientError, and what the caller of a flow did wrong.

    >>> from agentrun_proto import Config, DataEndpoint, Head, ReadAll
    >>> from agentrun_transports.testing import TurnedClock
    >>> endpoint = DataEndpoint(Config(account_id="1"))
    >>> flow = endpoint.call(endpoint.request("GET", "resources"), clock=TurnedClock())
    >>> drive(flow, lambda command: b'{"ok":true}' if isinstance(command, ReadAll) else Head(status=200))
    {'ok': True}
    """
    try:
        command = flow.send(None)
        while True:
            try:
                answer = perform(command)
            except (OSError, AgentRunClientError) as error:
                command = flow.throw(error)
            else:
                command = flow.send(answer)
    except StopIteration as stop:
        return cast("Result", stop.value)
    finally:
        flow.close()


async def drive_async(flow: Flow[Result], perform: PerformAsync) -> Result:
    """`drive` for every loop that has `await`; a cancellation ends the flow where it stands."""
    try:
        command = flow.send(None)
        while True:
            try:
                answer = perform(command)
                if not isinstance(answer, int):
                    answer = await answer
            except (OSError, AgentRunClientError) as error:
                command = flow.throw(error)
            else:
                command = flow.send(answer)
    except StopIteration as stop:
        return cast("Result", stop.value)
    finally:
        flow.close()


def conduct(flow: Flow[Result], perform: Callable[[Command[Any]], Flow[Any]]) -> Flow[Result]:
    """`drive` where performing a command is a flow itself, of commands of a lower level."""
    try:
        command = flow.send(None)
        while True:
            try:
                answer = yield from perform(command)
            except AgentRunClientError as error:
                command = flow.throw(error)
            else:
                command = flow.send(answer)
    except StopIteration as stop:
        return cast("Result", stop.value)
    finally:
        flow.close()
