"""A transport for unit tests: its answers are written beside the test. "Answer this, then fail so."

Rules of this file: it answers in order, whatever is asked; what was asked is there to be looked at; it opens
no socket. `ScriptedServer` is the other one, with real sockets, for what a peer may do to a connection.
"""

from __future__ import annotations

import json as json_text
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from agentrun_proto import Clock, Head, Headers, Request, TransportError

from .memory import FromMemory, Replay, UnexpectedRequest
from .redaction import shown_url

_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Args:
        status: the HTTP status code.
        json: content that is sent as JSON; None for none.
        content: or content as it is; a list of pieces arrives piece by piece, as a live answer does.
        headers: the fields of the answer. Content-Type and Content-Length are added where they are known.
        failure: what happens instead of the end, once the content was read.

    Raises:
        ValueError: it has both kinds of content.

    >>> Reply(200, json={"ok": True}).replay().pieces
    (b'{"ok": true}',)
    >>> Reply(content=["data: 1\\n\\n", "data: 2\\n\\n"]).replay().pieces
    (b'data: 1\\n\\n', b'data: 2\\n\\n')
    """

    status: int = 200
    _: KW_ONLY
    json: Any = None
    content: bytes | str | Sequence[bytes | str] = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    failure: TransportError | None = None

    def __post_init__(self) -> None:
        if self.json is not None and self.content:
            raise ValueError("a reply has either json or content")

    def replay(self) -> Replay:
        """How an exchange that is answered so goes."""
        content = self.content if self.json is None else json_text.dumps(self.json)
        told = [content] if isinstance(content, (bytes, str)) else content
        pieces = tuple([piece.encode() if isinstance(piece, str) else piece for piece in told if piece])
        known = Headers() if self.json is None else Headers(_JSON)
        if pieces and self.failure is None:
            known = known.merged({"Content-Length": str(sum(map(len, pieces)))})
        return Replay(
            head=Head(status=self.status, headers=known.merged(self.headers)),
            pieces=pieces,
            failure=self.failure,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeRequest:
    """A request as it would have been sent.

    Args:
        method: such as ``GET``.
        url: absolute, with its query.
        headers: all fields, those of the signature included.
        content: its whole body.
    """

    method: str
    url: str
    headers: Headers
    content: bytes = field(repr=False)

    def json(self) -> Any:
        """The content, decoded. ValueError where it is no JSON."""
        return json_text.loads(self.content)


class CannedTransport(FromMemory):
    """Answers a client's requests with what it was given, one after another; ``transport=`` takes it.

    Args:
        script: for each request that will be made, the `Reply`, or the `TransportError` it meets instead. An
            attempt more is a request more.

    Attributes:
        requests: those that were made, as `MadeRequest`.

    Raises:
        TypeError: the script holds something else.

    A request beyond the script raises `UnexpectedRequest`.

    >>> from agentrun_proto import Config, ConnectError, Retry
    >>> from agentrun_transports import BlockingClient
    >>> canned = CannedTransport([ConnectError("refused"), Reply(200, json={"ok": True})])
    >>> with BlockingClient(Config(account_id="1"), transport=canned) as client:
    ...     client.get("resources", query={"limit": 1})
    {'ok': True}
    >>> [(request.method, request.url.rpartition("/")[2]) for request in canned.requests]
    [('GET', 'resources?limit=1'), ('GET', 'resources?limit=1')]
    """

    def __init__(self, script: Iterable[Reply | TransportError]) -> None:
        self.requests: list[MadeRequest] = []
        self._script = list(script)
        for reply in self._script:
            if not isinstance(reply, (Reply, TransportError)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"a script holds replies and transport errors, not a {type(reply).__name__}")
        self._lock = threading.Lock()

    @property
    def unused(self) -> list[Reply | TransportError]:
        """What of the script no request has asked for."""
        with self._lock:
            return self._script[len(self.requests) :]

    def reply(self, request: Request, contents: Sequence[bytes], clock: Clock) -> Replay:
        """The next of the script."""
        made = MadeRequest(
            method=request.method,
            url=request.url,
            headers=Headers(request.fields()),
            content=b"".join(contents),
        )
        with self._lock:
            number = len(self.requests)
            self.requests.append(made)
            if number >= len(self._script):
                raise UnexpectedRequest(
                    f"{made.method} {shown_url(made.url)} is request {number + 1}; "
                    f"the script has replies to {len(self._script)}"
                )
            reply = self._script[number]
        return Replay(failure=reply) if isinstance(reply, TransportError) else reply.replay()
