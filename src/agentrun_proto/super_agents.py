"""Super agents: what one is asked, and where its answer is to be read.

An invocation takes two steps: the request is answered by a URL and headers, and a GET of that URL with those
headers by server-sent events. Names and shapes are those that the published client sends and reads.

Rules of this file: the URL may be of any origin, and only its headers open it: they are secret, and an error
about them shows neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from .commands import Flow
from .context import Context
from .decoding import decode, find_request_id, nonsense
from .flows import perform, read_content
from .messages import Head, Headers, Request
from .urls import resolve

NAMESPACE = "super-agents/__SUPER_AGENT__"

_OWN = frozenset({"metadata", "conversationId"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """A super agent that is at work, and where its answer is read, as often as one likes.

    Args:
        conversation_id: what a later invocation goes on with.
        url: absolute; where the answer is.
        headers: what opens it. A pickle does not hold the secret ones.
    """

    conversation_id: str
    url: str = field(repr=False)
    headers: Headers = field(default=Headers(), repr=False)


def invocation_body(
    name: str,
    messages: Sequence[Mapping[str, Any]],
    conversation_id: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a super agent is sent.

    Args:
        name: of its agent runtime.
        messages: what is said.
        conversation_id: the conversation that goes on; None begins one.
        options: further members of ``forwardedProps``.

    Raises:
        ValueError: the options hold what the other arguments say.

    >>> invocation_body("n", [{"role": "user", "content": "hi"}])["forwardedProps"]
    {'metadata': {'agentRuntimeName': 'n'}}
    """
    forwarded = dict(options or {})
    if not _OWN.isdisjoint(forwarded):
        raise ValueError("metadata and conversationId are set from the name and the conversation_id")
    forwarded["metadata"] = {"agentRuntimeName": name}
    if conversation_id is not None:
        forwarded["conversationId"] = conversation_id
    return {"messages": list(messages), "forwardedProps": forwarded}


def invoke(context: Context, request: Request) -> Flow[Invocation]:
    """Sends the first request, and returns where the answer is to be read.

    Raises:
        DecodeError: the answer does not say where, or leads from https to http.
    """
    return perform(context, request, partial(_accepted, context, request))


def _accepted(context: Context, request: Request, head: Head) -> Flow[Invocation]:
    answer = decode(head, (yield from read_content(head)))
    request_id = find_request_id(head.headers, answer)
    found = _invocation_in(answer, context, request)
    del answer  # a traceback may be shown with its locals
    if isinstance(found, Invocation):
        return found
    error = nonsense(head, b"", f"the answer does not say where the stream is: {found}")
    error.request_id = request_id
    raise error


def _invocation_in(answer: dict[str, Any], context: Context, request: Request) -> Invocation | str:
    """The invocation that an answer tells of, or what is wrong with it."""
    told = answer.get("data")
    data = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    conversation_id, url, headers = (data.get(name) for name in ("conversationId", "url", "headers"))
    if not isinstance(conversation_id, str) or not conversation_id:
        return "it has no conversationId"
    if not isinstance(url, str) or not url:
        return "it has no url"
    try:
        target = resolve(request.url, url)
        fields = Headers({} if headers is None else headers)
    except (TypeError, ValueError):
        return "its url or its headers are none"
    if request.origin.scheme == "https" != target.origin.scheme and not context.plane.trusts(target.origin):
        return "its url leads from https to http"
    return Invocation(
        conversation_id=conversation_id, url=f"{target.origin}{target.request_target}", headers=fields
    )
