"""Those who block: one connection, one call after another."""

from __future__ import annotations

import http.client
import json
import socket
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.contenders.base import (
    BETWEEN_ROUNDS,
    FORM,
    PIECE,
    PREFIX,
    TIMEOUT,
    Contender,
    Missing,
    Target,
    agentrun_config,
    agentrun_options,
    answer_extent,
    count_events,
    file_size,
)
from benchmarks.contenders.raw import FORM_END, FORM_START, SENT_AT_ONCE, EventCounter


class Raw(Contender):
    """The limit: the same bytes over a socket with a timeout, nothing built; the JSON parsed."""

    name = "raw"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.socket = socket.create_connection(("127.0.0.1", target.port), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context := target.tls():
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.buffer = bytearray(SENT_AT_ONCE)
        self.view = memoryview(self.buffer)
        self.requests: dict[str, bytes] = {}
        self.extents: dict[str, tuple[int, int]] = {}

    def request(self, route: str) -> bytes:
        if route not in self.requests:
            self.requests[route] = self.request_bytes("GET", route, self.signed("GET", route))
        return self.requests[route]

    def json(self, route: str) -> Any:
        self.socket.sendall(self.request(route))
        start, end = self.receive(route)
        return json.loads(str(self.view[start:end], "utf-8"))

    def receive(self, route: str) -> tuple[int, int]:
        """Read one answer, whose extent is learnt from the first of its kind."""
        used = self.socket.recv_into(self.buffer)
        extent = self.extents.get(route)
        while extent is None or used < extent[1]:
            if extent is None and (extent := answer_extent(self.buffer[:used])):
                self.extents[route] = extent
                continue
            used += self.socket.recv_into(self.view[used:])
        return extent

    def events(self, route: str) -> int:
        self.socket.sendall(self.request(route))
        view = self.view[:PIECE]
        counter = EventCounter()
        while not counter.ended:
            counter.feed(view[: self.socket.recv_into(view)])
        return counter.count

    def download(self, route: str, save_path: str) -> None:
        self.socket.sendall(self.request(route))
        view = self.view[:PIECE]
        used = self.socket.recv_into(view)
        extent = answer_extent(self.buffer[:used])
        assert extent is not None
        start, end = extent
        with open(save_path, "wb", buffering=0) as file:
            file.write(view[start:used])
            left = end - used
            while left:
                used = self.socket.recv_into(view)
                file.write(view[:used])
                left -= used

    def upload(self, path: str) -> Any:
        return self.send_file("PUT", path, before=b"", after=b"")

    def multipart(self, path: str) -> Any:
        return self.send_file("POST", path, before=FORM_START, after=FORM_END)

    def send_file(self, method: str, path: str, *, before: bytes, after: bytes) -> Any:
        size = len(before) + file_size(path) + len(after)
        self.socket.sendall(
            self.request_bytes(method, "upload", self.signed(method, "upload"), size) + before
        )
        with open(path, "rb", buffering=0) as file:
            while used := file.readinto(self.buffer):
                self.socket.sendall(self.view[:used])
        self.socket.sendall(after)
        extent = answer_extent(self.buffer[: self.socket.recv_into(self.buffer)])
        assert extent is not None
        return json.loads(self.buffer[slice(*extent)])


class RawSigned(Raw):
    """The limit with a fresh signature on each request: the least that the work itself costs."""

    name = "raw, signed"

    def request(self, route: str) -> bytes:
        return self.request_bytes("GET", route, self.signed("GET", route))


class Ours(Contender):
    """This project's blocking client."""

    name = "agentrun-proto"
    needs = "agentrun-proto"
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.client = self.new_client()

    def new_client(self) -> Any:
        from agentrun_proto import Config
        from agentrun_transports import BlockingClient, Limits

        options = {**agentrun_options(self.target), **self.options}
        limits = Limits(idle=BETWEEN_ROUNDS)
        return BlockingClient(
            agentrun_config(self.target, Config), namespace="agents", limits=limits, **options
        )

    def json(self, route: str) -> Any:
        return self.client.get(route, query={"limit": 10})

    def events(self, route: str) -> int:
        count = 0
        with self.client.stream("GET", route, query={"limit": 10}) as stream:
            for event in stream.events():
                json.loads(event.data)
                count += 1
        return count

    def download(self, route: str, save_path: str) -> None:
        self.client.get_file(route, save_path)

    def upload(self, path: str) -> Any:
        raise Missing("sends a file as a part of a form only: see the section multipart")

    def multipart(self, path: str) -> Any:
        return self.client.post_file("upload", path, FORM["path"])


class OursHttpcore(Ours):
    """This project's blocking client over httpcore: what proxies and HTTP/2 cost."""

    name = "agentrun-proto httpcore"
    options: ClassVar[dict[str, Any]] = {"transport": "httpcore"}


class OursDocumented(Ours):
    """This project's `DataAPI`, the documented face."""

    name = "agentrun-proto DataAPI"

    def new_client(self) -> Any:
        from agentrun_proto import Config
        from agentrun_transports import DataAPI, ResourceType

        options = {**agentrun_options(self.target), "config": agentrun_config(self.target, Config)}
        return DataAPI("benchmark", ResourceType.Sandbox, namespace="agents", **options)


class Official(Ours):
    """The official client of the service; it makes a new HTTP client for each call."""

    name = "agentrun-sdk"
    needs = "agentrun-sdk"

    def new_client(self) -> Any:
        from agentrun.utils.config import Config
        from agentrun.utils.data_api import DataAPI, ResourceType

        config = agentrun_config(self.target, Config)
        return DataAPI("benchmark", ResourceType.Sandbox, config=config, namespace="agents")


class HttpClient(Contender):
    """The standard library's http.client, its connection kept."""

    name = "http.client"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        if context := target.tls():
            self.connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", target.port, timeout=TIMEOUT, context=context
            )
        else:
            self.connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=TIMEOUT)

    def json(self, route: str) -> Any:
        self.connection.request("GET", f"{PREFIX}{route}?limit=10", headers=self.signed("GET", route))
        return json.loads(self.connection.getresponse().read())

    def events(self, route: str) -> int:
        self.connection.request("GET", f"{PREFIX}{route}?limit=10", headers=self.signed("GET", route))
        return count_events(self.connection.getresponse(), b"data:")

    def download(self, route: str, save_path: str) -> None:
        self.connection.request("GET", f"{PREFIX}{route}?limit=10", headers=self.signed("GET", route))
        response = self.connection.getresponse()
        with open(save_path, "wb") as file:
            while piece := response.read(PIECE):
                file.write(piece)

    def upload(self, path: str) -> Any:
        headers = {**self.signed("PUT", "upload"), "Content-Length": str(file_size(path))}
        with open(path, "rb") as file:
            self.connection.request("PUT", f"{PREFIX}upload?limit=10", body=file, headers=headers)
        return json.loads(self.connection.getresponse().read())


