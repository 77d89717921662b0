"""Transports for the AgentRun protocol core, and on top of them `DataAPI`, the documented client."""

from typing import TYPE_CHECKING, Any

from ._blocking_call import BlockingCallWarning
from ._blocking_client import BlockingClient
from ._codings import offer_what_is_installed
from ._pool import Limits
from ._proxies import Proxies
from ._streams import AsyncStream, Stream
from ._tls import TLS
from .data_api import AgentRunDataClient, DataAPI, ResourceType

if TYPE_CHECKING:
    from ._asyncio import AsyncioClient
    from ._trio import TrioClient

__all__ = [
    "TLS",
    "AgentRunDataClient",
    "AsyncStream",
    "AsyncioClient",
    "BlockingCallWarning",
    "BlockingClient",
    "DataAPI",
    "Limits",
    "Proxies",
    "ResourceType",
    "Stream",
    "TrioClient",
]

offer_what_is_installed()


def __getattr__(name: str) -> Any:
    # Neither loop is imported before it is used.
    if name == "AsyncioClient":
        from ._asyncio import AsyncioClient

        return AsyncioClient
    if name == "TrioClient":
        from ._trio import TrioClient

        return TrioClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
