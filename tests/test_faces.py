"""The clients offer the same: what one has, the others have, with the same parameters."""

import inspect

import pytest

from agentrun_transports import AsyncioClient, BlockingClient, DataAPI, TrioClient

METHODS = ("request", "get", "post", "put", "patch", "delete", "post_file", "get_file", "get_video")


@pytest.mark.parametrize("name", [*METHODS, "upload", "download"])
@pytest.mark.parametrize("client", [AsyncioClient, TrioClient])
def test_native_clients_offer_what_the_blocking_one_does(client, name):
    blocking, native = getattr(BlockingClient, name), getattr(client, name)
    assert inspect.signature(native).parameters == inspect.signature(blocking).parameters
    assert inspect.iscoroutinefunction(native)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_of_data_api_has_its_async_twin(name):
    sync, twin = getattr(DataAPI, name), getattr(DataAPI, f"{name}_async")
    assert inspect.signature(twin).parameters == inspect.signature(sync).parameters
    assert inspect.signature(twin).return_annotation == inspect.signature(sync).return_annotation
    assert inspect.iscoroutinefunction(twin)
