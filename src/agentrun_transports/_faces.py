"""What a client offers, without how it is run: each method names an operation and has it run.

Rules of this file: no decision is made here, and the two faces differ in nothing but `await`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from agentrun_proto import (
    AuthHook,
    Clock,
    Config,
    DataEndpoint,
    Event,
    Flow,
    Listener,
    Provider,
    Resource,
    Response,
)

from ._logging import log_listener
from ._network import Operation
from ._pool import Limits
from ._proxies import Proxies
from ._request_credential import current as request_credential
from ._routes import Route, Transport
from ._sessions import LoopNetwork
from ._tls import TLS

Result = TypeVar("Result")
Query = Mapping[str, Any] | None
Fields = Mapping[str, str] | None
Data = dict[str, Any] | list[Any] | str | bytes | None
Path = str | os.PathLike[str]


class Operations:
    """The operations of one endpoint, ready to be run."""

    def __init__(self, endpoint: DataEndpoint, listener: Listener | None = None) -> None:
        self._endpoint = endpoint
        self._told = listener

    @property
    def endpoint(self) -> DataEndpoint:
        """The endpoint that requests are made for."""
        return self._endpoint

    def _overlaid(self, config: Config | None) -> DataEndpoint:
        """The endpoint for one call: over the client's own credential that of the request being served."""
        return self._endpoint.overlaid(config, request_credential.get())

    def _listener(self) -> Listener | None:
        """Who is told of one call: the caller's listener, the log, both, or nobody."""
        told, log = self._told, log_listener()
        if told is None or log is None:
            return told or log
        return partial(_tell_both, told, log)

    def _call(
        self,
        method: str,
        path: str,
        data: object,
        query: Query,
        headers: Fields,
        config: Config | None,
        idempotent: bool = False,
    ) -> Operation[dict[str, Any]]:
        endpoint, listener = self._overlaid(config), self._listener()
        request = endpoint.request(
            method, path, data=data, query=query, headers=headers, idempotent=idempotent
        )
        return lambda clock: endpoint.call(request, clock=clock, listener=listener)

    def _exchange(
        self,
        method: str,
        path: str,
        data: object,
        query: Query,
        headers: Fields,
        config: Config | None,
        idempotent: bool,
    ) -> Operation[Response]:
        endpoint, listener = self._overlaid(config), self._listener()
        request = endpoint.request(
            method, path, data=data, query=query, headers=headers, idempotent=idempotent
        )
        return lambda clock: endpoint.exchange(request, clock=clock, listener=listener)

    def _upload(
        self,
        path: str,
        local_path: Path,
        target_path: str,
        fields: Mapping[str, object] | None,
        query: Query,
        headers: Fields,
        config: Config | None,
        idempotent: bool,
    ) -> Operation[dict[str, Any]]:
        endpoint, listener = self._overlaid(config), self._listener()
        local = os.fspath(local_path)
        return lambda clock: endpoint.upload(
            path,
            local,
            filename=os.path.basename(local),
            fields={**(fields or {}), "path": target_path},
            boundary=os.urandom(16).hex(),
            query=query,
            headers=headers,
            idempotent=idempotent,
            clock=clock,
            listener=listener,
        )

    def _download(
        self, path: str, save_path: Path, query: Query, headers: Fields, config: Config | None
    ) -> Operation[dict[str, Any]]:
        endpoint, listener = self._overlaid(config), self._listener()
        local = os.fspath(save_path)
        request = endpoint.file_request(path, query=query, headers=headers)

        def save(clock: Clock) -> Flow[dict[str, Any]]:
            size = yield from endpoint.download(request, local, clock=clock, listener=listener)
            return {"saved_path": local, "size": size}

        return save


