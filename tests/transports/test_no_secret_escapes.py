"""The scan: marked secrets wherever a secret may be, and nowhere but in the one field line that is for them.

Every secret is a mark that occurs in no source text. Each scene makes calls, of which many fail; whatever
then can be looked at is looked at: what was logged by anybody at DEBUG, what listeners were told, what was
printed, and of errors, events and public objects their str, repr, vars, pickles and tracebacks, with the
locals of our own frames. A mark counts in any form: as it is, in hexadecimal, or within something that is
Base64.

Rules of this file: the servers tell what they received, so that what went out is looked at too; a caller's
own frames are the caller's business, and so is what a caller asks to be shown (the URL of an endpoint), and
the very object that a caller hands to a call, such as its `headers`, in the frames that it passes through.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import traceback
from hashlib import sha256
from pathlib import Path

import pytest
import trio

import agentrun_proto
import agentrun_transports
from agentrun_proto import (
    AccessKey,
    AccessToken,
    AgentRunClientError,
    Config,
    CredentialError,
    DataEndpoint,
    DecodeError,
    Headers,
    ProtocolError,
    Retry,
    Secret,
    StatusError,
    TimeoutExceeded,
    TLSError,
    TransportError,
)
from agentrun_transports import DataAPI, Proxies, ResourceType
from agentrun_transports.credentials import (
    CredentialChain,
    EnvironmentCredentials,
    StaticCredentials,
    credential_from_headers,
    request_credentials,
)
from agentrun_transports.emulator import Emulator
from agentrun_transports.testing import ScriptedServer
from agentrun_transports.testing.scripted import Step, Tell, answer
from proxy_servers import HTTPProxyServer

pytestmark = [pytest.mark.once, pytest.mark.hostile("calling-secrets", "published-secrets")]

OURS = tuple(str(Path(package.__file__).parent) for package in (agentrun_proto, agentrun_transports))
AT_ONCE = Retry(attempts=2, backoff=0.0)
OK = answer({"ok": True})

NAMES = (
    "access-key-secret",
    "security-token",
    "access-token",
    "resource-token",
    "proxy-password",
    "endpoint-password",
    "cookie",
    "authorization",
    "call-authorization",
    "fc-secret",
    "fc-token",
    "hook-token",
)


def mark(name):
    """A secret that is a field's own; letters and digits, which no URL encodes."""
    return "Mk" + sha256(name.encode()).hexdigest()[:20]


def forms(secret):
    """How a text may show: as it is, in hexadecimal, and inside of Base64 at any of its three alignments."""
    raw = secret.encode()
    found = [secret, raw.hex()]
    for lead in range(3):
        text = base64.b64encode(bytes(lead) + raw).decode().rstrip("=")
        found.append(text[(0, 2, 3)[lead] : len(text) - 2])  # what does not depend on its neighbours
    return found


FORMS = {name: forms(mark(name)) for name in NAMES}


def shown_in(text, marks=FORMS):
    """The marks that a text shows, in any form."""
    folded = text.lower()
    return {
        name
        for name, texts in marks.items()
        if texts[1] in folded or any(form in text for form in (texts[0], *texts[2:]))
    }


class Scan:
    """Collects whatever can be looked at, and where it came from."""

    def __init__(self):
        self.found = []
        self.looked_at = 0
        self.handed = []  # the very objects that the caller gave

    def look(self, where, text):
        self.looked_at += 1
        shown = shown_in(text)
        if shown:
            self.found.append((where, sorted(shown)))

    def thing(self, where, thing):
        """An object that a caller gets hold of."""
        self.look(f"{where}: str", str(thing))
        self.look(f"{where}: repr", repr(thing))
        self.look(f"{where}: format", f"{thing}")
        if hasattr(thing, "__dict__"):
            self.look(f"{where}: vars", repr(vars(thing)))
        try:
            pickled = pickle.dumps(thing)
        except Exception as error:  # much is refused, which is right
            self.look(f"{where}: refused pickle", "".join(traceback.format_exception(error)))
        else:
            self.look(f"{where}: pickle", pickled.decode("latin-1"))

    def listener(self, event):
        self.thing(f"event {type(event).__name__}", event)

    def error(self, error, where="error"):
        """An error with all that led to it: each of them, each frame's line, and each local of our frames."""
        self.look(f"{where}: traceback", "".join(traceback.format_exception(error)))
        seen, waiting = set(), [error]
        while waiting:
            each = waiting.pop()
            if each is None or id(each) in seen:
                continue
            seen.add(id(each))
            waiting += [each.__cause__, each.__context__]
            self.thing(f"{where} {type(each).__name__}", each)
            for frame, _ in traceback.walk_tb(each.__traceback__):
                code = frame.f_code
                if code.co_filename.startswith(OURS):
                    for name, value in frame.f_locals.items():
                        if any(value is own for own in self.handed):
                            continue
                        place = f"{Path(code.co_filename).name}:{code.co_name}, local {name}"
                        self.look(f"{where} {type(each).__name__}: {place}", _repr(value))

    def sent(self, server, allowed=()):
        """What a server received: marks are in the field lines that are for them, and nowhere else."""
        for request in server.requests:
            first, *fields = request.head.decode("latin-1").split("\r\n")
            self.look("request line", first)
            self.look("request body", request.body.decode("latin-1"))
            for line in fields:
                name = line.partition(":")[0].lower()
                wrong = {secret for secret in shown_in(line) if (name, secret) not in allowed}
                if wrong:
                    self.found.append((f"field {name} to port {server.port}", sorted(wrong)))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            assert self.looked_at > 0
            told = sorted({f"{where} shows {', '.join(shown)}" for where, shown in self.found})
            if told:
                pytest.fail("\n".join(told), pytrace=False)


