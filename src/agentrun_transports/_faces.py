"""What a client offers, without how it is run: each method names an operation and has it run.

Rules of this file: no decision is made here, and the two faces differ in nothing but `await`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, BinaryIO, Final, TypeVar, cast

from agentrun_proto import (
    AuthHook,
    Clock,
    Config,
    DataEndpoint,
    Event,
    Flow,
    Headers,
    Invocation,
    Listener,
    Progress,
    Provider,
    Resource,
    Response,
    path_segment,
)
from agentrun_proto.super_agents import NAMESPACE as SUPER_AGENTS
from agentrun_proto.super_agents import invocation_body

from ._logging import log_listener
from ._network import Operation
from ._pool import Limits
from ._proxies import Proxies
from ._request_credential import current as request_credential
from ._routes import Route, Setup, Transport, TransportName
from ._sessions import LoopNetwork
from ._sources import as_data, as_target, file_part, name_of
from ._streams import AsyncStream, Run, RunAsync, Stream
from ._tls import TLS

Result = TypeVar("Result")
Query = Mapping[str, Any] | None
Fields = Mapping[str, str] | None
Data = dict[str, Any] | list[Any] | str | bytes | BinaryIO | Iterable[bytes] | AsyncIterable[bytes] | None
"""JSON, text, bytes; or what is read while it is sent: an open binary file, an iterable of bytes."""
Files = Mapping[str, Any]
"""By field: a path; bytes, an open binary file or an iterable of bytes; or a tuple of the file name, one of
these, and perhaps a content type. A list of them sends the field several times."""
Path = str | os.PathLike[str]

_COMPLETIONS = "openai/v1/chat/completions"  # of an agent runtime (SERVICE: runtimes)


def _conversation(
    messages: Sequence[Mapping[str, Any]], model: str | None, options: Mapping[str, Any] | None
) -> dict[str, Any]:
    body = {**(options or {}), "messages": list(messages)}
    return body if model is None else {**body, "model": model}


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
            method, path, data=as_data(data), query=query, headers=headers, idempotent=idempotent
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
            method, path, data=as_data(data), query=query, headers=headers, idempotent=idempotent
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
        progress: Progress | None,
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
            progress=progress,
            listener=listener,
        )

    def _form(
        self,
        path: str,
        fields: Mapping[str, object] | None,
        files: Files | None,
        query: Query,
        headers: Fields,
        config: Config | None,
        idempotent: bool,
        expect_continue: bool,
        progress: Progress | None,
    ) -> Operation[dict[str, Any]]:
        endpoint, listener = self._overlaid(config), self._listener()
        parts = [
            file_part(name, content)
            for name, given in (files or {}).items()
            for content in (cast("list[object]", given) if isinstance(given, list) else [given])
        ]
        return lambda clock: endpoint.form(
            path,
            parts,
            fields=fields,
            boundary=os.urandom(16).hex(),
            query=query,
            headers=headers,
            idempotent=idempotent,
            expect_continue=expect_continue,
            clock=clock,
            progress=progress,
            listener=listener,
        )

    def _download(
        self,
        path: str,
        save_path: Path | BinaryIO,
        query: Query,
        headers: Fields,
        config: Config | None,
        resume: bool,
        sha256: str | None,
        progress: Progress | None,
    ) -> Operation[dict[str, Any]]:
        endpoint, listener = self._overlaid(config), self._listener()
        local = as_target(save_path)
        request = endpoint.file_request(path, query=query, headers=headers)

        def save(clock: Clock) -> Flow[dict[str, Any]]:
            size = yield from endpoint.download(
                request,
                local,
                clock=clock,
                resume=resume,
                sha256=sha256,
                progress=progress,
                listener=listener,
            )
            return {"saved_path": local if isinstance(local, str) else name_of(local), "size": size}

        return save

    def _stream(
        self,
        method: str,
        path: str,
        data: object,
        query: Query,
        headers: Fields,
        config: Config | None,
        idempotent: bool,
    ) -> Operation[None]:
        endpoint, listener = self._overlaid(config), self._listener()
        request = endpoint.stream_request(
            method, path, data=as_data(data), query=query, headers=headers, idempotent=idempotent
        )
        return lambda clock: endpoint.stream(request, clock=clock, listener=listener)

    def _invocation(self, name: str, endpoint: str, config: Config | None) -> DataEndpoint:
        namespace = f"agent-runtimes/{path_segment(name)}/endpoints/{path_segment(endpoint)}/invocations"
        return self._overlaid(config).sibling(namespace)

    def _invoke(
        self, name: str, body: Mapping[str, Any], endpoint: str, config: Config | None
    ) -> Operation[dict[str, Any]]:
        found, listener = self._invocation(name, endpoint, config), self._listener()
        request = found.request("POST", _COMPLETIONS, data={**body, "stream": False})
        return lambda clock: found.call(request, clock=clock, listener=listener)

    def _invoke_stream(
        self, name: str, body: Mapping[str, Any], endpoint: str, config: Config | None
    ) -> Operation[None]:
        found, listener = self._invocation(name, endpoint, config), self._listener()
        request = found.stream_request(
            "POST", _COMPLETIONS, data={**body, "stream": True}, headers={"Accept": "text/event-stream"}
        )
        return lambda clock: found.stream(request, clock=clock, listener=listener)

    def _invoke_super_agent(self, body: Mapping[str, Any], config: Config | None) -> Operation[Invocation]:
        found, listener = self._overlaid(config).sibling(SUPER_AGENTS), self._listener()
        request = found.request("POST", "invoke", data=body)
        return lambda clock: found.invoke_super_agent(request, clock=clock, listener=listener)

    def _stream_invocation(self, invocation: Invocation, config: Config | None) -> Operation[None]:
        endpoint, listener = self._overlaid(config), self._listener()
        headers = Headers({"Accept": "text/event-stream"}).merged(invocation.headers)
        request = endpoint.linked_request(invocation.url, headers)
        return lambda clock: endpoint.stream(request, clock=clock, listener=listener)


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

    @abstractmethod
    def _begin(self, operation: Operation[None]) -> Run: ...

    def stream(
        self,
        method: str,
        path: str,
        data: Data = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        idempotent: bool = False,
    ) -> Stream:
        """Sends a request whose answer is read while it arrives.

        Returns:
            A `Stream`, to be entered with ``with``: then it has the head, and gives bytes, lines, server-sent
            events or JSON values. A silence longer than the timeout's `read` ends it.

        Raises (where it is entered, and while it is read):
            AgentRunClientError: as everywhere.
        """
        operation = self._stream(method, path, data, query, headers, config, idempotent)
        return Stream(lambda: self._begin(operation))

    def invoke(
        self,
        name: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        endpoint: str = "Default",
        options: Mapping[str, Any] | None = None,
        config: Config | None = None,
    ) -> dict[str, Any]:
        """Asks an agent runtime, and returns its whole answer.

        Args:
            name: the runtime's.
            messages: the conversation, as OpenAI's chat completions have it.
            model: which of the runtime's models answers, where it has a choice.
            endpoint: the runtime's endpoint.
            options: further members of the request, such as ``temperature``.
            config: as everywhere.

        Returns:
            A chat completion.

        Source: ``agent-runtimes/{name}/endpoints/{endpoint}/invocations/openai/v1/chat/completions``.
        """
        body = _conversation(messages, model, options)
        return self._run(self._invoke(name, body, endpoint, config))

    def invoke_stream(
        self,
        name: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        endpoint: str = "Default",
        options: Mapping[str, Any] | None = None,
        config: Config | None = None,
    ) -> Stream:
        """Asks an agent runtime, and returns its answer as a stream: `Stream.chat` gives its chunks."""
        operation = self._invoke_stream(name, _conversation(messages, model, options), endpoint, config)
        return Stream(lambda: self._begin(operation))

    def invoke_super_agent(
        self,
        name: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        conversation_id: str | None = None,
        options: Mapping[str, Any] | None = None,
        config: Config | None = None,
    ) -> Invocation:
        """Sets a super agent to work: the first step of two; the second is `stream_invocation`.

        Args:
            name: the super agent's.
            messages: what is said, each with ``role`` and ``content``.
            conversation_id: an earlier invocation's, to go on with its conversation.
            options: further members of the request's ``forwardedProps``.
            config: as everywhere.

        Returns:
            Where the answer is to be read, and the conversation's id.

        Raises:
            DecodeError: the service does not say where.

        Source: ``super-agents/__SUPER_AGENT__/invoke``.
        """
        body = invocation_body(name, messages, conversation_id, options)
        return self._run(self._invoke_super_agent(body, config))

    def stream_invocation(self, invocation: Invocation, config: Config | None = None) -> Stream:
        """What a super agent answers, as a stream: `Stream.events` gives its events.

        It is read where the invocation says, which may be another origin than the endpoint's. The credential
        and the config's headers go there only if the config lists it (``trusted_origins``).
        """
        operation = self._stream_invocation(invocation, config)
        return Stream(lambda: self._begin(operation))

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
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """POSTs a local file as the part ``file`` of a form, streamed; returns the JSON object of the answer.

        Args:
            path, query, headers, config: as everywhere.
            local_file_path: the file to send.
            target_file_path: where it is to be; sent as the field ``path``.
            form_data: further text fields.
            progress: called with the bytes of the request that were sent, and their number.

        Raises:
            FileError: the file cannot be read; found out before a connection is opened.
        """
        return self._run(
            self._upload(
                path,
                local_file_path,
                target_file_path,
                form_data,
                query,
                headers,
                config,
                idempotent,
                progress,
            )
        )

    def post_form(
        self,
        path: str,
        fields: Mapping[str, object] | None = None,
        files: Files | None = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        idempotent: bool = False,
        expect_continue: bool = False,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """POSTs a form with any number of text fields and files; returns the JSON object of the answer.

        Args:
            path, query, headers, config: as everywhere.
            fields: text fields; they come first.
            files: by field: the path of a local file; bytes, an open binary file or an iterable of bytes; or
                ``(filename, content)`` or ``(filename, content, content_type)``; or a list of these. The
                content type follows from the file name where it is not given.
            expect_continue: send the content once the service says that it wants it, or after a second.
            progress: called with the bytes of the request that were sent, and their number or None.

        Raises:
            FileError: a file cannot be read; found out before a connection is opened.
            TypeError: content of another kind.
        """
        return self._run(
            self._form(path, fields, files, query, headers, config, idempotent, expect_continue, progress)
        )

    def get_file(
        self,
        path: str,
        save_path: Path | BinaryIO,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        resume: bool = False,
        sha256: str | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """GETs content and saves it at a local path, whole or not at all.

        A connection that breaks on the way is made again, and the rest is asked for.

        Args:
            path, query, headers, config: as everywhere.
            save_path: where to; or an open binary file, which is written to from where it stands, and keeps
                what has come when that fails.
            resume: when it fails all the same, keep what has arrived, beside the path, and go on from there
                the next time.
            sha256: what the content must have, in hexadecimal digits.
            progress: called with the bytes that are there, and their number in the end or None.

        Returns:
            ``{"saved_path": ..., "size": ...}``: the path as given (of an open file its name, or None), and
            the number of bytes.

        Raises:
            FileError: it cannot be saved there; the old file, if any, is untouched.
            DecodeError: the service answered with JSON, which is no file; or a checksum is not right.
        """
        return self._run(self._download(path, save_path, query, headers, config, resume, sha256, progress))

    def get_video(
        self,
        path: str,
        save_path: Path | BinaryIO,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        resume: bool = False,
        sha256: str | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """GETs a recording (``.mkv``) and saves it; as `get_file`."""
        return self._run(self._download(path, save_path, query, headers, config, resume, sha256, progress))


class AsyncFace(Operations, ABC):
    """The methods of a blocking client, to be awaited; their names end in ``_async``, as documented."""

    @abstractmethod
    def _run_async(self, operation: Operation[Result]) -> Coroutine[Any, Any, Result]: ...

    @abstractmethod
    async def _begin_async(self, operation: Operation[None]) -> RunAsync: ...

    def stream_async(
        self,
        method: str,
        path: str,
        data: Data = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        idempotent: bool = False,
    ) -> AsyncStream:
        """Asynchronous `SyncFace.stream`: to be entered with ``async with``."""
        operation = self._stream(method, path, data, query, headers, config, idempotent)
        return AsyncStream(lambda: self._begin_async(operation))

    async def invoke_async(
        self,
        name: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        endpoint: str = "Default",
        options: Mapping[str, Any] | None = None,
        config: Config | None = None,
    ) -> dict[str, Any]:
        """Asynchronous `SyncFace.invoke`."""
        body = _conversation(messages, model, options)
        return await self._run_async(self._invoke(name, body, endpoint, config))

    def invoke_stream_async(
        self,
        name: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        endpoint: str = "Default",
        options: Mapping[str, Any] | None = None,
        config: Config | None = None,
    ) -> AsyncStream:
        """Asynchronous `SyncFace.invoke_stream`."""
        operation = self._invoke_stream(name, _conversation(messages, model, options), endpoint, config)
        return AsyncStream(lambda: self._begin_async(operation))

    async def invoke_super_agent_async(
        self,
        name: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        conversation_id: str | None = None,
        options: Mapping[str, Any] | None = None,
        config: Config | None = None,
    ) -> Invocation:
        """Asynchronous `SyncFace.invoke_super_agent`."""
        body = invocation_body(name, messages, conversation_id, options)
        return await self._run_async(self._invoke_super_agent(body, config))

    def stream_invocation_async(self, invocation: Invocation, config: Config | None = None) -> AsyncStream:
        """Asynchronous `SyncFace.stream_invocation`."""
        operation = self._stream_invocation(invocation, config)
        return AsyncStream(lambda: self._begin_async(operation))

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
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Asynchronous `SyncFace.post_file`."""
        return await self._run_async(
            self._upload(
                path,
                local_file_path,
                target_file_path,
                form_data,
                query,
                headers,
                config,
                idempotent,
                progress,
            )
        )

    async def post_form_async(
        self,
        path: str,
        fields: Mapping[str, object] | None = None,
        files: Files | None = None,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        idempotent: bool = False,
        expect_continue: bool = False,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Asynchronous `SyncFace.post_form`."""
        return await self._run_async(
            self._form(path, fields, files, query, headers, config, idempotent, expect_continue, progress)
        )

    async def get_file_async(
        self,
        path: str,
        save_path: Path | BinaryIO,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        resume: bool = False,
        sha256: str | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Asynchronous `SyncFace.get_file`."""
        return await self._run_async(
            self._download(path, save_path, query, headers, config, resume, sha256, progress)
        )

    async def get_video_async(
        self,
        path: str,
        save_path: Path | BinaryIO,
        query: Query = None,
        headers: Fields = None,
        config: Config | None = None,
        *,
        resume: bool = False,
        sha256: str | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Asynchronous `SyncFace.get_video`."""
        return await self._run_async(
            self._download(path, save_path, query, headers, config, resume, sha256, progress)
        )


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
        transport: Transport | TransportName | None = None,
        proxy: str | Proxies | None = None,
    ) -> None:
        endpoint = DataEndpoint(
            config, namespace, auth=auth, credentials=credentials, resource=access_token_for
        )
        super().__init__(endpoint, listener)
        self._sessions = Route.choose(
            Setup(origin=endpoint.origin, tls=tls, limits=limits, unix_socket=unix_socket, proxy=proxy),
            transport,
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
        transport: Transport | TransportName | None = None,
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

    def _run_async(self, operation: Operation[Result]) -> Coroutine[Any, Any, Result]:
        return self._sessions.get(*self._loop()).run(operation)

    async def _begin_async(self, operation: Operation[None]) -> RunAsync:
        return await self._sessions.get(*self._loop()).begin(operation)

    request: Final = AsyncFace.request_async
    get: Final = AsyncFace.get_async
    delete: Final = AsyncFace.delete_async
    post: Final = AsyncFace.post_async
    put: Final = AsyncFace.put_async
    patch: Final = AsyncFace.patch_async
    post_file: Final = AsyncFace.post_file_async
    upload: Final = AsyncFace.post_file_async
    post_form: Final = AsyncFace.post_form_async
    get_file: Final = AsyncFace.get_file_async
    download: Final = AsyncFace.get_file_async
    get_video: Final = AsyncFace.get_video_async
    stream: Final = AsyncFace.stream_async
    invoke: Final = AsyncFace.invoke_async
    invoke_stream: Final = AsyncFace.invoke_stream_async
    invoke_super_agent: Final = AsyncFace.invoke_super_agent_async
    stream_invocation: Final = AsyncFace.stream_invocation_async

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
