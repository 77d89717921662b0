"""The credential of the request that a program is serving, as the clients use it."""

from agentrun_proto import Config
from agentrun_transports import BlockingClient
from agentrun_transports.credentials import request_credentials
from agentrun_transports.testing import ScriptedServer


def test_it_is_over_the_clients_own_credential_and_beneath_a_calls():
    with ScriptedServer() as server:
        config = Config(data_endpoint=server.url, token="of-the-client")
        with BlockingClient(config) as client:
            triple = {
                "X-Fc-Access-Key-Id": "of-the-request",
                "x-fc-access-key-secret": "s",
                "x-fc-security-token": "t",
            }
            with request_credentials(triple):
                client.get("a")
                client.get("b", config=Config(token="of-the-call"))
            client.get("c")
    first, second, third = [request.head for request in server.requests]
    assert b"Credential=of-the-request/" in first
    assert b"Agentrun-Access-Token" not in first
    assert b"Agentrun-Access-Token: of-the-call\r\n" in second
    assert b"Agentrun-Access-Token: of-the-client\r\n" in third
