"""How a client's requests get to the service: over our own connections, over httpcore, or as an object says.

Rules of this file: the choice is made once, where a client is made, and httpcore is not imported before that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, Protocol, TypeVar, cast

from agentrun_proto import Clock, Origin

from ._network import Operation
from ._pool import Limits
from ._proxies import Proxies
from ._sessions import LoopNetwork, LoopSessions
from ._streams import Run, RunAsync
from ._tls import TLS

Result = TypeVar("Result")

TransportName = Literal["native", "httpcore"]
"""``native``: our own connections, HTTP/1.1. ``httpcore``: for proxies, SOCKS and HTTP/2."""

# What the extra `httpcore` installs, and what each is for: httpcore itself, HTTP/2, SOCKS, asyncio.
_NEEDED = ("httpcore", "h2", "socksio", "anyio")


class SyncSession(Protocol):
    """Runs a client's operations for blocking calls, from any thread."""

    @property
    def clock(self) -> Clock:
        """What time it is."""
        ...

    def run(self, operation: Operation[Result]) -> Result:
        """Performs an operation's flow and returns its result."""
        ...

    def begin(self, operation: Operation[None]) -> Run:
        """Begins a flow that is run from one delivery to the next."""
        ...

    def close(self) -> None:
        """Closes what is open; a later call opens it anew."""
        ...


class Session(Protocol):
    """Connections on one loop."""

    def run(self, operation: Operation[Result]) -> Coroutine[Any, Any, Result]:
        """Performs an operation's flow and returns its result, once it is awaited."""
        ...

    async def begin(self, operation: Operation[None]) -> RunAsync:
        """Begins a flow that is run from one delivery to the next."""
        ...


class Sessions(Protocol):
    """The sessions of one client: one for each loop that it is used on."""

    def get(self, loop: object, network: Callable[[TLS, str | None], LoopNetwork]) -> Session:
        """The session for the running loop, made on first need."""
        ...

    def close(self, loop: object) -> Awaitable[None] | None:
        """Closes a loop's connections; where that takes waiting, once it is awaited."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a client was told of connections.

    Args:
        origin: of the client's endpoint.
        tls, limits, unix_socket, proxy: as the client was given them; None for what it was not given.
    """

    origin: Origin
    tls: TLS | None = None
    limits: Limits | None = None
    unix_socket: str | None = None
    proxy: str | Proxies | None = field(default=None, repr=False)  # a URL may hold a password


class Transport(Protocol):
    """Carries a client's requests in the place of ``native`` and ``httpcore``; ``transport=`` takes it too.

    Each client that is made with it asks once for each kind of session that it has.
    """

    def open(self, setup: Setup) -> SyncSession:
        """The session for a client's blocking calls."""
        ...

    def open_async(self, setup: Setup) -> Sessions:
        """A client's sessions on asyncio and trio."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What a client's sessions are made with.

    Args:
        setup: as the client was given it.
        proxies: which proxy serves which origin, over httpcore; None: over our own connections.
        transport: makes the sessions instead.
    """

    setup: Setup
    proxies: Proxies | None = None
    transport: Transport | None = None

    @classmethod
    def choose(cls, setup: Setup, transport: Transport | TransportName | None) -> Route:
        """The route for a client.

        Args:
            setup: of the client; its proxy is a URL, or what an environment said, which may be none.
            transport: None: httpcore if there is a proxy for the origin, else native.

        Raises:
            ValueError: no such transport, no proxy's URL, or a proxy where none can be.
            ImportError: httpcore is needed and not installed; the message says how to install it.
        """
        if hasattr(transport, "open_async"):
            return cls(setup=setup, transport=cast("Transport", transport))
        if transport not in (None, "native", "httpcore"):
            raise ValueError(f"transport is 'native', 'httpcore' or a Transport, not {transport!r}")
        proxy = setup.proxy
        proxies = Proxies.all(proxy) if isinstance(proxy, str) else proxy or Proxies()
        if isinstance(proxy, str) and (transport == "native" or setup.unix_socket is not None):
            raise ValueError("a proxy needs transport='httpcore', and no unix_socket")
        if setup.unix_socket is not None:
            proxies = Proxies()
        if transport == "native" or (transport is None and proxies.for_origin(setup.origin) is None):
            return cls(setup=setup)
        require_httpcore(str(proxies.for_origin(setup.origin) or ""))
        return cls(setup=setup, proxies=proxies)

    def sessions(self) -> Sessions:
        """The client's sessions on asyncio and trio."""
        setup = self.setup
        if self.transport is not None:
            return self.transport.open_async(setup)
        if self.proxies is None:
            return LoopSessions(setup.tls, setup.limits, setup.unix_socket)
        from ._httpcore import HttpcoreSessions

        return HttpcoreSessions(setup.tls, setup.limits, setup.unix_socket, self.proxies)


def require_httpcore(proxy: str) -> None:
    """Raises ImportError, saying what to do, unless all is installed that the extra `httpcore` brings."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        why = f"the proxy {proxy}" if proxy else "transport='httpcore'"
        raise ImportError(
            f"{why} needs {', '.join(missing)}: pip install 'agentrun-proto[httpcore]' "
            "(or pass transport='native' to connect without a proxy)",
            name=missing[0],
        )
