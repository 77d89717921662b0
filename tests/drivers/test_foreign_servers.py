"""Against servers that are not ours: nginx, uvicorn, hypercorn, over TLS with an authority of our own.

Rules of this file: a server runs from a temporary folder, on a free port of 127.0.0.1, and is stopped by the
test that started it; where one is not installed, its tests are skipped and say so.
"""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading

import pytest
import trio

from agentrun_proto import AgentRunClientError, Config, IncompleteError, PayloadTooLargeError, Retry
from agentrun_transports import TLS, BlockingClient
from drivers_support import Authority, in_thread, native, run, session_of, turns

pytestmark = pytest.mark.once

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
DRIVERS = ("blocking", "asyncio", "trio")

# One application for both ASGI servers: what a client has to cope with, by path.
APPLICATION = """
import json

async def read(receive):
    size = 0
    while True:
        event = await receive()
        size += len(event.get("body", b""))
        if not event.get("more_body"):
            return size

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    path, query = scope["path"].rpartition("/")[2], scope["query_string"].decode()
    async def head(*fields):
        await send({"type": "http.response.start", "status": 200, "headers": list(fields)})
    async def body(data, more=False):
        await send({"type": "http.response.body", "body": data, "more_body": more})
    if path == "early":
        await head((b"content-length", b"2"), (b"connection", b"close"))
        await body(b"{}")
        return
    size = await read(receive)
    if path == "chunked":
        await head((b"content-type", b"application/octet-stream"))
        for number in range(50):
            await body(bytes([number]) * 10_000, more=True)
        await body(b"")
        return
    if path == "cut":
        await head((b"content-length", b"1000"))
        await body(b"x" * 10, more=True)
        raise RuntimeError("the application fails amid its answer")
    content = json.dumps({"port": scope["client"][1], "size": size, "query": query}).encode()
    fields = [(b"content-length", b"%d" % len(content))]
    if path == "close":
        fields.append((b"connection", b"close"))
    await head(*fields)
    await body(content)
"""

CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off; default_type application/octet-stream;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    client_max_body_size 1m; keepalive_timeout {idle}; keepalive_requests {requests};
    server {{
        listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl;
        ssl_certificate {cert}; ssl_certificate_key {key};
        location /2025-09-10/agents/file {{ alias {folder}/content; }}
        location /2025-09-10/agents/gone {{ return 444; }}
        location /2025-09-10/agents/json {{
            default_type application/json; return 200 '{{"port": $remote_port, "n": "$arg_n"}}';
        }}
        location /2025-09-10/agents/moved {{ return 302 /2025-09-10/agents/json?n=moved; }}
        location /2025-09-10/agents/wrong {{ return 502; }}
        location /2025-09-10/agents/upload {{ proxy_pass http://127.0.0.1:{plain}/2025-09-10/agents/json; }}
        location /2025-09-10/agents/zipped {{
            gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;
            default_type application/json; alias {folder}/big.json;
        }}
    }}
}}
"""


@contextlib.contextmanager
def kept_ports(count):
    """Free ports, kept from whoever takes any: bound, and not listening, which a server may do beside it."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
        yield [sock.getsockname()[1] for sock in socks]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


class Server:
    """A server's process, ready to be asked."""

    def __init__(self, command, ports, log, **options):
        self.ports = ports
        with log.open("wb") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **options)
        for port in ports:
            self._await(port, log)

    def _await(self, port, log):
        waiting = threading.Event()
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            assert self._process.poll() is None, log.read_text()
            waiting.wait(0.05)
        raise AssertionError(f"it does not listen: {log.read_text()}")

    def close(self):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


