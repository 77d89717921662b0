"""stream and chat: answers that are shown while they arrive.

Rules of this file: what has come is on stdout before more is waited for; content goes there as it is, and
only for a terminal is it made harmless; an answer that broke off is no part of the conversation.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, TextIO

from agentrun_proto import AgentRunClientError, Headers

from .._blocking_client import BlockingClient
from .failures import DONE, describe, exit_code
from .requests import merged_query, read_data
from .screen import Screen
from .settings import read_config, read_namespace

Message = dict[str, str]


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
        ValueError: there is no message.
    """
    stdin: TextIO | None = sys.stdin  # None where a shell closed it
    with BlockingClient(read_config(args)) as client:
        message: str | None = args.message
        if message is None and stdin is not None:
            if stdin.isatty():
                return _converse(client, args, stdin, screen)
            message = stdin.buffer.read().decode().rstrip("\r\n")
        if not message:
            raise ValueError("there is no message: give one, or pipe it in")
        _ask(client, args, [_said("user", message)], screen)
    return DONE


def _converse(client: BlockingClient, args: argparse.Namespace, stdin: TextIO, screen: Screen) -> int:
    """Asks what is typed, line by line; the exit code is that of the last answer, as in a shell."""
    conversation: list[Message] = []
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
        asked = [*conversation, _said("user", message)]
        try:
            conversation = [*asked, _said("assistant", _ask(client, args, asked, screen))]
            code = DONE
        except AgentRunClientError as error:
            screen.failure(describe(error, args.command))
            code = exit_code(error)


def _ask(client: BlockingClient, args: argparse.Namespace, asked: list[Message], screen: Screen) -> str:
    """Types the answer as it comes, and returns the whole of it."""
    pieces: list[str] = []
    try:
        with client.invoke_stream(
            args.runtime, asked, model=args.model, endpoint=args.endpoint_name
        ) as answer:
            for chunk in answer.chat():
                piece = _content(chunk)
                if piece:
                    pieces.append(piece)
                    screen.text(piece)
    finally:
        if pieces:
            screen.text("\n")
    return "".join(pieces)


def _said(role: str, content: str) -> Message:
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
