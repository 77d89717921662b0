"""What all contenders have in common: the target, the signature, the patience.

A contender offers any of these operations, as methods (coroutines on the asynchronous loops):

    json(route)                 GET, signed, the answer's JSON parsed and returned
    events(route)               GET, signed, the data of each server-sent event parsed; returns how many
    download(route, save_path)  GET, signed, the body saved to a file without holding it
    upload(path)                PUT of a file, signed; returns the answer's JSON
    multipart(path)             POST of a form with a field and a file, signed; returns the answer's JSON
    build(), decode()           without any I/O

It is made inside the process that measures it, on the loop that it is measured on.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, AnyStr, ClassVar

from benchmarks.signer import Signer

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

TIMEOUT = 30.0  # seconds; set everywhere, met never
BETWEEN_ROUNDS = 3600.0  # seconds that idle connections are kept, where that can be said
PREFIX = "/2025-09-10/agents/"
QUERY = {"limit": "10"}
KEY_ID = "benchmark-key-id"
SECRET = "benchmark-key-secret"
PIECE = 64 * 1024  # bytes read at a time, where a contender lets its caller choose
FORM = {"path": "/tmp/upload.bin"}

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Missing(Exception):
    """This contender cannot take part here; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the server is, how many connections the section needs, and whom to trust ("": no TLS)."""

    port: int
    in_flight: int
    ca_file: str = ""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def origin(self) -> str:
        return f"{'https' if self.ca_file else 'http'}://{self.host}"

    def tls(self) -> ssl.SSLContext | None:
        """Return what verifies the server's certificate; None where there is no TLS."""
        return ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None


class Contender:
    """One client of the field. `needs` is the distribution that it comes from, for naming its version."""

    name: ClassVar[str]
    needs: ClassVar[str | None] = None

    def __init__(self, target: Target) -> None:
        self.target = target
        self.signer = Signer(target.host, key_id=KEY_ID, secret=SECRET)

    def url(self, route: str) -> str:
        """Return the whole URL: the cheapest form that every client takes."""
        return f"{self.target.origin}{PREFIX}{route}?limit=10"

    def signed(self, method: str, route: str) -> dict[str, str]:
        """Return the header fields of the signature, computed afresh."""
        return self.signer.sign(method, PREFIX + route, QUERY)

    def request_bytes(
        self, method: str, route: str, signature: dict[str, str], content_length: int = 0
    ) -> bytes:
        """Return a whole request head, for those who speak to the socket themselves."""
        fields = "".join([f"{name}: {value}\r\n" for name, value in signature.items()])
        length = f"Content-Length: {content_length}\r\n" if content_length else ""
        return (
            f"{method} {PREFIX}{route}?limit=10 HTTP/1.1\r\nHost: {self.target.host}\r\n"
            f"Accept: application/json\r\nUser-Agent: benchmark\r\n{length}{fields}\r\n"
        ).encode()


def answer_extent(data: bytes | bytearray) -> tuple[int, int] | None:
    """Return where the body starts and ends in `data`, once the head has arrived."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = CONTENT_LENGTH.search(data, 0, end)
    if length is None:
        raise ValueError(f"no Content-Length in {bytes(data[:end])!r}")
    return end + 4, end + 4 + int(length[1])


def agentrun_config(target: Target, config_class: Any) -> Any:
    """Return an AgentRun client's configuration, ours or the official one: they share field names."""
    return config_class(
        account_id="1",
        region_id="cn-hangzhou",
        data_endpoint=target.origin,
        access_key_id=KEY_ID,
        access_key_secret=SECRET,
        timeout=TIMEOUT,
    )


def agentrun_options(target: Target) -> dict[str, Any]:
    """Return what our clients are told beside their configuration: whom to trust, where there is TLS."""
    from agentrun_transports import TLS

    return {"tls": TLS(ca_file=target.ca_file)} if target.ca_file else {}


def count_events(lines: Iterable[AnyStr], field: AnyStr) -> int:
    """Parse the events' data in `lines`, for a client that leaves that to its caller; return how many."""
    count = 0
    for line in lines:
        if line.startswith(field):
            json.loads(line[len(field) :])
            count += 1
    return count


async def count_events_async(lines: AsyncIterable[AnyStr], field: AnyStr) -> int:
    """Do as `count_events`, of lines that are awaited."""
    count = 0
    async for line in lines:
        if line.startswith(field):
            json.loads(line[len(field) :])
            count += 1
    return count


def file_size(path: str) -> int:
    """Return the size of a file, in bytes."""
    return os.stat(path).st_size