def _repr(value):
    try:
        return repr(value)
    except Exception as error:  # as TracebackException does
        return type(error).__name__


class _Buffer(logging.Handler):
    """Every record of anybody, as it is written and as it is kept."""

    def __init__(self, scan):
        super().__init__(logging.DEBUG)
        self.scan = scan
        self.loggers = set()

    def emit(self, record):
        self.loggers.add(record.name.partition(".")[0])
        self.scan.look(f"log of {record.name}", self.format(record))
        self.scan.look(f"record of {record.name}", repr(vars(record)))


@pytest.fixture
def scan(monkeypatch, capfd):
    """Everything is logged at DEBUG, by asyncio too, and what is printed is looked at in the end."""
    for name in list(os.environ):
        if name.startswith(("AGENTRUN_", "ALIBABA_CLOUD_", "FC_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    with Scan() as made:
        buffer = made.buffer = _Buffer(made)
        level = root.level
        root.addHandler(buffer)
        root.setLevel(logging.DEBUG)
        try:
            yield made
        finally:
            root.removeHandler(buffer)
            root.setLevel(level)
        out, err = capfd.readouterr()
        made.look("stdout", out)
        made.look("stderr", err)


# --- the clients

LOOPS = [
    (loop, transport) for loop in ("blocking", "asyncio", "trio") for transport in ("native", "httpcore")
]
on_every_driver = pytest.mark.parametrize(("loop", "transport"), LOOPS)


def run_loop(loop, main):
    if loop == "trio":
        return trio.run(main)

    async def slow():
        # In debug mode, asyncio shows every callback that takes longer than this, with its arguments.
        asyncio.get_running_loop().slow_callback_duration = 0.0
        return await main()

    return asyncio.run(slow(), debug=True)


class Caller:
    """A client of one kind, and whatever it is asked, scanned."""

    def __init__(self, scan, loop, transport, config, kind=DataAPI, **options):
        self.scan = scan
        self.loop = loop
        options = {"listener": scan.listener, "transport": transport, **options}
        self.api = kind("name", ResourceType.Runtime, config, **options)
        self.errors = []
        scan.thing("config", config)
        scan.thing("client", self.api)
        scan.thing("endpoint", self.api.endpoint)
        for option in options.values():
            if type(option).__module__.startswith("agentrun_"):
                scan.thing("option", option)

    def __call__(self, method, *args, expect=None, **kwargs):
        """Makes a call; returns its answer, or what it raised, which must be what is expected."""
        self.scan.handed += [own for own in kwargs.values() if isinstance(own, dict)]
        try:
            if self.loop == "blocking":
                told = getattr(self.api, method)(*args, **kwargs)
            else:
                told = run_loop(self.loop, lambda: getattr(self.api, f"{method}_async")(*args, **kwargs))
        except Exception as error:
            if expect is None or not isinstance(error, expect):
                raise
            self.scan.error(error)
            self.errors.append(error)
            return error
        assert expect is None, f"{told} instead of {expect}"
        self.scan.thing("answer", told)
        return told


SECRETIVE = {"Cookie": f"session={mark('cookie')}", "Authorization": f"Bearer {mark('authorization')}"}
KEY = {
    "access_key_id": "id",
    "access_key_secret": mark("access-key-secret"),
    "security_token": mark("security-token"),
}
TOKEN = {"token": mark("access-token")}
# In which field each secret may be, at its own origin. An access key's secret is in none.
FIELDS = {
    ("cookie", "cookie"),
    ("authorization", "authorization"),
    ("authorization", "call-authorization"),
    ("authorization", "endpoint-password"),
    ("x-acs-security-token", "security-token"),
    ("x-acs-security-token", "fc-token"),
    ("agentrun-access-token", "access-token"),
    ("agentrun-access-token", "resource-token"),
    ("agentrun-access-token", "hook-token"),
}
CREDENTIALS = {"key": KEY, "token": TOKEN}


def config_for(server, **settings):
    """A config whose headers are secret, with retries that do not wait."""
    return Config(
        **{
            "data_endpoint": server if isinstance(server, str) else server.url,
            "headers": SECRETIVE,
            "retry": AT_ONCE,
            "timeout": 30.0,
            **settings,
        }
    )


ANSWERS = {
    "ok": (OK,),
    "busy": (answer({}, "503 Busy"), OK),
    "bad": (answer({"code": "ERR", "message": "m"}, "400 Bad"),),
    "unauthorised": (answer({}, "401 No"), answer({}, "401 No")),
    "forbidden": (answer({}, "403 No", "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), answer({}, "403 No")),
    "missing": (answer({}, "404 No"),),
    "limited": (
        answer({}, "429 Slow", "Retry-After: 0\r\n"),
        answer({}, "429 Slow", "Retry-After: 99999\r\n"),
    ),
    "html": (answer(b"<html>", "502 Bad Gateway"), answer(b"<html>", "502 Bad Gateway")),
    "no json": (answer(b"{"),),
    "array": (answer([1]),),
    "gzip": (answer(b"no gzip", fields="Content-Encoding: gzip\r\n"),),
    "garbage": (b"SSH-2.0-x\r\n\r\n", b"SSH-2.0-x\r\n\r\n"),
    "cut": ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", Step.CLOSE],) * 2,
    "closed": ([Step.CLOSE],) * 2,
    "reset": ([Step.RESET],) * 2,
    "redirected here": (answer(b"", "307 There", "Location: /elsewhere\r\n"), OK),
    "redirected nowhere": (answer(b"", "302 There", "Location: file:///etc/passwd\r\n"),),
}
RAISED = {
    "bad": StatusError,
    "unauthorised": StatusError,
    "forbidden": StatusError,
    "missing": StatusError,
    "limited": StatusError,
    "html": StatusError,
    "no json": DecodeError,
    "array": DecodeError,
    "gzip": DecodeError,
    "garbage": ProtocolError,
    "cut": TransportError,
    "closed": TransportError,
    "reset": TransportError,
    "redirected nowhere": StatusError,
}


@on_every_driver
@pytest.mark.parametrize("kind", CREDENTIALS)
def test_answers_of_every_kind(scan, loop, transport, kind):
    for name, script in ANSWERS.items():
        with ScriptedServer(*script) as server:
            caller = Caller(scan, loop, transport, config_for(server, **CREDENTIALS[kind]))
            caller("get", "r", expect=RAISED.get(name))
            scan.sent(server, FIELDS - {("authorization", "endpoint-password")})
            assert server.requests, name
    with ScriptedServer() as server:
        caller = Caller(scan, loop, transport, config_for(server, **CREDENTIALS[kind]))
        answered = caller("request", "GET", "r")
        scan.thing("headers", answered.headers)
    assert scan.buffer.loggers >= {"agentrun"} | {loop, transport} & {"asyncio", "httpcore"}


@on_every_driver
def test_what_a_request_itself_carries(scan, loop, transport):
    with ScriptedServer(answer({}, "404 No")) as server:
        caller = Caller(scan, loop, transport, config_for(server, **KEY))
        headers = {"Authorization": f"Bearer {mark('call-authorization')}"}
        caller("get", "r", headers=headers, expect=StatusError)
        caller("post", "r", {"a": 1}, headers=headers)
        bad = {"Authorization": f"Bearer {mark('call-authorization')}\n"}
        caller("get", "r", headers=bad, expect=ValueError)
        caller("get", "../r", headers=headers, expect=ValueError)
        caller("post", "r", {"a": float("nan")}, headers=headers, expect=ValueError)
        caller("get", "r", {"a": object()}, headers=headers, expect=TypeError)
        caller("get", "r", headers={**headers, "Host": "elsewhere"}, expect=ValueError)
        caller("get", "r", headers={**headers, "x-acs-date": "now"}, expect=ValueError)
        other = Config(access_key_id="id", access_key_secret=mark("access-key-secret"))
        caller("get", "r", config=other, headers=headers)
        half = Config(access_key_secret=mark("access-key-secret"))
        Caller(scan, loop, transport, config_for(server))("get", "r", config=half, expect=ValueError)
        scan.sent(server, FIELDS)
        assert len(server.requests) == 3


@on_every_driver
def test_files(scan, loop, transport, tmp_path):
    local = tmp_path / "local"
    local.write_bytes(b"x" * 300_000)
    with ScriptedServer(
        OK, answer({}, "413 Large"), [Step.EARLY, answer({}, "413 Large"), Step.CLOSE], answer(b"file"), OK
    ) as server:
        caller = Caller(scan, loop, transport, config_for(server, retry=Retry.never(), **KEY))
        caller("post_file", "r", local, "remote")
        caller("post_file", "r", local, "remote", expect=StatusError)
        caller("post_file", "r", local, "remote", expect=AgentRunClientError)
        caller("get_file", "r", tmp_path / "saved")
        caller("post_file", "r", tmp_path / "missing", "remote", expect=AgentRunClientError)
        caller("get_file", "r", tmp_path / "missing" / "saved", expect=AgentRunClientError)
        scan.sent(server, FIELDS)


@on_every_driver
@pytest.mark.parametrize("kind", CREDENTIALS)
def test_no_answer(scan, loop, transport, kind):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"  # nobody listens there
        caller = Caller(scan, loop, transport, config_for(closed, **CREDENTIALS[kind]))
        caller("get", "r", expect=TransportError)
    with ScriptedServer([Step.STALL]) as server:
        config = config_for(server, timeout=0.05, **CREDENTIALS[kind])
        Caller(scan, loop, transport, config)("get", "r", expect=TimeoutExceeded)
    with Emulator() as emulator:  # which does not speak TLS
        config = config_for(emulator.endpoint.replace("http:", "https:"), **CREDENTIALS[kind])
        Caller(scan, loop, transport, config)("get", "r", expect=TLSError)


@pytest.mark.hostile("calling-redirects")
@on_every_driver
@pytest.mark.parametrize("kind", CREDENTIALS)
def test_another_origin_is_told_nothing(scan, loop, transport, kind):
    with ScriptedServer() as other:
        for status, method, path in (
            ("302 There", "get", "a"),
            ("307 There", "get", "b"),
            ("303 There", "get", "c"),
        ):
            with ScriptedServer(answer(b"", status, f"Location: {other.url}/{path}\r\n")) as server:
                caller = Caller(scan, loop, transport, config_for(server, **CREDENTIALS[kind]))
                headers = {"Authorization": f"Bearer {mark('call-authorization')}"}
                caller(method, "r", headers=headers)
                scan.sent(server, FIELDS)
        with ScriptedServer(answer(b"", "307 There", f"Location: {other.url}/d\r\n")) as server:
            caller = Caller(scan, loop, transport, config_for(server, **CREDENTIALS[kind]))
            caller("post", "r", {"a": 1}, expect=StatusError)
        assert [request.target for request in other.requests] == ["/a", "/b", "/c"]
        scan.sent(other)  # with no field allowed


@on_every_driver
def test_user_info_in_an_endpoint(scan, loop, transport):
    with ScriptedServer(answer({}, "404 No")) as server:
        url = server.url.replace("//", f"//user:{mark('endpoint-password')}@")
        config = Config(data_endpoint=url, control_endpoint=url, retry=AT_ONCE, timeout=30.0)
        caller = Caller(scan, loop, transport, config)
        caller("get", "r", expect=StatusError)
        caller("get", "r")
        scan.sent(server, {("authorization", "endpoint-password")})
        assert len(server.requests) == 2
        caller("get", "r", headers={"Host": "h"}, expect=ValueError)
        hosted = config.merge(Config(headers={"Host": "h"}))
        scan.error(raised(lambda: DataEndpoint(hosted)))


class Hooked(DataAPI):
    """Authorises requests itself; its answer is `told(url, headers, query)`, or what that raises."""

    told = None

    def auth(self, url, headers, query, config=None):
        return self.told(url, {**headers, "Agentrun-Access-Token": mark("hook-token")}, query)


def _fail(url, headers, query):
    raise LookupError("the hook failed")


HOOKS = {
    "fine": lambda url, headers, query: (url, headers, query),
    "failing": _fail,
    "line break": lambda url, headers, query: (url, {**headers, "X-A": "a\nb"}, query),
    "other host": lambda url, headers, query: (url, {**headers, "Host": "elsewhere"}, query),
    "framing": lambda url, headers, query: (url, {**headers, "Content-Length": "1"}, query),
    "bad url": lambda url, headers, query: ("ftp://h/", headers, query),
    "no tuple": lambda url, headers, query: None,
}


@on_every_driver
@pytest.mark.parametrize("name", HOOKS)
def test_hooks(scan, loop, transport, name):
    kind = type("Hooking", (Hooked,), {"told": staticmethod(HOOKS[name])})
    with ScriptedServer() as server:
        caller = Caller(scan, loop, transport, config_for(server, **KEY), kind)
        caller("get", "r", expect=None if name == "fine" else Exception)
        scan.sent(server, FIELDS)
        assert len(server.requests) == (name == "fine")


# --- credentials that come and go


def key(name="access-key-secret", token="security-token"):
    return AccessKey(
        access_key_id="id", access_key_secret=Secret(mark(name)), security_token=Secret(mark(token))
    )


def broken():
    raise LookupError("no credential today")


class Given:
    """A provider of these, one after another; what is an exception is raised."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)

    def __call__(self):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@on_every_driver
def test_providers(scan, loop, transport):
    variables = {
        "AGENTRUN_ACCESS_KEY_ID": "id",
        "AGENTRUN_ACCESS_KEY_SECRET": mark("access-key-secret"),
        "AGENTRUN_SECURITY_TOKEN": mark("security-token"),
    }
    token = AccessToken(token=Secret(mark("access-token")), expires_at=0.0)
    for provider in (
        StaticCredentials(key()),
        StaticCredentials(token),
        EnvironmentCredentials(variables),
        CredentialChain(EnvironmentCredentials({}), StaticCredentials(key())),
    ):
        scan.thing("provider", provider)
        scan.thing("credential", provider())
        with ScriptedServer(answer({}, "401 No")) as server:
            caller = Caller(scan, loop, transport, config_for(server), credentials=provider)
            caller("get", "r", expect=StatusError)
            caller("get", "r")
            scan.sent(server, FIELDS)
    for provider in (
        EnvironmentCredentials({**variables, "AGENTRUN_ACCESS_KEY_ID": ""}),
        EnvironmentCredentials({**variables, "AGENTRUN_ACCESS_KEY_SECRET": mark("access-key-secret") + "\n"}),
        Given(LookupError("none")),
        Given(None),
        Given(mark("access-token")),
        Given({"secret": mark("access-key-secret")}),
    ):
        with ScriptedServer() as server:
            config = config_for(server, retry=Retry.never())
            caller = Caller(scan, loop, transport, config, credentials=provider)
            caller("get", "r", expect=CredentialError)
            assert server.requests == []


@on_every_driver
def test_a_refresh_that_comes_and_one_that_fails(scan, loop, transport):
    other = AccessKey(access_key_id="id-2", access_key_secret=Secret(mark("fc-secret")))
    with ScriptedServer(answer({}, "401 No")) as server:
        caller = Caller(scan, loop, transport, config_for(server), credentials=Given(key(), other))
        caller("get", "r")
        scan.sent(server, FIELDS)
        assert len(server.requests) == 2
    with ScriptedServer(answer({}, "401 No")) as server:
        provider = Given(key(), LookupError("no more"))
        caller = Caller(scan, loop, transport, config_for(server), credentials=provider)
        caller("get", "r", expect=AgentRunClientError)
        scan.sent(server, FIELDS)


@on_every_driver
def test_the_request_at_hand(scan, loop, transport):
    headers = {
        "x-fc-access-key-id": "id",
        "x-fc-access-key-secret": mark("fc-secret"),
        "x-fc-security-token": mark("fc-token"),
    }
    scan.thing("credential", credential_from_headers(headers))
    scan.handed.append(headers)
    with ScriptedServer(answer({}, "403 No")) as server, request_credentials(headers):
        caller = Caller(scan, loop, transport, config_for(server, **KEY))
        caller("get", "r", expect=StatusError)
        caller("get", "r")
        scan.sent(server, FIELDS)
    twice = {**headers, "X-Fc-Security-Token": "another"}
    bad = {**headers, "x-fc-security-token": mark("fc-token") + "\n"}
    scan.handed += [twice, bad]
    scan.error(raised(lambda: credential_from_headers(twice), CredentialError))
    scan.error(raised(lambda: credential_from_headers(bad), CredentialError))


TOKENS = {
    "fine": (answer({"data": {"accessToken": mark("resource-token")}}), None),
    "refused": (answer({"code": "ERR_FORBIDDEN"}, "403 No"), CredentialError),
    "cut": (answer(b'{"data": {"accessToken": "%s"' % mark("resource-token").encode()), CredentialError),
    "array": (answer([{"accessToken": mark("resource-token")}]), CredentialError),
    "bad token": (answer({"data": {"accessToken": mark("resource-token") + "\n"}}), CredentialError),
    "no token": (answer({"data": {"token": mark("resource-token")}}), CredentialError),
    "elsewhere": (
        answer({"data": {"accessToken": {"value": mark("resource-token")}}}),
        CredentialError,
    ),
}


@on_every_driver
@pytest.mark.parametrize("name", TOKENS)
def test_tokens_of_resources(scan, loop, transport, name):
    script, expected = TOKENS[name]
    with ScriptedServer(script) as control, ScriptedServer(answer({}, "404 No")) as server:
        config = config_for(server, control_endpoint=control.url, retry=Retry.never(), **KEY)
        caller = Caller(scan, loop, transport, config, use_access_token=True)
        caller("get", "r", expect=expected or StatusError)
        scan.sent(control, {("x-acs-security-token", "security-token")})  # and none of the config's headers
        scan.sent(server, FIELDS)
        assert (len(control.requests), len(server.requests)) == (1, expected is None)


# --- listeners that fail, calls that are given up


@on_every_driver
def test_a_listener_that_fails(scan, loop, transport):
    kinds = {kind.__name__ for kind in agentrun_proto.Event.__subclasses__()}
    for wanted in sorted(kinds):

        def listener(event, wanted=wanted):
            if type(event).__name__ == wanted:
                raise LookupError("the listener failed")

        with ScriptedServer(answer({}, "401 No"), answer({}, "503 Busy")) as server:
            settings = {"retry": Retry(attempts=4, backoff=0.0)}
            caller = Caller(
                scan,
                loop,
                transport,
                config_for(server, **settings),
                listener=listener,
                credentials=Given(key(), key("fc-secret", "fc-token")),
            )
            happens = wanted not in ("Redirected", "ClockAdjusted", "CredentialsRefreshFailed")
            caller("get", "r", expect=Exception if happens else None)
            scan.sent(server, FIELDS)


@pytest.mark.parametrize(("loop", "transport"), LOOPS[2:])
def test_a_cancellation(scan, loop, transport):
    arrived = threading.Event()
    with ScriptedServer([Tell(arrived), Step.STALL]) as server:
        caller = Caller(scan, loop, transport, config_for(server, **KEY))

        async def on_asyncio():
            task = asyncio.ensure_future(caller.api.get_async("r"))
            scan.thing("task", task)
            await asyncio.to_thread(arrived.wait)
            scan.look("task", repr(task))
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await task
            scan.error(cancelled.value)

        async def on_trio():
            async def call():
                try:
                    await caller.api.get_async("r")
                except trio.Cancelled as cancelled:
                    scan.error(cancelled)
                    raise

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await trio.to_thread.run_sync(arrived.wait)
                nursery.cancel_scope.cancel()

        run_loop(loop, on_trio if loop == "trio" else on_asyncio)
        scan.sent(server, FIELDS)


# --- proxies


@pytest.mark.parametrize("loop", ["blocking", "asyncio", "trio"])
def test_proxies(scan, loop):
    password = mark("proxy-password")
    with ScriptedServer() as server, HTTPProxyServer(("user", password)) as proxy:
        url = f"http://user:{password}@127.0.0.1:{proxy.port}"
        scan.thing("proxies", Proxies.all(url))
        caller = Caller(scan, loop, "httpcore", config_for(server, **KEY), proxy=None)
        api = DataAPI("r", ResourceType.Runtime, config_for(server, **KEY), proxy=url, listener=scan.listener)
        scan.thing("client", api)
        caller.api = api
        caller("get", "r")
        scan.sent(server, FIELDS)
        assert len(server.requests) == 1
    caller("get", "r", expect=TransportError)  # the proxy has gone
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        config = config_for("https://service.invalid", retry=Retry.never(), **KEY)
        url = f"http://user:{password}@127.0.0.1:{taken.getsockname()[1]}"
        caller.api = DataAPI("r", ResourceType.Runtime, config, proxy=url, listener=scan.listener)
        caller("get", "r", expect=TransportError)


@pytest.mark.parametrize("loop", ["blocking", "asyncio", "trio"])
def test_a_proxy_that_refuses(scan, loop):
    refusal = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
    with ScriptedServer(refusal) as proxy:
        config = config_for("https://service.invalid", retry=Retry.never(), **KEY)
        url = proxy.url.replace("//", f"//user:{mark('proxy-password')}@")
        caller = Caller(scan, loop, "httpcore", config_for(proxy), proxy=None)
        caller.api = DataAPI("r", ResourceType.Runtime, config, proxy=url, listener=scan.listener)
        caller("get", "r", expect=TransportError)
        scan.sent(proxy, {("proxy-authorization", "proxy-password")})
        assert len(proxy.requests) == 1


# --- what is wrong before anything is sent


def raised(function, kind=(ValueError, TypeError)):
    with pytest.raises(kind) as caught:
        function()
    return caught.value


SECRET = mark("access-key-secret")
PASSWORD = mark("endpoint-password")
# These are handed in as they are.
KEY_VARIABLES = {
    "AGENTRUN_ACCESS_KEY_ID": "a",
    "AGENTRUN_ACCESS_KEY_SECRET": SECRET,
    "AGENTRUN_REGION": "a b",
}
PROXY_VARIABLES = {"HTTPS_PROXY": f"ftp://u:{mark('proxy-password')}@host"}
PROXY_URL = f"ftp://user:{mark('proxy-password')}@host"
NATIVE_PROXY_URL = f"http://user:{mark('proxy-password')}@host"
PATH = f"http://user:{PASSWORD}@h/a"
HANDED = [KEY_VARIABLES, PROXY_VARIABLES, PROXY_URL, NATIVE_PROXY_URL, PATH]
MISUSE = {
    "protocol": lambda: Config(**KEY, protocol="ftp"),
    "timeout": lambda: Config(**TOKEN, timeout=-1),
    "timeout type": lambda: Config(**TOKEN, timeout="1"),
    "region": lambda: Config(**KEY, region_id="a b"),
    "secret with a line end": lambda: Config(access_key_id="id", access_key_secret=SECRET + "\n"),
    "secret that is bytes": lambda: Config(access_key_id="id", access_key_secret=SECRET.encode()),
    "token with a space": lambda: Config(token=mark("access-token") + " "),
    "a secret itself": lambda: Secret(SECRET + "\n"),
    "secret as bytes": lambda: Secret(SECRET.encode()),
    "access key": lambda: AccessKey(access_key_id="a b", access_key_secret=Secret(SECRET)),
    "access key with a line end": lambda: AccessKey(access_key_id="a", access_key_secret=SECRET + "\n"),
    "access token": lambda: AccessToken(token=mark("access-token") + "\n"),
    "header": lambda: Config(headers={"Cookie": mark("cookie") + "\n"}),
    "header type": lambda: Config(headers={"Cookie": [mark("cookie")]}),
    "header name": lambda: Config(headers={"Authorization: " + mark("authorization"): ""}),
    "half": lambda: DataEndpoint(Config(account_id="1", access_key_secret=SECRET)),
    "no account": lambda: DataEndpoint(Config(**KEY)),
    "two sources": lambda: DataEndpoint(Config(account_id="1", **KEY), credentials=broken),
    "namespace": lambda: DataEndpoint(Config(account_id="1", **KEY, headers=SECRETIVE), "a#b"),
    "reserved": lambda: DataEndpoint(Config(account_id="1", **KEY, headers={"x-acs-date": "1", **SECRETIVE})),
    "endpoint without scheme": lambda: Config(data_endpoint=f"user:{PASSWORD}@host/"),
    "endpoint with one slash": lambda: Config(data_endpoint=f"http:/user:{PASSWORD}@host/"),
    "endpoint with a space": lambda: Config(data_endpoint=f"http://user:{PASSWORD}@ho st/"),
    "endpoint with a port": lambda: Config(data_endpoint=f"http://user:{PASSWORD}@host:99999/"),
    "endpoint with a query": lambda: Config(data_endpoint=f"http://user:{PASSWORD}@host/?a=1"),
    "endpoint with a fragment": lambda: Config(data_endpoint=f"http://user:{PASSWORD}@host/#a"),
    "endpoint with dots": lambda: Config(data_endpoint=f"http://user:{PASSWORD}@host/../a"),
    "endpoint of another scheme": lambda: Config(data_endpoint=f"ftp://user:{PASSWORD}@host/"),
    "endpoint with a line break": lambda: Config(data_endpoint=f"http://user:{PASSWORD}@host/\n"),
    "origin with user info": lambda: Config(trusted_origins=[f"http://user:{PASSWORD}@host"]),
    "a URL as a path": lambda: DataEndpoint(Config(account_id="1")).url(PATH),
    "proxy scheme": lambda: Proxies.all(f"ftp://user:{mark('proxy-password')}@host"),
    "proxy port": lambda: Proxies.all(f"http://user:{mark('proxy-password')}@host:99999"),
    "proxy path": lambda: Proxies.all(f"http://user:{mark('proxy-password')}@host/path"),
    "proxy brackets": lambda: Proxies.all(f"http://user:{mark('proxy-password')}@[host"),
    "proxy variable": lambda: Proxies.from_env(PROXY_VARIABLES),
    "environment": lambda: Config.from_env(KEY_VARIABLES),
    "proxy of a client": lambda: DataAPI("r", ResourceType.Runtime, Config(account_id="1"), proxy=PROXY_URL),
    "proxy of a native client": lambda: DataAPI(
        "r",
        ResourceType.Runtime,
        Config(account_id="1", **KEY),
        proxy=NATIVE_PROXY_URL,
        transport="native",
    ),
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse(scan, name):
    scan.handed += HANDED
    scan.error(raised(MISUSE[name]))


def test_public_values(scan):
    config = Config(
        account_id="1",
        **KEY,
        headers=SECRETIVE,
        data_endpoint=f"http://user:{PASSWORD}@host/",
        control_endpoint=f"http://user:{PASSWORD}@host/",
    )
    scan.thing("config", config)
    scan.thing("config of endpoints", Config(data_endpoint=f"http://user:{PASSWORD}@host/"))
    scan.thing("headers", Headers({**SECRETIVE, "x-fc-security-token": mark("fc-token")}))
    scan.thing("proxies", Proxies.all(f"http://user:{mark('proxy-password')}@host"))
    scan.thing("proxy", Proxies.all(f"http://user:{mark('proxy-password')}@host").http)
    scan.thing("key", key())
    for settings in ({}, TOKEN, KEY):
        base = Config(account_id="1", headers=SECRETIVE, **settings)
        endpoint = DataEndpoint(base)
        request = endpoint.request("GET", "r", headers=SECRETIVE)
        for thing in (endpoint, request, endpoint.sign(request, 1.0), endpoint.identity, endpoint.standing):
            scan.thing(type(thing).__name__, thing)
    userinfo = DataEndpoint(Config(data_endpoint=f"http://user:{PASSWORD}@host/"))
    scan.thing("endpoint with user info", userinfo)
    scan.thing("its request", userinfo.request("GET", "r"))


# --- the command line, each time in a process of its own, with everything logged

PROGRAM = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from agentrun_transports.cli import main
sys.exit(main(sys.argv[1:]))
"""
ENVIRONMENT = {
    "AGENTRUN_ACCESS_KEY_ID": "id",
    "AGENTRUN_ACCESS_KEY_SECRET": mark("access-key-secret"),
    "AGENTRUN_SECURITY_TOKEN": mark("security-token"),
    "PYTHONASYNCIODEBUG": "1",
    "COLUMNS": "1000",
}


def command(*arguments, **variables):
    """Runs a command; returns its exit code and all that it printed."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AGENTRUN_", "ALIBABA_CLOUD_", "FC_")) and not name.lower().endswith("_proxy")
    }
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PROGRAM, *arguments],
        env={**inherited, **ENVIRONMENT, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


EMULATORS = {name: forms(name) for name in ("emulator-secret", "emulator-token")}


@pytest.mark.parametrize("faults", [[], ["--faults"]], ids=["plain", "faults"])
@pytest.mark.parametrize("driver", ["blocking", "asyncio", "trio"])
def test_the_demo(scan, driver, faults):
    code, printed = command("demo", "--driver", driver, *faults)
    assert code == 0, printed
    assert "DEBUG:agentrun:RequestSent" in printed
    scan.look("demo", printed)
    assert shown_in(printed, EMULATORS) == set()


FAILURES = {
    "get": (["get", "r"], 1, {}),
    "post": (["post", "r", "--data", "{}"], 1, {}),
    "header": (["get", "r", "--header", f"Authorization: Bearer {mark('call-authorization')}"], 1, {}),
    "bad header": (["get", "r", "--header", f"Authorization: {mark('call-authorization')}\x01"], 2, {}),
    "header without a name": (["get", "r", "--header", f"Bearer {mark('call-authorization')}"], 2, {}),
    "path": (["get", "../r"], 2, {}),
    "config": (["config"], 0, {}),
    "flag with user info": (["config", "--endpoint", f"http://user:{PASSWORD}@127.0.0.1:1/"], 0, {}),
    "closed": (["get", "r", "--endpoint", f"http://user:{PASSWORD}@127.0.0.1:1/"], 3, {}),
    "bad flag": (["get", "r", "--endpoint", f"http://user:{PASSWORD}@127.0.0.1:1/#a"], 2, {}),
    "flag without scheme": (["get", "r", "--endpoint", f"user:{PASSWORD}@127.0.0.1:1"], 2, {}),
    "bad variable": (["get", "r"], 2, {"AGENTRUN_REGION": "a b"}),
    "bad secret": (["get", "r"], 2, {"AGENTRUN_ACCESS_KEY_SECRET": mark("access-key-secret") + "\n"}),
    "half": (["get", "r"], 2, {"AGENTRUN_ACCESS_KEY_ID": ""}),
    "missing file": (["upload", "/nowhere/file", "r"], 2, {}),
}


@pytest.mark.parametrize("name", FAILURES)
def test_commands_that_fail(scan, name):
    arguments, expected, variables = FAILURES[name]
    refusal = answer({"code": "ERR_FORBIDDEN", "message": "m"}, "403 No")
    with ScriptedServer(refusal, refusal) as server:
        where = {"AGENTRUN_DATA_ENDPOINT": server.url}
        code, printed = command(*arguments, **where, **variables)
        scan.sent(server, FIELDS)
    assert code == expected, printed
    scan.look("command", printed)


def test_the_header_that_a_signature_is_made_of_is_not_in_it(scan):
    """`sign` shows the field lines that go out; the secret that makes them is not among them."""
    code, printed = command(
        "sign", "GET", "r", AGENTRUN_DATA_ENDPOINT="http://h/", AGENTRUN_SECURITY_TOKEN=""
    )
    assert (code, "Signature=" in printed) == (0, True)
    scan.look("sign", printed)


# --- the net


@pytest.mark.parametrize("name", NAMES)
def test_the_net_holds(name):
    """A mark is found in every form, wherever it stands, and in a local of one of our frames."""
    secret = mark(name)
    texts = [secret, f"x{secret}y", secret.encode().hex().upper(), repr(secret.encode())]
    texts += [base64.b64encode(f"{lead}{secret}{tail}".encode()).decode() for lead in ("", "u", "u:", "us:")
              for tail in ("", "@", "@h")]  # fmt: skip
    for text in texts:
        assert shown_in(text) == {name}
    for text in ("", "***", repr(Secret(secret)), sha256(secret.encode()).hexdigest()):
        assert shown_in(text) == set()
    scan = Scan()
    scan.error(raised(lambda: agentrun_proto.path_segment("..") or secret))
    assert scan.found == []
    scan.error(raised(lambda: agentrun_proto.merge_query("/", {"a": object(), "b": secret})))
    assert re.search(r"local query", scan.found[-1][0])
    assert scan.found[-1][1] == [name]
