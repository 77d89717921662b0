"""What is measured: one row for each section.

A section is an operation, on a kind of loop, with so many calls in flight; everyone who offers the operation
on that loop takes part. `limit` is whom the work cannot beat, `peers` are whom ratios are shown to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table of the output.

    `operation` is the contender's method. `route` is what it asks the server for ("" for none); `{mib}` in it
    is replaced by the size of a transfer, `{events}` by how many events there are. `without` names who is
    left out on purpose, and why. `transfer` marks whole files: one call is one round, and memory counts.
    `tls`: whether it is the TLS server that answers. `quick`: whether `--quick` includes it.
    """

    name: str
    title: str
    loop: str
    operation: str
    route: str = ""
    in_flight: int = 1
    limit: str = "raw"
    peers: tuple[str, ...] = ()
    without: Mapping[str, str] = field(default_factory=dict[str, str])
    transfer: bool = False
    tls: bool = False
    unit: str = "µs"
    quick: bool = True


BLOCKING_PEERS = ("urllib3", "urllib3 plain", "httpx", "agentrun-sdk")
ASYNCIO_PEERS = ("aiohttp", "httpx", "httpcore")
TRIO_PEERS = ("httpcore", "httpx")
SIGNED_ONCE = {
    "raw, signed": "one signature does not show beside what is long: the same as raw",
    "urllib3 plain": "one signature does not show beside what is long: the same as urllib3",
}
NO_AUTHORITY = {"agentrun-sdk": "it cannot be told whom to trust, and makes a new connection for each call"}
NEW_CLIENT_PER_CALL = {"agentrun-sdk": "tens of milliseconds for each call, however many: see 32 in flight"}


def _small_json(loop: str, in_flight: int, peers: tuple[str, ...]) -> Section:
    return Section(
        name=f"json-{loop}-{in_flight}",
        title=f"Signed GET of 200 bytes of JSON, {loop}, {in_flight} in flight",
        loop=loop,
        operation="json",
        route="small",
        in_flight=in_flight,
        peers=peers,
        without=NEW_CLIENT_PER_CALL if in_flight > 32 else {},
        quick=in_flight == 32,
    )


def _tls(loop: str, in_flight: int, peers: tuple[str, ...]) -> Section:
    count = f"{in_flight} in flight" if loop != "blocking" else "one after another"
    return Section(
        name=f"json-tls-{loop}" if loop == "blocking" else f"json-tls-{loop}-{in_flight}",
        title=f"Signed GET of 200 bytes of JSON under TLS, {loop}, {count}",
        loop=loop,
        operation="json",
        route="small",
        in_flight=in_flight,
        peers=peers,
        without=NO_AUTHORITY,
        tls=True,
        quick=loop == "asyncio",
    )


def _events(loop: str, peers: tuple[str, ...]) -> Section:
    return Section(
        name=f"events-{loop}",
        title=f"Reading {{events:,}} server-sent events, the JSON of each parsed, {loop}",
        loop=loop,
        operation="events",
        route="events-{events}",
        peers=peers,
        without=SIGNED_ONCE,
        unit="ms",
        quick=loop != "trio",
    )


def _transfers(loop: str, peers: tuple[str, ...]) -> tuple[Section, Section]:
    """Return the two transfers that all loops have. Those on a loop are named after it."""
    suffix = "" if loop == "blocking" else f"-{loop}"
    download = Section(
        name=f"download{suffix}",
        title=f"Download of {{mib}} MiB to a file, {loop}",
        loop=loop,
        operation="download",
        route="download-{mib}",
        peers=peers,
        without=SIGNED_ONCE,
        transfer=True,
        unit="ms",
        quick=loop != "trio",
    )
    multipart = Section(
        name=f"multipart{suffix}",
        title=f"Multipart upload of a file of {{mib}} MiB, {loop}",
        loop=loop,
        operation="multipart",
        peers=peers,
        without=SIGNED_ONCE,
        transfer=True,
        unit="ms",
        quick=loop != "trio",
    )
    return download, multipart


SECTIONS: tuple[Section, ...] = (
    Section(
        name="json-blocking",
        title="Signed GET of 200 bytes of JSON, blocking, one after another",
        loop="blocking",
        operation="json",
        route="small",
        peers=BLOCKING_PEERS,
    ),
    *(_small_json("asyncio", in_flight, ASYNCIO_PEERS) for in_flight in (1, 32, 256, 1000)),
    *(_small_json("trio", in_flight, TRIO_PEERS) for in_flight in (1, 32, 256, 1000)),
    _tls("blocking", 1, BLOCKING_PEERS),
    _tls("asyncio", 32, ASYNCIO_PEERS),
    _tls("trio", 32, TRIO_PEERS),
    Section(
        name="large-json-blocking",
        title="Signed GET of 64 KiB of JSON, blocking, one after another",
        loop="blocking",
        operation="json",
        route="large",
        peers=BLOCKING_PEERS,
        without={"urllib3 plain": "the server answers large JSON to signed requests only"},
        quick=False,
    ),
    Section(
        name="large-json-asyncio-32",
        title="Signed GET of 64 KiB of JSON, asyncio, 32 in flight",
        loop="asyncio",
        operation="json",
        route="large",
        in_flight=32,
        peers=ASYNCIO_PEERS,
        quick=False,
    ),
    Section(
        name="build",
        title="Build and sign a request, no I/O (httpx and requests: unsigned)",
        loop="none",
        operation="build",
        peers=("httpx", "agentrun-sdk"),
    ),
    Section(
        name="decode",
        title="Decode an answer of 200 bytes, no I/O",
        loop="none",
        operation="decode",
        peers=("httpx",),
    ),
    _events("blocking", ("urllib3", "httpx")),
    _events("asyncio", ("aiohttp", "httpx")),
    _events("trio", ("httpx",)),
    *_transfers("blocking", ("urllib3", "httpx")),
    Section(
        name="upload",
        title="Upload of a file of {mib} MiB, blocking",
        loop="blocking",
        operation="upload",
        peers=("urllib3", "httpx"),
        without=SIGNED_ONCE,
        transfer=True,
        unit="ms",
        quick=False,
    ),
    *_transfers("asyncio", ("aiohttp", "httpx")),
    *_transfers("trio", ("httpx",)),
)