class SyncFace(Operations, ABC):
    """The methods of a blocking client.

    Every method raises :class:`AgentRunClientError` if the request fails, and ``ValueError`` or ``TypeError``
    before anything is sent if it cannot be made. `config` overlays the client's own for one call.
    `idempotent` is the caller's word that sending the request twice has the effect of sending it once: it may
    then be sent again where nobody knows whether the service has acted on it. An ``Idempotency-Key`` header
    says the same.
    """

    @abstractmethod
    def _run(self, operation: Operation[Result]) -> Result: ...

    def request(
        self,
        method: str,
        path: str,
        data: Data = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        idempotent: bool = False,
    ) -> Response:
        """Sends a request and returns the whole answer, whatever its status."""
        return self._run(self._exchange(method, path, data, query, headers, config, idempotent))

    def get(
        self, path: str, query: Query = None, headers: Fields = None, config: Config | None = None
    ) -> dict[str, Any]:
        """GET; returns the JSON object of the answer."""
        return self._run(self._call("GET", path, None, query, headers, config))

    def delete(
        self, path: str, query: Query = None, headers: Fields = None, config: Config | None = None
    ) -> dict[str, Any]:
        """DELETE; returns the JSON object of the answer, ``{}`` where it is empty."""
        return self._run(self._call("DELETE", path, None, query, headers, config))

    def post(
        self,
        path: str,
        data: Data = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        idempotent: bool = False,
    ) -> dict[str, Any]:
        """POST; a dict or list goes out as JSON, text and bytes as they are; returns as `get` does."""
        return self._run(self._call("POST", path, data, query, headers, config, idempotent))

    def put(
        self,
        path: str,
        data: Data = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
    ) -> dict[str, Any]:
        """PUT; as `post`."""
        return self._run(self._call("PUT", path, data, query, headers, config))

    def patch(
        self,
        path: str,
        data: Data = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        idempotent: bool = False,
    ) -> dict[str, Any]:
        """PATCH; as `post`."""
        return self._run(self._call("PATCH", path, data, query, headers, config, idempotent))

    def post_file(
        self,
        path: str,
        local_file_path: Path,
        target_file_path: str,
        form_data: Mapping[str, object] | None = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        idempotent: bool = False,
    ) -> dict[str, Any]:
        """POSTs a local file as the part ``file`` of a form, streamed; returns the JSON object of the answer.

        Args:
            path, query, headers, config: as everywhere.
            local_file_path: the file to send.
            target_file_path: where it is to be; sent as the field ``path``.
            form_data: further text fields.

        Raises:
            FileError: the file cannot be read; found out before a connection is opened.
        """
        return self._run(
            self._upload(
                path, local_file_path, target_file_path, form_data, query, headers, config, idempotent
            )
        )

    def get_file(
        self,
        path: str,
        save_path: Path,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
    ) -> dict[str, Any]:
        """GETs content and saves it at a local path, whole or not at all.

        Returns:
            ``{"saved_path": ..., "size": ...}``: the path as given, and the number of bytes.

        Raises:
            FileError: it cannot be saved there; the old file, if any, is untouched.
            DecodeError: the service answered with JSON, which is no file.
        """
        return self._run(self._download(path, save_path, query, headers, config))

    def get_video(
        self,
        path: str,
        save_path: Path,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
    ) -> dict[str, Any]:
        """GETs a recording (``.mkv``) and saves it; as `get_file`."""
        return self._run(self._download(path, save_path, query, headers, config))


