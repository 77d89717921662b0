"""Those who need no server: building and signing a request, decoding an answer."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

from benchmarks.contenders.base import Contender, Target, agentrun_config

ANSWER = json.dumps({"code": "SUCCESS", "requestId": "5f0c9a4e", "data": {"padding": ""}})
BODY = ANSWER.replace('""', '"' + "x" * (200 - len(ANSWER)) + '"').encode()
HEADERS = [
    ("Date", "Fri, 06 Mar 2026 12:00:00 GMT"),
    ("Content-Type", "application/json"),
    ("Content-Length", "200"),
    ("Connection", "keep-alive"),
    ("Server", "benchmark"),
    ("X-Acs-Request-Id", "5f0c9a4e-1b7d-4c3f-9a35-0d9b6f1c2e44"),
    ("X-Fc-Instance", "c-65a1f3b2-1a2b3c4d5e6f"),
    ("Cache-Control", "no-store"),
]


class Raw(Contender):
    """The limit: the shared signer and a formatted head; json.loads."""

    name = "raw"

    def build(self) -> Any:
        return self.request_bytes("GET", "small", self.signed("GET", "small"))

    def decode(self) -> Any:
        return json.loads(BODY)


class Ours(Contender):
    """This project's core alone."""

    name = "agentrun-proto"
    needs = "agentrun-proto"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        from agentrun_proto import Config, DataEndpoint, Head, Headers

        self.endpoint: Any = DataEndpoint(agentrun_config(target, Config), namespace="agents")
        self.head: Any = partial(Head, status=200)
        self.headers: Any = partial(Headers.from_block, "".join([f"{n}: {v}\r\n" for n, v in HEADERS]))

    def build(self) -> Any:
        request = self.endpoint.request("GET", "small", query={"limit": 10})
        return self.endpoint.sign(request, now=time.time())

    def decode(self) -> Any:
        return self.endpoint.decode(self.head(headers=self.headers()), BODY)


class Official(Contender):
    """The official client's URL and signature."""

    name = "agentrun-sdk"
    needs = "agentrun-sdk"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        from agentrun.utils.config import Config
        from agentrun.utils.data_api import DataAPI, ResourceType

        config = agentrun_config(target, Config)
        self.api = DataAPI("benchmark", ResourceType.Sandbox, config=config, namespace="agents")

    def build(self) -> Any:
        return self.api.auth(self.api.with_path("small", {"limit": 10}))


class Httpx(Contender):
    """httpx's build_request, unsigned; its Response."""

    name = "httpx"
    needs = "httpx"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        import httpx

        self.client = httpx.Client()
        self.response_class = httpx.Response

    def build(self) -> Any:
        return self.client.build_request("GET", self.url("small"))

    def decode(self) -> Any:
        return self.response_class(200, headers=HEADERS, content=BODY).json()


class Requests(Contender):
    """requests' prepare_request, unsigned."""

    name = "requests"
    needs = "requests"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        import requests

        self.session = requests.Session()
        self.request_class = requests.Request

    def build(self) -> Any:
        return self.session.prepare_request(self.request_class("GET", self.url("small")))


CONTENDERS: tuple[type[Contender], ...] = (Raw, Ours, Official, Httpx, Requests)
