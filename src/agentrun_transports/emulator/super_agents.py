"""Super agents: an invocation in two steps, and the conversations that come of it.

1. ``POST .../invoke`` with ``messages`` and ``forwardedProps`` is answered by ``conversationId``, ``url`` and
   ``headers``.
2. ``GET`` of that URL with those headers is answered by server-sent events, of the kinds that AG-UI names.

Names and shapes are those that the published client sends and reads; the service's own documents do not give
them, and the path of the URL and the emulator's other fields are unchecked.

Rules that hold here:
1. What opens a stream is its session, which only the answer to the first step tells; a credential is not
   needed, and where one is sent nonetheless it must be right. The URL may lead to another origin, which is
   where no credential belongs.
2. The reply is known when the invocation is accepted, and belongs to the conversation from then on: a stream
   that breaks loses nothing.
"""

from __future__ import annotations

import hmac
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from .dialogue import read_dialogue, words
from .messages import Refusal, Response, invalid
from .resources import VERSION
from .routing import Body, Call, Route, text
from .streams import FAILED, compact, event, event_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .store import Records

AGENTS = (VERSION, "super-agents", "__SUPER_AGENT__")
STREAMS = (*AGENTS, "streams")
SESSION_FIELD = "X-Super-Agent-Session-Id"
_CONVERSATIONS = "conversations"
# How many streams wait to be fetched; the oldest are forgotten beyond it.
_MAX_RUNS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An invocation whose stream may be fetched, as often as one likes, by who knows its ``session``."""

    run_id: str
    conversation_id: str
    message_id: str
    session: str
    reply: str

    def events(self) -> Iterator[bytes]:
        """Make the events of the stream."""
        run = {"threadId": self.conversation_id, "runId": self.run_id}
        message = {"messageId": self.message_id}
        yield _event("RUN_STARTED", run)
        yield _event("TEXT_MESSAGE_START", {**message, "role": "assistant"})
        for word in words(self.reply):
            yield _event("TEXT_MESSAGE_CONTENT", {**message, "delta": word})
        yield _event("TEXT_MESSAGE_END", message)
        yield _event("RUN_FINISHED", run)


def _event(kind: str, fields: Mapping[str, Any]) -> bytes:
    return event(compact({"type": kind, **fields}), kind=kind)


class Runs:
    """The invocations whose streams may be fetched. Services and threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}

    def add(self, run: Run) -> None:
        """Keep an invocation."""
        with self._lock:
            if len(self._runs) >= _MAX_RUNS:
                del self._runs[next(iter(self._runs))]
            self._runs[run.run_id] = run

    def get(self, run_id: str) -> Run | None:
        """Return the invocation of that id, if it is known."""
        with self._lock:
            return self._runs.get(run_id)


class SuperAgents:
    """Invocations, streams, conversations. Its methods are called under the service's lock.

    ``own`` are the invocations whose streams are served here. ``runs`` is where invocations that begin here
    go, ``origin`` (``scheme://authority``) where their streams are fetched.
    """

    def __init__(
        self, records: Records, new_id: Callable[[], str], *, own: Runs, runs: Runs, origin: str
    ) -> None:
        self._records = records
        self._new_id = new_id
        self._own = own
        self._runs = runs
        self._origin = origin

    def routes(self) -> list[Route]:
        """Return the routes."""
        many = (*AGENTS, "conversations")
        one = (*many, "*")
        return [
            Route(method="POST", pattern=(*AGENTS, "invoke"), handler=self._invoke, body=Body.JSON),
            Route(method="GET", pattern=(*STREAMS, "*"), handler=self._stream, bare=True),
            Route(method="GET", pattern=many, handler=self._list),
            Route(method="GET", pattern=one, handler=self._get),
            Route(method="DELETE", pattern=one, handler=self._delete),
        ]

    def _invoke(self, call: Call) -> Any:
        reply = read_dialogue(call.data).reply
        forwarded = _object(call.data, "forwardedProps")
        metadata = _object(forwarded, "metadata")
        agent = text(metadata, "agentRuntimeName")
        # AG-UI and the published client count in milliseconds.
        now = int(call.now * 1000)
        conversation: dict[str, Any]
        if forwarded.get("conversationId") is not None:
            conversation = self._found(text(forwarded, "conversationId"))
        else:
            conversation = {
                "conversationId": self._new_id(),
                "agentId": agent,
                "title": reply[:40],
                "metadata": metadata,
                "createdAt": now,
                "messages": [],
            }
        run = Run(
            run_id=self._new_id(),
            conversation_id=conversation["conversationId"],
            message_id=self._new_id(),
            session=f"session-{self._new_id()}",
            reply=reply,
        )
        messages: list[Any] = [
            *conversation["messages"],
            {"messageId": self._new_id(), "role": "user", "content": reply, "createdAt": now},
            {"messageId": run.message_id, "role": "assistant", "content": reply, "createdAt": now},
        ]
        params = {key: value for key, value in forwarded.items() if key not in ("metadata", "conversationId")}
        row: dict[str, Any] = {**conversation, "params": params, "updatedAt": now, "messages": messages}
        self._records.put(_CONVERSATIONS, run.conversation_id, row)
        self._runs.add(run)
        return {
            "conversationId": run.conversation_id,
            "url": f"{self._origin}/{'/'.join(STREAMS)}/{run.run_id}",
            "headers": {SESSION_FIELD: run.session},
        }

    def _stream(self, call: Call) -> Response:
        run = self._own.get(call.ids[0])
        # Nobody is told which of the two it is.
        session = (call.request.header(SESSION_FIELD) or "").encode("latin-1")
        if run is None or not hmac.compare_digest(session, run.session.encode("latin-1")):
            raise Refusal(403, f"There is no such stream, or {SESSION_FIELD} is not of its session.")
        return event_stream(run.events(), _event("RUN_ERROR", FAILED))

    def _found(self, identifier: str) -> dict[str, Any]:
        row = self._records.table(_CONVERSATIONS).get(identifier)
        if row is None:
            raise Refusal(404, f"There is no conversation {identifier!r}.", code="ConversationNotFound")
        return row

    def _list(self, call: Call) -> Any:
        wanted = _filter(call.query.get("metadata", "{}"))
        rows = [
            {key: value for key, value in row.items() if key != "messages"}
            for row in self._records.table(_CONVERSATIONS).values()
            if all(name in row["metadata"] and row["metadata"][name] == wanted[name] for name in wanted)
        ]
        return {"conversations": rows}

    def _get(self, call: Call) -> Any:
        return self._found(call.ids[0])

    def _delete(self, call: Call) -> Any:
        row = self._found(call.ids[0])
        self._records.delete(_CONVERSATIONS, row["conversationId"])
        return {"conversationId": row["conversationId"]}


def _object(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    if not isinstance(value, dict):
        raise invalid(f"{name!r} must be an object.")
    return cast("dict[str, Any]", value)


def _filter(metadata: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata)
    except (ValueError, RecursionError):
        value = None
    return _object({"metadata": value}, "metadata")
