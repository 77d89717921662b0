"""sign: the headers that authorise a request, or the curl command that sends it.

Rules of this file: what is printed is exactly the request that this library would send, so the token or the
signature is in it; the access key's secret never is.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from shlex import quote

from agentrun_proto import DataEndpoint, Headers, Request, merge_query
from agentrun_proto.urls import normalise_query, parse_url

from .failures import DONE
from .requests import Query, merged_query, read_data
from .screen import Screen
from .settings import read_config, read_namespace

# One argument of a program may have 128 KiB on Linux (MAX_ARG_STRLEN), quotes and escapes included.
_MAX_INLINE = 32768


def sign(args: argparse.Namespace, screen: Screen) -> int:
    """The command sign.

    Raises:
        ValueError: there is no credential, or it belongs to another origin than the URL's.
    """
    endpoint = DataEndpoint(read_config(args), read_namespace(args))
    if endpoint.config.credential is None:
        raise ValueError(
            "there is no credential to sign with: set AGENTRUN_ACCESS_KEY_ID and AGENTRUN_ACCESS_KEY_SECRET"
        )
    headers = Headers(args.header)
    unsigned = endpoint.request(
        args.method.upper(),
        "" if _is_url(args.target) else args.target,
        data=read_data(args.data, headers),
        query=merged_query(args.query),
        headers=headers,
    )
    if _is_url(args.target):
        unsigned = _aimed(unsigned, args.target, merged_query(args.query))
    request = endpoint.sign(unsigned, time.time())
    if args.curl:
        screen.line((curl_command(request), ""))
        return DONE
    if screen.is_terminal:
        screen.line((f"{request.method} ", "bold"), (request.url, "cyan"))
    for name, value in request.fields():
        screen.line((f"{name}: ", "bold"), (value, ""))
    return DONE


def _is_url(text: str) -> bool:
    return "://" in text.partition("?")[0]


def _aimed(request: Request, url: str, query: Query) -> Request:
    """The request, sent to an absolute URL instead."""
    target = parse_url(merge_query(url, query))
    if target.origin != request.origin:
        raise ValueError(
            f"the credential belongs to {request.origin}, and is not for {target.origin}; "
            "give a path, or set --endpoint"
        )
    target = replace(target, query=normalise_query(target.query))
    return replace(request, target=target.request_target)


def curl_command(request: Request) -> str:
    """A shell command that sends a request with curl.

    Raises:
        ValueError: its content is no text, or too long for a command line.

    >>> from agentrun_proto import Origin
    >>> print(curl_command(Request(method="GET", origin=Origin("http", "h", 80), target="/it's?a=b&c=d")))
    curl --compressed --request GET 'http://h/it'"'"'s?a=b&c=d'
    """
    # Without --head, curl would wait for the content that the answer to HEAD announces.
    how = "--head" if request.method == "HEAD" else f"--request {quote(request.method)}"
    parts = [f"curl --compressed {how} {quote(request.url)}"]
    for name, value in request.fields():
        # curl derives these two from the URL and the content, where there is some.
        if name == "Host" or (name == "Content-Length" and request.body.length):
            continue
        # curl takes "Name:" as the wish to leave the field out; "Name;" sends it empty.
        parts.append(f"--header {quote(f'{name}: {value}' if value else f'{name};')}")
    if request.body.length:
        parts.append(f"--data-raw {quote(_inline(request))}")
    return " \\\n  ".join(parts)


def _inline(request: Request) -> str:
    try:
        text = (request.body.data or b"").decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or len(text) > _MAX_INLINE:
        raise ValueError(
            f"a curl command holds text of up to {_MAX_INLINE} bytes: leave --curl out, and pipe the headers "
            "to `curl --header @- --data-binary @FILE URL`"
        )
    return text
