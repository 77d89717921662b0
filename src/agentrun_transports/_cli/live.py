"""stream and chat: answers that are shown while they arrive.

Rules of this file: what has come is on stdout before more is waited for; content goes there as it is, and
only for a terminal is it made harmless; an answer that broke off is no part of a conversation that we keep.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any, Protocol, TextIO, cast

from agentrun_proto import AgentRunClientError, Headers, ServerSentEvent

from .._blocking_client import BlockingClient
from .failures import DONE, describe, exit_code
from .requests import merged_query, read_data
from .screen import Screen
from .settings import read_config, read_namespace


def stream(args: argparse.Namespace, screen: Screen) -> int:
    """The command stream.

    Raises:
        ValueError: --resume, and nothing that can be taken up again.
    """
    method = args.method.upper()
    if args.resume and (not args.events or method != "GET"):
        raise ValueError("--resume takes up again what GET and --events read")
    headers = Headers(args.header)
    content = read_data(args.data, headers)
    if args.events and "accept" not in headers:
        headers = headers.merged({"Accept": "text/event-stream"})
    with (
        BlockingClient(read_config(args), read_namespace(args)) as client,
        client.stream(method, args.path, content, merged_query(args.query), headers) as answer,
    ):
        if args.events:
            for event in answer.events(resume=args.resume):
                screen.json({"type": event.type, "id": event.id, "data": event.data}, one_line=True)
        elif args.lines:
            for line in answer.lines():
                screen.text(f"{line}\n")
        else:
            screen.content(answer)
    return DONE


def chat(args: argparse.Namespace, screen: Screen) -> int:
    """The command chat.

    Raises:
        ValueError: there is no message, or a flag that a super agent has no use for.
    """
    if args.super_agent and (args.model is not None or args.endpoint_name is not None):
        raise ValueError("a super agent decides these itself: leave --model and --endpoint-name out")
    stdin: TextIO | None = sys.stdin  # None where a shell closed it
    with BlockingClient(read_config(args)) as client:
        partner = _SuperAgent(client, args) if args.super_agent else _Runtime(client, args)
        message: str | None = args.message
        if message is None and stdin is not None:
            if stdin.isatty():
                return _converse(partner, args.command, stdin, screen)
            message = stdin.buffer.read().decode().rstrip("\r\n")
        if not message:
            raise ValueError("there is no message: give one, or pipe it in")
        partner.ask(message, screen)
    return DONE


class _Partner(Protocol):
    def ask(self, message: str, screen: Screen) -> None:
        """Types what is answered as it comes."""
        ...


class _Runtime:
    """An agent runtime, which is told all of the conversation each time."""

    def __init__(self, client: BlockingClient, args: argparse.Namespace) -> None:
        self._client, self._args = client, args
        self._conversation: list[dict[str, str]] = []

    def ask(self, message: str, screen: Screen) -> None:
        args = self._args
        asked = [*self._conversation, _said("user", message)]
        with self._client.invoke_stream(
            args.runtime, asked, model=args.model, endpoint=args.endpoint_name or "Default"
        ) as answer:
            answered = _type(map(_content, answer.chat()), screen)
        self._conversation = [*asked, _said("assistant", answered)]


class _SuperAgent:
    """A super agent, which keeps the conversation itself."""

    def __init__(self, client: BlockingClient, args: argparse.Namespace) -> None:
        self._client, self._name = client, args.runtime
        self._conversation_id: str | None = None

    def ask(self, message: str, screen: Screen) -> None:
        invocation = self._client.invoke_super_agent(
            self._name, [_said("user", message)], conversation_id=self._conversation_id
        )
        self._conversation_id = invocation.conversation_id
        with self._client.stream_invocation(invocation) as answer:
            _type(map(_delta, answer.events()), screen)


def _converse(partner: _Partner, command: str, stdin: TextIO, screen: Screen) -> int:
    """Asks what is typed, line by line; the exit code is that of the last answer, as in a shell."""
    code = DONE
    while True:
        screen.prompt("> ")
        line = stdin.readline()
        if not line:  # Ctrl-D
            screen.prompt("\n")
            return code
        message = line.rstrip("\r\n")
        if not message.strip():
            continue
        try:
            partner.ask(message, screen)
            code = DONE
        except AgentRunClientError as error:
            screen.failure(describe(error, command))
            code = exit_code(error)


def _type(pieces: Iterable[str], screen: Screen) -> str:
    """Types the pieces of an answer as they come, and returns the whole of it."""
    typed: list[str] = []
    try:
        for piece in pieces:
            if piece:
                typed.append(piece)
                screen.text(piece)
    finally:
        if typed:
            screen.text("\n")
    return "".join(typed)


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _content(chunk: dict[str, Any]) -> str:
    """The text in a chunk of a chat completion, of its first choice.

    Other chunks tell the role, the usage, a call of a tool, the end.

    >>> _content({"choices": [{"index": 0, "delta": {"content": "Hello"}}]})
    'Hello'
    >>> _content({"choices": []}) + _content({"choices": [{"delta": {"content": None}}]})
    ''
    """
    try:
        content = chunk["choices"][0]["delta"]["content"]
    except (KeyError, IndexError, TypeError):
        return ""
    return content if isinstance(content, str) else ""


def _delta(event: ServerSentEvent) -> str:
    """The text in an event of a super agent, by the names of AG-UI.

    Others tell when a run or a message begins and ends, and of the calls of tools.

    Raises:
        AgentRunClientError: the run failed.

    >>> _delta(ServerSentEvent(data='{"type": "TEXT_MESSAGE_CONTENT", "delta": "Hello"}'))
    'Hello'
    """
    told = event.json()
    fields = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    if fields.get("type") == "RUN_ERROR":
        code = fields.get("code")
        raise AgentRunClientError(
            str(fields.get("message") or "the super agent failed, and says no more"),
            error_code=code if isinstance(code, str) else None,
            response_body=told,
        )
    delta = fields.get("delta") if fields.get("type") == "TEXT_MESSAGE_CONTENT" else None
    return delta if isinstance(delta, str) else ""
