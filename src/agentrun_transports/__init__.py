"""Transports for the AgentRun protocol core, and on top of them `DataAPI`, the documented client."""

from ._blocking import BlockingClient
from ._pool import Limits
from ._tls import TLS
from .data_api import AgentRunDataClient, DataAPI, ResourceType

__all__ = ["TLS", "AgentRunDataClient", "BlockingClient", "DataAPI", "Limits", "ResourceType"]
