"""A walk through steps that check themselves: for `demo`, with and without faults.

Rules of this file: the steps are a table, run in order; a step either says what it did, or raises; the first
that is not as it should be ends the walk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

from agentrun_proto import AgentRunClientError

from .failures import DONE, REFUSED
from .screen import Screen
from .through import DRIVERS, Carrier

Scene = TypeVar("Scene")


class Unexpected(Exception):
    """A step got something other than it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[Scene]):
    """One step: its name, and what it does; that returns a line or more on what happened, or raises."""

    name: str
    run: Callable[[Scene], str]


def expect(what: str, found: object, wanted: object) -> None:
    """Checks one thing.

    >>> expect("the answer", 42, 42)
    >>> expect("the answer", 41, 42)
    Traceback (most recent call last):
    ...
    agentrun_transports._cli.walk.Unexpected: the answer should be 42, and is 41
    """
    if found != wanted:
        raise Unexpected(f"{what} should be {wanted!r}, and is {found!r}")


def present(
    steps: Sequence[Step[Scene]], driver: str, stage: Callable[[Carrier], Scene], screen: Screen
) -> int:
    """Walks through the steps and says how it ended; the exit code.

    Args:
        steps: in their order.
        driver: what carries their calls.
        stage: makes what the steps share.
        screen: where they are shown.
    """
    begin = perf_counter()
    failed = DRIVERS[driver](lambda carrier: _walk(steps, stage(carrier), screen))
    if failed is not None:
        screen.line(("Step ", ""), (failed, "bold red"), (" is not as it should be.", ""))
        return REFUSED
    screen.line(
        (f"All {len(steps)} steps are as they should be", "bold green"),
        (f", over {driver}, in {perf_counter() - begin:.1f} s.", ""),
    )
    return DONE


def _walk(steps: Sequence[Step[Scene]], scene: Scene, screen: Screen) -> str | None:
    """Runs the steps, shows each, and returns the name of the first that failed, or None."""
    width = max(len(step.name) for step in steps)
    for step in steps:
        begin = perf_counter()
        try:
            told, mark = step.run(scene), (" ok   ", "bold green")
            failed = None
        except Exception as error:  # whatever a step meets, it is not as it should be
            told, mark = _told(error), (" FAIL ", "bold red")
            failed = step.name
        took = f"{(perf_counter() - begin) * 1000:8.1f} ms  "
        screen.beside((mark, (step.name.ljust(width), "bold"), (took, "dim")), told)
        if failed is not None:
            return failed
    return None


def _told(error: Exception) -> str:
    if isinstance(error, (Unexpected, AgentRunClientError)):
        return str(error)
    return f"{type(error).__name__}: {error}"
