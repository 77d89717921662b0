"""The client for blocking code, and which session serves it."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Final, TypeVar

from agentrun_proto import AuthHook, Config, DataEndpoint, Listener, Provider, Resource

from ._blocking import BlockingNetwork, BlockingSession
from ._faces import SyncFace
from ._network import Operation
from ._pool import Limits
from ._proxies import Proxies
from ._routes import Route, Setup, SyncSession, Transport, TransportName
from ._streams import Run
from ._tls import TLS

Result = TypeVar("Result")


def blocking_session(route: Route) -> SyncSession:
    """The session that a route leads over."""
    setup = route.setup
    if route.transport is not None:
        return route.transport.open(setup)
    if route.proxies is None:
        return BlockingSession(setup.tls, setup.limits, setup.unix_socket)
    from ._httpcore import HttpcoreBlockingSession

    tls = setup.tls or TLS()
    network = BlockingNetwork(tls, setup.unix_socket)
    return HttpcoreBlockingSession(network, tls, setup.limits, setup.unix_socket, route.proxies)


class BlockingClient(SyncFace):
    """A client of one namespace, for blocking code; threads may share it.

    Args:
        config: what is set here, and nothing else: the environment is not read.
            ``Config.from_env(os.environ)`` reads it.
        namespace: the path that all requests share; ids in it go through ``path_segment`` first.
        auth: a hook that authorises requests instead of the config's credential.
        credentials: where the credential comes from, instead of the config: see
            `agentrun_transports.credentials`.
        access_token_for: call with this resource's access token, which is fetched with the access key and
            kept, instead of signing each request.
        listener: is told what happens, as events; see `agentrun_proto.telemetry`.
        tls: what is trusted, and a client certificate; by default the system's authorities.
        limits: how many connections there may be.
        unix_socket: the path of a socket to connect to instead of the endpoint's host.
        transport: ``native`` or ``httpcore``; unset, httpcore where the endpoint has a proxy, else native. Or
            a `Transport`, such as those of `agentrun_transports.testing`.
        proxy: the URL of a proxy (``http``, ``https``, ``socks5``), or the `Proxies` of an environment.

    Raises:
        ValueError: no account and no endpoint, an invalid protocol, half an access key, no proxy's URL, or a
            credential in the config and a provider beside it.
        ImportError: the extra ``httpcore`` is needed and not installed.

    >>> from agentrun_transports.emulator import Emulator
    >>> with Emulator() as emulator, BlockingClient(Config.from_env(emulator.environment)) as client:
    ...     client.post("resources", {"name": "first"})["data"]["name"]
    'first'
    """

    def __init__(
        self,
        config: Config | None = None,
        namespace: str = "agents",
        *,
        auth: AuthHook | None = None,
        credentials: Provider | None = None,
        access_token_for: Resource | None = None,
        listener: Listener | None = None,
        tls: TLS | None = None,
        limits: Limits | None = None,
        unix_socket: str | None = None,
        transport: Transport | TransportName | None = None,
        proxy: str | Proxies | None = None,
    ) -> None:
        endpoint = DataEndpoint(
            config, namespace, auth=auth, credentials=credentials, resource=access_token_for
        )
        super().__init__(endpoint, listener)
        route = Route.choose(
            Setup(origin=endpoint.origin, tls=tls, limits=limits, unix_socket=unix_socket, proxy=proxy),
            transport,
        )
        self._session = blocking_session(route)

    @classmethod
    def from_env(
        cls,
        environment: Mapping[str, str],
        config: Config | None = None,
        namespace: str = "agents",
        *,
        auth: AuthHook | None = None,
        credentials: Provider | None = None,
        access_token_for: Resource | None = None,
        listener: Listener | None = None,
        tls: TLS | None = None,
        limits: Limits | None = None,
        unix_socket: str | None = None,
        transport: Transport | TransportName | None = None,
    ) -> BlockingClient:
        """A client set up by an environment, such as ``os.environ``, its proxies included.

        Args:
            environment: read by ``Config.from_env``, and for ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY``
                and ``NO_PROXY``, in either case.
            config: wins over the environment.
            namespace, auth, access_token_for, listener, tls, limits, unix_socket, transport: as for the
                client itself.
            credentials: as for the client itself; the environment's access key is not read then.

        Raises:
            ValueError: as the client itself; also a variable that holds no proxy.
            ImportError: there is a proxy for the endpoint, and the extra ``httpcore`` is not installed.
        """
        return cls(
            Config.from_env(environment, credential=credentials is None).merge(config),
            namespace,
            auth=auth,
            credentials=credentials,
            access_token_for=access_token_for,
            listener=listener,
            tls=tls,
            limits=limits,
            unix_socket=unix_socket,
            transport=transport,
            proxy=Proxies.from_env(environment),
        )

    upload: Final = SyncFace.post_file
    download: Final = SyncFace.get_file

    def _run(self, operation: Operation[Result]) -> Result:
        return self._session.run(operation)

    def _begin(self, operation: Operation[None]) -> Run:
        return self._session.begin(operation)

    def close(self) -> None:
        """Closes the connections. Nothing needs it: they are closed when the client is no longer used."""
        self._session.close()

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