def urllib3_itself() -> None:
    """Raise Missing where urllib3-future, which niquests brings, has been installed over urllib3."""
    from urllib3._version import __version__ as imported

    if imported != metadata.version("urllib3"):
        raise Missing("urllib3-future stands in urllib3's place; install niquests elsewhere: see --python")


class Urllib3(Contender):
    """urllib3's PoolManager."""

    name = "urllib3"
    needs = "urllib3"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        import urllib3

        urllib3_itself()
        self.pool = urllib3.PoolManager(timeout=TIMEOUT, ssl_context=target.tls())

    def json(self, route: str) -> Any:
        return self.pool.request("GET", self.url(route), headers=self.signed("GET", route)).json()

    def events(self, route: str) -> int:
        headers = self.signed("GET", route)
        response = self.pool.request("GET", self.url(route), headers=headers, preload_content=False)
        count = count_events(response, b"data:")
        response.release_conn()
        return count

    def download(self, route: str, save_path: str) -> None:
        headers = self.signed("GET", route)
        response = self.pool.request("GET", self.url(route), headers=headers, preload_content=False)
        with open(save_path, "wb") as file:
            for piece in response.stream(PIECE):
                file.write(piece)
        response.release_conn()

    def upload(self, path: str) -> Any:
        headers = {**self.signed("PUT", "upload"), "Content-Length": str(file_size(path))}
        with open(path, "rb") as file:
            return self.pool.request("PUT", self.url("upload"), body=file, headers=headers).json()

    def multipart(self, path: str) -> Any:
        with open(path, "rb") as file:
            fields: Any = {**FORM, "file": ("upload.bin", file.read())}
        return self.pool.request(
            "POST", self.url("upload"), fields=fields, headers=self.signed("POST", "upload")
        ).json()


class Urllib3Plain(Urllib3):
    """urllib3 without a signature: what a signed call of ours may cost at most."""

    name = "urllib3 plain"

    def json(self, route: str) -> Any:
        return self.pool.request("GET", self.url("open")).json()


class Requests(Contender):
    """A requests Session."""

    name = "requests"
    needs = "requests"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.session = self.new_session()
        self.session.verify = target.ca_file or True

    def new_session(self) -> Any:
        import requests

        urllib3_itself()
        return requests.Session()

    def json(self, route: str) -> Any:
        return self.session.get(self.url(route), headers=self.signed("GET", route), timeout=TIMEOUT).json()

    def events(self, route: str) -> int:
        headers = self.signed("GET", route)
        response = self.session.get(self.url(route), headers=headers, timeout=TIMEOUT, stream=True)
        return count_events(response.iter_lines(PIECE), b"data:")

    def download(self, route: str, save_path: str) -> None:
        headers = self.signed("GET", route)
        response = self.session.get(self.url(route), headers=headers, timeout=TIMEOUT, stream=True)
        with open(save_path, "wb") as file:
            for piece in response.iter_content(PIECE):
                file.write(piece)

    def upload(self, path: str) -> Any:
        headers = self.signed("PUT", "upload")
        with open(path, "rb") as file:
            return self.session.put(self.url("upload"), data=file, headers=headers, timeout=TIMEOUT).json()

    def multipart(self, path: str) -> Any:
        headers = self.signed("POST", "upload")
        with open(path, "rb") as file:
            return self.session.post(
                self.url("upload"), data=FORM, files={"file": file}, headers=headers, timeout=TIMEOUT
            ).json()


