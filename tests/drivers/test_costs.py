"""What a small call costs, in counts that depend on no machine: a guard against slowing down.

Counted are the function calls of one signed GET of a small JSON on a kept connection, ours and those of the
libraries beneath, and the system calls among them that move bytes. The limits stand a few percent above what
is measured today: whoever needs more says so here, and why.

Rules of this file: nothing is timed; a limit is lowered whenever the count is.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
from collections import Counter
from typing import Any

import pytest
import trio

from agentrun_proto import Config
from agentrun_transports import AsyncioClient, BlockingClient, TrioClient
from drivers_support import QuickServer

CALLS = 20
KEY = Config(access_key_id="id", access_key_secret="secret", account_id="1")

# The most function calls, of Python and of C, that one call may take; see above.
LIMITS = {"blocking": 190, "asyncio": 252, "trio": 275}


class Counted:
    """Counts what this thread calls while it is entered."""

    def __init__(self) -> None:
        self.python: Counter[str] = Counter()
        self.c: Counter[str] = Counter()
        self._collects = gc.isenabled()

    def _tell(self, frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            self.python[frame.f_code.co_name] += 1
        elif event == "c_call":
            of = "socket." if isinstance(getattr(argument, "__self__", None), socket.socket) else ""
            self.c[f"{of}{argument.__name__}"] += 1

    def __enter__(self) -> Counted:
        gc.disable()  # what is called for the garbage of earlier tests is none of ours
        sys.setprofile(self._tell)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        if self._collects:
            gc.enable()

    @property
    def total(self) -> float:
        """How many there were, for each call of the client."""
        return (sum(self.python.values()) + sum(self.c.values())) / CALLS


def counted(driver: str) -> Counted:
    """What `CALLS` calls take, once all is warm."""
    counts = Counted()
    with QuickServer() as server:
        config = server.config().merge(KEY)
        if driver == "blocking":
            with BlockingClient(config) as client:
                for _ in range(3):
                    client.get("own")
                with counts:
                    for _ in range(CALLS):
                        client.get("own")
            return counts

        async def main() -> None:
            async with (AsyncioClient if driver == "asyncio" else TrioClient)(config) as client:
                for _ in range(3):
                    await client.get("own")
                with counts:
                    for _ in range(CALLS):
                        await client.get("own")

        asyncio.run(main()) if driver == "asyncio" else trio.run(main)
    return counts


@pytest.mark.parametrize("driver", LIMITS)
def test_a_small_call_takes_so_many_function_calls(driver):
    assert threading.current_thread() is threading.main_thread()
    counts = counted(driver)
    assert counts.total <= LIMITS[driver], (counts.python.most_common(40), counts.c.most_common(40))
    assert counts.total >= LIMITS[driver] * 0.8, "the limit can be lowered"


@pytest.mark.parametrize("driver", LIMITS)
def test_a_small_call_is_one_send_and_one_receive(driver):
    counts = counted(driver)
    moved = {
        name: count for name, count in counts.c.items() if name.startswith(("socket.send", "socket.recv"))
    }
    received = moved.pop("socket.recv_into")
    # trio tries before it waits, mostly for nothing.
    assert CALLS <= received <= (2 * CALLS if driver == "trio" else CALLS)
    assert moved == {"socket.send": CALLS}


@pytest.mark.parametrize("driver", LIMITS)
def test_a_small_call_opens_and_starts_nothing(driver):
    counts = counted(driver)
    for name in ("connect", "socket", "getaddrinfo", "start_new_thread", "open", "stat", "urandom"):
        assert counts.c[name] == 0, name
    for name in ("create_task", "spawn_system_task", "run_in_executor", "urlsplit", "compile"):
        assert counts.python[name] == 0, name
