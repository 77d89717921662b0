"""How a client's requests get to the service: over our own connections, or over httpcore.

Rules of this file: the choice is made once, where a client is made, and httpcore is not imported before that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, Protocol, TypeVar

from agentrun_proto import Origin

from ._network import Operation
from ._pool import Limits
from ._proxies import Proxies
from ._sessions import LoopNetwork, LoopSessions
from ._streams import RunAsync
from ._tls import TLS

Result = TypeVar("Result")


class Networks(Protocol):
    """Our own connections over a network of somebody else's making, such as a simulation's."""

    def blocking(self, tls: TLS) -> Any:
        """The network of a client's blocking calls: a `BlockingNetwork`."""
        ...

    def on_loop(self, tls: TLS) -> LoopNetwork:
        """The network of a client on the running loop."""
        ...


Transport = Literal["native", "httpcore"] | Networks
"""``native``: our own connections, HTTP/1.1. ``httpcore``: for proxies, SOCKS and HTTP/2. Or networks."""

# What the extra `httpcore` installs, and what each is for: httpcore itself, HTTP/2, SOCKS, asyncio.
_NEEDED = ("httpcore", "h2", "socksio", "anyio")


class Session(Protocol):
    """Connections on one loop."""

    async def run(self, operation: Operation[Result]) -> Result:
        """Performs an operation's flow and returns its result."""
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
class Route:
    """What a client's sessions are made with.

    Args:
        tls, limits, unix_socket: as the client was given them.
        proxies: which proxy serves which origin, over httpcore; None: over our own connections.
        networks: what carries those, where it is not the machine's network.
    """

    tls: TLS | None = None
    limits: Limits | None = None
    unix_socket: str | None = None
    proxies: Proxies | None = None
    networks: Networks | None = None

    @classmethod
    def choose(
        cls,
        origin: Origin,
        *,
        tls: TLS | None,
        limits: Limits | None,
        unix_socket: str | None,
        transport: Transport | None,
        proxy: str | Proxies | None,
    ) -> Route:
        """The route for a client of this origin.

        Args:
            origin: of the client's endpoint.
            tls, limits, unix_socket: passed on.
            transport: None: httpcore if there is a proxy for the origin, else native.
            proxy: a URL, or what an environment said; the latter may say none.

        Raises:
            ValueError: no such transport, no proxy's URL, or a proxy where none can be.
            ImportError: httpcore is needed and not installed; the message says how to install it.
        """
        if transport is not None and not isinstance(transport, str):
            return cls(tls=tls, limits=limits, networks=transport)
        if transport not in (None, "native", "httpcore"):
            raise ValueError(f"transport is 'native' or 'httpcore', not {transport!r}")
        proxies = Proxies.all(proxy) if isinstance(proxy, str) else proxy or Proxies()
        if isinstance(proxy, str) and (transport == "native" or unix_socket is not None):
            raise ValueError("a proxy needs transport='httpcore', and no unix_socket")
        if unix_socket is not None:
            proxies = Proxies()
        if transport == "native" or (transport is None and proxies.for_origin(origin) is None):
            return cls(tls=tls, limits=limits, unix_socket=unix_socket)
        require_httpcore(str(proxies.for_origin(origin) or ""))
        return cls(tls=tls, limits=limits, unix_socket=unix_socket, proxies=proxies)

    def sessions(self) -> Sessions:
        """The client's sessions on asyncio and trio."""
        if self.proxies is None:
            on_loop = None if self.networks is None else self.networks.on_loop
            return LoopSessions(self.tls, self.limits, self.unix_socket, on_loop)
        from ._httpcore import HttpcoreSessions

        return HttpcoreSessions(self.tls, self.limits, self.unix_socket, self.proxies)


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
