"""get, post, put, patch, delete, upload and download: one request each, its JSON to stdout.

Rules of this file: what is printed is what the service said, whatever JSON that is; content that is to be
JSON is checked before anything is sent, and then sent as it was written.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from agentrun_proto import DecodeError, Headers
from agentrun_proto.decoding import parse_json
from agentrun_proto.transfers import check_sha256

from .._blocking_client import BlockingClient
from .failures import DONE
from .screen import Screen
from .settings import read_config, read_namespace

Query = dict[str, str | list[str]]


def query_pair(text: str) -> tuple[str, str]:
    """The value of ``--query``.

    >>> query_pair("path=/a=b")
    ('path', '/a=b')
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    return name, value


def header_field(text: str) -> tuple[str, str]:
    """The value of ``--header``.

    >>> header_field("X-Trace: a:b")
    ('X-Trace', 'a:b')
    """
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError("a header is of the form 'Name: value', and this has no colon")
    try:
        Headers([(name, value)])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name, value.strip()


def sha256_digits(text: str) -> str:
    """The value of ``--sha256``.

    >>> sha256_digits("AB" * 32) == "ab" * 32
    True
    """
    try:
        return check_sha256(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def merged_query(pairs: list[tuple[str, str]]) -> Query:
    """Query parameters; a name that is given more than once has a list.

    >>> merged_query([("a", "1"), ("b", "2"), ("a", "3")])
    {'a': ['1', '3'], 'b': '2'}
    """
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: value if len(value) > 1 else value[0] for name, value in values.items()}


def read_data(text: str | None, headers: Headers) -> str | bytes | None:
    """The content that ``--data`` stands for: literal, ``@file``, or ``-`` for stdin.

    Raises:
        ValueError: it is no JSON, and no Content-Type says that it is something else.
        OSError: the file cannot be read.
    """
    if text is None:
        return None
    if text == "-":
        content = sys.stdin.buffer.read()
    elif text.startswith("@"):
        content = Path(text[1:]).read_bytes()
    else:
        content = text.encode()
    if "json" not in headers.get("content-type", "application/json").lower():
        return content
    try:
        parse_json(content)
    except ValueError as error:
        raise ValueError(
            f"--data is no JSON: {error}; for anything else, give its --header 'Content-Type: ...'"
        ) from None
    # Some editors put a byte order mark before it, which must not be sent (RFC 8259, 8.1).
    return content.decode("utf-8-sig")


def send(args: argparse.Namespace, screen: Screen) -> int:
    """The commands get, post, put, patch and delete."""
    headers = Headers(args.header)
    content = (read_data(args.data, headers),) if "data" in args else ()
    with BlockingClient(read_config(args), read_namespace(args)) as client:
        ask = getattr(client, args.command)
        try:
            answer = ask(args.path, *content, merged_query(args.query), headers)
        except DecodeError as error:
            if "value" not in vars(error):
                raise
            answer = error.value  # JSON, though no object: null, say
    screen.json(answer)
    return DONE


def upload(args: argparse.Namespace, screen: Screen) -> int:
    """The command upload."""
    target = os.path.basename(args.local) if args.target is None else args.target
    with (
        screen.transfer(f"Sending {os.path.basename(args.local)}") as meter,
        BlockingClient(read_config(args), read_namespace(args)) as client,
    ):
        answer = client.post_file(
            args.path,
            args.local,
            target,
            query=merged_query(args.query),
            headers=Headers(args.header),
            progress=meter,
        )
    screen.json(answer)
    return DONE


def download(args: argparse.Namespace, screen: Screen) -> int:
    """The command download."""
    with (
        screen.transfer(f"Saving {os.path.basename(args.save_as)}") as meter,
        BlockingClient(read_config(args), read_namespace(args)) as client,
    ):
        answer = client.get_file(
            args.path,
            args.save_as,
            merged_query(args.query),
            Headers(args.header),
            resume=args.resume,
            sha256=args.sha256,
            progress=meter,
        )
    screen.json(answer)
    return DONE