@contextlib.contextmanager
def nginx(folder, authority, *, idle="75s", requests=1000):
    (folder / "content").write_bytes(bytes(range(256)) * 4096)
    (folder / "big.json").write_text('{"filler": "' + "x" * 100_000 + '"}')
    os.chmod(folder, 0o755)
    with kept_ports(2) as (plain, tls):
        (folder / "nginx.conf").write_text(
            CONFIGURATION.format(
                folder=folder,
                plain=plain,
                tls=tls,
                cert=authority.cert_file,
                key=authority.key_file,
                idle=idle,
                requests=requests,
            )
        )
        options = ["-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
        server = Server([NGINX, *options], (plain, tls), folder / "output.log")
        try:
            yield server
        finally:
            server.close()


@pytest.fixture(scope="module")
def web(tmp_path_factory, authority):
    if NGINX is None:
        pytest.skip("nginx is not installed")
    with nginx(tmp_path_factory.mktemp("nginx"), authority) as server:
        yield server


@pytest.fixture(scope="module", params=["uvicorn", "hypercorn"])
def asgi(request, tmp_path_factory, authority):
    name = request.param
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    folder = tmp_path_factory.mktemp(name)
    (folder / "application.py").write_text(APPLICATION)
    cert, key = authority.cert_file, authority.key_file
    with kept_ports(1) as (port,):
        options = {
            "uvicorn": f"--host 127.0.0.1 --port {port} --ssl-certfile {cert} --ssl-keyfile {key}",
            "hypercorn": f"--bind 127.0.0.1:{port} --certfile {cert} --keyfile {key}",
        }[name].split()
        command = [sys.executable, "-m", name, "application:application", *options]
        server = Server(command, (port,), folder / "log", cwd=folder)
        yield server
        server.close()


class Client:
    """The same methods on each driver; awaited where that is needed."""

    def __init__(self, driver, config, tls):
        self.driver = driver
        self._client = (BlockingClient if driver == "blocking" else native(driver))(config, tls=tls)

    def __getattr__(self, name):
        return getattr(self._client, {"upload": "post_file", "download": "get_file"}.get(name, name))

    def pool(self):
        return self._client._session.pool if self.driver == "blocking" else session_of(self._client).pool


def converse(driver, port, authority, conversation, *, scheme="https", **settings):
    """Runs a conversation, an async function, on a driver; blocking calls are made in it as they are."""
    config = Config(
        **{
            "data_endpoint": f"{scheme}://127.0.0.1:{port}",
            "timeout": 30.0,
            "retry": Retry.never(),
            **settings,
        }
    )

    async def main():
        client = Client(driver, config, TLS(ca_file=authority.ca_file))

        async def ask(name, *args, **kwargs):
            if driver == "blocking":
                return getattr(client, name)(*args, **kwargs)
            return await getattr(client, name)(*args, **kwargs)

        client.ask = ask
        result = await conversation(client)
        assert client.pool().open == len(client.pool().idle)
        if driver == "blocking":
            client.close()
        return result

    if driver != "blocking":
        return run(driver, main)
    try:
        main().send(None)  # nothing is awaited in it, and no loop runs
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits for a loop")


# --- nginx


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_nginx_one_connection_serves_many_requests(driver, scheme, web, authority):
    async def conversation(client):
        answers = [await client.ask("get", "json", {"n": number}) for number in range(20)]
        assert [answer["n"] for answer in answers] == [str(number) for number in range(20)]
        assert len({answer["port"] for answer in answers}) == 1

    converse(driver, web.ports[scheme == "https"], authority, conversation, scheme=scheme)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_nginx_download(driver, scheme, web, authority, tmp_path):
    async def conversation(client):
        saved = await client.ask("download", "file", tmp_path / "saved")
        assert saved["size"] == 1 << 20
        assert (tmp_path / "saved").read_bytes() == bytes(range(256)) * 4096
        first = await client.ask("get", "json")
        assert (await client.ask("get", "json")) == first

    converse(driver, web.ports[scheme == "https"], authority, conversation, scheme=scheme)


@pytest.mark.parametrize("driver", DRIVERS)
def test_nginx_gzip_chunked(driver, web, authority):
    async def conversation(client):
        got = await client.ask("get", "zipped", headers={"Accept-Encoding": "gzip"})
        assert len(got["filler"]) == 100_000
        assert (await client.ask("get", "json", {"n": 1}))["n"] == "1"

    converse(driver, web.ports[1], authority, conversation)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("size", [1_100_000, 40_000_000])
@pytest.mark.parametrize("driver", DRIVERS)
def test_nginx_client_max_body_size(driver, size, scheme, web, authority, tmp_path):
    """nginx answers 413 at once and closes: it shows as 413, not as a broken pipe."""
    with open(tmp_path / "local", "wb") as file:
        file.truncate(size)

    async def conversation(client):
        with pytest.raises(PayloadTooLargeError) as caught:
            await client.ask("upload", "upload", tmp_path / "local", "/x")
        assert caught.value.status_code == 413
        assert (await client.ask("get", "json", {"n": 1}))["n"] == "1"

    converse(driver, web.ports[scheme == "https"], authority, conversation, scheme=scheme)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_nginx_closes_without_a_word(driver, scheme, web, authority):
    async def conversation(client):
        with pytest.raises(IncompleteError):
            await client.ask("post", "gone", {})
        with pytest.raises(AgentRunClientError):
            await client.ask("get", "gone")
        assert (await client.ask("get", "json", {"n": 1}))["n"] == "1"

    converse(driver, web.ports[scheme == "https"], authority, conversation, scheme=scheme)


@pytest.mark.parametrize(("path", "status"), [("wrong", 502), ("none", 404)])
@pytest.mark.parametrize("driver", DRIVERS)
def test_nginx_pages_in_html_are_refusals(driver, path, status, web, authority):
    async def conversation(client):
        with pytest.raises(AgentRunClientError) as caught:
            await client.ask("get", path)
        assert caught.value.status_code == status
        assert (await client.ask("get", "json", {"n": 1}))["n"] == "1"

    converse(driver, web.ports[1], authority, conversation)


@pytest.mark.parametrize("driver", DRIVERS)
def test_nginx_redirects_are_followed(driver, web, authority):
    """nginx makes the location absolute, with the Host that it was sent: the origin is the same."""

    async def conversation(client):
        assert (await client.ask("get", "moved"))["n"] == "moved"
        with pytest.raises(AgentRunClientError) as caught:
            await client.ask("post", "moved", {})
        assert caught.value.status_code == 302

    converse(driver, web.ports[1], authority, conversation)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_nginx_closes_idle_connections(driver, scheme, authority, tmp_path):
    """After keepalive_timeout it closes what is idle: the next POST goes out on a new connection."""

    async def conversation(client):
        first = await client.ask("get", "json")
        await client.ask("download", "file", tmp_path / "saved")
        (link,) = client.pool().idle
        if driver == "blocking":
            await_end(link)
        else:
            await in_thread(driver, await_end, link)
            await turns(driver, 20)
        second = await client.ask("post", "json", {})
        assert second["port"] != first["port"]

    with nginx(tmp_path, authority, idle="200ms") as server:
        converse(driver, server.ports[scheme == "https"], authority, conversation, scheme=scheme)


def await_end(link):
    """Until the kernel knows that the peer has closed; nothing is read."""
    import select

    if hasattr(link, "_transport"):
        number = link._transport.get_extra_info("socket").fileno()
    else:
        number = getattr(link, "_sock", None) or link._socket
        number = number.fileno()
    if number < 0:  # the loop has seen it, and closed the socket
        return
    poller = select.poll()
    poller.register(number, select.POLLRDHUP)
    assert poller.poll(10_000)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize("driver", DRIVERS)
def test_nginx_closes_after_so_many_requests(driver, authority, tmp_path):
    """keepalive_requests: each third answer says `Connection: close`; POSTs are not lost by it."""

    async def conversation(client):
        ports = [(await client.ask("post", "json", {}))["port"] for _ in range(9)]
        assert [ports.index(port) for port in ports] == [0, 0, 0, 3, 3, 3, 6, 6, 6]

    with nginx(tmp_path, authority, requests=3) as server:
        converse(driver, server.ports[1], authority, conversation)


@pytest.mark.parametrize("driver", ["asyncio", "trio"])
def test_nginx_a_hundred_at_once(driver, web, authority):
    async def conversation(client):
        got = [None] * 100

        async def one(number):
            got[number] = (await client.ask("get", "json", {"n": number}))["n"]

        if driver == "trio":
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(one, number)
        else:
            await asyncio.gather(*map(one, range(100)))
        assert got == [str(number) for number in range(100)]

    converse(driver, web.ports[1], authority, conversation)


# --- uvicorn and hypercorn


@pytest.mark.parametrize("driver", DRIVERS)
def test_asgi_one_connection_serves_many_requests(driver, asgi, authority, tmp_path):
    (tmp_path / "local").write_bytes(bytes(1_000_000))

    async def conversation(client):
        answers = [await client.ask("get", "json", {"n": number}) for number in range(10)]
        assert [answer["query"] for answer in answers] == [f"n={number}" for number in range(10)]
        answers.append(await client.ask("upload", "json", tmp_path / "local", "/x"))
        assert answers[-1]["size"] > 1_000_000
        assert len({answer["port"] for answer in answers}) == 1

    converse(driver, asgi.ports[0], authority, conversation)


@pytest.mark.parametrize("driver", DRIVERS)
def test_asgi_chunked_answer(driver, asgi, authority, tmp_path):
    async def conversation(client):
        first = await client.ask("get", "json")
        saved = await client.ask("download", "chunked", tmp_path / "saved")
        assert saved["size"] == 500_000
        assert (tmp_path / "saved").read_bytes() == b"".join(bytes([number]) * 10_000 for number in range(50))
        assert (await client.ask("get", "json"))["port"] == first["port"]

    converse(driver, asgi.ports[0], authority, conversation)


@pytest.mark.parametrize("driver", DRIVERS)
def test_asgi_connection_close(driver, asgi, authority):
    async def conversation(client):
        ports = {(await client.ask("get", "close"))["port"] for _ in range(3)}
        assert len(ports) == 3

    converse(driver, asgi.ports[0], authority, conversation)


@pytest.mark.parametrize("driver", DRIVERS)
def test_asgi_answer_before_the_upload_is_finished(driver, asgi, authority, tmp_path):
    """It answers from the head alone and closes; what it said is the answer."""
    with open(tmp_path / "local", "wb") as file:
        file.truncate(30_000_000)

    async def conversation(client):
        assert await client.ask("upload", "early", tmp_path / "local", "/x") == {}
        assert (await client.ask("get", "json", {"n": 1}))["query"] == "n=1"

    converse(driver, asgi.ports[0], authority, conversation)


@pytest.mark.parametrize("driver", DRIVERS)
def test_asgi_application_fails_amid_its_answer(driver, asgi, authority, tmp_path):
    async def conversation(client):
        with pytest.raises(IncompleteError):
            await client.ask("download", "cut", tmp_path / "saved")
        assert list(tmp_path.iterdir()) == []
        assert (await client.ask("get", "json", {"n": 1}))["query"] == "n=1"

    converse(driver, asgi.ports[0], authority, conversation)


def test_the_servers_context_is_verified(authority):
    """The measure itself: the certificate that these servers show is worth what the authority says."""
    context = ssl.create_default_context(cafile=authority.ca_file)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
