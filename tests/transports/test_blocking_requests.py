"""HOSTILE's "Requests" where a socket shows it: what cannot be sent is refused before anything is opened."""

from __future__ import annotations

import pytest

from agentrun_proto import Config
from transports_support import DRIVERS, RawServer, assert_next_call_is_right


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request):
    return request.param


# Not an Enum, which compares its values: text with bytes.
REFUSED = {
    "crlf_in_path": ("a\r\nX: 1", {}),
    "lf_in_path": ("a\nb", {}),
    "nul_in_path": ("a\0b", {}),
    "crlf_in_path_query": ("a?b=\r\nX: 1", {}),
    "crlf_in_header": ("a", {"headers": {"X-A": "1\r\nX-B: 2"}}),
    "lf_in_header": ("a", {"headers": {"X-A": "1\n"}}),
    "cr_in_header": ("a", {"headers": {"X-A": "1\r"}}),
    "nul_in_header": ("a", {"headers": {"X-A": "\0"}}),
    "crlf_in_header_name": ("a", {"headers": {"X-A\r\nB": "1"}}),
    "colon_in_header_name": ("a", {"headers": {"X-A: 1\r\nB": "1"}}),
    "empty_header_name": ("a", {"headers": {"": "1"}}),
    "header_is_no_text": ("a", {"headers": {"X-A": 1}}),
    "header_is_bytes": ("a", {"headers": {"X-A": b"1"}}),
    "header_beyond_latin1": ("a", {"headers": {"X-A": "中"}}),
    "content_length": ("a", {"headers": {"content-length": "5"}}),
    "transfer_encoding": ("a", {"headers": {"Transfer-Encoding": "chunked"}}),
    "host": ("a", {"headers": {"HOST": "evil"}}),
    "dot": ("a/./b", {}),
    "dot_dot": ("../b", {}),
    "dot_dot_encoded": ("a/%2e%2E/b", {}),
    "dot_dot_half_encoded": ("a/.%2e", {}),
    "absolute_url": ("http://evil/a", {}),
    "fragment": ("a#b", {}),
    "lone_surrogate": ("a\ud800", {}),
    "query_dict": ("a", {"query": {"a": {}}}),
    "query_bytes": ("a", {"query": {"a": b""}}),
    "query_nan": ("a", {"query": {"a": float("nan")}}),
    "query_surrogate": ("a", {"query": {"a": "\ud800"}}),
    "query_name": ("a", {"query": {1: "a"}}),
    "body_nan": ("a", {"data": {"x": float("nan")}}),
    "body_object": ("a", {"data": {"x": object()}}),
    "body_set": ("a", {"data": {1, 2}}),
    "body_surrogate": ("a", {"data": "\ud800"}),
    "path_is_bytes": (b"a", {}),
    "path_is_none": (None, {}),
}


@pytest.mark.hostile(
    "requests-injection", "requests-dot-segments", "requests-fragment", "requests-headers", "requests-bodies"
)
@pytest.mark.parametrize("case", REFUSED)
def test_nothing_is_sent(driver, case):
    path, arguments = REFUSED[case]
    method = "POST" if "data" in arguments else "GET"
    with RawServer() as server, driver.client(server.config()) as client:
        with pytest.raises((ValueError, TypeError)):
            client.call(method, path, **arguments)
        assert server.connections == 0
        assert_next_call_is_right(client)


@pytest.mark.hostile("requests-other-host")
@pytest.mark.parametrize("path", ["//evil/a", "/\\evil/a", "user@evil/a", ":80/a", "///a", "@evil"])
def test_the_host_never_changes(driver, path):
    with RawServer() as server, driver.client(server.config()) as client:
        client.call("GET", path)
        (request,) = server.requests
        assert dict(request.lines)["Host"] == f"127.0.0.1:{server.port}"
        assert request.target.startswith("/2025-09-10/agents/")


@pytest.mark.hostile("requests-query-shapes")
def test_a_query_of_30_kb(driver):
    with RawServer() as server, driver.client(server.config()) as client:
        found = client.call("GET", "a", query={"q": "x" * 30_000})
        assert found["target"].endswith("?q=" + "x" * 30_000)


@pytest.mark.hostile("requests-bodies")
@pytest.mark.parametrize(
    ("data", "body", "media_type"),
    [
        ({"a": 1}, b'{"a":1}', "application/json"),
        ([1, 2], b"[1,2]", "application/json"),
        ("text", b"text", "application/json"),
        (b"\0\xff", b"\0\xff", "application/octet-stream"),
        (None, b"", None),
        ({}, b"{}", "application/json"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_what_a_body_is_sent_as(driver, method, data, body, media_type):
    with RawServer() as server, driver.client(server.config()) as client:
        client.call(method, "a", data=data)
        (request,) = server.requests
        fields = {name.lower(): value for name, value in request.lines}
        assert len(fields) == len(request.lines), "a field went out twice"
        assert (request.method, request.body) == (method, body)
        assert fields.get("content-type") == media_type
        assert fields["content-length"] == str(len(body))


@pytest.mark.hostile("requests-headers")
@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_one_content_type(driver, name):
    with RawServer() as server, driver.client(server.config()) as client:
        client.call("POST", "a", data="<a/>", headers={name: "text/xml"})
        found = [value for key, value in server.requests[0].lines if key.lower() == "content-type"]
        assert found == ["text/xml"]


@pytest.mark.parametrize("size", [0, 1, 65_000, 65_536, 65_537, 262_144, 262_145, 5_000_000])
def test_bodies_of_all_sizes_arrive(driver, size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with RawServer() as server, driver.client(server.config()) as client:
        client.call("POST", "a", data=data)
        assert server.requests[0].body == data
        assert_next_call_is_right(client)
        assert server.connections == 1


def test_a_long_account_id_is_an_error_and_not_a_foreign_one(driver):
    """63 letters and '-ram' make a label that no resolver takes: a documented error says so."""
    from agentrun_proto import AgentRunClientError

    config = Config(account_id="a" * 63, access_key_id="i", access_key_secret="s", timeout=5)
    with pytest.raises((AgentRunClientError, ValueError)) as caught, driver.client(config) as client:
        client.call("GET", "a")
    assert not isinstance(caught.value, UnicodeError)


@pytest.mark.parametrize("seconds", [10**7, 10**9, 10**10, 1e300, float("inf")])
def test_a_very_long_timeout_is_a_timeout(driver, seconds):
    """More than a socket's timer holds (2**31 ms, 24.8 days) is no error of the caller's."""
    from agentrun_proto import Timeout

    for timeout in (
        seconds,
        Timeout(total=seconds, connect=seconds, read=seconds, write=seconds, pool=seconds),
    ):
        with RawServer() as server, driver.client(server.config(timeout=timeout)) as client:
            assert_next_call_is_right(client)
            assert client.call("POST", "a", data=bytes(70_000))["target"]