class Niquests(Requests):
    """A niquests Session: requests' interface over urllib3-future."""

    name = "niquests"
    needs = "niquests"

    def new_session(self) -> Any:
        import niquests

        return niquests.Session()


class Httpx(Contender):
    """An httpx Client, kept."""

    name = "httpx"
    needs = "httpx"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        import httpx

        limits = httpx.Limits(keepalive_expiry=None)
        self.client = httpx.Client(verify=target.tls() or True, timeout=TIMEOUT, limits=limits)

    def json(self, route: str) -> Any:
        return self.client.get(self.url(route), headers=self.signed("GET", route)).json()

    def events(self, route: str) -> int:
        with self.client.stream("GET", self.url(route), headers=self.signed("GET", route)) as response:
            return count_events(response.iter_lines(), "data:")

    def download(self, route: str, save_path: str) -> None:
        headers = self.signed("GET", route)
        with (
            self.client.stream("GET", self.url(route), headers=headers) as response,
            open(save_path, "wb") as file,
        ):
            for piece in response.iter_bytes():
                file.write(piece)

    def upload(self, path: str) -> Any:
        headers = self.signed("PUT", "upload")
        with open(path, "rb") as file:
            return self.client.put(self.url("upload"), content=file, headers=headers).json()

    def multipart(self, path: str) -> Any:
        headers = self.signed("POST", "upload")
        with open(path, "rb") as file:
            return self.client.post(
                self.url("upload"), data=FORM, files={"file": file}, headers=headers
            ).json()


class Httpcore(Contender):
    """An httpcore ConnectionPool."""

    name = "httpcore"
    needs = "httpcore"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        import httpcore

        self.pool = httpcore.ConnectionPool(ssl_context=target.tls())
        self.extensions = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT)}

    def json(self, route: str) -> Any:
        headers = list(self.signed("GET", route).items())
        response = self.pool.request("GET", self.url(route), headers=headers, extensions=self.extensions)
        return json.loads(response.content)

    def download(self, route: str, save_path: str) -> None:
        headers = list(self.signed("GET", route).items())
        with (
            self.pool.stream("GET", self.url(route), headers=headers, extensions=self.extensions) as response,
            open(save_path, "wb") as file,
        ):
            for piece in response.iter_stream():
                file.write(piece)

    def upload(self, path: str) -> Any:
        headers = [*self.signed("PUT", "upload").items(), ("Content-Length", str(file_size(path)))]
        with open(path, "rb") as file:
            pieces = iter(lambda: file.read(PIECE), b"")
            response = self.pool.request(
                "PUT", self.url("upload"), headers=headers, content=pieces, extensions=self.extensions
            )
        return json.loads(response.content)


class Pyreqwest(Contender):
    """pyreqwest: reqwest, in Rust; its threads' time counts too."""

    name = "pyreqwest"
    needs = "pyreqwest"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        from pyreqwest.client import SyncClientBuilder

        builder_class: Any = SyncClientBuilder
        builder = builder_class().timeout(timedelta(seconds=TIMEOUT))
        if target.ca_file:
            builder = builder.add_root_certificate_pem(Path(target.ca_file).read_bytes())
        self.client = builder.build()

    def json(self, route: str) -> Any:
        return self.client.get(self.url(route)).headers(self.signed("GET", route)).build().send().json()

    def download(self, route: str, save_path: str) -> None:
        request = self.client.get(self.url(route)).headers(self.signed("GET", route)).build_streamed()
        with request as response, open(save_path, "wb") as file:
            while piece := response.body_reader.read_chunk():
                file.write(piece)


class Pycurl(Contender):
    """pycurl: libcurl, its handle kept."""

    name = "pycurl"
    needs = "pycurl"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        import pycurl

        self.curl = pycurl.Curl()
        self.curl.setopt(pycurl.TIMEOUT, int(TIMEOUT))
        if target.ca_file:
            self.curl.setopt(pycurl.CAINFO, target.ca_file)
        self.url_option, self.header_option = pycurl.URL, pycurl.HTTPHEADER

    def json(self, route: str) -> Any:
        headers = [f"{name}: {value}" for name, value in self.signed("GET", route).items()]
        self.curl.setopt(self.url_option, self.url(route))
        self.curl.setopt(self.header_option, headers)
        return json.loads(self.curl.perform_rb())


CONTENDERS: tuple[type[Contender], ...] = (
    Raw,
    RawSigned,
    Ours,
    OursDocumented,
    OursHttpcore,
    Official,
    HttpClient,
    Urllib3,
    Urllib3Plain,
    Httpcore,
    Httpx,
    Requests,
    Niquests,
    Pyreqwest,
    Pycurl,
)
