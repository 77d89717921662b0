"""Fixtures for pytest: the emulator, a simulated network, and answers made up beside a test.

pytest loads this file at the start of every run on a machine where the package is installed, through the
entry point `pytest11`; ``-p no:agentrun_pytest`` keeps it out.

Rules of this file: nothing but pytest is imported before a fixture is asked for; a fixture ends what it
began, and leaves the environment as it found it. It is a module of its own, since whatever stands in a
package brings the package along.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from agentrun_proto import TransportError
    from agentrun_transports.emulator import Emulator
    from agentrun_transports.testing import CannedTransport, Reply, Simulation

__all__ = ["agentrun_canned", "agentrun_emulator", "agentrun_network"]

# What of the environment would make a client talk to somebody else, or as somebody else.
_OURS = ("AGENTRUN_", "ALIBABA_CLOUD_", "FC_")
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})


@pytest.fixture
def agentrun_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """The service on a port of this machine, empty, for one test; the environment leads to it.

    ``DataAPI("agent", ResourceType.Runtime)`` finds it with no further word; the other clients by
    ``from_env(os.environ)``. See `agentrun_transports.emulator.Emulator` for its faults and the requests that
    it got.
    """
    from agentrun_transports.emulator import Emulator

    with Emulator() as emulator:
        for name in list(os.environ):
            if name.upper().startswith(_OURS) or name.upper() in _PROXIES:
                monkeypatch.delenv(name)
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
        yield emulator


@pytest.fixture
def agentrun_network() -> Iterator[Callable[..., Simulation]]:
    """Makes a `Simulation` of a seed: the service, a network that fails as the seed has it, and virtual time.

    ``agentrun_network(7, driver="asyncio").run(program)``; ``agentrun_network(7).client`` for blocking code.
    """
    from agentrun_transports.testing import Simulation

    with ExitStack() as made:

        def network(seed: int, **options: Any) -> Simulation:
            return made.enter_context(Simulation(seed, **options))

        yield network


@pytest.fixture
def agentrun_canned() -> Iterator[Callable[..., CannedTransport]]:
    """Makes a `CannedTransport` of the replies and failures it is called with; all must have been asked for.

    ``DataAPI(..., transport=agentrun_canned(Reply(200, json={"ok": True})))``.
    """
    from agentrun_transports.testing import CannedTransport

    made: list[CannedTransport] = []

    def canned(*script: Reply | TransportError) -> CannedTransport:
        made.append(CannedTransport(script))
        return made[-1]

    yield canned
    unused = [reply for transport in made for reply in transport.unused]
    if unused:
        pytest.fail(f"no request asked for {', '.join(map(repr, unused))}", pytrace=False)
