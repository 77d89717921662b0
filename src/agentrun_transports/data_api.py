"""DataAPI: the documented client. It holds an endpoint and picks a driver; it decides nothing itself.

Rules of this file: names, parameters and results are those of the published client's documentation; `auth`
is a hook, and what an override returns is what is sent.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from enum import Enum
from types import TracebackType
from typing import Any, TypeVar

from agentrun_proto import Config, DataEndpoint, Listener, Provider, Resource

from ._blocking_client import blocking_session
from ._faces import AsyncFace, SyncFace
from ._network import Operation
from ._pool import Limits
from ._proxies import Proxies
from ._routes import Route, Setup, Transport, TransportName
from ._sessions import LoopNetwork
from ._streams import Run, RunAsync
from ._tls import TLS

Result = TypeVar("Result")

# The config and the method of the request that an override of `auth` is asked about: an override with the
# documented three or four parameters cannot pass them on to `super().auth()`.
_asked: ContextVar[tuple[Config | None, str]] = ContextVar("agentrun_auth_request", default=(None, "GET"))


class ResourceType(Enum):
    """The kinds of resources, as the service names them."""

    Runtime = "runtime"
    LiteLLM = "litellm"
    Tool = "tool"
    Template = "template"
    Sandbox = "sandbox"
    KnowledgeBase = "knowledgebase"


class DataAPI(SyncFace, AsyncFace):
    """The client of AgentRun's Data API: builds URLs, signs, speaks JSON, raises errors, keeps connections.

    Sessions manage themselves: connections are made as needed, shared by threads, and closed when the client
    is no longer used. Subclass it and override `auth` to authorise requests yourself.

    Args:
        resource_name: the resource that is worked with.
        resource_type: its kind.
        config: what is set here wins over the environment (``AGENTRUN_*``, ``ALIBABA_CLOUD_*``, ``FC_*``),
            as in the published client. Defaults: region ``cn-hangzhou``, protocol ``https``, version
            ``2025-09-10``, timeout 600 seconds.
        namespace: the path that all requests share.
        credentials: where the credential comes from, instead of config and environment: see
            `agentrun_transports.credentials`.
        use_access_token: call with the resource's access token, which is fetched from the control plane with
            the access key and kept, instead of signing each request.
        listener: is told what happens, as events; see `agentrun_proto.telemetry`.
        tls: what is trusted, and a client certificate; by default the system's authorities.
        limits: how many connections there may be.
        unix_socket: the path of a socket to connect to instead of the endpoint's host.
        transport: ``native`` or ``httpcore``; unset, httpcore where the endpoint has a proxy, else native. Or
            a `Transport`, such as those of `agentrun_transports.testing`.
        proxy: the URL of a proxy; unset, what ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``
            say.

    Raises:
        ValueError: no account and no endpoint, an invalid protocol, half an access key, no proxy's URL.
        ImportError: the extra ``httpcore`` is needed and not installed.

    >>> api = DataAPI("my-agent", ResourceType.Runtime, Config(account_id="account", protocol="http"))
    >>> api.with_path("resources?page=1", {"limit": 10})
    'http://account.agentrun-data.cn-hangzhou.aliyuncs.com/2025-09-10/agents/resources?page=1&limit=10'
    """

    def __init__(
        self,
        resource_name: str,
        resource_type: ResourceType,
        config: Config | None = None,
        namespace: str = "agents",
        *,
        credentials: Provider | None = None,
        use_access_token: bool = False,
        listener: Listener | None = None,
        tls: TLS | None = None,
        limits: Limits | None = None,
        unix_socket: str | None = None,
        transport: Transport | TransportName | None = None,
        proxy: str | None = None,
    ) -> None:
        self.resource_name = resource_name
        self.resource_type = resource_type
        self.config: Config = Config.from_env(os.environ, credential=credentials is None).merge(config)
        self.namespace = namespace
        hook = None
        if type(self).auth is not DataAPI.auth:
            hook = self._call_override
            self._auth_takes = _further_parameters(self.auth)
        resource = Resource(type=resource_type.value, name=resource_name) if use_access_token else None
        endpoint = DataEndpoint(self.config, namespace, auth=hook, credentials=credentials, resource=resource)
        super().__init__(endpoint, listener)
        route = Route.choose(
            Setup(
                origin=endpoint.origin,
                tls=tls,
                limits=limits,
                unix_socket=unix_socket,
                proxy=proxy or (None if transport == "native" else Proxies.from_env(os.environ)),
            ),
            transport,
        )
        self._session = blocking_session(route)
        self._sessions = route.sessions()

    def get_base_url(self) -> str:
        """The URL that all requests begin with; with an access key, that of the host for signed requests."""
        return self._endpoint.base_url

    def with_path(
        self, path: str, query: Mapping[str, Any] | None = None, config: Config | None = None
    ) -> str:
        """The absolute URL of a path.

        Args:
            path: relative to the namespace; may hold a query.
            query: parameters to add, or to put in the place of those of the same name. A list repeats its
                name, ``[]`` removes it, None is left out.
            config: overlays the client's own for this call.

        Raises:
            ValueError: a path with ``#``, ``.`` or ``..`` segments, or line breaks; a value that cannot
                be sent.
            TypeError: a query value of another type.
        """
        return self._endpoint.overlaid(config).url(path, query)

    def auth(
        self,
        url: str = "",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        config: Config | None = None,
        method: str | None = None,
        body: bytes | None = None,
    ) -> tuple[str, dict[str, str], Mapping[str, Any] | None]:
        """Authorises a request: the hook to override for signatures or tokens of your own.

        It is called for each attempt, when all else about the request is settled. An override may take the
        first three or four parameters only; what it returns is what is sent.

        Args:
            url: the absolute URL, its query merged.
            headers: all that is about to be sent.
            query: further parameters to merge.
            config: overlays the client's own.
            method: defaults to that of the request which is being authorised.
            body: the content, where it is in memory; it is not part of a signature.

        Returns:
            ``(url, headers, query)``: here the URL with `query` merged, the headers with the signature or
            the token added, and None, since nothing is left to merge.

        Raises:
            ValueError: the URL is of another origin than the endpoint, to which the credential belongs.
            CredentialError: a provider's credential has not been obtained yet; calls do that by themselves.
        """
        asked_config, asked_method = _asked.get()
        endpoint = self._endpoint.overlaid(config or asked_config)
        url, fields = endpoint.authorise_url(
            url or self._endpoint.base_url,
            headers,
            query,
            method=method or asked_method,
            now=self._session.clock.now() + endpoint.standing.offset,
        )
        return url, fields, None

    def _call_override(
        self,
        url: str,
        headers: dict[str, str],
        query: dict[str, Any] | None,
        config: Config,
        method: str,
        body: bytes | None,
    ) -> tuple[str, Mapping[str, str], Mapping[str, Any] | None]:
        """Calls an override of `auth` with as many parameters as it takes."""
        further: tuple[Any, ...] = (config, method, body)
        asked = _asked.set((config, method))
        try:
            return self.auth(url, headers, query, *further[: self._auth_takes])
        finally:
            _asked.reset(asked)

    def _run(self, operation: Operation[Result]) -> Result:
        return self._session.run(operation)

    def _begin(self, operation: Operation[None]) -> Run:
        return self._session.begin(operation)

    def _run_async(self, operation: Operation[Result]) -> Coroutine[Any, Any, Result]:
        return self._sessions.get(*_running_loop()).run(operation)

    async def _begin_async(self, operation: Operation[None]) -> RunAsync:
        return await self._sessions.get(*_running_loop()).begin(operation)

    def close(self) -> None:
        """Closes the connections of blocking calls. Nothing needs it: they end with the client."""
        self._session.close()

    async def aclose(self) -> None:
        """Closes the running loop's connections. Nothing needs it: they end with the loop."""
        closing = self._sessions.close(_running_loop()[0])
        if closing is not None:
            await closing

    def __enter__(self) -> DataAPI:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> DataAPI:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _running_loop() -> tuple[object, type[LoopNetwork]]:
    """The loop that runs here, and the class of its network; neither asyncio nor trio is imported for it."""
    if "trio" in sys.modules:
        import trio

        from ._trio import TrioNetwork

        if trio.lowlevel.in_trio_task():
            return trio.lowlevel.current_trio_token(), TrioNetwork
    if "asyncio" in sys.modules:
        import asyncio

        from ._asyncio import AsyncioNetwork

        try:
            return asyncio.get_running_loop(), AsyncioNetwork
        except RuntimeError:
            pass
    raise RuntimeError(
        "the *_async methods run under asyncio and trio, and neither runs here; call the method without "
        "_async, or embed agentrun_proto.DataEndpoint in your own loop (docs/embedding.md)"
    )


def _further_parameters(auth: Callable[..., Any]) -> int:
    """How many positional parameters a hook takes after url, headers and query."""
    kinds = [parameter.kind for parameter in inspect.signature(auth).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return 3
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return max(0, sum(kind in positional for kind in kinds) - 3)


AgentRunDataClient = DataAPI
"""The second documented name of :class:`DataAPI`."""
