"""Agent runtimes: chat completions in the shape of OpenAI's, whole or token by token.

``POST /agent-runtimes/{name}/endpoints/{endpoint}/invocations/openai/v1/chat/completions``. Every runtime and
every endpoint is there, and answers as ``dialogue`` says; a token is a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .dialogue import Dialogue, read_dialogue, words
from .messages import invalid
from .routing import Body, Call, Route, flag, text
from .streams import FAILED, compact, event, event_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATTERN = ("agent-runtimes", "*", "endpoints", "*", "invocations", "openai", "v1", "chat", "completions")
_DONE = event("[DONE]")
# Where a stream fails, OpenAI's sends an object with nothing but `error` in it.
_FAILURE = event(compact({"error": {**FAILED, "type": "server_error", "param": None}}))


class Chat:
    """Chat completions. Its methods change nothing."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route(method="POST", pattern=_PATTERN, handler=self._complete, body=Body.JSON, bare=True)]

    def _complete(self, call: Call) -> Any:
        model, dialogue = text(call.data, "model"), read_dialogue(call.data)
        same: dict[str, Any] = {
            "id": f"chatcmpl-{self._new_id()}",
            "object": "chat.completion",
            "created": int(call.now),
            "model": model,
        }
        options = call.data.get("stream_options")
        if options is not None and not isinstance(options, dict):
            raise invalid("'stream_options' must be an object.")
        with_usage = flag(cast("dict[str, Any]", options or {}), "include_usage", False)
        if flag(call.data, "stream", False):
            return event_stream(_stream(same, dialogue, with_usage=with_usage), _FAILURE)
        message = {"role": "assistant", "content": dialogue.reply}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {**same, "choices": [choice], "usage": _usage(dialogue)}


def _stream(same: dict[str, Any], dialogue: Dialogue, *, with_usage: bool) -> Iterator[bytes]:
    """Make the events: the role, the words, the reason why it ends, the usage if it is wanted, the end."""
    # With usage, every chunk has the field, and all but the last have null in it.
    same = {**same, "object": "chat.completion.chunk", **({"usage": None} if with_usage else {})}

    def chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return event(compact({**same, "choices": [choice]}))

    yield chunk({"role": "assistant", "content": ""})
    for word in words(dialogue.reply):
        yield chunk({"content": word})
    yield chunk({}, "stop")
    if with_usage:
        yield event(compact({**same, "choices": [], "usage": _usage(dialogue)}))
    yield _DONE


def _usage(dialogue: Dialogue) -> dict[str, int]:
    prompt, completion = dialogue.prompt_words, len(words(dialogue.reply))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