class AsyncFace(Operations, ABC):
    """The methods of a blocking client, to be awaited; their names end in ``_async``, as documented."""

    @abstractmethod
    async def _run_async(self, operation: Operation[Result]) -> Result: ...

    async def request_async(
        self,
        method: str,
        path: str,
        data: Data = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        idempotent: bool = False,
    ) -> Response:
        """Asynchronous `SyncFace.request`."""
        return await self._run_async(self._exchange(method, path, data, query, headers, config, idempotent))

    async def get_async(
        self, path: str, query: Query = None, headers: Fields = None, config: Config | None = None
    ) -> dict[str, Any]:
        """Asynchronous `SyncFace.get`."""
        return await self._run_async(self._call("GET", path, None, query, headers, config))

    async def delete_async(
        self, path: str, query: Query = None, headers: Fields = None, config: Config | None = None
    ) -> dict[str, Any]:
        """Asynchronous `SyncFace.delete`."""
        return await self._run_async(self._call("DELETE", path, None, query, headers, config))

    async def post_async(
        self,
        path: str,
        data: Data = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        idempotent: bool = False,
    ) -> dict[str, Any]:
        """Asynchronous `SyncFace.post`."""
        return await self._run_async(self._call("POST", path, data, query, headers, config, idempotent))

    async def put_async(
        self,
        path: str,
        data: Data = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
    ) -> dict[str, Any]:
        """Asynchronous `SyncFace.put`."""
        return await self._run_async(self._call("PUT", path, data, query, headers, config))

    async def patch_async(
        self,
        path: str,
        data: Data = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        idempotent: bool = False,
    ) -> dict[str, Any]:
        """Asynchronous `SyncFace.patch`."""
        return await self._run_async(self._call("PATCH", path, data, query, headers, config, idempotent))

    async def post_file_async(
        self,
        path: str,
        local_file_path: Path,
        target_file_path: str,
        form_data: Mapping[str, object] | None = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        idempotent: bool = False,
    ) -> dict[str, Any]:
        """Asynchronous `SyncFace.post_file`."""
        return await self._run_async(
            self._upload(
                path, local_file_path, target_file_path, form_data, query, headers, config, idempotent
            )
        )

    async def get_file_async(
        self,
        path: str,
        save_path: Path,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
    ) -> dict[str, Any]:
        """Asynchronous `SyncFace.get_file`."""
        return await self._run_async(self._download(path, save_path, query, headers, config))

    async def get_video_async(
        self,
        path: str,
        save_path: Path,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
    ) -> dict[str, Any]:
        """Asynchronous `SyncFace.get_video`."""
        return await self._run_async(self._download(path, save_path, query, headers, config))


def _tell_both(first: Listener, second: Listener, event: Event) -> None:
    first(event)
    second(event)


Native = TypeVar("Native", bound="NativeFace")


class NativeFace(AsyncFace):
    """The methods of a client for one kind of loop, which need no suffix.

    Args:
        config, namespace, auth, credentials, access_token_for, listener, tls, limits, unix_socket, transport,
            proxy: as for ``BlockingClient``.
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
        transport: Transport | None = None,
        proxy: str | Proxies | None = None,
    ) -> None:
        endpoint = DataEndpoint(
            config, namespace, auth=auth, credentials=credentials, resource=access_token_for
        )
        super().__init__(endpoint, listener)
        self._sessions = Route.choose(
            endpoint.origin,
            tls=tls,
            limits=limits,
            unix_socket=unix_socket,
            transport=transport,
            proxy=proxy,
        ).sessions()

    @classmethod
    def from_env(
        cls: type[Native],
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
        transport: Transport | None = None,
    ) -> Native:
        """A client set up by an environment, its proxies included; see ``BlockingClient.from_env``."""
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

    @abstractmethod
    def _loop(self) -> tuple[object, type[LoopNetwork]]:
        """The running loop, and the class of its network."""

    async def _run_async(self, operation: Operation[Result]) -> Result:
        return await self._sessions.get(*self._loop()).run(operation)

    request = AsyncFace.request_async
    get = AsyncFace.get_async
    delete = AsyncFace.delete_async
    post = AsyncFace.post_async
    put = AsyncFace.put_async
    patch = AsyncFace.patch_async
    upload = post_file = AsyncFace.post_file_async
    download = get_file = AsyncFace.get_file_async
    get_video = AsyncFace.get_video_async

    async def aclose(self) -> None:
        """Closes the running loop's connections. Nothing needs it: they end with the loop."""
        closing = self._sessions.close(self._loop()[0])
        if closing is not None:
            await closing

    async def __aenter__(self: Native) -> Native:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
