"""The clients offer the same: what one has, the others have, with the same parameters."""

import inspect

import pytest

from agentrun_transports import AsyncioClient, BlockingClient, DataAPI, TrioClient
from agentrun_transports._faces import SyncFace

METHODS = [name for name, _ in inspect.getmembers(SyncFace, inspect.isfunction) if not name.startswith("_")]
STREAMS = ("stream", "invoke_stream", "stream_invocation")  # awaited where they are entered


@pytest.mark.parametrize("name", [*METHODS, "upload", "download"])
@pytest.mark.parametrize("client", [AsyncioClient, TrioClient])
def test_native_clients_offer_what_the_blocking_one_does(client, name):
    blocking, native = getattr(BlockingClient, name), getattr(client, name)
    assert inspect.signature(native).parameters == inspect.signature(blocking).parameters
    assert inspect.iscoroutinefunction(native) == (name not in STREAMS)


def test_the_methods_are_found():
    assert {"request", "get", "get_video", *STREAMS} < set(METHODS)
    assert len(METHODS) >= 15


@pytest.mark.parametrize("name", METHODS)
def test_each_method_of_data_api_has_its_async_twin(name):
    sync, twin = getattr(DataAPI, name), getattr(DataAPI, f"{name}_async")
    assert inspect.signature(twin).parameters == inspect.signature(sync).parameters
    returned = inspect.signature(sync).return_annotation
    assert inspect.signature(twin).return_annotation == (f"Async{returned}" if name in STREAMS else returned)
    assert inspect.iscoroutinefunction(twin) == (name not in STREAMS)
